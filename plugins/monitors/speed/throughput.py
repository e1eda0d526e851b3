"""Throughput of the training steps alone, without evaluation, checkpoints or monitors.

Between two readings (a window) the step clock advances by ``t`` seconds, ``k`` steps, ``n`` samples
and ``m`` real (not padding) tokens:

=====================================  =====================================================
``samples_per_second``                 n / t
``tokens_per_second``                  m / t
``step_milliseconds``                  1000 t / k
``cumulative_samples_per_second``      Σ n / Σ t over all windows so far, restarts included
``cumulative_tokens_per_second``       Σ m / Σ t over all windows so far, restarts included
``peak_memory_bytes``                  CUDA only: most memory that tensors held at once so far,
                                       monitors and evaluation included
=====================================  =====================================================

The first window opens after the ``warmup_steps``-th step of the process (of what is left of the
run, at most half), so the warm-up is in no window.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from altgrad_core.interfaces.monitor import Clock, Monitor, Observation, RunView, StepView
from altgrad_plugins.monitors.speed.settings import ThroughputSettings


@dataclass(frozen=True)
class _Work:
    """What a clock shows, or the difference between two readings."""

    seconds: float = 0.0
    steps: int = 0
    samples: int = 0
    tokens: int = 0

    @classmethod
    def read(cls, clock: Clock) -> _Work:
        return cls(clock.seconds(), clock.steps, clock.samples, clock.tokens)

    def plus(self, other: _Work, sign: int = 1) -> _Work:
        return _Work(
            self.seconds + sign * other.seconds,
            self.steps + sign * other.steps,
            self.samples + sign * other.samples,
            self.tokens + sign * other.tokens,
        )


class ThroughputMonitor(Monitor):
    """``throughput/all/<metric>`` at every ``interval``-th step and at the last one."""

    def __init__(self, settings: ThroughputSettings) -> None:
        self.interval = settings.interval
        self.warmup_steps = settings.warmup_steps
        self._last = 0
        self._opens: int | None = None
        self._reading: _Work | None = None
        self._measured = _Work()

    def start(self, run: RunView) -> Observation | None:
        """Note the end of the run."""
        self._last = run.max_steps
        return None

    def due(self, step: int) -> bool:
        """Whether ``step`` opens the first window or ends a window."""
        if self._opens is None:  # the first step of this process; not step 1 after a restart
            left = self._last - step + 1
            self._opens = step - 1 + max(1, min(self.warmup_steps, left // 2))
        return step == self._opens or (
            step > self._opens and (step % self.interval == 0 or step == self._last)
        )

    def after_update(self, step: StepView) -> Observation | None:
        """Read the clock and report the window that ends here."""
        now = _Work.read(step.clock)
        before, self._reading = self._reading, now
        if before is None:
            return None
        window = now.plus(before, -1)
        self._measured = self._measured.plus(window)
        metrics: dict[str, float | Tensor] = {
            "throughput/all/samples_per_second": window.samples / window.seconds,
            "throughput/all/tokens_per_second": window.tokens / window.seconds,
            "throughput/all/step_milliseconds": 1000 * window.seconds / window.steps,
            "throughput/all/cumulative_samples_per_second": self._measured.samples
            / self._measured.seconds,
            "throughput/all/cumulative_tokens_per_second": self._measured.tokens
            / self._measured.seconds,
        }
        if step.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(step.device)
            metrics["throughput/all/peak_memory_bytes"] = float(peak)
        return Observation(metrics)

    def state_dict(self) -> dict[str, Any]:
        """The work of all windows so far."""
        return asdict(self._measured)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the windows of :meth:`state_dict`, after a warm-up of its own."""
        self._measured = _Work(**state)
