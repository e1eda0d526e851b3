"""``sgd``: torch's SGD bit for bit, and against float64 where the stiffness enters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.testing.optimizers import UniformFormat, check_optimizer
from altgrad_plugins.optimizers.settings import SGDSettings
from altgrad_plugins.optimizers.sgd import ManifoldSGD, SGDPlugin

LR = 0.05
KINDS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.1},
    {"momentum": 0.7, "nesterov": True, "weight_decay": 0.1},
]


def network(fmt: str) -> nn.Sequential:
    """Three layers, the last of them on no grid."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 33), nn.Tanh(), nn.Linear(33, 9), nn.Linear(9, 3))
    quantize_model(model, load_format(fmt), overrides=[("3", None)])
    return model


def groups_of(model: nn.Module) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in model.parameters() if p.dim() == 2]},
        {"params": [p for p in model.parameters() if p.dim() == 1], "weight_decay": 0.0},
    ]


def ours(model: nn.Module, lr: float = LR, **settings: Any) -> ManifoldSGD:
    return SGDPlugin(SGDSettings(**settings)).build(
        groups_of(model),
        {g.parameter: g for g in weight_geometry(model).values()},
        learning_rate=lr,
        generator=torch.Generator(),
    )


def theirs(model: nn.Module, **arguments: Any) -> torch.optim.SGD:
    return torch.optim.SGD(groups_of(model), lr=LR, **arguments)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 6) -> list[Tensor]:
    data = torch.Generator().manual_seed(3)
    for number in range(count):
        for group in optimizer.param_groups:
            group["lr"] = LR / (1 + number)
        optimizer.zero_grad()
        model(torch.randn(5, 7, generator=data)).sin().sum().backward()
        if number == 0:  # one parameter starts late
            model.get_parameter("2.weight").grad = None
        grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        optimizer.step()
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            kept = parameter.grad is None if grad is None else torch.equal(parameter.grad, grad)
            assert kept or not isinstance(optimizer, ManifoldSGD)
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("foreach", [None, True])
def test_without_a_site_it_is_torchs_sgd_bit_for_bit(
    kind: dict[str, Any], foreach: bool | None
) -> None:
    """Also with the kernels that torch takes on CUDA; those of nesterov change the gradients."""
    mine, other = network("e5m2"), network("e5m2")
    optimizer = ours(mine, **kind)
    for group in optimizer.param_groups:
        group["foreach"] = foreach
    found = train(mine, optimizer)
    expected = train(other, theirs(other, foreach=foreach, **kind))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    changed = network("e5m2")
    sited = train(changed, ours(changed, site="both", **kind))
    assert not torch.equal(sited[0], found[0])


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("site", ["pre", "post", "both"])
def test_on_a_uniform_grid_every_site_is_torchs_sgd(kind: dict[str, Any], site: str) -> None:
    """S, normalised, is exactly 1; a step that was written down first is rounded once more."""
    mine, other = network("e0m7"), network("e0m7")
    found = train(mine, ours(mine, site=site, **kind))
    expected = train(other, theirs(other, **kind))
    for a, b in zip(found, expected, strict=True):
        if site == "pre":
            assert torch.equal(a, b)
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_parameters_on_no_grid_are_updated_by_torchs_sgd() -> None:
    for site in ("pre", "post", "both"):
        mine, other = network("e5m2"), network("e5m2")
        train(mine, ours(mine, site=site, momentum=0.9), 1)
        train(other, theirs(other, momentum=0.9), 1)
        on_grid = {g.parameter for g in weight_geometry(mine).values()}
        names = set()
        for (name, p), q in zip(mine.named_parameters(), other.parameters(), strict=True):
            if name != "2.weight":  # has not started
                assert torch.equal(p, q) == (p not in on_grid)
                names.add(name)
        assert {"0.weight", "0.bias", "3.weight"} <= names


class Frozen:
    """A geometry whose stiffness never changes."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self.name, self.parameter, self.format = "w", parameter, load_format("e5m2")
        generator = torch.Generator().manual_seed(5)
        self.stiffness = torch.rand(parameter.shape, generator=generator) + 0.1

    def scale(self) -> Tensor:
        return torch.ones(())

    def ulp(self, weight: Tensor) -> Tensor:
        return self.stiffness.to(weight.dtype)

    def rung(self, weight: Tensor) -> Tensor:
        return self.format.to_rung(weight)

    def value(self, rungs: Tensor) -> Tensor:
        return self.format.from_rung(rungs)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("site", ["pre", "post", "both"])
@pytest.mark.parametrize("how", [{"normalize": "none"}, {"max_stiffness": 1.1}], ids=str)
def test_every_site_matches_the_formula(
    kind: dict[str, Any], site: str, how: dict[str, Any]
) -> None:
    settings = SGDSettings(site=site, **how, **kind)  # type: ignore[arg-type]
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(6, 5, dtype=torch.float64))
    geometry = Frozen(parameter)
    s = geometry.stiffness.double().numpy()
    if settings.normalize == "rms":
        s = np.minimum(s / np.sqrt((s**2).mean()), 1.1)
        assert (s == 1.1).any()
        assert (s < 1.1).any()
    inner = s if site in ("pre", "both") else 1.0
    outer = s if site in ("post", "both") else 1.0
    optimizer = ManifoldSGD([{"params": [parameter]}], {parameter: geometry}, settings, LR)
    w, b = parameter.detach().numpy().copy(), None
    for _ in range(5):
        parameter.grad = torch.randn(6, 5, dtype=torch.float64)
        g = inner * (parameter.grad.numpy() + settings.weight_decay * w)
        b = g if b is None else settings.momentum * b + g
        w = w - LR * outer * (g + settings.momentum * b if settings.nesterov else b)
        optimizer.step()
    np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("site", "kind"),
    [("both", KINDS[0]), ("none", KINDS[-1]), ("both", KINDS[-1])],
    ids=str,
)
def test_it_keeps_the_contract(kind: dict[str, Any], site: str) -> None:
    plugin = SGDPlugin(SGDSettings(site=site, **kind))  # type: ignore[arg-type]
    fmt = load_format("e5m2") if site == "both" else UniformFormat()
    check_optimizer(plugin, fmt=fmt, learning_rate=0.05)


def test_a_nan_gradient_shows_in_the_weights() -> None:
    model = network("e5m2")
    optimizer = ours(model, site="both")
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    optimizer.step()
    assert all(p.isnan().all() for p in model.parameters())


def test_textbook_stiffness_asks_for_mantissa_bits_only_where_it_is_used() -> None:
    torch.manual_seed(0)
    model = nn.Linear(7, 9)
    quantize_model(model, UniformFormat())
    ours(model, stiffness="textbook")
    with pytest.raises(UserError, match="mantissa bits"):
        ours(model, stiffness="textbook", site="post")


@pytest.mark.parametrize(
    "wrong", [{"momentum": 1.0}, {"weight_decay": -0.1}, {"nesterov": True}, {"site": "inner"}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SGDSettings(**wrong)
