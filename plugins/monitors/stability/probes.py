"""Counts overflow and underflow among the inputs and output gradients of quantised layers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from altgrad_core.quantization.modules.linear import QuantizedModule
from altgrad_core.quantization.modules.quantizer import TensorQuantizer
from altgrad_plugins.monitors.stability.ranges import Range

Counts = tuple[Tensor, Tensor, int]
"""Overflows, underflows, and the number of elements they are of."""


class _Handle(Protocol):
    def remove(self) -> None: ...


class RoleProbe:
    """Counts what a role's format cannot hold, layer by layer, in hooks.

    A layer is named by its (first) quantised weight. Only passes of a module that is training, in
    steps for which ``wanted`` is true, are counted, and none that is repeated for measurement;
    several of them in one step are added up.

    The hooks never raise, since that would end the run: :meth:`take` raises what went wrong.
    """

    def __init__(self, wanted: Callable[[], bool]) -> None:
        self.wanted = wanted
        self.handles: list[_Handle] = []
        self._counts: dict[str, Counts] = {}
        self._error: Exception | None = None

    def take(self) -> dict[str, Counts]:
        """What was counted for each layer since the last call.

        Raises what went wrong in a hook since then.
        """
        if self._error is not None:
            self.close()
            raise self._error
        counts, self._counts = self._counts, {}
        return counts

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def counting(self, module: QuantizedModule, quantizer: TensorQuantizer) -> bool:
        """Whether this pass of ``module`` is the step's own, and wanted."""
        own = module.training and quantizer.recording and not module.bypassed
        return own and self.wanted()

    def count(
        self, name: str, held: Range, module: nn.Module, quantizer: TensorQuantizer, x: Tensor
    ) -> None:
        """Add what ``x`` has, after it was rounded, under the scale that it was rounded with."""
        try:
            with torch.no_grad():
                over, under = held.counts(x, quantizer.scale_of(module, x))
            size = x.numel()
            if name in self._counts:
                before = self._counts[name]
                over, under, size = over + before[0], under + before[1], size + before[2]
            self._counts[name] = (over, under, size)
        except Exception as error:
            self._error = error


def watch_inputs(
    model: nn.Module, layers: Collection[str], wanted: Callable[[], bool]
) -> RoleProbe:
    """A probe of the inputs of those of ``layers`` whose inputs are quantised."""
    probe = RoleProbe(wanted)
    for name, module in _quantized(model, layers):
        if module.input_quantizer is not None:
            hook = _input_hook(probe, name, module, module.input_quantizer)
            probe.handles.append(module.register_forward_hook(hook, with_kwargs=True))
    return probe


def watch_output_gradients(
    model: nn.Module, layers: Collection[str], wanted: Callable[[], bool]
) -> RoleProbe:
    """A probe of the gradients at the outputs of those of ``layers`` whose gradients are quantised.

    The gradient is taken from a hook on the node that rounds it: a backward hook of the module
    would put nodes into the graph, and forbid in-place operations on the output.
    """
    probe = RoleProbe(wanted)
    for name, module in _quantized(model, layers):
        if module.gradient_quantizer is not None:
            hook = _output_hook(probe, name, module, module.gradient_quantizer)
            probe.handles.append(module.register_forward_hook(hook))
    return probe


def _quantized(model: nn.Module, layers: Collection[str]) -> Iterator[tuple[str, QuantizedModule]]:
    for path, module in model.named_modules():
        if isinstance(module, QuantizedModule) and module.weight_quantizers:
            name = ".".join(filter(None, (path, next(iter(module.weight_quantizers)))))
            if name in layers:
                yield name, module


def _input_hook(
    probe: RoleProbe, name: str, module: QuantizedModule, quantizer: TensorQuantizer
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
    held = Range.of(quantizer.format)

    def observe(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if probe.counting(module, quantizer):
            probe.count(name, held, module, quantizer, args[0] if args else kwargs["input"])

    return observe


def _output_hook(
    probe: RoleProbe, name: str, module: QuantizedModule, quantizer: TensorQuantizer
) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    held = Range.of(quantizer.format)

    def on_rounded(rounded: tuple[Tensor, ...], gradients: tuple[Tensor, ...]) -> None:
        if probe.counting(module, quantizer):
            probe.count(name, held, module, quantizer, gradients[0])

    def on_output(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if probe.counting(module, quantizer) and output.grad_fn is not None:
            output.grad_fn.register_hook(on_rounded)

    return on_output
