"""Resident weights that nothing updates, or that something other than an optimizer writes."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import GridResidency, keep_on_grid
from altgrad_core.quantization.resident import fitting
from altgrad_core.quantization.resident.fitting import ScaleFit, ends_of
from altgrad_core.quantization.scaling import compact_amax
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.storage import compact_state, load_compact_state
from altgrad_core.quantization.surgery import change_format, dequantize_model, quantize_model
from altgrad_core.registry.build import load_format

NF4 = [-1, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0]
NF4 += [0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.723, 1]
NF4 = torch.tensor(NF4).tolist()  # float32 values, as a table must have
FORMATS: dict[str, Callable[[], Format]] = {
    "e0m7": lambda: load_format("e0m7"),
    "e4m3": lambda: load_format("e4m3"),
    "e5m2 special": lambda: load_format("e5m2", overflow="special"),
    "e7m0": lambda: load_format("e7m0"),
    "bf16": lambda: load_format("bf16"),
    "nf4": lambda: load_format("table", values=NF4),
    "odd": lambda: load_format("table", values=[-8.0, -5, -3, -1, 0, 1, 3, 5] + [8.0] * 8),
    "lopsided": lambda: load_format("table", values=[-20, -9.5, -6, -2, 0, 1, 3, 8]),
}
FORMAT = st.sampled_from(sorted(FORMATS))
ROUNDING = st.sampled_from(["nearest", "stochastic"])
KAHAN = st.sampled_from([None, "bf16", "e4m3", "e5m2"])
GRANULARITY = st.sampled_from(["tensor", "channel", "block"])
SEED = st.integers(0, 20)


def layer_of(fmt: str, weight: Tensor, **options: Any) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    kahan = options.pop("kahan", None)
    compensation = None if kahan is None else load_format(kahan)
    quantize_model(layer, FORMATS[fmt](), residency="grid", compensation=compensation, **options)
    return layer


def random_weights(seed: int) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(6, 8, generator=draws) * 10 ** torch.randn(6, 1, generator=draws)


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@settings(max_examples=30, deadline=None)
@given(FORMAT, ROUNDING, KAHAN, GRANULARITY, st.sampled_from([1.0, 3.0]), SEED)
def test_a_weight_that_nothing_updates_stays_with_all_that_belongs_to_it(
    fmt: str, rounding: Any, kahan: str | None, granularity: Any, headroom: float, seed: int
) -> None:
    scaling = ScalingSettings(granularity=granularity, block_size=3, headroom=headroom)
    options: dict[str, Any] = {"rounding": rounding, "kahan": kahan, "scaling": scaling}
    layer = layer_of(fmt, random_weights(seed), **options)
    other = nn.Linear(2, 2)
    optimizer = torch.optim.SGD([*layer.parameters(), *other.parameters()], lr=1.0)
    keep_on_grid(layer, optimizer, torch.Generator().manual_seed(seed))
    for trained in (False, True):
        if trained:  # what has moved before rests in the same way
            for number in range(3):
                layer.weight.grad = 0.1 * random_weights(seed + number)
                optimizer.step()
        before = snapshot(layer)
        layer.weight.grad = None
        for parameter in other.parameters():
            parameter.grad = torch.ones_like(parameter)
        for _ in range(4):
            optimizer.step()
        layer.weight.grad = torch.zeros_like(layer.weight)
        optimizer.step()
        assert same(before, snapshot(layer))


@settings(max_examples=30, deadline=None)
@given(FORMAT, ROUNDING, KAHAN, st.sampled_from(["tensor", "block"]), SEED)
def test_an_element_at_rest_moves_only_when_the_grid_grows(
    fmt: str, rounding: Any, kahan: str | None, granularity: Any, seed: int
) -> None:
    scaling = ScalingSettings(granularity=granularity, block_size=3)
    layer = layer_of(fmt, random_weights(seed), rounding=rounding, kahan=kahan, scaling=scaling)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    keep_on_grid(layer, optimizer, torch.Generator().manual_seed(seed))
    (geometry,) = weight_geometry(layer).values()
    draws = torch.Generator().manual_seed(seed + 1)
    for number in range(6):
        before, scale = layer.weight.detach().clone(), geometry.scale().clone()
        # Towards zero, so that scales shrink; the largest go all the way there.
        moving = torch.rand(before.shape, generator=draws) < 0.3
        moving |= before.abs() > before.abs().amax() * 2.0**-number
        share = torch.rand(before.shape, generator=draws).add_(0.3).clamp_(max=1)
        layer.weight.grad = torch.where(moving, before * share, 0.0)
        optimizer.step()
        grown = (geometry.scale() > scale).expand_as(before)
        left = (layer.weight != before) & ~moving & ~grown
        assert not bool(left.any())
        assert bool(layer.weight.isfinite().all())
    assert fmt == "bf16" or int(geometry.scale_changes()) > 0 or fmt in ("nf4", "odd", "lopsided")


def test_a_grid_that_is_not_closed_shrinks_once_nobody_has_to_move() -> None:
    assert not FORMATS["odd"]().closed_under_doubling
    assert not FORMATS["nf4"]().closed_under_doubling
    for fmt in ("e0m7", "e4m3", "e5m2 special", "e7m0"):
        assert FORMATS[fmt]().closed_under_doubling
    assert ends_of(FORMATS["lopsided"]()) == (-20.0, 8.0)
    layer = layer_of("odd", torch.tensor([[8.0, 1, -1, 1]]))
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    keep_on_grid(layer, optimizer)
    (geometry,) = weight_geometry(layer).values()
    layer.weight.grad = torch.tensor([[8.0, 0, 0, 0]])
    optimizer.step()
    assert layer.weight.tolist() == [[0.0, 1.0, -1.0, 1.0]]
    assert float(geometry.scale()) == 1.0
    layer.weight.grad = torch.tensor([[0.0, -0.4, 0.4, -0.4]])
    optimizer.step()
    assert float(geometry.scale()) == 0.5, "twice the scale that 1.4 asks for"
    torch.testing.assert_close(layer.weight.detach(), torch.tensor([[0.0, 1.5, -1.5, 1.5]]))


def test_zeros_find_their_scale_at_once_and_a_tie_beyond_the_top_stays_finite() -> None:
    for fmt in ("e0m7", "e4m3", "e5m2 special", "e7m0"):
        layer = layer_of(fmt, torch.zeros(4, 4))
        optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
        keep_on_grid(layer, optimizer)
        (geometry,) = weight_geometry(layer).values()
        for number in range(40):
            layer.weight.grad = torch.full((4, 4), -1e-20 if number == 0 else 0.0)
            optimizer.step()
        assert int(geometry.scale_changes()) == 1
        assert bool(((layer.weight - 1e-20).abs() <= geometry.ulp(layer.weight) / 2).all())
    for mode in ("current", "frozen"):
        top = torch.tensor([[57344.0, -57344.0]])
        layer = layer_of("e5m2 special", top, scaling=ScalingSettings(mode=mode))
        optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
        keep_on_grid(layer, optimizer)
        for beyond in (4096.0, 1e6):
            layer.weight.grad = torch.tensor([[-beyond, beyond]])
            optimizer.step()
            assert bool(layer.weight.isfinite().all())


def write(layer: nn.Linear, way: str, new: Tensor) -> None:
    with torch.no_grad():
        if way == "copy_":
            layer.weight.copy_(new)
        elif way == "data":
            layer.weight.data = new.clone()
        elif way == "in place on data":
            layer.weight.data.copy_(new)
        elif way == "parameter":
            layer.weight = nn.Parameter(new.clone())
        else:
            layer.load_state_dict({"weight": new}, strict=False)


@settings(max_examples=40, deadline=None)
@given(
    FORMAT,
    KAHAN,
    GRANULARITY,
    st.sampled_from(["copy_", "data", "in place on data", "parameter", "checkpoint"]),
    st.integers(-12, 12),
    SEED,
)
def test_the_next_forward_follows_what_was_written(
    fmt: str, kahan: str | None, granularity: Any, way: str, decades: int, seed: int
) -> None:
    scaling = ScalingSettings(granularity=granularity, block_size=3)
    layer = layer_of(fmt, random_weights(seed), kahan=kahan, scaling=scaling)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0)
    keep_on_grid(layer, optimizer)
    layer(torch.eye(8)).sum().backward()
    optimizer.step()
    new = 10.0**decades * random_weights(seed + 100).abs()  # the lopsided table is coarse below 0
    write(layer, way, new)
    fresh = layer_of(fmt, new, scaling=scaling)
    ulp = next(iter(weight_geometry(fresh).values())).ulp(fresh.weight.detach())
    allowed = 4 * ulp.amax(-1, keepdim=True) if granularity != "tensor" else 4 * ulp.amax()
    for stage in ("written", "stepped"):
        seen = layer(torch.eye(8)).mT.detach()
        assert bool(((seen - new).abs() <= allowed).all()), stage
        optimizer.zero_grad()
        layer(torch.eye(8)).sum().backward()
        optimizer.step()
        if kahan is not None and way == "in place on data":
            break  # what compensation holds cannot know
        assert bool(((layer.weight - new).abs() <= allowed).all())


def test_compensation_of_overwritten_weights_is_dropped_and_that_of_a_checkpoint_is_not() -> None:
    start = random_weights(0)
    layer = layer_of("e4m3", start, kahan="bf16")
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    keep_on_grid(layer, optimizer)
    saved = snapshot(layer)
    kept = layer.get_buffer("weight_compensation").clone()
    layer.weight.grad = torch.zeros_like(layer.weight)
    write(layer, "copy_", 1e-3 * random_weights(1))
    optimizer.step()
    meant = layer.weight.detach() + layer.get_buffer("weight_compensation").float()
    torch.testing.assert_close(meant, 1e-3 * random_weights(1), rtol=1e-2, atol=1e-6)
    layer.load_state_dict(saved)
    optimizer.step()
    assert torch.equal(layer.get_buffer("weight_compensation"), kept)
    assert same(saved, snapshot(layer) | {"weight_scale_changes": saved["weight_scale_changes"]})


def loaded(layer: nn.Linear) -> nn.Linear:
    layer.load_state_dict(snapshot(layer))
    return layer


def from_state(layer: nn.Linear) -> nn.Linear:
    """What a checkpoint makes of a layer, written before it was saved."""
    twin = layer_of("e4m3", random_weights(3), kahan="bf16")
    twin.load_state_dict(layer.state_dict())
    return twin


COPIES: dict[str, Callable[[nn.Linear], nn.Linear]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "double and back": lambda layer: layer.double().float(),
    "loaded": loaded,
    "from its state": from_state,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("written", ["before", "after", "never"])
@pytest.mark.parametrize("way", ["copy_", "data"])
def test_compensation_follows_its_weights_through_copies(how: str, written: str, way: str) -> None:
    layer = layer_of("e4m3", random_weights(0), kahan="bf16")
    kept = layer.get_buffer("weight_compensation").clone()
    new = 1e-3 * random_weights(1)
    if written == "before":
        write(layer, way, new)
    layer = COPIES[how](layer)
    if written == "after":
        write(layer, way, new)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    keep_on_grid(layer, optimizer)
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    if written == "never":
        assert torch.equal(layer.get_buffer("weight_compensation"), kept)
    else:
        meant = layer.weight.detach() + layer.get_buffer("weight_compensation").float()
        torch.testing.assert_close(meant, new, rtol=1e-2, atol=1e-6)


def test_a_change_of_dtype_keeps_compensation() -> None:
    layer = layer_of("e4m3", random_weights(0), kahan="e4m3")
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    keep_on_grid(layer, optimizer)
    kept = layer.get_buffer("weight_compensation").clone()
    assert bool(kept.unique().numel() > 1)
    layer.double()
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    assert torch.equal(layer.get_buffer("weight_compensation"), kept)


@pytest.mark.parametrize("fmt", [name for name in FORMATS if name != "bf16"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "block"])
@pytest.mark.parametrize(("headroom", "rounding"), [(1.0, "stochastic"), (1.5, "nearest")])
def test_a_look_at_the_values_decides_as_the_rule_does(
    fmt: str, granularity: Any, headroom: float, rounding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling = ScalingSettings(granularity=granularity, block_size=3, headroom=headroom)
    built = FORMATS[fmt]()
    fit, ends = ScaleFit(built, scaling, rounding), torch.tensor(ends_of(built))
    cases = []
    for seed in range(60):
        draws = torch.Generator().manual_seed(seed)
        target = torch.randn(2, 4, generator=draws) * built.max_finite
        target *= 2.0 ** (seed % 7 - 4)
        target[0, 0] = (target[0, 0], 0.0, torch.inf, torch.nan)[seed % 4]
        target[1] = torch.tensor([ends[seed % 2], 0, 0, 0]) * 2.0 ** -(seed % 5)
        scale = torch.ones_like(compact_amax(target, scaling))
        cases.append((scale, target, fit(scale, target, target)))
    monkeypatch.setattr(fitting, "look_is_free", lambda tensor: False)
    for scale, target, looked in cases:
        assert torch.equal(fit(scale, target, target), looked), target
    assert any(not torch.equal(scale, looked) for scale, _, looked in cases)
    assert any(torch.equal(scale, looked) for scale, _, looked in cases)


def test_a_checkpoint_keeps_weights_that_were_written_from_outside() -> None:
    layer = layer_of("e4m3", random_weights(0))
    write(layer, "data", 300 * random_weights(1))
    other = layer_of("e4m3", random_weights(2))
    load_compact_state(other, compact_state(layer))
    assert torch.equal(layer.weight, other.weight)
    assert torch.equal(layer(torch.eye(8)), other(torch.eye(8)))


def scaled_step(
    optimizer: torch.optim.Optimizer, layer: nn.Linear, scaler: Any, change: Tensor
) -> None:
    optimizer.zero_grad()
    scaler.scale((layer.weight * -change).sum()).backward()
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kahan", [None, "bf16"])
def test_a_skipped_step_settles_nothing_moves_nothing_and_counts_nothing(
    fused: bool, kahan: str | None
) -> None:
    layer = layer_of("e4m3", random_weights(0), rounding="stochastic", kahan=kahan)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=fused, foreach=False)
    keep_on_grid(layer, optimizer, torch.Generator().manual_seed(0))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaled_step(optimizer, layer, scaler, random_weights(1))
    write(layer, "copy_", 100 * random_weights(2))  # settled at the next step that is taken
    before = snapshot(layer)
    broken = random_weights(1)
    broken[0, 0] = torch.inf
    scaled_step(optimizer, layer, scaler, broken)
    assert scaler.get_scale() == 2.0**9, "the step was skipped"
    after = snapshot(layer)
    kept = [name for name in before if not name.startswith("weight_compensation")]
    assert all(torch.equal(before[name], after[name]) for name in kept)
    scaled_step(optimizer, layer, scaler, random_weights(1))
    assert float(layer.get_buffer("weight_scale")) > float(before["weight_scale"])


def test_dequantising_ends_what_keeps_weights_on_their_grids() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    quantize_model(model, load_format("e3m4"), residency="grid", rounding="stochastic")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    keep_on_grid(model, optimizer, torch.Generator().manual_seed(0))

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()

    step()
    change_format(weight_geometry(model)["0.weight"], load_format("e4m3"))
    dequantize_model(model[0])
    step()
    scale = next(iter(weight_geometry(model).values())).scale()
    rungs = model[1].weight.detach() / scale * 64
    assert torch.equal(rungs, rungs.round()), "what is left on its grid is kept there"
    dequantize_model(model)
    assert not optimizer._optimizer_step_post_hooks
    assert not optimizer._optimizer_step_pre_hooks
    before = [p.detach().clone() for p in model.parameters()]
    step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.detach(), old - 0.1 * parameter.grad)
    # On the grid again, nothing old has a hand in it: it would lack a generator of this run.
    quantize_model(model, load_format("e3m4"), residency="grid", rounding="stochastic")
    keep_on_grid(model, optimizer, torch.Generator().manual_seed(0))
    step()
    assert len(optimizer._optimizer_step_post_hooks) == 1


def test_ending_it_by_hand_leaves_nothing_behind_and_copies_start_without() -> None:
    layer = layer_of("e4m3", random_weights(0))
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    detach = GridResidency(layer).attach(optimizer)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        dequantize_model(twin)
    assert len(optimizer._optimizer_step_post_hooks) == 1
    detach()
    assert not optimizer._optimizer_step_post_hooks
    dequantize_model(layer)
    optimizer.step()
