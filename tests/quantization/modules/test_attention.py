"""nn.MultiheadAttention and PyTorch's encoder layers: nothing may pass by the rounding."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.modules.fake_quant import fake_quantize
from altgrad_core.quantization.scaling import largest_magnitude, scale_for
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import dequantize_model, quantize_model
from altgrad_core.registry.build import load_format

E5M2 = load_format("e5m2")
E3M4 = load_format("e3m4")


def round_in_place(parameter: nn.Parameter, fmt: Format = E5M2) -> None:
    with torch.no_grad():
        scale = scale_for(largest_magnitude(parameter), fmt, power_of_two=True)
        parameter.copy_(fake_quantize(parameter, fmt, scale))


def attention(**kwargs: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(8, 2, batch_first=True, **kwargs)


def encoder(layers: int = 2, **kwargs: Any) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **kwargs)
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=not layer.norm_first)


def matrices(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.dim() == 2]


X = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


@pytest.mark.parametrize("dims", [{}, {"kdim": 6, "vdim": 4}])
@pytest.mark.parametrize("training", [True, False])
def test_every_projection_is_rounded(dims: dict[str, int], training: bool) -> None:
    model = attention(**dims).train(training)
    twin = copy.deepcopy(model)
    for weight in matrices(twin):
        round_in_place(weight)
    parameters = dict(model.named_parameters())
    report = quantize_model(model, E5M2)
    assert report.layers == {"": "e5m2", "out_proj": "e5m2"}
    assert not report.notes
    key = torch.randn(2, 3, dims.get("kdim", 8))
    value = torch.randn(2, 3, dims.get("vdim", 8))
    for net in (model, twin):
        net(X, key, value)[0].square().sum().backward()
    with torch.no_grad():
        torch.testing.assert_close(model(X, key, value)[0], twin(X, key, value)[0])
    for (name, a), b in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        assert a is parameters[name]
        assert torch.equal(a.grad, b[1].grad), name


def test_self_attention_without_gradients_takes_the_fast_path_with_rounded_weights() -> None:
    model = attention().eval()
    twin = copy.deepcopy(model)
    for weight in matrices(twin):
        round_in_place(weight)
    quantize_model(model, E5M2)
    with torch.no_grad():
        assert torch.equal(
            model(X, X, X, need_weights=False)[0], twin(X, X, X, need_weights=False)[0]
        )


def test_out_proj_and_the_input_projections_have_formats_of_their_own() -> None:
    for overrides, rounded in (
        ([("out_proj", None)], {"in_proj_weight": E5M2}),
        ([("*", None), ("out_proj", E3M4)], {"out_proj.weight": E3M4}),
        ([("out_proj", E3M4)], {"in_proj_weight": E5M2, "out_proj.weight": E3M4}),
    ):
        model = attention()
        twin = copy.deepcopy(model)
        for name, fmt in rounded.items():
            round_in_place(twin.get_parameter(name), fmt)
        quantize_model(model, E5M2, overrides=overrides)
        assert torch.equal(model(X, X, X)[0], twin(X, X, X)[0])


def test_the_parameters_are_back_in_place_after_forward_and_after_an_error() -> None:
    model = attention()
    quantize_model(model, E5M2)
    weight = model._parameters["in_proj_weight"]
    model(X, X, X)
    assert model.in_proj_weight is weight
    with pytest.raises((AssertionError, RuntimeError)):
        model(X, X[:1], X)
    assert model.in_proj_weight is weight
    assert model.out_proj.weight is model.out_proj._parameters["weight"]


def test_a_subclass_of_attention_is_reported_with_its_out_proj() -> None:
    class Mine(nn.MultiheadAttention):
        pass

    report = quantize_model(nn.ModuleDict({"a": Mine(8, 2), "b": nn.Linear(2, 2)}), E5M2)
    assert list(report.layers) == ["b"]
    assert "Mine is a subclass of nn.MultiheadAttention" in report.skipped["a"]
    assert "its weight is read by 'a', and Mine is a subclass" in report.skipped["a.out_proj"]


def test_what_attention_cannot_do_is_noted() -> None:
    exact = ScalingSettings(power_of_two=False)
    model = nn.ModuleDict({"a": attention(), "b": nn.Linear(8, 8)})
    report = quantize_model(model, E5M2, activation_format=E3M4, scaling=exact)
    assert len(report.notes) == 2
    assert "inputs of a are not quantised" in report.notes[0]
    assert "weights of a are rounded once more" in report.notes[1]
    assert model["a"].out_proj.input_quantizer is None
    assert model["b"].input_quantizer is not None


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("padding", [None, PADDING])
def test_evaluation_computes_what_training_computes(
    norm_first: bool, padding: torch.Tensor | None
) -> None:
    """PyTorch's fused encoder kernels read the weights directly; they must not be taken."""
    model = encoder(dropout=0.0, norm_first=norm_first)
    twin = copy.deepcopy(model)
    for weight in matrices(twin):
        round_in_place(weight)
    quantize_model(model, E5M2)
    real = slice(None) if padding is None else ~padding
    training = model.train()(X, src_key_padding_mask=padding)[real]
    reference = twin.train()(X, src_key_padding_mask=padding)[real]
    assert torch.equal(training, reference)
    with torch.no_grad():
        evaluation = model.eval()(X, src_key_padding_mask=padding)[real]
        with hold_weights(model):
            held = model(X, src_key_padding_mask=padding)[real]
    with torch.inference_mode():
        inference = model(X, src_key_padding_mask=padding)[real]
    for result in (evaluation, held, inference):
        torch.testing.assert_close(result, training, rtol=1e-5, atol=1e-5)


def test_a_partly_quantised_encoder_layer_leaves_the_fast_path_too() -> None:
    model = encoder(1, dropout=0.0)
    quantize_model(model, E5M2, overrides=[("*self_attn*", None), ("*.linear2", None)])
    training = model.train()(X)
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(X), training, rtol=1e-5, atol=1e-5)


def test_dequantize_returns_to_the_fast_path() -> None:
    model = encoder(dropout=0.0)
    before = {id(m): dict(vars(m)) for m in model.modules()}
    types = [type(m) for m in model.modules()]
    quantize_model(model, E5M2)
    assert not model.use_nested_tensor
    dequantize_model(model)
    assert model.use_nested_tensor
    assert [type(m) for m in model.modules()] == types
    assert all(set(vars(m)) == set(before[id(m)]) for m in model.modules())
    assert all(layer.activation_relu_or_gelu == 1 for layer in model.layers)


def test_decoder_layers_and_autocast() -> None:
    torch.manual_seed(0)
    model = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True)
    twin = copy.deepcopy(model)
    for weight in matrices(twin):
        round_in_place(weight)
    report = quantize_model(model, E5M2)
    assert sum("attn" in name for name in report.layers) == 6
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(X, X), twin(X, X))
