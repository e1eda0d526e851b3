"""Every plugin that is installed, by kind and name. Free of torch until something is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from importlib import import_module
from typing import Any, Self

from pydantic import BaseModel, ValidationError

from altgrad_core._streams import stdout_to_stderr
from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Kind
from altgrad_core.registry.discovery import BrokenPlugin, Registered, Source, installed, read
from altgrad_core.registry.hookspecs import HOOKS
from altgrad_core.registry.needs import missing_needs
from altgrad_core.registry.problems import dotted, explain, unknown
from altgrad_core.registry.strangers import StrangeError, strangers_code


class Catalog:
    """What plugins offer, and which of them could not be read."""

    def __init__(
        self, registered: Iterable[Registered] = (), broken: Iterable[BrokenPlugin] = ()
    ) -> None:
        self.registered = tuple(registered)
        self.broken = tuple(broken)
        self._named: dict[Kind, dict[str, list[Registered]]] = {kind: {} for kind in HOOKS}
        for entry in self.registered:
            self._named[entry.kind].setdefault(entry.offer.name, []).append(entry)

    @classmethod
    def discover(cls) -> Self:
        """Read every installed plugin. Most callers want :func:`catalog`, which does so once."""
        return cls(*read(installed()))

    @classmethod
    def from_modules(
        cls, *modules: object, distribution: str = "tests", version: str = "0"
    ) -> Self:
        """A catalog of these plugin modules (or objects with hook functions) alone; for tests."""
        sources = [
            Source(_name(module), distribution, version, partial(_itself, module))
            for module in modules
        ]
        return cls(*read(sources))

    def merged(self, other: Catalog) -> Catalog:
        """The plugins of both."""
        return Catalog(self.registered + other.registered, self.broken + other.broken)

    def offers(self, kind: Kind) -> dict[str, Registered]:
        """The offers of a kind by name, in the order of their distributions and hooks.

        A name that is offered twice cannot be used and is left out; :meth:`clashes` tells of it.
        """
        found = self._named[kind]
        return {name: entries[0] for name, entries in found.items() if len(entries) == 1}

    def names(self, kind: Kind) -> list[str]:
        """The names of a kind that can be used."""
        return list(self.offers(kind))

    def clashes(self) -> list[str]:
        """One sentence for each name that is offered more than once."""
        return list(self.clashing().values())

    def clashing(self) -> dict[tuple[Kind, str], str]:
        """The kinds and names that are offered more than once, with a sentence for each."""
        return {
            (kind, name): _clash(entries)
            for kind in HOOKS
            for name, entries in self._named[kind].items()
            if len(entries) > 1
        }

    def get(self, kind: Kind, name: str) -> Registered:
        """The offer of that name. Raises ``UserError`` where there is none, or more than one."""
        found = self._named[kind].get(name, [])
        if len(found) == 1:
            return found[0]
        if found:
            raise UserError(_clash(found))
        raise UserError(unknown(kind, name, self.names(kind)) + self._unread())

    def _unread(self) -> str:
        if not self.broken:
            return ""
        listed = "; ".join(str(plugin) for plugin in self.broken)
        return f" These plugins could not be read, and may be the ones that offer it: {listed}."

    def validate(
        self, kind: Kind, name: str, settings: Mapping[str, Any] | BaseModel | None = None
    ) -> BaseModel:
        """The settings as the plugin's own model, defaults filled in. Raises ``UserError``."""
        model = self.get(kind, name).offer.settings
        if isinstance(settings, model):
            return settings
        try:
            return model.model_validate({} if settings is None else settings)
        except ValidationError as error:
            faults = [
                f"{dotted(problem.path)}: {problem.message}" if problem.path else problem.message
                for problem in explain(error, model)
            ]
            raise UserError(f"settings of the {kind} {name!r}: {'; '.join(faults)}") from error

    def load(self, kind: Kind, name: str) -> Any:
        """Import what the offer points at. ``UserError`` where that fails, or a need is missing."""
        entry = self.get(kind, name)
        missing = missing_needs(entry.offer)
        if missing:
            raise UserError(f"the {kind} {name!r} of {entry.origin} {'; '.join(missing)}.")
        return imported(entry, entry.offer.target)

    def build(
        self, kind: Kind, name: str, settings: Mapping[str, Any] | BaseModel | None = None
    ) -> Any:
        """Make the plugin: formats are called with name and settings, all others with settings."""
        model = self.validate(kind, name, settings)
        target = self.load(kind, name)
        return target(name, model) if kind == "format" else target(model)

    def fingerprint(self, name: str, settings: Mapping[str, Any] | BaseModel) -> dict[str, str]:
        """What identifies the data of a task with these settings; empty if it offers nothing."""
        entry = self.get("task", name)
        if entry.offer.fingerprint is None:
            return {}
        function = imported(entry, entry.offer.fingerprint)
        model = self.validate("task", name, settings)
        try:
            with strangers_code(), stdout_to_stderr():
                return dict(function(model))
        except StrangeError as error:
            raise UserError(
                f"the data of the task {name!r} of {entry.origin} cannot be identified: {error}"
            ) from error

    def resample(self, name: str) -> Callable[..., Mapping[str, Any]] | None:
        """How the metrics of a task change with its examples; None if it does not offer that."""
        entry = self.get("task", name)
        if entry.offer.resample is None:
            return None
        found: Callable[..., Mapping[str, Any]] = imported(entry, entry.offer.resample)
        return found

    def sources(self) -> list[str]:
        """The trackers that results can be read back from."""
        return [name for name, entry in self.offers("tracker").items() if entry.offer.source]

    def source(self, name: str) -> Callable[[str], Any]:
        """What reads results back from the tracker of that name, one of :meth:`sources`."""
        entry = self.get("tracker", name)
        if entry.offer.source is None:
            raise UserError(f"the tracker {name!r} of {entry.origin} cannot be read back.")
        found: Callable[[str], Any] = imported(entry, entry.offer.source)
        return found


def _name(module: object) -> str:
    return str(getattr(module, "__name__", repr(module)))


def _itself(module: object) -> object:
    return module


def _clash(entries: list[Registered]) -> str:
    origins = " and by ".join(entry.origin for entry in entries)
    return (
        f"the {entries[0].kind} {entries[0].offer.name!r} is offered by {origins}: "
        "uninstall one of them, or ask its author for another name."
    )


def imported(entry: Registered, target: str) -> Any:
    """What the offer names by ``module:attr``. Raises ``UserError`` where that cannot be had."""
    module, _, attribute = target.partition(":")
    try:
        with strangers_code(), stdout_to_stderr():
            found: Any = import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
    except StrangeError as error:
        raise UserError(
            f"the {entry.kind} {entry.offer.name!r} of {entry.origin} cannot be loaded from "
            f"{target!r}: {error}"
        ) from error
    return found


@cache
def catalog() -> Catalog:
    """The installed plugins, read once in the life of the process."""
    return Catalog.discover()
