"""Where the step of ``manifold_adamw`` is taken by the compiled kernel, and where by torch's operators.

The kernel is for what is usual: float32 weights on the CPU, contiguous, with torch's fused implementation. It is
given a table of all of them. What it cannot do to the last bit is left to the operators, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.backend import backend_for
from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_core.quantization.geometry import ParameterGeometry
from altgrad_core.quantization.kernels.binades import Binades, binades
from altgrad_plugins.optimizers.adamw import AdamState
from altgrad_plugins.optimizers.settings import ManifoldAdamWSettings

_NO_NUMBERS = Binades(0, 0, 0)


class FusedStep:
    """Takes steps of ``settings`` on weights of ``geometry``; remembers nothing that changes a result."""

    def __init__(
        self,
        settings: ManifoldAdamWSettings,
        geometry: Mapping[nn.Parameter, WeightGeometry],
        stiffness: Callable[[Sequence[nn.Parameter]], list[Tensor]],
    ) -> None:
        self._settings = settings
        self._geometry = geometry
        self._stiffness = stiffness
        self._peaks: dict[int, int] = {}
        """Exponent fields of the largest weights, by id of the parameter: where the kernel begins to look."""

    def __call__(self, group: Mapping[str, Any], state: AdamState) -> AdamState:
        """Update what can be; what is returned is left to do."""
        if not group["fused"] or isinstance(group["lr"], Tensor):
            return state
        if any(backend_for(parameter) == "triton" for parameter in state.params):
            return state.without(self._done_on_gpu(group, state))
        if not any(backend_for(parameter) == "numba" for parameter in state.params):
            return state
        from altgrad_plugins.optimizers.agreement import torch_lanes  # imports numba

        lanes = torch_lanes()
        return state if lanes is None else state.without(self._done(group, state, lanes))

    def _done(self, group: Mapping[str, Any], state: AdamState, lanes: int) -> Sequence[int]:
        """Update what the kernel can, and say which parameters that was."""
        from altgrad_plugins.optimizers.launch import Row, launch

        rows: dict[int, Row] = {}
        read: list[Tensor] = []  # what nobody else need hold while the kernel reads it
        for index, (parameter, *others) in enumerate(state.rows()):
            if not _fits(parameter, others):
                continue
            peak, count = self._peaks.get(id(parameter), 0), parameter.numel()
            given = 0
            numbers, scale = self._grid(self._geometry[parameter])
            if scale is not None:
                read.append(scale)
            if numbers is None:
                (stiffness,) = self._stiffness([parameter])
                if not _plain(stiffness, count):
                    continue
                read.append(stiffness)
                given = stiffness.data_ptr()
            places = parameter.data_ptr(), *[t.data_ptr() for t in others]
            rows[index] = Row(
                (*places, given, 0 if scale is None else scale.data_ptr(), count),
                (*(numbers or _NO_NUMBERS), peak),
            )
        done, peaks = (
            launch(group, self._settings, list(rows.values()), lanes) if rows else ([], [])
        )
        for index, peak in zip(rows, peaks, strict=True):
            self._peaks[id(state.params[index])] = peak
        finished = [index for index, one in zip(rows, done, strict=True) if one]
        torch.autograd.graph.increment_version([state.params[index] for index in finished])
        return finished

    def _done_on_gpu(self, group: Mapping[str, Any], state: AdamState) -> Sequence[int]:
        """Update what the kernels of one GPU can, and say which parameters that was."""
        from altgrad_plugins.optimizers import gpu_manifold

        rows: dict[int, tuple[int, ...]] = {}
        read: list[Tensor] = []  # what nobody else need hold while the kernels read it
        device = state.params[0].device
        for index, (parameter, grad, *_) in enumerate(state.rows()):
            if parameter.device != device or not _fits_gpu(parameter, grad):
                continue
            numbers, scale = self._grid(self._geometry[parameter])
            if numbers is None:
                continue
            place = 0
            if scale is not None:
                read.append(scale)
                place = scale.data_ptr()
            fields = numbers.lowest + 127, numbers.highest + 127, numbers.mantissa_bits
            rows[index] = parameter.data_ptr(), grad.data_ptr(), place, parameter.numel(), *fields
        if rows:
            rest = [index for index in range(len(state.params)) if index not in rows]
            gpu_manifold.update(group, self._settings, state.without(rest), list(rows.values()))
        return list(rows)

    def _grid(self, geometry: WeightGeometry) -> tuple[Binades | None, Tensor | None]:
        """Its numbers, and its one scale if it has any; None and None if S takes more than these."""
        if self._settings.stiffness != "grid" or type(geometry) is not ParameterGeometry:
            return None, None
        fmt = geometry.format
        numbers = binades(fmt)
        if numbers is None or not fmt.scaled:
            return numbers, None
        scale = geometry.scale()
        plain = scale.dtype is torch.float32 and scale.dim() == 0
        return (numbers, scale) if plain else (None, None)


def _fits(parameter: nn.Parameter, others: Sequence[Tensor]) -> bool:
    """Whether the kernel can work on a parameter with its gradient, moments and step."""
    count = parameter.numel()
    if count == 0 or backend_for(parameter) != "numba" or not _plain(parameter, count):
        return False
    grad, mean, square, step = others
    return (
        _plain(grad, count)
        and _plain(mean, count)
        and _plain(square, count)
        and _plain(step, 1)
        and not grad.is_neg()
        and grad.data_ptr() != 0  # as that of a zero that is nowhere in memory
    )


def _fits_gpu(parameter: nn.Parameter, grad: Tensor) -> bool:
    """Whether the kernels can work on a parameter with its gradient."""
    if parameter.numel() == 0 or backend_for(parameter) != "triton":
        return False
    return all(
        one.dtype is torch.float32
        and one.device == parameter.device
        and one.shape == parameter.shape
        and one.is_contiguous()
        and not one.is_neg()
        and one.data_ptr() != 0
        and one.data_ptr() % 16 == 0
        for one in (parameter, grad)
    )


def _plain(tensor: Tensor, count: int) -> bool:
    """Whether the tensor is ``count`` float32 in a row, in the memory of the host."""
    return (
        tensor.dtype is torch.float32
        and tensor.numel() == count
        and tensor.is_contiguous()
        and tensor.is_cpu
    )
