"""Ranges against the formats' own rounding, and the counts against counts by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_plugins.monitors.stability.ranges import Range

SMALLEST_NORMAL = {"e5m2": 2.0**-14, "e0m7": math.inf, "e2m5": 1.0}
LADDER = ("e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0", "bf16", "fp32")


def neighbourhood(center: float) -> Tensor:
    """``center`` and the three floats on each side of it."""
    values = [torch.tensor(center)]
    for direction in (-math.inf, math.inf):
        value = values[0]
        for _ in range(3):
            value = torch.nextafter(value, torch.tensor(direction))
            values.append(value)
    return torch.stack(values)


def lowest(fmt: Format) -> float:
    values = fmt.code_values() if fmt.bits <= 8 else -torch.tensor([fmt.max_finite])
    return float(values[values.isfinite()].min())


def by_hand(x: Tensor, scale: float, fmt: Format) -> tuple[int, int]:
    """Overflows and underflows, one element after the other, in float64 and by the format's rounding."""
    over = under = 0
    for value in x.flatten():
        grid = value / scale
        over += not min(lowest(fmt), 0.0) <= float(grid) <= fmt.max_finite and not math.isnan(grid)
        under += float(value) != 0 and float(fmt.round(grid)) == 0
    return over, under


@pytest.mark.parametrize("name", LADDER)
def test_ranges_are_exact_at_both_edges(name: str, load_format: Callable[..., Format]) -> None:
    fmt = load_format(name)
    held = Range.of(fmt)
    half = fmt.min_positive / 2
    x = torch.cat(
        [
            *(neighbourhood(sign * half) for sign in (1, -1)),
            *(neighbourhood(sign * fmt.min_positive) for sign in (1, -1)),
            *(neighbourhood(sign * fmt.max_finite) for sign in (1, -1)),
            torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1e-45, 1.0]),
        ]
    )
    for element in x:
        counts = [int(count) for count in held.counts(element, torch.ones(()))]
        assert counts == list(by_hand(element, 1.0, fmt)), float(element)


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 1.0, 2.0, 4.0],
        [0.0, 1.0, -0.25, 8.0],
        [0.0, -3.0, 0.5, -1.0],
        [-2.0, -1.0, 1.0, 2.0],
        [1.0, 0.0, -1.0, 2.0],
        [0.0, 1.0, 2.0, -4.5],
        [1.0, 2.0, 3.0, 4.0],
    ],
    ids=[
        *("no negatives", "uneven", "mostly negative", "no zero", "ties away from zero"),
        *("longer below zero", "all positive"),
    ],
)
def test_ranges_of_formats_that_are_not_symmetric(
    values: list[float], load_format: Callable[..., Format]
) -> None:
    fmt = load_format("table", values=values)
    x = torch.arange(-40, 41) / 8.0
    counts = Range.of(fmt).counts(x, torch.ones(()))
    assert [int(count) for count in counts] == list(by_hand(x, 1.0, fmt))


