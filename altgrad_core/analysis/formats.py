"""What the formats of a suite are in numbers: a row per format."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from altgrad_core.errors import UserError
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.collect import format_label
from altgrad_core.results.stored import StoredRun, StoredSuite


class _Numbers(BaseModel):
    model_config = ConfigDict(strict=True)

    bits: int
    scaled: bool
    exponent_bits: float | None
    mantissa_bits: float | None
    binades: float
    sqnr: float | None
    uniform: bool | None
    grid: str


COLUMNS = tuple(_Numbers.model_fields)


def format_table(suite: StoredSuite) -> pd.DataFrame:
    """The numbers of each format of a suite's runs, by the label that it has in the tables.

    They are what a run has stored of its format; see
    :func:`~altgrad_core.quantization.format_numbers.numbers_of`. Where no run has (whole ones), the format
    is built here, which imports torch, or left out if its plugin is not installed.
    """
    runs: dict[str, list[StoredRun]] = {}
    for run in suite.runs:
        runs.setdefault(format_label(run.spec), []).append(run)
    rows: dict[str, Mapping[str, object]] = {}
    for label, mine in runs.items():
        stored = next((one for one in map(_stored, mine) if one is not None), None)
        with suppress(UserError):
            rows[label] = _built(mine[0]) if stored is None else stored
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))
    measured = ["exponent_bits", "mantissa_bits", "binades", "sqnr"]
    return frame.astype(dict.fromkeys(measured, float))


def _stored(run: StoredRun) -> Mapping[str, object] | None:
    try:
        return _Numbers.model_validate(run.facts.get("format")).model_dump()
    except ValidationError:
        return None


def _built(run: StoredRun) -> Mapping[str, object]:
    from altgrad_core.quantization.format_numbers import numbers_of

    choice = run.spec.quantization.format
    return numbers_of(catalog().build("format", choice.name, choice.settings))
