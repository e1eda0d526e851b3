"""The panel: only where due, one transfer, and no monitor can harm the run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from altgrad_core.interfaces.monitor import Event, Monitor, Observation, RunView, StepView
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.testing.monitors import CoarseFormat, check_monitor
from altgrad_core.training import view as views
from altgrad_core.training.clock import StepClock
from altgrad_core.training.monitoring import MonitorPanel, Outcome, to_host

HOOKS = ("start", "before_update", "after_update", "evaluation", "end")


class Recorder(Monitor):
    """Notes its calls; returns or raises what it is told to, by hook."""

    def __init__(self, interval: int = 1, **answers: Any) -> None:
        self.interval = interval
        self.answers = answers
        self.calls: list[tuple[str, int]] = []
        self.loaded: Any = None

    def _answer(self, hook: str, step: int) -> Observation | None:
        self.calls.append((hook, step))
        answer = self.answers.get(hook)
        if isinstance(answer, BaseException):
            raise answer
        if answer is None or isinstance(answer, Observation):
            return answer
        return Observation(dict(answer))

    def due(self, step: int) -> bool:
        if "due" in self.answers:
            raise self.answers["due"]
        return super().due(step)

    def start(self, run: RunView) -> Observation | None:
        return self._answer("start", run.step)

    def before_update(self, step: StepView) -> Observation | None:
        return self._answer("before_update", step.step)

    def after_update(self, step: StepView) -> Observation | None:
        return self._answer("after_update", step.step)

    def evaluation(self, run: RunView, metrics: Mapping[str, float]) -> Observation | None:
        assert metrics == {"f1_micro": 0.5}
        return self._answer("evaluation", run.step)

    def end(self, run: RunView) -> Observation | None:
        return self._answer("end", run.step)

    def state_dict(self) -> dict[str, Any]:
        if "state_dict" in self.answers:
            raise self.answers["state_dict"]
        return {"calls": len(self.calls)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "load_state_dict" in self.answers:
            raise self.answers["load_state_dict"]
        self.loaded = state


@pytest.fixture
def run() -> views.Run:
    model = nn.Linear(3, 2)
    quantize_model(model, CoarseFormat())
    device = torch.device("cpu")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    return views.Run(model, optimizer, weight_geometry(model), device, 9, StepClock(device))


def drive(panel: MonitorPanel, run: views.Run, steps: int = 1) -> list[Outcome]:
    """A whole run: start, steps, an evaluation, end."""
    outcomes = [panel.start(run)]
    for step in range(1, steps + 1):
        run.step = step
        view = views.StepView(run, torch.tensor(0.0))
        outcomes.append(panel.before_update(view))
        outcomes.append(panel.after_update(view))
    outcomes.append(panel.evaluation(run, {"f1_micro": 0.5}))
    outcomes.append(panel.end(run))
    return outcomes


def test_step_hooks_are_called_where_due_and_the_others_always(run: views.Run) -> None:
    monitor = Recorder(interval=3)
    drive(MonitorPanel([("m", monitor)]), run, steps=7)
    steps = [(hook, step) for step in (1, 3, 6) for hook in ("before_update", "after_update")]
    assert monitor.calls == [("start", 0), *steps, ("evaluation", 7), ("end", 7)]


def test_what_both_step_hooks_return_comes_together_after_the_update(run: views.Run) -> None:
    event = Event("k", "all", "m")
    before = Observation({"f/all/old": torch.tensor(1.5)}, [event])
    monitor = Recorder(before_update=before, after_update={"f/all/new": 2})
    panel = MonitorPanel([("m", monitor)])
    run.step = 1
    view = views.StepView(run, torch.tensor(0.0))
    assert panel.before_update(view) == Outcome()
    assert panel.after_update(view) == Outcome({"f/all/old": 1.5, "f/all/new": 2.0}, [event])
    assert panel.evaluation(run, {"f1_micro": 0.5}) == Outcome()


class Operations(TorchDispatchMode):
    """Counts what reaches the dispatcher."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


