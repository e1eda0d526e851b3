"""Planted faults, named to the step at any interval, by both ledgers."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.testing.monitors import check_monitor
from altgrad_core.training.view import StepView
from altgrad_plugins.monitors.stability import nonfinite
from altgrad_plugins.monitors.stability.ledgers import (
    DeferredLedger,
    EagerLedger,
    Stage,
    as_state,
    from_state,
)

CPU = torch.device("cpu")
BROKEN = (math.nan, math.inf, -math.inf)


@pytest.fixture(params=["eager", "deferred"])
def mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """``deferred``: as on an accelerator, where nothing is read before the interval."""
    if request.param == "deferred":
        monkeypatch.setattr(nonfinite, "ledger", DeferredLedger)
    return str(request.param)


class Plant(nn.Module):
    """Passes on what it gets, and breaks its first element where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.forward_value: float | None = None
        self.backward_value: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.forward_value is not None:
            x = x.clone()
            x.data.view(-1)[0] = self.forward_value
        if self.backward_value is not None and x.requires_grad:
            x.register_hook(self._break)
        return x

    def _break(self, gradient: Tensor) -> Tensor:
        assert self.backward_value is not None
        broken = gradient.clone()
        broken.view(-1)[0] = self.backward_value
        return broken


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Module()
        self.plant = Plant()
        self.output.dense = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.output.dense(self.plant(x))
        return torch.sigmoid(hidden)


