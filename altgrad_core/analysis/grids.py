"""Formats with the same grid: the A/A pairs whose difference is the noise floor of a report."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from itertools import combinations
from typing import TYPE_CHECKING

from altgrad_core.errors import UserError
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.collect import format_label
from altgrad_core.results.sources import Results, read_sources
from altgrad_core.results.stored import StoredSuite

if TYPE_CHECKING:
    from altgrad_core.interfaces.format import Format

_WIDEST = 16
"""Formats wider than this many bits are not listed value by value."""


def equal_grids(path: Results) -> tuple[tuple[str, str], ...]:
    """The pairs of :func:`same_grid_pairs` among the formats of the runs at ``path``."""
    return same_grid_pairs(formats_of(read_sources(path)))


def formats_of(suites: Iterable[StoredSuite]) -> dict[str, Format]:
    """The formats of the runs, by the label that they have in the tables.

    Imports torch, since it builds the formats. One whose plugin is not installed here is left out:
    results can be read on a machine that could not repeat them.
    """
    specs = {format_label(run.spec): run.spec for suite in suites for run in suite.runs}
    formats: dict[str, Format] = {}
    for label, spec in specs.items():
        choice = spec.quantization.format
        with suppress(UserError):
            formats[label] = catalog().build("format", choice.name, choice.settings)
    return formats


def same_grid_pairs(formats: Mapping[str, Format]) -> tuple[tuple[str, str], ...]:
    """Pairs of formats whose finite values are equal up to a power of two, by the names given here.

    Under power-of-two scales such formats must give the same result. Formats used at scale 1 count
    only if their values are equal outright. Formats of more than 16 bits are passed over.
    """
    narrow = {name: f for name, f in formats.items() if f.bits <= _WIDEST}
    grids = {name: _normalised(f) for name, f in narrow.items()}
    return tuple((a, b) for a, b in combinations(grids, 2) if grids[a] == grids[b])


def grid_of(fmt: Format) -> str:
    """A text that is equal for formats of the same grid; empty for one of more than 16 bits."""
    if fmt.bits > _WIDEST:
        return ""
    return hashlib.sha256(repr(_normalised(fmt)).encode()).hexdigest()[:12]


def _normalised(fmt: Format) -> tuple[bool, tuple[float, ...]]:
    """Finite values in order, divided by the power of two in the largest if the format is scaled.

    Dividing by a power of two is exact in float64, so equal grids compare equal.
    """
    values = sorted({v for v in fmt.code_values().tolist() if math.isfinite(v)})
    exponent = math.frexp(values[-1])[1] if fmt.scaled else 0
    return fmt.scaled, tuple(math.ldexp(v, -exponent) for v in values)
