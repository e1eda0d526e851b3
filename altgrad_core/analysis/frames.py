"""The tables that describe: conditions, other metrics, layers, events, curves and tuning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pandas as pd

from altgrad_core.analysis.design import Group, panels_of, settings_of
from altgrad_core.analysis.pairs import diverged, pairs_table, scores
from altgrad_core.analysis.statistics import mean_of, spread
from altgrad_core.interfaces.metric import Metric, column, declared
from altgrad_core.interfaces.section import Question
from altgrad_core.results.run_directory import FINISHED
from altgrad_core.results.stored import StoredRun, StoredTuning

LOSS = "train/all/loss"
EPOCH = "train/all/epoch"
_RANKS = "rank/all/"
SPEED = "throughput/all/cumulative_samples_per_second@last"


def score_columns(metrics: Sequence[Metric]) -> list[str]:
    """The columns of the main table: every declared metric on the test split, the primary first."""
    ordered = sorted(metrics, key=lambda metric: not metric.primary)
    return [column(metric) for metric in ordered]


def conditions_table(
    runs: pd.DataFrame, question: Question | None, metrics: Sequence[Metric]
) -> pd.DataFrame:
    """A row per condition, in the suite's order.

    ``condition, label, format, optimizer, side, panel, setting, runs`` (planned), ``ok, diverged``;
    and for each score ``S`` of the main table, the question's metric and the speed: ``S`` (mean over
    seeds; a diverged run has the worst score, or none), ``S std``, ``S n``.
    """
    planned = runs[runs["planned"]]
    laid, settings = panels_of(runs, question), settings_of(runs)
    columns = dict.fromkeys([*score_columns(metrics), *([question.metric] if question else [])])
    done = planned[planned["status"].isin(list(FINISHED))]
    broken = diverged(done, next(iter(columns), ""))
    values = {name: _scores(done, name, declared(name, metrics)) for name in columns}
    values[SPEED] = _scores(done, SPEED, None)
    rows = []
    for name, mine in planned.groupby("condition", sort=False):
        panel, side = laid[str(name)]
        here = done.index.intersection(mine.index)
        row: dict[str, object] = {
            "condition": name,
            "label": str(name),
            "format": mine["format"].iloc[0],
            "optimizer": mine["optimizer"].iloc[0],
            "side": side,
            "panel": panel,
            "setting": settings[str(name)],
            "runs": len(mine),
            "ok": int((~broken[here]).sum()),
            "diverged": int(broken[here].sum()),
        }
        for score, known in values.items():
            row |= _spread(score, known[here])
        rows.append(row)
    head = ("condition", "label", "format", "optimizer", "side", "panel", "setting")
    names = [*head, "runs", "ok", "diverged"]
    names += [f"{c}{more}" for c in (*columns, SPEED) for more in ("", " std", " n")]
    return pd.DataFrame(rows, columns=names)


def companions_table(
    groups: Sequence[Group],
    question: Question | None,
    metrics: Sequence[Metric],
    runs: pd.DataFrame,
) -> pd.DataFrame:
    """``group, metric, delta, gain, n`` under every other final metric of the test split."""
    rows = []
    for name in score_columns(metrics):
        metric = declared(name, metrics)
        if question is None or metric is None or name == question.metric or name not in runs:
            continue
        pairs = pairs_table(groups, runs, name, metric)
        used = pairs[pairs["dropped"] == ""]
        for group in groups:
            mine = used[used["group"] == group.label]
            rows.append(
                (group.label, name, mean_of(mine["delta"]), mean_of(mine["gain"]), len(mine))
            )
    return pd.DataFrame(rows, columns=["group", "metric", "delta", "gain", "n"])


def layers_table(
    stored: Sequence[StoredRun], runs: pd.DataFrame, question: Question | None
) -> pd.DataFrame:
    """What monitors measured by layer: ``id, condition, format, side, layer, metric, first, last, mean``.

    ``metric`` is without its layer: ``flips/stall_ratio``.
    """
    names, laid = _names(runs), panels_of(runs, question)
    rows = []
    for run in stored:
        condition, fmt = names[run.spec.id]
        head = (run.spec.id, condition, fmt, laid[condition][1])
        for name, series in run.history.series.items():
            family, _, rest = name.partition("/")
            layer, _, metric = rest.rpartition("/")
            if run.history.kinds[name] != "monitor" or layer in ("", "all"):
                continue
            values = [series[step] for step in sorted(series)]
            rows.append(
                (*head, layer, f"{family}/{metric}", values[0], values[-1], mean_of(values))
            )
    columns = ["id", "condition", "format", "side", "layer", "metric", "first", "last", "mean"]
    return pd.DataFrame(rows, columns=columns)


def events_table(stored: Sequence[StoredRun], runs: pd.DataFrame) -> pd.DataFrame:
    """``id, condition, format, seed, step, kind, layer, message``, in the order of the runs."""
    names = _names(runs)
    rows = [
        (run.spec.id, *names[run.spec.id], run.spec.seed, e.step, e.kind, e.layer, e.message)
        for run in stored
        for e in run.history.events
    ]
    columns = ["id", "condition", "format", "seed", "step", "kind", "layer", "message"]
    return pd.DataFrame(rows, columns=columns)


def curves_table(
    stored: Sequence[StoredRun],
    runs: pd.DataFrame,
    question: Question | None,
    metrics: Sequence[Metric],
) -> pd.DataFrame:
    """Values by step: loss and epoch of training, what the task declares as curves, and ranks.

    ``id, condition, panel, side, seed, step, metric, value``.
    """
    names, laid = _names(runs), panels_of(runs, question)
    wanted = {LOSS, EPOCH, *(f"validation/all/{metric.name}" for metric in metrics if metric.curve)}
    rows: list[tuple[object, ...]] = []
    for run in stored:
        condition, _ = names[run.spec.id]
        head = (run.spec.id, condition, *laid[condition], run.spec.seed)
        for name, series in run.history.series.items():
            if name in wanted or name.startswith(_RANKS):
                rows += [(*head, step, name, series[step]) for step in sorted(series)]
    columns = ["id", "condition", "panel", "side", "seed", "step", "metric", "value"]
    return pd.DataFrame(rows, columns=columns)


def tuning_table(tuning: StoredTuning | None) -> pd.DataFrame:
    """A row per condition, rate and tuning seed.

    ``condition, rate, seed, score, diverged`` (runs at that rate), ``chosen, censored,
    largest_stable``.
    """
    columns = ["condition", "rate", "seed", "score", "diverged"]
    columns += ["chosen", "censored", "largest_stable"]
    rows = [] if tuning is None else list(_tuning_rows(tuning))
    return pd.DataFrame(rows, columns=columns)


def _tuning_rows(tuning: StoredTuning) -> Iterator[tuple[object, ...]]:
    for name, one in tuning.conditions.items():
        ended = {float(rate): count for rate, count in one.diverged.items()}
        stable = math.nan if one.largest_stable is None else one.largest_stable
        for rate, values in one.curve().items():
            for seed, score in zip(tuning.seeds, values, strict=False):
                yield (
                    *(name, rate, seed, score, ended.get(rate, 0)),
                    *(rate == one.chosen, one.censored, stable),
                )


def _names(runs: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Id -> condition and format of the planned runs, as the tables call them."""
    planned = runs[runs["planned"]]
    rows = zip(planned["id"], planned["condition"], planned["format"], strict=True)
    return {str(run_id): (str(condition), str(fmt)) for run_id, condition, fmt in rows}


def _scores(runs: pd.DataFrame, name: str, metric: Metric | None) -> pd.Series[float]:
    if metric is not None:
        return scores(runs, name, metric)
    known = runs[name] if name in runs else pd.Series(math.nan, index=runs.index)
    return known.astype("float64")


def _spread(name: str, values: pd.Series[float]) -> dict[str, object]:
    known = values.dropna().tolist()
    return {name: mean_of(known), f"{name} std": spread(known), f"{name} n": len(known)}
