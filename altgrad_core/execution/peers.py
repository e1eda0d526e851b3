"""Other libraries that round to number formats, as far as they are installed and have the format.

Each is called as its documentation says, on a float32 tensor, and gives a new one. A library that has data types,
such as torch itself, has the format if one of them has the same finite values. One that takes numbers of bits has
every sign-magnitude float whose bias is the usual one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor

from altgrad_core.interfaces.format import LISTED_BITS, Format, Rounding
from altgrad_core.quantization.kernels.numbers import GridNumbers
from altgrad_core.registry.strangers import StrangeError, strangers_code

RoundingCall = Callable[[Tensor], Tensor]
Calls = Mapping[Rounding, RoundingCall]


class Shape(NamedTuple):
    """A sign-magnitude float as libraries are told of it; ``nans`` and ``infs`` are numbers of codes for each sign."""

    bits: int
    exponent: int
    mantissa: int
    bias: int
    nans: int
    infs: int


def peers_of(fmt: Format, device: torch.device) -> tuple[dict[str, Calls], dict[str, str]]:
    """What each library that has ``fmt`` calls its rounding by; and why those that fail are left out."""
    found: dict[str, Calls] = {}
    left_out: dict[str, str] = {}
    for name, make in _PEERS.items():
        if find_spec(name) is None:
            continue
        label = f"{name} {version(name)}"
        try:
            with strangers_code(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                calls = make(fmt, device)
                for call in calls.values():
                    call(torch.ones(8, device=device))
        except StrangeError as error:
            left_out[label] = str(error)
        else:
            found |= {label: calls} if calls else {}
    return found, left_out


def _shape(fmt: Format) -> Shape | None:
    """None for what is no sign-magnitude float."""
    numbers = getattr(fmt, "numbers", None)
    if not isinstance(numbers, GridNumbers) or fmt.bits > LISTED_BITS:
        return None
    m, codes = numbers.mantissa_bits, fmt.code_values()[: 2 ** (fmt.bits - 1)]
    nans, infs = int(codes.isnan().sum()), int(codes.isinf().sum())
    return Shape(fmt.bits, fmt.bits - 1 - m, m, 1 - numbers.min_exponent, nans, infs)


def _usual(fmt: Format) -> Shape | None:
    shape = _shape(fmt)
    usual = shape is not None and shape.exponent and shape.bias == 2 ** (shape.exponent - 1) - 1
    return shape if usual else None


def _finite(values: Tensor) -> Tensor:
    distinct: Tensor = torch.unique(values[values.isfinite()])
    return distinct


def _torch(fmt: Format, device: torch.device) -> Calls:
    for dtype in {v for v in vars(torch).values() if isinstance(v, torch.dtype)}:
        if fmt.bits == 8 * dtype.itemsize and dtype.is_floating_point and _lists(fmt, dtype):
            return {"nearest": partial(_cast, dtype)}
    return {}


def _cast(dtype: torch.dtype, x: Tensor) -> Tensor:
    return x.to(dtype).float()


def _lists(fmt: Format, dtype: torch.dtype) -> bool:
    """Whether the finite values of a torch type are those of ``fmt``."""
    codes = torch.arange(2**fmt.bits)
    try:
        values = codes.to(torch.uint8 if fmt.bits == 8 else torch.uint16).view(dtype).float()
    except (RuntimeError, NotImplementedError):  # a type that torch only packs
        return False
    return torch.equal(_finite(values), _finite(fmt.code_values()))


def _ml_dtypes(fmt: Format, device: torch.device) -> Calls:
    import numpy as np

    if device.type != "cpu" or fmt.bits > LISTED_BITS:
        return {}
    library: Any = import_module("ml_dtypes")
    word = np.uint8 if fmt.bits <= 8 else np.uint16
    codes = np.arange(2**fmt.bits).astype(word)
    for name in (name for name in library.__all__ if "float" in name):
        dtype = np.dtype(getattr(library, name))
        bits = library.finfo(dtype).bits
        if bits == fmt.bits and torch.equal(
            _finite(torch.from_numpy(codes.view(dtype).astype(np.float32))),
            _finite(fmt.code_values()),
        ):
            return {"nearest": partial(_through, dtype)}
    return {}


def _through(dtype: Any, x: Tensor) -> Tensor:
    """A float32 as numpy's ``dtype``, and back."""
    return torch.from_numpy(x.numpy().astype(dtype).astype("float32"))


