"""What ``step`` does with a closure: nothing in a run, but every torch optimizer takes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def run_closure(closure: Callable[[], Any] | None) -> Any:
    """The loss that ``closure`` returns, computed with gradients on; None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
