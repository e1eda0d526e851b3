"""Subnormals against codes, output gradients against a backward pass by hand, and the events."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import change_format, quantize_model
from altgrad_plugins.monitors.stability.ranges import first_normal_rung

MANTISSA_BITS = {
    **{"e0m7": 7, "e1m6": 6, "e2m5": 5, "e3m4": 4, "e4m3": 3, "e5m2": 2, "e6m1": 1, "e7m0": 0},
    **{"bf16": 7, "fp32": 23},
}
LAYERS = ("0.weight", "2.weight")


def unquantized() -> nn.Module:
    """The model of ``two_layers``, before it is quantised."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 5))


def wide(model: nn.Module, fmt: Format, mantissa_bits: int) -> nn.Module:
    """Weights on low rungs of ``fmt``, below and above its smallest normal, and on its top."""
    top = fmt.to_rung(torch.tensor(fmt.max_finite))
    low = 2 ** (mantissa_bits + 1)
    with torch.no_grad():
        for layer in (model[0], model[2]):  # type: ignore[index]
            rungs = torch.randint(-low, low + 1, layer.weight.shape)
            rungs[:, 0] = top
            rungs[0, 1], rungs[0, 2] = 0, 1
            layer.weight.copy_(fmt.from_rung(rungs))
    return model


