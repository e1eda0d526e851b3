"""The native products themselves, what their library wants of the operands, and where they are.

Sums are exact in int8 (int32). In float8 the library sums in float32, the tensor cores of a GPU in fewer
bits; ``use_fast_accum`` is off. Nothing here waits for the device.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from altgrad_core.errors import UserError
from altgrad_core.interfaces.backend import backend_for
from altgrad_core.quantization.modules.fake_quant import LOW_PRECISION
from altgrad_core.quantization.native.codes import CODES, Codes
from altgrad_core.quantization.native.pairs import INTEGER, PLAIN, PRODUCTS, SCALED

MULTIPLE = 16
"""What CUDA's libraries want every dimension to be a multiple of: zeros are added, which changes no sum."""
ROWS = 32
"""The least number of rows of the left operand there: ``_int_mm`` refuses 16 and fewer."""
_CAPABILITY = {SCALED: (8, 9), INTEGER: (7, 5), PLAIN: (0, 0)}


def product(left: Codes, right: Codes, dtype: torch.dtype, bias: Tensor | None = None) -> Tensor:
    """``left @ right + bias``, epilogues included, in ``dtype``; shapes (m, k), (k, n), (n,) and (m, n)."""
    a, b = left.values, right.values
    m, n = a.shape[0], b.shape[1]
    if 0 in (m, n, a.shape[1]):
        return torch.zeros(m, n, dtype=dtype, device=a.device) + (
            0 if bias is None else bias.to(dtype)
        )
    if a.dtype in CODES:
        padded = a.device.type == "cuda"
        a, b = laid_out(a, b, padded=padded)
        if bias is not None and b.shape[1] > n:
            bias = F.pad(bias, (0, b.shape[1] - n))
    multiply = _MULTIPLY[PRODUCTS[_name(a.dtype), _name(b.dtype)]]
    return multiply(a, b, left.epilogue, right.epilogue, bias, dtype)[:m, :n].to(dtype)


def laid_out(a: Tensor, b: Tensor, *, padded: bool) -> tuple[Tensor, Tensor]:
    """The left operand by rows and the right one by columns; ``padded``: in sizes that CUDA's libraries take, too."""
    (m, k), n = a.shape, b.shape[1]
    if padded:
        m = max(m, ROWS)
        m, k, n = (size + -size % MULTIPLE for size in (m, k, n))
    return _by_rows(a, m, k), _by_rows(b.t(), n, k).t()


def _by_rows(x: Tensor, rows: int, columns: int) -> Tensor:
    """``x`` by rows, with zeros below and beside it up to that size."""
    more = (0, columns - x.shape[1], 0, rows - x.shape[0])
    if not x.is_contiguous():
        x = _turned(x)
    return F.pad(x.view(torch.uint8), more).view(x.dtype) if any(more) else x  # 0 is the code 0


def _turned(x: Tensor) -> Tensor:
    if backend_for(x) != "triton" or not x.t().is_contiguous():
        return x.contiguous()
    from altgrad_core.quantization.kernels import gpu_layout

    return gpu_layout.by_rows(x)


def _scaled(
    a: Tensor, b: Tensor, a_scale: Any, b_scale: Any, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    late = dtype not in LOW_PRECISION  # where the result is float32, CUDA's library adds no bias
    found: Tensor = torch._scaled_mm(
        a,
        b,
        scale_a=a_scale,
        scale_b=b_scale,
        bias=None if late or bias is None else bias.to(dtype),
        out_dtype=torch.float32 if late else dtype,
        use_fast_accum=False,
    )
    return found + bias if late and bias is not None else found


def _integer(
    a: Tensor, b: Tensor, a_scale: Any, b_scale: Any, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    sums: Tensor = torch._int_mm(a, b)
    if backend_for(sums) == "triton":
        from altgrad_core.quantization.kernels import gpu_epilogue

        if gpu_epilogue.fits((a_scale, b_scale), bias, dtype):
            done: Tensor = gpu_epilogue.epilogue(sums, (a_scale, b_scale), bias, dtype)
            return done
    found: Tensor = sums * (a_scale * b_scale)
    return found if bias is None else found + bias


def _plain(
    a: Tensor, b: Tensor, a_scale: Any, b_scale: Any, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """In the dtype of the operands, summed in float32, and rounded to ``dtype`` at the end."""
    if a.dtype == dtype and a_scale is None and b_scale is None:
        return torch.mm(a, b) if bias is None else torch.addmm(bias.to(dtype), a, b)
    if a.device.type == "cuda" and a.dtype in LOW_PRECISION:
        found = torch.mm(a, b, out_dtype=torch.float32)
    else:
        found = torch.mm(a.float(), b.float())
    for scale in (a_scale, b_scale):
        found = found if scale is None else found * scale
    return found if bias is None else found + bias


_MULTIPLY = {SCALED: _scaled, INTEGER: _integer, PLAIN: _plain}


def check_products(device: torch.device, products: set[str]) -> None:
    """Raise ``UserError`` where ``device`` lacks one of ``products``, names of what multiplies."""
    for name in sorted(products):
        if why := unavailable(name, device.type, device.index or 0):
            raise UserError(
                f"execution: native multiplies with {name}, and {why}. Use execution: simulated, or a "
                f"machine that has it."
            )


@cache
def unavailable(name: str, kind: str, index: int = 0) -> str:
    """Why what multiplies is not to be had on a device, to follow "and"; empty where it is."""
    if kind == "cpu":
        return _fails_on_cpu(name)
    if kind != "cuda":
        return f"there is none on a device of type {kind}"
    if torch.version.hip is not None:
        return "that of AMD's library has not been tried"
    least, found = _CAPABILITY[name], torch.cuda.get_device_capability(index)
    if found >= least:
        return ""
    called = torch.cuda.get_device_name(index)
    has, wanted = (".".join(map(str, one)) for one in (found, least))
    return f"{called} has compute capability {has}, where that needs {wanted}"


def _fails_on_cpu(name: str) -> str:
    one = torch.ones((), dtype=torch.float32, device="cpu")
    try:
        for left, right in (pair for pair, by in PRODUCTS.items() if by == name):
            a, b = (
                torch.ones(2, 2, device="cpu").to(getattr(torch, dtype)) for dtype in (left, right)
            )
            _MULTIPLY[name](a, b, one, one, None, torch.float32)
    except (RuntimeError, AttributeError, TypeError) as error:
        return (
            f"torch {torch.__version__} does not have it on the CPU ({str(error).splitlines()[0]})"
        )
    return ""


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
