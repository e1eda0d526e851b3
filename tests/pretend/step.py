"""Training steps of a small encoder on the pretend device, by the product's own assembly and step loop."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from pretend.device import DEVICE
from pretend.log import Log, Watch
from torch import Tensor, nn

from altgrad_core.execution import assemble as assembly
from altgrad_core.interfaces.monitor import Event, Monitor
from altgrad_core.interfaces.plugin import Kind
from altgrad_core.interfaces.task import Batch, Evaluation, Task
from altgrad_core.planning.spec import PluginChoice
from altgrad_core.quantization.settings import QuantizationSettings
from altgrad_core.registry.catalog import catalog
from altgrad_core.training.determinism import make_deterministic
from altgrad_core.training.loop import Trainer
from altgrad_core.training.monitoring import MonitorPanel
from altgrad_core.training.settings import TrainingSettings
from altgrad_plugins.tasks.encoder import build_classifier, encoder_config
from altgrad_plugins.tasks.losses import multilabel_loss
from altgrad_plugins.tasks.settings import ModelSettings

WARM = 1
"""A step in which tables are made, and monitors learn in which order gradients come."""
MONITORS = catalog().names("monitor")
SETTINGS = {"curvature": {"interval": 1000, "probes": 2, "eigenvalues": 0}}
"""Of monitors that are not at their defaults. Eigenvalues of the Hessian are left out: a solver on the host asks for
tens of products one by one."""
QUIET = 2
"""A step in which no monitor is due."""
DUE = math.lcm(
    *(catalog().validate("monitor", name, SETTINGS.get(name, {})).interval for name in MONITORS)
)
"""One in which all are."""


@dataclass(frozen=True)
class Condition:
    """What to train, and which steps to look at."""

    quantization: Mapping[str, Any] | None
    """None: a model that nothing has converted."""
    optimizer: str = "adamw"
    monitors: Sequence[str] = ()
    more: Sequence[tuple[str, Monitor]] = ()
    steps: Sequence[int] = (QUIET,)
    layers: int = 2


class Stand(Task):
    """Batches of one shape, some of it padding, for an encoder that is trained from its initial weights."""

    head = ("classifier",)

    def __init__(self, layers: int) -> None:
        self._model = ModelSettings(
            type="distilbert", hidden_dim=64, num_layers=layers, num_heads=2, max_length=32
        )

    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None:
        """Nothing to do."""

    def facts(self) -> dict[str, Any]:
        """None."""
        return {}

    def build_model(self) -> nn.Module:
        """An encoder and a classifier."""
        return build_classifier(encoder_config(self._model, 100, 0), 8, self._model)

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """Token ids, mask and targets."""
        ids = torch.ones(batch_size, 32, dtype=torch.int64)
        tensors = {
            "input_ids": ids,
            "attention_mask": ids.clone(),
            "targets": torch.zeros(batch_size, 8),
        }
        return Batch(tensors, batch_size, ids.numel() - 1)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """As the product's own tasks have it."""
        ids, mask = batch.tensors["input_ids"], batch.tensors["attention_mask"]
        logits = model(ids, mask, padded=batch.tokens < ids.numel())
        return multilabel_loss(logits, batch.tensors["targets"], self._model)

    def evaluate(self, model: nn.Module, *args: Any, **kwargs: Any) -> Evaluation:
        """No step comes to it."""
        raise NotImplementedError


class Sink:
    """Takes what the loop writes, and keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def record(self, *args: Any) -> None:
        """Dropped."""

    def event(self, step: int, event: Event) -> None:
        """Kept."""
        self.events.append(event)

    def progress(self, step: int) -> None:
        """Dropped."""

    def sync(self) -> int:
        """Nothing was written."""
        return 0

    def rewind(self, position: int) -> None:
        """Nothing was written."""

    def begins(self, step: int, why: str = "") -> None:
        """Dropped."""


def trainer(condition: Condition, sink: Sink) -> Trainer:
    """What a worker trains with."""
    make_deterministic(DEVICE)
    spec: Any = SimpleNamespace(
        seed=0,
        quantization=QuantizationSettings(**(condition.quantization or {"format": "bf16"})),
        optimizer=_choice("optimizer", condition.optimizer),
        training=TrainingSettings(
            max_steps=10 * DUE,
            eval_interval=7 * DUE,
            checkpoint_interval=7 * DUE,
            cuda_graphs="off",  # there is no stream to capture
        ),
        monitors=[_choice("monitor", name) for name in condition.monitors],
    )
    unconverted = mock.patch.object(assembly, "quantize_from_settings")
    with contextlib.nullcontext() if condition.quantization else unconverted:
        parts, _ = assembly.assemble(spec, Stand(condition.layers), DEVICE)
    panel = MonitorPanel([*assembly.build_monitors(spec.monitors), *condition.more])
    return Trainer(
        replace(parts, panel=panel), spec.training, 0, sink, Path("/nonexistent/checkpoint")
    )


def _choice(kind: Kind, name: str) -> PluginChoice:
    settings = catalog().validate(kind, name, SETTINGS.get(name, {}))
    return PluginChoice(name=name, settings=settings.model_dump())


def steps(watch: Watch, condition: Condition) -> tuple[dict[int, Log], list[Event]]:
    """What each of the wanted steps gave the device to do, after a warm one; and the events of all."""
    sink = Sink()
    with watch:
        run = trainer(condition, sink)
        run.start()
        run.parts.model.train()
        run.step(WARM)
        found = {}
        for step in condition.steps:
            watch.take()
            run.step(step)
            found[step] = watch.take()
    return found, sink.events
