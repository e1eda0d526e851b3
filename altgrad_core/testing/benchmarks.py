"""How fast a format is, for pytest-benchmark (or any other timer) in the repository of its author."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from altgrad_core.execution.format_work import ELEMENTS, WORK, format_work
from altgrad_core.interfaces.format import Format

__all__ = ["ELEMENTS", "WORK", "format_benchmarks"]


def format_benchmarks(
    fmt: Format | None,
    device: str | torch.device = "cpu",
    *,
    elements: int = ELEMENTS,
    names: Iterable[str] = WORK,
) -> list[tuple[str, Callable[[], object]]]:
    """``(name, call)`` for each kind of work that ``altgrad-bench speed formats`` times.

    Their names are ``WORK``: rounding a tensor of ``elements`` float32 to nearest and stochastically,
    encoding and decoding it, a quantised linear layer with as many weights, forward and with its backward
    pass, and a training step of a small encoder with AdamW. Without a format (None) it is what these are
    compared with: ``copy``, and the layer and the step in float32.

    Every call waits for the device. Set ``torch.set_num_threads`` yourself.
    """
    place = torch.device(device)
    made = format_work(fmt, place, elements=elements, names=names)
    return [(name, _waiting(call) if place.type == "cuda" else call) for name, call in made.items()]


def _waiting(call: Callable[[], object]) -> Callable[[], object]:
    def waiting() -> object:
        result = call()
        torch.cuda.synchronize()
        return result

    return waiting
