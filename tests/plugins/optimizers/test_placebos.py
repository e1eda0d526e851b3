"""``stiffness: permuted``, ``constant``, ``borrowed``: the numbers of a grid without their meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import parse_suite
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.testing.optimizers import check_optimizer
from altgrad_plugins.optimizers.adamw import AdamWPlugin
from altgrad_plugins.optimizers.manifold import ManifoldAdamWPlugin
from altgrad_plugins.optimizers.placebos import permutation
from altgrad_plugins.optimizers.rms import level_, normalize_rms_
from altgrad_plugins.optimizers.settings import (
    AdamWSettings,
    ManifoldAdamWSettings,
    SGDSettings,
    StiffnessSettings,
)
from altgrad_plugins.optimizers.sgd import SGDPlugin
from altgrad_plugins.optimizers.stiffness import Stiffness

FORMATS = ["e3m4", "e5m2", "e7m0", "bf16"]
SITES = ["pre", "post", "both"]


class Run:
    """Two quantised layers with weights of one shape, and an optimizer."""

    def __init__(self, plugin: OptimizerPlugin, fmt: str = "e5m2") -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 12))
        quantize_model(self.model, load_format(fmt))
        self.model(torch.zeros(1, 12))
        self.geometry: dict[nn.Parameter, WeightGeometry] = {
            g.parameter: g for g in weight_geometry(self.model).values()
        }
        self.generator = torch.Generator().manual_seed(11)
        self.optimizer: Any = plugin.build(
            [{"params": list(self.model.parameters())}],
            self.geometry,
            learning_rate=0.01,
            generator=self.generator,
        )
        self.data = torch.Generator().manual_seed(3)

    def steps(self, count: int) -> Run:
        for _ in range(count):
            self.optimizer.zero_grad()
            self.model(torch.randn(5, 12, generator=self.data)).sin().sum().backward()
            self.optimizer.step()
        return self

    def weights(self) -> list[Tensor]:
        return [p.detach() for p in self.model.parameters()]

    def stiffness(self, **settings: Any) -> list[Tensor]:
        return Stiffness(StiffnessSettings(**settings), self.geometry)(list(self.geometry))


def manifold(**settings: Any) -> ManifoldAdamWPlugin:
    return ManifoldAdamWPlugin(ManifoldAdamWSettings(**settings))


def same(a: Run, b: Run) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.weights(), b.weights(), strict=True))


@pytest.mark.parametrize("fmt", FORMATS)
def test_permuted_has_the_values_of_the_grid_in_another_order(fmt: str) -> None:
    run = Run(manifold(), fmt)
    pairs = zip(
        run.stiffness(stiffness="grid", normalize="none"),
        run.stiffness(stiffness="permuted", normalize="none"),
        run.stiffness(stiffness="permuted", normalize="rms"),
        strict=True,
    )
    for grid, permuted, normalised in pairs:
        assert permuted.shape == grid.shape
        assert torch.equal(permuted.flatten().sort().values, grid.flatten().sort().values)
        assert (permuted != grid).float().mean() > 0.3
        size = permuted.double().square().mean().sqrt()
        torch.testing.assert_close(normalised.double(), permuted.double() / size)


def test_a_permutation_belongs_to_a_name() -> None:
    first = permutation("encoder.0.weight", 500)
    assert first.dtype == torch.int32
    assert torch.equal(first.sort().values, torch.arange(500, dtype=torch.int32))
    assert (first == torch.arange(500)).sum() < 10
    assert torch.equal(first, permutation("encoder.0.weight", 500))
    assert (first == permutation("encoder.1.weight", 500)).sum() < 10


def test_two_tensors_of_one_shape_are_shuffled_differently_and_two_runs_alike() -> None:
    plugin = manifold(stiffness="permuted", normalize="none")
    runs = [Run(plugin), Run(plugin)]
    torch.manual_seed(99)  # must not matter
    for run in runs:
        for weight in run.geometry:  # the same numbers in both layers, all of different S
            with torch.no_grad():
                weight.copy_(torch.exp2(torch.arange(144.0) / 10 - 12).view(12, 12))
    one, other = (run.optimizer.stiffness(list(run.geometry)) for run in runs)
    assert torch.equal(one[0], other[0])
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[0].flatten().sort().values, one[1].flatten().sort().values)
    assert not torch.equal(one[0], one[1])


def test_the_permutation_is_the_same_in_every_process() -> None:
    """Each process has another ``hash()``, and this was found by an earlier one."""
    expected = [3, 16, 5, 7, 4, 15, 19, 14, 9, 12, 17, 8, 2, 1, 11, 13, 0, 10, 18, 6]
    assert permutation("a.weight", 20).tolist() == expected


def test_the_permutation_stays_while_the_values_move() -> None:
    run = Run(manifold(stiffness="permuted", normalize="none"))
    before = run.stiffness(normalize="none")
    run.steps(40)
    after = run.stiffness(normalize="none")
    found = run.optimizer.stiffness(list(run.geometry))
    for (weight, geometry), old, new, permuted in zip(
        run.geometry.items(), before, after, found, strict=True
    ):
        assert not torch.equal(old, new)
        index = permutation(geometry.name, weight.numel()).long()
        assert torch.equal(permuted.flatten(), new.flatten()[index])


def test_no_generator_is_touched_and_no_state_is_added() -> None:
    run = Run(manifold(stiffness="permuted"))
    given, own = run.generator.get_state(), torch.get_rng_state()
    run.steps(2)
    assert torch.equal(given, run.generator.get_state())
    assert torch.equal(own, torch.get_rng_state())
    grid = Run(manifold()).steps(2)
    for p, q in zip(run.geometry, grid.geometry, strict=True):
        assert set(run.optimizer.state[p]) == set(grid.optimizer.state[q])


@pytest.mark.parametrize("site", SITES)
def test_permuted_trains_otherwise_than_the_grid_and_adamw(site: str) -> None:
    permuted = Run(manifold(site=site, stiffness="permuted", eps=1e-3)).steps(5)
    assert not same(permuted, Run(manifold(site=site, eps=1e-3)).steps(5))
    assert not same(permuted, Run(AdamWPlugin(AdamWSettings(eps=1e-3))).steps(5))
    assert same(permuted, Run(manifold(site=site, stiffness="permuted", eps=1e-3)).steps(5))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("stiffness", ["permuted", "constant"])
def test_on_a_uniform_grid_both_are_the_grid(site: str, stiffness: str) -> None:
    for normalize in ("rms", "none"):
        common = {"site": site, "normalize": normalize}
        found = Run(manifold(stiffness=stiffness, **common), "e0m7").steps(4)
        assert same(found, Run(manifold(**common), "e0m7").steps(4))


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("implementation", ["fused", "foreach", "loop"])
@pytest.mark.parametrize("fmt", FORMATS)
def test_constant_is_adamw_bit_for_bit(site: str, implementation: str, fmt: str) -> None:
    common = {"implementation": implementation, "weight_decay": 0.1}
    found = Run(manifold(site=site, stiffness="constant", **common), fmt).steps(6)
    assert same(found, Run(AdamWPlugin(AdamWSettings(**common)), fmt).steps(6))  # type: ignore[arg-type]
    assert not same(found, Run(manifold(site=site, **common), fmt).steps(6))


@pytest.mark.parametrize("fmt", FORMATS)
def test_constant_has_the_size_of_the_grid(fmt: str) -> None:
    run = Run(manifold(), fmt)
    pairs = zip(
        run.stiffness(normalize="none"),
        run.stiffness(stiffness="constant", normalize="none"),
        run.stiffness(stiffness="constant"),
        strict=True,
    )
    for grid, constant, normalised in pairs:
        size = np.sqrt((grid.double().numpy() ** 2).mean())
        assert (constant == constant[0, 0]).all()
        assert constant[0, 0].item() == pytest.approx(size, rel=1e-6)
        assert (normalised == 1).all()


def test_levelling_and_normalising_neither_underflow_nor_bend_what_is_constant() -> None:
    tiny = torch.tensor([3.0, 4.0]) * 2.0**-110
    level_([tiny])
    torch.testing.assert_close(tiny * 2.0**110, torch.full((2,), 12.5**0.5))
    for size in (1, 3, 1000, 12345):
        constant, ones = torch.full((size,), 0.3), torch.full((size,), 0.3)
        level_([constant])
        normalize_rms_([ones])
        assert torch.equal(constant, torch.full((size,), 0.3))
        assert torch.equal(ones, torch.ones(size))


@pytest.mark.parametrize(
    ("stiffness", "one", "other"), [("permuted", "e5m2", "bf16"), ("constant", "bf16", "e5m2")]
)
def test_placebos_keep_the_contract(stiffness: Any, one: str, other: str) -> None:
    """Restarts among it: the second optimizer draws its permutations anew."""
    check_optimizer(manifold(stiffness=stiffness), fmt=load_format(one))
    sgd = SGDPlugin(SGDSettings(site="both", stiffness=stiffness))
    check_optimizer(sgd, fmt=load_format(other), learning_rate=0.03)


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_restart_is_bit_identical(fmt: str) -> None:
    plugin = manifold(stiffness="permuted")
    whole, second = Run(plugin, fmt).steps(6), Run(plugin, fmt)
    first = Run(plugin, fmt).steps(3)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.data.set_state(first.data.get_state())
    assert same(whole, second.steps(3))


def borrowing(fmt: Any, **settings: Any) -> ManifoldAdamWSettings:
    return ManifoldAdamWSettings(stiffness="borrowed", borrowed_format=fmt, **settings)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    "borrowed",
    ["e0m7", "e3m4", "e5m2", "e7m0", {"name": "exmy", "exponent_bits": 3, "mantissa_bits": 2}],
)
def test_borrowed_gaps_are_those_of_the_format_that_lends_them(site: Any, borrowed: Any) -> None:
    """With the same weights and gradients, fp32 weights take the steps of masters of that format."""
    name, more = (borrowed, {}) if isinstance(borrowed, str) else (borrowed["name"], borrowed)
    lent = load_format(name, **{k: v for k, v in more.items() if k != "name"})
    moved = []
    for fmt, settings in (
        (load_format("fp32"), borrowing(borrowed, site=site, track_position=False)),
        (lent, ManifoldAdamWSettings(site=site, track_position=False)),
    ):
        torch.manual_seed(0)
        model = nn.Linear(12, 12, bias=False)
        quantize_model(model, fmt)
        model(torch.zeros(1, 12))
        geometry = {g.parameter: g for g in weight_geometry(model).values()}
        optimizer = ManifoldAdamWPlugin(settings).build(
            [{"params": [model.weight]}],
            geometry,
            learning_rate=0.01,
            generator=torch.Generator(),
        )
        for step in range(5):
            model(torch.zeros(1, 12))  # a master's scale follows its weights here
            noise = torch.Generator().manual_seed(step)
            model.weight.grad = torch.randn(12, 12, generator=noise)
            optimizer.step()
        moved.append(model.weight.detach())
    assert torch.equal(*moved)


def test_borrowed_gaps_on_a_uniform_grid_change_nothing() -> None:
    lent = Run(ManifoldAdamWPlugin(borrowing("e0m7")), "fp32").steps(3)
    plain = Run(AdamWPlugin(AdamWSettings()), "fp32").steps(3)
    for one, other in zip(lent.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("settings", [{"stiffness": "borrowed"}, {"borrowed_format": "e5m2"}])
def test_borrowing_needs_a_format_and_a_format_needs_borrowing(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="go together"):
        ManifoldAdamWSettings(**settings)


def test_a_format_that_a_setting_names_is_looked_up_while_planning() -> None:
    text = """
name: t
data: {dataset: license_rules}
quantization: {format: bf16}
optimizer: {type: manifold_adamw, stiffness: borrowed, borrowed_format: e5m3}
"""
    with pytest.raises(UserError, match=r"optimizer\.borrowed_format.*e5m3.*e5m2"):
        plan_suite(parse_suite(text, "t.yaml", Path()))
