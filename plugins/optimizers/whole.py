"""What torch's base class leaves to its subclasses: copies that are whole, states that keep their dtype."""

from __future__ import annotations

from itertools import chain
from typing import Any, ClassVar

import torch

_NOT_COPIED = ("step", "_opt_called", "grad_scale", "found_inf")
"""What schedulers and ``GradScaler`` hang onto an optimizer."""


class WholeOptimizer(torch.optim.Optimizer):
    """An optimizer that can be copied, pickled, and scaled for.

    - ``torch.optim.Optimizer`` copies three attributes. Here all go along, except for hooks; copied or
      pickled together with its model, the copy belongs to the copied model.
    - ``torch.optim.Optimizer`` loads every floating-point state in the dtype of its parameter, and makes
      integers floats. What :attr:`own_dtypes` names stays as it was saved.
    - The step does not look at ``grad_scale`` and ``found_inf``, as torch's fused ones do, and does not
      claim to (:meth:`leave_scaling_to_the_scaler`): ``GradScaler`` then unscales the gradients, and
      leaves out the steps in which one is not finite.
    """

    own_dtypes: ClassVar[tuple[str, ...]] = ()

    def leave_scaling_to_the_scaler(self) -> None:
        """To be called after the constructor of a torch class, which promises the opposite if fused."""
        self._step_supports_amp_scaling = False

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_optimizer_") and name not in _NOT_COPIED
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a state; see above."""
        super().load_state_dict(state_dict)
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        own = chain.from_iterable(group["params"] for group in self.param_groups)
        for key, parameter in zip(saved, own, strict=True):
            for name in self.own_dtypes:
                value = state_dict["state"].get(key, {}).get(name)
                if value is not None:
                    self.state[parameter][name] = value.to(parameter.device, copy=True)