class Busy(Recorder):
    """Asks for everything."""

    def before_update(self, step: StepView) -> Observation | None:
        for name in step.weights:
            step.weight_before(name)
            step.rung_before(name)
        return None

    def after_update(self, step: StepView) -> Observation | None:
        changed = [step.rung_after(n) != step.rung_before(n) for n in step.weights]
        return Observation({"busy/all/changed": changed[0].sum()})


def test_nothing_is_computed_in_a_step_where_nothing_is_due(run: views.Run) -> None:
    panel = MonitorPanel([("a", Busy(interval=5)), ("b", Busy(interval=2))])
    panel.start(run)
    counts = {}
    for step in range(2, 6):
        run.step = step
        loss = torch.tensor(0.0)
        with Operations() as operations:
            view = views.StepView(run, loss)
            panel.before_update(view)
            panel.after_update(view)
        counts[step] = operations.count
    assert counts[3] == 0
    assert all(counts[step] > 0 for step in (2, 4, 5))


@pytest.mark.parametrize("hook", HOOKS)
def test_a_failing_hook_is_recorded_once_and_the_others_go_on(run: views.Run, hook: str) -> None:
    bad = Recorder(**{hook: ValueError("no such layer")})
    good = Recorder()
    outcomes = drive(MonitorPanel([("bad", bad), ("good", good)]), run, steps=3)
    events = [event for outcome in outcomes for event in outcome.events]
    assert [(e.kind, e.layer, e.alert) for e in events] == [("monitor_failed", "all", False)]
    assert f"'bad' failed in {hook} and is switched off: ValueError: no such layer" in (
        events[0].message
    )
    assert "test_monitoring.py, line" in events[0].message
    assert bad.calls[-1][0] == hook
    assert len([call for call in bad.calls if call[0] == hook]) == 1
    assert len(good.calls) == 9


def test_a_failing_due_is_a_failure_too(run: views.Run) -> None:
    bad = Recorder(due=KeyError("step"))
    outcomes = drive(MonitorPanel([("bad", bad)]), run, steps=2)
    assert [len(outcome.events) for outcome in outcomes] == [0, 0, 1, 0, 0, 0, 0]
    assert bad.calls == [("start", 0)]


def test_keyboard_interrupts_are_not_held_up(run: views.Run) -> None:
    with pytest.raises(KeyboardInterrupt):
        drive(MonitorPanel([("m", Recorder(start=KeyboardInterrupt()))]), run)


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"loss": 1.0}, "family/layer/metric"),
        ({"a//b": 1.0}, "family/layer/metric"),
        ({"a/b/c/d": 1.0}, "family/layer/metric"),
        ({"a/b/c": torch.ones(2)}, "0-d"),
        ({"a/b/c": torch.ones((), dtype=torch.complex64)}, "complex64"),
        ({"a/b/c": "1.0"}, "str"),
        ({"a/b/c": None}, "NoneType"),
        ({"taken/all/metric": 1.0}, "already given"),
    ],
)
def test_what_is_no_metric_switches_its_monitor_off(
    run: views.Run, metrics: dict[str, Any], words: str
) -> None:
    first = Recorder(after_update={"taken/all/metric": 5.0})
    bad = Recorder(after_update={"fine/all/metric": 1.0, **metrics})
    outcome = drive(MonitorPanel([("first", first), ("bad", bad)]), run)[2]
    assert outcome.metrics == {"taken/all/metric": 5.0}
    assert [event.kind for event in outcome.events] == ["monitor_failed"]
    assert words in outcome.events[0].message


def test_the_first_wish_to_stop_counts_and_names_its_monitor(run: views.Run) -> None:
    first = Recorder(after_update=Observation(stop="enough"))
    second = Recorder(before_update=Observation(stop="too hot"))
    outcomes = drive(MonitorPanel([("first", first), ("second", second)]), run)
    assert [outcome.stop for outcome in outcomes] == [
        *(None, None, "monitor second: too hot", None, None)
    ]


