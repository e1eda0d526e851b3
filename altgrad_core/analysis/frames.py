"""The tables that describe: conditions, other metrics, layers, events, curves and tuning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pandas as pd

from altgrad_core.analysis.design import Group, panels_of, settings_of
from altgrad_core.analysis.pairs import diverged, pairs_table, scores
from altgrad_core.analysis.statistics import mean_of, spread
from altgrad_core.interfaces.metric import Metric, column, declared
from altgrad_core.interfaces.section import Question
from altgrad_core.results.kept import StoredTuning
from altgrad_core.results.run_directory import FINISHED
from altgrad_core.results.stored import StoredRun

LOSS = "train/all/loss"
EPOCH = "train/all/epoch"
_RANKS = "rank/all/"
SPEED = "throughput/all/cumulative_samples_per_second@last"


def score_columns(metrics: Sequence[Metric]) -> list[str]:
    """The columns of the main table: every declared metric on the test split, the primary first."""
    ordered = sorted(metrics, key=lambda metric: not metric.primary)
    return [column(metric) for metric in ordered]


def laid_out(runs: pd.DataFrame, question: Question | None) -> pd.DataFrame:
    """The planned runs, with the ``panel``, ``side`` and ``setting`` of their conditions."""
    planned, laid = runs[runs["planned"]], panels_of(runs, question)
    return planned.assign(
        panel=[laid[condition][0] for condition in planned["condition"]],
        side=[laid[condition][1] for condition in planned["condition"]],
        setting=planned["condition"].map(settings_of(runs)),
    )


def conditions_table(
    laid: pd.DataFrame, question: Question | None, metrics: Sequence[Metric]
) -> pd.DataFrame:
    """A row per condition, in the suite's order.

    ``condition, label, format, optimizer, side, panel, setting, runs`` (planned), ``status`` (in words:
    ``4 ok, 1 diverged``), ``ok, diverged``; and for each score ``S`` of the main table, the question's
    metric and the speed: ``S`` (mean over seeds; a diverged run has the worst score, or none), ``S
    std``, ``S n``. ``laid`` are the runs of :func:`laid_out`.
    """
    conditions = laid.groupby("condition", sort=False)
    head = ["format", "optimizer", "side", "panel", "setting"]
    table = conditions[head].first().assign(runs=conditions.size())
    table.insert(0, "label", table.index)
    table["status"] = conditions["status"].agg(_in_words)
    columns = dict.fromkeys([*score_columns(metrics), *([question.metric] if question else [])])
    done = laid[laid["status"].isin(list(FINISHED))]
    broken = diverged(done, next(iter(columns), ""))
    for name, which in (("ok", ~broken), ("diverged", broken)):
        table[name] = which.groupby(done["condition"]).sum().reindex(table.index, fill_value=0)
    found = {
        name: scores(done, name, metric) for name in columns if (metric := declared(name, metrics))
    }
    found[SPEED] = done[SPEED] if SPEED in done else pd.Series(math.nan, done.index)
    for name, values in found.items():
        by = values.astype("float64").dropna().groupby(done["condition"])
        table[name] = by.agg(mean_of).reindex(table.index)
        table[f"{name} std"] = by.agg(lambda known: spread(known.to_numpy())).reindex(table.index)
        table[f"{name} n"] = by.size().reindex(table.index, fill_value=0)
    return table.reset_index()


def _in_words(statuses: pd.Series[str]) -> str:
    """``ok``, or ``4 ok, 1 diverged``, in the order of the runs."""
    counts = statuses.value_counts(sort=False)
    several = len(statuses) > 1
    return ", ".join(f"{n} {name}" if several else str(name) for name, n in counts.items())


def companions_table(
    groups: Sequence[Group],
    question: Question | None,
    metrics: Sequence[Metric],
    runs: pd.DataFrame,
) -> pd.DataFrame:
    """``group, metric, delta, gain, n`` under every other final metric of the test split."""
    labels = [group.label for group in groups]
    parts = [pd.DataFrame(columns=["group", "metric", "delta", "gain", "n"])]
    for name in score_columns(metrics):
        metric = declared(name, metrics)
        if question is None or metric is None or name == question.metric or name not in runs:
            continue
        pairs = pairs_table(groups, runs, name, metric)
        by = pairs[pairs["dropped"] == ""].groupby("group")
        means = by[["delta", "gain"]].mean().reindex(labels) + 0.0  # no −0.0
        n = by.size().reindex(labels, fill_value=0)
        parts.append(means.assign(n=n, metric=name).rename_axis("group").reset_index())
    return pd.concat(parts[1:] or parts)[list(parts[0])].reset_index(drop=True)


def layers_table(stored: Sequence[StoredRun], laid: pd.DataFrame) -> pd.DataFrame:
    """What monitors measured by layer: ``id, condition, format, side, layer, metric, first, last, mean``.

    ``metric`` is without its layer: ``flips/stall_ratio``.
    """
    rows = []
    for run in stored:
        for name, series in run.history.series.items():
            family, _, rest = name.partition("/")
            layer, _, metric = rest.rpartition("/")
            if run.history.kinds[name] != "monitor" or layer in ("", "all"):
                continue
            values = [series[step] for step in sorted(series)]
            shown = (f"{family}/{metric}", values[0], values[-1], mean_of(values))
            rows.append((run.spec.id, layer, *shown))
    own = ("layer", "metric", "first", "last", "mean")
    return _of_runs(rows, laid, ("condition", "format", "side"), own)


def events_table(stored: Sequence[StoredRun], laid: pd.DataFrame) -> pd.DataFrame:
    """``id, condition, format, seed, step, kind, layer, message``, in the order of the runs."""
    rows = (
        (run.spec.id, e.step, e.kind, e.layer, e.message)
        for run in stored
        for e in run.history.events
    )
    own = ("step", "kind", "layer", "message")
    return _of_runs(rows, laid, ("condition", "format", "seed"), own)


def curves_table(
    stored: Sequence[StoredRun], laid: pd.DataFrame, metrics: Sequence[Metric]
) -> pd.DataFrame:
    """Values by step: loss and epoch of training, what the task declares as curves, and ranks.

    ``id, condition, panel, side, seed, step, metric, value``.
    """
    wanted = {LOSS, EPOCH, *(f"validation/all/{metric.name}" for metric in metrics if metric.curve)}
    rows = (
        (run.spec.id, step, name, series[step])
        for run in stored
        for name, series in run.history.series.items()
        if name in wanted or name.startswith(_RANKS)
        for step in sorted(series)
    )
    own = ("step", "metric", "value")
    return _of_runs(rows, laid, ("condition", "panel", "side", "seed"), own)


def _of_runs(
    rows: Iterable[tuple[object, ...]],
    laid: pd.DataFrame,
    told: Sequence[str],
    own: Sequence[str],
) -> pd.DataFrame:
    """Rows of runs (id, then ``own``), with what is ``told`` of each run in between."""
    runs = laid.drop_duplicates("id", keep="last")[["id", *told]]
    found = pd.DataFrame(rows, columns=["id", *own]).merge(runs, on="id", how="left")
    return found[["id", *told, *own]]


def tuning_table(tuning: StoredTuning) -> pd.DataFrame:
    """A row per condition, rate and tuning seed.

    ``condition, metric, rate, seed, score, diverged`` (runs at that rate), ``chosen, censored,
    largest_stable``.
    """
    rows = [
        {
            "condition": name,
            "metric": tuning.metric,
            "rate": rate,
            "seed": seed,
            "score": score,
            "diverged": {float(r): count for r, count in one.diverged.items()}.get(rate, 0),
            "chosen": rate == one.chosen,
            "censored": one.censored,
            "largest_stable": math.nan if one.largest_stable is None else one.largest_stable,
        }
        for name, one in tuning.conditions.items()
        for rate, values in one.curve().items()
        for seed, score in zip(tuning.seeds, values, strict=False)
    ]
    columns = ["condition", "metric", "rate", "seed", "score", "diverged"]
    return pd.DataFrame(rows, columns=[*columns, "chosen", "censored", "largest_stable"])
