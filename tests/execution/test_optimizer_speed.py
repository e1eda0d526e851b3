"""The speed of optimizers: ratios to torch's step in the same round, every kind of weights, and the JSON form."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from altgrad_core.cli import app
from altgrad_core.errors import UserError
from altgrad_core.execution import interleave, optimizer_speed
from altgrad_core.execution.optimizer_speed import TORCH, WEIGHTS, measure_optimizers
from altgrad_core.interfaces import Offer, hookimpl
from altgrad_core.interfaces.plugin import Settings
from altgrad_core.registry.catalog import Catalog, catalog

FEW: Any = {"device": "cpu", "rounds": 3, "threads": 1}


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimizer_speed, "SIZES", {"small": (8, 1)})


def test_planted_times_come_out_as_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gets slower from round to round, and a step that takes four times torch's."""
    now, slow = [0.0], [1.0]

    def torchs(self: Any, closure: Any = None) -> None:
        slow[0] *= 1.5
        now[0] += slow[0] / 1000

    def planted(*_: Any) -> Callable[[], object]:
        return lambda: now.__setitem__(0, now[0] + 4 * slow[0] / 1000)

    monkeypatch.setattr(torch.optim.AdamW, "step", torchs)
    monkeypatch.setattr(optimizer_speed, "_step", planted)
    monkeypatch.setattr(interleave.time, "perf_counter", lambda: now[0])
    found = measure_optimizers("e5m2", ["lion"], device="cpu", rounds=5, threads=1)
    rows = {(row.optimizer, row.weights): row for row in found.rows}
    assert rows.keys() == {(TORCH, "master"), *(("lion", kind) for kind in WEIGHTS)}
    assert rows[TORCH, "master"].ratio == 1
    lion = rows["lion", "grid"]
    assert lion.ratio == pytest.approx(4)
    assert lion.median_ms == pytest.approx(4 * 1.5**6, rel=1e-5)  # 3 rounds warm up
    assert lion.q1_ms < lion.median_ms < lion.q3_ms
    assert (lion.distribution, lion.version) == ("altgrad-bench", "0.1.0")


def test_what_is_timed_is_the_step_and_the_rounding_of_the_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[Any, Any] = {}
    monkeypatch.setattr(
        optimizer_speed, "interleaved", lambda calls, *_, rounds: seen.update(calls) or {}
    )
    before = torch.get_rng_state()
    measure_optimizers("e4m3", **FEW)
    assert torch.equal(before, torch.get_rng_state())
    assert {name for name, _ in seen} == {TORCH, *catalog().names("optimizer")}
    for (name, kind), step in seen.items():
        parameters = [p for g in step.__self__.param_groups for p in g["params"]]
        old = [p.detach().clone() for p in parameters]
        step()
        moved = sum(not torch.equal(a, b) for a, b in zip(old, parameters, strict=True))
        assert moved > len(old) / 2, (name, kind)
        values = max(p.detach().unique().numel() for p in parameters)
        assert (values <= 256) == (kind != "master" or name == "grid_optim"), (name, kind)


class Broken:
    def __init__(self, settings: Any) -> None: ...

    def build(self, *_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("no steps today")


class Plugin:
    @hookimpl
    def altgrad_optimizers(self) -> list[Offer]:
        return [Offer("broken", "takes no step", f"{__name__}:Broken", settings=Settings)]


def test_one_that_fails_stops_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    merged = catalog().merged(Catalog.from_modules(Plugin()))
    monkeypatch.setattr(optimizer_speed, "catalog", lambda: merged)
    found = measure_optimizers("e5m2", **FEW, weights=["master"])
    assert "ZeroDivisionError: no steps today" in found.left_out["broken"]
    assert {row.optimizer for row in found.rows} == {TORCH, *catalog().names("optimizer")}
    with pytest.raises(UserError, match="'broken' fails at its step"):
        measure_optimizers("e5m2", ["broken"], **FEW)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"wanted": ["lions"]}, "Did you mean 'lion'"),
        ({"wanted": [{"name": "lion"}]}, "is no optimizer"),
        ({"wanted": [3]}, "is no optimizer"),
        ({"size": "smal"}, "Did you mean 'small'"),
        ({"weights": ["grids"]}, "Did you mean 'grid'"),
        ({"fmt": "e4m4"}, "Did you mean"),
        ({"wanted": [{"type": "lion", "beta": 1}]}, "beta"),
    ],
)
def test_bad_input_gets_one_sentence(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        measure_optimizers(**{"fmt": "e5m2", **FEW, **wrong})


def test_the_command_prints_json_that_compares_over_commits() -> None:
    arguments = ["speed", "optimizer", "e5m2", "{type: lion, weight_decay: 0}", "--rounds", "3"]
    done = CliRunner().invoke(app, [*arguments, "--weights", "grid", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    keys = [(row["optimizer"], row["weights"]) for row in found["rows"]]
    assert keys == [(TORCH, "master"), ("lion (weight_decay=0)", "grid")]
    assert (found["schema"], found["format"], found["size"]) == (1, "e5m2", "small")
    assert (found["rounds"], found["environment"]["threads"]) == (3, 1)
    shown = CliRunner().invoke(app, arguments).stdout
    assert "grid, stochastic" in shown
