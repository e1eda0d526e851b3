"""Skipped steps and shifts: by hand on the bench, and through the step loop with checkpoints."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Event, Monitor
from altgrad_core.interfaces.task import Batch, Evaluation, Split, Task
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import GridResidency
from altgrad_core.quantization.surgery import change_format, quantize_model
from altgrad_core.registry.build import load_format as by_name
from altgrad_core.training.divergence import Diverged
from altgrad_core.training.loop import Parts, Trainer
from altgrad_core.training.monitoring import MonitorPanel
from altgrad_core.training.seeds import derive_seed
from altgrad_core.training.settings import TrainingSettings

LAYERS = ["0.weight", "2.weight"]
RANGE_CHAIN = ["e2m5", "e3m4", "e4m3", "e5m2", "e6m1"]


def built(choice: Any) -> Format:
    """A format as a suite writes it."""
    if isinstance(choice, str):
        return by_name(choice)
    settings = dict(choice)
    return by_name(settings.pop("name"), **settings)


def follow(place: Any) -> dict[str, Any]:
    """Carry out what the last step asked for, as the step loop does."""
    shifts: dict[str, Any] = place.last.shifts
    for name, choice in shifts.items():
        change_format(place.weights[name], built(choice))
    return shifts


def broken(*layers: str) -> dict[str, Tensor]:
    shapes = {"0.weight": (7, 6), "2.weight": (5, 7), "0.bias": (7,)}
    gradients = {name: torch.zeros(shape) for name, shape in shapes.items()}
    for layer in layers:
        gradients[layer].view(-1)[3] = math.inf
    return gradients


def tiny(name: str, weight: Tensor) -> Tensor:
    return weight * (1 + 2.0**-12)


def test_broken_steps_are_skipped_and_the_third_in_a_row_shifts_the_layer(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    monitor = load_monitor("mantissa_shift", interval=1, on_nan=RANGE_CHAIN, on_stall=())
    place = bench(monitor, two_layers("e5m2"))
    plan = [(), ("2.weight",), ("2.weight",), (), *[("2.weight",)] * 2, ("2.weight", "0.weight")]
    plan += [("0.bias",)] * 4
    seen = []
    for step, layers in enumerate(plan, 1):
        old = place.weights["0.weight"].parameter.clone()
        metrics = place.step(step, gradients=broken(*layers), change=lambda n, w: w + 1)
        moved = not torch.equal(old, place.weights["0.weight"].parameter)
        assert moved == (not layers)
        assert place.last.skip_update == bool(layers)
        seen.append(follow(place))
    assert seen == [{}] * 6 + [{"2.weight": "e6m1"}] + [{}] * 4
    assert place.weights["2.weight"].format.name == "e6m1"
    assert metrics == {
        "shift/0.weight/shifts": 0,
        "shift/2.weight/shifts": 1,
        "shift/all/shifts": 1,
        "shift/all/skipped": 9,
    }
    assert [(event.kind, event.layer) for event in place.events] == [
        ("update_skipped", "all"),
        ("format_shift", "2.weight"),
    ]
    assert place.events[0].message == "step 2 is skipped: the gradient of 2.weight is not finite"
    assert place.events[1].message == (
        "e5m2 -> e6m1 after step 7: 3 steps in a row with a gradient that is not finite"
    )


def test_scope_model_shifts_every_watched_layer_from_where_it_is(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    model = two_layers("e5m2", overrides=[("2", load_format("e3m4"))])
    monitor = load_monitor("mantissa_shift", scope="model", patience=2, on_nan=RANGE_CHAIN)
    place = bench(monitor, model)
    shifts = []
    for step in range(1, 7):
        place.step(step, gradients=broken("0.bias"))
        shifts.append(follow(place))
    assert shifts == [
        *({}, {"0.weight": "e6m1", "2.weight": "e4m3"}),
        *({}, {"2.weight": "e5m2"}),
        *({}, {"2.weight": "e6m1"}),
    ]
    ends = [event for event in place.events if event.kind == "format_chain_end"]
    assert [event.layer for event in ends] == ["0.weight"]
    assert "no format behind e6m1" in ends[0].message


def test_stalls_move_resident_layers_to_more_mantissa(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """Layer 0 moves, layer 2 stalls; each measurement in a row counts, and starts anew after a move."""

    def change(name: str, weight: Tensor) -> Tensor:
        return tiny(name, weight) if name == "2.weight" else weight * 0.8

    monitor = load_monitor("mantissa_shift", interval=2)
    place = bench(monitor, two_layers("e5m2", residency="grid"))
    shifts = {}
    for step in range(1, 25):
        place.step(step, change=change)
        if found := follow(place):
            shifts[step] = found
    # measured at 1, 2, 4, 6, …
    assert shifts == {4: {"2.weight": "e4m3"}, 10: {"2.weight": "e3m4"}, 16: {"2.weight": "e2m5"}}
    assert place.weights["2.weight"].format.name == "e2m5"
    assert place.weights["0.weight"].format.name == "e5m2"
    assert [event.kind for event in place.events] == ["format_shift"] * 3 + ["format_chain_end"]
    assert place.last.metrics["shift/2.weight/shifts"] == 3


def test_stalls_of_the_whole_model_are_judged_together(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    def run(threshold: float) -> list[dict[str, Any]]:
        settings = {"scope": "model", "interval": 1, "patience": 2, "threshold": threshold}
        place = bench(load_monitor("mantissa_shift", **settings), two_layers(residency="grid"))

        def change(name: str, weight: Tensor) -> Tensor:
            return tiny(name, weight) if name == "2.weight" else weight * 0.8

        found = []
        for step in (1, 2):
            place.step(step, change=change)
            found.append(follow(place))
        return found

    assert run(0.99) == [{}, {}]
    # 35 of 77 elements stall for sure
    assert run(0.4) == [{}, {"0.weight": "e2m5", "2.weight": "e2m5"}]


@pytest.mark.parametrize("residency", ["master", "grid"])
def test_other_monitors_measure_a_skipped_step_and_a_new_format(
    residency: str, load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """Nothing was intended in it, so nothing flips and nothing stalls."""
    place = bench(load_monitor("mantissa_shift"), two_layers("e5m2", residency=residency))
    shift = load_monitor("mantissa_shift", interval=1, patience=1, on_nan=RANGE_CHAIN)
    others = ("overflow", "nonfinite", "amax", "range", "stalls", "flips")
    monitors = [(name, load_monitor(name, interval=1)) for name in others]
    place.panel = MonitorPanel([*monitors, ("mantissa_shift", shift)])
    assert place.panel.start(place.run).events == []
    for step in range(1, 6):
        skipped = step == 3
        gradients = broken("0.weight") if skipped else broken()
        metrics = place.step(step, gradients=gradients, change=lambda n, w: w * 0.8)
        assert place.last.skip_update == skipped
        assert (metrics["stalls/all/zero_ratio"] == 1) == skipped
        assert (metrics["flips/all/flips"] == 0) == skipped
        assert bool(follow(place)) == skipped
        assert metrics["nonfinite/all/backward"] == (step >= 3)
        assert metrics["nonfinite/all/optimizer"] == 0
    assert place.weights["0.weight"].format.name == "e6m1"


def test_masters_are_left_alone_unless_asked_for(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    def run(**settings: Any) -> dict[str, Any]:
        monitor = load_monitor("mantissa_shift", interval=1, patience=1, threshold=0.9, **settings)
        place = bench(monitor, two_layers("e5m2"))
        place.step(1, change=tiny)
        return follow(place)

    assert run() == {}
    assert run(masters=True) == {"0.weight": "e4m3", "2.weight": "e4m3"}
    assert run(masters=True, on_stall=()) == {}


def test_a_layer_moves_no_more_often_than_it_may(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    """Stalls and NaN would send it to and fro for ever."""
    chain = {"on_stall": ["e5m2", "e4m3"], "on_nan": ["e4m3", "e5m2"]}
    monitor = load_monitor("mantissa_shift", interval=1, patience=1, most=3, **chain)
    place = bench(monitor, two_layers("e5m2", residency="grid"))
    found = []
    for step in range(1, 9):
        gradients = broken("0.weight") if step % 2 == 0 else {}
        place.step(step, gradients=gradients, change=tiny)
        found.append(follow(place).get("0.weight"))
    assert found == ["e4m3", "e5m2", "e4m3"] + [None] * 5
    ends = [e for e in place.events if (e.kind, e.layer) == ("format_chain_end", "0.weight")]
    assert len(ends) == 1
    assert "3 moves were made" in ends[0].message


def test_chains_may_have_settings_and_formats_outside_of_them_stay(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    def wider(bits: int) -> dict[str, Any]:
        return {"name": "exmy", "exponent_bits": bits, "mantissa_bits": 7 - bits}

    model = two_layers("e5m2", overrides=[("2", load_format("e0m7"))])
    chain = ["e5m2", wider(4), wider(3)]
    monitor = load_monitor("mantissa_shift", interval=1, patience=1, on_nan=chain)
    place = bench(monitor, model)
    found = []
    for step in (1, 2, 3):
        place.step(step, gradients=broken("0.weight", "2.weight"))
        found.append(follow(place))
    assert found == [{"0.weight": wider(4)}, {"0.weight": wider(3)}, {}]
    assert "exmy(exponent_bits=4, mantissa_bits=3) -> exmy(exponent_bits=3, mantissa_bits=4)" in (
        place.events[3].message
    )
    ends = [event.layer for event in place.events if event.kind == "format_chain_end"]
    assert ends == ["2.weight", "0.weight"]


@pytest.mark.parametrize(
    ("chain", "message"),
    [(["e5m2"], "leads nowhere"), (["e5m2", "e4m3", "e5m2"], "each format once")],
)
def test_chains_that_lead_nowhere_are_refused(
    chain: list[str], message: str, load_monitor: Callable[..., Monitor]
) -> None:
    for direction in ("on_stall", "on_nan"):
        with pytest.raises(ValidationError, match=message):
            load_monitor("mantissa_shift", **{direction: chain})


def test_a_format_that_does_not_exist_is_found_at_the_start(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("mantissa_shift", on_nan=["e5m2", "e9m9"]), two_layers())
    assert [event.kind for event in place.events] == ["monitor_failed"]
    assert "e9m9" in place.events[0].message


def test_the_state_survives_a_restart_after_every_step(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    def build() -> Any:
        monitor = load_monitor("mantissa_shift", interval=1, on_nan=RANGE_CHAIN)
        return bench(monitor, two_layers("e4m3", residency="grid"))

    def drive(restarts: bool) -> tuple[list[Any], list[Event], dict[str, float]]:
        place, shifts, events = build(), [], []
        for step in range(1, 14):
            gradients = broken("2.weight") if 3 <= step <= 9 else {}
            metrics = place.step(step, gradients=gradients, change=tiny)
            shifts.append(follow(place))
            events += place.last.events
            if restarts:
                file = io.BytesIO()
                torch.save(place.panel.state_dict(), file)
                file.seek(0)
                formats = {name: place.weights[name].format.name for name in LAYERS}
                place = build()
                for name, fmt in formats.items():
                    change_format(place.weights[name], by_name(fmt))
                place.panel.load_state_dict(torch.load(file, weights_only=True))
        return shifts, events, metrics

    alone = drive(False)
    assert sum(map(len, alone[0])) >= 3
    assert drive(True) == alone


class Fit(Task):
    """A linear fit whose gradients at the first layer are NaN while its weight is in e5m2.

    That is a fault that only another format cures; it sets in at step 4.
    """

    head = ()

    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {}

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        own = torch.Generator().manual_seed(1000 * seed + step)
        x = torch.randn(batch_size, 4, generator=own)
        tensors = {"x": x, "y": x.sum(1, keepdim=True), "step": torch.tensor(step)}
        return Batch(tensors, samples=batch_size, tokens=4 * batch_size)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = (model(batch.tensors["x"]) - batch.tensors["y"]).square().mean()
        first: Any = model[0]  # type: ignore[index]
        cured = first.weight_quantizers["weight"].format.name != "e5m2"
        if model.training and int(batch.tensors["step"]) >= 4 and not cured:
            loss = loss * math.nan
        return loss

    def evaluate(
        self,
        model: nn.Module,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        calibration: Mapping[str, float] | None = None,
    ) -> Evaluation:
        loss = float(self.loss(model, self.batch(10_000, 32, 0)).detach())
        return Evaluation({"loss": loss}, {})


class Memory:
    """A sink that remembers, with the positions of a file."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str, Any]] = []

    def record(self, step: int, kind: str, metrics: Mapping[str, float]) -> None:
        self.lines.append((step, kind, dict(metrics)))

    def event(self, step: int, event: Event) -> None:
        self.lines.append((step, "event", event))

    def progress(self, step: int) -> None: ...

    def sync(self) -> int:
        return len(self.lines)

    def rewind(self, position: int) -> None:
        del self.lines[position:]

    def begins(self, step: int, why: str = "") -> None: ...


