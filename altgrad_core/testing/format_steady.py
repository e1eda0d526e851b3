"""Part of :func:`~altgrad_core.testing.formats.check_format`: values stay, and nothing waits for the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from altgrad_core.interfaces.format import LISTED_BITS, Format
from altgrad_core.interfaces.placement import is_closed_under_doubling
from altgrad_core.testing.format_probe import FormatProbe
from altgrad_core.testing.waits import Watch

_ASKED = {8: 100, 16: 10}
"""How often code values are asked for, of formats up to that many bits."""


def tables(fmt: Format) -> dict[str, Tensor]:
    """Copies of what a format that lists its codes answers: its values, and its thresholds if it has some."""
    if fmt.bits > LISTED_BITS:
        return {}
    between = fmt.thresholds()
    found = {"code_values()": fmt.code_values().clone()}
    return found if between is None else found | {"thresholds()": between.clone()}


def unchanged(p: FormatProbe, first: Mapping[str, Tensor]) -> None:
    """The tables after all that was asked, and after being asked many times."""
    times = next((count for bits, count in _ASKED.items() if p.fmt.bits <= bits), 1)
    for asked in range(times if first else 0):
        now = tables(p.fmt)
        for name, before in first.items():
            differs = ((now[name] != before) & ~(now[name].isnan() & before.isnan())).nonzero()
            for place in differs[:1, 0].tolist():
                what = (
                    f"code {place} had the value"
                    if name == "code_values()"
                    else f"{name}[{place}] was"
                )
                p.require(
                    False,
                    f"{what} {before[place].item()!r} and later, asked again ({asked + 1} times at the end), "
                    f"{now[name][place].item()!r}: compute the values from constants and settings alone, and return "
                    f"a tensor that nothing else writes to.",
                )


def placed(p: FormatProbe) -> None:
    """Where amax goes, and whether a scale may be halved."""
    headroom: object = p.fmt.headroom
    sound = isinstance(headroom, int | float) and 1 <= headroom < math.inf
    p.require(sound, f"headroom must be a number of at least 1, not {headroom!r}.")
    closed = p.listed and is_closed_under_doubling(p.fmt.code_values(), p.fmt.max_finite)
    p.require(
        closed or not p.fmt.closed_under_doubling,
        "closed_under_doubling is True, and twice some value is no value: with weights on the grid, a scale "
        "that is halved would move weights, and nothing would say so.",
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
