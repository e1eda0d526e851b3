"""Part of :func:`~altgrad_core.testing.formats.check_format`: values stay, and nothing waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from altgrad_core.testing.format_probe import FormatProbe
from altgrad_core.testing.waits import Watch

_ASKED = {8: 100, 16: 10}
"""How often code values are asked for, of formats up to that many bits."""


def unchanged(p: FormatProbe, first: Tensor | None) -> None:
    """The code values after all that was asked, and after being asked many times."""
    if first is None:
        return
    times = next(count for bits, count in _ASKED.items() if p.fmt.bits <= bits)
    for asked in range(times):
        now = p.fmt.code_values()
        differs = ((now != first) & ~(now.isnan() & first.isnan())).nonzero()
        for code in differs[:1, 0].tolist():
            p.require(
                False,
                f"code {code} had the value {first[code].item()!r} and later, asked again "
                f"({asked + 1} times at the end), {now[code].item()!r}: compute the values from constants "
                f"and settings alone, and return a tensor that nothing else writes to.",
            )


def never_waits(p: FormatProbe) -> None:
    """Rounding, ULPs and rungs, after a first call that may copy tables to the device."""
    x = torch.cat([p.low, p.high, torch.tensor([math.nan, math.inf])]).to(p.device)
    rungs = p.lower.to(p.device)
    generator = torch.Generator(p.device).manual_seed(0)
    calls: dict[str, Callable[[], Tensor]] = {
        "round()": lambda: p.fmt.round(x),
        "stochastic round()": lambda: p.fmt.round(x, "stochastic", generator),
        "ulp()": lambda: p.fmt.ulp(x),
        "to_rung()": lambda: p.fmt.to_rung(x),
        "from_rung()": lambda: p.fmt.from_rung(rungs),
    }
    for name, call in calls.items():
        call()
        with Watch([x, rungs]) as watch:
            call()
        p.require(
            not watch.waits,
            f"{name} makes the host wait for the device, by {watch.waits}: use torch.where in place of an "
            f"index by a mask or an if.",
        )
