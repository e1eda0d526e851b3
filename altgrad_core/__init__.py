"""altgrad-bench: which 8-bit format gains most from manifold-aware weight updates?

The library's names are imported when first used, so that importing this package does not import torch.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from altgrad_core._lazy import lazy_exports
from altgrad_core.errors import UserError

if TYPE_CHECKING:
    from altgrad_core.api import (
        dequantize_model,
        keep_on_grid,
        load_format,
        load_results,
        load_suite,
        plan_suite,
        quantize_model,
        register_adapter,
        run_suite,
    )

__version__ = version("altgrad-bench")
__all__ = [
    "UserError",
    "__version__",
    "dequantize_model",
    "keep_on_grid",
    "load_format",
    "load_results",
    "load_suite",
    "plan_suite",
    "quantize_model",
    "register_adapter",
    "run_suite",
]

__getattr__, __dir__ = lazy_exports(
    __name__,
    {name: "api" for name in __all__ if name not in ("UserError", "__version__")},
)
