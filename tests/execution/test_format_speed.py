"""The speed of formats: ratios to a rival in the same round, every kind of work, and the JSON form."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from altgrad_core import load_format
from altgrad_core.cli import app
from altgrad_core.errors import UserError
from altgrad_core.execution import format_speed, interleave
from altgrad_core.execution.format_speed import measure_formats
from altgrad_core.execution.format_work import TENSOR_WORK, WORK
from altgrad_core.interfaces import Format, Offer, hookimpl
from altgrad_core.registry.catalog import Catalog, catalog
from altgrad_core.testing.benchmarks import format_benchmarks


def test_planted_times_come_out_as_ratios_and_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gets slower from round to round, and a format that takes four times a copy."""
    now, slow = [0.0], [1.0]

    def planted(fmt: Any, device: torch.device, **_: Any) -> dict[str, Callable[[], object]]:
        def spend(milliseconds: float) -> None:
            now[0] += slow[0] * milliseconds / 1000

        def copy() -> None:
            slow[0] *= 1.5
            spend(1)

        if fmt is None:
            return {"training_step": lambda: spend(10), "copy": copy}
        return {"training_step": lambda: spend(30), "encode": lambda: spend(4)}

    monkeypatch.setattr(format_speed, "format_work", planted)
    monkeypatch.setattr(interleave.time, "perf_counter", lambda: now[0])
    found = measure_formats(["e5m2"], device="cpu", rounds=5, threads=1, elements=1000)
    rows = {(row.format, row.work): row for row in found.rows}
    copied, coded = rows["plain", "copy"], rows["e5m2", "encode"]
    assert (coded.ratio, coded.beside, copied.ratio) == (pytest.approx(4), "copy", 1)
    assert coded.q1_ms < coded.median_ms < coded.q3_ms
    assert coded.median_ms == pytest.approx(4 * 1.5**6, rel=1e-5)  # 3 rounds warm up
    assert coded.gigabytes_per_second == pytest.approx(8000 / coded.median_ms / 1e6, rel=1e-5)
    step = rows["e5m2", "training_step"]
    assert (step.ratio, step.beside) == (pytest.approx(3), "training_step")
    assert step.gigabytes_per_second is None
    assert (coded.distribution, coded.version) == ("altgrad-bench", "0.1.0")


@pytest.mark.parametrize("name", ["e4m3", "fp32"])
def test_the_calls_do_what_their_names_say(name: str) -> None:
    fmt = load_format(name)
    calls = dict(format_benchmarks(fmt, elements=64))
    assert tuple(calls) == WORK
    rounded, decoded = calls["quantise_nearest"](), calls["decode"]()
    assert torch.equal(decoded, rounded)
    assert torch.equal(calls["encode"](), fmt.encode(rounded))
    drawn = [calls["quantise_stochastic"]() for _ in range(2)]
    assert torch.equal(fmt.round(drawn[0]), drawn[0])
    assert rounded.abs().max() > 0.4 * fmt.max_finite or not fmt.scaled
    before = torch.get_rng_state()
    for work in ("linear_forward_backward", "training_step"):
        calls[work]()
    assert torch.equal(before, torch.get_rng_state())
    (plain,) = format_benchmarks(None, elements=64, names=TENSOR_WORK)
    assert plain[0] == "copy"


def test_every_registered_format_is_measured_or_left_out_with_the_reason() -> None:
    found = measure_formats(
        [], device="cpu", rounds=3, threads=1, elements=64, work=["quantise_nearest"]
    )
    names = {row.format for row in found.rows}
    assert {"plain", "e0m7", "e7m0", "bf16", "fp32"} <= names
    assert found.left_out.keys() == {"exmy", "table"} - names
    assert "exponent_bits" in found.left_out["exmy"]
    for wanted in ("exmy", {"bits": 3}, "e4m4"):
        with pytest.raises(UserError):
            measure_formats([wanted], device="cpu", rounds=3, threads=1)
    with pytest.raises(UserError, match="Did you mean 'encode'"):
        measure_formats([], device="cpu", rounds=3, threads=1, work=["encod"])


def test_the_page_names_every_kind_of_work() -> None:
    page = (Path(__file__).parents[2] / "docs" / "throughput.md").read_text(encoding="utf-8")
    for name in WORK:
        assert f"`{name}`" in page


class Broken(Format):
    name, bits = "broken", 1

    def code_values(self) -> torch.Tensor:
        return torch.tensor([0.0, 1.0])

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError("no codes today")


class Plugin:
    @hookimpl
    def altgrad_formats(self) -> list[Offer]:
        return [Offer("broken", "has no codes", f"{__name__}:Plugin.build")]

    @staticmethod
    def build(name: str, settings: object) -> Broken:
        return Broken()


def test_a_format_that_fails_at_its_work_stops_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    merged = catalog().merged(Catalog.from_modules(Plugin()))
    monkeypatch.setattr(format_speed, "catalog", lambda: merged)
    few: Any = {"device": "cpu", "rounds": 3, "threads": 1, "elements": 64, "work": ["encode"]}
    found = measure_formats([], **few)
    assert "ZeroDivisionError: no codes today" in found.left_out["broken"]
    assert "e5m2" in {row.format for row in found.rows}
    with pytest.raises(UserError, match="'broken' of tests 0 fails at what is timed"):
        measure_formats(["broken"], **few)


def test_the_command_prints_json_that_compares_over_commits() -> None:
    settings = "{name: exmy, exponent_bits: 2, mantissa_bits: 1}"
    few = ["--rounds", "3", "--elements", "64", "--work", "encode"]
    arguments = ["speed", "formats", "e5m2", settings, *few]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    keys = [(row["format"], row["work"]) for row in found["rows"]]
    assert len(set(keys)) == len(keys)
    assert ("exmy (exponent_bits=2, mantissa_bits=1)", "encode") in keys
    assert (found["schema"], found["elements"], found["rounds"]) == (1, 64, 3)
    assert found["environment"]["threads"] == 1
    shown = CliRunner().invoke(app, arguments).stdout
    assert "a plain copy" in shown
    assert "e5m2" in shown
