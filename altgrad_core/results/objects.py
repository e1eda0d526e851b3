"""The JSON objects among the files of a suite, and what is said of a file that is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from altgrad_core.errors import UserError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty where there is no file. ``UserError`` if it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise damaged(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise damaged(path, str(error)) from error
    if not isinstance(value, dict):
        raise damaged(path, "it holds no JSON object")
    return value


def damaged(path: Path, reason: str) -> UserError:
    """The error for a file that cannot be read, with what to do about it."""
    if path.name in ("plan.json", "tuning.json"):
        return UserError(
            f"{path} cannot be read ({reason}). Move {path} away and run the suite again."
        )
    return UserError(
        f"{path} cannot be read ({reason}). Run the suite again, which repeats this run."
    )
