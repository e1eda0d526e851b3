"""How fast each format is, beside a plain copy of the same tensor, or the same layer in float32.

All formats take turns with what they are compared with, see :mod:`.interleave`; a *ratio* is the
median over rounds of the time of the call to that of its rival in the same round. Gigabytes per second
count 8 bytes for each element of the tensor, a float32 read and one written, for codes as well, so
that they compare as the ratios do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from pydantic import ValidationError

from altgrad_core._axis import axis_text
from altgrad_core.errors import UserError
from altgrad_core.execution.assemble import resolve_device
from altgrad_core.execution.environment import describe_environment
from altgrad_core.execution.format_work import COPY, ELEMENTS, LAYER_WORK, WORK, format_work
from altgrad_core.execution.interleave import interleaved
from altgrad_core.execution.speeds import Speeds, Timing, short, summary
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.settings import FormatChoice, as_format_choice
from altgrad_core.registry.catalog import catalog
from altgrad_core.registry.discovery import Registered
from altgrad_core.registry.problems import unknown
from altgrad_core.registry.strangers import StrangeError, strangers_code

PLAIN = "plain"
"""The name under which the rivals stand among the formats."""
_BYTES = 8
_Calls = Mapping[str, Callable[[], object]]


@dataclass(frozen=True)
class Speed(Timing):
    """One kind of work with one format.

    ``beside`` is what the ratio is to: ``copy``, or the same layer or step in float32. Of the rivals
    themselves, whose format is ``plain``, the ratio is 1.
    """

    format: str
    distribution: str
    version: str
    work: str
    gigabytes_per_second: float | None
    beside: str


@dataclass(frozen=True)
class FormatSpeeds(Speeds[Speed]):
    """How fast formats are; those of two files with the same number of elements compare."""

    keys: ClassVar = ("work", "format")
    elements: int


def measure_formats(
    wanted: Sequence[Any],
    *,
    device: str,
    rounds: int,
    threads: int,
    elements: int = ELEMENTS,
    work: Sequence[str] = (),
    log: Callable[[str], None] = lambda text: None,
) -> FormatSpeeds:
    """Time the formats that are ``wanted``, each as in a suite (a name, or a mapping with settings).

    None wanted means every format that is installed; those that need settings, cannot be built here or
    fail at their work are then left out, with the reason. ``work`` picks some of ``WORK``. Raises
    ``UserError`` where a format or a kind of work that is wanted cannot be had.
    """
    for kind in work:
        if kind not in WORK:
            raise UserError(unknown("kind of work", kind, WORK))
    torch.set_num_threads(threads)
    place = resolve_device(device)
    make = partial(format_work, device=place, elements=elements, names=work or WORK)
    formats, left_out = _tried(wanted, make)
    calls = {(kind, PLAIN): call for kind, call in make(None).items()}
    for label, (_, made) in formats.items():
        calls |= {(kind, label): call for kind, call in made.items()}
    log(
        f"{len(formats)} formats, {elements} elements, {rounds} rounds, {threads} thread(s), {place}"
    )
    order = {kind: number for number, kind in enumerate((COPY, *WORK))}
    times = interleaved(
        dict(sorted(calls.items(), key=lambda item: order[item[0][0]])), place, rounds=rounds
    )
    origins = {label: (entry.distribution, entry.version) for label, (entry, _) in formats.items()}
    rows = tuple(_speed(key, times, origins.get(key[1], ("", "")), elements) for key in times)
    environment = describe_environment(place, dict(origins.values()))
    return FormatSpeeds(rows, left_out, environment, rounds, elements)


def _tried(
    wanted: Sequence[Any], make: Callable[[Format], _Calls]
) -> tuple[dict[str, tuple[Registered, _Calls]], dict[str, str]]:
    """Who offers each format and its calls, each called once, by label; and why others are left out."""
    tried: dict[str, tuple[Registered, _Calls]] = {}
    left_out: dict[str, str] = {}
    for one in wanted or catalog().names("format"):
        label = axis_text(one)
        try:
            choice = format_choice(one)
            entry = catalog().get("format", choice.name)
            tried[label] = entry, _working(choice, entry, make)
        except UserError as error:
            if wanted:
                raise
            left_out[label] = str(error)
    return tried, left_out


def _working(choice: FormatChoice, entry: Registered, make: Callable[[Format], _Calls]) -> _Calls:
    try:
        with strangers_code():
            calls = make(catalog().build("format", choice.name, choice.settings))
            for call in calls.values():
                call()
    except StrangeError as error:
        raise UserError(
            f"the format {choice.name!r} of {entry.origin} fails at what is timed: {error}. "
            "altgrad_core.testing.formats.check_format says what it owes."
        ) from error
    return calls


def format_choice(given: Any) -> FormatChoice:
    """A format as it is written in a suite. Raises ``UserError`` for what is none."""
    try:
        return FormatChoice.model_validate(as_format_choice(given))
    except ValidationError as error:
        raise UserError(
            f"{given!r} is no format: write a name, or settings as in a suite, "
            "'{name: exmy, exponent_bits: 3, mantissa_bits: 4}'."
        ) from error


def _speed(
    key: tuple[str, str],
    times: Mapping[tuple[str, str], Sequence[float]],
    origin: tuple[str, str],
    elements: int,
) -> Speed:
    work, label = key
    beside = work if work in LAYER_WORK else COPY
    found = summary(times[key], times[beside, PLAIN])
    rate = None if work in LAYER_WORK else short(_BYTES * elements / found[0] / 1e6)
    return Speed(*found, label, *origin, work, rate, beside)
