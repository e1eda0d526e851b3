"""The ``quantization`` section of a suite. Free of torch, since planning reads it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

from pydantic import Field, PositiveInt, field_validator

from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Settings
from altgrad_core.quantization.native.pairs import Operand, Operands

Residency = Literal["master", "grid"]
RoundingMode = Literal["nearest", "stochastic"]
Compensation = Literal["none", "kahan"]
Execution = Literal["simulated", "native"]

Layers = Literal["all", "attention_only", "mlp_only", "body_and_head"]

_WORDS: dict[str, tuple[str, ...]] = {
    "residency": get_args(Residency),
    "rounding": get_args(RoundingMode),
    "execution": get_args(Execution),
}


def check_words(**given: str) -> None:
    """Raise ``UserError`` for a word that the setting of that name does not know."""
    for setting, word in given.items():
        known = _WORDS[setting]
        if word not in known:
            near = difflib.get_close_matches(str(word), known, 1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UserError(f"{setting} is {' or '.join(map(repr, known))}, not {word!r}.{hint}")


FORMAT_KEYS = (
    *("format", "rest_format", "compensation_format"),
    *("activation_format", "gradient_format"),
)
"""Settings of the section that hold a format."""
SCALING_KEYS = ("scaling", "activation_scaling", "gradient_scaling")
"""Settings of the section that hold :class:`ScalingSettings`."""


class FormatChoice(Settings):
    """A format by name with its settings. In a suite, a bare name (``e5m2``) or ``{name: exmy, exponent_bits: 3}``."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)


def as_format_choice(value: Any) -> Any:
    """Accept ``e5m2`` and ``{name: exmy, exponent_bits: 3}`` for a :class:`FormatChoice`."""
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, dict) and "settings" not in value and "name" in value:
        return {"name": value["name"], "settings": {k: v for k, v in value.items() if k != "name"}}
    return value


class ScalingSettings(Settings):
    """Where a tensor's scale comes from, and for how much of the tensor one scale stands."""

    mode: Literal["current", "delayed", "frozen"] = Field(
        "current",
        description="amax of this step; of the last `history` steps; or of the first step for good",
    )
    granularity: Literal["tensor", "channel", "block"] = Field(
        "tensor",
        description="one scale for the tensor, for each row (output channel of a weight, token of "
        "an input), or for each block of a row",
    )
    block_size: PositiveInt = Field(32, description="elements of a row that share a scale (block)")
    history: PositiveInt = Field(16, description="steps of amax kept in delayed mode")
    reduction: Literal["max", "recent"] = Field(
        "max", description="delayed mode: the largest amax of the history, or the most recent one"
    )
    power_of_two: bool = Field(
        True, description="round the scale up to a power of two, so that scaling is exact"
    )
    headroom: float | None = Field(
        None,
        ge=1.0,
        description="amax is multiplied by this before it is mapped onto the grid; null: what suits "
        "the format, 1 for all floats of the ladder, more for tapered grids",
    )


class Override(Settings):
    """Another format (or none) for the layers whose module name matches ``pattern`` (fnmatch). The last match wins."""

    pattern: str
    format: FormatChoice | None = Field(description="a format, or null to leave the layer alone")

    _format = field_validator("format", mode="before")(as_format_choice)


