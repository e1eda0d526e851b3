"""Which tensor was non-finite first, and at which step: two ways to keep the books.

On the CPU a sum is read at once. Elsewhere each tensor leaves its largest magnitude on the device, and the
first step of each is put down there, so that nothing waits until somebody reads.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor


class Stage(IntEnum):
    """The stages of a step, in the order of cause and effect."""

    OUTPUT = 0
    LOSS = 1
    GRADIENT = 2
    WEIGHT = 3
    STATE = 4


PASSES = ("forward", "backward", "optimizer")
_PASS_OF = {
    Stage.OUTPUT: 0,
    Stage.LOSS: 0,
    Stage.GRADIENT: 1,
    Stage.WEIGHT: 2,
    Stage.STATE: 2,
}

Slot = tuple[Stage, str]
"""A tensor that is watched: the stage it belongs to and its name."""


@dataclass(frozen=True)
class First:
    """The first step at which one tensor was non-finite."""

    step: int
    stage: Stage
    name: str


@dataclass
class Findings:
    """Everything so far, on the host.

    firsts:
        in order: by step, then by stage, then as they were noted.
    counts:
        steps with something non-finite in each of ``PASSES``.
    streak:
        the last steps in a row with something non-finite.
    """

    firsts: list[First]
    counts: list[int]
    streak: int


class Ledger(ABC):
    """Takes note of the tensors of a step, in order, and closes the step."""

    @abstractmethod
    def note(self, stage: Stage, name: str, x: Tensor) -> None:
        """Look at ``x``. The same name may come several times in a step."""

    def note_all(self, stage: Stage, tensors: Mapping[str, Tensor]) -> None:
        """:meth:`note` each of them, in order."""
        for name, x in tensors.items():
            self.note(stage, name, x)

    @abstractmethod
    def close(self, step: int) -> bool:
        """Book what was noted since the last call as ``step``.

        Returns whether something was found that can be read without waiting.
        """

    @abstractmethod
    def read(self) -> Findings:
        """Everything so far; waits for the device."""

    @abstractmethod
    def load(self, found: Findings) -> None:
        """Go on from there."""


class EagerLedger(Ledger):
    """For the CPU: every tensor is judged when it is noted, by one sum."""

    def __init__(self) -> None:
        self._found = Findings([], [0, 0, 0], 0)
        self._known: set[Slot] = set()
        self._bad: dict[Slot, None] = {}

    @property
    def alarmed(self) -> bool:
        """Whether something that was noted in this step is non-finite for the first time."""
        return any(slot not in self._known for slot in self._bad)

    def note(self, stage: Stage, name: str, x: Tensor) -> None:
        """See :class:`Ledger`."""
        if not _is_finite(x.detach()):
            self._bad[stage, name] = None

    def note_all(self, stage: Stage, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`Ledger`; while all is well, no more than a sum each."""
        if not all(math.isfinite(x.detach().sum().item()) for x in tensors.values()):
            super().note_all(stage, tensors)

    def close(self, step: int) -> bool:
        """See :class:`Ledger`."""
        bad, self._bad = self._bad, {}
        if not bad:
            self._found.streak = 0
            return False
        self._found.streak += 1
        for index in {_PASS_OF[stage] for stage, _ in bad}:
            self._found.counts[index] += 1
        for slot in sorted(bad, key=lambda slot: slot[0]):
            if slot not in self._known:
                self._known.add(slot)
                self._found.firsts.append(First(step, *slot))
        return True

    def read(self) -> Findings:
        """See :class:`Ledger`."""
        return self._found

    def load(self, found: Findings) -> None:
        """See :class:`Ledger`."""
        self._found = found
        self._known = {(first.stage, first.name) for first in found.firsts}


