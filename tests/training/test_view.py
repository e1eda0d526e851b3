"""Views: copies on first ask, shared; rungs under the scale of the step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import GridResidency
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.testing.monitors import CoarseFormat
from altgrad_core.training.clock import StepClock
from altgrad_core.training.view import Run, StepView


class Counting(CoarseFormat):
    """Counts how often rungs are computed."""

    calls = 0

    def to_rung(self, x: Tensor) -> Tensor:
        type(self).calls += 1
        return Format.to_rung(self, x)


@pytest.fixture
def run() -> Run:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4))
    quantize_model(model, Counting())
    Counting.calls = 0
    device = torch.device("cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return Run(model, optimizer, weight_geometry(model), device, 9, StepClock(device), step=3)


def test_the_view_shows_the_run_and_the_loss(run: Run) -> None:
    loss = torch.tensor(0.5)
    view = StepView(run, loss)
    assert (view.step, view.max_steps, view.loss) == (3, 9, loss)
    assert view.model is run.model
    assert view.optimizer is run.optimizer
    assert view.weights is run.weights
    assert view.clock is run.clock
    assert view.device == torch.device("cpu")


def test_copies_are_made_once_and_only_on_demand(run: Run) -> None:
    view = StepView(run, torch.tensor(0.0))
    assert Counting.calls == 0
    first = view.weight_before("0.weight")
    assert view.weight_before("0.weight") is first
    assert first.data_ptr() != run.weights["0.weight"].parameter.data_ptr()
    assert not first.requires_grad
    assert Counting.calls == 0
    assert view.rung_before("0.weight") is view.rung_before("0.weight")
    view.mark_updated()
    assert view.rung_after("0.weight") is view.rung_after("0.weight")
    assert Counting.calls == 2


def test_old_and_new_rungs_share_the_scale_of_the_forward_pass(run: Run) -> None:
    run.model(torch.ones(1, 6))
    weight = run.weights["0.weight"].parameter
    old = weight.detach().clone()
    view = StepView(run, torch.tensor(0.0))
    view.rung_before("0.weight")
    view.weight_before("0.weight")
    with torch.no_grad():
        weight.mul_(5.0)  # a new forward pass would use a scale at least four times as large
    view.mark_updated()

    # amax / (7/8), rounded up to a power of two; the grid has steps of 1/8 and ends at 7/8
    scale = 2.0 ** np.ceil(np.log2(float(old.abs().max()) / 0.875))
    rungs = [np.clip(np.round(w.numpy() / scale * 8), -7, 7) for w in (old, weight.detach())]
    assert np.array_equal(view.rung_before("0.weight").numpy(), rungs[0])
    assert np.array_equal(view.rung_after("0.weight").numpy(), rungs[1])
    assert torch.equal(view.weight_before("0.weight"), old)


@pytest.mark.parametrize("method", ["weight_before", "rung_before", "ulp_before"])
def test_the_past_must_be_asked_for_before_the_update(run: Run, method: str) -> None:
    view = StepView(run, torch.tensor(0.0))
    view.mark_updated()
    with pytest.raises(RuntimeError, match=r"first asked for after the update of step 3"):
        getattr(view, method)("0.weight")


def test_the_future_cannot_be_asked_for(run: Run) -> None:
    view = StepView(run, torch.tensor(0.0))
    with pytest.raises(RuntimeError, match="before the update of step 3"):
        view.rung_after("0.weight")


@pytest.mark.parametrize("method", ["weight_before", "rung_before", "ulp_before", "rung_after"])
def test_an_unknown_weight_is_named_with_those_that_exist(run: Run, method: str) -> None:
    view = StepView(run, torch.tensor(0.0))
    with pytest.raises(KeyError, match=r"'0.bias' is not a quantised weight.*0.weight, 1.weight"):
        getattr(view, method)("0.bias")


@pytest.fixture
def resident() -> Run:
    """A resident layer of ones under scale 1, with room above, and its residency."""
    model = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        model.weight.fill_(8.0)
    quantize_model(
        model, load_format("e3m4"), residency="grid", scaling=ScalingSettings(headroom=3)
    )
    device = torch.device("cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    residency = GridResidency(model)
    residency.attach(optimizer)
    weights = weight_geometry(model)
    return Run(model, optimizer, weights, device, 9, StepClock(device), 3, residency=residency)


def take(run: Run, change: Tensor) -> StepView:
    """The view after an update by ``change``, with what a monitor would ask for before it."""
    view = StepView(run, torch.tensor(0.0))
    view.weight_before("weight")
    view.rung_before("weight")
    run.weights["weight"].parameter.grad = -change
    run.optimizer.step()
    view.mark_updated()
    return view


def test_the_intended_weight_of_a_resident_one_is_what_the_optimizer_wanted(resident: Run) -> None:
    change = torch.tensor([[0.1, 0.2, 0.3], [0.0, -0.26, 0.0]])
    view = take(resident, change)
    assert torch.equal(view.weight_intended("weight"), 8.0 + change)
    assert resident.weights["weight"].parameter.tolist() == [[8.0, 8.0, 8.5], [8.0, 7.75, 8.0]]
    assert (view.rung_after("weight") - view.rung_before("weight")).tolist() == [
        [0, 0, 1],
        [0, -1, 0],
    ]
    assert not view.rescaled("weight").any()
    later = StepView(resident, torch.tensor(0.0))
    resident.optimizer.step()
    later.mark_updated()
    with pytest.raises(RuntimeError, match="needs weight_before"):
        later.weight_intended("weight")


def test_the_intended_weight_of_a_master_is_the_new_weight(run: Run) -> None:
    view = StepView(run, torch.tensor(0.0))
    with pytest.raises(RuntimeError, match="before the update"):
        view.weight_intended("0.weight")
    view.mark_updated()
    assert torch.equal(view.weight_intended("0.weight"), run.weights["0.weight"].parameter)
    assert not view.rescaled("0.weight").any()


def test_a_change_of_scale_is_no_flip(resident: Run) -> None:
    change = torch.zeros(2, 3)
    change[0, 0] = 200.0
    view = take(resident, change)
    assert view.rescaled("weight").all()
    assert torch.equal(view.rung_after("weight"), view.rung_before("weight"))
    assert int(resident.weights["weight"].scale_changes()) == 1


def test_a_skipped_update_intends_nothing(resident: Run) -> None:
    assert resident.residency is not None
    view = StepView(resident, torch.tensor(0.0))
    before = view.weight_before("weight")
    view.rung_before("weight")
    view.mark_updated()
    assert torch.equal(view.weight_intended("weight"), before)
    assert torch.equal(view.rung_after("weight"), view.rung_before("weight"))
    resident.residency.forget()
    assert not resident.weights["weight"].quantizer.resident.watched  # type: ignore[attr-defined]
