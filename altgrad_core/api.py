"""What the library offers in a form of its own: formats by name, options as keywords."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from altgrad_core._given import (
    FormatLike,
    OverridesLike,
    ScalingLike,
    compensation_of,
    format_of,
    overrides_of,
    scaling_of,
)
from altgrad_core.execution.options import Observer, RunOptions
from altgrad_core.execution.runner import SuiteResult
from altgrad_core.execution.runner import run_suite as _run_suite
from altgrad_core.interfaces.format import Rounding
from altgrad_core.planning.plan import Plan
from altgrad_core.quantization.settings import Execution, Residency
from altgrad_core.quantization.surgery import QuantizationReport
from altgrad_core.quantization.surgery import quantize_model as _quantize_model
from altgrad_core.results.remote.url import place_of


def quantize_model(
    model: nn.Module,
    format: FormatLike,
    *,
    filter: Callable[[nn.Module, str], bool] | None = None,
    overrides: OverridesLike = (),
    activation_format: FormatLike | None = None,
    gradient_format: FormatLike | None = None,
    scaling: ScalingLike | None = None,
    residency: Residency = "master",
    rounding: Rounding = "nearest",
    compensation: FormatLike | None = None,
    generator: torch.Generator | None = None,
    execution: Execution = "simulated",
) -> QuantizationReport:
    """Quantise the layers of any model in place; parameters and their names stay.

    format, activation_format, gradient_format:
        of the weights, of the inputs of the quantised layers, and of the gradients at their outputs: a
        name (``"e4m3"``), settings (``{"name": "exmy", "exponent_bits": 3, …}``) or a ``Format``. None
        leaves inputs and gradients alone.
    filter:
        ``(module, name) -> bool``: which layers; None takes all that can be quantised.
    overrides:
        pattern (``fnmatch``) -> another format, or None to leave a layer alone, as a mapping or as
        pairs. Compared with the names of layers and of the modules around them; the last match wins.
    scaling:
        as in a suite: the mode alone (``"delayed"``), or settings (``{"granularity": "channel"}``).
    residency:
        ``"master"``, or ``"grid"``: then call :func:`keep_on_grid` with the optimizer.
    rounding:
        ``"nearest"``, or ``"stochastic"``, which draws from a generator: of masters from ``generator``,
        on the grid from that of :func:`keep_on_grid`.
    compensation:
        of weights on the grid: ``"kahan"`` (a buffer in bf16), or the format of the buffer.
    execution:
        ``"simulated"``, or ``"native"``: products of 8-bit codes, where formats, layers and device have them.

    Raises ``UserError``, and leaves the model as it was, for what is unknown, contradictory or matches no
    layer; see :func:`altgrad_core.quantization.surgery.quantize_model`.
    """
    return _quantize_model(
        model,
        format_of(format),
        filter=filter,
        overrides=overrides_of(overrides),
        activation_format=None if activation_format is None else format_of(activation_format),
        gradient_format=None if gradient_format is None else format_of(gradient_format),
        scaling=scaling_of(scaling),
        residency=residency,
        rounding=rounding,
        compensation=compensation_of(compensation),
        generator=generator,
        execution=execution,
    )


def run_suite(plan: Plan, observer: Observer | None = None, **options: Any) -> SuiteResult:
    """Run what is missing of a plan; keywords are those of ``RunOptions`` (``runs``, ``device``, …).

    runs:
        a folder, or the URL of one on a store (``s3://bucket/runs``).
    """
    if "cache" in options:
        options["cache"] = Path(options["cache"])
    place = asdict(place_of(options.pop("runs", "runs")))
    return _run_suite(plan, RunOptions(**place, **options), observer or _Silent())


class _Silent:
    """Sees, says nothing."""

    def message(self, text: str) -> None: ...
    def begin(self, total: int, done: int) -> None: ...
    def started(self, job: Any, max_steps: int) -> None: ...
    def progress(self, job: Any, status: Any) -> None: ...
    def tried_again(self, job: Any, status: Any, how: str) -> None: ...
    def finished(self, job: Any, status: Any) -> None: ...
