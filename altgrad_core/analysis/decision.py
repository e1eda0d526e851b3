"""The verdict: a paragraph that says what the tables carry, and nothing more.

In this order: a broken instrument, an unfinished suite or comparisons that are refused end it; then
what both sides do not share; then the answer. A format is said to gain most only where it is shown to
benefit, to gain more than the reference, and to gain more than every other one. The largest gain that
was seen is always quantified. What limits the claim follows: divergence, placebos, few seeds, the
error of the test set, learning rates.

The sentences are in ``verdict.txt.j2``; here it is decided of which groups they speak.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from altgrad_core.analysis.statistics import ALPHA, MIN_SEEDS, unseen_rate
from altgrad_core.analysis.words import (
    LEVEL,
    counted,
    group_names,
    interval_text,
    percent,
    quoted,
    score,
    sides,
    significant,
)
from altgrad_core.interfaces.section import Question

Row = Mapping[Any, Any]
"""A row of the table of effects."""


@dataclass(frozen=True)
class Progress:
    """How many runs can be made, and how many of them have a result."""

    planned: int
    done: int
    live: bool = False
    """Whether they are being watched: then nothing is tested, however many there are."""

    @property
    def complete(self) -> bool:
        """Whether all have one, and nobody looks before."""
        return self.done == self.planned > 0 and not self.live


def verdict_of(
    question: Question | None,
    effects: pd.DataFrame,
    twins: pd.DataFrame,
    progress: Progress,
    tuned: bool,
    exploratory: Sequence[str] = (),
) -> tuple[str, ...]:
    """The paragraph, in sentences.

    ``effects`` and ``twins`` are the tables, ``tuned`` says whether learning rates were tuned for each
    condition, ``exploratory`` why this is not the question that was declared.
    """
    if question is None:
        return ("The suite declares no contrast, so no format can be said to benefit.",)
    differ = twins[twins["status"] == "differ"].assign(
        apart=lambda table: table["difference"].abs()
    )
    text = _template().render(
        asked=question,
        sides=sides(question),
        margin=question.margin,
        groups=Groups(question, effects.to_dict("records")),
        differ=differ.sort_values("apart", ascending=False, kind="stable").to_dict("records"),
        compared=len(twins),
        progress=progress,
        tuned=tuned,
        exploratory=exploratory,
    )
    paragraphs = (part.strip() for part in re.split(r"\n{2,}", text))
    return tuple(part.replace("\n", " ") for part in paragraphs if part)


@dataclass(frozen=True)
class Groups:
    """The groups of a suite as the verdict speaks of them. Lists have the largest gain first."""

    question: Question
    rows: Sequence[Row]

    @property
    def tested(self) -> list[Row]:
        """The family."""
        return [row for row in self.rows if row["role"] == "tested"]

    def of(self, *verdicts: str) -> list[Row]:
        """The tested groups with one of these verdicts."""
        return sorted((row for row in self.tested if row["verdict"] in verdicts), key=_by_gain)

    @property
    def judged(self) -> list[Row]:
        """The tested groups with a difference that means something."""
        found = [r for r in self.tested if r["n"] and not (r["refused"] or r["censored"])]
        return sorted(found, key=_by_gain)

    @property
    def benefit(self) -> list[Row]:
        """Those shown to benefit by nothing but the treatment."""
        return [row for row in self.of("benefit") if not row["confounds"]]

    @property
    def need_grid(self) -> list[Row]:
        """Those of them that are shown to gain more than the reference."""
        return [row for row in self.benefit if row["needs_grid"] == "yes"]

    @property
    def most(self) -> Row | None:
        """The one of these that is shown to gain most."""
        return next((r for r in self.need_grid if r["best"] and r["best_p"] <= ALPHA), None)

    @property
    def most_over_reference(self) -> Row:
        """The group with the largest excess over its reference, of those that need the grid, if any do."""
        return max(
            self.need_grid or self.benefit, key=lambda row: _number_or(row["excess"], -math.inf)
        )

    @property
    def smallest_p(self) -> float:
        """The smallest p after Holm; NaN where nothing was tested."""
        known = (row["p_holm"] for row in self.judged if not math.isnan(row["p_holm"]))
        return min(known, default=math.nan)

    @property
    def diverged(self) -> list[Row]:
        """The groups of which runs diverged, those first whose treatment did so more often."""
        found = [r for r in self.tested if r["diverged_baseline"] or r["diverged_treatment"]]
        return sorted(found, key=lambda row: row["diverged_baseline"] - row["diverged_treatment"])

    @property
    def diverge_more(self) -> list[Row]:
        """The groups whose treatment diverges more often than their baseline."""
        return [r for r in self.judged if r["diverged_treatment"] > r["diverged_baseline"]]

    @property
    def placebos(self) -> list[Row]:
        """The placebos of groups that are shown to benefit."""
        shown = {row["group"] for row in self.of("benefit")}
        placebos = (row for row in self.rows if row["role"] == "placebo")
        return [row for row in placebos if row["reference_group"] in shown]

    @property
    def sampling_error(self) -> float:
        """The largest error of a mean gain that the choice of test examples makes; 0 if not known."""
        errors = (row["sampling_std"] for row in self.judged)
        return max((error for error in errors if not math.isnan(error)), default=0.0)

    @property
    def noun(self) -> str:
        """What a group is called: a format, where nothing but formats tells the groups apart."""
        return "setting" if any(row["setting"] for row in self.rows) else "format"

    @property
    def head(self) -> str:
        """What is compared: sides and metric."""
        lower = ", lower is better" if self.question.declared.direction == "lower" else ""
        return f"{sides(self.question)} in {self.question.declared.label}{lower}"

    def names(self, rows: Sequence[Row]) -> str:
        """Groups in a sentence; of many the formats, and how many settings of each."""
        return group_names(rows, self.rows)

    @staticmethod
    def by(column: str, rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
        """The texts in a column, in order of appearance, with the rows that have them."""
        found: dict[str, list[Row]] = {}
        for row in rows:
            if row[column]:
                found.setdefault(str(row[column]), []).append(row)
        return list(found.items())


def _by_gain(row: Row) -> float:
    return -_number_or(row["gain"], -math.inf)


def _number_or(value: float, otherwise: float) -> float:
    return otherwise if math.isnan(value) else float(value)


@functools.cache
def _template() -> Template:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (score, significant, quoted, percent, unseen_rate)
    made.filters |= {function.__name__: function for function in words}
    made.filters["signed"] = functools.partial(score, signed=True)
    made.tests["known"] = lambda value: not math.isnan(value)
    made.globals |= {"ALPHA": ALPHA, "MIN_SEEDS": MIN_SEEDS, "LEVEL": LEVEL, "inf": math.inf}
    made.globals |= {"counted": counted, "interval": interval_text}
    return made.get_template("verdict.txt.j2")
