"""The table of types that can be quantised: convolutions, Conv1D, and types of strangers."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from altgrad_core.errors import UserError
from altgrad_core.quantization import adapters
from altgrad_core.quantization.adapters import register_adapter
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.residency import keep_on_grid
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.storage import compact_state, load_compact_state
from altgrad_core.quantization.surgery import dequantize_model, quantize_model
from altgrad_core.registry.build import load_format

E4M3, E3M4 = load_format("e4m3"), load_format("e3m4")


class Stretch(nn.Module):
    """A layer of a stranger: its weight is ``(in, groups, out)``."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(6, 2, 4))
        self.shift = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor, *, times: float = 1.0) -> Tensor:
        return torch.einsum("bi,igo->bo", x, self.kernel) * times + self.shift


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(adapters, "_ADAPTERS", dict(adapters._ADAPTERS))
    register_adapter(Stretch, {"kernel": -1})
    return iter([None])


def layers() -> dict[str, tuple[nn.Module, Tensor, str, int]]:
    """Layer, input, name of its weight, and the dimension of the output channels of that."""
    torch.manual_seed(0)
    return {
        "Conv1D": (Conv1D(5, 40), torch.randn(3, 2, 40), "weight", 1),
        "Conv1d": (nn.Conv1d(4, 6, 3, groups=2), torch.randn(2, 4, 9), "weight", 0),
        "Conv2d": (
            nn.Conv2d(3, 6, 3, padding=1, padding_mode="circular"),
            torch.randn(2, 3, 5, 5),
            "weight",
            0,
        ),
        "Conv3d": (nn.Conv3d(2, 3, 2), torch.randn(1, 2, 3, 3, 3), "weight", 0),
        "ConvTranspose2d": (nn.ConvTranspose2d(4, 6, 2), torch.randn(2, 4, 5, 5), "weight", 1),
        "Stretch": (Stretch(), torch.randn(3, 6), "kernel", 2),
    }


GRANULARITIES = ("tensor", "channel", "block")


def scales_by_loops(weight: Tensor, axis: int, granularity: str, block: int) -> Tensor:
    """The power-of-two scale of every element, found row by row."""
    rows = weight.movedim(axis, 0).reshape(weight.shape[axis], -1)
    size = {"tensor": weight.numel(), "channel": rows.shape[1], "block": block}[granularity]
    parts = rows.reshape(1, -1) if granularity == "tensor" else rows
    scales = torch.empty_like(parts)
    for row in range(parts.shape[0]):
        for start in range(0, parts.shape[1], size):
            part = parts[row, start : start + size]
            scales[row, start : start + size] = 2.0 ** (part.abs().max() / 448).log2().ceil()
    channels_first = weight.movedim(axis, 0).shape
    return scales.reshape(channels_first).movedim(0, axis)


