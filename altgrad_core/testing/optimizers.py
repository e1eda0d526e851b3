"""The checks that every optimizer plugin must pass, built in or not. Needs no pytest."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_core.testing.counters import difference, numbers
from altgrad_core.testing.draws import no_other_draws
from altgrad_core.testing.optimizer_bench import Fit, UniformFormat
from altgrad_core.testing.rules import rule
from altgrad_core.testing.waits import Watch

__all__ = ["UniformFormat", "check_optimizer"]

_STATE = (
    "all that an optimizer remembers is in optimizer.state and param_groups, and so in state_dict(): a run "
    "that was interrupted ends bit for bit as one that was not"
)
_DRAWS = "the generator that build() is given is the only source of random numbers"
_WAITS = (
    "step() never reads a value from the device: compute with 0-d tensors, torch.where and sums"
)
_SCALED = "step() works under a torch.amp.GradScaler"
_FEWEST = 8  # steps


def check_optimizer(
    plugin: OptimizerPlugin,
    *,
    fmt: Format | None = None,
    learning_rate: float = 0.01,
    steps: int = 100,
    device: str | torch.device = "cpu",
) -> None:
    """Raise ``AssertionError``, saying what is wrong, unless ``plugin`` keeps its contract.

    It fits two small linear layers to a third, once with weights on the grid of ``fmt`` (a uniform
    one if None) and once without any geometry, and checks that the optimizer

    - takes every parameter group, and the learning rate;
    - at least halves the loss in ``steps`` steps at ``learning_rate``: choose them to suit it;
    - draws from the generator it was given and nothing else, and repeats itself exactly;
    - goes on bit for bit, up to ``steps``, from a state dict that went through ``torch.save`` and
      ``torch.load(weights_only=True)``, and counts nothing outside of it;
    - never waits for the device in a step;
    - takes the same steps under a ``torch.amp.GradScaler``, and none where a gradient is not finite;
    - stands still where ``group["lr"]`` is 0 or a parameter has no gradient, and leaves gradients as
      they are, since monitors look at them after the update.
    """
    with rule("a plugin is a subclass of altgrad_core.interfaces.OptimizerPlugin"):
        if not isinstance(plugin, OptimizerPlugin):
            raise AssertionError(f"{plugin!r} is not an OptimizerPlugin")
    place = torch.device(device)
    for grid in (fmt or UniformFormat(), None):

        def fit(grid: Format | None = grid) -> Fit:
            return Fit(plugin, grid, learning_rate, place)

        with rule("build() takes every group as it is, and learning_rate as its group['lr']"):
            _check_groups(fit(), learning_rate)
        whole, trail = fit(), list[Tensor]()  # all others are compared with this one
        with rule("an optimizer makes the loss smaller"):
            _check_progress(whole, steps, trail)
        with (
            rule(_DRAWS),
            no_other_draws("the optimizer", "use the generator that build() is given"),
        ):
            _check_repeats(trail, fit())
        with rule(_STATE):
            _check_checkpoint(whole, trail, fit(), fit())
        with rule(_WAITS):
            _check_waits(fit())
        with rule(_SCALED):
            _check_scaled_loss(trail, fit())
    with rule(
        "a step changes the weights that have a gradient by group['lr'] at most, and nothing else"
    ):
        _check_standing_still(Fit(plugin, None, learning_rate, place))


def _check_groups(fit: Fit, learning_rate: float) -> None:
    optimizer: object = fit.optimizer
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise AssertionError(f"build must return a torch.optim.Optimizer, not {optimizer!r}")
    taken = [id(p) for group in optimizer.param_groups for p in group["params"]]
    if sorted(taken) != sorted(map(id, fit.model.parameters())):
        raise AssertionError("the optimizer must hold every parameter it was given, each once")
    for group in optimizer.param_groups:
        if group["lr"] != learning_rate:
            raise AssertionError(
                f"group['lr'] must start as the learning rate {learning_rate}, not {group['lr']}"
            )


def _check_progress(fit: Fit, steps: int, trail: list[Tensor]) -> None:
    """Appends the weights after each step to ``trail``, at least ``_FEWEST``."""
    before = {name: p.detach().clone() for name, p in fit.model.named_parameters()}
    losses = []
    for number in range(1, max(steps, _FEWEST) + 1):
        losses.append(fit.step(number))
        trail.append(fit.weights())
    last = sum(losses[:steps][-5:]) / len(losses[:steps][-5:])
    if math.isnan(last) or last >= losses[0] / 2:
        raise AssertionError(
            f"{fit.where}, {steps} steps must at least halve the loss of a linear fit, but it went "
            f"from {losses[0]:.4g} to {last:.4g}"
        )
    for name, parameter in fit.model.named_parameters():
        if torch.equal(before[name], parameter):
            raise AssertionError(
                f"{fit.where}, {steps} steps leave the parameter {name!r} where it was"
            )


def _check_repeats(trail: list[Tensor], again: Fit) -> None:
    before = torch.get_rng_state()
    for number in range(1, 6):
        torch.manual_seed(1000 + number)
        inside = torch.get_rng_state()
        again.step(number)
        if not torch.equal(inside, torch.get_rng_state()):
            raise AssertionError(
                f"{type(again.optimizer).__name__} draws from torch's global generator; use the one "
                f"given to build"
            )
    torch.set_rng_state(before)
    if again.generator.initial_seed() != 5:
        raise AssertionError(
            "step() seeds the generator, so that each step draws the same: draw from it"
        )
    if not torch.equal(trail[4], again.weights()):
        raise AssertionError(
            f"{again.where}, the same steps with the same generator must give the same weights"
        )


def _check_checkpoint(whole: Fit, trail: list[Tensor], first: Fit, second: Fit) -> None:
    """``first`` takes four steps and ``second`` the rest, as ``whole`` did all of them."""
    for number in range(1, 5):
        first.step(number)
    file = io.BytesIO()
    torch.save((first.model.state_dict(), first.optimizer.state_dict()), file)
    file.seek(0)
    model_state, optimizer_state = torch.load(file, weights_only=True)
    second.model.load_state_dict(model_state)
    second.optimizer.load_state_dict(optimizer_state)
    _compare_states(first.optimizer, second.optimizer)
    for number, expected in enumerate(trail[4:], 5):
        second.step(number)
        if not torch.equal(expected, second.weights()):
            raise AssertionError(
                f"{whole.where}, going on from a saved state must give the same weights bit for bit, "
                f"but {number - 4} step(s) later they differ"
            )
    held: list[tuple[str, Callable[[Fit], object]]] = [
        ("optimizer", lambda fit: fit.optimizer),
        ("plugin", lambda fit: fit.plugin),
    ]
    for what, of in held:
        if lost := difference(numbers(of(whole)), numbers(of(second))):
            path, value, found = lost
            raise AssertionError(
                f"{whole.where}, the attribute {path!r} of the {what} is {value:g} after {len(trail)} "
                f"steps, and {found:g} in one that went on from the state dict of step 4, so what it "
                f"decides later is lost: keep it in optimizer.state or in a param_group"
            )


def _check_waits(fit: Fit) -> None:
    watch = Watch(fit.tensors())
    for number in (1, 2, 3):  # in the first, tables may be copied to the device
        fit.generator.manual_seed(number)
        fit.optimizer.zero_grad()
        fit.loss().backward()  # type: ignore[no-untyped-call]
        watch.place(fit.tensors())
        watch.seen.clear()
        with watch:
            fit.optimizer.step()
    if watch.waits:
        raise AssertionError(
            f"{fit.where}, step() makes the host wait for the device, by {watch.waits}"
        )


def _check_scaled_loss(trail: list[Tensor], scaled: Fit) -> None:
    """Scales are powers of two, so scaling is exact and the steps are the same bit for bit."""
    name = type(scaled.optimizer).__name__
    scaler = torch.amp.GradScaler(scaled.x.device.type, init_scale=2.0**8)
    for number in range(1, 7):
        if number == 4:
            before = scaled.weights()
            scaled.scaled_step(number, scaler, broken=True)
            if not torch.equal(before, scaled.weights()):
                raise AssertionError(
                    f"{scaled.where}, {name} takes the step though a gradient is infinite. If "
                    f"_step_supports_amp_scaling is set, step() must heed found_inf; else GradScaler "
                    f"does"
                )
        scaled.scaled_step(number, scaler)
        after = " that follows one with an infinite gradient" if number == 4 else ""
        if not torch.equal(trail[number - 1], scaled.weights()):
            raise AssertionError(
                f"{scaled.where}, the step of {name} with a scaled loss{after} must be that of the "
                f"loss itself. If _step_supports_amp_scaling is set, step() must divide gradients by "
                f"grad_scale and heed found_inf; else GradScaler does both"
            )


def _compare_states(first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
    one, other = first.state_dict()["state"], second.state_dict()["state"]
    for index, state in one.items():
        for key, value in state.items():
            loaded = other[index][key]
            if isinstance(value, Tensor):
                same = value.dtype == loaded.dtype and torch.equal(value, loaded.to(value.device))
            else:
                same = value == loaded
            if not same:
                raise AssertionError(
                    f"state {key!r} is not what it was after a round trip of the state dict"
                )


def _check_standing_still(fit: Fit) -> None:
    fit.step(1)
    for group in fit.optimizer.param_groups:
        group["lr"] = 0.0
    before = fit.weights()
    fit.step(2)
    if not torch.equal(before, fit.weights()):
        raise AssertionError("with group['lr'] = 0 the weights must stay")
    for group in fit.optimizer.param_groups:
        group["lr"] = 0.01
    frozen = fit.model.get_parameter("0.weight")
    fit.optimizer.zero_grad()
    fit.loss().backward()  # type: ignore[no-untyped-call]
    frozen.grad = None
    grads = [torch.clone(p.grad) for p in fit.model.parameters() if p.grad is not None]
    kept = frozen.detach().clone()
    fit.optimizer.step()
    if not torch.equal(kept, frozen):
        raise AssertionError("a parameter without a gradient must stay where it is")
    after = [p.grad for p in fit.model.parameters() if p.grad is not None]
    if not all(torch.equal(a, b) for a, b in zip(grads, after, strict=True)):
        raise AssertionError(
            "the step must leave gradients as they are: monitors look at them afterwards"
        )
