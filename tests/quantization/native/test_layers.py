"""Layers with native products beside the simulation: the same but for the sums, and the same where sums are exact."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint
from transformers.pytorch_utils import Conv1D

from altgrad_core import keep_on_grid, load_format, quantize_model
from altgrad_core.errors import UserError
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.modules.bypass import unrounded
from altgrad_core.quantization.native.linear import NativeLinear
from altgrad_core.quantization.surgery import change_format, dequantize_model
from altgrad_plugins.formats.exmy import ExMy
from altgrad_plugins.tasks.encoder import build_classifier, encoder_config
from altgrad_plugins.tasks.settings import ModelSettings

INT8 = ("e0m7", "e0m7", "e1m6")
FLOAT8 = ("e4m3", "e4m3", "e5m2")
TRIPLES = [INT8, FLOAT8, ("e5m2", "e4m3", "e4m3"), ("e4m3", "e5m2", None), ("bf16",) * 3]
EXACT = (INT8, ("bf16",) * 3)
"""Whose sums are exact here, or are the simulation's own."""

Triple = tuple[str, str, str | None]


def model(
    execution: Any,
    triple: Triple = FLOAT8,
    kind: Callable[..., nn.Module] | None = None,
    **options: Any,
) -> nn.Module:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(24, 9), nn.Tanh(), nn.Linear(9, 5, bias=False)]
    if kind is not None:
        layers = [kind(9, 24), nn.Tanh(), kind(5, 9)]
    made = nn.Sequential(*layers)
    weight, activation, gradient = triple
    quantize_model(
        made,
        weight,
        activation_format=activation,
        gradient_format=gradient,
        execution=execution,
        **options,
    )
    return made


def batch() -> Tensor:
    return torch.randn(3, 4, 24, generator=torch.Generator().manual_seed(1))


