"""Rounding beside a copy and other libraries: ratios, what agreement is said to be, and the JSON form."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from altgrad_core import load_format
from altgrad_core.cli import app
from altgrad_core.errors import UserError
from altgrad_core.execution import interleave, peers, rounding_speed
from altgrad_core.execution.peers import agreement, peers_of, trials
from altgrad_core.execution.rounding_speed import OURS, measure_rounding
from altgrad_core.registry.catalog import catalog

CPU = torch.device("cpu")
FEW: Any = {"device": "cpu", "rounds": 1, "threads": 1, "elements": 64}


def test_planted_times_come_out_as_shares_of_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gets slower from round to round, and a peer that rounds a quarter of the tensor."""
    now, slow = [0.0], [1.0]

    def spend(milliseconds: float, x: Any = None) -> Any:
        now[0] += slow[0] * milliseconds / 1000
        return x

    def planted(calls: Any, device: Any, *, rounds: int) -> Any:
        def copy() -> None:
            slow[0] *= 1.5
            spend(1)

        times: dict[Any, Callable[[], object]] = {
            key: partial(spend, 2 if key[1] == OURS else 3) for key in calls
        }
        return real(times | {("copy", "torch"): copy}, device, rounds=rounds)

    real = interleave.interleaved
    monkeypatch.setattr(rounding_speed, "interleaved", planted)
    monkeypatch.setattr(rounding_speed, "PEER_ELEMENTS", 16)
    monkeypatch.setattr(
        rounding_speed,
        "peers_of",
        lambda *_: ({"other": {"nearest": torch.clone}}, {"lost": "why"}),
    )
    monkeypatch.setattr(interleave.time, "perf_counter", lambda: now[0])
    found = measure_rounding(["e5m2"], **(FEW | {"rounds": 5}))
    rows = {(row.rounding, row.library): row for row in found.rows}
    assert rows["copy", "torch"].ratio == 1
    ours, other = rows["stochastic", OURS], rows["nearest", "other"]
    assert (ours.ratio, ours.share_of_copy, ours.agreement) == (
        pytest.approx(2),
        pytest.approx(0.5),
        None,
    )
    assert ours.ratio_q1 == pytest.approx(ours.ratio_q3) == pytest.approx(2)
    assert ours.q1_ms < ours.median_ms < ours.q3_ms
    assert other.ratio == pytest.approx(4 * 3)  # as many elements of the copy
    assert other.agreement is not None
    assert other.agreement.startswith("differs in ")
    assert found.left_out == {"lost for e5m2": "why"}


def test_agreement_counts_the_values_and_says_where_they_lie() -> None:
    fmt = load_format("e4m3")
    x = trials()
    assert x.numel() == 3 * 2**17
    assert str(agreement(fmt, "nearest", fmt.round, CPU)) == "agrees"
    drawn = partial(fmt.round, rounding="stochastic", generator=torch.Generator().manual_seed(0))
    assert str(agreement(fmt, "stochastic", drawn, CPU)) == "agrees"

    def wrong(x: Tensor) -> Tensor:
        found = fmt.round(x)
        found[x == 17.0] = 18.0  # a tie, to the odd code
        found[x == 2.0**-9] = 0.0
        found[x == 100.0] = -100.0
        found[x > 448] = torch.inf
        return found.nan_to_num(0.0, nan := torch.inf, -nan)

    found = agreement(fmt, "nearest", wrong, CPU)
    above = int((x > 448).sum())
    assert found.where == {
        "NaN": int(x.isnan().sum()),
        "beyond the largest value": above,
        "ties": 1,
        "below the smallest normal value": 1,
        "elsewhere": 1,
    }
    assert found.differ == sum(found.where.values())
    assert str(found).startswith(f"differs in {found.differ} of {x.numel()}: ")
    off = agreement(fmt, "stochastic", lambda x: fmt.round(2 * x), CPU)
    assert off.where["elsewhere"] > 100


