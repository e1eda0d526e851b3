"""The step loop against a plain PyTorch loop, and across interruptions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.monitor import Event, Monitor, Observation, RunView, StepView
from altgrad_core.interfaces.task import Batch, Evaluation, Split, Task
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import GridResidency
from altgrad_core.quantization.surgery import change_format, quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.training.checkpoint import load_checkpoint
from altgrad_core.training.divergence import Diverged
from altgrad_core.training.loop import Parts, Trainer
from altgrad_core.training.monitoring import MonitorPanel
from altgrad_core.training.seeds import derive_seed
from altgrad_core.training.settings import TrainingSettings

CPU = torch.device("cpu")


class Regression(Task):
    """A linear fit with dropout, small enough to follow by hand. ``poison`` makes a step's loss NaN."""

    head = ()

    def __init__(self, poison: Callable[[int], bool] = lambda step: False) -> None:
        self.poison = poison

    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {}

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        own = torch.Generator().manual_seed(1000 * seed + step)
        x = torch.randn(batch_size, 4, generator=own)
        y = x.sum(1, keepdim=True)
        if self.poison(step):
            y = y * math.nan
        return Batch({"x": x, "y": y}, samples=batch_size, tokens=4 * batch_size)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch.tensors["x"]) - batch.tensors["y"]).square().mean()

    def evaluate(
        self,
        model: nn.Module,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        calibration: Mapping[str, float] | None = None,
    ) -> Evaluation:
        assert not model.training
        batch = self.batch(10_000 + (split == "test"), 32, 0)
        loss = float(self.loss(model, batch).detach())
        shift = loss if calibration is None else calibration["shift"]
        return Evaluation({"loss": loss, "shifted": loss - shift}, {"shift": loss})