def passes(made: nn.Module, x: Tensor, autocast: bool = False) -> list[Tensor]:
    """The output and every gradient of a forward and backward pass."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = made(x)
    output.float().square().sum().backward()
    gradients = [x.grad, *(p.grad for p in made.parameters())]
    return [output.detach(), *(g for g in gradients if g is not None)]


def agree(triple: Triple, *found: list[Tensor], loose: float = 1e-5) -> None:
    for native, simulated in zip(*found, strict=True):
        assert native.dtype == simulated.dtype
        if triple in EXACT:
            assert torch.equal(native, simulated)
        else:
            size = float(simulated.float().abs().max())
            torch.testing.assert_close(native, simulated, rtol=loose, atol=loose * size)


@pytest.mark.parametrize("kind", [None, Conv1D], ids=["Linear", "Conv1D"])
@pytest.mark.parametrize("triple", TRIPLES, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scaling": "delayed"},
        {"scaling": "frozen", "residency": "grid"},
        {"residency": "grid", "rounding": "stochastic", "compensation": "kahan"},
    ],
    ids=str,
)
def test_passes_are_those_of_the_simulation(
    kind: Any, triple: Triple, options: dict[str, Any]
) -> None:
    found = []
    for execution in ("native", "simulated"):
        made = model(execution, triple, kind, **options)
        x = batch()
        passes(made, x)
        made.zero_grad()
        found.append([*passes(made, 3 * x), *made.buffers()])
    agree(triple, *found)


@pytest.mark.parametrize("triple", TRIPLES, ids=str)
def test_exact_scales_are_applied_after_the_product(triple: Triple) -> None:
    """In float32 the simulation rounds them together with the values: another 2^-24 each."""
    scaling = {"power_of_two": False}
    found = [
        passes(model(one, triple, scaling=scaling), batch()) for one in ("native", "simulated")
    ]
    agree(("", "", None), *found, loose=1e-6)


@pytest.mark.parametrize("triple", TRIPLES, ids=str)
def test_under_autocast_results_have_its_dtype(triple: Triple) -> None:
    found = [passes(model(one, triple), batch(), autocast=True) for one in ("native", "simulated")]
    # an output that bfloat16 rounds the other way may be rounded to the next value of a grid of 3 bits
    agree(("", "", None), *found, loose=0.13)
    assert found[0][0].dtype == torch.bfloat16


def test_half_precision_models_keep_their_dtype() -> None:
    made = model("native").half()
    assert made(batch().half()).dtype == torch.float16
    assert model("native").double()(batch().double()).dtype == torch.float64


@pytest.mark.parametrize("scaling", ["current", {"power_of_two": False}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_a_gradient_format_the_backward_products_are_the_simulations(
    scaling: Any, dtype: torch.dtype
) -> None:
    """Bit for bit, for the same gradient."""
    found = []
    for execution in ("native", "simulated"):
        torch.manual_seed(0)
        layer = nn.Linear(24, 9)
        quantize_model(
            layer, "e4m3", activation_format="e4m3", execution=execution, scaling=scaling
        )
        x = batch().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            output = layer(x)
        output.backward(
            torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output.dtype)
        )
        found.append([x.grad, layer.weight.grad, layer.bias.grad])
    *products, of_bias = zip(*found, strict=True)
    for native, simulated in products:
        assert torch.equal(native, simulated)
    torch.testing.assert_close(*of_bias, rtol=2.0**-7, atol=0.01)  # a sum, in the gradient's dtype


def test_what_is_kept_for_the_backward_pass_has_8_bits() -> None:
    kept: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x)
        return x

    layer = nn.Linear(24, 9)
    quantize_model(layer, "e4m3", activation_format="e4m3", execution="native")
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        layer(batch())
    assert sorted(x.dtype.itemsize for x in kept if x.dim()) == [1, 1]


def test_codes_are_made_once_for_a_step_and_once_for_layers_that_share_an_input() -> None:
    layers = nn.ModuleList(nn.Linear(24, 9) for _ in range(3))
    quantize_model(layers, "e4m3", activation_format="e4m3", execution="native")
    with mock.patch.object(ExMy, "round", autospec=True, side_effect=ExMy.round) as rounded:
        with hold_weights(layers):
            for x in (batch(), 2 * batch()):
                for layer in layers:
                    layer(x).sum().backward()
        assert rounded.call_count == 3 + 2


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputed_forwards_draw_and_scale_as_before(reentrant: bool) -> None:
    found = []
    for again in (False, True):
        generator = torch.Generator().manual_seed(3)
        made = model("native", scaling="delayed", rounding="stochastic", generator=generator)
        made(batch()).sum().backward()
        x = (2 * batch()).requires_grad_()
        output = checkpoint(made, x, use_reentrant=reentrant) if again else made(x)
        output.square().sum().backward()
        found.append([x.grad, *(p.grad for p in made.parameters()), *made.buffers()])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)


def test_compiled_in_one_graph() -> None:
    torch.compiler.reset()
    layer = nn.Linear(24, 9)
    quantize_model(
        layer, "e4m3", activation_format="e4m3", gradient_format="e5m2", execution="native"
    )
    expected = passes(copy.deepcopy(layer), batch())
    compiled: Any = torch.compile(layer, fullgraph=True, backend="aot_eager")
    agree(FLOAT8, passes(compiled, batch()), expected)


def test_transforms_of_torch_func() -> None:
    native, simulated = model("native", INT8), model("simulated", INT8)
    x = batch().view(12, 1, 24)

    def per_sample(made: nn.Module) -> dict[str, Tensor]:
        def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(made, parameters, (x,)).square().sum()  # type: ignore[no-any-return]

        return vmap(grad(loss), (None, 0))(dict(made.named_parameters()), x)  # type: ignore[no-any-return]

    for a, b in zip(per_sample(native).values(), per_sample(simulated).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_second_derivative_is_an_error_and_none_without_rounding() -> None:
    made = model("native")

    def second() -> None:
        (first,) = torch.autograd.grad(
            made(batch()).square().sum(), made[0].weight, create_graph=True
        )
        first.square().sum().backward()

    with pytest.raises(RuntimeError, match="differentiate twice"):
        second()
    with unrounded(made):  # as curvature is measured
        second()


def test_the_model_stays_what_it_was() -> None:
    plain = nn.Sequential(nn.Linear(24, 9), nn.Tanh())
    keys, weight = list(plain.state_dict()), plain[0].weight
    quantize_model(plain, "e4m3", activation_format="e4m3", execution="native")
    assert isinstance(plain[0], NativeLinear)
    assert "execution=native" in repr(plain)
    assert plain[0].weight is weight
    assert list(plain.state_dict()) == keys
    for twin in (copy.deepcopy(plain), pickle.loads(pickle.dumps(plain))):
        assert torch.equal(twin(batch()), plain(batch()))
    dequantize_model(plain)
    assert type(plain[0]) is nn.Linear


@pytest.mark.parametrize("triple", [INT8, FLOAT8], ids=str)
@pytest.mark.parametrize("residency", ["master", "grid"])
def test_training(triple: Triple, residency: Any) -> None:
    """Identical where sums are exact; elsewhere as near as a handful of steps keep them."""
    losses = []
    for execution in ("native", "simulated"):
        made = model(execution, triple, residency=residency)
        optimizer = torch.optim.AdamW(made.parameters(), lr=0.01)
        if residency == "grid":
            keep_on_grid(made, optimizer, torch.Generator().manual_seed(0))
        x, target = batch(), torch.linspace(-1, 1, 60).view(3, 4, 5)
        found = []
        for _ in range(8):
            with hold_weights(made):
                loss = (made(x) - target).square().mean()
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        losses.append(found)
    native, simulated = losses
    assert native[-1] < 0.9 * native[0]
    if triple in EXACT:
        assert native == simulated
    assert native == pytest.approx(simulated, rel=0.02)


@pytest.mark.parametrize("triple", [INT8, FLOAT8], ids=str)
def test_an_encoder_trains_as_in_simulation(triple: Triple) -> None:
    """Loss by loss the same where sums are exact, attention and all; near it where they are not."""
    settings = ModelSettings(hidden_dim=16, num_layers=1, num_heads=2, max_length=8, dropout=0.0)
    ids = torch.randint(1, 30, (4, 8), generator=torch.Generator().manual_seed(0))
    mask, target = torch.ones_like(ids), torch.eye(4)
    losses = []
    for execution in ("native", "simulated"):
        torch.manual_seed(0)
        made = build_classifier(encoder_config(settings, 30, 0), 4, settings)
        weight, *others = (load_format(name) for name in triple)  # type: ignore[arg-type]
        roles = dict(zip(("activation_format", "gradient_format"), others, strict=True))
        quantize_model(made, weight, execution=execution, **roles)  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(made.parameters(), lr=0.01)
        found = []
        for _ in range(4):
            optimizer.zero_grad()
            with hold_weights(made):
                loss = nn.functional.binary_cross_entropy_with_logits(made(ids, mask), target)
                loss.backward()
            optimizer.step()
            found.append(loss.item())
        losses.append(found)
    native, simulated = losses
    assert native[-1] < native[0]
    assert native == (simulated if triple in EXACT else pytest.approx(simulated, rel=0.01))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("triple", TRIPLES, ids=str)
@pytest.mark.parametrize("captured", [False, True], ids=["eager", "graph"])
def test_passes_on_a_gpu(triple: Triple, captured: bool) -> None:
    """As the simulation's there, in sizes that have to be padded; and the same again from a CUDA graph."""
    made = {one: model(one, triple).cuda() for one in ("native", "simulated")}
    x = batch().cuda()
    native, simulated = (passes(made[one], x) for one in ("native", "simulated"))
    agree(("", "", None) if triple != INT8 else INT8, native, simulated, loose=0.02)
    if captured:
        graph = torch.cuda.CUDAGraph()
        made["native"].zero_grad()
        beside = torch.cuda.Stream()
        with torch.cuda.stream(beside):
            for _ in range(3):
                passes(made["native"], x)
                made["native"].zero_grad()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            output = made["native"](x)
        graph.replay()
        assert torch.equal(output, native[0])


