"""``python -m pretend LIBRARY``: what the steps of every condition give a GPU to do, as JSON.

``LIBRARY`` is ``guard.cpp``, compiled. It has to be there before torch looks for devices.
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)

from pretend import device  # noqa: E402
from pretend.conditions import CONDITIONS  # noqa: E402
from pretend.log import Log  # noqa: E402
from pretend.step import steps  # noqa: E402


def _as_json(log: Log) -> dict[str, Any]:
    return {
        "launches": sum(log.launches.values()),
        "bytes": log.bytes,
        "by": [[*key, count] for key, count in log.launches.most_common()],
        "faults": [[*fault, count] for fault, count in log.faults.items()],
    }


watch, found = device.install(), {}
for name in sys.argv[2:] or CONDITIONS:
    logs, events = steps(watch, CONDITIONS[name])
    found[name] = {
        "steps": {step: _as_json(log) for step, log in logs.items()},
        "failures": [event.message for event in events if event.kind == "monitor_failed"],
    }
json.dump(found, sys.stdout)
