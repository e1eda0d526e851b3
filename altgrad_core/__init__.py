"""altgrad-bench: which 8-bit format gains most from manifold-aware weight updates?

The library's names are imported when first used, so that importing this package does not import torch.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

from altgrad_core._lazy import lazy_exports
from altgrad_core.errors import UserError

if TYPE_CHECKING:
    from altgrad_core.api import quantize_model, run_suite
    from altgrad_core.planning.planner import plan_suite
    from altgrad_core.planning.suite import load_suite
    from altgrad_core.quantization.adapters import register_adapter
    from altgrad_core.quantization.residency import keep_on_grid
    from altgrad_core.quantization.surgery import dequantize_model
    from altgrad_core.registry.build import load_format
    from altgrad_core.results.collect import load_results
    from altgrad_core.session import MonitorSession

__version__ = version("altgrad-bench")
__all__ = [
    "MonitorSession",
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
    {
        "MonitorSession": "session",
        "dequantize_model": "quantization.surgery",
        "keep_on_grid": "quantization.residency",
        "load_format": "registry.build",
        "load_results": "results.collect",
        "load_suite": "planning.suite",
        "plan_suite": "planning.planner",
        "quantize_model": "api",
        "register_adapter": "quantization.adapters",
        "run_suite": "api",
    },
)
