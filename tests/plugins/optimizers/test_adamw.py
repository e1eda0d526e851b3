"""The offers, and ``adamw`` against torch's own AdamW."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from altgrad_core.testing.optimizers import check_optimizer
from altgrad_plugins.optimizers import altgrad_optimizers
from altgrad_plugins.optimizers.adamw import AdamWPlugin
from altgrad_plugins.optimizers.settings import AdamWSettings, ManifoldAdamWSettings


def test_the_offers_do_not_import_torch() -> None:
    code = (
        "import sys, altgrad_plugins.optimizers as o\n"
        "assert [x.name for x in o.altgrad_optimizers()] == "
        "['adamw', 'manifold_adamw', 'grid_optim', 'sgd', 'lion', 'madam']\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("offer", altgrad_optimizers(), ids=lambda offer: offer.name)
def test_every_offer_builds_and_passes_the_checks(offer: Any) -> None:
    module, _, attribute = offer.target.partition(":")
    plugin = getattr(__import__(module, fromlist=[attribute]), attribute)(offer.settings())
    check_optimizer(plugin)


@pytest.mark.parametrize(
    ("implementation", "flags"),
    [("auto", (True, False)), ("fused", (True, False)), ("foreach", (False, True)),
     ("loop", (False, False))],
)  # fmt: skip
def test_it_is_torchs_adamw(implementation: Any, flags: tuple[bool, bool]) -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(6, 5), nn.Linear(6, 5)
    theirs.load_state_dict(ours.state_dict())
    settings = AdamWSettings(
        betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, implementation=implementation
    )
    optimizer = AdamWPlugin(settings).build(
        [{"params": [ours.weight]}, {"params": [ours.bias], "weight_decay": 0.0}],
        {},
        learning_rate=0.01,
        generator=torch.Generator(),
    )
    assert type(optimizer) is torch.optim.AdamW
    assert [(g["fused"], g["foreach"]) for g in optimizer.param_groups] == [flags] * 2
    reference = torch.optim.AdamW(
        [{"params": [theirs.weight]}, {"params": [theirs.bias], "weight_decay": 0.0}],
        lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, fused=flags[0], foreach=flags[1],
    )  # fmt: skip
    for _ in range(4):
        x = torch.randn(3, 6)
        for net, opt in ((ours, optimizer), (theirs, reference)):
            opt.zero_grad()
            net(x).square().sum().backward()
            opt.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


@pytest.mark.parametrize(
    "wrong", [{"betas": (1.0, 0.9)}, {"eps": -1.0}, {"weight_decay": -0.1}, {"beta": 0.9}]
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AdamWSettings(**wrong)
    with pytest.raises(ValidationError):
        ManifoldAdamWSettings(**wrong)
