"""A replayed pass is the step's own, or the float32 reference, and leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.training.clock import StepClock
from altgrad_core.training.replay import Replayer
from altgrad_core.training.seeds import seed_step
from altgrad_core.training.view import Run, StepView

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.dropout(self.first(x).tanh(), 0.3, self.training)
        output: Tensor = self.second(hidden)
        return output


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    loss: Tensor = model(batch.tensors["x"]).square().mean()
    return loss


def probe(samples: int) -> Batch:
    draws = torch.Generator().manual_seed(9)
    return Batch({"x": torch.randn(samples, 6, generator=draws)}, samples, samples)


def build(generator: torch.Generator, **options: Any) -> Net:
    torch.manual_seed(0)
    model = Net()
    options = {"scaling": ScalingSettings(mode="delayed", history=3)} | options
    quantize_model(
        model,
        load_format("e5m2"),
        activation_format=load_format("e4m3"),
        generator=generator,
        **options,
    )
    return model


def view_of(model: Net, generator: torch.Generator, step: int = 4) -> StepView:
    """A view in the middle of step 4, whose gradients are there."""
    batch = probe(5)
    seed_step(7, step, generator)
    with hold_weights(model):
        loss = loss_of(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]
    replayer = Replayer(model, loss_of, probe, device=CPU, seed=7, generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = Run(
        model, optimizer, weight_geometry(model), CPU, 10, StepClock(CPU), step, replayer=replayer
    )
    return StepView(run, loss.detach(), batch)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("reduction", [None, "max", "recent"])
def test_the_step_again_gives_its_own_gradients(rounding: Any, reduction: Any) -> None:
    generator = torch.Generator()
    scaling = ScalingSettings()
    if reduction is not None:
        scaling = ScalingSettings(mode="delayed", history=3, reduction=reduction)
    model = build(generator, rounding=rounding, scaling=scaling)
    for size in (1.0, 9.0):  # a history that differs from this step
        model(size * torch.ones(1, 6))
    view = view_of(model, generator)
    names, parameters = zip(*model.named_parameters(), strict=True)
    with view.replay() as loss:
        assert torch.equal(loss.detach(), view.loss)
        again = torch.autograd.grad(loss, parameters)
    for name, parameter, gradient in zip(names, parameters, again, strict=True):
        assert torch.equal(gradient, parameter.grad), name


@pytest.mark.parametrize("reduction", ["max", "recent"])
def test_in_eval_mode_too_it_goes_by_the_history_of_the_step(
    reduction: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, the loss of the step's own batch is the step's own."""
    generator = torch.Generator()
    model = build(
        generator, scaling=ScalingSettings(mode="delayed", history=3, reduction=reduction)
    )
    monkeypatch.setattr(nn.functional, "dropout", lambda x, p, training: x)
    for size in (1.0, 0.01):
        model(size * torch.ones(1, 6))
    view = view_of(model, generator)
    with view.replay(view.batch) as loss:
        assert torch.equal(loss.detach(), view.loss)


def everything(model: nn.Module, generator: torch.Generator) -> list[Tensor]:
    return [
        *(value.clone() for value in model.state_dict().values()),
        *(p.grad.clone() for p in model.parameters() if p.grad is not None),
        torch.get_rng_state(),
        generator.get_state(),
        torch.tensor([module.training for module in model.modules()]),
        *(g.scale().clone() for g in weight_geometry(model).values()),
    ]


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("batch", [None, probe(2)])
def test_nothing_of_it_is_seen_by_the_run(reference: bool, batch: Batch | None) -> None:
    generator = torch.Generator()
    model = build(generator, rounding="stochastic")
    view = view_of(model, generator)
    before = everything(model, generator)
    with torch.no_grad(), view.replay(batch, reference=reference) as loss:
        torch.autograd.grad(loss, list(model.parameters()))
    with pytest.raises(RuntimeError, match="inside"), view.replay(batch):
        raise RuntimeError("inside")
    for one, two in zip(before, everything(model, generator), strict=True):
        assert torch.equal(one, two)


def test_the_reference_is_the_unquantised_model() -> None:
    generator = torch.Generator()
    model = build(generator)
    view = view_of(model, generator)
    plain = Net()
    plain.load_state_dict(
        {name: value for name, value in model.state_dict().items() if "amax" not in name}
    )
    seed_step(7, 4, torch.Generator())
    loss_of(plain, view.batch).backward()  # type: ignore[no-untyped-call]
    reference = view.reference_gradients()
    for name, parameter in plain.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(reference[name], parameter.grad)
        assert not torch.equal(reference[name], model.get_parameter(name).grad)
    assert view.reference_gradients() is reference


def test_another_batch_is_seen_without_dropout_and_the_probe_stays_the_same() -> None:
    generator = torch.Generator()
    model = build(generator, scaling=ScalingSettings())
    view = view_of(model, generator)
    first = view.probe_batch(3)
    assert first is view.probe_batch(3)
    model.eval()
    expected = loss_of(model, first).detach()
    model.train()
    with view.replay(first) as loss:
        assert torch.equal(loss.detach(), expected)


def test_second_derivatives_exist_for_the_reference() -> None:
    generator = torch.Generator()
    model = build(generator)
    view = view_of(model, generator)
    weight = model.first.weight
    with view.replay(view.probe_batch(4), reference=True) as loss:
        (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
        (product,) = torch.autograd.grad(gradient.sum(), weight)
    assert product.shape == weight.shape
    assert float(product.abs().sum()) > 0


def test_outside_of_a_step_a_batch_is_needed() -> None:
    generator = torch.Generator()
    view = view_of(build(generator), generator)
    with pytest.raises(ValueError, match="give a batch"):
        view._run.replay()
    with pytest.raises(RuntimeError, match="no task"):
        StepView(
            Run(nn.Linear(1, 1), view.optimizer, {}, CPU, 1, StepClock(CPU)), view.loss
        ).probe_batch(2)


def test_running_statistics_are_put_back() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    run = Replayer(model, loss_of, probe, device=CPU, seed=1)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with run.replay(probe(5), step=1, reference=True):
        pass
    assert all(torch.equal(before[name], buffer) for name, buffer in model.named_buffers())
