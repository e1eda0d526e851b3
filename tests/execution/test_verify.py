"""A finished run that is made again: the same, or not, and then where first and why."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from altgrad_core.cli_verify import verdict_lines
from altgrad_core.errors import UserError
from altgrad_core.execution import verify, worker
from altgrad_core.execution.jobs import Ended
from altgrad_core.execution.options import RunOptions
from altgrad_core.execution.verify import Verdict, verify_runs
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.spec_file import dump_spec
from altgrad_core.planning.suite import load_suite
from altgrad_core.results.run_directory import Record, RunDirectory, Status


class Silent:
    def message(self, text: str) -> None: ...
    def begin(self, total: int, done: int) -> None: ...
    def started(self, job: Any, max_steps: int) -> None: ...
    def progress(self, job: Any, status: Any) -> None: ...
    def tried_again(self, job: Any, status: Any, how: str) -> None:
        self.message(f"{job.label}: {status.status} ({status.message}); {how}")

    def finished(self, job: Any, status: Any) -> None: ...


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture
def finished(
    write_suite: Callable[..., Path],
    tmp_path: Path,
    made: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> RunDirectory:
    """A run of its own for each test, which is made once."""
    if not made:
        spec = plan_suite(load_suite(write_suite())).specs[3]
        directory = RunDirectory(tmp_path_factory.mktemp("made") / spec.id)
        directory.create(dump_spec(spec))
        made["cache"] = tmp_path_factory.mktemp("cache")
        assert worker.run_worker(directory.path, "cpu", made["cache"]) == 0
        made["run"] = directory.path
    return RunDirectory(shutil.copytree(made["run"], tmp_path / made["run"].name))


@pytest.fixture
def again(
    monkeypatch: pytest.MonkeyPatch, made: dict[str, Path]
) -> Callable[[RunDirectory], Verdict]:
    """Verifies a run, which is made again in this process."""

    def run_specs(
        specs: Sequence[RunSpec],
        directories: Mapping[str, RunDirectory],
        executor: Any,
        options: RunOptions,
        observer: Any,
    ) -> Ended:
        assert (options.device, options.threads) == ("cpu", 1)
        assert not specs[0].trackers
        worker.run_worker(directories[specs[0].id].path, options.device, made["cache"])
        return Ended()

    monkeypatch.setattr(verify, "run_specs", run_specs)
    return lambda directory: verify_runs([directory], RunOptions(), Silent())[0]


def rewritten(directory: RunDirectory, **changes: Any) -> None:
    """Let the run have left other files: the status vouches for them."""
    if records := changes.get("records"):
        lines = [record.to_json() for record in records(list(directory.records()))]
        directory.metrics.write_text("".join(f"{line}\n" for line in lines))
    if environment := changes.get("environment"):
        text = json.dumps(json.loads(directory.environment.read_text()) | environment)
        directory.environment.write_text(text)
    if arrays := changes.get("arrays"):
        with np.load(directory.predictions) as found:
            held = dict(found)
        np.savez(directory.predictions, **arrays(held))
    status = directory.status()
    update = {"record": directory.record_digest(), "files": directory.digests()}
    directory.write_status(status.model_copy(update=update))


def test_a_run_that_gives_the_same_is_identical_whatever_its_speed(
    finished: RunDirectory, again: Callable[[RunDirectory], Verdict]
) -> None:
    def slower(records: list[Record]) -> list[Record]:
        name = "throughput/all/samples_per_second"
        assert any(name in record.metrics for record in records)
        changed = (
            {**r.metrics, name: math.nan} if name in r.metrics else r.metrics for r in records
        )
        return [r.model_copy(update={"metrics": m}) for r, m in zip(records, changed, strict=True)]

    rewritten(finished, records=slower)
    verdict = again(finished)
    assert verdict.identical, verdict
    assert verdict.to_json()["identical"]
    assert verdict_lines(verdict) == [f"bit-identical: {verdict.label} ({finished.path.name})"]


def test_nan_is_the_same_as_nan() -> None:
    nan = Record(step=1, kind="monitor", metrics={"a/all/b": math.nan, "a/all/c": 1.0})
    other = nan.model_copy(update={"metrics": {"a/all/b": math.nan, "a/all/c": 2.0}})

    class Held:
        def __init__(self, *records: Record) -> None:
            self.records = lambda: iter(records)

    def first(one: Held, two: Held) -> list[verify.Difference]:
        return list(verify._records(one, two))  # type: ignore[arg-type]

    again = Record.model_validate_json(nan.to_json())
    assert first(Held(nan), Held(again)) == []
    [found] = first(Held(nan), Held(other))
    assert found.where.endswith("a/all/c")


def test_the_first_difference_is_named_with_what_is_not_as_recorded(
    finished: RunDirectory, again: Callable[[RunDirectory], Verdict]
) -> None:
    def off(records: list[Record]) -> list[Record]:
        for number, record in enumerate(records):
            if record.step >= 6 and "train/all/loss" in record.metrics:
                loss = np.nextafter(record.metrics["train/all/loss"], 9.0)
                update = {"metrics": {**record.metrics, "train/all/loss": float(loss)}}
                records[number] = record.model_copy(update=update)
        return records

    rewritten(finished, records=off, environment={"packages": {"torch": "1.0"}, "threads": 1})
    verdict = again(finished)
    assert verdict.first is not None
    assert verdict.first.where.endswith("(step 6, train), train/all/loss")
    assert float(verdict.first.recorded) == np.nextafter(float(verdict.first.again), 9.0)
    assert verdict.count == 4  # steps 6, 8, 10, 12
    assert verdict.explained_by["torch"][0] == "1.0"
    text = "\n".join(verdict_lines(verdict))
    assert "not as recorded: torch was 1.0" in text


def test_predictions_are_compared_to_the_bit(
    finished: RunDirectory, again: Callable[[RunDirectory], Verdict]
) -> None:
    def off(arrays: dict[str, Any]) -> dict[str, Any]:
        scores = arrays["test_probabilities"]
        scores[1, 2] = np.nextafter(scores[1, 2], scores.dtype.type(9))
        return arrays

    rewritten(finished, arrays=off)
    verdict = again(finished)
    assert verdict.first is not None
    assert verdict.first.where == "predictions.npz, test_probabilities[1, 2]"
    assert verdict.count == 1
    assert verdict.explained_by == {}
    assert "explain nothing" in "\n".join(verdict_lines(verdict))


def test_of_a_run_from_an_archive_without_predictions_the_record_is_compared_and_that_is_said(
    finished: RunDirectory, again: Callable[[RunDirectory], Verdict]
) -> None:
    finished.predictions.unlink()
    with pytest.raises(UserError, match="predictions"):
        again(finished)  # its status still vouches for them
    rewritten(finished)
    verdict = again(finished)
    assert verdict.identical, verdict
    assert "only metrics.jsonl was compared" in "\n".join(verdict_lines(verdict))
    rewritten(finished, records=lambda records: records[:-1])
    assert not again(finished).identical


def test_records_that_are_missing_are_a_difference(
    finished: RunDirectory, again: Callable[[RunDirectory], Verdict]
) -> None:
    extra = Record(step=12, kind="event", event={"kind": "x", "layer": "y", "message": "z"})
    rewritten(finished, records=lambda records: [*records, extra])
    verdict = again(finished)
    assert verdict.first is not None
    assert (verdict.first.recorded, verdict.first.again) == ("there", "nothing")


def test_what_cannot_be_run_again_says_why(
    finished: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: Any) -> Ended:
        raise UserError("the data of eurlex changed after the run was planned: …")

    monkeypatch.setattr(verify, "run_specs", refuses)
    verdict = verify_runs([finished], RunOptions(), Silent())[0]
    assert not verdict.identical
    assert "the data of eurlex changed" in verdict_lines(verdict)[0]


@pytest.mark.parametrize("harm", ["unfinished", "damaged"])
def test_what_has_no_whole_result_is_refused(finished: RunDirectory, harm: str) -> None:
    if harm == "unfinished":
        finished.write_status(Status(status="killed", step=3))
    else:
        finished.metrics.write_text("")
    words = "no result to verify" if harm == "unfinished" else "no whole record"
    with pytest.raises(UserError, match=words):
        verify_runs([finished], RunOptions(), Silent())
