"""``manifold_adamw``: where it must be AdamW, bit for bit, and against float64 where it must not."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.quantization.geometry import latent_position, weight_geometry
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_plugins.optimizers.adamw import AdamWPlugin
from altgrad_plugins.optimizers.manifold import ManifoldAdamW, ManifoldAdamWPlugin
from altgrad_plugins.optimizers.settings import AdamWSettings, ManifoldAdamWSettings
from altgrad_plugins.optimizers.stiffness import textbook_stiffness

LR = 1e-3


class Run:
    """A quantised network of three layers, one of them on no grid, and an optimizer."""

    def __init__(
        self,
        plugin: Any,
        fmt: str | Format = "e5m2",
        scaling: ScalingSettings | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(7, 33), nn.Tanh(), nn.Linear(33, 9), nn.Linear(9, 3))
        self.model.to(dtype)
        format_ = load_format(fmt) if isinstance(fmt, str) else fmt
        quantize_model(self.model, format_, overrides=[("3", None)], scaling=scaling)
        self.model(torch.zeros(1, 7, dtype=dtype))
        self.geometry: dict[nn.Parameter, WeightGeometry] = {
            g.parameter: g for g in weight_geometry(self.model).values()
        }
        groups = [
            {"params": [p for p in self.model.parameters() if p.dim() == 2]},
            {"params": [p for p in self.model.parameters() if p.dim() == 1], "weight_decay": 0.0},
        ]
        self.optimizer = plugin.build(
            groups, self.geometry, learning_rate=LR, generator=torch.Generator()
        )
        self.data = torch.Generator().manual_seed(3)
        self.dtype = dtype

    def steps(self, count: int) -> Run:
        for number in range(count):
            for group in self.optimizer.param_groups:
                group["lr"] = LR / (1 + number)
            x = torch.randn(5, 7, generator=self.data).to(self.dtype)
            self.optimizer.zero_grad()
            self.model(x).sin().sum().backward()
            self.optimizer.step()
        return self

    def weights(self) -> list[Tensor]:
        return [p.detach() for p in self.model.parameters()]


def manifold(**settings: Any) -> ManifoldAdamWPlugin:
    return ManifoldAdamWPlugin(ManifoldAdamWSettings(**settings))


def adamw(**settings: Any) -> AdamWPlugin:
    return AdamWPlugin(AdamWSettings(**settings))


def assert_same(a: Run, b: Run) -> None:
    for x, y in zip(a.weights(), b.weights(), strict=True):
        assert torch.equal(x, y)


def assert_different(a: Run, b: Run) -> None:
    for p, q in zip(a.geometry, b.geometry, strict=True):
        assert not torch.equal(p, q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("implementation", ["auto", "foreach", "loop"])
@pytest.mark.parametrize("off", [{"enabled": False}, {"site": "none"}])
def test_switched_off_it_is_adamw_bit_for_bit(
    dtype: torch.dtype, implementation: str, off: dict[str, Any]
) -> None:
    common = {"implementation": implementation, "weight_decay": 0.1}
    ours = Run(manifold(**off, **common), dtype=dtype).steps(6)
    assert_same(ours, Run(adamw(**common), dtype=dtype).steps(6))
    on = Run(manifold(**common), dtype=dtype).steps(6)
    assert_different(ours, on)


@pytest.mark.parametrize("site", ["pre", "post", "both"])
@pytest.mark.parametrize("power_of_two", [True, False])
@pytest.mark.parametrize("implementation", ["fused", "foreach", "loop"])
@pytest.mark.parametrize("fmt", ["e0m7", "e1m6"])
def test_on_a_uniform_grid_it_is_adamw_bit_for_bit(
    site: str, power_of_two: bool, implementation: str, fmt: str
) -> None:
    """The gap is the same everywhere, so S, normalised, is exactly 1."""
    scaling = ScalingSettings(power_of_two=power_of_two)
    common = {"implementation": implementation, "weight_decay": 0.1}
    ours = Run(manifold(site=site, **common), fmt, scaling).steps(6)
    assert_same(ours, Run(adamw(**common), fmt, scaling).steps(6))


@pytest.mark.parametrize("site", ["pre", "post", "both"])
@pytest.mark.parametrize("power_of_two", [True, False])
@pytest.mark.parametrize("normalize", ["rms", "none"])
def test_the_a_a_pair_trains_alike(site: str, power_of_two: bool, normalize: str) -> None:
    plugin = manifold(site=site, normalize=normalize)
    scaling = ScalingSettings(power_of_two=power_of_two)
    runs = [Run(plugin, fmt, scaling).steps(8) for fmt in ("e0m7", "e1m6")]
    assert_same(*runs)
    for a, b in zip(runs[0].geometry.values(), runs[1].geometry.values(), strict=True):
        assert torch.equal(a.rung(a.parameter), b.rung(b.parameter))


def test_parameters_on_no_grid_are_updated_by_adamw() -> None:
    for site in ("pre", "post", "both"):
        ours, theirs = Run(manifold(site=site)).steps(1), Run(adamw()).steps(1)
        for p, q in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
            assert torch.equal(p, q) == (p not in ours.geometry)


class Frozen:
    """A geometry whose stiffness never changes: a different power of two for every weight."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.name, self.parameter, self.format = "w", parameter, load_format("e5m2")
        exponents = torch.randint(
            -9, 9, parameter.shape, generator=torch.Generator().manual_seed(5)
        )
        self.stiffness = torch.exp2(exponents.float())

    def scale(self) -> Tensor:
        return torch.ones(())

    def ulp(self, weight: Tensor) -> Tensor:
        return self.stiffness.clone()

    def rung(self, weight: Tensor) -> Tensor:
        return self.format.to_rung(weight)

    def value(self, rungs: Tensor) -> Tensor:
        return self.format.from_rung(rungs)


