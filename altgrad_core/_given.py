"""What callers of the library give for formats, overrides and scaling: as in a suite, or as objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.registry.build import load_format
from altgrad_core.registry.problems import dotted, explain

FormatLike = str | Mapping[str, Any] | Format
"""A format by name, with its settings (``{"name": "exmy", "exponent_bits": 3, …}``), or itself."""
OverridesLike = Mapping[str, FormatLike | None] | Iterable[Any]
"""Pattern -> format, pairs of the two, or mappings with ``pattern`` and ``format``."""
ScalingLike = str | Mapping[str, Any] | ScalingSettings
"""The mode alone, settings by name, or settings."""


def format_of(given: FormatLike) -> Format:
    """The format. Raises ``UserError`` for an unknown one, wrong settings, or something else."""
    if isinstance(given, Format):
        return given
    if isinstance(given, str):
        return load_format(given)
    if isinstance(given, Mapping) and isinstance(given.get("name"), str):
        return load_format(given["name"], **{k: v for k, v in given.items() if k != "name"})
    raise UserError(
        "A format is given by its name, such as 'e4m3', with its settings, such as {'name': 'exmy', "
        f"'exponent_bits': 3, 'mantissa_bits': 2}}, or as a Format, not as {given!r}."
    )


def compensation_of(given: FormatLike | None) -> Format | None:
    """The format of the Kahan buffer: ``"kahan"`` is bf16, as in a suite; None for ``"none"``."""
    words: dict[Any, str | None] = {"kahan": "bf16", "none": None}
    wanted = words.get(given, given) if isinstance(given, str) else given
    return None if wanted is None else format_of(wanted)


def overrides_of(given: OverridesLike) -> list[tuple[str, Format | None]]:
    """Pairs of pattern and format. Raises ``UserError`` for what is none."""
    return list(_pairs(given.items() if isinstance(given, Mapping) else given))


def _pairs(given: Iterable[Any]) -> Iterator[tuple[str, Format | None]]:
    for one in given:
        match one:
            case {"pattern": str(pattern), "format": wanted, **rest} if not rest:
                pass
            case (str(pattern), wanted):
                pass
            case _:
                raise UserError(
                    "An override is a pattern and a format (or None), such as ('*attn*', 'bf16'), "
                    f"not {one!r}."
                )
        yield pattern, None if wanted is None else format_of(wanted)


def scaling_of(given: ScalingLike | None) -> ScalingSettings | None:
    """The settings. Raises ``UserError`` for unknown or wrong ones."""
    if given is None or isinstance(given, ScalingSettings):
        return given
    try:
        return ScalingSettings.model_validate({"mode": given} if isinstance(given, str) else given)
    except ValidationError as error:
        faults = (
            f"{dotted(('scaling', *problem.path))}: {problem.message}"
            for problem in explain(error, ScalingSettings)
        )
        raise UserError("; ".join(faults)) from error
