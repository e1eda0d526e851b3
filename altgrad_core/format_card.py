"""A format on one screen: its facts, where its values lie, and how far apart they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import Tensor

from altgrad_core.interfaces.format import LISTED_BITS, Format

WIDTH = 64
"""The most columns of a picture; with the margin they fit 80."""
_MARGIN = 10
_BLOCKS = " ▁▂▃▄▅▆▇█"


def format_card(fmt: Format, details: Mapping[str, Any] | None = None) -> RenderableType:
    """What ``altgrad-bench show format NAME`` prints: aligned facts and three pictures.

    ``details`` are the facts of the offer; what the format says of itself prevails. The
    pictures need 80 columns and no colour. They ask for nothing but rungs and ULPs, so they serve a
    format too wide to list its codes, too.
    """
    return Group(
        Text(f"{fmt.name}, {fmt.bits} bits", style="bold"),
        _table(format_facts(fmt, details)),
        Text(),
        *_linear_picture(fmt),
        Text(),
        *_binade_pictures(fmt),
    )


def number(value: float) -> str:
    """A value in a few digits, and as a power of two if it is one: ``0.015625 (2^-6)``."""
    short = f"{value:.7g}"
    mantissa, exponent = math.frexp(value)
    return f"{short} (2^{exponent - 1})" if mantissa == 0.5 and not 1 <= value <= 2 else short


def format_facts(fmt: Format, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What there is to say of a format, in order, as ``details`` and the format itself say it."""
    bottom, top = _ends(fmt)
    facts: dict[str, Any] = {**(details or {}), **fmt.facts()}
    facts.setdefault("largest", fmt.max_finite)
    facts.setdefault("smallest positive", fmt.min_positive)
    lowest = float(fmt.from_rung(torch.tensor(bottom)))
    if lowest != -fmt.max_finite:
        facts["lowest"] = lowest
    facts["rungs"] = f"{bottom} to {top}"
    if fmt.bits <= LISTED_BITS and fmt.thresholds() is not None:
        facts["nearest"] = "by thresholds of the format's own" + _to_zero(fmt)
    facts["scale"] = "fitted to each tensor" if fmt.scaled else "always 1"
    if fmt.scaled:
        room = "" if fmt.headroom == 1 else f" / {fmt.headroom:g}"
        facts["amax goes to"] = f"the largest value{room}"
        closed = "moves no value" if fmt.closed_under_doubling else "moves some values"
        facts["halved scale"] = f"{closed} of the grid"
    return facts


def _table(facts: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, value in facts.items():
        shown = "–" if value is None else number(value) if isinstance(value, float) else str(value)
        table.add_row(f"  {name}", shown)
    return table


def _to_zero(fmt: Format) -> str:
    """Whether the smallest numbers stay clear of zero, in words."""
    tiny = torch.tensor([2.0**-149, -(2.0**-149)])
    return "; only zero becomes zero" if bool((fmt.round(tiny) != 0).all()) else ""


def _linear_picture(fmt: Format) -> list[Text]:
    low, high = float(fmt.from_rung(torch.tensor(_ends(fmt)[0]))), fmt.max_finite
    edges = torch.linspace(low, high, WIDTH + 1, dtype=torch.float64)
    edges[-1] = math.inf  # the largest value belongs to the last column
    counts = _rank(fmt, edges).diff().tolist()
    most = max(counts)
    ends = f"{low:.6g}", f"{high:.6g}"
    return [
        Text(f"  Where the values lie, in {WIDTH} equal steps"),
        *_bars([count / most for count in counts], 3, (f"{most}", "0")),
        _row("", ends[0].ljust(WIDTH - len(ends[1])) + ends[1]),
    ]


def _binade_pictures(fmt: Format) -> list[Text]:
    first, last = math.frexp(fmt.min_positive)[1] - 1, math.frexp(fmt.max_finite)[1] - 1
    # One column, or several, for each binade; with too many binades, one for every n-th.
    every = math.ceil((last - first + 1) / WIDTH)
    exponents = list(range(first, last + 1, every))
    repeat = WIDTH // len(exponents)
    start = torch.tensor([math.ldexp(1, e) for e in exponents], dtype=torch.float64)
    counts = (_rank(fmt, 2 * start) - _rank(fmt, start)).double().log2().tolist()
    gaps = fmt.ulp(start).log2().tolist()
    labels = f"2^{first}", f"2^{last + 1}"
    width = repeat * len(exponents)
    return [
        Text("  Values in each binade 2^e to 2^(e + 1) of |w|: the relative precision"),
        *_log_bars(counts, 3, repeat),
        Text(),
        Text("  S(w), the gap to the next value: the absolute precision"),
        *_log_bars(gaps, 5, repeat),
        _row("", labels[0].ljust(width - len(labels[1])) + labels[1] + "  |w|"),
    ]


def _ends(fmt: Format) -> tuple[int, int]:
    bottom, top = fmt.to_rung(torch.tensor([-math.inf, math.inf])).tolist()
    return bottom, top


def _rank(fmt: Format, x: Tensor) -> Tensor:
    """The first rung at or above each ``x`` (float64); differences count the values between."""
    rung = fmt.to_rung(x).to(torch.int64)
    return rung + (fmt.from_rung(rung).double() < x)


def _log_bars(logs: Sequence[float], rows: int, repeat: int) -> list[Text]:
    """Bars for numbers given by their base-2 logarithms; an empty bar for the logarithm of 0."""
    finite = [log for log in logs if log > -math.inf]
    least, most = min(finite), max(finite)
    repeated = [log for log in logs for _ in range(repeat)]
    if most == least:
        return _bars([float(log == most) for log in repeated], 1, (_power(most), ""))
    shares = [max((log - least) / (most - least), 0.01) if log >= least else 0 for log in repeated]
    return _bars(shares, rows, (_power(most), _power(least)))


def _power(log: float) -> str:
    return f"2^{log:.4g}"


def _bars(shares: Sequence[float], rows: int, labels: tuple[str, str]) -> list[Text]:
    """A bar chart from shares of the height in [0, 1]; ``labels`` stand at its top and bottom row.

    What is not zero is at least one eighth of a row high.
    """
    eighths = [max(round(share * rows * 8), 1) if share > 0 else 0 for share in shares]
    lines = []
    for row in range(rows):
        base = (rows - 1 - row) * 8
        blocks = "".join(_BLOCKS[min(max(height - base, 0), 8)] for height in eighths)
        label = labels[0] if row == 0 else labels[1] if row == rows - 1 else ""
        lines.append(_row(label, blocks))
    return lines


def _row(label: str, line: str) -> Text:
    return Text(f"{label:>{_MARGIN}} {line}", no_wrap=True, overflow="crop")
