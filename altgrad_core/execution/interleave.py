"""Timing calls in turn, in one process, so that a machine whose speed drifts slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import torch

WARMUP = 3
"""Rounds that are not kept."""

K = TypeVar("K", bound=Hashable)


def timed(call: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of a call, with all that it starts on ``device``."""
    _wait(device)
    start = time.perf_counter()
    call()
    _wait(device)
    return 1000 * (time.perf_counter() - start)


def interleaved(
    calls: Mapping[K, Callable[[], object]], device: torch.device, *, rounds: int
) -> dict[K, list[float]]:
    """Milliseconds of each call, one for each round; in a round each is called once, in turn."""
    times: dict[K, list[float]] = {name: [] for name in calls}
    for number in range(WARMUP + rounds):
        for name, call in calls.items():
            spent = timed(call, device)
            if number >= WARMUP:
                times[name].append(spent)
    return times


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
