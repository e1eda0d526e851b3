"""DDP and FSDP2, on two processes of the CPU."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from altgrad_core.errors import UserError
from altgrad_core.quantization.residency import keep_on_grid
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import dequantize_model, quantize_model
from altgrad_core.registry.build import load_format

E4M3 = load_format("e4m3")
WORLD = 2


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))


def batch(step: int, rank: int = 0) -> Tensor:
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(10 * step + rank))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, rank: int) -> None:
    for step in range(3):
        model(batch(step, rank)).pow(2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def data_parallel(rank: int) -> None:
    """Weights on the grid are the same everywhere, though the batches are not."""
    model = build()
    quantize_model(
        model,
        E4M3,
        residency="grid",
        rounding="stochastic",
        compensation=load_format("bf16"),
    )
    before = model[0].weight.detach().clone()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=1e-2)
    keep_on_grid(wrapped, optimizer, torch.Generator().manual_seed(0))
    steps(wrapped, optimizer, rank)
    mine = torch.cat([p.detach().flatten() for p in model.parameters()])
    all_of_them = [torch.empty_like(mine) for _ in range(WORLD)]
    dist.all_gather(all_of_them, mine)
    assert torch.equal(all_of_them[0], all_of_them[1])
    assert not torch.equal(model[0].weight, before)


def sharded(rank: int) -> None:
    """Masters in shards compute what a whole model does; what cannot work is refused."""
    mesh = init_device_mesh("cpu", (WORLD,))
    delayed = ScalingSettings(mode="delayed", granularity="channel")
    unscaled = load_format("bf16"), ScalingSettings()  # whose kernel reads the weights themselves
    for fmt, scaling in ((E4M3, ScalingSettings()), (E4M3, delayed), unscaled):
        whole = build()
        quantize_model(whole, fmt, activation_format=fmt, scaling=scaling)
        parts = copy.deepcopy(whole)
        for layer in (parts[0], parts[2], parts):
            fully_shard(layer, mesh=mesh)
        for model in (whole, parts):
            steps(model, torch.optim.SGD(model.parameters(), lr=0.1), 0)
        torch.testing.assert_close(parts(batch(9)), whole(batch(9)))
    with pytest.raises(UserError, match="'0' has become a FSDPQuantizedLinear"):
        dequantize_model(parts)

    late = build()
    fully_shard(late, mesh=mesh)
    with pytest.raises(UserError, match=r"0\.weight is spread over .*quantise the model first"):
        quantize_model(late, E4M3)

    on_grid = build()
    quantize_model(on_grid, E4M3, residency="grid")
    fully_shard(on_grid, mesh=mesh)
    with pytest.raises(UserError, match=r"0\.weight is spread over .*use residency: master"):
        keep_on_grid(on_grid, torch.optim.SGD(on_grid.parameters(), lr=0.1))


def process(rank: int, place: str, works: tuple[Any, ...]) -> None:
    """One after the other: what a process imports takes longer than the work."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{place}", rank=rank, world_size=WORLD)
    try:
        for work in works:
            work(rank)
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_gloo_available(), reason="torch was built without gloo")
def test_on_two_processes(tmp_path: Path) -> None:
    spawn(process, (str(tmp_path / "meet"), (data_parallel, sharded)), nprocs=WORLD)
