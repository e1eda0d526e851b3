"""Formats that state their numbers and round by them: what a kernel may do for them without asking.

Whether that is so is tried once for each format, on the CPU, so that it holds for formats of any author.
"""

from __future__ import annotations

import torch

from altgrad_core.interfaces.format import LISTED_BITS, Format
from altgrad_core.quantization.kernels import backends
from altgrad_core.quantization.kernels.numbers import GridNumbers

_FOUND = "_stated_numbers"
"""Where a format keeps the answer: one that is compared by its fields need have no hash."""
_SEED = 0


def stated_numbers(fmt: Format) -> GridNumbers | None:
    """The grid by which ``fmt`` rounds float32, to nearest and stochastically; None where it has none or does not."""
    kept = vars(fmt)
    if _FOUND not in kept:
        kept[_FOUND] = _tried(fmt) if fmt.bits <= LISTED_BITS else None
    found: GridNumbers | None = kept[_FOUND]
    return found


def _tried(fmt: Format) -> GridNumbers | None:
    numbers = getattr(fmt, "numbers", None)
    if not isinstance(numbers, GridNumbers) or numbers.max_value != fmt.max_finite:
        return None
    values = fmt.code_values().float()
    values = torch.unique(values[values.isfinite()])
    middles = values[1:] / 2 + values[:-1] / 2
    ends = torch.tensor([torch.inf, -torch.inf, torch.nan, 3e38, -3e38, 1e-45, -0.0], device="cpu")
    points = torch.cat([values, middles])
    sides = [torch.nextafter(points, end) for end in ends[:2]]
    x = torch.cat([points, *sides, ends])
    ours, theirs = (torch.Generator("cpu").manual_seed(_SEED) for _ in range(2))
    pairs = (
        (fmt.round(x), backends.round_nearest(x, numbers)),
        (fmt.round(x, "stochastic", ours), backends.round_stochastic(x, numbers, theirs)),
    )
    same = all(a.equal(b) or _same(a, b) for a, b in pairs)
    return numbers if same and torch.equal(ours.get_state(), theirs.get_state()) else None


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    broken = a.isnan()
    sound = [one.masked_fill(broken, 0).view(torch.int32) for one in (a, b)]
    return torch.equal(broken, b.isnan()) and torch.equal(*sound)
