"""A forward that is computed again for its backward pass repeats itself, and is no new step."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

Run = Callable[[nn.Module, Tensor], Tensor]
MODES = [False, True]
"""Whether checkpointing is the reentrant one."""


def plain(module: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = module(x)
    return result


def checkpointed(reentrant: bool) -> Run:
    def run(module: nn.Module, x: Tensor) -> Tensor:
        result: Tensor = checkpoint(module, x, use_reentrant=reentrant)
        return result

    return run


class Twice(nn.Module):
    """One layer that is used two times, so that a region holds two of its forwards."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        once: Tensor = self.layer(x)
        again: Tensor = self.layer(5 * once.tanh())
        return again


class Nested(nn.Module):
    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.outer, self.inner = nn.Linear(8, 8), nn.Linear(8, 8)
        self.run = plain if reentrant is None else checkpointed(reentrant)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.inner, self.outer(x).relu())


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return result


def build(model: Callable[[], nn.Module], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    built = model()
    settings: dict[str, Any] = {
        "activation_format": load_format("e4m3"),
        "gradient_format": load_format("e5m2"),
        "scaling": ScalingSettings(mode="delayed", history=3),
        "rounding": "stochastic",
        "generator": torch.Generator().manual_seed(1),
    }
    quantize_model(built, load_format("e4m3"), **(settings | options))
    return built.train()


def micro_batches(count: int = 3) -> list[Tensor]:
    draws = torch.Generator().manual_seed(2)
    return [
        (torch.randn(2, 4, 8, generator=draws) * 5.0**k).requires_grad_()
        for k in (1, 0, 2, 1)[:count]
    ]


def state(model: nn.Module, batches: list[Tensor]) -> list[Tensor]:
    gradients = [p.grad for p in [*model.parameters(), *batches]]
    return [g for g in gradients if g is not None] + list(model.buffers())


def assert_same(found: list[list[Tensor]]) -> None:
    """To within the order of sums, which differs under reentrant checkpointing.

    A last bit of a sum can decide a rounding; other draws, or another scale, would make a hundred times as much.
    """
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-3 * float(b.abs().max()))


def one_by_one(model: nn.Module, batches: list[Tensor], run: Run) -> None:
    for x in batches:
        run(model, x).square().mean().backward()  # type: ignore[no-untyped-call]


def together(model: nn.Module, batches: list[Tensor], run: Run) -> None:
    losses = [run(model, x).square().mean() for x in batches]
    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]


def out_of_order(model: nn.Module, batches: list[Tensor], run: Run) -> None:
    losses = [run(model, x).square().mean() for x in batches]
    for k in (1, 0, 2):
        losses[k].backward()  # type: ignore[no-untyped-call]


def only_some(model: nn.Module, batches: list[Tensor], run: Run) -> None:
    runs = (run, plain, run)
    losses = [each(model, x).square().mean() for each, x in zip(runs, batches, strict=True)]
    for k in (1, 0, 2):
        losses[k].backward()  # type: ignore[no-untyped-call]


def a_chain(model: nn.Module, batches: list[Tensor], run: Run) -> None:
    x = batches[0]
    for _ in range(3):
        x = 3 * run(model, x).tanh()
    x.square().mean().backward()  # type: ignore[no-untyped-call]


PASSES = [one_by_one, together, out_of_order, only_some, a_chain]


@pytest.mark.parametrize("reentrant", MODES)
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("passes", PASSES)
@pytest.mark.parametrize("model", [Twice, Attention, lambda: nn.Linear(8, 8)])
def test_checkpointing_changes_nothing(
    model: Callable[[], nn.Module],
    passes: Callable[[nn.Module, list[Tensor], Run], None],
    held: bool,
    reentrant: bool,
) -> None:
    found = []
    for run in (plain, checkpointed(reentrant)):
        built, batches = build(model), micro_batches()
        optimizer = torch.optim.SGD(built.parameters(), lr=0.01)
        for _ in range(2):
            with hold_weights(built) if held else nullcontext():
                passes(built, batches, run)
            optimizer.step()
        found.append(state(built, batches))
    assert_same(found)


@pytest.mark.parametrize("inner", MODES)
@pytest.mark.parametrize("outer", MODES)
@pytest.mark.parametrize("passes", [one_by_one, together])
def test_regions_may_be_nested(
    passes: Callable[[nn.Module, list[Tensor], Run], None], outer: bool, inner: bool
) -> None:
    found = []
    for run, within in ((plain, None), (checkpointed(outer), inner)):
        built, batches = build(lambda within=within: Nested(within)), micro_batches()  # type: ignore[misc]
        passes(built, batches, run)
        found.append(state(built, batches))
    assert_same(found)


@pytest.mark.parametrize("reentrant", MODES)
def test_a_backward_pass_after_the_hold_repeats_what_was_held(reentrant: bool) -> None:
    found = []
    for run in (plain, checkpointed(reentrant)):
        built, batches = build(Twice), micro_batches(2)
        with hold_weights(built):
            losses = [run(built, x).square().mean() for x in batches]
        with hold_weights(built):
            built(batches[0])  # another rounding, which is none of theirs
            sum(losses).backward()  # type: ignore[union-attr]
        found.append(state(built, batches))
    assert_same(found)


@pytest.mark.parametrize("reentrant", MODES)
def test_recomputing_draws_nothing_from_the_generator(reentrant: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    built = build(Twice, generator=generator)
    y = checkpointed(reentrant)(built, micro_batches(1)[0])
    before = generator.get_state()
    y.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(generator.get_state(), before)


def test_a_copy_starts_with_no_forwards_to_repeat() -> None:
    built = build(Twice, generator=None, rounding="nearest")
    y = checkpointed(False)(built, micro_batches(1)[0])
    for twin in (copy.deepcopy(built), pickle.loads(pickle.dumps(built))):
        checkpointed(False)(twin, micro_batches(1)[0]).sum().backward()  # type: ignore[no-untyped-call]
    y.sum().backward()  # type: ignore[no-untyped-call]
