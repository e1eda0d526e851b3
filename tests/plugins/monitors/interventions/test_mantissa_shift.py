"""Emergency shifts: planted NaN gradients and planted stalls."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from altgrad_core.interfaces.monitor import Monitor


def poisoned() -> torch.Tensor:
    gradient = torch.ones(7, 6)
    gradient[2, 3] = math.nan
    return gradient


def test_steps_with_broken_gradients_are_skipped_and_their_layer_moves_in_the_end(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    monitor = load_monitor(
        "mantissa_shift", interval=1, on_nan=["e3m4", "e4m3", "e5m2"], patience=3
    )
    place = bench(monitor, two_layers("e3m4"))
    before = place.weights["0.weight"].parameter.detach().clone()
    fine = torch.ones(5, 7)
    shifts = []
    for step, broken in enumerate((True, True, False, True, True, True), 1):
        gradient = poisoned() if broken else torch.ones(7, 6)
        metrics = place.step(
            step,
            gradients={"0.weight": gradient, "2.weight": fine},
            change=lambda name, weight: weight + 1,
        )
        shifts.append(dict(place.last.shifts))
    assert shifts == [{}, {}, {}, {}, {}, {"0.weight": "e4m3"}]
    moved = place.weights["0.weight"].parameter.detach() - before
    torch.testing.assert_close(moved, torch.ones_like(moved))  # the one step that was not skipped
    assert metrics["shift/all/skipped"] == 5
    assert metrics["shift/0.weight/shifts"] == 1
    assert metrics["shift/2.weight/shifts"] == 0
    kinds = [(event.kind, event.layer) for event in place.events]
    assert kinds == [("update_skipped", "all"), ("format_shift", "0.weight")]
    assert "e3m4 -> e4m3 after step 6" in place.events[1].message


def test_layers_that_stall_move_along_the_chain_to_its_end(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    monitor = load_monitor(
        "mantissa_shift", interval=1, on_stall=["e5m2", "e4m3", "e3m4"], on_nan=[], patience=2
    )
    place = bench(monitor, two_layers("e5m2", residency="grid"))
    shifts = []
    for step in range(1, 8):
        gap = {name: w.ulp(w.parameter.detach()) for name, w in place.weights.items()}

        def change(name: str, weight: torch.Tensor, gap: Any = gap) -> torch.Tensor:
            return weight + 0.1 * gap[name] if name == "0.weight" else weight

        place.step(step, change=change)
        shifts.append(dict(place.last.shifts))
    assert shifts == [{}, {"0.weight": "e4m3"}, {}, {"0.weight": "e3m4"}, {}, {}, {}]
    kinds = [event.kind for event in place.events]
    assert kinds == ["format_shift", "format_shift", "format_chain_end"]
    again = load_monitor("mantissa_shift", interval=1, on_stall=["e5m2", "e4m3"], on_nan=[])
    again.load_state_dict(monitor.state_dict())
    assert again.state_dict() == monitor.state_dict()


def test_the_whole_model_moves_together_if_asked(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    monitor = load_monitor(
        "mantissa_shift", interval=1, on_nan=["e3m4", "e5m2"], patience=1, scope="model"
    )
    place = bench(monitor, two_layers("e3m4"))
    place.step(1, gradients={"0.weight": poisoned(), "2.weight": torch.ones(5, 7)})
    assert place.last.shifts == {"0.weight": "e5m2", "2.weight": "e5m2"}


def test_masters_do_not_move_for_their_stalls(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("mantissa_shift", interval=1, patience=1), two_layers("e5m2"))
    for step in (1, 2, 3):
        place.step(step, change=lambda name, weight: weight * (1 + 1e-6))
    assert not place.events


@pytest.mark.parametrize("chain", [["e5m2"], ["e5m2", "e4m3", "e5m2"]])
def test_chains_lead_somewhere_and_once(
    chain: list[str], load_monitor: Callable[..., Monitor]
) -> None:
    with pytest.raises(ValidationError):
        load_monitor("mantissa_shift", on_stall=chain)