def test_hooks_run_without_gradients(run: views.Run) -> None:
    class Asks(Monitor):
        def after_update(self, step: StepView) -> Observation | None:
            assert not torch.is_grad_enabled()
            return None

    assert all(not o.events for o in drive(MonitorPanel([("m", Asks())]), run))
    assert torch.is_grad_enabled()


def test_metrics_come_home_exactly_and_in_order() -> None:
    count = 2**40 + 1
    metrics: dict[str, float | Tensor] = {
        "a/all/count": torch.tensor(count),
        "a/all/float": 0.1,
        "a/all/single": torch.tensor(0.1),
        "a/all/half": torch.tensor(0.1, dtype=torch.bfloat16),
        "a/all/double": torch.tensor(0.1, dtype=torch.float64, requires_grad=True),
        "a/all/truth": torch.tensor(True),
        "a/all/int": 3,
        "a/all/inf": torch.tensor(-math.inf),
        "a/all/second": torch.tensor(7),
    }
    host = to_host(metrics)
    assert list(host) == list(metrics)
    assert all(type(value) is float for value in host.values())
    assert [*host.values()] == [
        *(count, 0.1, float(torch.tensor(0.1)), 0.10009765625, 0.1, 1.0, 3.0, -math.inf, 7.0)
    ]
    assert math.isnan(to_host({"a/all/nan": torch.tensor(math.nan)})["a/all/nan"])


