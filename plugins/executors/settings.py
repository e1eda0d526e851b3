"""Settings of the built-in executors. Nothing heavy is imported here."""

from __future__ import annotations

from typing import Literal

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


class SlurmSettings(Settings):
    """Settings of ``slurm``: what each task asks for, and how runs are made into tasks. Null is left to Slurm."""

    cluster: Literal["slurm", "local"] = Field(
        "slurm", description="local: processes on this machine in place of Slurm's, to try a suite"
    )
    partition: str | None = Field(None, description="partition to submit to")
    account: str | None = Field(None, description="account to charge")
    qos: str | None = Field(None, description="quality of service")
    constraint: str | None = Field(None, description="features that nodes must have")
    cpus: int = Field(1, ge=1, description="CPUs of a task")
    gpus: int | None = Field(
        None, ge=0, description="GPUs of a task; null is 1 where the partition has GPUs, else 0"
    )
    memory_gb: float | None = Field(None, gt=0, description="memory of a task, in GB")
    time: int = Field(60, ge=1, description="minutes until a task is queued again")
    notice: int = Field(
        90, ge=1, description="seconds before that at which the run is asked for a checkpoint"
    )
    requeues: int = Field(1000, ge=0, description="how often a task is queued again at most")
    batch: int = Field(
        1, ge=1, description="runs that one task makes, one after another, and imports once"
    )
    array: int = Field(
        1000, ge=1, description="tasks of one array job; Slurm's MaxArraySize bounds it"
    )
    options: dict[str, str | int] = Field(
        default_factory=dict, description="other options of sbatch, such as {nice: 100}"
    )
    setup: tuple[str, ...] = Field(
        (), description="shell commands before each task, such as: module load cuda"
    )
    poll: float = Field(5.0, gt=0, description="seconds between two looks at the queue")
