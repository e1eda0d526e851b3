"""Gradients of a batch in parts: those of the whole, but for the order of sums; every example in one part."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from altgrad_core.execution.assemble import build_format
from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.from_settings import quantize_from_settings
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.settings import QuantizationSettings
from altgrad_core.training.accumulation import backward, micro_batches


def batch(samples: int) -> Batch:
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(1))
    return Batch({"x": x, "scale": torch.ones(60)}, samples, tokens=6 * samples)


@given(st.integers(1, 40), st.integers(1, 50))
def test_every_example_is_in_one_part(samples: int, parts: int) -> None:
    whole = batch(samples)
    pieces = micro_batches(whole, parts)
    assert len(pieces) == min(parts, samples)
    sizes = [piece.samples for piece in pieces]
    assert max(sizes) - min(sizes) <= 1
    assert sum(piece.tokens for piece in pieces) == whole.tokens
    assert torch.equal(torch.cat([piece.tensors["x"] for piece in pieces]), whole.tensors["x"])
    assert all(piece.tensors["scale"].shape == (60,) for piece in pieces)


def gradients(
    parts: int, change: Callable[[nn.Module], None] = lambda model: None
) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3))
    change(model)

    def loss_of(one: Batch) -> Tensor:
        return model(one.tensors["x"]).square().mean()

    with hold_weights(model):
        loss = backward(batch(7), parts, loss_of)
    return loss.detach(), [parameter.grad for parameter in model.parameters()]


def in_format(activations: str | None) -> Callable[[nn.Module], None]:
    chosen = {"format": "e5m2", "residency": "grid", "activation_format": activations}
    settings = QuantizationSettings.model_validate(chosen)

    def change(model: nn.Module) -> None:
        quantize_from_settings(model, settings, (), build_format, torch.Generator(), {})

    return change


@pytest.mark.parametrize("parts", [2, 3, 7, 9])
@pytest.mark.parametrize("change", [lambda model: None, in_format(None)], ids=["float", "grid"])
def test_they_add_up_to_those_of_the_whole(parts: int, change: Callable[[nn.Module], None]) -> None:
    (loss, whole), (sum_, added) = gradients(1, change), gradients(parts, change)
    torch.testing.assert_close(sum_, loss, rtol=1e-6, atol=0)
    for one, other in zip(added, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_with_rounded_activations_each_part_has_a_scale_of_its_own() -> None:
    """So that they are not those of the whole, which is why the record says how many parts there were."""
    change = in_format("e0m7")
    (_, whole), (_, added) = gradients(1, change), gradients(7, change)
    apart = max(float((a - b).abs().max()) for a, b in zip(added, whole, strict=True))
    assert apart > 1e-5
    again = gradients(7, change)[1]
    assert all(torch.equal(a, b) for a, b in zip(added, again, strict=True))
