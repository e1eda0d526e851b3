"""Dead neurons, planted and counted again by numpy."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.surgery import quantize_model
from altgrad_plugins.monitors.gradients import silence
from altgrad_plugins.monitors.gradients.silence import threshold


@pytest.fixture
def model(load_format: Callable[..., Format]) -> Callable[..., nn.Module]:
    """Two layers around an activation, ``1``, of 7 units, of which ``dead`` are."""

    def make(activation: nn.Module, dead: tuple[int, ...] = (2, 5)) -> nn.Module:
        torch.manual_seed(1)
        made = nn.Sequential(nn.Linear(6, 7), activation, nn.Linear(7, 5))
        with torch.no_grad():
            made[0].bias[list(dead)] = -100.0
        quantize_model(made, load_format("bf16"))
        return made

    return make


def test_relu_units_and_rows_are_those_of_a_count_by_hand(
    model: Callable[..., nn.Module], load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    made, inputs = model(nn.ReLU()), torch.randn(4, 3, 6)
    with torch.no_grad():
        made[0].bias[3] = -0.3  # silent for most, not for all
    place = bench(load_monitor("dead_neurons"), made)
    metrics = place.step(inputs=inputs)
    weight = made[0].weight.detach().bfloat16().double().numpy()
    hidden = inputs.double().numpy() @ weight.T + made[0].bias.detach().double().numpy()
    silent = [unit for unit in range(7) if (hidden[..., unit] <= 0).all()]
    assert silent == [2, 5]
    rows = [r for r in range(7) if not np.any(made[0].weight.grad[r].numpy())]
    assert rows == silent
    assert metrics == {
        "dead_neurons/1/dead_units": 2,
        "dead_neurons/1/dead_units_rate": 2 / 7,
        "dead_neurons/all/dead_units": 2,
        "dead_neurons/all/dead_units_rate": 2 / 7,
        "dead_neurons/0.weight/dead_rows": 2,
        "dead_neurons/0.weight/dead_rows_rate": 2 / 7,
        "dead_neurons/2.weight/dead_rows": 0,
        "dead_neurons/2.weight/dead_rows_rate": 0,
        "dead_neurons/all/dead_rows": 2,
        "dead_neurons/all/dead_rows_rate": 2 / 12,
    }
    assert place.events == []


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "silu", "swish", "quick_gelu"])
def test_smooth_units_are_dead_below_epsilon_times_the_rms(
    activation: str,
    model: Callable[..., nn.Module],
    load_monitor: Callable[..., Monitor],
    bench: Any,
) -> None:
    made, inputs = model(ACT2FN[activation]), torch.randn(5, 6)
    with torch.no_grad():
        made[0].weight[5].zero_()
        made[0].bias[5] = 0.005  # alive, but small throughout
    place = bench(load_monitor("dead_neurons", interval=1, epsilon=0.02), made)
    metrics = place.step(1, inputs=inputs)
    output = made[1](made[0](inputs)).detach().double().numpy()
    largest, rms = np.abs(output).max(axis=0), math.sqrt((output**2).mean())
    assert 0 < largest[5] < 0.02 * rms
    assert largest[2] < 1e-30
    assert metrics["dead_neurons/1/dead_units"] == (largest < 0.02 * rms).sum() == 2
    strict = bench(load_monitor("dead_neurons", epsilon=1e-5), made)
    assert strict.step(inputs=inputs)["dead_neurons/1/dead_units"] == 1


def test_a_dead_layer_is_told_once_for_each_of_its_parts_and_not_after_a_restart(
    model: Callable[..., nn.Module], load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    made = model(nn.ReLU(), dead=tuple(range(7)))
    place = bench(load_monitor("dead_neurons", interval=1), made)
    for step in (1, 2):
        metrics = place.step(step, inputs=torch.randn(4, 6))
    assert metrics["dead_neurons/1/dead_units_rate"] == 1
    assert [(e.kind, e.layer, e.message, e.alert) for e in place.events] == [
        ("dead_layer", "1", "all 7 units say nothing on this batch", True),
        ("dead_layer", "0.weight", "all 7 rows of the weight have no gradient", True),
        ("dead_layer", "2.weight", "all 5 rows of the weight have no gradient", True),
    ]
    again = bench(load_monitor("dead_neurons", interval=1), made)
    again.panel.load_state_dict(copy.deepcopy(place.panel.state_dict()))
    again.step(3, inputs=torch.randn(4, 6))
    assert again.events == []


def test_one_living_example_is_enough(
    model: Callable[..., nn.Module], load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    made, inputs = model(nn.ReLU()), torch.zeros(4, 3, 6)
    with torch.no_grad():
        made[0].weight.copy_(torch.eye(7, 6))
        made[0].bias.fill_(-0.5)
    inputs[3, 1, 4] = 1.0
    metrics = bench(load_monitor("dead_neurons"), made).step(inputs=inputs)
    assert metrics["dead_neurons/1/dead_units"] == 6
    assert metrics["dead_neurons/0.weight/dead_rows"] == 6


def test_broken_outputs_and_gradients_are_neither_dead_nor_alive(
    model: Callable[..., nn.Module], load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    made, inputs = model(nn.ReLU(), dead=tuple(range(7))), torch.randn(4, 6)
    inputs[1, 1] = math.nan
    broken = torch.zeros(7, 6)
    broken[1, 1] = math.nan
    place = bench(load_monitor("dead_neurons"), made)
    metrics = place.step(inputs=inputs, gradients={"0.weight": broken})
    assert math.isnan(metrics["dead_neurons/1/dead_units"])
    assert math.isnan(metrics["dead_neurons/all/dead_units_rate"])
    assert metrics["dead_neurons/0.weight/dead_rows"] == 6
    assert "1" not in [event.layer for event in place.events]


class Twice(nn.Module):
    """One activation module in two places, of different widths; and one as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 7), nn.Linear(7, 4), nn.Linear(4, 4)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.act(self.second(self.act(self.first(x))))
        # The first unit stays dead, the second comes to life, the last two die.
        turned = self.act(torch.tensor([-1.0, 1.0, 1.0, 1.0]) - 100 * hidden)
        result: Tensor = nn.functional.relu(self.third(turned))
        return result


