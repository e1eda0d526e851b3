"""The step loop: one run from its first (or checkpointed) step to its last.

What a step costs beside the model itself is kept to what the step needs: weights are quantised once
(``hold_weights``), losses stay on the device until the log interval, monitors work only when due.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.interfaces.monitor import Event
from altgrad_core.interfaces.task import Batch, Evaluation, Split, Task
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.residency import GridResidency
from altgrad_core.quantization.storage import compact_state, load_compact_state
from altgrad_core.results.run_directory import RecordKind, RecordLost
from altgrad_core.training.accumulation import backward
from altgrad_core.training.checkpoint import CheckpointDamaged, load_checkpoint, save_checkpoint
from altgrad_core.training.clock import StepClock
from altgrad_core.training.determinism import refusals_explained
from altgrad_core.training.divergence import Diverged, DivergenceWatch
from altgrad_core.training.graphs import StepGraphs
from altgrad_core.training.monitoring import MonitorPanel, Outcome
from altgrad_core.training.protocol import MonitoredStep, carry_out
from altgrad_core.training.replay import Replayer
from altgrad_core.training.schedule import learning_rate
from altgrad_core.training.seeds import derive_seed, seed_step
from altgrad_core.training.settings import TrainingSettings
from altgrad_core.training.view import Run


class Sink(Protocol):
    """Where the loop writes what happens."""

    def record(self, step: int, kind: RecordKind, metrics: Mapping[str, float]) -> None:
        """Metrics of a step."""

    def event(self, step: int, event: Event) -> None:
        """Something that happened once."""

    def progress(self, step: int) -> None:
        """A sign of life, at the log interval."""

    def sync(self) -> int:
        """Make what was recorded durable and return its position, which goes into the checkpoint."""

    def rewind(self, position: int) -> None:
        """Forget what was recorded after ``position``: a run that starts again records it anew.

        Raises ``RecordLost`` if what was recorded before is not whole any more.
        """

    def begins(self, step: int, why: str = "") -> None:
        """The run goes on after ``step``: 0 at its beginning, to which it may have to go back for a reason."""


@dataclass
class Parts:
    """Everything that one run is made of, on its device."""

    task: Task
    model: nn.Module
    optimizer: torch.optim.Optimizer
    weights: Mapping[str, WeightGeometry]
    panel: MonitorPanel
    device: torch.device
    generator: torch.Generator
    residency: GridResidency
    change_format: Callable[[str, Any], None]
    """Moves a quantised weight to another format: ``(parameter name, format as a suite writes it)``."""


@dataclass
class Result:
    """What a finished loop leaves: the evaluation of both splits, and why it ended early if it did."""

    step: int
    evaluations: dict[Split, Evaluation] = field(default_factory=dict)
    stopped: str | None = None


class StopRun(Exception):
    """A monitor asked for the end of the run."""


class Trainer:
    """Runs the step loop over ``parts``; raises ``Diverged`` when the loss stays non-finite.

    save_asked:
        set from outside, it has a checkpoint written after the next step.
    micro_batches:
        how many parts a batch is cut into, whose gradients are added up.
    """

    def __init__(
        self,
        parts: Parts,
        settings: TrainingSettings,
        seed: int,
        sink: Sink,
        checkpoint: Path,
        *,
        save_asked: Flag | None = None,
        micro_batches: int = 1,
    ) -> None:
        self.parts, self.settings, self.seed, self.sink = parts, settings, seed, sink
        self.checkpoint = checkpoint
        self.save_asked = save_asked or Flag()
        self.micro_batches = micro_batches
        self.clock = StepClock(parts.device)
        self.watch = DivergenceWatch(settings.divergence_patience, parts.device)
        self.view = Run(
            model=parts.model,
            optimizer=parts.optimizer,
            weights=parts.weights,
            device=parts.device,
            step=0,
            max_steps=settings.max_steps,
            clock=self.clock,
            replayer=self._replayer(),
            residency=parts.residency,
        )
        self.gradients = StepGraphs(
            model=parts.model,
            device=parts.device,
            compute=self._gradients,
            key=parts.task.graph_key,
            reseed=lambda: seed_step(seed, self.view.step, parts.generator),
            failed=lambda why: sink.event(self.view.step, Event("not_captured", "model", why)),
            wanted=settings.cuda_graphs == "auto" and micro_batches == 1,
        )
        self.monitored = MonitoredStep(self.view, parts.panel, self.clock)
        self._shifts: list[tuple[str, Any]] = []
        self._losses: list[Tensor] = []
        self._validation: tuple[int, Evaluation] | None = None

    def run(self) -> Result:
        """Train to the last step, evaluate, and return the final evaluations."""
        result = Result(self.settings.max_steps)
        try:
            start = self.start()
            self.parts.model.train()
            with refusals_explained():
                for step in range(start + 1, self.settings.max_steps + 1):
                    self.step(step)
        except StopRun as stop:
            result.step, result.stopped = self.view.step, str(stop)
        except Diverged:
            self._take(self.parts.panel.end(self.view), self.view.step, may_stop=False)
            raise
        result.evaluations = self._final_evaluations(result.step)
        self._take(self.parts.panel.end(self.view), result.step, may_stop=False)
        return result

    def start(self) -> int:
        """Start the monitors, take up the checkpoint if there is one, and return the last step done."""
        outcome = self.parts.panel.start(self.view)
        state, why = self._resumable()
        if state is None:
            self.sink.rewind(0)
            self.sink.begins(0, why)
            self._take(outcome, 0)
            return 0
        self.sink.begins(state["step"])
        parts = self.parts
        for name, choice in state["shifts"]:
            self._shift(name, choice)
        load_compact_state(parts.model, state["model"])
        parts.optimizer.load_state_dict(state["optimizer"])
        parts.panel.load_state_dict(state["monitors"])
        self.clock.load_state_dict(state["clock"])
        self.watch.load_state_dict(state["watch"])
        self._losses = [loss.to(parts.device) for loss in state["losses"]]
        step: int = state["step"]
        self.view.step = step
        for event in outcome.events:  # its metrics were recorded at the first start
            self.sink.event(step, event)
        return step

    def _resumable(self) -> tuple[dict[str, Any] | None, str]:
        """The checkpoint, with the record cut back to it; None, and why, where nothing can go on from it."""
        try:
            state = load_checkpoint(self.checkpoint)
            if state is not None:
                self.sink.rewind(state["position"])
        except (CheckpointDamaged, RecordLost) as lost:  # going on would leave a gap in the record
            return None, str(lost)
        return state, ""

    def step(self, step: int) -> None:
        """Take step number ``step``, with all that is due in it."""
        parts, settings = self.parts, self.settings
        rate = learning_rate(settings, step)
        for group in parts.optimizer.param_groups:
            group["lr"] = rate
        self.monitored.begin(step)
        seed_step(self.seed, step, parts.generator)
        loss, batch = self.gradients(parts.task.batch(step, settings.batch_size, self.seed))
        if not self.monitored.before_update(loss, batch).skip_update:
            parts.optimizer.step()
        self.watch.update(loss, step)
        seen = self.monitored.after_update()
        self._losses.append(loss)
        self._book(step, rate, seen)
        parts.optimizer.zero_grad(set_to_none=True)

    def _gradients(self, batch: Batch) -> Tensor:
        """Leave the gradients of ``batch``, and return its loss."""
        model = self.parts.model
        with hold_weights(model):
            loss = backward(batch, self.micro_batches, self._loss)
        if self.settings.max_grad_norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), self.settings.max_grad_norm)
        return loss.detach()

    def _loss(self, batch: Batch) -> Tensor:
        with self._autocast():
            return self.parts.task.loss(self.parts.model, batch)

    def _book(self, step: int, rate: float, seen: Outcome) -> None:
        """Write down what the step gave, then evaluate and save where it is time to."""
        settings = self.settings
        logged = step % settings.log_interval == 0 or step in (1, settings.max_steps)
        if logged:
            mean = float(torch.stack(self._losses).mean())
            self._losses.clear()
            epoch = self.parts.task.epoch_samples
            passed = {"train/all/epoch": self.clock.samples / epoch} if epoch else {}
            self.sink.record(
                step, "train", {"train/all/loss": mean, "train/all/learning_rate": rate, **passed}
            )
            self.sink.progress(step)
        self._take(seen, step)
        if logged or self.watch.eager:
            self.watch.check(step, self.parts.model)
        if step % settings.eval_interval == 0:
            self._evaluate_validation(step)
        asked = self.save_asked.is_set()
        if step % settings.checkpoint_interval == 0 or step == settings.max_steps or asked:
            self.save_asked.clear()
            self._save(step)

    def _take(self, outcome: Outcome, step: int, *, may_stop: bool = True) -> None:
        """Write down what the monitors saw, and end the run if they ask for it."""
        carry_out(outcome, self._shift)
        if outcome.metrics:
            self.sink.record(step, "monitor", outcome.metrics)
        for event in outcome.events:
            self.sink.event(step, event)
        if outcome.stop is not None and may_stop:
            raise StopRun(outcome.stop)

    def _shift(self, name: str, choice: Any) -> None:
        """Move a weight to another format, and remember it for the checkpoint."""
        self.parts.change_format(name, choice)
        self.gradients.forget()
        self._shifts.append((name, choice))
        self._validation = None  # it was that of the model before

    def _evaluate(self, split: Split, calibration: Mapping[str, float] | None) -> Evaluation:
        parts = self.parts
        parts.model.eval()
        try:
            with torch.no_grad(), hold_weights(parts.model), self._autocast():
                found = parts.task.evaluate(
                    parts.model,
                    split,
                    batch_size=self.settings.eval_batch_size,
                    device=parts.device,
                    calibration=calibration,
                )
        finally:
            parts.model.train()
        for text in found.samples:
            self.sink.event(self.view.step, Event("sample", split, text))
        return found

    def _evaluate_validation(self, step: int) -> None:
        evaluation = self._evaluate("validation", None)
        self._validation = (step, evaluation)
        self.sink.record(step, "evaluation", _named("validation/all", evaluation))
        self._take(self.parts.panel.evaluation(self.view, evaluation.metrics), step)

    def _final_evaluations(self, step: int) -> dict[Split, Evaluation]:
        """Both splits, with what was tuned on the validation split applied to the test split."""
        if self._validation is not None and self._validation[0] == step:
            validation = self._validation[1]
        else:
            validation = self._evaluate("validation", None)
        test = self._evaluate("test", validation.calibration)
        metrics = _named("final/validation", validation) | _named("final/test", test)
        self.sink.record(step, "final", metrics)
        return {"validation": validation, "test": test}

    def _save(self, step: int) -> None:
        parts = self.parts
        save_checkpoint(
            self.checkpoint,
            {
                "step": step,
                "position": self.sink.sync(),
                "shifts": self._shifts,
                "model": compact_state(parts.model),
                "optimizer": parts.optimizer.state_dict(),
                "monitors": parts.panel.state_dict(),
                "clock": self.clock.state_dict(),
                "watch": self.watch.state_dict(),
                "losses": self._losses,
            },
        )

    def _replayer(self) -> Replayer:
        parts, seed = self.parts, derive_seed(self.seed, "probe")
        return Replayer(
            parts.model,
            parts.task.loss,
            lambda samples: parts.task.batch(1, samples, seed),
            device=parts.device,
            seed=self.seed,
            generator=parts.generator,
            autocast=self._autocast,
        )

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        wanted, device = self.settings.precision, self.parts.device
        if wanted == "bf16" or (wanted == "auto" and device.type == "cuda"):
            return torch.autocast(device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()


def _named(prefix: str, evaluation: Evaluation) -> dict[str, float]:
    """Metrics, and what was tuned on the split: both are needed to recompute the former."""
    numbers = {**evaluation.calibration, **evaluation.metrics}
    return {f"{prefix}/{name}": value for name, value in numbers.items()}
