"""The learning-rate protocol: planted curves, and a real suite that tunes itself."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from warm_cli import Cli

from altgrad_core.execution.tuning import choose, edges
from altgrad_core.interfaces.metric import Metric
from altgrad_core.planning.plan import tuning_label
from altgrad_core.planning.tune import TuneSettings
from altgrad_core.results.collect import load_results
from altgrad_core.results.kept import StoredTuning
from altgrad_core.results.sources import read_one

RATES = (1e-4, 1e-3, 1e-2)
ACCURACY = Metric("accuracy", "Accuracy", "higher", 0.0, primary=True)
PERPLEXITY = Metric("perplexity", "Perplexity", "lower", primary=True)
Curve = Mapping[float, list[tuple[float, bool]]]


def chosen(curve: Curve, **settings: object):  # type: ignore[no-untyped-def]
    found = protocol(curve, ACCURACY, **settings)
    return found.conditions["a"], edges(found)


def protocol(curve: Curve, metric: Metric, **settings: object) -> StoredTuning:
    tune = TuneSettings.model_validate({"learning_rates": RATES, **settings})
    scores = {tuning_label("a", rate): seeds for rate, seeds in curve.items()}
    return choose(tune, metric, tuple(curve), 0, ["a"], scores)


def test_an_inner_peak_is_chosen_and_not_censored() -> None:
    condition, sides = chosen(
        {1e-4: [(0.2, False)] * 2, 1e-3: [(0.5, False), (0.7, False)], 1e-2: [(0.55, False)] * 2}
    )
    assert (condition.chosen, condition.censored, sides) == (1e-3, False, (False, False))
    assert condition.curve() == {1e-4: (0.2, 0.2), 1e-3: (0.5, 0.7), 1e-2: (0.55, 0.55)}
    assert condition.largest_stable == 1e-2


def test_a_rate_of_many_digits_is_found_in_the_file_again() -> None:
    rate = 1e-3 / 3 + 1e-11
    found = protocol({rate / 2: [(0.2, False)], rate: [(0.5, False)]}, ACCURACY)
    read = StoredTuning.model_validate_json(found.model_dump_json()).conditions["a"]
    assert read.curve()[read.chosen] == (0.5,)


@pytest.mark.parametrize(
    ("scores", "sides"), [((0.9, 0.5, 0.1), (True, False)), ((0.1, 0.5, 0.9), (False, True))]
)
def test_a_peak_on_an_edge_is_censored(scores: tuple[float, ...], sides: tuple[bool, bool]) -> None:
    curve = {rate: [(score, False)] for rate, score in zip(RATES, scores, strict=True)}
    condition, found = chosen(curve)
    assert condition.censored
    assert found == sides


def test_divergence_counts_as_worst_and_ends_stability() -> None:
    condition, _ = chosen(
        {1e-4: [(0.4, False)] * 2, 1e-3: [(0.5, False)] * 2, 1e-2: [(0.95, False), (0.0, True)]}
    )
    assert condition.chosen == 1e-3
    assert condition.largest_stable == 1e-3
    assert condition.diverged == {"0.0001": 0, "0.001": 0, "0.01": 1}


def test_a_rate_that_no_longer_trains_is_not_stable_either() -> None:
    condition, _ = chosen({1e-4: [(0.4, False)], 1e-3: [(0.5, False)], 1e-2: [(0.24, False)]})
    assert condition.largest_stable == 1e-3


def test_a_rate_that_diverged_is_never_chosen_however_good_its_other_seeds_are() -> None:
    curve = {1e-4: [(0.4, False)] * 2, 1e-3: [(0.3, False)] * 2, 1e-2: [(0.9, False), (0.0, True)]}
    assert protocol(curve, ACCURACY).conditions["a"].chosen == 1e-4
    unbounded = {1e-4: [(40.0, False)], 1e-3: [(30.0, False)], 1e-2: [(math.nan, True)]}
    assert protocol(unbounded, PERPLEXITY).conditions["a"].chosen == 1e-3


def test_where_every_rate_diverged_or_none_has_a_number_nothing_is_chosen() -> None:
    diverged = {rate: [(0.0, True), (0.9, False)] for rate in RATES}
    assert protocol(diverged, ACCURACY).conditions == {}
    undefined = {rate: [(math.nan, False)] for rate in RATES}
    assert protocol(undefined, PERPLEXITY).conditions == {}


def test_a_diverged_run_without_a_worst_value_is_kept_as_nan() -> None:
    curve = {1e-4: [(40.0, False)], 1e-3: [(30.0, False)], 1e-2: [(math.nan, True)]}
    text = protocol(curve, PERPLEXITY).model_dump_json()
    json.loads(text, parse_constant=pytest.fail)
    (score,) = StoredTuning.model_validate_json(text).conditions["a"].scores["0.01"]
    assert math.isnan(score)


def test_a_suite_tunes_itself_and_runs_with_what_it_chose(
    write_suite: Callable[..., Path], tmp_path: Path, own_cache: Path, warm: Cli
) -> None:
    suite = write_suite(
        training={
            "batch_size": 8,
            "learning_rate": "auto",
            "max_steps": 6,
            "eval_interval": 6,
            "checkpoint_interval": 6,
        },
        matrix={"quantization.format": ["bf16", "e5m2"]},
        tune={"learning_rates": [1e-4, 1e-3, 1e-2], "seeds": [50], "max_extensions": 1},
        monitors=[],
    )
    command = ("run", suite, "--runs", tmp_path / "runs", "--threads", "1", "--no-report")
    done = warm.run(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    stored = read_one(tmp_path / "runs" / "tiny")
    assert stored.tuning is not None
    assert set(stored.tuning.conditions) == {"bf16_adamw", "e5m2_adamw"}
    frame = load_results(tmp_path / "runs" / "tiny")
    final = frame[frame["stage"] == "final"]
    assert final["planned"].all()
    assert not frame[frame["stage"] == "tune"]["planned"].any()
    assert len(frame[frame["stage"] == "tune"]) == 2 * len(stored.tuning.rates)
    for _, row in final.iterrows():
        condition = stored.tuning.conditions[row["condition"]]
        assert row["learning_rate"] == condition.chosen
        # The protocol, recomputed from the tuning runs' own records.
        tuned = frame[frame["condition"].str.startswith(f"{row['condition']}_lr=")]
        scores = dict(
            zip(tuned["learning_rate"], tuned["final/validation/f1_micro_tuned"], strict=True)
        )
        best = max(scores, key=lambda rate: (scores[rate], -rate))
        assert condition.chosen == best
        assert condition.censored == (best in (min(scores), max(scores)))
    announced = [line.split()[:2] for line in done.stdout.splitlines() if line.startswith("  ")]
    for label, condition in stored.tuning.conditions.items():
        assert [label, f"{condition.chosen:g}"] in announced

    again = warm.run(*command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert set(re.findall(r"(\d+) to go", again.stdout)) == {"0"}, "nothing is run twice"
    cells = json.loads((tmp_path / "runs" / "tiny" / "plan.json").read_text())["cells"]
    assert {cell["stage"] for cell in cells} == {"tune", "final"}
