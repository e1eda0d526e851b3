"""Settings of the built-in executors. Nothing heavy is imported here."""

from __future__ import annotations

from pydantic import Field, NonNegativeFloat, field_validator

from altgrad_core.interfaces.plugin import Settings


class RaySettings(Settings):
    """Settings of ``ray``: the cluster, and what each run asks it for."""

    address: str = Field(
        "auto",
        description="auto: the cluster of RAY_ADDRESS, or that this machine belongs to; HOST:PORT of its head; "
        "local: one of this machine's own, for as long as the suite runs",
    )
    cpus: float = Field(1.0, ge=0, description="CPUs that a run asks for")
    gpus: float | None = Field(
        None,
        ge=0,
        description="GPUs that a run asks for; 0.5 lets two share one; null is 1 where the cluster has GPUs, else 0",
    )
    memory_gb: float = Field(0.0, ge=0, description="memory that a run asks for, in GB")
    resources: dict[str, NonNegativeFloat] = Field(
        default_factory=dict, description="other resources of nodes that a run asks for, by name"
    )
    moves: int = Field(
        10, ge=0, description="how often a run may go on elsewhere, when its node was lost"
    )
    patience: float = Field(
        5.0,
        ge=0,
        description="minutes to wait for a node, when none is left that has what a run asks for",
    )

    @field_validator("address")
    @classmethod
    def _no_client(cls, value: str) -> str:
        if value.startswith("ray://"):
            raise ValueError(
                "a Ray client cannot watch runs: start the suite on a machine of the cluster, by hand or with "
                "`ray job submit`"
            )
        return value
