"""What a run ran on: versions, hardware, source revision. Written to ``environment.json``."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from altgrad_core.interfaces.backend import cpu_backend, gpu_backend

PACKAGES = (
    *("altgrad-bench", "torch", "transformers", "tokenizers", "datasets", "numpy", "numba"),
)


def describe_environment(device: torch.device, distributions: Mapping[str, str]) -> dict[str, Any]:
    """Facts that a reader needs to repeat the run; JSON values."""
    cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "hostname": socket.gethostname(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": gpu_backend() if cuda else cpu_backend(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if cuda else _cpu_name(),
        "cuda": torch.version.cuda if cuda else None,
        "packages": {name: found for name in PACKAGES if (found := installed_version(name))},
        "distributions": dict(distributions),
        "git": git_revision(),
    }


@cache
def installed_version(package: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@cache
def git_revision() -> dict[str, Any] | None:
    """Commit of the checkout that holds this package, and whether it has changes; None outside a checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_git(here, "status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError) as error:
        return {"commit": None, "error": str(error)}


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(("git", "-C", str(folder), *arguments), capture_output=True, check=True)
    return done.stdout.decode(errors="replace").strip()
