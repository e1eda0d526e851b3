"""What ``quantize_model`` did, and what it left alone and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class QuantizationReport:
    """Every layer that could have been quantised is either in ``layers`` or in ``skipped``.

    layers:
        name of the layer -> name of its format, in model order. The root's name is ``""``.
    skipped:
        name of the layer -> why it was left alone. Modules that hold a matrix but are of a type
        without an adapter (embeddings, recurrent layers) are listed, too.
    activation_format, gradient_format:
        name of the format of the inputs, and of the gradients at the outputs, or None.
    notes:
        what a careful reader wants to know: shared weights, inputs that are out of reach.
    """

    layers: Mapping[str, str]
    skipped: Mapping[str, str]
    activation_format: str | None = None
    gradient_format: str | None = None
    notes: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "layers": dict(self.layers),
            "skipped": dict(self.skipped),
            "activation_format": self.activation_format,
            "gradient_format": self.gradient_format,
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        lines = [f"{len(self.layers)} layers quantised, {len(self.skipped)} left alone"]
        lines += [f"  {name or '(root)'}: {fmt}" for name, fmt in self.layers.items()]
        lines += [f"  {name or '(root)'}: left alone, {why}" for name, why in self.skipped.items()]
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)
