"""Truths planted through a third-party package, read back from the report of the command line.

Each test is a question that the verdict has been fooled by, or could be: what was planted is known, so there is one
right answer. Those of scores alone, which ``tests/analysis/test_verdict.py`` asks of the analysis as well, are slow.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner
from warm_cli import Cli

from altgrad_core import cli
from altgrad_core.registry.catalog import catalog

PACKAGE = Path(__file__).parent / "planted"
FORMATS = ("e4m3", "e5m2")
SEEDS = tuple(range(5))

Suite = Callable[..., Path]
Run = Callable[..., "Answer"]


class Answer:
    """What the report of a suite says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.effects = pd.read_csv(folder / "report" / "effects.csv").set_index("group")
        self.text = (folder / "report" / "report.md").read_text()
        self.verdict = self.text.partition("\n## ")[0]

    def of(self, group: str) -> str:
        """The verdict on one group."""
        return str(self.effects.loc[group, "verdict"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that has the package installed, and is on the import path."""
    site = tmp_path_factory.mktemp("site")
    facts = site / "altgrad_planted-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: altgrad-planted\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[altgrad]\naltgrad_planted = altgrad_planted\n")
    (site / "altgrad_planted").symlink_to(PACKAGE / "altgrad_planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        catalog.cache_clear()
        yield site
    catalog.cache_clear()


@pytest.fixture
def run(warm: Cli, installed: Path, tmp_path: Path, own_cache: Path) -> Run:
    """``run(data={...}, task="accuracy", **sections)``: the suite's answer. ``run.report()`` makes it anew."""

    def report(*more: str) -> None:
        made = CliRunner().invoke(
            cli.app, ["report", "planted", "--runs", str(tmp_path / "runs"), *more]
        )
        assert made.exit_code == 0, made.output

    def answer(
        data: Mapping[str, Any],
        task: str = "accuracy",
        formats: tuple[str, ...] = ("bf16", *FORMATS),
        seeds: tuple[int, ...] = SEEDS,
        contrast: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> Answer:
        suite = {
            "name": "planted",
            "data": {"dataset": f"planted_{task}", **data},
            "training": {
                "batch_size": 4,
                "max_steps": 2,
                "eval_interval": 2,
                "divergence_patience": 1,
                **sections.pop("training", {}),
            },
            "matrix": {"quantization.format": list(formats), "optimizer.type": ["plain", "marked"]},
            "contrast": {
                **{"axis": "optimizer.type", "baseline": "plain", "treatment": "marked"},
                **(contrast or {"margin": 0.005}),
            },
            "seeds": list(seeds),
            "monitors": [],
            "trackers": [],
            **sections,
        }
        (tmp_path / "planted.yaml").write_text(yaml.safe_dump(suite))
        done = warm.run(
            *("run", "planted.yaml", "--executor", "forked", "--device", "cpu", "--no-report"),
            folder=tmp_path,
            environment={"PYTHONPATH": str(installed)},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        report()
        return Answer(tmp_path / "runs" / "planted")

    answer.report = report  # type: ignore[attr-defined]
    return answer


def test_one_true_benefit_is_named(run: Run) -> None:
    found = run({"gains": {"e4m3": 0.03}, "noise": 0.005})
    assert found.of("e4m3") == "benefit"
    assert found.effects.loc["e4m3", "needs_grid"] == "yes"
    assert {found.of(fmt) for fmt in FORMATS if fmt != "e4m3"} <= {"equivalent", "undecided"}
    assert "e4m3 gains most" in found.verdict
    assert found.effects.loc["bf16", "role"] == "reference"


def test_divergence_is_not_rewarded_where_scores_have_no_worst(run: Run) -> None:
    """Half of the treatment's seeds diverge, the others gain: that is no benefit."""
    found = run(
        {"gains": {"e5m2": 1.0}, "noise": 0.01, "diverging": {"e5m2": SEEDS[::2]}},
        task="perplexity",
        formats=("bf16", "e5m2"),
        contrast={"margin": 0.1},
    )
    row = found.effects.loc["e5m2"]
    assert found.of("e5m2") != "benefit"
    assert (row["dropped"], row["diverged_treatment"], row["n"]) == (3, 3, 2)
    assert "e5m2" in found.verdict
    assert "diverged" in found.verdict
    assert "no run diverged" not in found.text.lower()
    assert "none diverged" not in found.text.lower()


def test_a_batch_size_zipped_to_the_optimizer_is_named(run: Run) -> None:
    """All that "gains" is the larger batch."""
    found = run(
        {"per_batch": 0.01, "noise": 0.003},
        matrix={"quantization.format": ["bf16", *FORMATS]},
        zip=[{"optimizer.type": ["plain", "marked"], "training.batch_size": [2, 8]}],
    )
    assert "batch_size" in found.verdict
    assert found.effects.loc["e4m3", "confounds"] or found.effects.loc["e4m3", "refused"]
    assert "gains most from" not in found.verdict


def test_an_old_tuning_file_is_found_out(run: Run) -> None:
    """The rates in tuning.json are not those of the runs."""
    found = run(
        {"gains": {"e4m3": 0.03}, "noise": 0.003, "best_rate": 1e-3},
        formats=("bf16", "e4m3"),
        training={"learning_rate": "auto"},
        tune={"learning_rates": [5e-4, 1e-3, 2e-3], "seeds": [100]},
    )
    assert found.of("e4m3") == "benefit"
    file = found.folder / "tuning.json"
    tuning = json.loads(file.read_text())
    for condition in tuning["conditions"].values():
        condition["chosen"] = 5e-4
        condition["censored"] = False
    file.write_text(json.dumps(tuning))
    run.report()  # type: ignore[attr-defined]
    again = Answer(found.folder)
    assert "tuning.json" in again.verdict
    assert again.of("e4m3") in ("refused", "undecided")


def test_what_is_changed_after_the_first_run_is_exploratory(run: Run) -> None:
    """More seeds after a look: the declared answer stays, the other is labelled."""
    data = {"gains": {"e4m3": 0.02}, "noise": 0.005}
    first = run(data, formats=("bf16", "e4m3"))
    assert "exploratory" not in first.text.lower()
    second = run(data, formats=("bf16", "e4m3"), seeds=(*SEEDS, 5))
    assert "exploratory" in second.text.lower()
    assert int(second.effects.loc["e4m3", "n"]) == 5
    run.report("--contrast", "optimizer.type=marked,plain")  # type: ignore[attr-defined]
    assert "exploratory" in (first.folder / "report" / "report.md").read_text().lower()


def test_a_suite_that_is_not_finished_has_no_verdict(run: Run) -> None:
    found = run({"gains": {"e4m3": 0.05}, "noise": 0.002}, formats=("bf16", "e4m3"))
    run_dir = next(p for p in found.folder.iterdir() if (p / "spec.yaml").is_file())
    status = json.loads((run_dir / "status.json").read_text())
    (run_dir / "status.json").write_text(json.dumps({**status, "status": "killed"}))
    run.report()  # type: ignore[attr-defined]
    again = Answer(found.folder)
    assert set(again.effects["verdict"].dropna()) == {"unfinished"}
    assert again.effects["p"].isna().all()
    assert "gains most from" not in again.verdict


def test_an_unknown_metric_is_refused_while_planning(run: Run) -> None:
    with pytest.raises(AssertionError, match="accuracy"):
        run({}, contrast={"metric": "final/test/acuracy"})


@pytest.mark.slow
def test_no_benefit_is_no_benefit(run: Run) -> None:
    found = run({"noise": 0.01})
    assert not {found.of(fmt) for fmt in FORMATS} & {"benefit", "harm"}
    assert "gains most from" not in found.verdict


@pytest.mark.slow
def test_a_gain_that_the_reference_has_as_well_does_not_need_the_grid(run: Run) -> None:
    found = run({"gains": dict.fromkeys(("bf16", *FORMATS), 0.03), "noise": 0.004})
    assert {found.of(fmt) for fmt in FORMATS} == {"benefit"}
    assert "yes" not in set(found.effects["needs_grid"])
    assert "gains most from" not in found.verdict


@pytest.mark.slow
def test_without_a_reference_nobody_knows_what_needs_the_grid(run: Run) -> None:
    found = run({"gains": {"e4m3": 0.03}, "noise": 0.005}, formats=FORMATS)
    assert set(found.effects["needs_grid"]) == {"no reference"}
    assert "cannot tell" in found.verdict
    assert "gains most from" not in found.verdict


@pytest.mark.slow
def test_divergence_counts_as_the_worst_score_where_there_is_one(run: Run) -> None:
    found = run({"gains": {"e5m2": 0.03}, "noise": 0.005, "diverging": {"e5m2": SEEDS[::2]}})
    row = found.effects.loc["e5m2"]
    assert found.of("e5m2") != "benefit"
    assert (row["dropped"], row["n"]) == (0, 5)
    assert row["gain"] < -0.1


@pytest.mark.slow
def test_a_perplexity_made_worse_is_a_harm(run: Run) -> None:
    found = run({"gains": {"e4m3": -1.0}, "noise": 0.05}, "perplexity", contrast={"margin": 0.1})
    assert found.of("e4m3") == "harm"
    row = found.effects.loc["e4m3"]
    assert row["delta"] == pytest.approx(1.0, abs=0.1)
    assert row["gain"] == pytest.approx(-row["delta"])


@pytest.mark.slow
def test_a_noisy_large_gain_beside_a_tight_small_one(run: Run) -> None:
    """e5m2's gain is shown and e3m4's is not, but that does not make e5m2 the one that gains most."""
    found = run(
        {
            "gains": {"e5m2": 0.006, "e3m4": 0.075},
            "noise": 0.001,
            "noises": {"e3m4": 0.25},
        },
        formats=("bf16", "e3m4", "e5m2"),
    )
    assert found.of("e5m2") == "benefit"
    assert found.of("e3m4") == "undecided"
    assert "gains most from" not in found.verdict
    largest = found.effects["gain"].idxmax()
    assert largest in found.verdict
    assert f"{found.effects.loc[largest, 'gain']:+.4f}" in found.verdict


@pytest.mark.slow
def test_few_seeds_show_nothing(run: Run) -> None:
    found = run({"gains": {"e4m3": 0.05}, "noise": 0.0005}, seeds=(0, 1, 2))
    assert found.of("e4m3") == "too few seeds"
    assert "gains most from" not in found.verdict


@pytest.mark.slow
def test_differences_that_are_all_equal_carry_no_test(run: Run) -> None:
    found = run({"gains": {"e4m3": 0.05}, "noise": 0.0})
    assert pd.isna(found.effects.loc["e4m3", "p"])
    assert found.of("e4m3") != "benefit"
