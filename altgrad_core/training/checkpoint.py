"""Checkpoints: one atomic file, read back as data only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from altgrad_core._files import atomic_file
from altgrad_core.errors import UserError


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors, numbers, strings, lists and dicts of those) to ``path``."""
    with atomic_file(path) as file:
        torch.save(state, file)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The checkpoint, on the CPU, or None where there is none. Never unpickles code."""
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # bytes that are no checkpoint may lead torch anywhere
        raise UserError(
            f"{path} cannot be read as a checkpoint ({error}). Delete it to start this run from its "
            f"first step."
        ) from error
    return state
