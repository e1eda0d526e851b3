"""Settings of the built-in formats. Free of torch, since planning reads them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from altgrad_core.interfaces.plugin import Settings
from altgrad_plugins.formats.layout import Layout
from altgrad_plugins.formats.table_file import TableEntry, read_values

Overflow = Literal["saturate", "special"]

_OVERFLOW = (
    "what a value beyond the largest becomes: the largest (saturate), or inf or NaN (special)"
)
_NO_SPECIALS = "special needs NaN or inf to overflow to, and in this format every code is a number; use saturate"


class OverflowSettings(Settings):
    """For formats that have NaN or inf."""

    overflow: Overflow = Field("saturate", description=_OVERFLOW)


class SaturatingSettings(Settings):
    """For formats where every code is a number."""

    overflow: Literal["saturate"] = Field("saturate", description="the only choice: no NaN, no inf")

    @field_validator("overflow", mode="before")
    @classmethod
    def _saturates(cls, value: object) -> object:
        if value == "special":
            raise ValueError(_NO_SPECIALS)
        return value


class ExMySettings(Settings):
    """A sign-magnitude floating-point format of any layout from 2 to 16 bits."""

    exponent_bits: int = Field(description="E; with 0 the value is mantissa / 2^M")
    mantissa_bits: int = Field(description="M, stored bits, without the implicit one")
    bias: int | None = Field(None, description="exponent bias; null is 2^(E - 1) - 1")
    specials: Literal["none", "fn", "ieee"] = Field(
        "none", description="none; fn: all ones is NaN; ieee: highest exponent is inf and NaN"
    )
    overflow: Overflow = Field("saturate", description=_OVERFLOW)

    def layout(self) -> Layout:
        """The layout these settings describe. Raises ``ValueError`` as :class:`Layout` does."""
        return Layout(self.exponent_bits, self.mantissa_bits, self.bias, self.specials)

    @model_validator(mode="after")
    def _is_a_format(self) -> ExMySettings:
        self.layout()
        if self.overflow == "special" and self.specials == "none":
            raise ValueError(f"overflow: {_NO_SPECIALS}")
        return self


class TableSettings(Settings):
    """A format given by nothing but the value of each code."""

    values: tuple[TableEntry, ...] = Field(
        description="the value of code 0, 1, 2, ... (2^bits numbers, 'nan', 'inf' or '-inf'), or "
        "the path of a text or JSON file with them"
    )

    _values = field_validator("values", mode="before")(read_values)

    def numbers(self) -> list[float]:
        """The values as floats, NaN and inf among them."""
        return [float(v) for v in self.values]
