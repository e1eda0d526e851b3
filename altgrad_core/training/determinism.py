"""Deterministic kernels: what makes a restarted run end bit for bit like one that was not interrupted.

On CUDA torch is strict. With ``warn_only`` it would still choose attention kernels whose backward pass adds
in any order; strict, flash and memory-efficient attention take their deterministic ways, and an operation
that has none is refused. cuDNN's attention has none, so it is not offered. cuBLAS needs a fixed
workspace, which it reads from the environment when CUDA starts.

Sums of bfloat16 and float16 products are kept in float32, also across the parts of a split product,
and float32 products in float32: formats are compared, and the product must not round on its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from altgrad_core.errors import UserError

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED_WORKSPACES = (":4096:8", ":16:8")
_COMPILER = "torch._inductor.config"
_COMPILER_READS = "TORCHINDUCTOR_DETERMINISTIC"
_REFUSAL = "does not have a deterministic implementation"


def make_deterministic(device: torch.device) -> None:
    """Set this process up for reproducible runs on ``device``. To be called before CUDA is used."""
    if os.environ.get(_WORKSPACE) not in _FIXED_WORKSPACES:
        os.environ[_WORKSPACE] = _FIXED_WORKSPACES[0]
    _choose_deterministic_kernels(strict=device.type == "cuda")
    # Filling new tensors with NaN finds reads of uninitialised memory; here it would only cost time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def _choose_deterministic_kernels(*, strict: bool) -> None:
    """As torch has it, which would import its compiler for one setting of it: that takes as long as torch itself."""
    os.environ[_COMPILER_READS] = "1"  # when it is imported
    if _COMPILER in sys.modules:
        torch.use_deterministic_algorithms(True, warn_only=not strict)
    else:
        torch.set_deterministic_debug_mode("error" if strict else "warn")


@contextmanager
def refusals_explained() -> Iterator[None]:
    """Within the context, an operation that torch refuses as not deterministic is a ``UserError``."""
    try:
        yield
    except RuntimeError as error:
        if _REFUSAL not in str(error):
            raise
        operation = str(error).partition(_REFUSAL)[0].strip()
        raise UserError(
            f"The model or the optimizer uses {operation or 'an operation'}, which has no deterministic "
            f"kernel on this device, so a run that is interrupted could not end like one that is not. "
            f"Replace the operation, or run with --device cpu."
        ) from error
