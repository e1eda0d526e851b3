"""What a run directory holds beside its metrics, as texts to be stored with them elsewhere.

One text is known at the start of a run: the resolved settings, ``environment.json``, and the
suite's ``plan.json`` and ``tuning.json``, which lie beside the run directory. The other is known at
its end: ``status.json`` and ``facts.json``. Being JSON *texts* they come back as they were: stores
of experiments reorder the keys of nested objects, and turn 1.0 into 1.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from altgrad_core.interfaces.tracker import RunInfo


def text_at_start(run: RunInfo) -> str:
    """``time`` (Unix), ``spec``, and, where their files are there, ``environment``, ``plan``, ``tuning``.

    The plan is taken only if it asks for this run.
    """
    body: dict[str, Any] = {"time": time.time(), "spec": dict(run.settings)}
    suite = run.directory.parent
    plan = _read(suite / "plan.json")
    cells = plan.get("cells")
    if isinstance(cells, list) and any(
        isinstance(c, dict) and c.get("id") == run.id for c in cells
    ):
        body["plan"] = plan
        body["tuning"] = _read(suite / "tuning.json")
    body["environment"] = _read(run.directory / "environment.json")
    return _text(body)


def text_at_end(directory: Path) -> str:
    """``status`` and ``facts``, where their files are there."""
    names = ("status", "facts")
    return _text({name: _read(directory / f"{name}.json") for name in names})


def _text(body: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in body.items() if value}, ensure_ascii=False)


def _read(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is none, or it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