@pytest.mark.parametrize(
    ("name", "agreeing", "apart"),
    [
        ("e4m3", ["torch", "gfloat"], ["ml_dtypes"]),  # which has NaN beyond the largest value
        ("e5m2", ["gfloat"], ["ml_dtypes"]),
        ("e0m7", ["gfloat"], []),
        ("bf16", ["gfloat"], ["torch", "ml_dtypes"]),
    ],
)
def test_libraries_that_are_installed_for_tests_are_found_by_values(
    name: str, agreeing: list[str], apart: list[str]
) -> None:
    fmt = load_format(name)
    found, left_out = peers_of(fmt, CPU)
    calls = {label.split()[0]: roundings["nearest"] for label, roundings in found.items()}
    assert {*agreeing, *apart} <= calls.keys()
    assert not {"torch", "ml_dtypes", "gfloat"} & {label.split()[0] for label in left_out}
    for library in agreeing:
        assert str(agreement(fmt, "nearest", calls[library], CPU)) == "agrees", library
    for library in apart:
        where = agreement(fmt, "nearest", calls[library], CPU).where
        assert where.keys() == {"beyond the largest value"}, library


def test_a_library_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ImportError("no compiler")

    monkeypatch.setattr(peers, "_PEERS", {"torch": broken, "no_such_library_is_installed": broken})
    found, left_out = peers_of(load_format("e5m2"), CPU)
    assert not found
    assert left_out == {f"torch {torch.__version__}": "ImportError: no compiler"}


def test_every_registered_format_is_measured_or_left_out_with_the_reason() -> None:
    found = measure_rounding([], **FEW, peers=False)
    names = {row.format for row in found.rows}
    assert names | found.left_out.keys() == {*catalog().names("format")}
    assert {"e0m7", "e7m0", "bf16", "fp32"} <= names
    assert all(row.share_of_copy > 0 for row in found.rows)
    for wanted in ("exmy", "e4m4"):
        with pytest.raises(UserError):
            measure_rounding([wanted], **FEW)


@pytest.mark.parametrize(
    "name", ["e4m3", "e7m0", "bf16", "fp32", "{name: table, values: [0, 1, 3]}"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rounding_into_a_tensor_is_rounding(name: str, dtype: torch.dtype) -> None:
    values = [0.0, 1.0, 3.0, -4.0]
    fmt = load_format("table", values=values) if name.startswith("{") else load_format(name)
    x = torch.randn(7, 5, dtype=dtype)
    key = torch.Generator().manual_seed(1).get_state()
    for rounding in ("nearest", "stochastic"):
        draws = [torch.Generator(), torch.Generator(), torch.Generator(), torch.Generator()]
        for draw in draws:
            draw.set_state(key)
        want = fmt.round(x, rounding, draws[0])
        out = torch.empty_like(x)
        assert fmt.round_into(out, x, rounding, draws[1]) is out
        assert torch.equal(out, want)
        apart = torch.empty(5, 7, dtype=dtype).t()
        assert torch.equal(fmt.round_into(apart, x, rounding, draws[2]), want)
        inside = x.clone()
        before = inside._version
        assert torch.equal(fmt.round_into(inside, inside, rounding, draws[3]), want)
        assert inside._version > before


def test_the_command_prints_json_that_compares_over_commits() -> None:
    arguments = ["speed", "rounding", "e5m2", "--rounds", "2", "--elements", "64"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["keys"] == ["format", "rounding", "library"]
    keys = [tuple(row[key] for key in found["keys"]) for row in found["rows"]]
    assert len(set(keys)) == len(keys)
    assert ("e5m2", "stochastic", OURS) in keys
    assert (found["schema"], found["elements"], found["rounds"]) == (1, 64, 2)
    shown = CliRunner().invoke(app, [*arguments, "--no-peers"])
    assert shown.exit_code == 0, shown.output
    assert "share" in shown.stdout
