"""Which units of the activation functions say nothing: forward hooks that act only when due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from altgrad_core.quantization.modules.linear import QuantizedModule

_EXACT = {"ReLU", "ReLU6", "ReLUSquaredActivation"}
_SMALL = ("gelu", "silu", "swish")


def threshold(module: nn.Module, epsilon: float) -> float | None:
    """How small outputs of an activation module must be to say nothing, in units of their rms.

    0 for ReLU, ``epsilon`` for a class with GELU, SiLU or Swish in its name (torch's and
    transformers'); None for any other module.
    """
    name = type(module).__name__
    if name in _EXACT:
        return 0.0
    return epsilon if any(part in name.lower() for part in _SMALL) else None


class SilenceProbe:
    """Watches the activation modules among ``modules``, given by name.

    Only forwards of a module that is training, in steps for which ``wanted`` is true, and that are
    the step's own (no replayed pass), are looked at. A unit is silent if it is in all of them.

    The hooks never raise, since that would end the run: :meth:`take` raises what went wrong.
    """

    def __init__(
        self,
        model: nn.Module,
        thresholds: dict[str, float],
        wanted: Callable[[], bool],
    ) -> None:
        self._wanted = wanted
        self._silent: dict[str, dict[int, Tensor]] = {}
        self._error: Exception | None = None
        self._quantized = [m for m in model.modules() if isinstance(m, QuantizedModule)][:1]
        modules = dict(model.named_modules())
        self._handles = [
            modules[name].register_forward_hook(self._hook(name, limit))
            for name, limit in thresholds.items()
        ]

    def take(self) -> dict[str, tuple[Tensor, int]]:
        """The silent units (a count: float64, 0-d) and the units of each module since the last call.

        The count is NaN where an output was NaN or inf. Raises what went wrong in a hook.
        """
        if self._error is not None:
            self.close()
            raise self._error
        seen, self._silent = self._silent, {}
        return {
            name: (torch.stack([s.sum() for s in by_width.values()]).sum(), sum(by_width))
            for name, by_width in seen.items()
        }

    def close(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _replayed(self) -> bool:
        """Whether this pass repeats one for measurement: quantizers then record nothing."""
        return any(not q.recording for module in self._quantized for q in module.quantizers())

    def _hook(self, name: str, limit: float) -> Callable[[nn.Module, Any, Any], None]:
        def observe(module: nn.Module, args: Any, output: Any) -> None:
            if not module.training or self._replayed() or not self._wanted():
                return
            try:
                with torch.no_grad():
                    silent = _silent_units(output, limit)
                    by_width = self._silent.setdefault(name, {})
                    before = by_width.get(len(silent))
                    by_width[len(silent)] = silent if before is None else silent * before
            except Exception as error:
                self._error = error

        return observe


def _silent_units(output: Tensor, limit: float) -> Tensor:
    """1 for each unit that stays within ``limit`` times the rms of the output, 0 for the others.

    NaN throughout if the output is not finite. Units lie along the last dimension, or along
    dimension 1 (the channels of a convolution) of an output with more than three.
    """
    rows = output.detach().movedim(1, -1) if output.ndim > 3 else output.detach()
    rows = rows.reshape(-1, rows.shape[-1]).float()
    rms = torch.linalg.vector_norm(rows) / rows.numel() ** 0.5
    low, high = torch.aminmax(rows, dim=0)
    silent = (torch.maximum(-low, high) <= limit * rms).to(torch.float64)
    return torch.where(rms.isfinite(), silent, torch.nan)
