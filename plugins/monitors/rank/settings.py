"""Settings of the monitors of rank. Free of torch, since planning reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from altgrad_plugins.monitors.settings import LayerSettings


class RankSettings(LayerSettings):
    """Settings of ``rank``."""

    interval: PositiveInt = Field(100, description="steps between measurements")
    of: Literal["quantized", "master"] = Field(
        "quantized", description="the matrix that the forward pass uses, or its float32 master"
    )
    estimator: Literal["gram", "power", "exact"] = Field(
        "gram",
        description="gram: eigenvalues of the smaller Gram matrix; exact: all singular values; "
        "power: power iteration, for large matrices, without effective rank",
    )
    iterations: PositiveInt = Field(
        10, description="of estimator: power, per measurement; ten times as many at the first"
    )
    collapse: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="warn when the rank falls below this fraction of what it is relative to; 0: never",
    )
    relative_to: Literal["start", "twin"] = Field(
        "start",
        description="start: the first value of the layer; twin: the float32 master at the same step",
    )
    critical: tuple[str, ...] = Field(
        (), description="fnmatch patterns of the weights that critical_collapse is for"
    )
    critical_collapse: float = Field(
        0.8, ge=0, lt=1, description="like collapse, for the critical weights"
    )

    @model_validator(mode="after")
    def _judged_by_something(self) -> RankSettings:
        warns = self.collapse > 0 or bool(self.critical and self.critical_collapse > 0)
        if self.estimator == "power" and self.relative_to == "start" and warns:
            raise ValueError(
                "estimator: power gives no effective rank, by which a collapse since the start is "
                "judged. Set collapse: 0 for no warnings, or relative_to: twin, or estimator: gram"
            )
        if self.relative_to == "twin" and self.of == "master":
            raise ValueError(
                "relative_to: twin compares the quantised matrix with its master, so it needs "
                "of: quantized"
            )
        return self
