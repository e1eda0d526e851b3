"""Settings of the built-in optimizers. Free of torch, since planning reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, field_validator, model_validator

from altgrad_core.interfaces.plugin import Settings
from altgrad_core.quantization.settings import FormatChoice, as_format_choice

Beta = Annotated[float, Field(ge=0, lt=1)]
Implementation = Literal["auto", "fused", "foreach", "loop"]
Site = Literal["none", "pre", "post", "both"]

_SITE = "where the stiffness S enters: gradient (pre), update (post), or both"


class AdamWSettings(Settings):
    """Settings of ``adamw``; names and defaults are torch's."""

    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.999), description="how much of the two moments a step keeps"
    )
    eps: NonNegativeFloat = Field(
        1e-8, description="added to the root of the second moment, which is divided by"
    )
    weight_decay: NonNegativeFloat = Field(
        0.01, description="decoupled: each step multiplies weights by 1 - learning rate * this"
    )
    implementation: Implementation = Field(
        "auto", description="torch's kernels; auto is fused on CUDA and the CPU, foreach elsewhere"
    )


class StiffnessSettings(Settings):
    """How the stiffness S is found, for the optimizers that use it."""

    stiffness: Literal["grid", "textbook", "permuted", "constant", "borrowed"] = Field(
        "grid",
        description="grid: the gap to the next grid value; textbook: 2^(floor(log2|w|) - M); "
        "permuted: that of the grid, shuffled within the tensor; constant: its root mean square; "
        "borrowed: the gap on the grid of another format, borrowed_format",
    )
    borrowed_format: FormatChoice | None = Field(
        None, description="the format whose gaps are borrowed, for stiffness: borrowed"
    )
    normalize: Literal["rms", "none"] = Field(
        "rms", description="rms: divide S by its root mean square, per tensor"
    )
    max_stiffness: PositiveFloat | None = Field(
        None, description="upper limit of S, after normalisation; null: no limit"
    )

    @field_validator("borrowed_format", mode="before")
    @classmethod
    def _format(cls, value: Any) -> Any:
        return as_format_choice(value)

    @model_validator(mode="after")
    def _borrows_from_a_format(self) -> Self:
        if (self.stiffness == "borrowed") != (self.borrowed_format is not None):
            raise ValueError(
                "stiffness: borrowed and borrowed_format go together: give both, or none"
            )
        return self


class ManifoldAdamWSettings(StiffnessSettings, AdamWSettings):
    """Settings of ``manifold_adamw``."""

    enabled: bool = Field(True, description="false is AdamW, bit for bit")
    site: Site = Field("both", description=_SITE)
    track_position: bool = Field(
        True, description="keep each weight's starting position, 2 bytes each at 8 bits"
    )


class GridOptimSettings(AdamWSettings):
    """Settings of ``grid_optim``. ``betas`` and ``eps`` are for parameters that are on no grid."""

    momentum: Beta = Field(0.9, description="decay of the mean gradient in rungs")
    rms_decay: Beta = Field(0.99, description="decay of the tensor's mean square gradient in rungs")
    rungs_per_lr: PositiveFloat | None = Field(
        None,
        description="rungs per step = rungs_per_lr * learning_rate; null: learning_rate / rms(S)",
    )
    max_rungs: PositiveFloat = Field(4.0, description="no weight moves further in a step, in rungs")


class SGDSettings(StiffnessSettings):
    """Settings of ``sgd``; names and defaults are torch's, but for the stiffness."""

    momentum: Beta = Field(0.0, description="decay of the sum of gradients")
    nesterov: bool = Field(False, description="look ahead along the momentum, which must not be 0")
    weight_decay: NonNegativeFloat = Field(
        0.0, description="L2: weight_decay * w is added to the gradient"
    )
    site: Site = Field("none", description=_SITE)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov: true needs a momentum above 0")
        return self


class LionSettings(Settings):
    """Settings of ``lion``; betas are the paper's, the decay is that of ``adamw``."""

    betas: tuple[Beta, Beta] = Field(
        (0.9, 0.99), description="weight of the mean gradient in the step, and its decay"
    )
    weight_decay: NonNegativeFloat = Field(0.01, description="decoupled")


class MadamSettings(AdamWSettings):
    """Settings of ``madam``; the paper's defaults.

    ``betas``, ``eps``, ``weight_decay`` and ``implementation`` are for parameters on no grid.
    """

    square_decay: Beta = Field(0.999, description="decay of each weight's mean square gradient")
    g_bound: PositiveFloat = Field(10.0, description="limit of the normalised gradient")
    p_scale: PositiveFloat = Field(
        3.0, description="no weight grows beyond this many times its tensor's initial rms"
    )
    adamw_rate: PositiveFloat = Field(
        0.1, description="learning rate of parameters on no grid, in units of learning_rate"
    )
