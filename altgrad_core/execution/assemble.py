"""From a RunSpec to the parts of a run, built through the registry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.interfaces.optimizer import OptimizerPlugin
from altgrad_core.interfaces.task import Task
from altgrad_core.interfaces.tracker import Tracker
from altgrad_core.planning.spec import PluginChoice, RunSpec
from altgrad_core.quantization.from_settings import quantize_from_settings
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.native.products import check_products
from altgrad_core.quantization.residency import GridResidency
from altgrad_core.quantization.settings import FormatChoice, as_format_choice
from altgrad_core.quantization.surgery import QuantizationReport, change_format
from altgrad_core.registry.catalog import catalog
from altgrad_core.training.loop import Parts
from altgrad_core.training.monitoring import MonitorPanel
from altgrad_core.training.seeds import derive_seed


def resolve_device(wanted: str) -> torch.device:
    """``auto`` is the first CUDA device, or the CPU where there is none. A named device must be there."""
    if wanted == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UserError(f"unknown device {wanted!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {wanted!r} is not supported: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise UserError(
                f"device {wanted!r} was asked for, but torch {torch.__version__} sees {count} CUDA "
                f"device(s) here. Use --device cpu (or auto), or install a CUDA build of torch."
            )
        return torch.device("cuda", device.index or 0)
    return device


def prepare_task(choice: PluginChoice, cache: Path, log: Callable[[str], None]) -> Task:
    """Build the task and load its data. Raises ``UserError``."""
    task: Task = catalog().build("task", choice.name, choice.settings)
    task.prepare(cache, log)
    return task


def check_inputs(spec: RunSpec) -> None:
    """Compare the data, and other inputs by path, with those that the run was planned with.

    Raises ``UserError`` where they are others now: the result would stand under the wrong id. Called
    before they are read, and again after, since they may be replaced in between.
    """
    found = catalog().fingerprint(spec.task.name, spec.task.settings)
    for name in sorted(found.keys() | spec.fingerprint.keys()):
        now, planned = found.get(name, "missing"), spec.fingerprint.get(name, "missing")
        if now != planned:
            raise UserError(
                f"the {name} of {spec.task.name} changed after the run was planned: its fingerprint was "
                f"{planned} and is {now}. Put it back, or run the suite again to have runs of their "
                f"own for what is there now."
            )


def check_execution(spec: RunSpec, device: torch.device) -> dict[str, Any]:
    """What ``environment.json`` says of native products; nothing where they are simulated.

    Raises ``UserError`` where ``device`` lacks one.
    """
    if spec.quantization.execution == "simulated":
        return {}
    wanted = spec.quantization.operands(lambda choice: build_format(choice).native).multipliers()
    check_products(device, wanted)
    return {"products": sorted(wanted)}


def build_format(choice: FormatChoice) -> Format:
    """The format of a ``quantization`` setting."""
    built: Format = catalog().build("format", choice.name, choice.settings)
    return built


def assemble(spec: RunSpec, task: Task, device: torch.device) -> tuple[Parts, QuantizationReport]:
    """Model, quantisation, optimizer and monitors. Cells with one seed start from the same weights."""
    torch.manual_seed(derive_seed(spec.seed, "model"))
    model = task.build_model()
    generator = torch.Generator()  # on every device: the draws are worked out from its keys
    report = quantize_from_settings(
        model, spec.quantization, task.head, build_format, generator, task.layer_groups
    )
    model.to(device)
    weights = weight_geometry(model)
    plugin: OptimizerPlugin = catalog().build(
        "optimizer", spec.optimizer.name, spec.optimizer.settings
    )
    optimizer = plugin.build(
        parameter_groups(model),
        {geometry.parameter: geometry for geometry in weights.values()},
        learning_rate=spec.training.learning_rate,
        generator=generator,
    )
    residency = GridResidency(model, generator)
    residency.attach(optimizer)
    parts = Parts(
        task=task,
        model=model,
        optimizer=optimizer,
        weights=weights,
        panel=MonitorPanel(build_monitors(spec.monitors)),
        device=device,
        generator=generator,
        residency=residency,
        change_format=lambda name, choice: change_format(
            weights[name], build_format(FormatChoice.model_validate(as_format_choice(choice)))
        ),
    )
    return parts, report


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and other vectors do not."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim >= 2]},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_monitors(choices: Sequence[PluginChoice]) -> list[tuple[str, Monitor]]:
    """The monitors of a spec, by name."""
    return [(c.name, catalog().build("monitor", c.name, c.settings)) for c in choices]


def build_trackers(choices: Sequence[PluginChoice]) -> list[tuple[str, Tracker]]:
    """The trackers of a spec, by name."""
    return [(c.name, catalog().build("tracker", c.name, c.settings)) for c in choices]
