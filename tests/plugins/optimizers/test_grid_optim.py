"""``grid_optim`` against the formulas in float64, and its statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.testing.optimizers import check_optimizer
from altgrad_plugins.optimizers import grid as grid_module
from altgrad_plugins.optimizers.grid import GridOptim, GridOptimPlugin, stochastic_round
from altgrad_plugins.optimizers.settings import GridOptimSettings

LADDER = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]


def build(
    fmt: str | Format = "e3m4", shape: tuple[int, int] = (30, 20), lr: float = 1e-3, **settings: Any
) -> tuple[nn.Linear, WeightGeometry, GridOptim]:
    torch.manual_seed(0)
    model = nn.Linear(shape[1], shape[0])
    quantize_model(model, load_format(fmt) if isinstance(fmt, str) else fmt)
    geometry = weight_geometry(model)["weight"]
    optimizer = GridOptimPlugin(GridOptimSettings(**settings)).build(
        [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}],
        {model.weight: geometry},
        learning_rate=lr,
        generator=torch.Generator().manual_seed(7),
    )
    forward(model)
    return model, geometry, optimizer


def forward(model: nn.Linear) -> None:
    model(torch.zeros(1, model.in_features))


def test_stochastic_rounding_has_the_right_mean_and_keeps_whole_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.tensor([-2.75, -1.0, -0.1, 0.0, 0.1, 0.5, 2.0, 3.3]).repeat(20000, 1)
    drawn = stochastic_round(x, generator)
    assert torch.equal(drawn, drawn.round())
    assert ((drawn - x).abs() < 1).all()
    deviation = ((x - x.floor()) * (x.ceil() - x)).sqrt()[0] / 20000**0.5
    assert ((drawn.mean(0) - x[0]).abs() <= 5 * deviation + 1e-6).all()
    whole = x[0] == x[0].round()
    assert torch.equal(drawn[:, whole], x[:, whole])


def reference_move(
    weight: Tensor, grads: list[Tensor], gaps: list[Tensor], settings: GridOptimSettings, lr: float
) -> np.ndarray[Any, Any]:
    """The real-valued move of the last step, in rungs, in float64."""
    mean = np.zeros(weight.shape)
    square = 0.0
    for t, (grad, gap) in enumerate(zip(grads, gaps, strict=True), 1):
        s = gap.double().numpy()
        h = grad.double().numpy() * s
        square = settings.rms_decay * square + (1 - settings.rms_decay) * (h**2).mean()
        h = h / np.sqrt(square / (1 - settings.rms_decay**t))
        mean = settings.momentum * mean + (1 - settings.momentum) * h
    rate = settings.rungs_per_lr * lr if settings.rungs_per_lr else lr / np.sqrt((s**2).mean())
    move = rate * mean / (1 - settings.momentum**t)
    move = move + lr * settings.weight_decay * weight.double().numpy() / s
    return np.clip(move, -settings.max_rungs, settings.max_rungs)


@pytest.mark.parametrize("fmt", LADDER)
@pytest.mark.parametrize("rungs_per_lr", [None, 300.0])
def test_moves_match_the_formula(
    fmt: str, rungs_per_lr: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves: list[Tensor] = []

    def recorded(x: Tensor, generator: torch.Generator) -> Tensor:
        moves.append(x.clone())
        return stochastic_round(x, generator)

    monkeypatch.setattr(grid_module, "stochastic_round", recorded)
    model, geometry, optimizer = build(
        fmt, rungs_per_lr=rungs_per_lr, max_rungs=1.5, weight_decay=0.3
    )
    grads, gaps, before = [], [], model.weight.detach()
    for _ in range(4):
        grads.append(torch.randn(model.weight.shape))
        before = model.weight.detach().clone()
        gaps.append(geometry.ulp(before))
        rung = geometry.rung(before)
        model.weight.grad = grads[-1].clone()
        optimizer.step()
        # the step ends on grid values, and each weight has gone to a whole number next to its move
        weight = model.weight.detach()
        after = geometry.rung(weight)
        inside = weight.abs() <= geometry.format.max_finite * geometry.scale()
        assert inside.float().mean() > 0.95
        assert torch.equal(geometry.value(after)[inside], weight[inside])
        assert ((rung - after - moves[-1]).abs() < 1)[inside].all()
        assert torch.equal(model.weight.grad, grads[-1])
    expected = reference_move(before, grads, gaps, optimizer.settings, 1e-3)
    np.testing.assert_allclose(moves[-1].numpy(), expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("fmt", ["e0m7", "e3m4", "e5m2"])
def test_the_learning_rate_is_the_size_of_a_step_in_weight_units(fmt: str) -> None:
    """With a steady gradient the mean weight moves as AdamW's would: by about lr."""
    lr = 1e-4
    model, geometry, optimizer = build(fmt, shape=(200, 200), lr=lr, weight_decay=0.0)
    start = geometry.value(geometry.rung(model.weight.detach()))
    for _ in range(20):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    moved = (start - model.weight.detach()).mean() / 20
    assert 0.4 * lr < moved < 1.1 * lr


