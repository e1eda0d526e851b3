"""Built-in executors: the offers. Free of torch."""

from __future__ import annotations

from altgrad_core.interfaces.plugin import Need, Offer, hookimpl
from altgrad_plugins.executors.settings import RaySettings, SlurmSettings


@hookimpl
def altgrad_executors() -> list[Offer]:
    """Child processes on this machine, and on others."""
    return [
        Offer(
            name="local",
            summary="child processes on this machine, --workers at a time",
            target="altgrad_plugins.executors.local:LocalExecutor",
        ),
        Offer(
            name="fresh",
            summary="as local, but each imports everything anew: slower, and never forked",
            target="altgrad_plugins.executors.local:FreshExecutor",
        ),
        Offer(
            name="ray",
            summary="on the machines and GPUs of a Ray cluster; a lost node's runs go on elsewhere",
            target="altgrad_plugins.executors.ray_cluster:RayExecutor",
            settings=RaySettings,
            needs=(Need("module", "ray", "pip install 'altgrad-bench[ray]'"),),
            example={"address": "local"},
        ),
        Offer(
            name="slurm",
            summary="as array jobs of a Slurm cluster, queued again at their time limit",
            target="altgrad_plugins.executors.slurm:SlurmExecutor",
            settings=SlurmSettings,
            needs=(Need("module", "submitit", "pip install 'altgrad-bench[slurm]'"),),
            example={"cluster": "local"},
        ),
    ]
