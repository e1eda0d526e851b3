"""The ``training`` section of a suite. Free of torch, since planning reads it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from altgrad_core.interfaces.plugin import Settings


class TrainingSettings(Settings):
    """How long and how fast a run trains, and when it looks up."""

    batch_size: PositiveInt = 16
    learning_rate: PositiveFloat = Field(
        2e-5, description="the peak; in a suite also auto: tuned for each condition, see tune"
    )
    max_steps: PositiveInt = 5000
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up to learning_rate")
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_grad_norm: PositiveFloat | None = Field(None, description="clip gradients to this L2 norm")
    eval_interval: PositiveInt = Field(500, description="steps between evaluations")
    eval_batch_size: PositiveInt = 64
    log_interval: PositiveInt = Field(10, description="steps between logged losses")
    checkpoint_interval: PositiveInt = Field(500, description="steps between checkpoints")
    precision: Literal["auto", "bf16", "fp32"] = Field(
        "auto", description="autocast; auto is bf16 on CUDA and fp32 on the CPU"
    )
    cuda_graphs: Literal["auto", "off"] = Field(
        "auto",
        description="capture forward and backward passes as CUDA graphs where that can be: the same bits, sooner",
        json_schema_extra={"identity": False},
    )
    divergence_patience: PositiveInt = Field(
        10, description="consecutive steps with a NaN or inf loss that end the run as diverged"
    )