def test_the_a_a_pair_moves_alike() -> None:
    weights = []
    for fmt in ("e0m7", "e1m6"):
        model, _, optimizer = build(fmt)
        generator = torch.Generator().manual_seed(1)
        for _ in range(10):
            model.weight.grad = torch.randn(model.weight.shape, generator=generator)
            forward(model)
            optimizer.step()
        weights.append(model.weight.detach())
    assert torch.equal(*weights)


def test_no_weight_moves_further_than_max_rungs() -> None:
    model, geometry, optimizer = build("e3m4", lr=10.0, max_rungs=2.0)
    before = geometry.rung(model.weight.detach())
    model.weight.grad = torch.randn(model.weight.shape)
    optimizer.step()
    moved = (geometry.rung(model.weight.detach()) - before).abs()
    assert moved.max() == 2


@pytest.mark.parametrize("fmt", LADDER)
def test_the_last_rung_is_no_wall_and_the_scale_follows(fmt: str) -> None:
    model, geometry, optimizer = build(fmt, rungs_per_lr=1e6, max_rungs=1.0, weight_decay=0.0)
    with torch.no_grad():
        model.weight.copy_(geometry.value(geometry.rung(model.weight)))
        model.weight[0, 0] = geometry.format.max_finite * geometry.scale()
        model.weight[0, 1] = -geometry.format.max_finite * geometry.scale()
    forward(model)
    scale, others = geometry.scale().clone(), model.weight.detach().clone()
    gap = geometry.ulp(model.weight.detach())[0, 0]
    model.weight.grad = torch.zeros_like(model.weight)
    model.weight.grad[0, 0], model.weight.grad[0, 1] = -1.0, 1.0
    optimizer.step()
    assert model.weight[0, 0] == others[0, 0] + gap
    assert model.weight[0, 1] == others[0, 1] - gap
    assert torch.equal(model.weight[1:], others[1:])
    forward(model)
    assert geometry.scale() == 2 * scale


@pytest.mark.parametrize("fmt", LADDER)
def test_halving_the_scale_moves_no_weight(fmt: str) -> None:
    model, geometry, optimizer = build(fmt)
    with torch.no_grad():
        snapped = geometry.value(geometry.rung(model.weight))
        largest = geometry.format.max_finite * geometry.scale()
        model.weight.copy_(torch.where(snapped.abs() > largest / 2, 0.0, snapped))
        model.weight[0, 0] = geometry.value(geometry.rung(largest / 2 * 0.99))
    scale, before = geometry.scale().clone(), model.weight.detach().clone()
    forward(model)
    assert geometry.scale() <= scale / 2
    optimizer.param_groups[0]["lr"] = 0.0
    model.weight.grad = torch.randn(model.weight.shape)
    optimizer.step()
    assert torch.equal(model.weight, before)


def test_nan_is_not_healed() -> None:
    model, _, optimizer = build()
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    model.weight.grad = torch.zeros_like(model.weight)
    optimizer.step()
    assert model.weight[0, 0].isnan()
    model, _, optimizer = build()
    model.weight.grad = torch.full_like(model.weight, torch.nan)
    optimizer.step()
    assert model.weight.isnan().all()