class Encoder(nn.Module):
    """Five blocks, ``layer.0`` to ``layer.4``. Behind each, ``sigmoid`` makes an inf finite again."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Block() for _ in range(5))
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.layer:
            x = block(x)
        return x


def encoder(load_format: Callable[..., Format]) -> Encoder:
    torch.manual_seed(2)
    model = Encoder()
    quantize_model(model, load_format("e5m2"))
    return model


X = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))


def names(place: Any) -> list[tuple[str, str]]:
    return [(event.kind, event.layer) for event in place.events]


@pytest.mark.parametrize("interval", [1, 50])
def test_an_overflow_in_layer_3_at_step_7_is_named_exactly_so(
    interval: int,
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    """Its weight is large but finite, its output is not, and ``sigmoid`` hides it from the loss."""
    place = bench(load_monitor("nonfinite", interval=interval), encoder(load_format))

    def grow(name: str, weight: Tensor) -> Tensor:
        if name == "layer.3.output.dense.weight" and place.run.step == 6:
            return torch.full_like(weight, 3e38)
        return weight.clamp(-1, 1)

    seen: list[int] = []
    for step in range(1, 51):
        found = place.step(step, inputs=X, change=grow)
        seen += [step] * (len(place.events) - len(seen))
        assert bool(found) == (interval == 1 or step in (1, 50))
    assert names(place) == [("nan_forward", "layer.3.output.dense")]
    assert place.events[0].message == "first non-finite output at step 7"
    assert place.events[0].alert
    assert seen == [7 if mode == "eager" or interval == 1 else 50]
    assert found["nonfinite/all/first_step"] == 7
    assert found["nonfinite/all/forward"] == 1


def test_a_real_overflow_of_a_format_is_found_where_it_happens(
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    """A weight outgrows its delayed scale, and the format has a NaN for that."""
    fmt = load_format("e4m3", overflow="special")
    model = two_layers(fmt, scaling=ScalingSettings(mode="delayed", history=4))
    place = bench(load_monitor("nonfinite"), model, max_steps=9)
    for step in range(1, 10):
        place.step(
            step,
            inputs=X,
            change=lambda n, w, at=step: w * 4 if at == 6 and n == "2.weight" else w,
        )
    assert names(place) == [("nan_forward", "2"), ("nan_backward", "0.bias")]
    assert place.events[1].message == (
        "first non-finite gradient at step 7, after nan_forward in '2' at step 7"
    )


@pytest.mark.parametrize("value", BROKEN)
def test_a_gradient_that_breaks_in_layer_2_is_named_before_those_that_it_breaks(
    value: float,
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    model = encoder(load_format)
    order: list[str] = []
    for name, parameter in model.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda p, n=name: order.append(n))
    place = bench(load_monitor("nonfinite"), model, max_steps=9)
    for step in range(1, 10):
        model.layer[2].plant.backward_value = value if step == 7 else None
        place.step(step, inputs=X)
    upper = [n for n in order[: len(order) // 9] if n.startswith(("layer.4", "layer.3", "layer.2"))]
    below = order[: len(order) // 9][len(upper)]
    assert below.startswith("layer.1")  # the plant stands at the input of layer 2
    assert names(place) == [("nan_backward", below)]
    assert place.events[0].message == "first non-finite gradient at step 7"
    assert place.last.metrics["nonfinite/all/backward"] == 1
    assert place.last.metrics["nonfinite/all/forward"] == 0


def test_several_backward_passes_of_a_step_are_all_looked_at(
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    model = encoder(load_format)

    def accumulated(model: nn.Module, batch: Batch) -> Tensor:
        plant: Any = model.layer[2].plant  # type: ignore[index, union-attr]
        plant.backward_value = None
        model(batch.tensors["inputs"]).sum().backward()
        plant.backward_value = math.inf if place.run.step == 3 else None
        total: Tensor = model(batch.tensors["inputs"]).sum()
        return total

    place = bench(load_monitor("nonfinite"), model, max_steps=4, loss=accumulated)
    for step in range(1, 5):
        place.step(step, inputs=X)
    [(kind, layer)] = names(place)
    assert kind == "nan_backward"
    assert layer.startswith("layer.1.")
    assert "at step 3" in place.events[0].message


def test_gradients_are_looked_at_before_they_are_clipped(
    load_monitor: Callable[..., Monitor], load_format: Callable[..., Format], bench: Any
) -> None:
    """Clipping by the total norm makes every gradient NaN when one is."""
    model = encoder(load_format)
    place = bench(load_monitor("nonfinite"), model, max_steps=2)
    place.step(1, inputs=X)
    model.layer[2].plant.backward_value = math.nan
    place.loss = lambda m, batch: _clipped(m(batch.tensors["inputs"]).sum(), m)
    place.step(2, inputs=X)
    assert all(bool(p.grad.isnan().any()) for p in model.layer.parameters())
    place.panel.end(place.run)
    [(kind, layer), *_] = names(place)
    assert kind == "nan_backward"
    assert layer.startswith("layer.1.")  # the plant stands at the input of layer 2


def _clipped(loss: Tensor, model: nn.Module) -> Tensor:
    """The loss, at whose backward pass, when all gradients are there, their total norm is clipped."""
    engine: Any = torch.autograd.Variable._execution_engine  # type: ignore[attr-defined]

    def clip() -> None:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)

    loss.register_hook(lambda gradient: engine.queue_callback(clip))
    return loss


@pytest.mark.parametrize("value", BROKEN)
def test_a_weight_that_breaks_in_the_update_is_blamed_on_that_step(
    value: float,
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    place = bench(load_monitor("nonfinite"), encoder(load_format), max_steps=50)

    def change(name: str, weight: Tensor) -> Tensor:
        if place.run.step == 7 and name == "unused.bias":  # nothing else will ever notice
            weight[1] = value
        return weight

    for step in range(1, 51):
        found = place.step(step, inputs=X, change=change)
    assert names(place) == [("nan_optimizer", "unused.bias")]
    assert place.events[0].message == "first non-finite weight after the update at step 7"
    assert found["nonfinite/all/optimizer"] == 44
    assert found["nonfinite/all/forward"] == found["nonfinite/all/backward"] == 0


def test_optimizer_state_is_found_at_the_interval(
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    place = bench(load_monitor("nonfinite", interval=10), encoder(load_format), max_steps=50)
    parameter = place.weights["layer.1.output.dense.weight"].parameter
    for step in range(1, 12):
        if step == 7:
            state = {"step": torch.tensor(7.0), "exp_avg_sq": torch.full((6, 6), math.inf)}
            place.run.optimizer.state[parameter] = state
        place.step(step, inputs=X)
    assert names(place) == [("nan_optimizer", "layer.1.output.dense.weight")]
    assert place.events[0].message == "first non-finite optimizer state found at step 10"


def test_optimizer_state_is_looked_at_where_something_else_breaks(
    load_monitor: Callable[..., Monitor], load_format: Callable[..., Format], bench: Any
) -> None:
    model = encoder(load_format)
    place = bench(load_monitor("nonfinite"), model)
    parameter = place.weights["layer.1.output.dense.weight"].parameter
    for step in range(1, 9):
        model.layer[2].plant.backward_value = math.nan if step == 7 else None
        if step == 7:
            place.run.optimizer.state[parameter] = {"exp_avg": torch.full((6, 6), math.nan)}
        place.step(step, inputs=X)
    assert names(place)[1] == ("nan_optimizer", "layer.1.output.dense.weight")
    assert "optimizer state found at step 7, after nan_backward" in place.events[1].message


def test_gradients_that_no_backward_pass_has_brought_are_looked_at(
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    place = bench(load_monitor("nonfinite"), encoder(load_format), max_steps=2)
    place.step(1, inputs=X)
    broken = torch.full((6,), math.nan)
    gradients = {"layer.0.output.dense.bias": broken, "layer.4.output.dense.bias": broken}
    place.step(2, gradients=gradients)
    assert names(place) == [("nan_backward", "layer.4.output.dense.bias")]


def test_a_loss_that_breaks_alone_is_named(
    mode: str,
    load_monitor: Callable[..., Monitor],
    bench: Any,
    two_layers: Any,
) -> None:
    place = bench(load_monitor("nonfinite"), two_layers(), max_steps=4)
    for step in range(1, 5):
        place.run.step = step
        loss = torch.tensor(math.inf if step == 3 else 0.0)
        seen = StepView(place.run, loss)
        place.panel.before_update(seen)
        place.events += place.panel.after_update(seen).events
    assert names(place) == [("nan_forward", "loss")]
    assert place.events[0].message == "first non-finite loss at step 3"


def test_all_outputs_find_what_quantised_layers_hide(
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    """The output of ``plant`` is broken, and the quantised layer behind it shows it next."""
    for outputs, expected in (
        ("all", "layer.2.plant"),
        ("quantized", "layer.2.output.dense"),
    ):
        model = encoder(load_format)
        place = bench(load_monitor("nonfinite", outputs=outputs), model, max_steps=3)
        for step in (1, 2, 3):
            model.layer[2].plant.forward_value = math.nan if step == 2 else None
            place.step(step, inputs=X)
        assert names(place)[0] == ("nan_forward", expected)
        assert "at step 2" in place.events[0].message


def test_large_finite_numbers_are_no_fault(
    mode: str, load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """Their float32 sum overflows, and so does their difference."""
    place = bench(load_monitor("nonfinite", interval=1), two_layers("fp32"))
    large = torch.full((7, 6), 3e38)
    large[::2] *= -1
    for gradient in (torch.full((7, 6), 3e38), large, -torch.full((7, 6), 3e38)):
        metrics = place.step(gradients={"0.weight": gradient}, change=lambda n, w: w)
        assert metrics["nonfinite/all/first_step"] == 0
    place.step(2, change=lambda n, w: large if n == "0.weight" else w)
    assert place.events == []


def test_evaluation_and_repeated_passes_are_not_looked_at(
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    model = encoder(load_format)
    place = bench(load_monitor("nonfinite", interval=1, outputs="all"), model)
    model.layer[2].plant.forward_value = math.nan
    model.eval()
    model(X)
    model.train()
    for reference in (False, True):
        batch = Batch({"inputs": X}, samples=4, tokens=4)
        with place.run._replayer.replay(batch, step=1, reference=reference) as loss:
            torch.autograd.grad(loss, [model.layer[0].output.dense.weight])
    model.layer[2].plant.forward_value = None
    assert place.step(1, inputs=X)["nonfinite/all/forward"] == 0
    assert place.events == []


def test_events_come_once_for_each_kind_and_survive_a_restart(
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    def broken_steps(place: Any, steps: range) -> None:
        for step in steps:
            broken = 3 <= step <= 6
            place.model.layer[1].plant.forward_value = math.nan if broken else None
            place.step(step, inputs=X)

    whole = bench(load_monitor("nonfinite", interval=4), encoder(load_format), max_steps=9)
    broken_steps(whole, range(1, 10))
    # the bias of layer 4 is first in the backward pass, unless its weight is
    assert [kind for kind, _ in names(whole)] == ["nan_forward", "nan_backward"]
    assert whole.last.metrics == {
        "nonfinite/all/forward": 4,
        "nonfinite/all/backward": 4,
        "nonfinite/all/optimizer": 0,
        "nonfinite/all/first_step": 3,
    }
    for cut in (2, 4, 7):
        first = bench(load_monitor("nonfinite", interval=4), encoder(load_format), max_steps=9)
        broken_steps(first, range(1, cut))
        file = io.BytesIO()
        torch.save(first.panel.state_dict(), file)
        file.seek(0)
        second = bench(load_monitor("nonfinite", interval=4), encoder(load_format), max_steps=9)
        second.panel.load_state_dict(torch.load(file, weights_only=True))
        broken_steps(second, range(cut, 10))
        assert first.events + second.events == whole.events
        assert second.last.metrics == whole.last.metrics


def test_the_run_is_stopped_after_an_unbroken_row(
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    def stops(steps: set[int], **settings: Any) -> list[int]:
        place = bench(load_monitor("nonfinite", interval=1, **settings), encoder(load_format))
        found = []
        for step in range(1, 12):
            place.model.layer[1].plant.forward_value = math.nan if step in steps else None
            place.step(step, inputs=X)
            if place.last.stop is not None:
                assert f"to {step}" in place.last.stop
                found.append(step)
        return found

    broken = {2, 3, 5, 6, 7, 8, 9}
    assert stops(broken) == []
    assert stops(broken, stop=True, patience=2) == [7, 8, 9]
    assert stops(broken, stop=True, patience=0) == sorted(broken)


def test_what_has_not_been_read_is_reported_at_the_end_and_hooks_come_off(
    mode: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    model = encoder(load_format)
    place = bench(load_monitor("nonfinite"), model)
    for step in (1, 2):
        model.layer[1].plant.forward_value = math.nan if step == 2 else None
        place.step(step, inputs=X)
    before = len(place.events)
    place.events += place.panel.end(place.run).events
    assert names(place)[0] == ("nan_forward", "layer.1.output.dense")
    assert (before > 0) == (mode == "eager")
    hooks = [len(module._forward_hooks) for module in model.modules()]
    assert sum(hooks) == 0
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())


def test_a_hook_that_fails_switches_the_monitor_off_and_the_run_goes_on(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = encoder(load_format)
    place = bench(load_monitor("nonfinite"), model)
    monkeypatch.setattr(EagerLedger, "note", lambda *args: 1 / 0)
    with pytest.raises(AssertionError, match=r"failed in before_update.*ZeroDivisionError"):
        place.step(inputs=X)
    assert sum(len(module._forward_hooks) for module in model.modules()) == 0


def test_a_model_without_quantised_weights_is_watched_too(
    mode: str, load_monitor: Callable[..., Monitor], bench: Any
) -> None:
    place = bench(load_monitor("nonfinite", interval=1), nn.Linear(3, 2))
    place.step(1, gradients={"weight": torch.full((2, 3), math.nan)})
    assert names(place) == [("nan_backward", "weight")]


def test_conformance_of_the_ledger_of_accelerators(
    monkeypatch: pytest.MonkeyPatch, load_monitor: Callable[..., Monitor]
) -> None:
    monkeypatch.setattr(nonfinite, "ledger", DeferredLedger)
    for outputs in ("quantized", "all"):
        check_monitor(load_monitor("nonfinite", interval=3, outputs=outputs))


@pytest.mark.parametrize("seed", range(20))
def test_both_ledgers_agree_with_the_definition(seed: int) -> None:
    """Random faults over random tensors, with and without a checkpoint in between."""
    draw = random.Random(seed)
    slots = [(stage, f"t{index}") for stage in Stage for index in range(3)]
    eager, deferred = EagerLedger(), DeferredLedger(CPU)
    first: dict[tuple[Stage, str], int] = {}
    counts, streak = [0, 0, 0], 0
    for step in range(1, 13):
        bad = set()
        draw.shuffle(slots)
        for slot in slots:
            if draw.random() < 0.2:  # not every tensor is there in every step
                continue
            for _ in range(draw.choice((1, 1, 2))):
                dtype = draw.choice((torch.float32, torch.bfloat16, torch.float16, torch.float64))
                x = torch.randn(draw.choice((1, 5)), 3).to(dtype)
                if draw.random() < 0.04:
                    x[0, draw.randrange(3)] = draw.choice(BROKEN)
                    bad.add(slot)
                for ledger in (eager, deferred):
                    ledger.note(*slot, x)
        for slot in bad:
            first.setdefault(slot, step)
        passes = {(0, 0, 1, 2, 2)[stage] for stage, _ in bad}
        counts = [count + (index in passes) for index, count in enumerate(counts)]
        streak = streak + 1 if bad else 0
        assert eager.close(step) == bool(bad)
        deferred.close(step)
        if draw.random() < 0.2:
            kept = [from_state(as_state(ledger.read())) for ledger in (eager, deferred)]
            eager, deferred = EagerLedger(), DeferredLedger(CPU)
            eager.load(kept[0])
            deferred.load(kept[1])
    for ledger in (eager, deferred):
        found = ledger.read()
        assert {(f.stage, f.name): f.step for f in found.firsts} == first
        order = [(f.step, f.stage) for f in found.firsts]
        assert order == sorted(order)
        assert (found.counts, found.streak) == (counts, streak)


def test_ledgers_take_empty_tensors() -> None:
    for ledger in (EagerLedger(), DeferredLedger(CPU)):
        ledger.note(Stage.OUTPUT, "empty", torch.empty(0, 3))
        ledger.close(1)
        assert ledger.read().firsts == []
