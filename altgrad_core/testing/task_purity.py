"""Part of :func:`~altgrad_core.testing.tasks.check_task`: results depend on the arguments alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.task import Batch, Evaluation, Task

_CPU = torch.device("cpu")
_STEPS = (1, 2, 3, 4, 5, 9, 40)
_SEEDS = (0, 1, 2)


def batches_are_pure(task: Task, other: Task, third: Task, size: int) -> None:
    """Batches of three prepared instances of one task, asked for in different orders."""
    _facts(task.batch(1, size, seed=0), size)
    asked = [(step, size, seed) for seed in _SEEDS for step in _STEPS] + [
        (2, size + 1, 0),
        (1, 1, 1),
    ]
    given: dict[tuple[int, int, int], Batch] = {}
    kept: dict[tuple[int, int, int], Batch] = {}
    for one in asked:
        given[one] = task.batch(*one)
        kept[one] = _copy(given[one])
    torch.rand(3)
    for one in asked:
        _same(kept[one], given[one], f"{_named(one)}, held while others were asked for")
        _same(kept[one], task.batch(*one), f"{_named(one)}, asked for again after others")
    for one in reversed(asked):
        _same(kept[one], other.batch(*one), f"{_named(one)}, without its predecessors")
    far = (_STEPS[-1] + 1, size, _SEEDS[-1])
    _same(
        _copy(other.batch(*far)),
        third.batch(*far),
        f"{_named(far)}, as the first that is asked for",
    )
    if not _differ([kept[step, size, 0] for step in _STEPS[:3]]):
        raise AssertionError("every step gets the same batch")
    if not _differ([kept[1, size, seed] for seed in _SEEDS]):
        raise AssertionError("every seed gets the same batch")


def _facts(batch: Batch, size: int) -> None:
    if batch.samples != size:
        raise AssertionError(f"a batch of {size} says that it has {batch.samples} samples")
    tokens: object = batch.tokens
    if not isinstance(tokens, int):
        raise AssertionError(f"tokens must be an int, not {tokens!r}")
    if tokens <= 0:
        raise AssertionError("a batch must count its tokens")
    for name, tensor in batch.tensors.items():
        if tensor.device != _CPU:
            raise AssertionError(f"tensor {name!r} of a batch must be on the CPU")


def _named(one: tuple[int, int, int]) -> str:
    return f"batch(step={one[0]}, batch_size={one[1]}, seed={one[2]})"


def _copy(batch: Batch) -> Batch:
    tensors = {name: tensor.clone() for name, tensor in batch.tensors.items()}
    return Batch(tensors, batch.samples, batch.tokens)


def _same(one: Batch, two: Batch, what: str) -> None:
    if one.tensors.keys() != two.tensors.keys():
        raise AssertionError(f"{what}: the tensors' names differ")
    for name, tensor in one.tensors.items():
        if not torch.equal(tensor, two.tensors[name]):
            raise AssertionError(
                f"{what}: tensor {name!r} differs. Make a generator of (seed, step) within batch(), and "
                f"keep nothing from one call to the next"
            )
    if (one.samples, one.tokens) != (two.samples, two.tokens):
        raise AssertionError(f"{what}: the counts differ")


def _differ(batches: list[Batch]) -> bool:
    first, *others = (batch.tensors for batch in batches)
    return any(
        tensor.shape != other[name].shape or not torch.equal(tensor, other[name])
        for other in others
        for name, tensor in first.items()
    )


def loss_is_pure(task: Task, model: nn.Module, size: int) -> None:
    """The loss of the same model and batch is the same, and neither is changed; twice the batch, one mean."""
    batch = task.batch(1, size, seed=0)
    before, losses = _copy(batch), []
    for _ in range(2):
        torch.manual_seed(0)
        losses.append(task.loss(model, batch).item())
    for name, tensor in before.tensors.items():
        if not torch.equal(tensor, batch.tensors[name]):
            raise AssertionError(
                f"loss() changes the tensor {name!r} of its batch, which monitors look at"
            )
    if losses[0] != losses[1]:
        raise AssertionError(
            f"loss() of one model and one batch is {losses[0]} and then {losses[1]}: a run that goes on from a "
            f"checkpoint would get another one, so keep nothing from one call to the next"
        )
    if any(not tensor.dim() or len(tensor) != size for tensor in batch.tensors.values()):
        return
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in batch.tensors.items()}
    model.eval()
    one = task.loss(model, batch).item()
    two = task.loss(model, Batch(twice, 2 * size, 2 * batch.tokens)).item()
    if math.isclose(two, 2 * one, rel_tol=1e-4) and one:
        raise AssertionError(
            f"loss() is {one:.6g}, and {two:.6g} of a batch that has each example twice: it is a sum, which makes "
            f"the learning rate depend on the batch size; return the mean"
        )


def model_follows_the_seed(task: Task, *, pretrained: bool) -> None:
    """The model follows the seed that the caller has set, and leaves it in force."""
    weights: list[dict[str, Tensor]] = []
    for seed in _SEEDS[:2]:
        torch.manual_seed(seed)
        model = task.build_model()
        if torch.initial_seed() != seed:
            raise AssertionError(
                f"build_model() seeds torch itself: torch.initial_seed() was {seed} before and is "
                f"{torch.initial_seed()} after. Leave the generator as it is: it was seeded for the run"
            )
        weights.append({name: p.detach() for name, p in model.named_parameters()})
    one, two = weights
    random = [name for name, value in one.items() if value.numel() > 1 and bool(value.std() > 0)]
    follows = any(not torch.equal(one[name], two[name]) for name in random)
    if random and not follows and not pretrained:
        raise AssertionError(
            f"build_model() gives the same weights whatever seed is set, e.g. {random[0]!r} under seeds 0 and "
            f"1, so that all seeds of a suite start alike: draw them from torch's global generator"
        )


def calibration_is_used(task: Task, model: nn.Module) -> None:
    """Every value of a calibration matters, and what is given is what is used."""
    tuned = _evaluate(task, model, None).calibration
    applied = _evaluate(task, model, tuned)
    if applied.calibration != tuned:
        raise AssertionError(
            f"evaluate(test) was given the calibration {tuned} and used {applied.calibration}: take the values "
            f"that are given, and tune only where calibration is None"
        )
    for name, value in tuned.items():
        if not any(_matters(task, model, applied, other) for other in _others(tuned, name, value)):
            raise AssertionError(
                f"evaluate(test) gives the same metrics and predictions whatever calibration[{name!r}] is "
                f"({value:g}, and values below and above it): apply the value that is given, and tune only "
                f"where calibration is None"
            )


def _others(tuned: Mapping[str, float], name: str, value: float) -> Iterator[dict[str, float]]:
    near = (
        value / 2,
        value * 2,
        value - 1,
        value + 1,
        0.0,
        1.0,
        value / 100,
        value + 100,
        value - 100,
    )
    yield from ({**tuned, name: other} for other in near if other != value)


def _matters(
    task: Task, model: nn.Module, before: Evaluation, calibration: dict[str, float]
) -> bool:
    try:
        found = _evaluate(task, model, calibration)
    except Exception:  # a value that it refuses is a value that it has looked at
        return True
    if found.calibration != calibration:
        raise AssertionError(
            f"evaluate(test) was given the calibration {calibration} and used {found.calibration}: take the "
            f"values that are given, and tune only where calibration is None"
        )
    return not _alike(before.metrics, found.metrics) or any(
        str(array.tolist()) != str(found.predictions[name].tolist())
        for name, array in before.predictions.items()
    )


def _alike(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return all(
        value == two[name] or (math.isnan(value) and math.isnan(two[name]))
        for name, value in one.items()
    )


@torch.no_grad()
def _evaluate(task: Task, model: nn.Module, calibration: Mapping[str, float] | None) -> Evaluation:
    split: Any = "validation" if calibration is None else "test"
    return task.evaluate(model, split, batch_size=8, device=_CPU, calibration=calibration)