def test_weights_beyond_the_shorter_end_of_a_table_overflow(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    """Under a frozen scale of 1: values down to -2 and up to 8."""
    fmt = load_format("table", values=[-2.0, -1.0, 0.0, 1.0, 2.0, 4.0, 6.0, 8.0])
    model = two_layers(
        fmt, activation_format=fmt, scaling=ScalingSettings(mode="frozen", headroom=1)
    )
    place = bench(load_monitor("overflow", interval=1, layers=["0.*"]), model)
    with torch.no_grad():
        place.weights["0.weight"].parameter.copy_(torch.full((7, 6), 8.0))
    place.step(1, inputs=torch.full((1, 6), 8.0))
    planted = torch.linspace(-5, 5, 42).view(7, 6)
    place.step(2, change=lambda name, weight: planted if name == "0.weight" else weight)
    inputs = torch.tensor([[-3.0, -2.0, -1.0, 3.0, 8.0, 9.0]])
    metrics = place.step(3, inputs=inputs)
    assert metrics["overflow/0.weight/weight_overflow"] == int((planted < -2).sum()) == 13
    assert metrics["overflow/0.weight/input_overflow"] == 2


def test_counts_broadcast_scales_and_break_with_them(load_format: Callable[..., Format]) -> None:
    held = Range.of(load_format("e4m3"))
    x = torch.tensor([[500.0, 1e-9, 0.0], [500.0, 1e-9, 1.0]])
    counts = held.counts(x, torch.tensor([[1.0], [2.0]]))
    assert [float(count) for count in counts] == [1, 2]
    for scale in (math.inf, math.nan):
        assert all(math.isnan(count) for count in held.counts(x, torch.tensor(scale)))
    assert counts[0].dtype == torch.float64
    halves = held.counts(torch.tensor([500.0, 1e-6], dtype=torch.bfloat16), torch.ones(()))
    assert [float(count) for count in halves] == [1, 1]


@pytest.mark.parametrize("name", ["e5m2", "e0m7", "e2m5"])
def test_every_count_is_that_of_a_count_by_hand(
    name: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    fmt, inputs_fmt = load_format(name), load_format("e0m7")
    model = two_layers(name, activation_format=inputs_fmt)
    place = bench(load_monitor("overflow"), model)
    torch.manual_seed(3)
    inputs = torch.randn(4, 6) * torch.logspace(-3, 0, 6)
    with torch.no_grad():
        for geometry in place.weights.values():
            geometry.parameter.mul_(torch.logspace(-6, 0, geometry.parameter.shape[1]))
            geometry.parameter[0, 0] = 0.0
    old = {n: w.parameter.detach().clone() for n, w in place.weights.items()}
    steps = {n: torch.randn(w.shape) * torch.logspace(-9, -1, w.shape[1]) for n, w in old.items()}
    metrics = place.step(
        inputs=inputs, change=lambda n, weight: weight - steps[n] if n in steps else weight
    )

    seen = {"0.weight": inputs, "2.weight": torch.tanh(layer_output(model, inputs, old, fmt))}
    expected: dict[str, float] = {}
    for layer, weight in old.items():
        gradient = place.weights[layer].parameter.grad
        update = place.weights[layer].parameter.detach() - weight
        scale = power_of_two_scale(weight, fmt)
        ulp = scale * fmt.ulp(weight / scale)
        counts = {
            "gradient_nonfinite": 0,
            "gradient_underflow": by_hand(gradient, power_of_two_scale(gradient, fmt), fmt)[1],
            "update_nonfinite": 0,
            "update_lost": int(((update != 0) & (update.abs() < ulp / 2)).sum()),
        }
        counts["weight_overflow"], counts["weight_underflow"] = by_hand(weight, scale, fmt)
        grid = fmt.round(weight / scale).abs()
        counts["weight_subnormal"] = int(((grid > 0) & (grid < SMALLEST_NORMAL[name])).sum())
        x = seen[layer]
        inputs_scale = power_of_two_scale(x, inputs_fmt)
        over, under = by_hand(x, inputs_scale, inputs_fmt)
        for metric, count in counts.items():
            expected[f"overflow/{layer}/{metric}"] = count
            expected[f"overflow/{layer}/{metric}_rate"] = count / weight.numel()
        expected[f"overflow/{layer}/input_overflow"] = over
        expected[f"overflow/{layer}/input_underflow"] = under
        expected[f"overflow/{layer}/input_overflow_rate"] = over / x.numel()
        expected[f"overflow/{layer}/input_underflow_rate"] = under / x.numel()
    assert {n: v for n, v in metrics.items() if "/all/" not in n} == expected
    for metric in ("gradient_underflow", "input_underflow", "update_lost", "weight_underflow"):
        total = sum(expected[f"overflow/{layer}/{metric}"] for layer in old)
        assert total > 0 or (
            name == "e5m2" and metric in ("gradient_underflow", "weight_underflow")
        )
        assert metrics[f"overflow/all/{metric}"] == total
    sizes = sum(x.numel() for x in seen.values())
    total = metrics["overflow/all/input_underflow"]
    assert metrics["overflow/all/input_underflow_rate"] == total / sizes


def power_of_two_scale(x: Tensor, fmt: Format) -> float:
    return 2.0 ** math.ceil(math.log2(float(x.detach().abs().max()) / fmt.max_finite))


def layer_output(model: nn.Module, x: Tensor, old: dict[str, Tensor], fmt: Format) -> Tensor:
    """What the first layer gave: its rounded weight and rounded input, by hand."""
    scale = power_of_two_scale(old["0.weight"], fmt)
    weight = fmt.round(old["0.weight"] / scale) * scale
    scale = power_of_two_scale(x, model[0].input_quantizer.format)  # type: ignore[index,union-attr]
    rounded = torch.round((x / scale) * 128).clamp(-127, 127) / 128 * scale
    output: Tensor = nn.functional.linear(rounded, weight, model[0].bias)  # type: ignore[index]
    return output.detach()


def test_weights_that_outgrow_a_delayed_scale_overflow(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = two_layers("e4m3", scaling=ScalingSettings(mode="delayed", history=4))
    place = bench(load_monitor("overflow", interval=1), model)
    x = torch.randn(2, 6)
    first = place.step(1, inputs=x, change=lambda n, w: w * 16 if n == "0.weight" else w)
    assert first["overflow/all/weight_overflow"] == 0
    second = place.step(2, inputs=x)
    weight = place.weights["0.weight"]
    beyond = (weight.parameter.detach() / weight.scale()).abs() > 448
    assert second["overflow/0.weight/weight_overflow"] == int(beyond.sum()) > 0
    assert second["overflow/2.weight/weight_overflow"] == 0


def test_only_training_forwards_of_due_steps_are_counted_and_added_up(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    model = two_layers("e4m3", activation_format=load_format("e0m7"))
    place = bench(load_monitor("overflow", interval=2), model)
    x = torch.tensor([[1.0, 1e-4, 1e-4, 0.0, 0.5, 1e-5]])

    def underflow(step: int, forwards: int) -> float:
        place.run.step = step
        model.eval()
        model(x)
        model.train()
        for _ in range(forwards):
            model(x)
        metrics = place.step(step)
        value: float = metrics.get("overflow/0.weight/input_underflow", -1.0)
        assert metrics.get("overflow/0.weight/input_underflow_rate", 0.5) == 0.5
        return value

    assert underflow(1, forwards=1) == 3
    assert underflow(2, forwards=3) == 9
    assert underflow(3, forwards=1) == -1
    assert underflow(4, forwards=0) == -1
    assert place.step(6, inputs=x)["overflow/0.weight/input_underflow_rate"] == 0.5


@pytest.mark.parametrize(("name", "lost"), [("e0m7", 2), ("bf16", 0)])
def test_gradients_are_judged_at_the_power_of_two_scale_of_their_amax(
    name: str, lost: int, load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    gradient = torch.zeros(7, 6)
    # e0m7 ends at 127/128, so amax 1 needs scale 2, and what is up to 2/256 rounds to zero
    gradient[0, :5] = torch.tensor([1.0, 0.0078125, -0.006, 0.008, -1.0])
    place = bench(load_monitor("overflow"), two_layers(name))
    metrics = place.step(gradients={"0.weight": gradient})
    assert metrics["overflow/0.weight/gradient_underflow"] == lost
    assert metrics["overflow/0.weight/gradient_underflow_rate"] == lost / 42


def test_broken_gradients_and_updates_are_counted(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    gradient = torch.ones(7, 6)
    gradient[0, 0], gradient[1, 1] = math.inf, math.nan

    def change(name: str, weight: Tensor) -> Tensor:
        return weight.index_fill(1, torch.tensor(0), math.nan) if name == "2.weight" else weight

    place = bench(load_monitor("overflow"), two_layers())
    metrics = place.step(gradients={"0.weight": gradient}, change=change)
    assert metrics["overflow/0.weight/gradient_nonfinite"] == 2
    assert math.isnan(metrics["overflow/0.weight/gradient_underflow"])
    assert "overflow/2.weight/gradient_nonfinite" not in metrics
    assert metrics["overflow/2.weight/update_nonfinite"] == 5
    assert metrics["overflow/all/update_nonfinite"] == 5
    assert metrics["overflow/0.weight/update_lost"] == 0


def test_hooks_come_off_at_the_end_and_cannot_break_the_forward_pass(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def model() -> nn.Module:
        made: nn.Module = two_layers(activation_format=load_format("e0m7"))
        return made

    def hooks(of: nn.Module) -> int:
        return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in of.modules())

    ended = bench(load_monitor("overflow"), model())
    assert hooks(ended.model) == 2
    ended.panel.end(ended.run)
    assert hooks(ended.model) == 0

    broken = bench(load_monitor("overflow"), model())
    monkeypatch.setattr(Range, "counts", lambda self, x, scale: 1 / 0)
    with pytest.raises(AssertionError, match=r"failed in before_update.*ZeroDivisionError"):
        broken.step(inputs=torch.ones(1, 6))
    assert hooks(broken.model) == 0