class Memory:
    """A sink that remembers, with the positions of a file."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str, Any]] = []
        self.begun: list[tuple[int, str]] = []

    def record(self, step: int, kind: str, metrics: Mapping[str, float]) -> None:
        self.lines.append((step, kind, dict(metrics)))

    def event(self, step: int, event: Event) -> None:
        self.lines.append((step, "event", event))

    def progress(self, step: int) -> None: ...

    def sync(self) -> int:
        return len(self.lines)

    def rewind(self, position: int) -> None:
        del self.lines[position:]

    def begins(self, step: int, why: str = "") -> None:
        self.begun.append((step, why))


class Counting(Monitor):
    """Counts its calls, keeps the count over restarts, and may ask to stop or fail."""

    interval = 3

    def __init__(self, stop_at: int | None = None, fail_at_start: bool = False) -> None:
        self.calls, self.stop_at, self.fail_at_start = 0, stop_at, fail_at_start

    def start(self, run: RunView) -> None:
        if self.fail_at_start:
            raise RuntimeError("no start")

    def end(self, run: RunView) -> Observation:
        return Observation({"count/all/at_end": float(run.step)})

    def after_update(self, step: StepView) -> Observation:
        self.calls += 1
        stop = "enough" if step.step == self.stop_at else None
        return Observation({"count/all/calls": torch.tensor(float(self.calls))}, stop=stop)

    def state_dict(self) -> dict[str, Any]:
        return {"calls": self.calls}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.calls = state["calls"]


def trainer(
    folder: Path,
    sink: Memory,
    task: Task | None = None,
    monitor: Monitor | None = None,
    format: str | None = None,
    **changes: Any,
) -> Trainer:
    settings = TrainingSettings.model_validate(
        {
            "batch_size": 8,
            "learning_rate": 0.05,
            "max_steps": 11,
            "eval_interval": 4,
            "log_interval": 2,
            "checkpoint_interval": 4,
        }
        | changes
    )
    task = task or Regression()
    torch.manual_seed(derive_seed(7, "model"))
    model = task.build_model()
    panel = MonitorPanel([("counting", monitor or Counting())])
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    generator = torch.Generator()
    if format is not None:
        quantize_model(model, load_format(format), residency="grid", rounding="stochastic")
    residency = GridResidency(model, generator)
    residency.attach(optimizer)
    weights = weight_geometry(model)
    parts = Parts(
        task=task,
        model=model,
        optimizer=optimizer,
        weights=weights,
        panel=panel,
        device=CPU,
        generator=generator,
        residency=residency,
        change_format=lambda name, choice: change_format(weights[name], load_format(choice)),
    )
    folder.mkdir(exist_ok=True)
    return Trainer(parts, settings, 7, sink, folder / "state.pt")


def test_equals_a_plain_loop(tmp_path: Path) -> None:
    sink = Memory()
    ours = trainer(tmp_path / "a", sink, max_grad_norm=1.0, warmup_steps=3, schedule="linear")
    result = ours.run()

    task = Regression()
    torch.manual_seed(derive_seed(7, "model"))
    model = task.build_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)
    rates = [0.05 / 3, 0.1 / 3, 0.05] + [0.05 * (1 - k / 8) for k in range(8)]
    losses = []
    for step, rate in enumerate(rates, 1):
        optimizer.param_groups[0]["lr"] = rate
        torch.manual_seed(derive_seed(7, "step", step))
        loss = task.loss(model, task.batch(step, 8, 7))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    for mine, plain in zip(ours.parts.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, plain)
    logged = {s: m["train/all/loss"] for s, kind, m in sink.lines if kind == "train"}
    assert logged.keys() == {1, 2, 4, 6, 8, 10, 11}
    assert logged[6] == pytest.approx((losses[4] + losses[5]) / 2, rel=1e-6)
    model.eval()
    validation = task.evaluate(model, "validation", batch_size=1, device=CPU)
    test = task.evaluate(
        model, "test", batch_size=1, device=CPU, calibration=validation.calibration
    )
    assert result.evaluations["test"].metrics == test.metrics
    [final] = [m for _, kind, m in sink.lines if kind == "final"]
    assert final["final/test/shifted"] == test.metrics["shifted"] != 0.0


@pytest.mark.parametrize("cut", [3, 4, 5, 8, 10, 11])
def test_an_interrupted_run_ends_bit_identical(tmp_path: Path, cut: int) -> None:
    whole = Memory()
    uninterrupted = trainer(tmp_path / "whole", whole)
    uninterrupted.run()

    class Killed(BaseException):
        pass

    class Cut(Regression):
        def batch(self, step: int, batch_size: int, seed: int) -> Batch:
            if step == cut and batch_size == 8:
                raise Killed
            return super().batch(step, batch_size, seed)

    sink = Memory()
    with pytest.raises(Killed):
        trainer(tmp_path / "cut", sink, task=Cut()).run()
    resumed = trainer(tmp_path / "cut", sink)
    resumed.run()
    assert sink.lines == whole.lines
    for a, b in zip(
        resumed.parts.model.parameters(), uninterrupted.parts.model.parameters(), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("asked", [2, 5, 9])
def test_a_checkpoint_that_is_asked_for_is_written_once_and_is_as_good_as_any(
    tmp_path: Path, asked: int
) -> None:
    """Between two that are due, and between two logged steps."""

    class Killed(BaseException):
        pass

    class Cut(Regression):
        def batch(self, step: int, batch_size: int, seed: int) -> Batch:
            if step == asked and batch_size == 8:
                cut.save_asked.set()
            if step == asked + 2 and batch_size == 8:
                raise Killed
            return super().batch(step, batch_size, seed)

    whole, sink = Memory(), Memory()
    trainer(tmp_path / "whole", whole, checkpoint_interval=100).run()
    cut = trainer(tmp_path / "cut", sink, task=Cut(), checkpoint_interval=100)
    with pytest.raises(Killed):
        cut.run()
    state = load_checkpoint(tmp_path / "cut" / "state.pt")
    assert state is not None
    assert state["step"] == asked
    trainer(tmp_path / "cut", sink, checkpoint_interval=100).run()
    assert sink.lines == whole.lines


def test_a_damaged_checkpoint_is_a_new_beginning(tmp_path: Path) -> None:
    whole, sink = Memory(), Memory()
    trainer(tmp_path / "whole", whole).run()
    cut = trainer(tmp_path / "cut", sink)
    cut.run()
    text = bytearray(cut.checkpoint.read_bytes())
    text[len(text) // 2] ^= 1
    cut.checkpoint.write_bytes(text)
    trainer(tmp_path / "cut", sink).run()
    assert sink.lines == whole.lines
    (first, _), (step, why) = sink.begun
    assert (first, step) == (0, 0)
    assert "is not as it was written" in why


def test_a_finished_checkpoint_gives_its_final_line_once(tmp_path: Path) -> None:
    sink, whole = Memory(), Memory()
    trainer(tmp_path / "whole", whole).run()
    trainer(tmp_path / "again", sink).run()
    trainer(tmp_path / "again", sink).run()
    assert sink.lines == whole.lines


def test_a_monitor_that_fails_when_a_run_goes_on_is_recorded(tmp_path: Path) -> None:
    trainer(tmp_path / "a", Memory(), max_steps=4).run()
    sink = Memory()
    trainer(tmp_path / "a", sink, monitor=Counting(fail_at_start=True)).run()
    events = [event for _, kind, event in sink.lines if kind == "event"]
    assert [event.kind for event in events] == ["monitor_failed"]
    assert "no start" in events[0].message


def test_divergence_ends_the_run_and_says_where(tmp_path: Path) -> None:
    sink = Memory()
    run = trainer(
        tmp_path / "a", sink, task=Regression(lambda step: step >= 5), divergence_patience=3
    )
    with pytest.raises(Diverged) as caught:
        run.run()
    assert (caught.value.step, caught.value.first_step) == (7, 5)
    assert caught.value.where == "parameter 0.weight"
    assert sink.lines[-1] == (7, "monitor", {"count/all/at_end": 7.0})


def test_a_passing_nan_within_the_patience_goes_on(tmp_path: Path) -> None:
    class Passing(Regression):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            bad = bool(batch.tensors["y"].isnan().any())
            loss = super().loss(
                model, Batch({k: v.nan_to_num() for k, v in batch.tensors.items()}, 8, 8)
            )
            return loss + (math.nan if bad else 0.0) * loss.detach()

    run = trainer(
        tmp_path / "a", Memory(), task=Passing(lambda step: step in (5, 6)), divergence_patience=3
    )
    assert run.run().step == 11


def test_a_monitor_may_end_the_run(tmp_path: Path) -> None:
    sink = Memory()
    result = trainer(tmp_path / "a", sink, monitor=Counting(stop_at=6)).run()
    assert (result.step, result.stopped) == (6, "monitor counting: enough")
    assert max(step for step, _, _ in sink.lines) == 6
    assert [kind for _, kind, _ in sink.lines].count("final") == 1


class Intervening(Monitor):
    """Skips the update of step 3, and moves the weight to another format after step 5."""

    intervenes = True

    def __init__(self) -> None:
        self.formats: list[str] = []

    def before_update(self, step: StepView) -> Observation:
        return Observation(skip_update=step.step == 3)

    def after_update(self, step: StepView) -> Observation:
        self.formats.append(step.weights["0.weight"].format.name)
        return Observation(shifts={"0.weight": "e3m4"} if step.step == 5 else {})


def test_an_update_can_be_skipped(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    class Watching(Intervening):
        def after_update(self, step: StepView) -> Observation:
            seen.append(step.model.get_parameter("0.weight").detach().clone())
            return Observation()

    trainer(tmp_path / "a", Memory(), monitor=Watching()).run()
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[2], seen[3])


@pytest.mark.parametrize("cut", [5, 7, 9])
def test_a_format_shift_outlives_a_restart_bit_for_bit(tmp_path: Path, cut: int) -> None:
    monitor = Intervening()
    whole = trainer(tmp_path / "whole", Memory(), monitor=monitor, format="e5m2")
    whole.run()
    assert monitor.formats == ["e5m2"] * 5 + ["e3m4"] * 6

    class Killed(BaseException):
        pass

    class Cut(Regression):
        def batch(self, step: int, batch_size: int, seed: int) -> Batch:
            if step == cut and batch_size == 8:
                raise Killed
            return super().batch(step, batch_size, seed)

    folder = tmp_path / "cut"
    with pytest.raises(Killed):
        trainer(folder, Memory(), task=Cut(), monitor=Intervening(), format="e5m2").run()
    resumed = trainer(folder, Memory(), monitor=Intervening(), format="e5m2")
    resumed.run()
    one, two = resumed.parts.model.state_dict(), whole.parts.model.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    formats = [geometry.format.name for geometry in resumed.parts.weights.values()]
    assert formats == ["e3m4", "e5m2"]


def test_a_shift_that_cannot_be_made_is_an_event_and_the_run_goes_on(tmp_path: Path) -> None:
    class Wrong(Monitor):
        intervenes = True

        def after_update(self, step: StepView) -> Observation:
            return Observation(shifts={"nope": "e3m4"} if step.step == 2 else {})

    sink = Memory()
    result = trainer(tmp_path / "a", sink, monitor=Wrong(), format="e5m2").run()
    assert result.step == 11
    [event] = [e for _, kind, e in sink.lines if kind == "event"]
    assert (event.kind, event.layer) == ("shift_failed", "nope")


def test_a_shift_at_the_last_evaluation_is_evaluated(tmp_path: Path) -> None:
    class Late(Monitor):
        intervenes = True

        def evaluation(self, run: RunView, metrics: Mapping[str, float]) -> Observation:
            return Observation(shifts={"0.weight": "e0m7"} if run.step == 8 else {})

    sink = Memory()
    trainer(tmp_path / "a", sink, monitor=Late(), format="e5m2", max_steps=8).run()
    [seen] = [m for step, kind, m in sink.lines if kind == "evaluation" and step == 8]
    [final] = [m for _, kind, m in sink.lines if kind == "final"]
    assert final["final/validation/loss"] != seen["validation/all/loss"]


class Telling(Regression):
    """Says how long an epoch is, and shows what the model does."""

    epoch_samples = 32

    def evaluate(self, model: nn.Module, split: Split, **options: Any) -> Evaluation:
        found = super().evaluate(model, split, **options)
        found.samples = (f"a sample of {split}",)
        return found


def test_epochs_and_samples_are_recorded(tmp_path: Path) -> None:
    sink = Memory()
    trainer(tmp_path / "state.pt", sink, Telling(), max_steps=8).run()
    epochs = {s: seen.get("train/all/epoch") for s, kind, seen in sink.lines if kind == "train"}
    assert epochs == {1: 0.25, 2: 0.5, 4: 1.0, 6: 1.5, 8: 2.0}
    told = [(step, event) for step, kind, event in sink.lines if kind == "event"]
    of = {split: Event("sample", split, f"a sample of {split}") for split in ("validation", "test")}
    assert told == [(4, of["validation"]), (8, of["validation"]), (8, of["test"])]