class DeferredLedger(Ledger):
    """For accelerators: first steps, counts and streak are tensors; one transfer reads them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._slots: dict[Slot, None] = {}
        self._largest: dict[Slot, Tensor] = {}
        self._zero = torch.zeros((), device=device)
        self._first = torch.zeros(0, dtype=torch.int64, device=device)
        self._counts = torch.zeros(len(PASSES), dtype=torch.int64, device=device)
        self._streak = torch.zeros(1, dtype=torch.int64, device=device)
        self._members = torch.zeros(len(PASSES), 0, device=device)

    def note(self, stage: Stage, name: str, x: Tensor) -> None:
        """See :class:`Ledger`."""
        if x.numel() == 0:
            return
        largest = torch.linalg.vector_norm(x.detach(), math.inf)
        if x.device != self._device:
            # Optimizers may keep counters on the host: numbers to a kernel, not copies to wait for.
            largest = self._zero + largest
        self._put(stage, name, largest)

    def note_all(self, stage: Stage, tensors: Mapping[str, Tensor]) -> None:
        """See :class:`Ledger`; in a few launches for all that are on the device."""
        here = {n: x.detach() for n, x in tensors.items() if x.device == self._device and x.numel()}
        largest = torch._foreach_norm(list(here.values()), math.inf) if here else ()
        found = dict(zip(here, largest, strict=True))
        for name, x in tensors.items():
            if name in found:
                self._put(stage, name, found[name])
            else:
                self.note(stage, name, x)

    def _put(self, stage: Stage, name: str, largest: Tensor) -> None:
        before = self._largest.get((stage, name))
        self._largest[stage, name] = largest if before is None else largest.maximum(before)

    def close(self, step: int) -> bool:
        """See :class:`Ledger`."""
        largest, self._largest = self._largest, {}
        self._open(slot for slot in largest if slot not in self._slots)
        if not self._slots:
            return False
        bad = ~torch.stack([largest.get(slot, self._zero) for slot in self._slots]).isfinite()
        self._first = torch.where(bad & (self._first == 0), step, self._first)
        self._counts += (self._members @ bad.to(self._members.dtype)) > 0
        self._streak = torch.where(bad.any(), self._streak + 1, 0)
        return False

    def read(self) -> Findings:
        """See :class:`Ledger`."""
        values = torch.cat((self._first, self._counts, self._streak)).tolist()
        *firsts, streak = values
        firsts, counts = firsts[: len(self._slots)], firsts[len(self._slots) :]
        pairs = zip(firsts, self._slots, strict=True)
        found = [First(step, *slot) for step, slot in pairs if step]
        return Findings(sorted(found, key=lambda first: (first.step, first.stage)), counts, streak)

    def load(self, found: Findings) -> None:
        """See :class:`Ledger`."""
        self._open((first.stage, first.name) for first in found.firsts)
        steps = [first.step for first in found.firsts]
        self._first = torch.tensor(steps, dtype=torch.int64, device=self._device)
        self._counts = torch.tensor(found.counts, device=self._device)
        self._streak = torch.tensor([found.streak], device=self._device)

    def _open(self, slots: Iterable[Slot]) -> None:
        """Make room for tensors that have not been seen before."""
        new = dict.fromkeys(slots)
        if not new:
            return
        self._slots |= new
        members = [[_PASS_OF[stage] == index for stage, _ in self._slots] for index in range(3)]
        self._members = torch.tensor(members, dtype=torch.float32, device=self._device)
        self._first = torch.cat((self._first, self._first.new_zeros(len(new))))


def ledger(device: torch.device) -> Ledger:
    """The one that never makes the host wait for ``device``."""
    return EagerLedger() if device.type == "cpu" else DeferredLedger(device)


def as_state(found: Findings) -> dict[str, Any]:
    """For a checkpoint."""
    firsts = [[first.step, int(first.stage), first.name] for first in found.firsts]
    return {"firsts": firsts, "counts": list(found.counts), "streak": found.streak}


def from_state(state: dict[str, Any]) -> Findings:
    """What :func:`as_state` wrote."""
    firsts = [First(step, Stage(stage), name) for step, stage, name in state["firsts"]]
    return Findings(firsts, list(state["counts"]), state["streak"])


def _is_finite(x: Tensor) -> bool:
    """A finite sum has no NaN or inf in it; one that is not may still be an overflow of the sum."""
    return math.isfinite(x.sum().item()) or bool(torch.isfinite(x).all())