def _gfloat(fmt: Format, device: torch.device) -> Calls:
    shape = _shape(fmt)
    if shape is None or device.type != "cpu":
        return {}
    library: Any = import_module("gfloat")
    info = library.FormatInfo(
        "peer",
        shape.bits,
        shape.mantissa + 1,
        bias=shape.bias,
        is_signed=True,
        domain=library.Domain.Extended if shape.infs else library.Domain.Finite,
        has_nz=True,
        num_high_nans=shape.nans,
        has_subnormals=True,
        is_twos_complement=False,
    )

    def nearest(x: Tensor) -> Tensor:
        return torch.from_numpy(library.round_ndarray(info, x.numpy(), sat=True)).float()

    return {"nearest": nearest}


def _torchao(fmt: Format, device: torch.device) -> Calls:
    shape = _usual(fmt)
    if shape is None or shape.bits > 8:
        return {}
    library: Any = import_module("torchao.prototype.custom_fp_utils")
    to, back = library._f32_to_floatx_unpacked, library._floatx_unpacked_to_f32
    bits = shape.exponent, shape.mantissa
    return {"nearest": lambda x: back(to(x, *bits), *bits)}


def _qtorch(fmt: Format, device: torch.device) -> Calls:
    shape = _usual(fmt)
    if shape is None:
        return {}
    quantize: Any = import_module("qtorch.quant").float_quantize
    bits = shape.exponent, shape.mantissa
    return {
        "nearest": lambda x: quantize(x, *bits, rounding="nearest"),
        "stochastic": lambda x: quantize(x, *bits, rounding="stochastic"),
    }


def _pychop(fmt: Format, device: torch.device) -> Calls:
    shape = _usual(fmt)
    if shape is None:
        return {}
    library: Any = import_module("pychop")
    library.backend("torch")
    chops = {
        mode: library.Chop(exp_bits=shape.exponent, sig_bits=shape.mantissa, rmode=mode)
        for mode in (1, 5)
    }
    return {"nearest": chops[1], "stochastic": chops[5]}


_PEERS: Mapping[str, Callable[[Format, torch.device], Calls]] = {
    "torch": _torch,
    "ml_dtypes": _ml_dtypes,
    "gfloat": _gfloat,
    "torchao": _torchao,
    "qtorch": _qtorch,
    "pychop": _pychop,
}


class Agreement(NamedTuple):
    """In how many values another library differs from ours, of how many, and where those lie."""

    differ: int
    values: int
    where: Mapping[str, int]

    def __str__(self) -> str:
        if not self.differ:
            return "agrees"
        told = ", ".join(f"{count} {where}" for where, count in self.where.items())
        return f"differs in {self.differ} of {self.values}: {told}"


@cache
def trials() -> Tensor:
    """The float32 whose lower 15 bits are 0, and their neighbours: among them are all ties of 8-bit formats."""
    bits = torch.arange(2**17, dtype=torch.int64) << 15
    around = torch.stack((bits, bits - 1, bits + 1)).flatten() & 0xFFFFFFFF
    return torch.where(around >= 2**31, around - 2**32, around).to(torch.int32).view(torch.float32)


def agreement(
    fmt: Format, rounding: Rounding, call: RoundingCall, device: torch.device
) -> Agreement:
    """Compare a peer with ``fmt`` on :func:`trials`.

    Stochastically, each value must be one of the two grid values around; that the odds are right is not looked at.
    """
    x = trials().to(device)
    theirs, ours = call(x).float(), fmt.round(x)
    same = (theirs == ours) | (theirs.isnan() & ours.isnan())
    if rounding == "stochastic":
        way = (x - ours).nan_to_num(0.0).sign().to(torch.int32)
        same |= theirs == fmt.from_rung(fmt.to_rung(x) + way)
    other = ~same
    return Agreement(int(other.sum()), x.numel(), dict(_places(fmt, x, ours, theirs, other)))


def _places(
    fmt: Format, x: Tensor, ours: Tensor, theirs: Tensor, other: Tensor
) -> Iterator[tuple[str, int]]:
    numbers = getattr(fmt, "numbers", None)
    normal = 2.0**numbers.min_exponent if isinstance(numbers, GridNumbers) else fmt.min_positive
    kinds = {
        "NaN": x.isnan(),
        "beyond the largest value": x.abs() > fmt.max_finite,
        "ties": (x - ours).abs() == (x - theirs).abs(),
        "below the smallest normal value": x.abs() < normal,
        "elsewhere": torch.ones_like(other),
    }
    for name, there in kinds.items():
        count = int((other & there).sum())
        if count:
            yield name, count
        other = other & ~there