def test_a_module_in_several_places_and_what_is_no_module(
    load_monitor: Callable[..., Monitor], load_format: Callable[..., Format], bench: Any
) -> None:
    torch.manual_seed(0)
    made = Twice()
    with torch.no_grad():
        made.first.bias[:3] = -100.0
        made.second.weight.fill_(0.1)
        made.second.bias[:2] = -100.0
        made.second.bias[2:] = 1.0
        made.third.bias.fill_(-100.0)
    quantize_model(made, load_format("bf16"))
    metrics = bench(load_monitor("dead_neurons"), made).step(inputs=torch.randn(9, 6))
    assert metrics["dead_neurons/act/dead_units"] == 3 + 1
    assert metrics["dead_neurons/act/dead_units_rate"] == 4 / 11
    assert metrics["dead_neurons/third.weight/dead_rows_rate"] == 1


def test_units_of_a_convolution_are_its_channels() -> None:
    images = torch.ones(2, 5, 4, 4)
    images[:, 1:3] = 0
    assert silence._silent_units(images, 0.0).tolist() == [0, 1, 1, 0, 0]


def test_only_the_steps_own_forward_in_training_is_looked_at(
    model: Callable[..., nn.Module], load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    """A replay, an evaluation and a step that is not due, all with units that live."""
    made = model(nn.ReLU(), dead=())
    monitor = load_monitor("dead_neurons", interval=3)
    place = bench(monitor, made)
    with torch.no_grad():
        made[0].bias.fill_(-1000.0)
    lively = Batch({"inputs": torch.full((2, 6), 1e6) * made[0].weight[0].sign()}, 2, 2)
    place.run.step = 2
    assert float(made[:2](lively.tensors["inputs"]).detach().amax()) > 1e3
    measure = monitor.before_update

    def replaying(step: Any) -> Any:
        made.train()
        for reference in (False, True):
            with step.replay(lively, reference=reference):
                made.train()
                made(lively.tensors["inputs"])
        made.eval()
        made(lively.tensors["inputs"])
        made.train()
        return measure(step)

    monitor.before_update = replaying  # type: ignore[method-assign]
    # As after a shift to another format, which exchanges the quantizer.
    made[0].weight_quantizers["weight"] = copy.copy(made[0].weight_quantizers["weight"])
    place.run.step = 2
    made(lively.tensors["inputs"])
    metrics = place.step(3, inputs=torch.randn(4, 6))
    assert metrics["dead_neurons/1/dead_units_rate"] == 1


def test_hooks_come_off_at_the_end_and_cannot_break_the_forward_pass(
    model: Callable[..., nn.Module],
    load_monitor: Callable[..., Monitor],
    bench: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hooks(of: nn.Module) -> int:
        return sum(len(module._forward_hooks) for module in of.modules())

    ended = bench(load_monitor("dead_neurons"), model(nn.ReLU()))
    assert hooks(ended.model) == 1
    ended.panel.end(ended.run)
    assert hooks(ended.model) == 0
    broken = bench(load_monitor("dead_neurons"), model(nn.ReLU()))
    monkeypatch.setattr(silence, "_silent_units", lambda output, limit: 1 / 0)
    with pytest.raises(AssertionError, match=r"failed in before_update.*ZeroDivisionError"):
        broken.step(inputs=torch.ones(1, 6))
    assert hooks(broken.model) == 0


def test_patterns_choose_activation_modules_too(
    model: Callable[..., nn.Module], load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    metrics = bench(load_monitor("dead_neurons", layers=("0.*", "1")), model(nn.ReLU())).step(
        inputs=torch.randn(2, 6)
    )
    assert {name.split("/")[1] for name in metrics} == {"0.weight", "1", "all"}


def test_which_modules_are_activations() -> None:
    exact = {name for name in ACT2FN if threshold(ACT2FN[name], 0.5) == 0}
    small = {name for name in ACT2FN if threshold(ACT2FN[name], 0.5) == 0.5}
    assert exact == {"relu", "relu2", "relu6"}
    assert small >= {"gelu", "gelu_new", "gelu_pytorch_tanh", "silu", "swish", "hardswish"}
    assert not small & {"tanh", "sigmoid", "linear", "leaky_relu", "prelu"}
    assert threshold(nn.Linear(2, 2), 0.5) is None
