"""``MonitorSession``, and the training loop of the docs that uses it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core import MonitorSession, UserError, keep_on_grid, quantize_model
from altgrad_core.interfaces.monitor import Monitor, Observation, StepView
from altgrad_core.interfaces.task import Batch

ROOT = Path(__file__).parents[1]


def model_on_grid(rounding: Any = "nearest") -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    quantize_model(model, "e4m3", residency="grid", rounding=rounding)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    keep_on_grid(model, optimizer, torch.Generator().manual_seed(1))
    return model, optimizer


def loss_of(model: nn.Module) -> Tensor:
    return (model(torch.ones(3, 4)) ** 2).mean()


def test_the_loop_of_the_docs_runs_and_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs" / "library.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 20
    names: dict[str, Any] = {}
    exec(compile(code, "docs/library.md", "exec"), names)
    assert not names["session"].events
    lines = [line for line in capsys.readouterr().out.splitlines() if "stalls/" in line]
    assert [int(line.split()[0]) for line in lines] == [0, 4, 9, 14, 19]
    assert sum("flips/" in line for line in lines) == 2
    assert float(lines[-1].split()[1]) < float(lines[0].split()[1])


def test_counts_are_those_of_a_look_at_the_weights() -> None:
    model, optimizer = model_on_grid()
    session = MonitorSession(model, optimizer, monitors=[("flips", {"interval": 1})])
    optimizer.param_groups[0]["lr"] = 0.02  # no scale changes, which would be no flips
    for _ in range(3):
        before = model[0].weight.detach().clone()  # type: ignore[index]
        with session.step():
            loss = loss_of(model)
            loss.backward()
        seen = session.update(loss)
        optimizer.zero_grad()
        moved = int((model[0].weight != before).sum())  # type: ignore[index]
        assert seen.metrics["flips/0.weight/flips"] == moved > 0


class Asks(Monitor):
    """Skips every second update, and asks for an end at the fourth step."""

    intervenes = True

    def __init__(self) -> None:
        self.seen: list[int] = []

    def before_update(self, step: StepView) -> Observation:
        return Observation(skip_update=step.step % 2 == 0)

    def after_update(self, step: StepView) -> Observation:
        self.seen.append(step.step)
        if step.step == 2:
            return Observation(
                {"asks/all/two": 2.0}, shifts={"0.weight": "e5m2", "1.weight": "e0m0"}
            )
        return Observation(stop="enough" if step.step == 4 else None)

    def state_dict(self) -> dict[str, Any]:
        return {"seen": list(self.seen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


def test_interventions_are_carried_out() -> None:
    model, optimizer = model_on_grid()
    monitor = Asks()
    with MonitorSession(model, optimizer, monitors=[monitor]) as session:
        for step in range(1, 5):
            before = model[1].weight.detach().clone()  # type: ignore[index]
            with session.step():
                loss = loss_of(model)
                loss.backward()
            seen = session.update(loss)
            optimizer.zero_grad()
            assert torch.equal(model[1].weight, before) is (step % 2 == 0)  # type: ignore[index]
            assert seen.metrics == ({"asks/all/two": 2.0} if step == 2 else {})
    assert session.stopped == "monitor Asks: enough"
    assert "weight=e5m2" in repr(model[0])  # type: ignore[index]
    (event,) = session.events
    assert event.kind == "shift_failed"
    assert "e0m0" in event.message

    again = MonitorSession(model, optimizer, monitors=[Asks()])
    again.load_state_dict(session.state_dict())
    with again.step():
        loss = loss_of(model)
        loss.backward()
    again.update(loss, step=optimizer.step)
    assert again.state_dict()["monitors"]["monitors"][0]["state"] == {"seen": [1, 2, 3, 4, 5]}


def test_a_monitor_that_needs_a_task_is_switched_off_and_says_why() -> None:
    model, optimizer = model_on_grid()
    session = MonitorSession(model, optimizer, monitors=["curvature", "flips"])
    with session.step():
        loss = loss_of(model)
        loss.backward()
    seen = session.update(loss)
    assert [event.kind for event in seen.events] == ["monitor_failed"]
    assert "no task, so no pass can be repeated: give MonitorSession its" in seen.events[0].message
    assert any(name.startswith("flips/") for name in seen.metrics)


@pytest.mark.parametrize("late", [False, True])
def test_a_step_that_breaks_off_counts_for_nothing_and_training_goes_on(late: bool) -> None:
    def train(breaks: bool) -> list[dict[str, float]]:
        model, optimizer = model_on_grid()
        session = MonitorSession(model, optimizer, [("updates", {"interval": 1}), "throughput"])
        seen = []

        def broken() -> None:
            raise ZeroDivisionError

        def one(fails: bool = False) -> dict[str, float]:
            optimizer.zero_grad()
            with session.step():
                loss = loss_of(model)
                loss.backward()
                if fails and not late:
                    broken()
            return session.update(loss, step=broken if fails else None).metrics

        for step in range(4):
            if breaks and step == 2:
                with pytest.raises(ZeroDivisionError):
                    one(fails=True)
            seen.append(one())
        assert not session.events
        assert session.state_dict()["step"] == session.state_dict()["clock"]["steps"] == 4
        return [{k: v for k, v in m.items() if not k.startswith("throughput")} for m in seen]

    assert train(breaks=True) == train(breaks=False)


def test_each_of_two_optimizers_is_seen_to_move_its_own_weights() -> None:
    def train(split: bool) -> list[dict[str, float]]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
        quantize_model(model, "e4m3", residency="grid")
        parts = [model[0], model[1]] if split else [model]
        optimizers = [torch.optim.SGD(part.parameters(), lr=0.02) for part in parts]
        for optimizer in optimizers:
            keep_on_grid(model, optimizer)
        every = [("flips", {"interval": 1}), ("stalls", {"interval": 1})]
        session = MonitorSession(model, optimizers[0], every)
        seen = []
        for _ in range(4):
            with session.step():
                loss = loss_of(model)
                loss.backward()
            metrics = session.update(loss, step=lambda: [o.step() for o in optimizers]).metrics
            seen.append({k: v for k, v in metrics.items() if v == v})
            model.zero_grad()
        return seen

    assert train(split=True) == train(split=False)


def test_a_session_without_quantised_weights_says_so() -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (said,) = MonitorSession(model, optimizer, ["flips"]).events
    assert said.kind == "no_weights"
    assert "quantize_model(model, format) before" in said.message
    quantize_model(model, "e4m3")
    assert MonitorSession(model, optimizer, ["flips"]).events == []


def test_a_loop_that_steps_by_itself_is_told_of_update() -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    session = MonitorSession(model, optimizer)
    with session.step():
        loss_of(model).backward()
    optimizer.step()
    with (
        pytest.raises(UserError, match=r"session\.update\(loss\) in place of optimizer\.step\(\)"),
        session.step(),
    ):
        pass


def test_what_was_intended_of_a_tied_weight_is_seen_too() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"embed": nn.Embedding(6, 8), "head": nn.Linear(8, 6, bias=False)})
    model["head"].weight = model["embed"].weight
    quantize_model(model, "e4m3", residency="grid")
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)  # far below a gap
    keep_on_grid(model, optimizer)
    session = MonitorSession(model, optimizer, [("flips", {"interval": 1})])
    with session.step():
        loss = model["head"](model["embed"](torch.arange(6))).square().mean()
        loss.backward()
    metrics = session.update(loss).metrics
    assert metrics["flips/embed.weight/stalls"] > 40
    assert metrics["flips/embed.weight/stall_ratio"] == 1.0


class Noise:
    """A task whose model drops half of its inputs."""

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return (model(batch.tensors["x"]) ** 2).mean()


def test_passes_are_repeated_with_the_random_numbers_of_the_step() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 8))
    generator = torch.Generator().manual_seed(1)
    quantize_model(model, "fp32", rounding="stochastic", generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    task: Any = Noise()
    batch = Batch({"x": torch.randn(16, 64)}, samples=16, tokens=16)
    session = MonitorSession(model, optimizer, [("gradient_error", {"interval": 1})], task)
    for _ in range(2):
        with session.step():
            loss = task.loss(model, batch)
            loss.backward()
        drawn = torch.get_rng_state(), generator.get_state()
        seen = session.update(loss, batch)
        optimizer.zero_grad()
        assert not seen.events
        assert seen.metrics["gradient_error/all/relative_error"] < 1e-6  # fp32 rounds nothing
        assert torch.equal(torch.get_rng_state(), drawn[0])
        assert torch.equal(generator.get_state(), drawn[1])


def test_misuse_speaks() -> None:
    model, optimizer = model_on_grid()
    with pytest.raises(UserError, match=r"flipps.*flips"):
        MonitorSession(model, optimizer, monitors=["flipps"])
    with pytest.raises(UserError, match="not as <class"):
        MonitorSession(model, optimizer, monitors=[Asks])  # type: ignore[list-item]
    with pytest.raises(UserError, match=r"such as \['flips'\]"):
        MonitorSession(model, optimizer, "flips")
    with pytest.raises(UserError, match="not a list and a NoneType"):
        MonitorSession([model], None)  # type: ignore[arg-type]
    session = MonitorSession(model, optimizer)
    with pytest.raises(UserError, match=r"with session\.step"):
        session.update(torch.tensor(0.0))
    with pytest.raises(UserError, match="before_update"):
        session.after_update()
    with session.step():
        pass
    with pytest.raises(UserError, match="entered again"), session.step():
        pass
    with pytest.raises(UserError, match="not as a float"):
        session.update(0.0)  # type: ignore[arg-type]
    unkept = nn.Linear(2, 2)
    quantize_model(unkept, "e4m3", residency="grid")
    with pytest.raises(UserError, match="keep_on_grid"):
        MonitorSession(unkept, torch.optim.SGD(unkept.parameters(), lr=0.1))
