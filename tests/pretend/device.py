"""A CUDA device that is not there: torch's own code for it runs as far as the values.

For a process of its own, which loads the library of ``guard.cpp`` before torch, since what is loaded and
exchanged here stays. Tensors on the device have a shape and a dtype, and no values.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers.masking_utils
from pretend import gpu_kernels
from pretend.log import Watch, made_up, pin
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from altgrad_core.interfaces import backend

DEVICE = torch.device("cuda", 0)


def install() -> Watch:
    """Put the device into this process and return what watches it."""
    watch = Watch()
    cuda: Any = torch.cuda
    cuda._lazy_init = lambda: None
    cuda._exchange_device = cuda._maybe_exchange_device = lambda index: 0
    cuda.is_bf16_supported = lambda *args, **kwargs: True
    cuda.amp.common.amp_definitely_not_available = lambda: False
    cuda.current_stream = lambda device=None: None
    cuda.is_current_stream_capturing = lambda: False
    cuda.max_memory_allocated = lambda device=None: 0
    cuda.reset_peak_memory_stats = lambda device=None: None
    cuda.get_rng_state = lambda device=None: torch.zeros(16, dtype=torch.uint8)
    cuda.set_rng_state = lambda state, device=None: None
    cuda.Event = _event_class(watch)
    torch.random.fork_rng = _fork_host_only(torch.random.fork_rng)  # type: ignore[assignment]
    torch.Generator = _Generator  # type: ignore[assignment,misc]
    Tensor.pin_memory = lambda self, device=None: pin(self)  # type: ignore[method-assign]
    F.scaled_dot_product_attention = _attention  # type: ignore[assignment]
    for owner, name in ((torch, "tensor"), (torch, "as_tensor"), (Tensor, "new_tensor")):
        setattr(owner, name, _copied_from_host(watch, getattr(owner, name)))
    for name in ("rand", "randn", "randint", "randperm"):
        setattr(torch, name, _drawn(watch, getattr(torch, name)))
    gpu_kernels.install(watch)
    # transformers would take tensors without values for those of a tracer
    transformers.masking_utils.is_tracing = lambda *args: False
    # an address, which goes into tables of kernels that do nothing
    FakeTensor.data_ptr = lambda self: 16 * self.untyped_storage()._cdata  # type: ignore[method-assign]
    FakeTensor.tolist = _read(watch)  # type: ignore[method-assign]
    backend._recorded = lambda: (
        False
    )  # the watch is a dispatch mode, and kernels are to be launched under it
    backend._PLAIN = (*backend._PLAIN, FakeTensor)  # type: ignore[assignment]
    return watch


def _event_class(watch: Watch) -> type:
    class Event:
        """An event that the device has always passed."""

        def __init__(self, enable_timing: bool = False) -> None:
            pass

        def record(self, stream: object = None) -> None:
            """Nothing happens."""

        def query(self) -> bool:
            """Whether it has been passed; asking waits for nothing."""
            return True

        def synchronize(self) -> None:
            """The host waits."""
            watch.log.fault("wait", "event")

        def elapsed_time(self, other: object) -> float:
            """Milliseconds."""
            return 1.0

    return Event


def _copied_from_host(watch: Watch, make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Numbers become a tensor on the host and are copied, for which the host waits."""

    def made(*args: Any, **kwargs: Any) -> Tensor:
        like = args[0] if make.__name__ == "new_tensor" else None
        device = kwargs.pop("device", None) or (like.device if like is not None else None)
        given = args[-1]
        if device is None or torch.device(device).type != "cuda" or isinstance(given, FakeTensor):
            return make(*args, **kwargs) if device is None else make(*args, device=device, **kwargs)
        if like is not None:
            kwargs.setdefault("dtype", like.dtype)
        return _TENSOR(given, **kwargs).to(device)

    return made


def _read(watch: Watch) -> Callable[[Tensor], Any]:
    """``tolist``, which without values would read them one by one."""

    def nested(shape: tuple[int, ...], value: object) -> Any:
        return [nested(shape[1:], value) for _ in range(shape[0])] if shape else value

    def tolist(self: Tensor) -> Any:
        if self.is_cuda:
            watch.log.fault("wait", "tolist")
        return nested(tuple(self.shape), made_up(self.dtype))

    return tolist


_TENSOR = torch.tensor
_GENERATOR = torch.Generator


class _Generator(_GENERATOR):
    """A generator of the host, which without values serves the device as well; it says where it was asked for."""

    def __new__(cls, device: Any = "cpu") -> _Generator:
        made = super().__new__(cls)
        made.asked = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where it was asked for."""
        return self.asked


def _drawn(watch: Watch, draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Random numbers, which CUDA draws from a generator of its own alone."""

    def drawn(*args: Any, **kwargs: Any) -> Tensor:
        generator, device = kwargs.get("generator"), torch.device(kwargs.get("device") or "cpu")
        if generator is not None and generator.device.type != device.type:
            watch.log.fault("mixed devices", f"a generator of another device in {draw.__name__}")
        return draw(*args, **kwargs)

    return drawn


def _fork_host_only(fork: Callable[..., Any]) -> Callable[..., Any]:
    @contextlib.contextmanager
    def forked(devices: Any = None, **options: Any) -> Iterator[None]:
        with fork(devices=[], **options):
            yield

    return forked


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Memory-efficient attention, which CUDA chooses where there is a mask; or by operators, where it may not."""
    if torch.is_autocast_enabled("cuda"):
        query, key, value = (x.to(torch.bfloat16) for x in (query, key, value))
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            nothing = torch.zeros_like(attn_mask, dtype=query.dtype)
            attn_mask = nothing.masked_fill_(attn_mask.logical_not(), float("-inf"))
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    rest = dropout_p, is_causal
    if not torch.backends.cuda.mem_efficient_sdp_enabled():
        math = torch.ops.aten._scaled_dot_product_attention_math
        result: Tensor = math(query, key, value, attn_mask, *rest, scale=scale)[0]
        return result
    efficient = torch.ops.aten._scaled_dot_product_efficient_attention
    found: Tensor = efficient(
        query, key, value, attn_mask, query.requires_grad, *rest, scale=scale
    )[0]
    return found
