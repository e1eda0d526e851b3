"""What a pretend device is given to do: launches, bytes, and what would be a fault on a real one."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from pretend.cost import is_launched, launches_of
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import altgrad_core
import altgrad_plugins
from altgrad_core.testing.waits import WAITING

Kind = Literal["wait", "blocking copy", "mixed devices", "not deterministic"]

_ROOMS = {
    **{
        f"{Path(str(room.__file__)).parent}/": room.__name__
        for room in (altgrad_core, altgrad_plugins)
    },
    f"{Path(__file__).parent}/": "pretend",
}
_OF_THE_TOOL = ("device.py", "log.py", "gpu_kernels.py")
_CHECKED_ON_HOST = (
    "_linalg_eigh",
    "_linalg_svd",
    "linalg_cholesky_ex",
    "linalg_inv_ex",
    "_linalg_solve_ex",
)
"""Solvers that read on the host whether they have converged."""
_NOT_DETERMINISTIC = {
    *(
        "bincount",
        "histc",
        "kthvalue",
        "median",
        "nanmedian",
        "put_",
        "nll_loss2d_forward",
        "_ctc_loss",
    ),
    *("max_unpool2d", "grid_sampler_2d_backward", "_scaled_dot_product_cudnn_attention_backward"),
}
"""Operators for which CUDA has no deterministic kernel (``torch.use_deterministic_algorithms``)."""


class Fault(NamedTuple):
    """``kind`` of what happened, the operation that it happened in, and the function that asked for it."""

    kind: Kind
    what: str
    where: str


@dataclass
class Log:
    """What the device was given between two looks."""

    launches: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By operation, and by the function that asked for it."""
    bytes: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)

    def fault(self, kind: Kind, what: str) -> None:
        """Something that a real device would wait for, or refuse."""
        self.faults[Fault(kind, what, asked_by())] += 1

    def launch(self, what: str, count: int, moved: int) -> None:
        """``count`` kernels that read and write ``moved`` bytes together."""
        self.launches[what, asked_by()] += count
        self.bytes += moved


def asked_by() -> str:
    """``module:function`` of the innermost frame of the product, such as ``altgrad_core/training/loop:step``."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        for folder, room in _ROOMS.items():
            if code.co_filename.startswith(folder):
                inside = code.co_filename.removeprefix(folder)
                if room != "pretend" or inside not in _OF_THE_TOOL:
                    function = code.co_qualname.partition(".<locals>")[0]
                    return f"{room}/{inside.removesuffix('.py')}:{function}"
        frame = frame.f_back
    return "torch"


class Watch(TorchDispatchMode):
    """Runs every operation on tensors without values and writes down what it would do on a GPU.

    What the host reads is made up: 1, True, or a half.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log = Log()
        self.fakes = FakeTensorMode(allow_non_fake_inputs=True)

    def take(self) -> Log:
        """What was done since the last call."""
        taken, self.log = self.log, Log()
        return taken

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run ``func``, with what it would be on a GPU in the log."""
        kwargs = kwargs or {}
        if func.namespace == "prim":  # what is asked about a tensor
            return func(*args, **kwargs)
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = [tensor for tensor in given if tensor.is_cuda]
        target = kwargs.get("device")
        if not (there or _is_cuda(target) or any(isinstance(t, FakeTensor) for t in given)):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        self._look_for_faults(func, name, args, given, there)
        if there and name == "_local_scalar_dense":
            self.log.fault("wait", "item")
            return made_up(args[0].dtype)
        if there and name == "_to_copy" and target is not None and not _is_cuda(target):
            self.log.fault("wait", "copy to the host")
            dtype = kwargs.get("dtype") or args[0].dtype
            return torch.full(args[0].shape, made_up(dtype), dtype=dtype)
        if there and name == "copy_" and not args[0].is_cuda:
            self.log.fault("wait", "copy to the host")
            return args[0]
        if there and name == "equal":
            return True
        with self.fakes:
            result = func(*args, **kwargs)
        self._note(func, name, args, kwargs, given, result)
        return result

    def _look_for_faults(
        self, func: Any, name: str, args: Any, given: list[Tensor], there: list[Tensor]
    ) -> None:
        if not there:
            return
        if func._schema.name.startswith(WAITING[1:]) or str(func).startswith(
            "aten.repeat_interleave.Tensor"
        ):
            self.log.fault("wait", name)
        if name in _CHECKED_ON_HOST:
            self.log.fault("wait", f"{name}, which looks at its success")
        if name in _NOT_DETERMINISTIC or (name == "cumsum" and there[0].is_floating_point()):
            self.log.fault("not deterministic", name)
        indices = (
            list(_tensors(args[1]))
            if name.lstrip("_").startswith("index") and len(args) > 1
            else []
        )
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.log.fault("wait", "index by a mask")
        if name not in ("copy_", "_to_copy") and len(there) < len(given):
            on_host = [tensor for tensor in given if not tensor.is_cuda]
            what = "a tensor" if any(tensor.dim() for tensor in on_host) else "a number"
            self.log.fault("mixed devices", f"{what} of the host in {name}")

    def _note(
        self,
        func: Any,
        name: str,
        args: Any,
        kwargs: dict[str, Any],
        given: list[Tensor],
        result: Any,
    ) -> None:
        made = list(_tensors(result))
        if name in ("_to_copy", "copy_"):
            source, copy = (args[0], made[0]) if name == "_to_copy" else (args[1], args[0])
            free = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            if copy.is_cuda and not source.is_cuda and not (free and is_pinned(source)):
                self.log.fault("blocking copy", name)
        if any(tensor.is_cuda for tensor in (*given, *made)) and is_launched(func):
            moved = sum(tensor.numel() * tensor.element_size() for tensor in (*given, *made))
            self.log.launch(name, launches_of(name, args, made), moved)


def pin(tensor: Tensor) -> Tensor:
    """A copy of ``tensor`` that counts as one in pinned memory."""
    pinned = tensor.clone()
    pinned._pinned_here = True  # type: ignore[attr-defined]
    return pinned


def is_pinned(tensor: Tensor) -> bool:
    """Whether :func:`pin` made it."""
    return getattr(tensor, "_pinned_here", False)


def made_up(dtype: torch.dtype) -> float | int | bool:
    """What the host reads of a tensor without values."""
    if dtype == torch.bool:
        return True
    return 0.5 if dtype.is_floating_point else 1


def _is_cuda(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))