@contextmanager
def transfers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The ways from the device to the host that are taken within."""
    taken: list[str] = []
    with monkeypatch.context() as patch:
        for way in ("tolist", "item", "cpu", "numpy", "__float__", "__int__", "__bool__"):
            original = getattr(Tensor, way)

            def counted(self: Tensor, *args: Any, way: str = way, do: Any = original) -> Any:
                taken.append(way)
                return do(self, *args)

            patch.setattr(Tensor, way, counted)
        yield taken


def test_all_tensors_of_a_step_come_in_one_transfer(
    run: views.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Recorder(
        before_update={f"one/{i}/a": torch.tensor(float(i)) for i in range(20)},
        after_update={f"one/{i}/b": torch.tensor(i) for i in range(20)},
    )
    two = Recorder(after_update={"two/all/a": torch.tensor(1.0, dtype=torch.float64)})
    panel = MonitorPanel([("one", one), ("two", two)])
    run.step = 1
    view = views.StepView(run, torch.tensor(0.0))
    with transfers(monkeypatch) as taken:
        panel.before_update(view)
        metrics = panel.after_update(view).metrics
    assert taken == ["tolist"]
    assert len(metrics) == 41


def test_state_goes_back_to_its_monitor_and_failures_stay_off(run: views.Run) -> None:
    old = MonitorPanel([("good", Recorder()), ("bad", Recorder(end=ValueError()))])
    drive(old, run, steps=2)
    state = old.state_dict()
    assert state["monitors"][1]["on"] is False

    good, bad = Recorder(), Recorder()
    new = MonitorPanel([("good", good), ("bad", bad)])
    new.start(run)
    new.load_state_dict(state)
    drive(new, run)
    assert good.loaded == {"calls": 7}
    assert bad.loaded is None
    assert bad.calls == [("start", 2)]


def test_the_state_of_other_monitors_is_refused(run: views.Run) -> None:
    state = MonitorPanel([("a", Recorder())]).state_dict()
    with pytest.raises(
        ValueError, match=r"saved monitors are \['a'\], those of this run are \['b'"
    ):
        MonitorPanel([("b", Recorder())]).load_state_dict(state)


@pytest.mark.parametrize("hook", ["state_dict", "load_state_dict"])
def test_a_failure_with_the_state_is_reported_with_the_next_outcome(
    run: views.Run, hook: str
) -> None:
    panel = MonitorPanel([("bad", Recorder(**{hook: ValueError("lost")}))])
    panel.load_state_dict(panel.state_dict())
    run.step = 1
    view = views.StepView(run, torch.tensor(0.0))
    panel.before_update(view)
    outcome = panel.after_update(view)
    assert [event.kind for event in outcome.events] == ["monitor_failed"]
    assert f"failed in {hook}" in outcome.events[0].message


# The conformance check must catch what it is there for.


class Draws(Monitor):
    def after_update(self, step: StepView) -> Observation | None:
        return Observation({"draws/all/number": torch.rand(())})


class Nudges(Monitor):
    def before_update(self, step: StepView) -> Observation | None:
        for parameter in step.model.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(0.5)
        return None


class ForgetsTrainingMode(Monitor):
    def evaluation(self, run: RunView, metrics: Mapping[str, float]) -> Observation | None:
        run.model.eval()
        return None


class AsksTooLate(Monitor):
    def after_update(self, step: StepView) -> Observation | None:
        name = next(iter(step.weights), None)
        return None if name is None else Observation({"x/all/y": step.weight_before(name).sum()})


class NeedsWeights(Monitor):
    def after_update(self, step: StepView) -> Observation | None:
        return Observation(
            {"x/all/y": torch.stack([w.scale() for w in step.weights.values()]).sum()}
        )


class DislikesNaN(Monitor):
    def after_update(self, step: StepView) -> Observation | None:
        if math.isnan(float(step.loss)):
            raise ValueError("the loss is NaN")
        return None


class ForgetsItsState(Monitor):
    seen = 0

    def after_update(self, step: StepView) -> Observation | None:
        self.seen += 1
        return None

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen}


class KeepsObjects(Monitor):
    def state_dict(self) -> dict[str, Any]:
        return {"self": Outcome()}


class NoInterval(Monitor):
    interval = 0


@pytest.mark.parametrize(
    ("monitor", "words"),
    [
        (Draws(), "random numbers"),
        (Nudges(), "parameter first.weight"),
        (ForgetsTrainingMode(), "training mode"),
        (AsksTooLate(), "first asked for after the update"),
        (NeedsWeights(), "failed in after_update"),
        (DislikesNaN(), "the loss is NaN"),
        (ForgetsItsState(), "does not survive"),
        (KeepsObjects(), "tensors, numbers, strings"),
        (NoInterval(), "at least 1"),
        (object(), "not a Monitor"),
    ],
)
def test_the_conformance_check_finds_bad_monitors(monitor: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_monitor(monitor)


def test_the_conformance_check_passes_good_monitors() -> None:
    random = torch.get_rng_state()
    check_monitor(Monitor())
    assert torch.equal(torch.get_rng_state(), random)


def test_only_interventions_may_act(run: Any) -> None:
    class Acting(Recorder):
        intervenes = True

    for what in ({"skip_update": True}, {"shifts": {"0.weight": "e3m4"}}):
        plain = MonitorPanel([("plain", Recorder(before_update=Observation(**what)))])
        view = views.StepView(run, torch.tensor(0.0))
        assert not plain.before_update(view).skip_update
        outcome = plain.after_update(view)
        assert not outcome.shifts
        assert "intervenes = True" in outcome.events[0].message
        acting = MonitorPanel([("acting", Acting(before_update=Observation(**what)))])
        view = views.StepView(run, torch.tensor(0.0))
        assert acting.before_update(view).skip_update == bool(what.get("skip_update"))
        assert acting.after_update(view).shifts == what.get("shifts", {})


def test_interventions_come_first_so_that_others_see_what_the_optimizer_gets(run: Any) -> None:
    order: list[str] = []

    class Named(Monitor):
        def __init__(self, name: str, intervenes: bool = False) -> None:
            self.name, self.intervenes = name, intervenes

        def before_update(self, step: StepView) -> None:
            order.append(self.name)

    panel = MonitorPanel([("a", Named("a")), ("b", Named("b", True)), ("c", Named("c"))])
    panel.before_update(views.StepView(run, torch.tensor(0.0)))
    assert order == ["b", "a", "c"]