def reference(
    weight: Tensor, grads: list[Tensor], stiffness: Tensor, site: str, settings: Any
) -> np.ndarray[Any, Any]:
    """The formulas in float64, for a frozen stiffness."""
    w, s = weight.double().numpy().copy(), stiffness.double().numpy()
    m, v = np.zeros_like(w), np.zeros_like(w)
    b1, b2 = settings.betas
    for t, grad in enumerate(grads, 1):
        g = grad.double().numpy() * (s if site in ("pre", "both") else 1)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        step = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + settings.eps)
        w = w * (1 - 0.01 * settings.weight_decay)
        w = w - 0.01 * step * (s if site in ("post", "both") else 1)
    return w


@pytest.mark.parametrize("site", ["none", "pre", "post", "both"])
@pytest.mark.parametrize("limit", [None, 1.5])
def test_every_site_matches_float64(site: str, limit: float | None) -> None:
    settings = ManifoldAdamWSettings(
        site=site, eps=1e-3, weight_decay=0.1, betas=(0.8, 0.9), max_stiffness=limit
    )  # type: ignore[arg-type]
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(6, 5))
    geometry = Frozen(parameter)
    stiffness = geometry.stiffness / geometry.stiffness.square().mean().sqrt()
    if limit is not None:
        assert (stiffness > limit).any()
        stiffness = stiffness.clamp(max=limit)
    grads = [torch.randn(6, 5) for _ in range(5)]
    expected = reference(parameter.detach(), grads, stiffness, site, settings)
    optimizer = ManifoldAdamW([{"params": [parameter]}], {parameter: geometry}, settings, 0.01)
    for grad in grads:
        parameter.grad = grad.clone()
        optimizer.step()
        assert torch.equal(parameter.grad, grad)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("fmt", ["e3m4", "e5m2", "e7m0", "bf16"])
def test_stiffness_is_the_gap_of_the_grid_with_rms_one(fmt: str) -> None:
    run = Run(manifold(), fmt)
    for parameter, geometry in run.geometry.items():
        (found,) = run.optimizer.stiffness([parameter])
        gaps = geometry.ulp(parameter.detach()).double()
        torch.testing.assert_close(found.double(), gaps / gaps.square().mean().sqrt())
        assert found.square().mean().sqrt() == pytest.approx(1)


@pytest.mark.parametrize("fmt", ["e7m0", "e5m2", "bf16", "fp32"])
def test_weights_that_are_all_zero_train(fmt: str) -> None:
    run = Run(manifold(), fmt)
    with torch.no_grad():
        for parameter in run.geometry:
            parameter.zero_()
    run.steps(3)
    assert all(w.isfinite().all() for w in run.weights())
    last = list(run.geometry)[-1]  # behind a layer of zeros, the first gets no gradient
    assert last.detach().count_nonzero() == 0 or last.detach().abs().max() > LR / 4


def test_a_nan_gradient_shows_in_the_weights() -> None:
    run = Run(manifold())
    for parameter in run.model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    run.optimizer.step()
    assert all(w.isnan().all() for w in run.weights())


@pytest.mark.parametrize(
    ("fmt", "bits"), [("e0m7", 7), ("e3m4", 4), ("e7m0", 0), ("bf16", 7), ("fp32", 23)]
)
def test_textbook_stiffness_works_with_the_built_in_formats(fmt: str, bits: int) -> None:
    run = Run(manifold(stiffness="textbook", normalize="none"), fmt)
    for parameter in run.geometry:
        (found,) = run.optimizer.stiffness([parameter])
        assert torch.equal(found, textbook_stiffness(parameter.detach(), bits))


class WithMantissa(Format):
    """A format that says how many mantissa bits it has."""

    name, bits, mantissa_bits = "e5m2", 8, 2

    def code_values(self) -> Tensor:
        return load_format("e5m2").code_values()


