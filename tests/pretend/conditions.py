"""What is trained on the pretend device."""

from __future__ import annotations

from typing import Any

from pretend.faults import PLANTED, Faulty
from pretend.step import DUE, QUIET, Condition

from altgrad_core.registry.catalog import catalog

_WEIGHTS: dict[str, Any] = {"format": "e5m2"}
_INPUTS = {**_WEIGHTS, "activation_format": "e5m2"}
_GRADIENTS = {**_INPUTS, "gradient_format": "e5m2"}
_GRID = {**_WEIGHTS, "residency": "grid"}
_STOCHASTIC = {**_GRID, "rounding": "stochastic"}
_FLOAT8 = {
    "format": "e4m3",
    "activation_format": "e4m3",
    "gradient_format": "e5m2",
    "execution": "native",
}
_INT8 = dict.fromkeys(_FLOAT8, "e0m7") | {"execution": "native"}
_ONLY_LOOKING, _INTERVENING = (
    [
        name
        for name, entry in catalog().offers("monitor").items()
        if entry.offer.intervenes == wanted
    ]
    for wanted in (False, True)
)

CONDITIONS = {
    "bf16 autocast, unquantised": Condition(None),
    "weights, master": Condition(_WEIGHTS),
    "+ activations": Condition(_INPUTS),
    "+ gradients": Condition(_GRADIENTS),
    "native float8": Condition(_FLOAT8),
    "native int8": Condition(_INT8),
    "grid, nearest": Condition(_GRID),
    "grid, stochastic": Condition(_STOCHASTIC),
    "grid, Kahan": Condition({**_GRID, "compensation": "kahan"}),
    "grid, nearest, flips": Condition(_GRID, monitors=["flips"], steps=(QUIET, DUE)),
    "manifold both, master": Condition(_WEIGHTS, "manifold_adamw"),
    "manifold both, grid, stochastic": Condition(_STOCHASTIC, "manifold_adamw"),
    "all monitors": Condition(_GRADIENTS, monitors=_ONLY_LOOKING, steps=(QUIET, DUE), layers=1),
    "interventions": Condition(_GRADIENTS, monitors=_INTERVENING, layers=1),
    "faults": Condition(
        None, more=[("faulty", Faulty())], steps=range(2, 2 + len(PLANTED) + 1), layers=1
    ),
}
"""By name. The last step of ``faults`` is one without any."""
