"""What a format is in numbers, worked out from its values: the properties that a benefit may go with.

Signal to quantisation noise is that of one fixed tensor: ``N = 2^16`` normal quantiles
``x_i = Φ⁻¹((i + 1/2) / N)``, divided by the scale that maps the largest of them onto the format's
largest value (scale 1 for formats that are not scaled), rounded to nearest and scaled back:

    SQNR = 10 log₁₀(Σ x² / Σ (x − s·round(x/s))²)  in dB

It has no random part and needs no training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING

import pandas as pd

from altgrad_core.analysis.grids import formats_of, grid_of
from altgrad_core.results.stored import StoredSuite

if TYPE_CHECKING:
    from altgrad_core.interfaces.format import Format

_POINTS = 2**16
_LISTED = 16
"""Formats wider than this many bits are not listed value by value."""


@dataclass(frozen=True)
class FormatNumbers:
    """A format's properties.

    Attributes:
        bits: Width of a code.
        scaled: Whether tensors are scaled to its range; formats used at scale 1 are references.
        exponent_bits: NaN for a format that does not say so, such as a table of values.
        mantissa_bits: Likewise.
        binades: Its range, ``log2(largest / smallest positive)``.
        sqnr: Signal to quantisation noise of a normal tensor, in dB; see the module.
        uniform: Whether all neighbouring values are equally far apart, so that its stiffness is the
            same for every weight of a tensor. None for a format too wide to list.
    """

    bits: int
    scaled: bool
    exponent_bits: float
    mantissa_bits: float
    binades: float
    sqnr: float
    uniform: bool | None = None


def format_numbers(suites: Iterable[StoredSuite]) -> dict[str, FormatNumbers]:
    """The numbers of each format of the suites' runs, by the label it has in the tables.

    Imports torch. A format whose plugin is not installed here is left out.
    """
    return numbers_of(formats_of(suites))


def numbers_of(formats: Mapping[str, Format]) -> dict[str, FormatNumbers]:
    """The numbers of some formats."""
    return {
        name: FormatNumbers(
            bits=fmt.bits,
            scaled=fmt.scaled,
            exponent_bits=_fact(fmt, "exponent bits"),
            mantissa_bits=_fact(fmt, "mantissa bits"),
            binades=math.log2(fmt.max_finite) - math.log2(fmt.min_positive),
            sqnr=normal_sqnr(fmt),
            uniform=_uniform(fmt),
        )
        for name, fmt in formats.items()
    }


def format_table(suites: Iterable[StoredSuite]) -> pd.DataFrame:
    """The facts of each format of the suites' runs, by the label that it has in the tables.

    Columns are the attributes of :class:`FormatNumbers`, and ``grid``: a text that is equal for formats
    whose finite values are equal up to a power of two, empty for one too wide to list. Imports torch.
    A format whose plugin is not installed here is left out.
    """
    formats = formats_of(suites)
    rows = {
        name: asdict(one) | {"grid": grid_of(formats[name])}
        for name, one in numbers_of(formats).items()
    }
    columns = [*(one.name for one in fields(FormatNumbers)), "grid"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def normal_sqnr(fmt: Format) -> float:
    """Signal to quantisation noise of a normal tensor, in dB; inf where rounding changes nothing."""
    import torch

    places = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) / _POINTS
    x = torch.special.ndtri(places)
    scale = float(x.max()) / fmt.max_finite if fmt.scaled else 1.0
    error = x - scale * fmt.round(x / scale)
    noise = float(error.square().sum())
    return 10 * math.log10(float(x.square().sum()) / noise) if noise else math.inf


def _fact(fmt: Format, name: str) -> float:
    value = fmt.facts().get(name)
    return float(value) if isinstance(value, int | float) else math.nan


def _uniform(fmt: Format) -> bool | None:
    if fmt.bits > _LISTED:
        return None
    values = sorted({v for v in fmt.code_values().tolist() if math.isfinite(v)})
    gaps = {b - a for a, b in pairwise(values)}
    return len(gaps) == 1
