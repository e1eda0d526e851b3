"""The conformance check finds each breach of the contract."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.task import Batch, Evaluation, Split, Task
from altgrad_core.testing.tasks import check_task

METRICS = (
    Metric("loss", "Squared error", "lower", primary=True),
    Metric("f1", "F1", "higher", 0.0),
)


class Good(Task):
    """A regression on made-up numbers that keeps the contract."""

    head = ("1",)

    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None:
        log("preparing")
        self.inputs = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))

    def facts(self) -> dict[str, Any]:
        return {"examples": len(self.inputs)}

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        rows = np.random.Generator(np.random.PCG64([seed, step])).permutation(12)[:batch_size]
        return Batch({"x": self.inputs[torch.from_numpy(rows)]}, batch_size, 3 * batch_size)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        x = batch.tensors["x"]
        return (model(x).squeeze(1) - x.sum(dim=1)).square().mean()

    def evaluate(
        self,
        model: nn.Module,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        calibration: Mapping[str, float] | None = None,
    ) -> Evaluation:
        parts = [model(self.inputs[i : i + batch_size]) for i in range(0, 12, batch_size)]
        outputs = torch.cat(parts).squeeze(1)
        loss = (outputs - self.inputs.sum(dim=1)).square().mean().item()
        calibration = dict(calibration or {"threshold": 0.5})
        share = (outputs > calibration["threshold"]).float().mean().item()
        return Evaluation({"loss": loss, "f1": share}, calibration, {"outputs": outputs.numpy()})


class DrawsInPrepare(Good):
    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None:
        self.inputs = torch.randn(12, 3)


class ForgetsToCache(Good):
    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None:
        super().prepare(cache_dir, log)
        self.warm = (cache_dir / "made").exists()
        (cache_dir / "made").touch()

    def facts(self) -> dict[str, Any]:
        return {"warm": self.warm}


class FactsAreArrays(Good):
    def facts(self) -> dict[str, Any]:
        return {"inputs": self.inputs}


class CountsCalls(Good):
    calls = 0

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        self.calls += 1
        return super().batch(self.calls, batch_size, seed)


class DrawsBatches(Good):
    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        return super().batch(int(np.random.randint(1000)), batch_size, seed)


class IgnoresTheSeed(Good):
    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        return super().batch(step, batch_size, 0)


class IgnoresTheStep(Good):
    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        return super().batch(1, batch_size, seed)


class SmallBatch(Good):
    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        return super().batch(step, batch_size - 1, seed)


class SeedsItself(Good):
    def build_model(self) -> nn.Module:
        torch.seed()
        return super().build_model()


class SeedsInAFork(Good):
    """Leaves torch's generator as it was, and starts every seed alike."""

    def build_model(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return super().build_model()


class DrawsWeightsFromNumpy(Good):
    def build_model(self) -> nn.Module:
        model = super().build_model()
        np.random.seed(int(torch.initial_seed()))
        with torch.no_grad():
            model[0].bias.copy_(torch.from_numpy(np.random.rand(4)))
        return model


class KeepsBatches(Good):
    """Remembers the batch of a step, whatever the seed that asks for it next."""

    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None:
        super().prepare(cache_dir, log)
        self.kept: dict[int, Batch] = {}

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        if step % 2 or step not in self.kept:
            self.kept[step] = super().batch(step, batch_size, seed)
        return self.kept[step]


class ReusesABuffer(Good):
    """The tensors of one batch become those of the next."""

    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None:
        super().prepare(cache_dir, log)
        self.buffers: dict[int, Tensor] = {}

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        made = super().batch(step, batch_size, seed)
        buffer = self.buffers.setdefault(batch_size, torch.empty(batch_size, 3))
        buffer.copy_(made.tensors["x"])
        return Batch({"x": buffer}, made.samples, made.tokens)


class ContinuesItsStream(Good):
    """Draws the next batch from a stream, and begins anew only where a step is out of turn."""

    last = (0, -1)

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        if self.last != (step - 1, seed):
            self.stream = np.random.default_rng([seed, step])
        self.last = (step, seed)
        rows = self.stream.permutation(12)[:batch_size]
        return Batch({"x": self.inputs[torch.from_numpy(rows)]}, batch_size, 3 * batch_size)


class WaitsInTheLoss(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = super().loss(model, batch)
        return loss if loss.item() < 1e6 else loss * 0


class MasksInTheLoss(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        errors = (model(batch.tensors["x"]).squeeze(1) - batch.tensors["x"].sum(dim=1)).square()
        return errors[errors > -1].mean()


class DoubleModel(Good):
    def build_model(self) -> nn.Module:
        return super().build_model().double()


class WrongHead(Good):
    head = ("classifier",)


class LossPerExample(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.tensors["x"]).squeeze(1)


class Detached(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return super().loss(model, batch) * 0.0


class UnusedLayer(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, nn.Sequential)
        return model[0](batch.tensors["x"]).square().mean()


class Infinite(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return super().loss(model, batch) / 0.0


class _Evaluates(Good):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        raise NotImplementedError

    def evaluate(self, model: nn.Module, split: Split, **options: Any) -> Evaluation:
        evaluation = super().evaluate(model, split, **options)
        self.change(evaluation, options["batch_size"])
        return evaluation


class NoLoss(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        del evaluation.metrics["loss"]


class Undeclared(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        evaluation.metrics["recall"] = 0.5


class NotANumber(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        evaluation.metrics["f1"] = float("nan")


class BeyondTheWorst(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        evaluation.metrics["f1"] = -0.1


class CalibratesAMetric(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        evaluation.calibration = {"f1": 0.5}


class TensorMetric(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        evaluation.metrics["f1"] = torch.tensor(0.5)  # type: ignore[assignment]


class DependsOnBatches(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        evaluation.metrics["loss"] += batch_size


class RandomEvaluation(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        evaluation.predictions["outputs"] = np.random.rand(12)


class DrawsInEvaluation(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        torch.rand(1)


class SamplesNumbers(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        evaluation.samples = (3,)  # type: ignore[assignment]


class UnevenPredictions(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        evaluation.predictions["other"] = np.zeros(3)


class IgnoresCalibration(_Evaluates):
    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        evaluation.calibration = {"threshold": evaluation.calibration["threshold"] + 1}


class TunesOnTest(_Evaluates):
    """Hands back the calibration that it is given, and does not look at it."""

    def change(self, evaluation: Evaluation, batch_size: int) -> None:
        outputs = evaluation.predictions["outputs"]
        evaluation.metrics["f1"] = float((outputs > np.median(outputs)).mean())


class SumsTheLoss(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return super().loss(model, batch) * len(batch.tensors["x"])


class CountsLosses(Good):
    calls = 0

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self.calls += 1
        return super().loss(model, batch) * (1 + 0.01 * self.calls)


class ChangesTheBatch(Good):
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = super().loss(model, batch)
        batch.tensors["x"] = batch.tensors["x"].clamp(-0.1, 0.1)
        return loss


class RemembersTheTest(Good):
    seen = 0.0

    def evaluate(self, model: nn.Module, split: Split, **more: Any) -> Evaluation:
        found = super().evaluate(model, split, **more)
        if split == "test":
            self.seen = 1.0
        found.metrics["loss"] += self.seen * (split == "validation")
        return found


class LeavesTrainingMode(Good):
    def evaluate(self, model: nn.Module, split: Split, **more: Any) -> Evaluation:
        return super().evaluate(model.train(), split, **more)


class NegativeEpoch(Good):
    epoch_samples = -5


def test_a_good_task_passes(tmp_path: Path) -> None:
    check_task(Good, tmp_path, metrics=METRICS)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (DrawsInPrepare, "without its predecessors: tensor 'x' differs"),
        (ForgetsToCache, "between making and reading the cache"),
        (FactsAreArrays, "JSON values only"),
        (CountsCalls, "asked for again after others: tensor 'x' differs"),
        (DrawsBatches, "asked for again after others: tensor 'x' differs"),
        (IgnoresTheSeed, "every seed gets the same batch"),
        (IgnoresTheStep, "every step gets the same batch"),
        (SmallBatch, "a batch of 4 says that it has 3 samples"),
        (SeedsItself, r"build_model\(\) seeds torch itself"),
        (SeedsInAFork, "gives the same weights whatever seed is set"),
        (DrawsWeightsFromNumpy, "draws from numpy's global generator, or seeds it"),
        (KeepsBatches, "keep nothing from one call to the next"),
        (ReusesABuffer, "held while others were asked for: tensor 'x' differs"),
        (ContinuesItsStream, "Make a generator of .seed, step. within batch"),
        (WaitsInTheLoss, r"loss\(\) makes the step wait for the device, by item\(\)"),
        (MasksInTheLoss, r"loss\(\) makes the step wait for the device, by an index by a mask"),
        (TunesOnTest, r"whatever calibration\['threshold'\] is .*so none is tuned on test"),
        (SumsTheLoss, "a batch that has each example twice: it is a sum"),
        (CountsLosses, r"loss\(\) of one model and one batch is .* keep nothing from one call"),
        (ChangesTheBatch, r"loss\(\) changes the tensor 'x' of its batch"),
        (RemembersTheTest, "validation, and validation after others: the metric 'loss' is"),
        (LeavesTrainingMode, "leaves the model in training mode"),
        (NegativeEpoch, "epoch_samples must be None or a number of examples, not -5"),
        (DoubleModel, "must be float32"),
        (WrongHead, "no module matches the head pattern 'classifier'"),
        (LossPerExample, "must be 0-d"),
        (Detached, "gradient of every parameter is zero"),
        (UnusedLayer, "does not reach parameter '1.weight'"),
        (Infinite, "the loss of a fresh model is inf"),
        (NoLoss, r"validation: evaluate\(\) does not return the declared metric 'loss'"),
        (Undeclared, "the metric 'recall' is not declared"),
        (NotANumber, "the metric 'f1' of a fresh model is nan"),
        (BeyondTheWorst, "the metric 'f1' is -0.1, beyond the worst value that is declared, 0.0"),
        (CalibratesAMetric, "'f1' is both a metric and a calibration"),
        (TensorMetric, "'f1' must be a float"),
        (DependsOnBatches, "in other batches: the metric 'loss' is"),
        (RandomEvaluation, "two evaluations of validation: predictions 'outputs' differ"),
        (DrawsInEvaluation, "evaluating validation draws from torch's global generator"),
        (SamplesNumbers, "validation: samples must be strings"),
        (UnevenPredictions, "one row per example"),
        (IgnoresCalibration, "take the values that are given"),
    ],
)
def test_each_breach_is_found(bad: type[Task], message: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=message):
        check_task(bad, tmp_path, metrics=METRICS)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ((), "declares no metrics"),
        ((METRICS[0], METRICS[0]), "'loss' twice"),
        ((METRICS[1],), "exactly one of its metrics must be primary"),
    ],
)
def test_the_declaration_itself_is_checked(
    metrics: tuple[Metric, ...], message: str, tmp_path: Path
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_task(Good, tmp_path, metrics=metrics)
