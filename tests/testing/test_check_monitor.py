"""check_monitor notices each way to break the contract, and says what to do about it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch

from altgrad_core.interfaces import Monitor, Observation, StepView
from altgrad_core.testing.monitors import check_monitor


class Good(Monitor):
    """Counts steps and keeps its count."""

    def __init__(self) -> None:
        self.count = 0

    def after_update(self, step: StepView) -> Observation:
        self.count += 1
        return Observation({"mine/all/norm": self.norm(step), "mine/all/count": float(self.count)})

    def norm(self, step: StepView) -> Any:
        return next(iter(step.model.parameters())).detach().norm()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Forgets(Good):
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class CountsForLater(Good):
    """Another count, which would act after a thousand steps."""

    calls = 0

    def norm(self, step: StepView) -> Any:
        self.calls += 1
        return super().norm(step) if self.calls < 1000 else 0.0


class DrawsFromPython(Good):
    def norm(self, step: StepView) -> Any:
        return random.random()


class DrawsFromNumpy(Good):
    def norm(self, step: StepView) -> Any:
        return float(np.random.rand())


class DrawsAnew(Good):
    def norm(self, step: StepView) -> Any:
        return float(np.random.default_rng().random())


class SeedsNumpy(Good):
    def norm(self, step: StepView) -> Any:
        np.random.seed(0)
        return 1.0


class DrawsFromTorch(Good):
    def norm(self, step: StepView) -> Any:
        return torch.rand(())


class Reads(Good):
    def norm(self, step: StepView) -> Any:
        return super().norm(step).item()


class Lists(Good):
    def norm(self, step: StepView) -> Any:
        return sum(super().norm(step).reshape(1).tolist())


class TakesToTheHost(Good):
    def norm(self, step: StepView) -> Any:
        return super().norm(step).cpu()


class Masks(Good):
    def norm(self, step: StepView) -> Any:
        weight = next(iter(step.model.parameters())).detach()
        return weight[weight > 0].sum()


class Branches(Good):
    def norm(self, step: StepView) -> Any:
        norm = super().norm(step)
        return norm if norm > 1 else norm + 1


class Changes(Good):
    def norm(self, step: StepView) -> Any:
        next(iter(step.model.parameters())).data.mul_(1.01)
        return 0.0


class ScalesGradients(Good):
    def norm(self, step: StepView) -> Any:
        gradient = next(iter(step.model.parameters())).grad
        assert gradient is not None
        gradient.mul_(2)
        return 0.0


class ScalesMomentum(Good):
    def norm(self, step: StepView) -> Any:
        for state in step.optimizer.state.values():
            state["momentum_buffer"].mul_(1.01)
        return 0.0


class EmptiesTheBatch(Good):
    def norm(self, step: StepView) -> Any:
        for tensor in step.batch.tensors.values():
            tensor.zero_()
        return 0.0


class Freezes(Good):
    def norm(self, step: StepView) -> Any:
        next(iter(step.model.parameters())).requires_grad_(False)
        return 0.0


class KeepsATensorForLater(Good):
    mean: torch.Tensor | None = None

    def norm(self, step: StepView) -> Any:
        weight = next(iter(step.model.parameters())).detach().clone()
        self.mean = weight if self.mean is None else self.mean.lerp(weight, 0.5)
        return weight.norm() if self.count < 1000 else self.mean.norm()


class Writes(Good):
    def norm(self, step: StepView) -> Any:
        return float(len(str(super().norm(step))))


class Raises(Good):
    def norm(self, step: StepView) -> Any:
        raise RuntimeError("broken")


def test_a_good_monitor_passes() -> None:
    check_monitor(Good())


def test_one_that_says_that_it_reads_may() -> None:
    reads = Reads()
    reads.waits = True
    check_monitor(reads)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (
            Forgets,
            r"step 2: mine/all/count is 2.0, and 1.0 where the run went on from a checkpoint",
        ),
        (CountsForLater, r"its attribute 'calls' is 12 at the end, and 1 .*put it into state_dict"),
        (DrawsFromPython, "draws from Python's random module, or seeds it: make a torch.Generator"),
        (
            DrawsFromNumpy,
            "draws from numpy's global generator, or seeds it: make a torch.Generator",
        ),
        (DrawsAnew, r"calls numpy's default_rng\(\) without a seed: make a torch.Generator"),
        (SeedsNumpy, "draws from numpy's global generator, or seeds it"),
        (DrawsFromTorch, "differs from the same run without this monitor"),
        (Reads, r"after_update of step 2 makes the step wait for the device, by item\(\)"),
        (
            Lists,
            r"makes the step wait for the device, by tolist\(\): return 0-d tensors as they are",
        ),
        (TakesToTheHost, r"makes the step wait for the device, by cpu\(\)"),
        (Masks, r"makes the step wait for the device, by an index by a mask: .*use torch.where"),
        (Branches, "by item.., float.., bool.. or a comparison in an if"),
        (Changes, "differs from the same run without this monitor: parameter first"),
        (ScalesGradients, "differs from the same run without this monitor: gradient first"),
        (ScalesMomentum, "differs from the same run without this monitor: parameter first"),
        (EmptiesTheBatch, "differs from the same run without this monitor: batch 1: inputs"),
        (Freezes, "differs from the same run without this monitor: parameter first"),
        (KeepsATensorForLater, "its attribute 'mean' is .*put it into state_dict"),
        (Writes, r"makes the step wait for the device, by __repr__\(\)"),
        (Raises, "failed in after_update .*RuntimeError: broken"),
    ],
)
def test_each_fault_is_found(bad: type[Monitor], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_monitor(bad())
