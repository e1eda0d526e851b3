"""Words and numbers as readers meet them: a real minus sign, ``–`` for none, no long lists.

The verdict, sections and renderers share them, and sections of any author may import them. None claims
more than the numbers do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from altgrad_core.analysis.statistics import ALPHA, mean_of
from altgrad_core.analysis.statistics import MIN_SEEDS as MIN_SEEDS
from altgrad_core.analysis.statistics import spread as std_of
from altgrad_core.interfaces.blocks import Cell
from altgrad_core.interfaces.section import Findings, Question

NONE = "–"
MINUS = "\N{MINUS SIGN}"
LEVEL = f"{100 * (1 - ALPHA):g}\N{NO-BREAK SPACE}%"
"""The nominal coverage of intervals."""
_NAMED = 3
"""More groups than these are counted by format, where formats have several settings."""


VERDICTS = {
    "benefit": "benefit",
    "harm": "harm",
    "equivalent": "equivalent",
    "undecided": "cannot tell",
    "too few seeds": "too few seeds",
    "censored": "censored",
    "refused": "not comparable",
    "unfinished": "not finished",
    "nothing to test": "nothing to test",
}
"""What a reader is told for each verdict of the table of effects."""

ROLES = {"reference": "reference", "identical": "identical grid", "placebo": "placebo"}


def status(row: Mapping[Any, Any]) -> Cell:
    """How the runs of a condition ended, of its row in the table; marked where not all ended well."""
    return Cell(row["status"], tone="plain" if row["ok"] == row["runs"] else "bad")


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (divisor n − 1) of ``n`` values; NaN where undefined."""

    mean: float
    std: float
    n: int


def spread(values: Iterable[float]) -> Spread:
    """The spread of the values that are not NaN: no mean of none, no std from a single one."""
    known = [float(value) for value in values if not math.isnan(value)]
    mean = mean_of(known)
    return Spread(mean, math.nan if math.isinf(mean) else std_of(known), len(known))


def score(value: float, *, signed: bool = False) -> str:
    """A score, or a difference of two: four decimals; four significant digits from 10 on."""
    if not math.isfinite(value):
        return significant(value)
    decimals = 4 if abs(value) < 10 else max(0, 3 - math.floor(math.log10(abs(value))))
    text = f"{abs(value):.{decimals}f}"
    if float(text) == 0:
        return text
    return f"{MINUS if value < 0 else '+' if signed else ''}{text}"


def significant(value: float, digits: int = 3) -> str:
    """``digits`` significant digits, without an exponent between 0.001 and a million."""
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if -3 <= exponent < 6:
        text = f"{value:.{max(0, digits - 1 - exponent)}f}"
    else:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        text = f"{mantissa}e{int(power)}"
    return text.replace("-", MINUS)


def percent(value: float) -> str:
    """A ratio as a percentage, without the sign (the header has it): 3 significant digits."""
    return significant(100 * value)


def with_spread(values: Spread, *, signed: bool = False) -> str:
    """The mean ± std of a score, or of a difference of two; the mean alone where there is no std."""
    text = score(values.mean, signed=signed)
    return text if math.isnan(values.std) else f"{text} ± {score(values.std)}"


def counted(n: int, noun: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(words: Iterable[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *head, last = list(words)
    return f"{', '.join(head)} and {last}" if head else last


def group_names(chosen: Sequence[Mapping[str, Any]], every: Sequence[Mapping[str, Any]]) -> str:
    """Names of groups in a sentence; of many the formats, and how many settings of each, placebos aside."""
    names = [quoted(str(row["group"])) for row in chosen]
    mine = {str(row["group"]) for row in chosen}
    counting = [row for row in every if not row.get("placebo") or str(row["group"]) in mine]
    total = Counter(str(row["format"]) for row in counting)
    if len(chosen) <= _NAMED or max(total.values(), default=1) == 1:
        return named(names)
    if len(chosen) == len(every):
        return f"all {len(every)} settings"
    return listed(
        fmt
        if total[fmt] == 1
        else f"{fmt} ({'all' if count == total[fmt] else f'{count} of'} {total[fmt]} settings)"
        for fmt, count in Counter(str(row["format"]) for row in chosen).items()
    )


def named(names: Iterable[str], most: int = 6) -> str:
    """``a, b and c``; of many the first few, and how many more. Empty for none."""
    known = list(names)
    if len(known) <= most + 1:
        return listed(known) if known else ""
    return f"{', '.join(known[:most])} and {len(known) - most} more"


def quoted(label: str) -> str:
    """A group's name in a sentence: in quotation marks where it has commas of its own."""
    return f"“{label}”" if ", " in label else label


def interval_text(low: float, high: float) -> str:
    """``+0.0100 to +0.0300``; a dash where there is none."""
    if math.isnan(low) or math.isnan(high):
        return score(math.nan)
    return f"{score(low, signed=True)} to {score(high, signed=True)}"


def metric_label(found: Findings, column: str) -> str:
    """A score of the tables as a reader calls it: ``final/test/f1_micro`` -> ``F1 micro``.

    The name itself where the task declares no such metric.
    """
    name = column.rpartition("/")[2].partition("@")[0]
    labels = {metric.name: metric.label for metric in found.metrics}
    return labels.get(column) or labels.get(name) or column


def sides(asked: Question) -> str:
    """``manifold_adamw against adamw``."""
    return f"{asked.treatment} against {asked.baseline}"


def group_noun(found: Findings) -> str:
    """What a group is called: a format, where nothing but formats tells the groups apart."""
    return "setting" if found.effects["setting"].astype(bool).any() else "format"


def verdict_word(effect: Mapping[str, Any]) -> str:
    """The verdict on a row of the table of effects in a word or two; of a control what it is."""
    verdict, role = str(effect["verdict"]), str(effect["role"])
    return VERDICTS.get(verdict, verdict) if verdict else ROLES.get(role, role)