class QuantizationSettings(Settings):
    """What is quantised, and how."""

    format: FormatChoice = FormatChoice(name="bf16")
    layers: Layers = Field(
        "all",
        description="which layers have format. all: as quantize_encoder and quantize_classifier say; "
        "attention_only, mlp_only: these of the body, its others have rest_format; body_and_head: both",
    )
    rest_format: FormatChoice | None = Field(
        FormatChoice(name="bf16"),
        description="attention_only, mlp_only: format of the body's other layers; null leaves them alone",
    )
    residency: Residency = Field(
        "master",
        description="where weights live: a float32 master that is rounded when used, or the grid",
    )
    rounding: RoundingMode = Field(
        "nearest", description="of the weight: of the update (grid), or of the forward (master)"
    )
    compensation: Compensation = Field(
        "none", description="grid only; kahan keeps what rounding took from each weight"
    )
    compensation_format: FormatChoice = Field(
        FormatChoice(name="bf16"), description="format of the compensation buffer"
    )
    activation_format: FormatChoice | None = Field(
        None, description="format of the inputs of the quantised layers; null leaves them alone"
    )
    gradient_format: FormatChoice | None = Field(
        None,
        description="format of the gradients at the outputs of the quantised layers; null: not rounded",
    )
    gradient_rounding: RoundingMode = "nearest"
    quantize_encoder: bool = Field(True, description="the model's body: all but the task's head")
    quantize_classifier: bool = Field(False, description="the task's head: classifier, lm_head")
    scaling: ScalingSettings = ScalingSettings()
    activation_scaling: ScalingSettings | None = Field(
        None, description="null: as scaling, but per tensor"
    )
    gradient_scaling: ScalingSettings | None = Field(
        None, description="null: as scaling, but per tensor"
    )
    overrides: tuple[Override, ...] = ()
    execution: Execution = Field(
        "simulated",
        description="how products are computed. simulated: of grid values in float32 or bfloat16; native: of 8-bit "
        "codes, where hardware has that product",
        json_schema_extra={"identity": "unless default"},
    )

    _formats = field_validator(*FORMAT_KEYS, mode="before")(as_format_choice)

    @field_validator(*SCALING_KEYS, mode="before")
    @classmethod
    def _mode_alone(cls, value: Any) -> Any:
        return {"mode": value} if isinstance(value, str) else value

    def contradictions(self, native: Callable[[FormatChoice], str]) -> tuple[str, ...]:
        """Why these settings make no sense together, a sentence each; empty if they do.

        A matrix contains such cells, so that they are skipped and not an error. ``native`` says in which
        dtype hardware multiplies codes of a format, as its offer declares; "" where none does.
        """
        found = tuple(self._contradictions())
        if self.execution == "simulated":
            return found
        scalings = {key: getattr(self, key) for key in SCALING_KEYS}
        coarse = {key: scaling.granularity for key, scaling in scalings.items() if scaling}
        return (*found, *self.operands(native).faults(coarse))

    @property
    def group(self) -> str:
        """The group of layers that ``layers`` picks, as tasks name it; empty where it picks none."""
        chosen, _, only = self.layers.rpartition("_")
        return chosen if only == "only" else ""

    def operands(self, native: Callable[[FormatChoice], str]) -> Operands:
        """What products would multiply natively; ``native`` as for :meth:`contradictions`."""

        def operand(choice: FormatChoice | None) -> Operand | None:
            return None if choice is None else Operand(choice.name, native(choice))

        chosen = [self.format, self.rest_format if self.group else None]
        chosen += [override.format for override in self.overrides]
        weights = tuple(one for one in map(operand, chosen) if one is not None)
        return Operands(weights, operand(self.activation_format), operand(self.gradient_format))

    def _contradictions(self) -> Iterator[str]:
        if self.layers != "all" and not self.quantize_encoder:
            yield f"layers: {self.layers} picks layers of the body, and quantize_encoder is false"
        if self.residency == "master" and self.compensation != "none":
            yield "compensation keeps what rounding took from a weight on the grid, and a master loses nothing"
        if self.residency == "grid" and not self.scaling.power_of_two:
            yield "a grid-resident weight changes its scale by whole rungs: that needs scaling.power_of_two"
        if self.residency == "grid" and self.scaling.mode == "delayed":
            yield "the scale of a grid-resident weight has no delay: use scaling.mode current or frozen"
        for key in ("activation_scaling", "gradient_scaling"):
            scaling = getattr(self, key)
            if scaling and scaling.mode != "current" and scaling.granularity != "tensor":
                yield f"{key}: rows differ from batch to batch, so {scaling.mode} scales are per tensor"
