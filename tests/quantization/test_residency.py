"""Resident weights: always on the grid, nothing hidden, no update lost that should not be."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import GridResidency, keep_on_grid
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import change_format, dequantize_model, quantize_model
from altgrad_core.registry.build import load_format

TABLE = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -7, -0.5, -1, -1.5, -2, -3, -4, -6]
"""Asymmetric: its lowest value has no counterpart."""
FORMATS: dict[str, Callable[[], Format]] = {
    **{
        name: (lambda name=name: load_format(name))  # type: ignore[misc]
        for name in ("e0m7", "e1m6", "e3m4", "e4m3", "e5m2", "e7m0", "bf16", "fp32")
    },
    "exmy": lambda: load_format("exmy", exponent_bits=3, mantissa_bits=2),
    "table": lambda: load_format("table", values=TABLE),
}
OPTIMIZERS: dict[str, Callable[[list[nn.Parameter], float], torch.optim.Optimizer]] = {
    "SGD": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
    "AdamW fused": lambda p, lr: torch.optim.AdamW(p, lr, fused=True),
    "AdamW foreach": lambda p, lr: torch.optim.AdamW(p, lr, foreach=True),
    "Adagrad": lambda p, lr: torch.optim.Adagrad(p, lr),
    "RMSprop": lambda p, lr: torch.optim.RMSprop(p, lr),
    "Rprop": lambda p, lr: torch.optim.Rprop(p, lr),
}


def build(fmt: Format, *, seed: int = 0, width: int = 7, **options: Any) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, 5))
    quantize_model(model, fmt, residency="grid", **options)
    return model


def grid_of(fmt: Format) -> Tensor:
    values = fmt.code_values().double()
    return values[values.isfinite()].unique()


def off_grid(model: nn.Module) -> int:
    """How many weights are no grid value times their scale, by brute force over the codes."""
    wrong = 0
    for geometry in weight_geometry(model).values():
        if geometry.format.bits > 16:
            continue
        scaled = geometry.parameter.detach().double() / geometry.scale().double()
        wrong += int((~torch.isin(scaled, grid_of(geometry.format))).sum())
    return wrong


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seed: int = 1
) -> list[float]:
    draws = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(torch.randn(4, 6, generator=draws)) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@settings(max_examples=40, deadline=None)
@given(
    fmt=st.sampled_from(sorted(FORMATS)),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    rounding=st.sampled_from(["nearest", "stochastic"]),
    kahan=st.sampled_from([None, "bf16", "e5m2", "fp32"]),
    granularity=st.sampled_from(["tensor", "channel", "block"]),
    rate=st.sampled_from([1e-4, 1e-2, 0.3, 3.0]),
    headroom=st.sampled_from([1.0, 3.0]),
    seed=st.integers(0, 10),
)
def test_after_every_step_each_weight_is_a_grid_value_times_its_scale(
    fmt: str,
    optimizer: str,
    rounding: Any,
    kahan: str | None,
    granularity: Any,
    rate: float,
    headroom: float,
    seed: int,
) -> None:
    scaling = ScalingSettings(granularity=granularity, block_size=4, headroom=headroom)
    compensation = None if kahan is None else load_format(kahan)
    model = build(
        FORMATS[fmt](), seed=seed, rounding=rounding, compensation=compensation, scaling=scaling
    )
    assert off_grid(model) == 0
    moved = OPTIMIZERS[optimizer](list(model.parameters()), rate)
    keep_on_grid(model, moved, torch.Generator().manual_seed(seed))
    for step in range(6):
        train(model, moved, 1, seed=step)
        assert off_grid(model) == 0
        for geometry in weight_geometry(model).values():
            mantissas, _ = torch.frexp(geometry.scale())
            assert bool((mantissas == 0.5).all()), "scales are powers of two"
            reach = geometry.parameter.abs() / geometry.scale()
            assert bool((reach <= geometry.format.max_finite * 7 / 6).all())  # the table's -7


def stored_bytes(model: nn.Module) -> int:
    """Every tensor reachable from the modules, other than parameters, each storage once."""
    seen: dict[int, int] = {}

    def visit(value: Any) -> None:
        if isinstance(value, nn.Parameter):
            return
        if isinstance(value, Tensor):
            seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            for one in value.values():
                visit(one)
        elif isinstance(value, list | tuple):
            for one in value:
                visit(one)
        elif type(value).__module__.startswith("altgrad_core.quantization"):
            visit(vars(value))

    for module in model.modules():
        visit(vars(module))
    return sum(seen.values())


@pytest.mark.parametrize(
    ("kahan", "per_weight"), [(None, 0.0), ("e4m3", 1.0), ("bf16", 2.0), ("fp32", 4.0)]
)
def test_no_copy_of_the_weights_hides_anywhere(kahan: str | None, per_weight: float) -> None:
    compensation = None if kahan is None else load_format(kahan)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    quantize_model(model, load_format("e5m2"), residency="grid", compensation=compensation)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    residency = GridResidency(model)
    residency.attach(optimizer)
    for _ in range(3):
        model(torch.randn(2, 64)).sum().backward()
        optimizer.step()
    weights = 2 * 64 * 64
    overhead = stored_bytes(model) - per_weight * weights
    assert 0 < overhead < 100, "scales and counters only"


def resident_linear(
    fmt: str, values: Tensor, **options: Any
) -> tuple[nn.Linear, torch.optim.Optimizer]:
    """A layer whose weight is ``values``, and plain SGD at rate 1, which takes gradients as they are."""
    layer = nn.Linear(values.shape[1], values.shape[0], bias=False)
    with torch.no_grad():
        layer.weight.copy_(values)
    quantize_model(layer, load_format(fmt), residency="grid", **options)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    return layer, optimizer


def apply(layer: nn.Linear, optimizer: torch.optim.Optimizer, change: Tensor) -> None:
    layer.weight.grad = -change
    optimizer.step()


def spread_weights(fmt: str, size: int = 64) -> Tensor:
    """Weights on rungs inside the grid, with the largest value among them, so that scales stay."""
    format = load_format(fmt)
    top = int(format.to_rung(torch.tensor(format.max_finite)))
    rungs = torch.linspace(-top + 2, top - 2, size).round().to(torch.int32)
    values = format.from_rung(rungs)
    values[0] = format.max_finite
    return values.reshape(8, -1)


@pytest.mark.parametrize("fmt", ["e0m7", "e3m4", "e5m2"])
def test_to_nearest_updates_below_half_a_ulp_never_move_anything(fmt: str) -> None:
    start = spread_weights(fmt)
    layer, optimizer = resident_linear(fmt, start)
    keep_on_grid(layer, optimizer)
    (geometry,) = weight_geometry(layer).values()
    for sign in (1, -1, 1, 1):
        # Below a power of two the gap is half as wide: stay below half of the smaller one.
        ulp = geometry.ulp(layer.weight.detach() * (1 - 2**-10))
        apply(layer, optimizer, sign * 0.49 * ulp)
        assert torch.equal(layer.weight, start)


def test_stochastic_moves_the_mean_by_the_intended_amount() -> None:
    # 40 000 weights on one rung; the update is a tenth of a gap. False alarm below 1e-6.
    start = torch.full((200, 200), 0.5)
    start[0, 0] = 31.0
    layer, optimizer = resident_linear("e3m4", start, rounding="stochastic")
    keep_on_grid(layer, optimizer, torch.Generator().manual_seed(5))
    gap = 2.0**-5
    for _ in range(5):
        apply(layer, optimizer, torch.full_like(start, 0.1 * gap))
    moved = (layer.weight.detach() - start).flatten()[1:]
    count = len(moved)
    # Each step adds a variance of at most p (1 - p) gap².
    bound = 5 * gap * math.sqrt(5 * 0.1 * 0.9 / count)
    assert abs(float(moved.mean()) - 0.5 * gap) < bound
    assert set((moved / gap).unique().tolist()) <= set(range(6))


def test_stochastic_rounding_is_reproducible_and_draws_from_its_generator_alone() -> None:
    found = []
    for _ in range(2):
        model = build(load_format("e3m4"), rounding="stochastic")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        keep_on_grid(model, optimizer, torch.Generator().manual_seed(3))
        torch.manual_seed(len(found))  # has no part in it
        before = torch.get_rng_state()
        train(model, optimizer, 5)
        assert torch.equal(before, torch.get_rng_state())
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*found)


def test_stochastic_rounding_without_a_generator_is_an_error_not_nearest() -> None:
    model = build(load_format("e3m4"), rounding="stochastic")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with pytest.raises(UserError, match="explicit generator"):
        keep_on_grid(model, optimizer)


@pytest.mark.parametrize("fmt", ["e0m7", "e3m4", "e5m2"])
def test_kahan_follows_a_master_to_within_half_a_gap(fmt: str) -> None:
    start = spread_weights(fmt)
    scaling = ScalingSettings(headroom=2.0)
    options = {"compensation": load_format("fp32"), "scaling": scaling}
    layer, optimizer = resident_linear(fmt, start, **options)
    keep_on_grid(layer, optimizer)
    (geometry,) = weight_geometry(layer).values()
    master = start.double()
    draws = torch.Generator().manual_seed(0)
    for _ in range(50):
        change = 0.05 * geometry.ulp(layer.weight.detach()) * torch.rand(8, 8, generator=draws)
        apply(layer, optimizer, change)
        master += change.double()
    ulp = geometry.ulp(master.float()).double()
    assert bool(((layer.weight.double() - master).abs() <= 0.51 * ulp).all())
    assert not torch.equal(layer.weight, start)


def test_the_scale_grows_when_it_must_and_shrinks_with_room_and_each_change_is_counted() -> None:
    start = torch.full((4, 4), 1.0)
    start[0, 0] = 31.0
    layer, optimizer = resident_linear("e3m4", start)
    keep_on_grid(layer, optimizer)
    (geometry,) = weight_geometry(layer).values()
    scales, changes = [], []

    def step(change: Tensor) -> None:
        apply(layer, optimizer, change)
        scales.append(float(geometry.scale()))
        changes.append(int(geometry.scale_changes()))

    corner = torch.zeros(4, 4)
    corner[0, 0] = 1.0
    step(0.4 * corner)  # less than half a gap beyond the last value: it must not grow
    step(200 * corner)  # 231 needs 8 times the scale
    step(-100 * corner)  # 131 would do with less, but not with a quarter
    assert scales == [1.0, 8.0, 8.0]
    assert changes == [0, 1, 1]
    step(-128 * corner)  # back to amax 1, for which 1/16 would do; twice that leaves room
    assert (scales[-1], changes[-1]) == (0.125, 2)
    for _ in range(8):
        step(0 * corner)
    assert (scales[-1], changes[-1]) == (0.125, 2)
    assert off_grid(layer) == 0


def test_halving_moves_no_weight_and_a_frozen_scale_saturates() -> None:
    start = spread_weights("e5m2") / 1024
    layer, optimizer = resident_linear("e5m2", start)
    keep_on_grid(layer, optimizer)
    with torch.no_grad():
        layer.weight[layer.weight.abs() > 1e-3] = 2.0**-10
    small = layer.weight.detach().clone()
    for _ in range(5):
        apply(layer, optimizer, torch.zeros_like(start))
    assert torch.equal(layer.weight, small)
    (geometry,) = weight_geometry(layer).values()
    assert int(geometry.scale_changes()) == 1

    frozen, optimizer = resident_linear(
        "e3m4", torch.ones(2, 2), scaling=ScalingSettings(mode="frozen")
    )
    keep_on_grid(frozen, optimizer)
    apply(frozen, optimizer, torch.full((2, 2), 100.0))
    assert frozen.weight.unique().tolist() == [31 / 16]


def test_what_is_not_finite_stays_so() -> None:
    layer, optimizer = resident_linear("e0m7", torch.ones(2, 2))
    keep_on_grid(layer, optimizer)
    change = torch.tensor([[math.inf, math.nan], [0.0, -math.inf]])
    apply(layer, optimizer, change)
    assert layer.weight.isfinite().tolist() == [[False, False], [True, False]]
    (geometry,) = weight_geometry(layer).values()
    assert float(geometry.scale()) == 2.0, "a broken weight does not move the scale"


def test_the_two_uniform_grids_stay_equal_step_for_step() -> None:
    losses = []
    for name in ("e0m7", "e1m6"):
        for rounding in ("nearest", "stochastic"):
            model = build(load_format(name), rounding=rounding)
            optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
            keep_on_grid(model, optimizer, torch.Generator().manual_seed(1))
            losses.append(train(model, optimizer, 30))
    assert losses[0] == losses[2]
    assert losses[1] == losses[3]
    assert losses[0] != losses[1]


def test_attention_and_root_layers_live_on_the_grid_too() -> None:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    quantize_model(attention, load_format("e3m4"), residency="grid")
    optimizer = torch.optim.AdamW(attention.parameters(), lr=0.1)
    keep_on_grid(attention, optimizer)
    x = torch.randn(2, 3, 8)
    for _ in range(3):
        attention(x, x, x)[0].square().sum().backward()
        optimizer.step()
    assert set(weight_geometry(attention)) == {"in_proj_weight", "out_proj.weight"}
    assert off_grid(attention) == 0


def test_moving_out_keeps_the_weights_and_takes_the_buffers() -> None:
    model = build(load_format("e3m4"), compensation=load_format("bf16"))
    values = [p.detach().clone() for p in model.parameters()]
    assert set(model.state_dict()) > {"0.weight_scale", "0.weight_compensation"}
    twin = copy.deepcopy(model)
    dequantize_model(model)
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert all(torch.equal(a, b) for a, b in zip(values, model.parameters(), strict=True))
    assert off_grid(twin) == 0


def test_settings_that_contradict_each_other_are_refused() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(UserError, match="power_of_two"):
        quantize_model(
            layer,
            load_format("e5m2"),
            residency="grid",
            scaling=ScalingSettings(power_of_two=False),
        )
    with pytest.raises(UserError, match="compensation"):
        quantize_model(layer, load_format("e5m2"), compensation=load_format("bf16"))
    with pytest.raises(UserError, match="has no delay"):
        quantize_model(
            layer,
            load_format("e5m2"),
            residency="grid",
            scaling=ScalingSettings(mode="delayed"),
        )
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(UserError, match="share one weight"):
        quantize_model(tied, load_format("e5m2"), residency="grid")
    assert type(layer) is nn.Linear


def test_weights_that_begin_as_zeros_lose_nothing() -> None:
    for name in ("e0m7", "e4m3", "e5m2"):
        layer, optimizer = resident_linear(name, torch.zeros(4, 4))
        keep_on_grid(layer, optimizer)
        apply(layer, optimizer, torch.full((4, 4), 1e-4))
        (geometry,) = weight_geometry(layer).values()
        assert float((layer.weight.detach() - 1e-4).abs().max()) <= 0.5 * float(
            geometry.ulp(layer.weight.detach()).max()
        )
        assert float(layer.weight.detach().abs().min()) > 0
        assert int(geometry.scale_changes()) == 1


def test_a_format_shift_takes_along_what_compensation_holds() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(16, 16, bias=False)
    start = layer.weight.detach().clone()
    quantize_model(layer, load_format("e5m2"), residency="grid", compensation=load_format("fp32"))
    (geometry,) = weight_geometry(layer).values()
    change_format(geometry, load_format("e3m4"))
    meant = layer.weight + layer.get_buffer("weight_compensation")
    torch.testing.assert_close(meant, start)
    ulp = geometry.ulp(layer.weight.detach())
    assert bool(((layer.weight - start).abs() <= 0.51 * ulp).all())
    assert off_grid(layer) == 0


def test_a_weight_that_two_layers_round_stays_where_it_is() -> None:
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    quantize_model(tied, load_format("e5m2"))
    with pytest.raises(UserError, match="several layers"):
        change_format(weight_geometry(tied)["0.weight"], load_format("e3m4"))
