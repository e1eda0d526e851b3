"""The input of q, k and v is rounded once under ``hold_weights``, and no result changes by a bit."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.modules import quantizer as quantizer_module
from altgrad_core.quantization.modules.quantizer import TensorQuantizer
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

E5M2 = load_format("e5m2")


class Attention(nn.Module):
    """Three projections of one tensor. ``between`` is done to it before the last."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))

    def between(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = x * 1.5  # not the caller's own
        q, k = self.q(x), self.k(x)
        return q + k * self.v(self.between(x))


def build(mode: str = "current", activation_rounding: str = "nearest") -> Attention:
    torch.manual_seed(0)
    model = Attention()
    quantize_model(
        model,
        E5M2,
        scaling=ScalingSettings(mode=mode, granularity="channel"),  # type: ignore[arg-type]
        activation_format=E5M2,
        generator=torch.Generator().manual_seed(0),
    )
    for layer in (model.q, model.k, model.v):
        assert isinstance(layer.input_quantizer, TensorQuantizer)
        layer.input_quantizer.rounding = activation_rounding  # type: ignore[assignment]
    return model


@pytest.fixture
def rounded(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Tensor]]:
    """Every input that is rounded, and every weight."""
    calls: list[weakref.ref[Tensor]] = []
    real = quantizer_module.round_to_grid

    def counted(x: Tensor, *args: Any, **kwargs: Any) -> object:
        if not isinstance(x, nn.Parameter):
            calls.append(weakref.ref(x))
        return real(x, *args, **kwargs)

    monkeypatch.setattr(quantizer_module, "round_to_grid", counted)
    return calls


def batch() -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module, x: Tensor) -> list[Tensor]:
    model.zero_grad()
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    assert x.grad is not None
    return [x.grad, *(p.grad for p in model.parameters() if p.grad is not None)]


def test_one_input_is_rounded_once_and_gives_the_same(rounded: list[object]) -> None:
    model = build()
    apart = gradients(model, batch())
    assert len(rounded) == 3
    rounded.clear()
    with hold_weights(model):
        together = gradients(model, batch())
    assert len(rounded) == 1
    for one, other in zip(apart, together, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("mode", "rounding", "expected"),
    [
        ("delayed", "nearest", 3),  # each layer has a history of its own
        ("frozen", "nearest", 3),
        ("current", "stochastic", 3),  # and draws its own numbers
    ],
)
def test_layers_that_remember_or_draw_round_for_themselves(
    rounded: list[object], mode: str, rounding: str, expected: int
) -> None:
    model = build(mode, rounding)
    with hold_weights(model):
        model(batch())
    assert len(rounded) == expected


def test_what_differs_is_rounded_for_itself(rounded: list[object]) -> None:
    model = build()
    assert isinstance(model.k.input_quantizer, TensorQuantizer)
    model.k.input_quantizer.format = load_format("e4m3")
    with hold_weights(model):
        model(batch())
    assert len(rounded) == 3  # q, k, and v again, since only the last is kept


def test_an_input_that_is_written_to_is_rounded_again(rounded: list[object]) -> None:
    model = build()
    model.between = lambda x: x.mul_(3)  # type: ignore[method-assign]
    with torch.no_grad():
        apart = model(batch())
        with hold_weights(model):
            together = model(batch())
    assert torch.equal(apart, together)
    assert len(rounded) == 3 + 2


def test_values_that_a_layer_writes_to_are_rounded_again() -> None:
    model = build()
    assert isinstance(model.q.input_quantizer, TensorQuantizer)
    x = batch()
    with hold_weights(model), torch.no_grad():
        model.q.input_quantizer.round(model.q, x, x.dtype).values.mul_(2)
        assert isinstance(model.k.input_quantizer, TensorQuantizer)
        found = model.k.input_quantizer.round(model.k, x, x.dtype).values
    assert torch.equal(found, model.k.input_quantizer.round(model.k, x, x.dtype).values)


def test_another_forward_with_the_same_tensor_rounds_anew(rounded: list[object]) -> None:
    """As in a forward that is captured or traced after one that warms up."""
    model, x = build(), batch()
    with hold_weights(model):
        for _ in range(2):
            model.q(x), model.k(x), model.v(x)
    assert len(rounded) == 2


def test_nothing_is_kept_when_the_input_is_gone_or_the_context_ends() -> None:
    model = build()
    quantizer = model.q.input_quantizer
    assert isinstance(quantizer, TensorQuantizer)
    with hold_weights(model), torch.no_grad():
        x = batch()
        values = weakref.ref(quantizer.round(model.q, x, x.dtype).values)
        assert values() is not None
        del x
        gc.collect()
        assert values() is None
        x = batch()
        values = weakref.ref(quantizer.round(model.q, x, x.dtype).values)
    assert values() is None


def test_a_model_can_be_copied_and_pickled_meanwhile() -> None:
    model, x = build(), batch()
    with hold_weights(model), torch.no_grad():
        expected = model.q(x)
        assert torch.equal(copy.deepcopy(model).q(x), expected)
        state = pickle.loads(pickle.dumps(model.q.input_quantizer))
    assert state.hold.inputs.find(model.k, x, ()) is None


def test_transforms_compilers_and_inference_tensors_round_for_themselves(
    rounded: list[object],
) -> None:
    model, x = build(), batch()
    with hold_weights(model):
        torch.func.vmap(model)(x[None])
        assert len(rounded) == 3
        with torch.inference_mode():
            model(x)
        assert len(rounded) == 6
        torch.compile(model, backend="eager")(x)
    rounded.clear()
    expected = model(x)
    with hold_weights(model):
        assert torch.equal(model(x), expected)


def test_a_checkpointed_forward_is_recomputed_alike() -> None:
    from torch.utils.checkpoint import checkpoint

    model, x = build(), batch()
    plain = gradients(model, x)
    model.zero_grad()
    given = x.clone().requires_grad_()
    with hold_weights(model):
        checkpoint(model, given, use_reentrant=False).square().sum().backward()
    assert given.grad is not None
    found = [given.grad, *(p.grad for p in model.parameters() if p.grad is not None)]
    assert all(torch.equal(one, other) for one, other in zip(plain, found, strict=True))
