"""What an offer needs and this machine lacks, found out without torch and without a device."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from altgrad_core.interfaces.plugin import Need, Offer

_DEVICE_FILES = (
    "dev/nvidia[0-9]*",
    "proc/driver/nvidia/gpus/*",  # containers may lack the device files
    "dev/dxg",  # WSL 2
    "dev/nvhost-gpu",  # Jetson
    "Windows/System32/nvcuda.dll",
)
"""What the NVIDIA driver puts up where there is a GPU, below the root of the file system."""


def missing_needs(offer: Offer) -> list[str]:
    """What is not met, each as ``needs …`` with what to do about it; empty when all is met."""
    return [sentence for need in offer.needs if (sentence := _missing(need))]


def _missing(need: Need) -> str:
    hint = f" ({need.hint})" if need.hint else ""
    if need.kind == "module":
        return "" if has_module(need.name) else f"needs the Python module {need.name!r}{hint}"
    reason = no_cuda()
    return f"needs a CUDA device: {reason}{hint}" if reason else ""


def has_module(name: str) -> bool:
    """Whether ``import name`` would find something. Imports the parents of a dotted name only."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a parent is missing or broken; a module without a spec
        return False


def no_cuda(root: Path = Path("/")) -> str:
    """Why there is no CUDA device, or an empty string where there seems to be one.

    Read from ``CUDA_VISIBLE_DEVICES`` and the files that the NVIDIA driver puts up. The driver
    itself is not asked: starting it takes longer than the whole plan.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={visible!r} hides them all"
    if any(any(root.glob(pattern)) for pattern in _DEVICE_FILES):
        return ""
    return "the NVIDIA driver shows none (no /dev/nvidia0)"
