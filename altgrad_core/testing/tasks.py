"""Conformance checks for tasks: :func:`check_task` runs them all. No test framework is needed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.metric import Metric, fault
from altgrad_core.interfaces.task import Evaluation, Split, Task
from altgrad_core.testing.draws import no_other_draws
from altgrad_core.testing.rules import rule
from altgrad_core.testing.task_purity import (
    batches_are_pure,
    calibration_is_used,
    loss_is_pure,
    model_follows_the_seed,
)
from altgrad_core.testing.waits import Watch

_CPU = torch.device("cpu")
_SEED = 1234


def check_task(
    make_task: Callable[[], Task],
    folder: Path,
    batch_size: int = 4,
    *,
    metrics: Sequence[Metric],
    pretrained: bool = False,
) -> None:
    """Check that a task keeps the contract of :class:`Task`, on the CPU.

    make_task:
        builds the task anew at each call, from the same settings; choose a small model and few data.
    folder:
        an empty folder to work in. The data are prepared in two cache folders within it.
    batch_size:
        examples per training batch.
    metrics:
        what the task's offer declares.
    pretrained:
        whether the weights are read from a file, so that they may be the same for every seed.

    Raises ``AssertionError`` with a sentence that says what is wrong: preparing is not deterministic,
    batches depend on more than their arguments, the model is not made from torch's generator alone,
    the loss does not reach the parameters or makes the step wait for the device, an evaluation depends on
    how it is batched or ignores the calibration, or it returns other metrics than the declared ones, or
    values beyond their worst.
    """
    with rule("an offer declares every number that evaluate() returns, and one of them is primary"):
        wrong = fault(tuple(metrics))
        if wrong:
            raise AssertionError(f"the declaration of the task: {wrong}")
    with no_other_draws("the task", "draw from a generator that is seeded with (seed, step)"):
        with rule("prepare() is deterministic, and reads back from its cache what it would make"):
            task = _prepared(make_task, folder / "first")
            cached = _prepared(make_task, folder / "first")
            _facts(task, _prepared(make_task, folder / "second"), cached)
        with rule(
            "batch(step, batch_size, seed) is a function of its arguments and of nothing else"
        ):
            other = _prepared(make_task, folder / "second")
            batches_are_pure(task, other, cached, batch_size)
        with rule("build_model() draws from torch's global generator, which was seeded for it"):
            model_follows_the_seed(task, pretrained=pretrained)
            _model(task)
        with rule(
            "loss() is a 0-d mean that reaches every parameter, and never reads from the device"
        ):
            _loss(task, batch_size)
            loss_is_pure(task, _seeded_model(task).train(), batch_size)
        with rule(
            "evaluate() is a function of the model and the split, and returns what is declared"
        ):
            _evaluation(task, metrics)
        with rule(
            "with calibration, evaluate() uses its values and tunes nothing: so none is tuned on test"
        ):
            calibration_is_used(task, _seeded_model(task).eval())


def _prepared(make_task: Callable[[], Task], cache: Path) -> Task:
    task = make_task()
    if not isinstance(task, Task):
        raise AssertionError(f"{task!r} is not a Task")
    cache.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(len(cache.name))  # another one in each folder: no seed may enter
    task.prepare(cache, _no_log)
    return task


def _no_log(message: str) -> None:
    if not isinstance(message, str):
        raise AssertionError(f"prepare() must log strings, not {message!r}")


def _facts(task: Task, fresh: Task, cached: Task) -> None:
    epoch: object = task.epoch_samples
    if epoch is not None and (not isinstance(epoch, int) or epoch < 1):
        raise AssertionError(f"epoch_samples must be None or a number of examples, not {epoch!r}")
    written = [_json(one.facts()) for one in (task, fresh, cached)]
    if written[0] != written[1]:
        raise AssertionError("facts() differ between two cache folders")
    if written[0] != written[2]:
        raise AssertionError("facts() differ between making and reading the cache")


def _json(facts: dict[str, Any]) -> str:
    try:
        return json.dumps(facts, sort_keys=True)
    except TypeError as error:
        raise AssertionError(f"facts() must hold JSON values only: {error}") from error


def _seeded_model(task: Task, seed: int = _SEED) -> nn.Module:
    torch.manual_seed(seed)
    return task.build_model()


def _model(task: Task) -> None:
    model, twin = _seeded_model(task), _seeded_model(task)
    for (name, one), two in zip(model.named_parameters(), twin.parameters(), strict=True):
        if one.device != _CPU:
            raise AssertionError(f"parameter {name!r} must be on the CPU")
        if one.dtype != torch.float32:
            raise AssertionError(f"parameter {name!r} must be float32, not {one.dtype}")
        if not torch.equal(one, two):
            raise AssertionError(f"parameter {name!r} differs though torch was seeded alike")
    names = [name for name, _ in model.named_modules()]
    for pattern in task.head:
        found = any(fnmatch(name, pattern) for name in names)
        if not found:
            raise AssertionError(
                f"no module matches the head pattern {pattern!r}; there are {names}"
            )


def _loss(task: Task, size: int) -> None:
    model = _seeded_model(task).train()
    batch = task.batch(1, size, seed=0)
    task.loss(model, batch)  # in the first, tables may be copied to the device
    with Watch([*model.parameters(), *model.buffers(), *batch.tensors.values()]) as watch:
        loss = task.loss(model, batch)
    if watch.waits:
        raise AssertionError(
            f"loss() makes the step wait for the device, by {watch.waits}: return the loss as a tensor, and "
            f"use torch.where or weights in place of an index by a mask"
        )
    if loss.shape != ():
        raise AssertionError(f"the loss must be 0-d, not {tuple(loss.shape)}")
    if not torch.isfinite(loss):
        raise AssertionError(f"the loss of a fresh model is {loss.item()}")
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                raise AssertionError(f"the loss does not reach parameter {name!r}")
            if not torch.isfinite(parameter.grad).all():
                raise AssertionError(f"the gradient of {name!r} is not finite")
    reached = any(_moves(parameter.grad) for parameter in model.parameters())
    if not reached:
        raise AssertionError("the gradient of every parameter is zero")


def _moves(gradient: Tensor | None) -> bool:
    return gradient is not None and bool(gradient.any())


def _evaluation(task: Task, metrics: Sequence[Metric]) -> None:
    model = _seeded_model(task).eval()
    first: dict[str, Evaluation] = {}
    for split in get_args(Split):
        state = torch.get_rng_state()
        one, again = _evaluate(task, model, split, 3), _evaluate(task, model, split, 3)
        if not torch.equal(torch.get_rng_state(), state):
            raise AssertionError(f"evaluating {split} draws from torch's global generator")
        _agree(one, again, 0.0, f"two evaluations of {split}")
        first[split] = one
        if one.samples != again.samples or not all(isinstance(text, str) for text in one.samples):
            raise AssertionError(f"{split}: samples must be strings, the same for the same model")
        _agree(one, _evaluate(task, model, split, 8), 1e-4, f"{split} in other batches")
        _declared(one, metrics, split)
        _predictions(one, split)
    for split in get_args(Split):
        _agree(
            first[split],
            _evaluate(task, model, split, 3),
            0.0,
            f"{split}, and {split} after others",
        )
    if any(module.training for module in model.modules()):
        raise AssertionError(
            "evaluate() leaves the model in training mode: it is given one in eval mode"
        )


@torch.no_grad()
def _evaluate(
    task: Task,
    model: nn.Module,
    split: Split,
    size: int,
    calibration: dict[str, float] | None = None,
) -> Evaluation:
    return task.evaluate(model, split, batch_size=size, device=_CPU, calibration=calibration)


def _agree(one: Evaluation, two: Evaluation, tolerance: float, what: str) -> None:
    if one.metrics.keys() != two.metrics.keys():
        raise AssertionError(f"{what}: the metrics' names differ")
    for name, value in {**one.metrics, **one.calibration}.items():
        kind: object = value
        if not isinstance(kind, float):
            raise AssertionError(f"metric {name!r} must be a float, not {kind!r}")
        if "/" in name:
            raise AssertionError(f"metric {name!r}: the caller puts the family before the name")
    for name, value in one.metrics.items():
        other = two.metrics[name]
        same = math.isclose(value, other, rel_tol=tolerance, abs_tol=tolerance) or (
            math.isnan(value) and math.isnan(other)
        )
        if not same:
            raise AssertionError(f"{what}: the metric {name!r} is {value} and {other}")
    if one.predictions.keys() != two.predictions.keys():
        raise AssertionError(f"{what}: the predictions differ")
    for name, array in one.predictions.items():
        exact = tolerance == 0.0 or not np.issubdtype(array.dtype, np.floating)
        slack = 0.0 if exact else 1e-3
        if array.dtype.kind in "US":
            if not np.array_equal(array, two.predictions[name]):
                raise AssertionError(f"{what}: {name!r} differs")
        else:
            near = np.allclose(array, two.predictions[name], rtol=slack, atol=slack, equal_nan=True)
            if not near:
                raise AssertionError(f"{what}: predictions {name!r} differ")


def _declared(evaluation: Evaluation, metrics: Sequence[Metric], split: str) -> None:
    names = [metric.name for metric in metrics]
    for name in evaluation.metrics:
        if name not in names:
            raise AssertionError(f"{split}: the metric {name!r} is not declared; there are {names}")
    for metric in metrics:
        if metric.name not in evaluation.metrics:
            raise AssertionError(
                f"{split}: evaluate() does not return the declared metric {metric.name!r}"
            )
        value = evaluation.metrics[metric.name]
        if not math.isfinite(value):
            raise AssertionError(f"{split}: the metric {metric.name!r} of a fresh model is {value}")
        if not metric.possible(value):
            raise AssertionError(
                f"{split}: the metric {metric.name!r} is {value}, beyond the worst value that is "
                f"declared, {metric.worst}"
            )
    for name in evaluation.calibration:
        if name in names:
            raise AssertionError(f"{split}: {name!r} is both a metric and a calibration")


def _predictions(evaluation: Evaluation, split: str) -> None:
    rows = {name: len(array) for name, array in evaluation.predictions.items()}
    if len(set(rows.values())) > 1:
        raise AssertionError(f"{split}: predictions need one row per example: {rows}")
