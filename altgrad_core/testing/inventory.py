"""Everything that installed distributions offer, each with its checks: :func:`subjects`."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal
from unittest import SkipTest

from altgrad_core.errors import UserError
from altgrad_core.registry.catalog import Catalog, catalog
from altgrad_core.registry.discovery import BrokenPlugin, Registered, Source, installed
from altgrad_core.registry.problems import unknown
from altgrad_core.testing.rules import Fault

_READ = "an entry point of the group altgrad names a module whose hooks return offers"
_NAMES = "a name is offered once: whoever installs both distributions can use neither"
Verdict = Literal["ok", "fault", "skipped"]


@dataclass(frozen=True)
class Subject:
    """One thing to check: an offer, the modules that reading it imports, or a plugin that cannot be read."""

    kind: str
    name: str
    distribution: str
    version: str
    _check: Callable[[], None] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def check(self) -> None:
        """Raise ``Fault`` for a rule that is broken, ``unittest.SkipTest`` where it cannot be checked here."""
        self._check()


@dataclass(frozen=True)
class Result:
    """What came of a subject: ``rule`` and ``example`` of a fault, or the reason for a skip."""

    subject: Subject
    verdict: Verdict
    seconds: float
    rule: str = ""
    said: str = ""

    def __str__(self) -> str:
        one = self.subject
        head = f"{one} of {one.distribution} {one.version}"
        match self.verdict:
            case "ok":
                return f"{head}: ok ({self.seconds:.1f} s)"
            case "skipped":
                return f"{head}: cannot be checked here: it {self.said}"
        return f"{head}: FAULT\n    rule: {self.rule}\n    here: {self.said}"

    def to_json(self) -> dict[str, str | float]:
        """As plain data."""
        one = self.subject
        return {
            **{"kind": one.kind, "name": one.name},
            **{"distribution": one.distribution, "version": one.version},
            **{"result": self.verdict, "rule": self.rule, "said": self.said},
            "seconds": round(self.seconds, 2),
        }


def subjects(*names: str, known: Catalog | None = None) -> list[Subject]:
    """What the distributions and offers of these names have to be checked for; without names, everything.

    Raises ``UserError`` for a name that is neither.
    """
    found = list(_everything(known or catalog()))
    if not names:
        return found
    chosen: dict[Subject, None] = {}
    for name in names:
        mine = [one for one in found if _same(one.distribution, name)]
        mine = mine or [one for one in found if one.name == name and one.kind != "modules"]
        if not mine:
            words = dict.fromkeys([one.distribution for one in found] + [one.name for one in found])
            raise UserError(unknown("distribution or offer", name, words))
        chosen |= dict.fromkeys(mine)
    return list(chosen)


def results(chosen: Iterable[Subject]) -> Iterator[Result]:
    """Check each, and say what came of it."""
    for one in chosen:
        begin = time.perf_counter()
        try:
            one.check()
        except Fault as fault:
            yield Result(one, "fault", time.perf_counter() - begin, fault.rule, fault.example)
        except SkipTest as skip:
            yield Result(one, "skipped", time.perf_counter() - begin, said=str(skip))
        else:
            yield Result(one, "ok", time.perf_counter() - begin)


def _same(one: str, other: str) -> bool:
    """Whether two names are of one distribution."""
    return _normal(one) == _normal(other)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _everything(known: Catalog) -> Iterator[Subject]:
    sources = installed()
    names = [source.distribution for source in sources]
    names += [entry.distribution for entry in known.registered]
    names += [plugin.distribution for plugin in known.broken]
    clashes = known.clashing()
    for name in dict.fromkeys(names):
        broken = [one for one in known.broken if one.distribution == name]
        for one in broken:
            yield Subject("plugin", one.entry_point, name, one.version, partial(_unread, one))
        offers = [one for one in known.registered if one.distribution == name]
        mine = [one for one in sources if one.distribution == name]
        if mine and not broken:
            yield Subject("modules", name, name, mine[0].version, partial(_modules, mine, offers))
        for entry in offers:
            check = partial(_offer, entry, clashes.get((entry.kind, entry.offer.name), ""))
            yield Subject(entry.kind, entry.offer.name, name, entry.version, check)


def _unread(plugin: BrokenPlugin) -> None:
    raise Fault(_READ, plugin.error)


def _modules(sources: Iterable[Source], offers: Iterable[Registered]) -> None:
    from altgrad_core.testing.imports import check_imports

    named = [source.entry_point.partition(" = ")[2] for source in sources]
    named += [
        target
        for entry in offers
        for target in (entry.offer.fingerprint, entry.offer.resample)
        if target is not None
    ]
    check_imports([name.partition(":")[0] for name in named])


def _offer(entry: Registered, clash: str) -> None:
    from altgrad_core.testing.offers import check_offer

    if clash:
        raise Fault(_NAMES, clash)
    check_offer(entry)
