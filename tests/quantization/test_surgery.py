"""What quantize_model does to models of every shape, and what it must leave as it was."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.modules.fake_quant import fake_quantize
from altgrad_core.quantization.modules.linear import QuantizedLinear
from altgrad_core.quantization.scaling import largest_magnitude, scale_for
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import dequantize_model, quantize_model
from altgrad_core.registry.build import load_format

E5M2 = load_format("e5m2")
E3M4 = load_format("e3m4")


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 12)
        self.down = nn.Linear(12, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(6)
        self.classifier = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.norm(x))


IDS = torch.tensor([[1, 2, 3], [4, 5, 9]])


def rounded(weight: Tensor, fmt: Format = E5M2) -> Tensor:
    return fake_quantize(weight, fmt, scale_for(largest_magnitude(weight), fmt, power_of_two=True))


def rounded_copy(model: nn.Module, names: list[str], fmt: Format = E5M2) -> nn.Module:
    """A plain copy whose weights are rounded already: what the quantised model must compute."""
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for name in names:
            weight = twin.get_submodule(name).weight
            weight.copy_(rounded(weight, fmt))
    return twin


LAYERS = ["blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "classifier"]


def test_the_forward_pass_uses_rounded_weights_and_everything_else_stays() -> None:
    model = Net()
    twin = rounded_copy(model, LAYERS)
    parameters = dict(model.named_parameters())
    keys = list(model.state_dict())
    modules = list(model.modules())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls: list[str] = []
    model.blocks[0].up.register_forward_hook(lambda *_: calls.append("hook"))
    model.blocks[1].eval()
    modes = [m.training for m in model.modules()]

    report = quantize_model(model, E5M2)

    assert torch.equal(model(IDS), twin(IDS))
    assert dict(model.named_parameters()) == parameters
    assert all(p is parameters[n] for n, p in model.named_parameters())
    assert list(model.state_dict()) == keys
    assert all(a is b for a, b in zip(model.modules(), modules, strict=True))
    assert [m.training for m in model.modules()] == modes
    assert calls == ["hook"]
    assert report.layers == dict.fromkeys(LAYERS, "e5m2")
    assert report.skipped == {
        "embed": "Embedding is a type without an adapter (see register_adapter)"
    }

    before = model.blocks[0].up.weight.clone()
    model(IDS).sum().backward()
    optimizer.step()
    assert not torch.equal(before, model.blocks[0].up.weight)


def test_gradients_are_those_of_the_rounded_model() -> None:
    model = Net()
    twin = rounded_copy(model, LAYERS)
    quantize_model(model, E5M2)
    for net in (model, twin):
        net(IDS).square().sum().backward()
    for (name, a), b in zip(model.named_parameters(), twin.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name


def test_a_plain_loop_never_sees_a_stale_weight() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    quantize_model(model, E5M2)
    x = torch.randn(2, 4)
    first = model(x)
    model[0].weight.data.mul_(3.3)
    assert torch.equal(model(x), rounded_copy_of_linear(model[0])(x))
    assert not torch.equal(model(x), first)


def rounded_copy_of_linear(layer: nn.Module) -> nn.Linear:
    assert isinstance(layer, nn.Linear)
    twin = nn.Linear(layer.in_features, layer.out_features)
    twin.load_state_dict(layer.state_dict())
    with torch.no_grad():
        twin.weight.copy_(rounded(twin.weight))
    return twin


def test_dequantize_gives_the_plain_model_back() -> None:
    model = Net()
    twin = copy.deepcopy(model)
    expected = model(IDS)
    quantize_model(model, E5M2, activation_format=E3M4, scaling=ScalingSettings(mode="delayed"))
    model(IDS)
    dequantize_model(model)
    assert torch.equal(model(IDS), expected)
    assert [type(m) for m in model.modules()] == [type(m) for m in twin.modules()]
    assert list(model.state_dict()) == list(twin.state_dict())
    for module, plain in zip(model.modules(), twin.modules(), strict=True):
        assert set(vars(module)) == set(vars(plain))
    quantize_model(model, E3M4)
    dequantize_model(nn.Linear(2, 2))


def test_a_root_that_is_a_linear_is_quantised_in_place() -> None:
    layer = nn.Linear(4, 4)
    report = quantize_model(layer, E5M2)
    assert report.layers == {"": "e5m2"}
    assert isinstance(layer, QuantizedLinear)
    x = torch.randn(2, 4)
    assert torch.equal(layer(x), rounded_copy_of_linear(layer)(x))


def test_overrides_match_names_and_the_modules_around_them_and_the_last_wins() -> None:
    model = Net()
    overrides = [("blocks.0", E3M4), ("*.down", None), ("blocks.1.down", E3M4)]
    report = quantize_model(model, E5M2, overrides=overrides)
    assert report.layers == {
        "blocks.0.up": "e3m4",
        "blocks.1.up": "e5m2",
        "blocks.1.down": "e3m4",
        "classifier": "e5m2",
    }
    assert report.skipped["blocks.0.down"] == "override '*.down'"
    assert "blocks.0.up=e3m4" not in str(report)
    assert "  blocks.0.up: e3m4" in str(report).splitlines()
    assert report.as_dict()["layers"] == dict(report.layers)


def test_the_filter_sees_linear_layers_and_their_names() -> None:
    model = Net()
    seen: list[str] = []

    def only_up(module: nn.Module, name: str) -> bool:
        assert isinstance(module, nn.Linear)
        seen.append(name)
        return name.endswith("up")

    report = quantize_model(model, E5M2, filter=only_up)
    assert seen == LAYERS
    assert list(report.layers) == ["blocks.0.up", "blocks.1.up"]
    assert report.skipped["classifier"] == "left out by the filter"


def test_a_pattern_without_a_match_names_the_layers_and_changes_nothing() -> None:
    model = Net()
    with pytest.raises(
        UserError, match=r"'block\.0\*' matches no layer of the model that can.*blocks\.0\.up"
    ):
        quantize_model(model, E5M2, overrides=[("block.0*", None)])
    assert not any(isinstance(m, QuantizedLinear) for m in model.modules())


def test_quantising_twice_is_refused() -> None:
    model = Net()
    quantize_model(model, E5M2)
    with pytest.raises(UserError, match=r"quantised already: blocks\.0\.up .*dequantize_model"):
        quantize_model(model, E3M4)


def test_a_lazy_layer_is_refused_unless_left_out() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(2), nn.LazyConv1d(2, 1))
    with pytest.raises(UserError, match=r"'1' is a LazyLinear .* Run one batch"):
        quantize_model(model, E5M2)
    assert type(model[0]) is nn.Linear
    overrides = [("1", None), ("2", None)]
    assert list(quantize_model(model, E5M2, overrides=overrides).layers) == ["0"]


def test_a_shared_module_is_quantised_once_and_known_by_every_name() -> None:
    block = Block()
    model = nn.ModuleDict({"first": block, "second": block})
    report = quantize_model(model, E5M2, overrides=[("second.down", E3M4)])
    assert report.layers == {"first.up": "e5m2", "first.down": "e3m4"}


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 6)
        self.head = nn.Linear(6, 10, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embed(ids))


def test_a_weight_tied_to_an_embedding_stays_tied() -> None:
    model = Tied()
    report = quantize_model(model, E5M2)
    assert model.head.weight is model.embed.weight
    assert report.notes == (
        "embed.weight is one weight that several modules use: embed (not rounded), head (rounded)",
    )
    weight = model.embed.weight.detach()
    assert torch.equal(model(IDS), nn.functional.linear(weight[IDS], rounded(weight)))
    model(IDS).sum().backward()
    assert model.embed.weight.grad is not None


def test_a_shared_weight_cannot_lie_on_two_grids() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    with pytest.raises(UserError, match=r"'0' and '1' share one weight.*e5m2 and e3m4"):
        quantize_model(model, E5M2, overrides=[("1", E3M4)])
    assert type(model[0]) is nn.Linear
    assert len(quantize_model(model, E5M2).layers) == 2


def obstacles() -> Iterator[tuple[str, nn.Module, str]]:
    class Mine(nn.Linear):
        pass

    yield "subclass", Mine(2, 2), "Mine is a subclass of nn.Linear"
    patched = nn.Linear(2, 2)
    patched.forward = lambda x: x  # type: ignore[method-assign]
    yield "patched", patched, "forward has been replaced"
    parametrized = nn.utils.parametrizations.orthogonal(nn.Linear(2, 2))
    yield "parametrized", parametrized, "ParametrizedLinear is a subclass"
    yield "weight norm", nn.utils.weight_norm(nn.Linear(2, 2)), "not a plain parameter"
    yield "recurrent", nn.GRU(2, 2), "GRU is a type without an adapter"
    complex_layer = nn.Linear(2, 2, dtype=torch.complex64)
    yield "complex", complex_layer, "not a real floating-point tensor"


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_what_cannot_be_quantised_is_reported_with_the_reason() -> None:
    for name, module, reason in obstacles():
        model = nn.Sequential(module, nn.Linear(2, 2))
        report = quantize_model(model, E5M2)
        assert list(report.layers) == ["1"], name
        assert reason in report.skipped["0"], name


def test_an_input_format_rounds_the_input_too() -> None:
    model = nn.Sequential(nn.Linear(5, 4))
    report = quantize_model(model, E5M2, activation_format=E3M4)
    assert report.activation_format == "e3m4"
    x = torch.randn(3, 5, requires_grad=True)
    y = model(x)
    expected = nn.functional.linear(rounded(x, E3M4), rounded(model[0].weight), model[0].bias)
    assert torch.equal(y, expected)
    y.sum().backward()
    assert torch.equal(x.grad, rounded(model[0].weight).sum(0).expand(3, 5))
    assert model(torch.zeros(0, 5)).shape == (0, 4)


def test_repr_says_format_and_scaling() -> None:
    layer = nn.Linear(2, 3)
    quantize_model(
        layer, E5M2, activation_format=E3M4, scaling=ScalingSettings(mode="delayed", history=4)
    )
    assert repr(layer) == (
        "QuantizedLinear(in_features=2, out_features=3, bias=True, weight=e5m2, input=e3m4, "
        "scaling=delayed(4))"
    )
    plain = nn.Linear(2, 3)
    quantize_model(plain, load_format("bf16"))
    assert "weight=bf16, scaling=none" in repr(plain)


def test_delayed_state_travels_with_the_state_dict() -> None:
    scaling = ScalingSettings(mode="delayed", history=2)
    model = Net()
    plain_keys = set(model.state_dict())
    quantize_model(model, E5M2, activation_format=E3M4, scaling=scaling)
    assert set(model.state_dict()) - plain_keys == {
        f"{name}.{kind}_amax_history" for name in LAYERS for kind in ("weight", "input")
    }
    for _ in range(3):
        model(IDS)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1.7)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    twin = Net()
    quantize_model(twin, E5M2, activation_format=E3M4, scaling=scaling)
    twin.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        assert torch.equal(model(IDS), twin(IDS))


def test_eval_and_hold_do_not_age_the_history() -> None:
    model = nn.Linear(4, 4)
    quantize_model(model, E5M2, scaling=ScalingSettings(mode="delayed", history=3))
    x = torch.randn(2, 4)
    model.eval()
    model(x)
    assert not model.weight_amax_history.any()
    model.train()
    model(x)
    model(x)
    assert model.weight_amax_history.count_nonzero() == 2


def test_delayed_scales_saturate_what_has_grown() -> None:
    model = nn.Linear(4, 4, bias=False)
    quantize_model(model, E3M4, scaling=ScalingSettings(mode="delayed", history=2))
    eye = torch.eye(4)
    model(eye)
    limit = float(scale_for(model.weight.detach().abs().amax(), E3M4, power_of_two=True)) * 31
    with torch.no_grad():
        model.weight.mul_(10)
    assert model(eye).abs().max() == limit
    assert model(eye).abs().max() > limit


def test_deepcopy_is_independent() -> None:
    model = Net()
    quantize_model(model, E5M2)
    model(IDS)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(5.3)
    model(IDS)
    quantizer = twin.classifier.weight_quantizers["weight"]
    expected = scale_for(twin.classifier.weight.detach().abs().amax(), E5M2, power_of_two=True)
    assert quantizer.scale(twin.classifier) == expected
    assert not torch.equal(twin(IDS), model(IDS))


def test_moving_to_another_dtype_forgets_the_last_scale() -> None:
    layer = nn.Linear(4, 4)
    quantize_model(layer, E5M2, scaling=ScalingSettings(power_of_two=False))
    x = torch.randn(2, 4)
    layer(x)
    layer.to(torch.bfloat16)
    quantizer = layer.weight_quantizers["weight"]
    expected = scale_for(layer.weight.detach().abs().amax().float(), E5M2, power_of_two=False)
    assert quantizer.scale(layer) == expected
    assert layer(x.bfloat16()).dtype == torch.bfloat16