@pytest.mark.parametrize("residency", ["master", "grid"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("name", layers())
def test_each_type_rounds_its_weight_along_its_own_axis(
    name: str, granularity: Any, residency: Any
) -> None:
    layer, x, attribute, axis = layers()[name]
    weight = layer.get_parameter(attribute)
    with torch.no_grad():  # channels far apart, so that a scale along the wrong axis shows
        shape = [-1 if d == axis % weight.dim() else 1 for d in range(weight.dim())]
        weight.mul_(torch.logspace(-2, 2, weight.shape[axis]).view(shape))
    scale = scales_by_loops(weight.detach(), axis, granularity, 5)
    twin = copy.deepcopy(layer)
    rounded = (E4M3.round(weight.detach() / scale) * scale) + 0.0
    with torch.no_grad():
        twin.get_parameter(attribute).copy_(rounded)

    scaling = ScalingSettings(granularity=granularity, block_size=5)
    report = quantize_model(layer, E4M3, scaling=scaling, residency=residency)

    assert report.layers == {"": "e4m3"}
    assert list(dict(layer.named_parameters())) == list(dict(twin.named_parameters()))
    torch.testing.assert_close(layer(x), twin(x), rtol=1e-6, atol=1e-6)
    geometry = weight_geometry(layer)[attribute]
    assert torch.equal(geometry.scale().expand(weight.shape), scale)
    assert torch.equal(geometry.value(geometry.rung(weight.detach())), rounded)
    gap = E4M3.ulp(weight.detach() / scale) * scale
    assert torch.equal(geometry.ulp(weight.detach()), gap)

    seed = torch.randn_like(layer(x))
    layer(x).backward(seed)
    twin(x).backward(seed)
    for one, other in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize("name", layers())
def test_inputs_and_gradients_are_rounded(name: str) -> None:
    layer, x, attribute, _ = layers()[name]
    twin = copy.deepcopy(layer)
    quantize_model(layer, E4M3, activation_format=E3M4, gradient_format=E4M3)

    def rounded(t: Tensor, fmt: Any) -> Tensor:
        scale = 2.0 ** (t.abs().max() / fmt.max_finite).log2().ceil()
        return fmt.round(t / scale) * scale

    with torch.no_grad():
        weight = twin.get_parameter(attribute)
        weight.copy_(rounded(weight, E4M3))
    seed = torch.randn_like(twin(x))
    output = layer(x)
    torch.testing.assert_close(output, twin(rounded(x, E3M4)))
    output.backward(seed)
    twin(rounded(x, E3M4)).backward(rounded(seed, E4M3))
    torch.testing.assert_close(layer.get_parameter(attribute).grad, weight.grad)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_exact_scales_of_conv1d_are_applied_after_the_product(granularity: Any) -> None:
    """As those of the linear layer that has the same weight the other way round."""
    torch.manual_seed(1)
    layer, linear = Conv1D(5, 40), nn.Linear(40, 5)
    with torch.no_grad():
        layer.weight.normal_()
        linear.weight.copy_(layer.weight.T)
        linear.bias.copy_(layer.bias)
    scaling = ScalingSettings(granularity=granularity, power_of_two=False)
    x, seed = torch.randn(3, 40), torch.randn(3, 5)
    for one in (layer, linear):
        assert quantize_model(one, E4M3, scaling=scaling).notes == ()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = one(x)
        y.backward(seed)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(x), linear(x))
    assert torch.equal(layer.weight.grad.T, linear.weight.grad)


@pytest.mark.parametrize("name", layers())
def test_resident_weights_train_copy_pickle_save_and_go_back(name: str) -> None:
    layer, x, attribute, _ = layers()[name]
    kind, described = type(layer), repr(layer)
    keys = list(layer.state_dict())
    scaling = ScalingSettings(granularity="channel")
    arguments: dict[str, Any] = {
        "scaling": scaling,
        "residency": "grid",
        "compensation": load_format("bf16"),
    }
    quantize_model(layer, E4M3, **arguments)
    assert "e4m3" in repr(layer)
    assert "residency=grid" in repr(layer)
    assert "per channel" in repr(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.3)
    keep_on_grid(layer, optimizer)
    for _ in range(3):
        with hold_weights(layer):
            (layer(x) ** 2).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    weight = layer.get_parameter(attribute).detach().clone()
    geometry = weight_geometry(layer)[attribute]
    assert torch.equal(geometry.value(geometry.rung(weight)), weight)
    expected = layer(x)

    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(layer), torch.load(buffer, weights_only=False)):
        assert type(twin) is type(layer)
        assert torch.equal(twin(x), expected)
    for save in (nn.Module.state_dict, compact_state):
        fresh = layers()[name][0]
        quantize_model(fresh, E4M3, **arguments)
        load_compact_state(fresh, save(layer))  # type: ignore[operator]
        assert torch.equal(fresh(x), expected)

    dequantize_model(layer)
    assert type(layer) is kind
    assert repr(layer) == described
    assert list(layer.state_dict()) == keys
    torch.testing.assert_close(layer(x), expected)


def test_what_forward_is_given_beside_the_input_stays() -> None:
    layer = Stretch()
    quantize_model(layer, E4M3)
    x = torch.randn(2, 6)
    torch.testing.assert_close(layer(x, times=2.0), 2 * layer(x))


def test_a_type_has_one_adapter() -> None:
    register_adapter(Stretch, {"kernel": -1})  # the same once more, as when a cell is run again
    with pytest.raises(UserError, match=r"Stretch has an adapter already"):
        register_adapter(Stretch, {"kernel": 0})
    with pytest.raises(UserError, match=r"Linear has an adapter already"):
        register_adapter(nn.Linear, {"weight": 1})


def test_a_type_may_be_named_before_it_is_imported() -> None:
    class Late(nn.Linear):
        pass

    register_adapter(f"{Late.__module__}.{Late.__qualname__}")
    assert quantize_model(Late(3, 2), E4M3).layers == {"": "e4m3"}


def test_a_parameter_that_is_not_there_is_named() -> None:
    class Odd(nn.Linear):
        pass

    register_adapter(Odd, {"wieght": 0})
    report = quantize_model(nn.Sequential(Odd(2, 2), nn.Linear(2, 2)), E4M3)
    assert report.skipped == {"0": "Odd has no parameter 'wieght', which its adapter names"}


def test_patterns_and_filters_that_match_only_other_types_say_so() -> None:
    model = nn.ModuleDict(
        {"tokens": nn.Embedding(4, 4), "mix": nn.GRU(4, 4), "up": nn.Linear(4, 4)}
    )
    for pattern in ("tok*", "mix"):
        with pytest.raises(
            UserError, match=r"only layers that cannot be quantised: '(tokens|mix)'"
        ):
            quantize_model(model, E4M3, overrides=[(pattern, E3M4)])
    with pytest.raises(UserError, match=r"filter takes only .*'mix': GRU is a type without an"):
        quantize_model(model, E4M3, filter=lambda module, name: name in ("tokens", "mix"))
    with pytest.raises(UserError, match=r"filter takes no layer .*Those are: up\. It is called as"):
        quantize_model(model, E4M3, filter=lambda module, name: False)
    assert type(model["up"]) is nn.Linear
    # taken by an override, so the filter has not the last word
    taken = quantize_model(model, E4M3, filter=lambda m, n: n == "mix", overrides=[("up", E3M4)])
    assert taken.layers == {"up": "e3m4"}