REFUSED: list[tuple[Triple, str]] = [
    (("e5m2", "e5m2", None), "e5m2 × e5m2 is refused by the library that multiplies"),
    (
        ("e5m2", "e4m3", "e5m2"),
        "a mixed pair of float8_e4m3fn and float8_e5m2, such as e4m3 × e5m2",
    ),
    (("e4m3", "e5m2", "e5m2"), "e5m2 × e5m2 is refused"),
    (("e3m4", "e4m3", None), "e3m4 has no native product"),
    (("e4m3", "e4m3", "e3m4"), "e3m4 has no native product"),
    (("e0m7", "e4m3", None), "e4m3 × e0m7 would be float8_e4m3fn × int8"),
    (("bf16", "e4m3", None), "would be float8_e4m3fn × bfloat16, for which there is no product"),
]


@pytest.mark.parametrize(("triple", "said"), REFUSED, ids=str)
def test_formats_without_a_product_are_refused(triple: Triple, said: str) -> None:
    with pytest.raises(UserError, match=said):
        model("native", triple)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"activation_format": None}, "set activation_format"),
        ({"scaling": {"granularity": "channel"}}, "scaling.granularity is channel"),
        ({"overrides": {"1": "e3m4"}}, "e3m4 has no native product"),
        ({"execution": "nativ"}, "Did you mean 'native'"),
    ],
    ids=str,
)
def test_settings_without_a_product_are_refused(options: dict[str, Any], said: str) -> None:
    plain = nn.Sequential(nn.Linear(24, 9), nn.Linear(9, 5))
    with pytest.raises(UserError, match=said):
        quantize_model(
            plain, "e4m3", **{"activation_format": "e4m3", "execution": "native", **options}
        )
    assert type(plain[0]) is nn.Linear


@pytest.mark.parametrize(
    ("layer", "name"),
    [(nn.Conv1d(3, 3, 1), "Conv1d"), (nn.MultiheadAttention(8, 2), "MultiheadAttention")],
    ids=["convolution", "attention"],
)
def test_layers_without_a_product_are_refused_by_name(layer: nn.Module, name: str) -> None:
    plain = nn.ModuleDict({"first": nn.Linear(3, 3), "odd": layer})
    options: dict[str, Any] = {"activation_format": "e4m3", "execution": "native"}
    with pytest.raises(UserError, match=f"the layer 'odd.*' is computed by {name}, whose products"):
        quantize_model(plain, "e4m3", **options)
    assert type(plain["first"]) is nn.Linear
    report = quantize_model(plain, "e4m3", overrides={"odd": None}, **options)
    assert list(report.layers) == ["first"]


def test_another_format_must_have_a_product_as_well() -> None:
    made = model("native", ("e4m3", "e4m3", None))
    geometry = weight_geometry(made)["0.weight"]
    with pytest.raises(UserError, match="e2m5 has no native product"):
        change_format(geometry, load_format("e2m5"))
    assert geometry.quantizer.format.name == "e4m3"
    change_format(geometry, load_format("e5m2"))
    torch.testing.assert_close(made(batch()), _shifted()(batch()))


def _shifted() -> nn.Module:
    made = model("simulated", ("e4m3", "e4m3", None))
    change_format(weight_geometry(made)["0.weight"], load_format("e5m2"))
    return made