def test_textbook_stiffness_is_a_power_of_two_below_the_weight() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1000, generator=generator) * torch.exp2(
        torch.randint(-60, 60, (1000,), generator=generator).float()
    )
    expected = np.exp2(np.frexp(weight.abs().double().numpy())[1] - 1 - 3.0)
    assert torch.equal(textbook_stiffness(weight, 3).double(), torch.from_numpy(expected))
    edge = textbook_stiffness(torch.tensor([0.0, 1.0, 2.0, -2.0, 1e-40]), 0)
    assert edge.tolist() == [2.0**-126, 1, 2, 2, 2.0**-126]


def test_textbook_stiffness_ignores_scale_and_subnormals() -> None:
    plugin = manifold(stiffness="textbook", normalize="none")
    run = Run(plugin, WithMantissa())
    for parameter, geometry in run.geometry.items():
        (found,) = run.optimizer.stiffness([parameter])
        assert torch.equal(found, textbook_stiffness(parameter.detach(), 2))
        grid = geometry.ulp(parameter.detach())
        normal = parameter.detach().abs() >= 2.0**-14 * geometry.scale()
        assert torch.equal(found[normal], grid[normal])


class WithoutMantissa(WithMantissa):
    mantissa_bits = None  # type: ignore[assignment]


def test_textbook_needs_mantissa_bits() -> None:
    with pytest.raises(UserError, match=r"textbook needs .* 'e5m2' of 0\.weight"):
        Run(manifold(stiffness="textbook"), WithoutMantissa())
    Run(manifold(stiffness="grid"), WithoutMantissa())


@pytest.mark.parametrize(
    ("fmt", "dtype"), [("e5m2", torch.int16), ("e0m7", torch.int16), ("bf16", torch.int32)]
)
def test_positions_and_drift(fmt: str, dtype: torch.dtype) -> None:
    run = Run(manifold(), fmt)
    parameter, geometry = next(iter(run.geometry.items()))
    before = latent_position(geometry, parameter.detach())
    assert torch.equal(run.optimizer.bit_position(parameter), before)
    assert not run.optimizer.bit_drift(parameter).any()
    run.steps(5)
    after = latent_position(geometry, parameter.detach())
    assert torch.equal(run.optimizer.bit_position(parameter), after)
    drift = run.optimizer.bit_drift(parameter)
    assert drift.abs().max() > 0.05
    torch.testing.assert_close(drift, after - before, rtol=0, atol=1 / 512 + 1e-4)
    assert run.optimizer.state[parameter]["start_position"].dtype == dtype


def test_positions_of_fp32_lose_nothing() -> None:
    run = Run(manifold(), "fp32")
    parameter, geometry = next(iter(run.geometry.items()))
    before = geometry.rung(parameter.detach()).double()
    run.steps(2)
    drift = run.optimizer.bit_drift(parameter)
    assert torch.equal(drift, geometry.rung(parameter.detach()).double() - before)


def test_positions_cost_nothing_when_they_are_not_tracked() -> None:
    run = Run(manifold(track_position=False)).steps(1)
    parameter = next(iter(run.geometry))
    assert set(run.optimizer.state[parameter]) == {"step", "exp_avg", "exp_avg_sq"}
    run.optimizer.bit_position(parameter)
    with pytest.raises(KeyError, match="track_position"):
        run.optimizer.bit_drift(parameter)
    with pytest.raises(KeyError):
        run.optimizer.bit_position(run.model[3].weight)


@pytest.mark.parametrize("fmt", ["e5m2", "bf16", "fp32"])
def test_a_restart_is_bit_identical_and_keeps_the_start(fmt: str) -> None:
    whole, first = Run(manifold(), fmt), Run(manifold(), fmt)
    whole.steps(3)
    first.steps(3)
    file = io.BytesIO()
    torch.save((first.model.state_dict(), first.optimizer.state_dict()), file)
    file.seek(0)
    second = Run(manifold(), fmt)
    model_state, optimizer_state = torch.load(file, weights_only=True)
    second.model.load_state_dict(model_state)
    second.optimizer.load_state_dict(copy.deepcopy(optimizer_state))
    second.data.set_state(first.data.get_state())
    for run in (whole, second):
        run.steps(3)
    assert_same(whole, second)
    for p, q in zip(whole.geometry, second.geometry, strict=True):
        assert torch.equal(whole.optimizer.bit_drift(p), second.optimizer.bit_drift(q))


def test_a_closure_is_called_with_gradients_on() -> None:
    run = Run(manifold())

    def closure() -> Tensor:
        loss: Tensor = run.model(torch.ones(2, 7)).sum()
        loss.backward()
        return loss

    before = [w.clone() for w in run.weights()]
    assert torch.is_tensor(run.optimizer.step(closure))
    assert not any(torch.equal(a, b) for a, b in zip(before, run.weights(), strict=True))
