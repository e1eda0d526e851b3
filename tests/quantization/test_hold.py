"""hold_weights: one rounding per step, right gradients, and nothing stale."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.modules import quantizer as quantizer_module
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

E5M2 = load_format("e5m2")


def build(**scaling: object) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    quantize_model(model, E5M2, scaling=ScalingSettings(**scaling))  # type: ignore[arg-type]
    return model


@pytest.fixture
def roundings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    calls: list[object] = []
    real = quantizer_module.round_to_grid

    def counted(x: Tensor, *args: object, **kwargs: object) -> object:
        calls.append(x)
        return real(x, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(quantizer_module, "round_to_grid", counted)
    return calls


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 4, generator=generator) for _ in range(3)]


def test_each_weight_is_rounded_once_inside_and_every_time_outside(roundings: list[object]) -> None:
    model = build()
    with hold_weights(model):
        for x in batches():
            model(x)
    assert len(roundings) == 2
    for x in batches():
        model(x)
    assert len(roundings) == 2 + 6


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("power_of_two", [False, True])
def test_micro_batches_give_the_gradients_of_separate_roundings(
    autocast: bool, power_of_two: bool
) -> None:
    held, free = build(power_of_two=power_of_two), build(power_of_two=power_of_two)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        with hold_weights(held):
            for x in batches():
                held(x).float().square().sum().backward()
        for x in batches():
            free(x).float().square().sum().backward()
    for a, b in zip(held.parameters(), free.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_one_graph_with_several_uses() -> None:
    held, free = build(), build()
    with hold_weights(held):
        sum(held(x).square().sum() for x in batches()).backward()
    sum(free(x).square().sum() for x in batches()).backward()
    for a, b in zip(held.parameters(), free.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_an_optimizer_step_inside_is_noticed_and_leaving_drops_all() -> None:
    model = build()
    x = batches()[0]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.3)
    with hold_weights(model):
        first = model(x)
        first.sum().backward()
        optimizer.step()
        assert not torch.equal(model(x), first)
        assert torch.equal(model(x), fresh(model, x))
        model[0].weight.data.mul_(4)
    assert torch.equal(model(x), fresh(model, x))


def fresh(model: nn.Sequential, x: Tensor) -> Tensor:
    twin = build()
    twin.load_state_dict(model.state_dict())
    result: Tensor = twin(x)
    return result


def test_inner_contexts_start_afresh_and_an_exception_drops_everything() -> None:
    model = build()
    x = batches()[0]
    with hold_weights(model):
        first = model(x)
        model[0].weight.data.mul_(4)
        assert torch.equal(model(x), first)
        with hold_weights(model):
            assert torch.equal(model(x), fresh(model, x))
    with pytest.raises(RuntimeError), hold_weights(model):
        model(torch.cat([model(x), x]))
    model[0].weight.data.mul_(4)
    assert torch.equal(model(x), fresh(model, x))


def test_evaluating_without_gradients_first_does_not_harm_training() -> None:
    held, free = build(), build()
    x = batches()[0]
    with hold_weights(held):
        with torch.inference_mode():
            held(x)
        with torch.no_grad():
            held(x)
        held(x).sum().backward()
    free(x).sum().backward()
    for a, b in zip(held.parameters(), free.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_a_step_counts_once_in_the_delayed_history() -> None:
    model = build(mode="delayed", history=4)
    for _ in range(2):
        with hold_weights(model):
            model.eval()
            model(batches()[0])
            model.train()
            for x in batches():
                model(x)
    assert model[0].weight_amax_history.count_nonzero() == 2


def test_inputs_of_one_step_share_an_entry_of_the_history() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 4)
    scaling = ScalingSettings(mode="delayed", history=4)
    quantize_model(model, E5M2, activation_format=E5M2, scaling=scaling)
    with hold_weights(model):
        for size in (1.0, 7.0, 3.0):
            model(torch.full((1, 4), size))
    assert model.input_amax_history.tolist() == [7, 0, 0, 0]


def test_a_rounding_is_held_for_its_own_tensor_only() -> None:
    layer = nn.Linear(2, 1, bias=False)
    quantize_model(layer, E5M2)
    before = layer.weight_quantizers["weight"].scale(layer).clone()
    with hold_weights(layer):
        for size in (1.0, 3.0, 1.0):
            weight = {"weight": torch.full((1, 2), size)}
            found = torch.func.functional_call(layer, weight, (torch.ones(1, 2),))
            assert found.item() == 2 * size
    assert layer.weight_quantizers["weight"].scale(layer) == before  # that of its own weight


@pytest.mark.parametrize("reduction", ["max", "recent"])
@pytest.mark.parametrize("steps_before", [0, 1, 2])
def test_the_order_of_micro_batches_does_not_matter(reduction: Any, steps_before: int) -> None:
    sizes = (1.0, 900.0, 30.0)
    results = []
    for order in ((0, 1, 2), (1, 2, 0), (2, 1, 0)):
        torch.manual_seed(0)
        layer = nn.Linear(4, 4, bias=False)
        scaling = ScalingSettings(mode="delayed", history=3, reduction=reduction)
        formats = {"activation_format": E5M2, "gradient_format": E5M2}
        quantize_model(layer, E5M2, scaling=scaling, **formats)
        for _ in range(steps_before):
            layer(7 * torch.ones(1, 4)).sum().backward()
            layer.zero_grad()
        found = {}
        with hold_weights(layer):
            for k in order:
                x = torch.linspace(-1, 1, 4).mul(sizes[k]).requires_grad_()
                y = layer(x)
                y.square().sum().backward()
                found[k] = (y.detach(), x.grad)
        results.append((found, [buffer.clone() for buffer in layer.buffers()]))
    for found, buffers in results[1:]:
        for k in range(3):
            assert all(torch.equal(a, b) for a, b in zip(found[k], results[0][0][k], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(buffers, results[0][1], strict=True))


def test_a_new_tensor_behind_data_is_rounded_anew() -> None:
    layer = nn.Linear(2, 1, bias=False)
    quantize_model(layer, E5M2)
    with hold_weights(layer):
        for value in (1.0, 3.0, 5.0):
            layer.weight.data = torch.full((1, 2), value)
            assert layer(torch.ones(1, 2)).item() == 2 * value
