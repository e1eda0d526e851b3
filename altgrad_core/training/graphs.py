"""Forward and backward pass as one CUDA graph: the host then asks for them once, not kernel by kernel.

At the sizes of a fine-tuned encoder a GPU is done sooner than Python has asked for the next kernel. A pass that has
been seen a few times is captured, and replayed from then on: the same kernels on the same numbers, so the same bits.
The update, and what monitors look at, is done as ever.

Run kernel by kernel are the passes that a replay could not repeat: those with hooks, which monitors put on
modules, those that draw for stochastic rounding on the host, and those of a task that does not say what its loss
goes by (``Task.graph_key``). What fails to be captured is never tried again, and said.

All passes run in one stream beside that of the update, which waits for them, and they for it: autograd's nodes for
the parameters belong to the stream in which they were made, and a capture must not meet one of another.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.modules.linear import quantizers_of
from altgrad_core.quantization.modules.quantizer import TensorQuantizer

WARM = 3
"""Passes of one kind before it is captured: libraries make their plans, and tables reach the device."""
MOST = 16
"""Kinds that are captured: each keeps its gradients, and shares the rest of its memory with the others."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")

Compute = Callable[[Batch], Tensor]
"""Leaves the gradients of a batch, and returns its loss."""


@dataclass
class _Captured:
    replay: Callable[[], None]
    batch: Batch
    loss: Tensor
    gradients: Sequence[tuple[nn.Parameter, Tensor]]
    remembered: Sequence[tuple[TensorQuantizer, object]]

    def __call__(self, batch: Batch) -> tuple[Tensor, Batch]:
        for name, tensor in batch.to(self.loss.device).tensors.items():
            self.batch.tensors[name].copy_(tensor)
        self.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        for quantizer, what in self.remembered:
            quantizer.remember(what)
        return self.loss.clone(), Batch(self.batch.tensors, batch.samples, batch.tokens)


@dataclass
class StepGraphs:
    """Computes loss and gradients of batches with ``compute``, which is captured where that can be.

    key:
        what of a batch ``compute`` goes by, beside its tensors; None for anything, which is never captured.
    reseed:
        puts the generators back to where the step began.
    failed:
        is told why something could not be captured.
    """

    model: nn.Module
    device: torch.device
    compute: Compute
    key: Callable[[Batch], Hashable | None]
    reseed: Callable[[], None]
    failed: Callable[[str], None]
    wanted: bool = True
    _seen: Counter[Hashable] = field(default_factory=Counter)
    _made: dict[Hashable, _Captured] = field(default_factory=dict)
    _stream: Any = None
    _pool: Any = None

    def __call__(self, batch: Batch) -> tuple[Tensor, Batch]:
        """The loss, 0-d and detached, and the batch on the device."""
        key = self._kind(batch)
        if key is not None and key in self._made:
            return self._made[key](batch)
        moved = batch.to(self.device)
        if key is not None:
            self._seen[key] += 1
            if self._seen[key] > WARM and len(self._made) < MOST and self._capture(key, moved):
                return self._made[key](batch)
        if not self._possible():
            return self.compute(moved), moved
        self._stream = self._stream or torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        with _beside(self._stream):
            return self.compute(moved), moved

    def forget(self) -> None:
        """The model is not what it was."""
        self._seen.clear()
        self._made.clear()

    def _possible(self) -> bool:
        return self.wanted and self.device.type == "cuda"

    def _kind(self, batch: Batch) -> Hashable | None:
        if not self._possible():
            return None
        key = self.key(batch)
        if key is None or not _repeatable(self.model):
            return None
        shapes = ((name, t.shape, t.dtype) for name, t in sorted(batch.tensors.items()))
        return key, batch.samples, *shapes

    def _capture(self, key: Hashable, batch: Batch) -> bool:
        """Capture ``compute`` for batches like that one. On failure: say so, and never try again."""
        static = Batch(
            {n: t.clone() for n, t in batch.tensors.items()}, batch.samples, batch.tokens
        )
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        gc.collect()  # nodes of earlier passes, if anything still holds them
        try:
            with _capturing(graph, self._pool, self._stream):
                loss = self.compute(static)
        except Exception as error:  # whatever a library does not allow while it is captured
            first = (str(error).splitlines() or [""])[0]
            self._give_up(f"{type(error).__name__}: {first}")
            return False
        gradients = [(p, p.grad) for p in self.model.parameters() if p.grad is not None]
        remembered = [(q, q.remembered()) for q in quantizers_of(self.model)]
        self._made[key] = _Captured(graph.replay, static, loss, gradients, remembered)
        return True

    def _give_up(self, why: str) -> None:
        self.wanted = False
        self.forget()
        self.model.zero_grad(set_to_none=True)
        _leave_capture(self.device)
        self.reseed()
        self.failed(f"steps are not captured as CUDA graphs: {why}")


@contextmanager
def _beside(stream: torch.cuda.Stream) -> Iterator[None]:
    """In ``stream``, after what was asked for before, and before what is asked for then."""
    current = torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        yield
    current.wait_stream(stream)


@contextmanager
def _capturing(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> Iterator[None]:
    """What other threads ask the device for meanwhile is none of it."""
    with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
        yield


def _leave_capture(device: torch.device) -> None:
    """A capture that failed leaves the generator waiting for its end: a copy of it is not."""
    generator = torch.cuda.default_generators[device.index or 0]
    generator.graphsafe_set_state(generator.clone_state())


def _repeatable(model: nn.Module) -> bool:
    """Whether a pass does nothing but launch kernels, which a replay launches again."""
    if any(q.rounding == "stochastic" for q in quantizers_of(model)):
        return False
    if any(getattr(module, hooks) for module in model.modules() for hooks in _HOOKS):
        return False
    return not any(getattr(p, hooks) for p in model.parameters() for hooks in _OF_TENSORS)