def test_parameters_on_no_grid_are_updated_by_adamw() -> None:
    model, _, optimizer = build(weight_decay=0.1)
    twin = nn.Parameter(model.bias.detach().clone())
    other = torch.optim.AdamW([twin], lr=1e-3, weight_decay=0.0, fused=True)
    for _ in range(3):
        model.bias.grad = torch.randn(model.bias.shape)
        twin.grad = model.bias.grad.clone()
        optimizer.step()
        other.step()
    assert torch.equal(model.bias, twin)


def test_only_the_given_generator_is_used_and_decides() -> None:
    results = []
    for seed in (7, 7, 8):
        model, _, optimizer = build(lr=1e-3)
        optimizer.generator.manual_seed(seed)
        torch.manual_seed(seed * 100)
        model.weight.grad = torch.linspace(-1, 1, model.weight.numel()).view_as(model.weight)
        optimizer.step()
        results.append(model.weight.detach())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


class OwnScales:
    """The geometry of a weight of which every row, or every element, has a scale of its own."""

    def __init__(self, parameter: nn.Parameter, fmt: Format, scale: Tensor) -> None:
        self.name, self.parameter, self.format, self._scale = "w", parameter, fmt, scale

    def scale(self) -> Tensor:
        return self._scale

    def ulp(self, weight: Tensor) -> Tensor:
        return self.format.ulp(weight / self._scale) * self._scale

    def rung(self, weight: Tensor) -> Tensor:
        return self.format.to_rung(weight / self._scale)

    def value(self, rungs: Tensor) -> Tensor:
        return self.format.from_rung(rungs) * self._scale


@pytest.mark.parametrize("fmt", LADDER)
@pytest.mark.parametrize("shape", [(30, 1), (30, 20)])
def test_scales_may_differ_within_a_weight(fmt: str, shape: tuple[int, int]) -> None:
    """Scales enter by broadcasting alone, in the gap beyond the last rung, too."""
    generator = torch.Generator().manual_seed(3)
    scale = torch.exp2(torch.randint(-6, 2, shape, generator=generator).float())
    format_ = load_format(fmt)
    rungs = format_.to_rung(torch.randn(30, 20, generator=generator) * format_.max_finite / 4)
    last = int(format_.to_rung(torch.tensor(format_.max_finite)))
    rungs[:, 0], rungs[:, 1] = last, -last
    parameter = nn.Parameter(format_.from_rung(rungs) * scale)
    geometry = OwnScales(parameter, format_, scale)
    gaps, before = geometry.ulp(parameter.detach()), parameter.detach().clone()
    assert gaps[:, 0].unique().numel() > 4
    settings = GridOptimSettings(rungs_per_lr=1e9, max_rungs=1.0, weight_decay=0.0)
    optimizer = GridOptimPlugin(settings).build(
        [{"params": [parameter]}],
        {parameter: geometry},
        learning_rate=1.0,
        generator=torch.Generator().manual_seed(7),
    )
    parameter.grad = torch.randn(30, 20, generator=generator).sign() / gaps
    parameter.grad[:, 0], parameter.grad[:, 1] = -1 / gaps[:, 0], 1 / gaps[:, 1]
    optimizer.step()
    after = parameter.detach()
    # every weight has gone one rung of its own grid, and those at the ends one gap beyond it
    assert torch.equal(after[:, 0], before[:, 0] + gaps[:, 0])
    assert torch.equal(after[:, 1], before[:, 1] - gaps[:, 1])
    inside = rungs.abs() < last
    moved = geometry.rung(after) - rungs
    assert torch.equal(moved[inside], -parameter.grad.sign().int()[inside])
    assert torch.equal(geometry.value(geometry.rung(after))[inside], after[inside])


@pytest.mark.parametrize("fmt", ["e7m0", "bf16"])
def test_it_trains_on_every_kind_of_grid(fmt: str) -> None:
    check_optimizer(GridOptimPlugin(GridOptimSettings()), fmt=load_format(fmt))
