"""Transforms of ``torch.func`` over a quantised model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, hessian, jacrev, jvp, vjp, vmap

from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

EXACT = ScalingSettings(power_of_two=False)
CASES: dict[str, dict[str, Any]] = {
    "weights": {},
    "table": {"format": load_format("table", values=[-8.0, -5, -3, -1, 0, 1, 3, 5])},
    "unscaled": {"format": load_format("bf16")},
    "everything": {"activation_format": "e4m3", "gradient_format": "e5m2"},
    "delayed": {"activation_format": "e4m3", "scaling": ScalingSettings(mode="delayed")},
    "frozen": {"activation_format": "e4m3", "scaling": ScalingSettings(mode="frozen")},
    "blocks": {"scaling": ScalingSettings(granularity="block", block_size=3)},
    "grid": {"residency": "grid"},
}


def build(dtype: torch.dtype = torch.float32, **options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
    settings: dict[str, Any] = {
        key: load_format(value) if key.endswith("format") and isinstance(value, str) else value
        for key, value in ({"format": "e4m3"} | options).items()
    }
    quantize_model(model, **settings)
    return model


def parameters(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters()}


@pytest.mark.parametrize("case", CASES)
def test_gradients_of_each_sample_are_those_of_a_batch_of_one(case: str) -> None:
    model, x = build(**CASES[case]), torch.randn(5, 8)

    def loss(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        y: Tensor = functional_call(model, weights, (sample[None],))
        return y.square().sum()

    buffers = [buffer.clone() for buffer in model.buffers()]
    found = vmap(grad(loss), (None, 0))(parameters(model), x)
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    for k, sample in enumerate(x):
        twin = build(**CASES[case])
        twin(sample[None]).square().sum().backward()
        for name, parameter in twin.named_parameters():
            torch.testing.assert_close(found[name][k], parameter.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_jacobians_are_rows_of_gradients(case: str) -> None:
    model, x = build(**CASES[case]).eval(), torch.randn(8)
    found = jacrev(lambda x: model(x))(x)
    for k in range(2):
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(model(leaf)[k], leaf)
        torch.testing.assert_close(found[k], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "scaling", [EXACT, ScalingSettings(granularity="channel", power_of_two=False)]
)
def test_products_with_an_epilogue_have_transforms_too(scaling: ScalingSettings) -> None:
    model = build(torch.bfloat16, activation_format="e4m3", scaling=scaling)
    x = torch.randn(3, 8, dtype=torch.bfloat16)
    y, pull = vjp(lambda x: model(x), x)
    leaf = x.clone().requires_grad_()
    model(leaf).backward(torch.ones_like(y))
    assert torch.equal(pull(torch.ones_like(y))[0], leaf.grad)
    rows = vmap(jacrev(lambda x: model(x)))(x)
    assert rows.shape == (3, 2, 8)
    assert bool(rows.isfinite().all())
    assert bool(rows.any())


@pytest.mark.parametrize("case", CASES)
def test_forward_mode_gives_what_backward_mode_gives(case: str) -> None:
    model, x = build(**CASES[case]).eval(), torch.randn(3, 8)

    def loss(weight: Tensor) -> Tensor:
        y: Tensor = functional_call(model, {"0.weight": weight}, (x,))
        return y.square().sum()

    weight = model.get_parameter("0.weight").detach()
    along = torch.randn_like(weight)
    tangent = jvp(loss, (weight,), (along,))[1]
    rounded = 0.1 if "gradient_format" in CASES[case] else 1e-4  # backward only
    torch.testing.assert_close(tangent, (grad(loss)(weight) * along).sum(), rtol=rounded, atol=1e-4)
    bound = {"rtol": rounded, "atol": 0.1 if rounded == 0.1 else 1e-4}
    torch.testing.assert_close(hessian(loss)(weight), jacrev(grad(loss))(weight), **bound)


@pytest.mark.parametrize(
    "scaling", [EXACT, ScalingSettings(granularity="channel", power_of_two=False)]
)
def test_an_epilogue_has_a_forward_mode(scaling: ScalingSettings) -> None:
    model = build(torch.bfloat16, activation_format="e4m3", scaling=scaling)[0]
    x, along = torch.randn(2, 3, 8, dtype=torch.bfloat16)
    weight = model.weight.detach()
    other = torch.randn_like(weight)
    both = jvp(
        lambda w, x: functional_call(model, {"weight": w}, (x,)), (weight, x), (other, along)
    )
    y, pull = vjp(lambda w, x: functional_call(model, {"weight": w}, (x,)), weight, x)
    of_weight, of_x = pull(torch.ones_like(y))
    expected = (of_weight * other).sum() + (of_x * along).sum()
    torch.testing.assert_close(both[1].sum(), expected, rtol=0.02, atol=0.1)


def test_second_derivatives_pass_straight_through_as_well() -> None:
    for dtype, scaling in ((torch.float32, ScalingSettings()), (torch.bfloat16, EXACT)):
        model = build(dtype, scaling=scaling, gradient_format="e5m2")
        x = torch.randn(1, 8, dtype=dtype, requires_grad=True)
        (first,) = torch.autograd.grad(model(x).float().square().sum(), x, create_graph=True)
        first.float().square().sum().backward()  # type: ignore[no-untyped-call]
        for parameter in (model[0].weight, model[2].weight):
            assert parameter.grad is not None
            assert bool(parameter.grad.any())


def test_no_tensor_of_a_transform_stays_behind() -> None:
    model = build()
    stacked = {name: torch.stack([p, 2 * p]) for name, p in parameters(model).items()}
    x = torch.randn(3, 8)
    with hold_weights(model):
        both = vmap(lambda weights: functional_call(model, weights, (x,)))(stacked)
        own = model(x)
    torch.testing.assert_close(both[0], own)
    scale = model[0].weight_quantizers["weight"].scale(model[0])
    assert scale.shape == ()
    assert float(scale) > 0