class Killed(BaseException):
    pass


def trainer(
    folder: Path, sink: Memory, monitor: Monitor | None, residency: Any, kill_at: int = 0
) -> Trainer:
    class Cut(Fit):
        def batch(self, step: int, batch_size: int, seed: int) -> Batch:
            if step == kill_at and batch_size == 8:
                raise Killed
            return super().batch(step, batch_size, seed)

    settings = TrainingSettings(
        batch_size=8,
        learning_rate=0.05,
        max_steps=20,
        eval_interval=5,
        log_interval=2,
        checkpoint_interval=3,
        divergence_patience=8,
    )
    task = Cut()
    torch.manual_seed(derive_seed(7, "model"))
    model = task.build_model()
    generator = torch.Generator()
    quantize_model(
        model,
        by_name("e5m2"),
        residency=residency,
        rounding="stochastic" if residency == "grid" else "nearest",
        generator=generator,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    weights = weight_geometry(model)
    kept = GridResidency(model, generator)
    kept.attach(optimizer)
    parts = Parts(
        task=task,
        model=model,
        optimizer=optimizer,
        weights=weights,
        panel=MonitorPanel([] if monitor is None else [("mantissa_shift", monitor)]),
        device=torch.device("cpu"),
        generator=generator,
        residency=kept,
        change_format=lambda name, choice: change_format(weights[name], built(choice)),
    )
    folder.mkdir(exist_ok=True)
    return Trainer(parts, settings, 7, sink, folder / "state.pt")


CHAIN = ["e5m2", "e4m3", "e3m4"]


@pytest.mark.parametrize("residency", ["master", "grid"])
def test_a_run_that_would_diverge_goes_on(
    residency: str, tmp_path: Path, load_monitor: Callable[..., Monitor]
) -> None:
    with pytest.raises(Diverged):
        trainer(tmp_path / "alone", Memory(), None, residency).run()
    sink = Memory()
    monitor = load_monitor("mantissa_shift", interval=5, on_nan=CHAIN, on_stall=())
    run = trainer(tmp_path / "saved", sink, monitor, residency)
    assert run.run().step == 20
    for geometry in run.parts.weights.values():
        assert geometry.format.name == "e4m3"
        values = geometry.format.code_values()
        grid = geometry.value(geometry.rung(geometry.parameter)) / geometry.scale()
        assert torch.isin(grid, values[values.isfinite()]).all()
        assert bool(torch.isfinite(geometry.parameter).all())
        if residency == "grid":
            assert torch.equal(grid * geometry.scale(), geometry.parameter)
    events = [(step, e.kind, e.layer) for step, kind, e in sink.lines if kind == "event"]
    assert events == [
        (4, "update_skipped", "all"),
        (6, "format_shift", "0.weight"),
        (6, "format_shift", "2.weight"),
    ]
    last = [metrics for step, kind, metrics in sink.lines if (step, kind) == (20, "monitor")]
    assert last[0]["shift/all/skipped"] == 3
    losses = {s: m["train/all/loss"] for s, kind, m in sink.lines if kind == "train"}
    assert math.isnan(losses[6])
    assert losses[20] < losses[2]


def shifting(load_monitor: Callable[..., Monitor]) -> Monitor:
    return load_monitor(
        "mantissa_shift", interval=2, on_nan=CHAIN, on_stall=["e4m3", "e3m4"], threshold=0.01
    )


@pytest.fixture(scope="module", params=["master", "grid"])
def whole(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    load_monitor: Callable[..., Monitor],
) -> tuple[str, Memory, Trainer]:
    """A residency, and the records and the trainer of a run on it that nothing interrupted."""
    torch.set_num_threads(1)
    sink, folder = Memory(), tmp_path_factory.mktemp("whole")
    uninterrupted = trainer(folder, sink, shifting(load_monitor), request.param)
    uninterrupted.run()
    return request.param, sink, uninterrupted


@pytest.mark.parametrize("cut", [5, 6, 7, 8, 10, 14])
def test_a_shifted_run_that_is_interrupted_ends_bit_identical(
    cut: int,
    whole: tuple[str, Memory, Trainer],
    tmp_path: Path,
    load_monitor: Callable[..., Monitor],
) -> None:
    residency, expected, uninterrupted = whole
    sink = Memory()
    with pytest.raises(Killed):
        trainer(tmp_path / "cut", sink, shifting(load_monitor), residency, kill_at=cut).run()
    resumed = trainer(tmp_path / "cut", sink, shifting(load_monitor), residency)
    resumed.run()
    assert str(sink.lines) == str(expected.lines)  # as text, in which NaN equals NaN
    ours, theirs = resumed.parts, uninterrupted.parts
    for name, geometry in theirs.weights.items():
        assert ours.weights[name].format.name == geometry.format.name != "e5m2"
        assert torch.equal(ours.weights[name].scale(), geometry.scale())
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.equal(a, b)
    names = {geometry.format.name for geometry in theirs.weights.values()}
    assert names == ({"e3m4"} if residency == "grid" else {"e4m3"})