@pytest.mark.parametrize("name", MANTISSA_BITS)
@pytest.mark.parametrize("options", ["master", "grid", "channel"])
def test_subnormal_weights_are_those_whose_code_has_no_exponent(
    name: str,
    options: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    fmt, mantissa = load_format(name), MANTISSA_BITS[name]
    scaling = ScalingSettings(granularity="channel" if options == "channel" else "tensor")
    residency = "grid" if options == "grid" else "master"
    model = wide(unquantized(), fmt, mantissa)
    quantize_model(model, fmt, scaling=scaling, residency=residency)
    place = bench(load_monitor("overflow"), model)
    metrics = place.step()
    total = 0
    for layer in LAYERS:
        geometry = place.weights[layer]
        codes = fmt.encode((geometry.parameter / geometry.scale()).detach())
        magnitude = codes & (2 ** (fmt.bits - 1) - 1)
        expected = int(((magnitude > 0) & (magnitude >> mantissa == 0)).sum())
        assert metrics[f"overflow/{layer}/weight_subnormal"] == expected
        assert metrics[f"overflow/{layer}/weight_subnormal_rate"] == expected / codes.numel()
        total += expected
    assert metrics["overflow/all/weight_subnormal"] == total
    assert total < 7 * 6 + 5 * 7 - 2 or name == "e0m7"
    assert (total > 0) == (mantissa > 0)


@pytest.mark.parametrize(
    "layout",
    [
        {"exponent_bits": 0, "mantissa_bits": 3},
        {"exponent_bits": 1, "mantissa_bits": 2},
        {"exponent_bits": 3, "mantissa_bits": 2, "bias": 9},
        {"exponent_bits": 1, "mantissa_bits": 1, "specials": "ieee"},
    ],
    ids=str,
)
def test_the_first_normal_rung_is_that_of_the_layout(
    layout: dict[str, Any], load_format: Callable[..., Format]
) -> None:
    fmt: Any = load_format("exmy", **layout)
    smallest = fmt.layout.smallest_normal
    expected = math.inf if smallest is None else float(fmt.to_rung(torch.tensor(smallest)))
    assert first_normal_rung(fmt) == expected


def test_a_table_says_nothing_about_subnormals(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    fmt = load_format("table", values=[0.0, 0.5, -0.5, 1.0])
    metrics = bench(load_monitor("overflow"), two_layers(fmt)).step()
    assert "overflow/0.weight/weight_underflow" in metrics
    assert not [name for name in metrics if "subnormal" in name]


def test_the_count_is_unknown_where_the_scale_is(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("overflow"), two_layers("e4m3"))
    with torch.no_grad():
        place.weights["0.weight"].parameter[0, 0] = math.nan
    metrics = place.step()
    assert math.isnan(metrics["overflow/0.weight/weight_subnormal"])
    assert not math.isnan(metrics["overflow/2.weight/weight_subnormal"])


class Weighed:
    """A loss that weighs outputs, so that gradients have many sizes: ``factor · Σ output · weight``."""

    def __init__(self) -> None:
        self.factor = 1.0
        self.weights = torch.logspace(-4, 0, 5)

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        total: Tensor = (model(batch.tensors["inputs"]) * self.weights).sum() * self.factor
        return total


def by_hand(gradient: Tensor, scale: float, fmt: Format) -> tuple[int, int]:
    over = under = 0
    for value in gradient.double().flatten().tolist():
        over += abs(value) / scale > fmt.max_finite
        under += value != 0 and float(fmt.round(torch.tensor(value / scale))) == 0
    return over, under


def power_of_two(amax: float, fmt: Format) -> float:
    return 2.0 ** math.ceil(math.log2(amax / fmt.max_finite))


def test_output_gradients_are_counted_in_their_own_format_and_scale(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    """Delayed scales: what outgrows the last step overflows."""
    fmt, loss = load_format("e2m5"), Weighed()
    model = two_layers(
        "e5m2", gradient_format=fmt, scaling=ScalingSettings(mode="delayed", history=1)
    )
    place = bench(load_monitor("overflow", interval=1), model, loss=loss)
    inputs = torch.randn(4, 6)
    scales: dict[str, float] = {}
    totals = [0, 0]
    for step, factor in ((1, 1.0), (2, 3.0), (3, 0.125)):
        loss.factor = factor
        metrics = place.step(step, inputs=inputs)
        top = (loss.weights * factor).expand(4, 5)
        hidden = torch.tanh(model[0](inputs)).detach()
        second = place.weights["2.weight"]
        weight = second.value(second.rung(second.parameter.detach()))
        used = scales.get("2.weight", power_of_two(float(top.abs().max()), fmt))
        rounded = fmt.round(top / used) * used
        below = (rounded @ weight) * (1 - hidden.square())
        for layer, gradient in (("2.weight", top), ("0.weight", below)):
            own = power_of_two(float(gradient.abs().max()), fmt)
            over, under = by_hand(gradient, scales.get(layer, own), fmt)
            assert metrics[f"overflow/{layer}/output_gradient_overflow"] == over
            assert metrics[f"overflow/{layer}/output_gradient_underflow"] == under
            rate = metrics[f"overflow/{layer}/output_gradient_underflow_rate"]
            assert rate == under / gradient.numel()
            scales[layer] = own
            totals = [totals[0] + over, totals[1] + under]
    assert min(totals) > 0
    kinds = {(event.kind, event.layer) for event in place.events}
    assert ("overflow_backward", "2.weight") in kinds


def test_inputs_are_counted_under_the_scale_that_their_rounding_used(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    """Delayed: that of the step before, on steps that are measured and on others."""
    fmt = load_format("e2m5")
    delayed = ScalingSettings(mode="delayed", history=1)
    place = bench(
        load_monitor("overflow", interval=2),
        two_layers("e5m2", activation_format=fmt, scaling=delayed),
    )
    inputs, scale, totals = torch.randn(4, 6) * torch.logspace(-3, 0, 6), None, [0, 0]
    for step, factor in enumerate((1.0, 3.0, 0.125, 2.0), 1):
        x = inputs * factor
        metrics = place.step(step, inputs=x)
        own = power_of_two(float(x.abs().max()), fmt)
        over, under = by_hand(x, own if scale is None else scale, fmt)
        scale = own
        if step != 3:
            assert metrics["overflow/0.weight/input_overflow"] == over
            assert metrics["overflow/0.weight/input_underflow"] == under
            totals = [totals[0] + over, totals[1] + under]
    assert min(totals) > 0


def test_without_a_gradient_format_there_are_no_output_gradients(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    metrics = bench(load_monitor("overflow"), two_layers()).step(inputs=torch.ones(1, 6))
    assert not [name for name in metrics if "output_gradient" in name]


def test_a_pass_that_is_repeated_for_measurement_is_not_counted(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    narrow = load_format("e0m7")
    model = two_layers("e5m2", activation_format=narrow, gradient_format=narrow)
    place = bench(load_monitor("overflow", interval=1), model)
    x = torch.randn(3, 6)
    batch = Batch({"inputs": x}, samples=3, tokens=3)
    wanted = ("input_underflow", "output_gradient_underflow")
    once = place.step(1, inputs=x)
    assert all(f"overflow/0.weight/{metric}" in once for metric in wanted)
    for reference in (False, True):
        place.run.step = 2
        with place.run._replayer.replay(batch, step=2, reference=reference) as loss:
            torch.autograd.grad(loss, list(model.parameters()))
    again = place.step(2)
    assert not [name for name in again if "input" in name or "output_gradient" in name]


def test_several_passes_of_a_step_are_added_up(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    def twice(model: nn.Module, batch: Batch) -> Tensor:
        total: Tensor = model(batch.tensors["inputs"]).sum() + model(batch.tensors["inputs"]).sum()
        return total

    frozen = ScalingSettings(mode="frozen")
    model = two_layers(activation_format=load_format("e0m7"), scaling=frozen)
    place = bench(load_monitor("overflow", interval=1), model, loss=twice)
    place.step(1, inputs=torch.ones(1, 6))  # the scale is 2 for good, and 254/128 the largest value
    metrics = place.step(2, inputs=torch.tensor([[3.0, -3.0, 2.0, 1e-3, 1.0, 0.0]]))
    assert metrics["overflow/0.weight/input_overflow"] == 2 * 3
    assert metrics["overflow/0.weight/input_overflow_rate"] == 0.5
    assert metrics["overflow/0.weight/input_underflow"] == 2


def test_hooks_of_both_roles_come_off_at_the_end(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    narrow = load_format("e0m7")
    place = bench(
        load_monitor("overflow"),
        two_layers(activation_format=narrow, gradient_format=narrow),
    )

    def hooks() -> int:
        modules = list(place.model.modules())
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)

    assert hooks() == 4
    place.panel.end(place.run)
    assert hooks() == 0


def test_a_resident_weight_is_judged_by_the_intended_update(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("overflow"), two_layers("e5m2", residency="grid"))
    before = place.weights["0.weight"].parameter.detach().clone()
    metrics = place.step(change=lambda name, weight: weight * (1 + 2.0**-9))
    assert torch.equal(before, place.weights["0.weight"].parameter)  # all of it was lost
    assert metrics["overflow/0.weight/update_lost"] == int((before != 0).sum()) > 30


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_updates_are_measured_in_the_gaps_of_before_the_update(
    granularity: Any, load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """One weight outgrows the grid, so the scale grows with the update; the others moved by 0.7 gaps."""
    scaling = ScalingSettings(granularity=granularity)
    model = two_layers("e0m7", residency="grid", scaling=scaling)
    place = bench(load_monitor("overflow", layers=["0.*"]), model)
    geometry = place.weights["0.weight"]
    old_scale = geometry.scale().clone()
    gap = old_scale / 128

    def change(name: str, weight: Tensor) -> Tensor:
        if name != "0.weight":
            return weight
        moved = weight + 0.7 * gap
        moved[:, 1] = weight[:, 1] + (0.3 * gap.expand_as(weight))[:, 1]
        moved[:, 0] = 16 * old_scale.expand_as(weight)[:, 0]
        return moved

    metrics = place.step(change=change)
    assert bool((geometry.scale() >= 16 * old_scale).all())
    assert metrics["overflow/0.weight/update_lost"] == 7  # those that moved by 0.3 gaps
    assert metrics["overflow/0.weight/update_lost_rate"] == 7 / 42


def test_a_format_that_was_exchanged_is_measured_with_its_own_range(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    old = bench(load_monitor("overflow", interval=1), two_layers("e5m2"))
    old.step(1)
    for geometry in old.weights.values():
        change_format(geometry, load_format("e0m7"))
    metrics = old.step(2)
    assert metrics == bench(load_monitor("overflow"), two_layers("e0m7")).step()
    assert metrics["overflow/all/weight_subnormal"] > 70  # of 77: e0m7 has nothing else


def test_rates_beyond_their_limit_are_events_once_for_each_layer(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    def place(**settings: Any) -> Any:
        model = two_layers("e0m7", scaling=ScalingSettings(mode="frozen"))
        return bench(load_monitor("overflow", interval=1, **settings), model)

    def sink(name: str, weight: Tensor) -> Tensor:
        return weight * {"0.weight": 4.0, "2.weight": 2.0**-9}.get(name, 1.0)

    seen = place()
    gradient = torch.full((5, 7), 1e-9)
    gradient[0, 0] = 1.0
    seen.step(1, inputs=torch.ones(1, 6), change=sink)
    assert seen.events == []
    seen.step(2, inputs=torch.ones(1, 6), gradients={"2.weight": gradient})
    found = [(event.kind, event.layer) for event in seen.events]
    assert found == [
        ("overflow_forward", "0.weight"),
        ("underflow_forward", "2.weight"),
        ("underflow_backward", "2.weight"),
    ]
    assert "at step 2, more than 0.001" in seen.events[0].message
    assert seen.events[2].message == "gradient_underflow_rate 0.971 at step 2, more than 0.5"
    seen.step(3, inputs=torch.ones(1, 6), gradients={"2.weight": gradient})
    assert len(seen.events) == 3

    again = place()
    again.panel.load_state_dict(seen.panel.state_dict())
    again.step(4, inputs=torch.ones(1, 6), change=sink)
    again.step(5, inputs=torch.ones(1, 6), gradients={"2.weight": gradient})
    assert again.events == []
    for never in (0, None):
        silent = place(overflow_rate=never, underflow_rate=never)
        silent.step(1, inputs=torch.ones(1, 6), change=sink)
        silent.step(2, inputs=torch.ones(1, 6), gradients={"2.weight": gradient})
        assert silent.events == []
