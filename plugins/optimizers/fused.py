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
from altgrad_core.quantization.geometry import ParameterGeometry, scales_of
from altgrad_core.quantization.kernels.binades import Binades, binades
from altgrad_plugins.optimizers.adamw import AdamState
from altgrad_plugins.optimizers.settings import ManifoldAdamWSettings

_NO_NUMBERS = Binades(0, 0, 0)
_NO_LEVEL = (*_NO_NUMBERS, 0)
_SMALL = 1 << 16
"""Elements up to which a parameter on no grid goes along: torch's kernel shares large ones among threads."""


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

    def __call__(
        self, group: Mapping[str, Any], state: AdamState, others: AdamState
    ) -> tuple[AdamState, AdamState]:
        """Update what can be of the weights and of the ``others``, which are on no grid; returned is what is left."""
        if not state.params or not group["fused"] or isinstance(group["lr"], Tensor):
            return state, others
        backends = set(map(backend_for, state.params))
        if "triton" in backends:
            return state.without(self._done_on_gpu(group, state)), others
        steps = [*state.steps, *others.steps]
        # torch counts all steps before it updates, which tells where two share their count
        if "numba" not in backends or len(set(map(id, steps))) < len(steps):
            return state, others
        from altgrad_plugins.optimizers.agreement import torch_lanes  # imports numba

        lanes = torch_lanes()
        if lanes is None:
            return state, others
        done, free = self._done(group, state, others, lanes)
        return state.without(done), others.without(free)

    def _done(
        self, group: Mapping[str, Any], state: AdamState, others: AdamState, lanes: int
    ) -> tuple[Sequence[int], Sequence[int]]:
        """Update what the kernel can, and say which parameters that was."""
        from altgrad_plugins.optimizers.launch import Row, launch

        rows: dict[int, Row] = {}
        read: list[Tensor] = []  # what nobody else need hold while the kernel reads it
        grids = self._grids(state.params)
        for index, (parameter, *rest) in enumerate(state.rows()):
            if not _fits(parameter, rest):
                continue
            peak, count = self._peaks.get(id(parameter), 0), parameter.numel()
            given = 0
            numbers, scale = grids[index]
            if numbers is None:
                (stiffness,) = self._stiffness([parameter])
                if not _plain(stiffness, count):
                    continue
                read.append(stiffness)
                given = stiffness.data_ptr()
            places = parameter.data_ptr(), *[t.data_ptr() for t in rest]
            rows[index] = Row(
                (*places, given, 0 if scale is None else scale.data_ptr(), count, False),
                (*(numbers or _NO_NUMBERS), peak),
            )
        free = {
            index: Row((*[t.data_ptr() for t in row], 0, 0, row[0].numel(), True), _NO_LEVEL)
            for index, row in enumerate(others.rows())
            if row[0].numel() <= _SMALL and _fits(row[0], row[1:])
        }
        done, peaks = launch(group, self._settings, [*rows.values(), *free.values()], lanes)
        for index, peak in zip(rows, peaks, strict=False):
            self._peaks[id(state.params[index])] = peak
        finished = [index for index, one in zip(rows, done, strict=False) if one]
        moved = [state.params[i] for i in finished] + [others.params[i] for i in free]
        torch.autograd.graph.increment_version(moved)
        return finished, [*free]

    def _done_on_gpu(self, group: Mapping[str, Any], state: AdamState) -> Sequence[int]:
        """Update what the kernels of one GPU can, and say which parameters that was."""
        from altgrad_plugins.optimizers import gpu_manifold

        rows: dict[int, tuple[int, ...]] = {}
        grids = self._grids(state.params)  # held while the kernels read the scales
        device = state.params[0].device
        for index, (parameter, grad, *_) in enumerate(state.rows()):
            if parameter.device != device or not _fits_gpu(parameter, grad):
                continue
            numbers, scale = grids[index]
            if numbers is None:
                continue
            place = 0 if scale is None else scale.data_ptr()
            fields = numbers.lowest + 127, numbers.highest + 127, numbers.mantissa_bits
            rows[index] = parameter.data_ptr(), grad.data_ptr(), place, parameter.numel(), *fields
        if rows:
            rest = [index for index in range(len(state.params)) if index not in rows]
            gpu_manifold.update(group, self._settings, state.without(rest), list(rows.values()))
        return list(rows)

    def _grids(self, params: Sequence[nn.Parameter]) -> list[tuple[Binades | None, Tensor | None]]:
        """Of each weight its grid's numbers, and its one scale if it has any; None and None if S takes more."""
        nothing: tuple[None, None] = None, None
        found: list[tuple[Binades | None, Tensor | None]] = [nothing] * len(params)
        if self._settings.stiffness != "grid":
            return found
        scaled: dict[int, ParameterGeometry] = {}
        for index, parameter in enumerate(params):
            geometry = self._geometry[parameter]
            if type(geometry) is ParameterGeometry:
                found[index] = binades(geometry.format), None
                if found[index][0] is not None and geometry.format.scaled:
                    scaled[index] = geometry
        for index, scale in zip(scaled, scales_of(list(scaled.values())), strict=True):
            plain = scale.dtype is torch.float32 and scale.dim() == 0
            found[index] = (found[index][0], scale) if plain else nothing
        return found


def _fits(parameter: nn.Parameter, rest: Sequence[Tensor]) -> bool:
    """Whether the kernel can work on a parameter with its gradient, moments and step."""
    grad, mean, square, step = rest
    count = parameter.numel()
    return (
        count > 0
        and backend_for(parameter) == "numba"
        and all(_plain(one, count) for one in (parameter, grad, mean, square))
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
        tensor.is_cpu
        and tensor.dtype is torch.float32
        and tensor.numel() == count
        and tensor.is_contiguous()
    )
