"""What follows from the formulas: which optimizers are the same one in other coordinates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_plugins.optimizers.adamw import AdamWPlugin
from altgrad_plugins.optimizers.manifold import ManifoldAdamWPlugin
from altgrad_plugins.optimizers.settings import (
    AdamWSettings,
    ManifoldAdamWSettings,
    SGDSettings,
)
from altgrad_plugins.optimizers.sgd import SGDPlugin

LADDER = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]
LR = 2.0**-7


def walk(
    plugin: OptimizerPlugin,
    starts: list[Tensor],
    geometry: Any,
    lr: float = LR,
    count: int = 8,
) -> list[Tensor]:
    """Where ``starts`` are after some steps with random gradients of very different sizes."""
    params = [nn.Parameter(start.clone()) for start in starts]
    optimizer = plugin.build(
        [{"params": params}],
        {p: geometry(p, number) for number, p in enumerate(params)},
        learning_rate=lr,
        generator=torch.Generator(),
    )
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        for p in params:
            size = torch.exp2(torch.randint(-9, 3, p.shape, generator=generator).float())
            p.grad = size * torch.randn(p.shape, generator=generator)
        optimizer.step()
    return [p.detach() for p in params]


class Stub:
    """A geometry with a given stiffness."""

    def __init__(self, parameter: nn.Parameter, stiffness: Tensor) -> None:
        self.name, self.parameter, self.format = "w", parameter, load_format("e5m2")
        self.stiffness = stiffness

    def scale(self) -> Tensor:
        return torch.ones(())

    def ulp(self, weight: Tensor) -> Tensor:
        return self.stiffness.expand_as(weight).clone()

    def rung(self, weight: Tensor) -> Tensor:
        return self.format.to_rung(weight)

    def value(self, rungs: Tensor) -> Tensor:
        return self.format.from_rung(rungs)


def adamw(**settings: Any) -> AdamWPlugin:
    return AdamWPlugin(AdamWSettings(**settings))


def manifold(**settings: Any) -> ManifoldAdamWPlugin:
    settings = {"normalize": "none", "track_position": False, **settings}
    return ManifoldAdamWPlugin(ManifoldAdamWSettings(**settings))


def starts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 5, generator=generator) * size for size in (1.0, 0.1)]


@pytest.mark.parametrize("implementation", ["fused", "foreach", "loop"])
def test_adam_divides_a_frozen_stiffness_at_site_pre_out_again(implementation: str) -> None:
    """Whatever S is, as long as it stays: eps = 0 makes Adam(S·g) = Adam(g).

    Bit for bit where each S is a power of two, since such factors leave no rounding error.
    """

    def frozen(parameter: nn.Parameter, number: int) -> Stub:
        generator = torch.Generator().manual_seed(number)
        exponents = torch.randint(-9, 9, parameter.shape, generator=generator)
        return Stub(parameter, torch.exp2(exponents.float()))

    common = {"eps": 0.0, "weight_decay": 0.1, "implementation": implementation}
    expected = walk(adamw(**common), starts(), frozen)
    for found, other in zip(
        walk(manifold(site="pre", **common), starts(), frozen), expected, strict=True
    ):
        assert torch.equal(found, other)
    for found, other in zip(
        walk(manifold(site="pre", normalize="rms", **common), starts(), frozen),
        expected,
        strict=True,
    ):
        torch.testing.assert_close(found, other, rtol=1e-6, atol=1e-7)
    # what is left of S at site pre: eps, and changes of S
    with_eps = {**common, "eps": 1e-2}
    found, other = (
        walk(plugin, starts(), frozen)[0]
        for plugin in (manifold(site="pre", **with_eps), adamw(**with_eps))
    )
    assert not torch.allclose(found, other, rtol=1e-3)


@pytest.mark.parametrize("eps", [0.0, 1e-3])
@pytest.mark.parametrize("site", ["pre", "post", "both"])
@pytest.mark.parametrize("implementation", ["fused", "foreach", "loop"])
def test_manifold_adamw_on_e0m7_is_adamw_at_another_learning_rate(
    site: str, eps: float, implementation: str
) -> None:
    """There S is scale / 128 everywhere. The outer S multiplies the learning rate, and divides the
    weight decay, whose product with it stays. The inner S divides eps; with eps = 0 it cancels.
    """
    start = starts()[0]
    model = nn.Linear(5, 6)
    with torch.no_grad():
        model.weight.copy_(start)
    quantize_model(model, load_format("e0m7"))
    model(torch.zeros(1, 5))
    (geometry,) = weight_geometry(model).values()
    stiffness = geometry.scale().item() / 128
    assert stiffness < 0.1
    assert torch.equal(geometry.ulp(start), torch.full_like(start, stiffness))

    inner = stiffness if site in ("pre", "both") else 1.0
    outer = stiffness if site in ("post", "both") else 1.0
    common = {"weight_decay": 0.1, "implementation": implementation}
    plugin = manifold(site=site, eps=eps, **common)
    (found,) = walk(plugin, [start], lambda p, _: geometry, LR)
    common["weight_decay"] = 0.1 / outer
    twin = adamw(eps=eps / inner, **common)
    (expected,) = walk(twin, [start], lambda p, _: geometry, LR * outer)
    torch.testing.assert_close(found, expected, rtol=2e-6, atol=1e-8)
    if site != "pre" or eps:  # and it is not AdamW at the same one
        (same,) = walk(adamw(eps=eps, **common), [start], lambda p, _: geometry, LR)
        assert (found - same).abs().max() > 1e-3


class Ladder:
    """The grid of one format as a broken line through its values, over real-valued rungs."""

    def __init__(self, fmt: str, scale: float) -> None:
        self.format = load_format(fmt)
        top = int(self.format.to_rung(torch.tensor(self.format.max_finite)))
        rungs = torch.arange(-top, top + 1, dtype=torch.int32)
        self.top, self.values = top, self.format.from_rung(rungs).double() * scale

    def weight(self, k: Tensor) -> Tensor:
        low = k.detach().floor()
        index = low.long() + self.top
        gap = self.values[index + 1] - self.values[index]
        return self.values[index] + (k - low) * gap

    def gap(self, k: Tensor) -> Tensor:
        index = k.floor().long() + self.top
        return self.values[index + 1] - self.values[index]


def positions(ladder: Ladder) -> Tensor:
    """Places strictly between two rungs, all along the upper ladder and on both sides of zero."""
    generator = torch.Generator().manual_seed(0)
    rungs = torch.randint(-min(ladder.top, 12), min(ladder.top, 12), (8, 6), generator=generator)
    rungs = torch.where(rungs < 0, rungs - ladder.top + 12, rungs + ladder.top - 12)
    k = rungs + 0.4 + 0.2 * torch.rand(8, 6, generator=generator, dtype=torch.float64)
    k[0, 0] = ladder.top - 0.5  # so that the scale is what it is meant to be
    return k


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("fmt", LADDER)
def test_sgd_with_the_stiffness_squared_is_sgd_in_rungs(fmt: str, momentum: float) -> None:
    """Site both, not normalised: Δw = −lr·S²·g is the step dk = −lr·dL/dk, seen in weights.

    The witness knows no stiffness: torch's SGD moves real-valued rungs in float64, and the loss
    sees the weight through the broken line. No weight leaves its gap, so S stays.
    """
    scale, lr = 2.0**-3, LR if momentum else 2 * LR
    ladder = Ladder(fmt, scale)
    start = positions(ladder)
    per_gap = 1 / ladder.gap(start)  # keeps every weight's gradient in rungs of one size
    tilt = torch.randn(8, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss(weight: Tensor) -> Tensor:
        return (tilt * (weight * per_gap).sin()).sum()

    rungs = start.clone().requires_grad_()
    witness = torch.optim.SGD([rungs], lr=lr, momentum=momentum)

    model = nn.Linear(6, 8, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(ladder.weight(start))
    quantize_model(model, load_format(fmt))
    model(torch.zeros(1, 6, dtype=torch.float64))
    geometry: WeightGeometry = weight_geometry(model)["weight"]
    assert geometry.scale() == scale
    settings = SGDSettings(site="both", normalize="none", momentum=momentum)
    optimizer = SGDPlugin(settings).build(
        [{"params": [model.weight]}],
        {model.weight: geometry},
        learning_rate=lr,
        generator=torch.Generator(),
    )
    for number in range(5):
        for leaf, weight, opt in (
            (rungs, ladder.weight(rungs), witness),
            (model.weight, model.weight, optimizer),
        ):
            leaf.grad = None
            loss(weight).backward()
            if number == 0 and leaf is model.weight:
                square = geometry.ulp(model.weight.detach()) ** 2
                first = model.weight.detach() - lr * square * model.weight.grad
            opt.step()
        if number == 0:  # in so many words
            torch.testing.assert_close(model.weight.detach(), first, rtol=1e-14, atol=0)
    assert torch.equal(rungs.detach().floor(), start.floor())
    moved = (rungs.detach() - start).abs()
    assert moved.max() > 0.01
    found = (model.weight.detach() - ladder.weight(start)) / ladder.gap(start)
    torch.testing.assert_close(found, rungs.detach() - start, rtol=1e-9, atol=1e-11)
