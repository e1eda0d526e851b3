"""Settings of the built-in optimizers. Free of torch, since planning reads them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from altgrad_core.interfaces.plugin import Settings

Beta = Annotated[float, Field(ge=0, lt=1)]
Implementation = Literal["auto", "fused", "foreach", "loop"]
Site = Literal["none", "pre", "post", "both"]


class AdamWSettings(Settings):
    """Settings of ``adamw``; names and defaults are torch's."""

    betas: tuple[Beta, Beta] = (0.9, 0.999)
    eps: NonNegativeFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.01
    implementation: Implementation = Field(
        "auto", description="torch's kernels; auto is fused on CUDA and the CPU, foreach elsewhere"
    )


class ManifoldAdamWSettings(AdamWSettings):
    """Settings of ``manifold_adamw``."""

    enabled: bool = Field(True, description="false is AdamW, bit for bit")
    site: Site = Field(
        "both", description="where the stiffness S enters: gradient (pre), update (post), or both"
    )
    stiffness: Literal["grid", "textbook"] = Field(
        "grid",
        description="grid: the gap to the next grid value; textbook: 2^(floor(log2|w|) - M)",
    )
    normalize: Literal["rms", "none"] = Field(
        "rms", description="rms: divide S by its root mean square, per tensor"
    )
    max_stiffness: PositiveFloat | None = Field(
        None, description="upper limit of S, after normalisation; null: no limit"
    )
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
