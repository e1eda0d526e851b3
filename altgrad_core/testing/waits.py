"""Finding, on the CPU, what on an accelerator would make the host wait for the device.

A tensor counts as one on the device if it is among those that are named so, or was made of one. The
operations whose result the host has to read, or needs to know the size of, are then those that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from altgrad_core.interfaces import backend, draws
from altgrad_core.quantization.resident import fitting

WAITING = (
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::bincount",
    "aten::masked_select",
    "aten::unique",
    "aten::_unique",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nanmedian",
    "aten::repeat_interleave.Tensor",
)
NAMES = {"aten::_local_scalar_dense": "item(), float(), bool() or a comparison in an if"}
_FETCHING = (
    "tolist",
    "numpy",
    "cpu",
    "__array__",
    "__reduce_ex__",
    "__repr__",
)  # no operation of theirs is dispatched
_COPY = "aten::lift_fresh"  # torch.tensor and new_tensor: on another device, a blocking copy


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations that would wait on a device, among them an index by a mask.

    device:
        tensors that are on the device; None: all are, and a tensor made from numbers is copied to it.
    """

    def __init__(self, device: Iterable[Tensor] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []
        self._all = device is None
        self._kept: dict[int, Any] = {}  # storages stay alive, or another would take their place
        self.place(device or ())
        # as on a device: what is only looked at where a look is free is not looked at, kernels for the CPU are
        # not there, and the keys of draws come from a generator that is on the host in any case
        self._paused = False
        self._as_there = (
            mock.patch.object(fitting, "look_is_free", return_value=False),
            mock.patch.object(backend, "cpu_backend", return_value="eager"),
            mock.patch.object(draws, "new_key", self._unseen(draws.new_key)),
        )
        self._calls = _Calls(self)

    def place(self, tensors: Iterable[Tensor]) -> None:
        """Count these as tensors on the device."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._kept[storage._cdata] = storage

    def _unseen(self, call: Callable[[torch.Generator], int]) -> Callable[[torch.Generator], int]:
        def unseen(generator: torch.Generator) -> int:
            self._paused = True
            try:
                return call(generator)
            finally:
                self._paused = False

        return unseen

    def there(self, tensors: Iterable[Tensor]) -> bool:
        """Whether one of them is on the device."""
        if self._paused:
            return False
        return self._all or any(one.untyped_storage()._cdata in self._kept for one in tensors)

    def __enter__(self) -> Watch:
        """Begin to watch."""
        for patch in self._as_there:
            patch.start()
        super().__enter__()  # type: ignore[no-untyped-call]
        self._calls.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        """Watch no longer."""
        self._calls.__exit__(*error)  # type: ignore[no-untyped-call]
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for patch in self._as_there:
            patch.stop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and note it if it waits."""
        name = func._schema.name
        given = [*_tensors(args), *_tensors((kwargs or {}).values())]
        there = self.there(given)
        masks = name.startswith("aten::index") and any(
            index.dtype in (torch.bool, torch.uint8) for index in _tensors(args[1:2])
        )
        if there and (name.startswith(WAITING) or masks or (self._all and name == _COPY)):
            self.seen.append(name)
        result = func(*args, **(kwargs or {}))
        if there and not self._all:
            self.place(_tensors((result,)))
            if func._schema.is_mutable:
                self.place(given)
        return result

    @property
    def waits(self) -> str:
        """The first operation that waited, in words; empty if none did."""
        if not self.seen:
            return ""
        name = self.seen[0]
        index = (
            "an index by a mask" if name.startswith("aten::index") else name.removeprefix("aten::")
        )
        return NAMES.get(name, index)


class _Calls(TorchFunctionMode):
    """Notes the methods that bring a tensor to the host, which on the CPU are no operations."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        host = name == "to" and "cpu" in [one for one in args[1:] if isinstance(one, str)]
        if (name in _FETCHING or host) and self._watch.there(_tensors(args[:1])):
            self._watch.seen.append(f"{name}()")
        return func(*args, **(kwargs or {}))


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found
