"""Computing a loss again, for measurement, without a trace in the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.modules.bypass import unrecorded, unrounded
from altgrad_core.training.seeds import seed_step


class Replayer:
    """Repeats passes of one run: see ``RunView.replay``.

    loss:
        ``(model, batch) -> 0-d loss``, the task's.
    probe:
        ``samples -> batch``: the probe batch, on any device.
    generator:
        the run's own, which stochastic rounding draws from; its state is kept, too.
    rewind:
        puts random numbers back to where a step began, by its number; by default as the step loop
        seeds it.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Batch], Tensor],
        probe: Callable[[int], Batch],
        *,
        device: torch.device,
        seed: int,
        generator: torch.Generator | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
        rewind: Callable[[int], None] | None = None,
    ) -> None:
        self.model, self._loss, self._probe = model, loss, probe
        self._device, self._generator = device, generator
        own = generator or torch.Generator(device)
        self._rewind = rewind or (lambda step: seed_step(seed, step, own))
        self._autocast = autocast
        self._probes: dict[int, Batch] = {}

    def probe_batch(self, samples: int) -> Batch:
        """See ``RunView.probe_batch``."""
        if samples not in self._probes:
            self._probes[samples] = self._probe(samples).to(self._device)
        return self._probes[samples]

    @contextmanager
    def replay(
        self, batch: Batch, *, step: int | None = None, reference: bool = False
    ) -> Iterator[Tensor]:
        """See ``RunView.replay``; ``step`` is the number of the step to repeat, dropout included."""
        with (
            self._untouched(training=step is not None),
            unrecorded(self.model),
            hold_weights(self.model),
            torch.enable_grad(),
        ):
            if step is not None:
                self._rewind(step)
            if not reference:
                with self._autocast():
                    loss = self._loss(self.model, batch)
                yield loss
                return
            off = torch.autocast(self._device.type, enabled=False)
            with unrounded(self.model), off, sdpa_kernel(SDPBackend.MATH):
                yield self._loss(self.model, batch)

    @contextmanager
    def _untouched(self, *, training: bool) -> Iterator[None]:
        """Put random numbers and the mode of every module back at the end."""
        modes = [(module, module.training) for module in self.model.modules()]
        # Buffers that a forward in training mode writes: running statistics, and the like.
        kept = [(buffer, buffer.clone()) for buffer in self.model.buffers()] if training else []
        state = None if self._generator is None else self._generator.get_state()
        cuda = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            self.model.train(training)
            try:
                yield
            finally:
                for module, mode in modes:
                    module.training = mode
                with torch.no_grad():
                    for buffer, value in kept:
                        buffer.copy_(value)
                if self._generator is not None and state is not None:
                    self._generator.set_state(state)
