"""What the library offers in a form of its own: formats by name, options as keywords."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.execution.runner import SuiteResult
from altgrad_core.execution.runner import run_suite as _run_suite
from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.planning.plan import Plan
from altgrad_core.quantization.settings import Residency, ScalingSettings
from altgrad_core.quantization.surgery import QuantizationReport
from altgrad_core.quantization.surgery import quantize_model as _quantize_model
from altgrad_core.registry.build import load_format


def quantize_model(
    model: nn.Module,
    format: str | Format,
    *,
    filter: Callable[[nn.Module, str], bool] | None = None,
    overrides: Sequence[tuple[str, str | Format | None]] = (),
    activation_format: str | Format | None = None,
    gradient_format: str | Format | None = None,
    scaling: ScalingSettings | None = None,
    residency: Residency = "master",
    rounding: Rounding = "nearest",
    compensation: str | Format | None = None,
    generator: torch.Generator | None = None,
) -> QuantizationReport:
    """Quantise the layers of any model in place; see :mod:`altgrad_core.quantization.surgery`.

    Formats may be given by name. Parameters and their state-dict keys stay the same objects and names.
    With ``residency="grid"``, call :func:`keep_on_grid` with the optimizer.
    """
    return _quantize_model(
        model,
        _resolve(format),
        filter=filter,
        overrides=[(p, None if f is None else _resolve(f)) for p, f in overrides],
        activation_format=None if activation_format is None else _resolve(activation_format),
        gradient_format=None if gradient_format is None else _resolve(gradient_format),
        scaling=scaling,
        residency=residency,
        rounding=rounding,
        compensation=None if compensation is None else _resolve(compensation),
        generator=generator,
    )


def run_suite(plan: Plan, observer: Observer | None = None, **options: Any) -> SuiteResult:
    """Run what is missing of a plan; keywords are those of ``RunOptions`` (``runs``, ``device``, …)."""
    return _run_suite(plan, RunOptions(**_paths(options)), observer or _Silent())


def _paths(options: dict[str, Any]) -> dict[str, Any]:
    return {k: Path(v) if k in ("runs", "cache") else v for k, v in options.items()}


def _resolve(format: str | Format) -> Format:
    return load_format(format) if isinstance(format, str) else format


class _Silent:
    """Sees, says nothing."""

    def message(self, text: str) -> None: ...
    def begin(self, total: int, done: int) -> None: ...
    def started(self, job: Any, max_steps: int) -> None: ...
    def progress(self, job: Any, status: Any) -> None: ...
    def finished(self, job: Any, status: Any) -> None: ...
