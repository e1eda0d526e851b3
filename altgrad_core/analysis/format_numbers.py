"""What a format is in numbers, worked out from its values: the properties that a benefit may go with.

Signal to quantisation noise is that of one fixed tensor: ``N = 2^16`` normal quantiles
``x_i = Φ⁻¹((i + 1/2) / N)``, divided by the scale that maps the largest of them to where the format wants
it, its largest value over its headroom (scale 1 for formats that are not scaled), rounded to nearest and
scaled back:

    SQNR = 10 log₁₀(Σ x² / Σ (x − s·round(x/s))²)  in dB

It has no random part and needs no training.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pandas as pd

from altgrad_core.errors import UserError
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.collect import format_label
from altgrad_core.results.stored import StoredSuite

if TYPE_CHECKING:
    from altgrad_core.interfaces.format import Format

COLUMNS = (
    *("bits", "scaled", "exponent_bits", "mantissa_bits", "binades", "sqnr", "uniform", "grid"),
)
_POINTS = 2**16
_LISTED = 16
"""Formats wider than this many bits are not listed value by value."""


def format_table(suites: Iterable[StoredSuite]) -> pd.DataFrame:
    """The facts of each format of the suites' runs, by the label that it has in the tables.

    Imports torch, since it builds the formats. One whose plugin is not installed here is left out:
    results can be read on a machine that could not repeat them. The columns are those of
    :func:`numbers_of`.
    """
    specs = {format_label(run.spec): run.spec for suite in suites for run in suite.runs}
    rows: dict[str, dict[str, object]] = {}
    for label, spec in specs.items():
        choice = spec.quantization.format
        with suppress(UserError):
            rows[label] = numbers_of(catalog().build("format", choice.name, choice.settings))
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))


def numbers_of(fmt: Format) -> dict[str, object]:
    """A format's properties, by the names of ``COLUMNS``.

    - ``bits``: width of a code; ``scaled``: whether tensors are scaled to its range (formats used at
      scale 1 are references);
    - ``exponent_bits``, ``mantissa_bits``: NaN for a format that does not say so, such as a table;
    - ``binades``: its range, ``log2(largest / smallest positive)``; ``sqnr``: in dB, see the module;
    - ``uniform``: whether all neighbouring values are equally far apart, so that its stiffness is the
      same for every weight of a tensor; None for one of more than 16 bits, which is not listed;
    - ``grid``: a text that is equal for formats with the same grid: their finite values are equal up to
      a power of two, or outright for formats used at scale 1; empty for one of more than 16 bits.
    """
    values = (
        sorted({v for v in fmt.code_values().tolist() if math.isfinite(v)})
        if fmt.bits <= _LISTED
        else []
    )
    facts = fmt.facts()
    found = {name: facts.get(name.replace("_", " ")) for name in ("exponent_bits", "mantissa_bits")}
    return {
        "bits": fmt.bits,
        "scaled": fmt.scaled,
        **{n: float(v) if isinstance(v, int | float) else math.nan for n, v in found.items()},
        "binades": math.log2(fmt.max_finite) - math.log2(fmt.min_positive),
        "sqnr": normal_sqnr(fmt),
        "uniform": len({b - a for a, b in pairwise(values)}) == 1 if values else None,
        "grid": _grid(values, scaled=fmt.scaled) if values else "",
    }


def normal_sqnr(fmt: Format) -> float:
    """Signal to quantisation noise of a normal tensor, in dB; inf where rounding changes nothing."""
    import torch

    from altgrad_core.interfaces.placement import normal_sample, sqnr

    largest = fmt.max_finite
    headroom = fmt.headroom if fmt.scaled else largest / float(normal_sample(_POINTS).max())
    return float(sqnr(fmt.round, largest, torch.tensor([headroom], dtype=torch.float64), _POINTS))


def _grid(values: Sequence[float], *, scaled: bool) -> str:
    """A digest of the values, divided by the power of two in the largest if the format is scaled.

    Dividing by a power of two is exact in float64, so equal grids are equal here.
    """
    exponent = math.frexp(values[-1])[1] if scaled else 0
    normalised = (scaled, [math.ldexp(value, -exponent) for value in values])
    return hashlib.sha256(repr(normalised).encode()).hexdigest()[:12]
