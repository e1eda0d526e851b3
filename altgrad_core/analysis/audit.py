"""What the two sides of a comparison share, and what they do not.

A pair is a comparison of the question's axis if nothing else differs. What is compared: all settings
of the runs but those that the question is about (its axis; where that is the optimizer's type, all
settings of the optimizers, which are the treatment), package versions, device, threads, the parts that
batches were cut into for want of memory, and the fingerprint of the data. A learning rate that was tuned for each
condition is part of the protocol;
one that was set by hand and differs is a difference like any other.

*Refused* is what makes a comparison meaningless: other data on the two sides, several runs for one
seed, or a learning rate that is not the one which ``tuning.json`` says was chosen.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from altgrad_core._axis import OPTIMIZER_AXIS
from altgrad_core.analysis.design import Group
from altgrad_core.interfaces.section import Question
from altgrad_core.results.attempts import changes, parts_of_batches
from altgrad_core.results.differences import MISSING, differing, flat, some
from altgrad_core.results.kept import StoredTuning, TunedCondition
from altgrad_core.results.run_directory import FINISHED

_RATE = "training.learning_rate"
_SHOWN = 4
_HARMLESS = (
    "training.eval_interval",
    "training.eval_batch_size",
    "training.log_interval",
    "training.checkpoint_interval",
)
"""Settings that change what is recorded and not what is trained."""


@dataclass(frozen=True)
class Audit:
    """What is wrong with one group: ``confounds`` is named beside its numbers, ``refused`` ends it."""

    confounds: str = ""
    refused: str = ""
    censored: str = ""


def audit(group: Group, question: Question, tuning: StoredTuning | None = None) -> Audit:
    """Compare the two sides of a group, pair by pair."""
    found: dict[str, list[int]] = {}
    pairs = list(_pairs(group))
    data = 0
    for left, right in pairs:
        data += bool(left["fingerprint"] != right["fingerprint"])
        for text in _differences(left, right, group, question, tuning):
            found.setdefault(text, []).append(int(left["seed"]))
    several = any(side["seed"].duplicated().any() for side in (group.left, group.right))
    refused = ["its two sides had different data"] if data else []
    refused += ["a side has several runs for one seed"] if several else []
    refused += _stale(group, tuning)
    texts = [
        text if len(seeds) == len(pairs) else f"{text} ({len(seeds)} of {len(pairs)} seeds)"
        for text, seeds in found.items()
    ]
    return Audit(some(texts, _SHOWN, ""), "; ".join(refused), censoring(group, tuning))


def censoring(group: Group, tuning: StoredTuning | None) -> str:
    """Why a group has no number: the best learning rate of a side lies on an edge of the grid."""
    chosen = _tuned(group, tuning).values()
    rates = dict.fromkeys(f"{one.chosen:g}" for one in chosen if one.censored)
    return f"best learning rate at the edge of the grid: {', '.join(rates)}" if rates else ""


def _stale(group: Group, tuning: StoredTuning | None) -> Iterator[str]:
    """Whether a side was run at another rate than the one that ``tuning.json`` says was chosen."""
    runs = pd.concat([group.left, group.right])
    for condition, one in _tuned(group, tuning).items():
        rates = runs.loc[runs["condition"] == condition, "learning_rate"].dropna()
        if other := sorted({rate for rate in rates if rate != one.chosen}):
            ran = ", ".join(f"{rate:g}" for rate in other)
            yield (
                f"tuning.json chose the learning rate {one.chosen:g} for {condition}, but its runs "
                f"had {ran}: the file is of other runs"
            )


def _tuned(group: Group, tuning: StoredTuning | None) -> dict[str, TunedCondition]:
    names = [*group.left["condition"], *group.right["condition"]]
    found = tuning.conditions if tuning is not None else {}
    return {name: found[name] for name in dict.fromkeys(names) if name in found}


def _pairs(group: Group) -> Iterator[tuple[pd.Series, pd.Series]]:
    """The runs of each seed that have a result on both sides: what can be compared."""
    left, right = (
        side[side["status"].isin(list(FINISHED))]
        .drop_duplicates("seed")
        .set_index("seed", drop=False)
        for side in (group.left, group.right)
    )
    for seed in left.index.intersection(right.index):
        yield left.loc[seed], right.loc[seed]


@lru_cache(maxsize=1024)
def _settings(text: str) -> Mapping[str, str]:
    """What a run's row says of its settings, which it shares with those of all other seeds."""
    return flat(json.loads(text))


def _differences(
    left: pd.Series,
    right: pd.Series,
    group: Group,
    question: Question,
    tuning: StoredTuning | None,
) -> Iterator[str]:
    apart = differing(*(_settings(row["settings"]) for row in (left, right)))
    tuned = _tuned(group, tuning)
    by_protocol = all(row["condition"] in tuned for row in (left, right))
    for name, (a, b) in apart.items():
        asked = _asked(name, question, apart) or name in group.own
        # Where data lie is no matter, and what they are is in the fingerprint.
        harmless = name in _HARMLESS or name.endswith(".path")
        if not (harmless or asked or (name == _RATE and by_protocol)):
            yield f"{name}: {a} against {b}"
    versions = differing(*(json.loads(row["versions"] or "{}") for row in (left, right)))
    for name, (a, b) in sorted(versions.items()):
        if MISSING not in (a, b):  # what one side alone used, it needed for the treatment
            yield f"{name} {a} against {b}"
    if left["device"] and right["device"] and left["device"] != right["device"]:
        yield f"device {left['device']} against {right['device']}"
    for side, row in (("baseline", left), ("treatment", right)):
        for change in changes(json.loads(row.get("environment") or "{}")):
            yield f"{side}, in the middle of a run: {change}"
    one, two = left["threads"], right["threads"]
    if pd.notna(one) and pd.notna(two) and one != two:
        yield f"{one:g} against {two:g} threads"
    parts = [parts_of_batches(json.loads(row.get("environment") or "{}")) for row in (left, right)]
    if parts[0] != parts[1]:
        yield f"gradients of {parts[0]} against {parts[1]} micro-batches (--oom-accumulate)"


def _asked(name: str, question: Question, apart: Mapping[str, object]) -> bool:
    """Whether a setting is what the question is about, among those that are ``apart``."""
    axis = question.axis
    section, _, rest = axis.partition(".")
    if axis == OPTIMIZER_AXIS or (section == "optimizer" and "optimizer" in apart):
        return name.partition(".")[0] == "optimizer"
    if section == "optimizer":
        return name in (axis, f"optimizer.{rest.partition('.')[2]}")
    return name == axis or name.startswith(f"{axis}.")
