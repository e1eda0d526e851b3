"""How fast formats round into a given tensor, beside a plain copy into it, and beside other libraries.

Of each format all take turns, see :mod:`.interleave`. The share of a copy is the inverse of the ratio: 1 is its
bandwidth. Other libraries, which make tensors of their own and take many times as long, round the beginning of the
tensor, and their ratio counts as many elements of the copy; on what the values differ is said.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from altgrad_core._axis import axis_text
from altgrad_core.errors import UserError
from altgrad_core.execution.assemble import resolve_device
from altgrad_core.execution.environment import describe_environment
from altgrad_core.execution.format_speed import format_choice
from altgrad_core.execution.interleave import interleaved
from altgrad_core.execution.peers import agreement, peers_of
from altgrad_core.execution.speeds import Speeds, Timing, short, summary
from altgrad_core.interfaces.format import Format, Rounding
from altgrad_core.registry.catalog import catalog
from altgrad_core.registry.strangers import StrangeError, strangers_code

ELEMENTS, PEER_ELEMENTS = 1 << 24, 1 << 20
OURS, COPY = "altgrad-bench", "copy"
_SIGMAS = 6
"""Standard deviations between zero and the place where amax belongs."""
_ROUNDINGS: tuple[Rounding, ...] = ("nearest", "stochastic")


@dataclass(frozen=True)
class RoundingSpeed(Timing):
    """Rounding of one format by one library, or the copy; ``agreement`` is with ours, None for our own."""

    format: str
    rounding: str
    library: str
    share_of_copy: float
    agreement: str | None = None


@dataclass(frozen=True)
class RoundingSpeeds(Speeds[RoundingSpeed]):
    """How fast rounding is; that of two files with the same number of elements compares."""

    keys: ClassVar = ("format", "rounding", "library")
    elements: int


def measure_rounding(
    wanted: Sequence[Any],
    *,
    device: str,
    rounds: int,
    threads: int,
    elements: int = ELEMENTS,
    peers: bool = True,
    log: Callable[[str], None] = lambda text: None,
) -> RoundingSpeeds:
    """Time the formats that are ``wanted``, each as in a suite; none means all that are installed.

    Raises ``UserError`` where a format that is wanted cannot be had; without a wish it is left out.
    """
    torch.set_num_threads(threads)
    place = resolve_device(device)
    normal = torch.randn(elements, generator=torch.Generator().manual_seed(0)).to(place)
    x, out = torch.empty_like(normal), torch.empty_like(normal)
    rows: list[RoundingSpeed] = []
    left_out: dict[str, str] = {}
    origins: dict[str, str] = {}
    for one in wanted or catalog().names("format"):
        label = axis_text(one)
        try:
            choice = format_choice(one)
            entry = catalog().get("format", choice.name)
            fmt: Format = catalog().build("format", choice.name, choice.settings)
        except UserError as error:
            if wanted:
                raise
            left_out[label] = str(error)
            continue
        log(f"{label}: {elements} elements, {rounds} rounds, {threads} thread(s), {place}")
        try:
            with strangers_code(), warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of numpy, on infinities
                spread = fmt.max_finite / fmt.headroom / _SIGMAS if fmt.scaled else 1.0
                x.copy_(normal).mul_(spread)
                found, lost = _measure(label, fmt, x, out, rounds, peers)
        except StrangeError as error:
            raise UserError(f"the format {label} fails at rounding: {error}") from error
        rows += found
        left_out |= lost
        origins[entry.distribution] = entry.version
    return RoundingSpeeds(
        tuple(rows), left_out, describe_environment(place, origins), rounds, elements
    )


def _measure(
    label: str, fmt: Format, x: Tensor, out: Tensor, rounds: int, peers: bool
) -> tuple[list[RoundingSpeed], dict[str, str]]:
    """The rows of one format, and why libraries were left out."""
    generator = torch.Generator().manual_seed(0)
    calls: dict[tuple[str, str], Callable[[], object]] = {(COPY, "torch"): partial(out.copy_, x)}
    for one in _ROUNDINGS:
        calls[one, OURS] = partial(fmt.round_into, out, x, one, generator)
    others, lost = peers_of(fmt, x.device) if peers else ({}, {})
    beginning = x[:PEER_ELEMENTS]
    agrees: dict[tuple[str, str], str] = {}
    for library, roundings in others.items():
        for rounding, call in roundings.items():
            calls[rounding, library] = partial(call, beginning)
            agrees[rounding, library] = str(agreement(fmt, rounding, call, x.device))
    times = interleaved(calls, x.device, rounds=rounds)
    rows = []
    for key, own in times.items():
        agreed = agrees.get(key)
        work = 1.0 if agreed is None else x.numel() / beginning.numel()
        found = summary(own, times[COPY, "torch"], work)
        rows.append(RoundingSpeed(*found, label, *key, short(1 / found[3]), agreed))
    return rows, {f"{library} for {label}": why for library, why in lost.items()}
