"""Reading plugins: entry points of the group ``altgrad``, their hooks, the offers of these.

Whatever a plugin does wrong becomes a :class:`BrokenPlugin` and stops nothing.
"""

from __future__ import annotations

import inspect
import re
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from altgrad_core._streams import stdout_to_stderr
from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import Metric, fault
from altgrad_core.interfaces.plugin import CONTRACT, PROJECT, Kind, Need, Offer
from altgrad_core.registry import hookspecs
from altgrad_core.registry.models import settings_fault
from altgrad_core.registry.problems import unknown
from altgrad_core.registry.strangers import StrangeError, strangers_code

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_CONTRACT = re.compile(r"\d+\.\d+")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


@dataclass(frozen=True)
class Source:
    """Where a plugin module comes from, and how to import it."""

    entry_point: str
    distribution: str
    version: str
    load: Callable[[], object]


@dataclass(frozen=True)
class Registered:
    """An offer with its kind and the distribution that made it."""

    kind: Kind
    offer: Offer
    distribution: str
    version: str

    @property
    def origin(self) -> str:
        """``altgrad-bench 0.1.0``."""
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin, or a part of one, that could not be read, and why."""

    entry_point: str
    distribution: str
    version: str
    error: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version} ({self.entry_point}): {self.error}"


def installed() -> list[Source]:
    """The entry points of every installed distribution, in an order that never changes."""
    found = [_source(point) for point in entry_points(group=PROJECT)]
    return sorted(found, key=lambda source: (source.distribution, source.entry_point))


def _source(point: EntryPoint) -> Source:
    name = point.dist.name if point.dist else "unknown"
    version = point.dist.version if point.dist else "unknown"
    return Source(f"{point.name} = {point.value}", name, version, point.load)


def read(sources: Iterable[Source]) -> tuple[list[Registered], list[BrokenPlugin]]:
    """Import each source and call its hooks."""
    manager = _Manager(PROJECT)
    manager.add_hookspecs(hookspecs)
    registered: list[Registered] = []
    broken: list[BrokenPlugin] = []
    for source in sources:
        try:
            with strangers_code(), stdout_to_stderr():
                plugin = source.load()
                if manager.is_registered(plugin):  # one module behind several entry points
                    continue
                if wrong := _contract_fault(plugin):
                    raise UserError(wrong)
                good, errors = _offers(manager, plugin, source)
        except (StrangeError, UserError) as error:
            broken.append(_broken(source, str(error)))
        else:
            registered += good
            broken += [_broken(source, error) for error in errors]
    return registered, broken


def _contract_fault(plugin: object) -> str:
    """Why a plugin that asks for a version of the contract cannot be used here, or an empty string."""
    wanted = inspect.getattr_static(plugin, "altgrad_contract", CONTRACT)
    if not isinstance(wanted, str) or not _CONTRACT.fullmatch(wanted):
        return f"altgrad_contract must be MAJOR.MINOR as a string, such as {CONTRACT!r}, not {wanted!r}"
    (major, minor), (ours, newest) = (map(int, one.split(".")) for one in (wanted, CONTRACT))
    if (major, minor) > (ours, newest):
        return (
            f"it asks for version {wanted} of the plugin contract, and the altgrad-bench that is installed "
            f"has {CONTRACT}: install a newer altgrad-bench"
        )
    if major < ours:
        return (
            f"it asks for version {wanted} of the plugin contract, and the altgrad-bench that is installed "
            f"has {CONTRACT}, where what {major}.x promised has changed: install a newer version of it"
        )
    return ""


def _broken(source: Source, error: str) -> BrokenPlugin:
    return BrokenPlugin(source.entry_point, source.distribution, source.version, error)


class _Manager(pluggy.PluginManager):
    """Looks at hooks alone: pluggy would get every attribute, lazy ones that import torch too."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        return super().parse_hookimpl_opts(plugin, name) if name.startswith(PROJECT) else None


def _offers(
    manager: pluggy.PluginManager, plugin: object, source: Source
) -> tuple[list[Registered], list[str]]:
    """What the hooks of one plugin return: good offers, and what is wrong with the others."""
    manager.register(plugin, name=f"{source.distribution}:{source.entry_point}")
    good: list[Registered] = []
    errors: list[str] = []
    kinds: dict[str, Kind] = {hook: kind for kind, hook in hookspecs.HOOKS.items()}
    callers = manager.get_hookcallers(plugin) or []
    if not callers:
        names = " or ".join(kinds)
        errors.append(
            f"no hook found: mark functions with altgrad_core.interfaces.hookimpl, named {names}"
        )
    for caller in callers:
        if caller.name not in kinds:
            errors.append(unknown("hook", caller.name, kinds))
            continue
        for implementation in caller.get_hookimpls():
            if implementation.plugin is plugin:
                offers, wrong = _called(caller.name, implementation.function, kinds[caller.name])
                good += [
                    Registered(kinds[caller.name], offer, source.distribution, source.version)
                    for offer in offers
                ]
                errors += wrong
    return good, errors


def _called(hook: str, function: Callable[..., Any], kind: Kind) -> tuple[list[Offer], list[str]]:
    offers: list[Offer] = []
    errors: list[str] = []
    returned: list[Any] = []
    try:
        with strangers_code():
            for item in function():
                returned.append(item)  # what came before an error counts
    except (StrangeError, UserError) as error:
        errors.append(f"{hook}() raised {error}")
    for item in returned:
        wrong = _fault(item, kind)
        if wrong:
            errors.append(f"{hook}() returned {wrong}")
        else:
            offers.append(item)
    return offers, errors


def _fault(item: Any, kind: Kind) -> str:
    """What is wrong with something that a hook returned, or an empty string."""
    if not isinstance(item, Offer):
        return f"{item!r}, which is not an Offer"
    said = f"the offer {item.name!r}, whose"
    if not isinstance(item.name, str) or not _NAME.fullmatch(item.name):
        return f"{said} name is not of lower-case letters, digits, '_' and '-'"
    functions = {"fingerprint": item.fingerprint, "resample": item.resample}
    given = {name: target for name, target in functions.items() if target is not None}
    named = {
        "source": item.source,
        "example": None if isinstance(item.example, Mapping) else item.example,
    }
    for field, target in {"target": item.target, **given, **named}.items():
        if target is not None and not (isinstance(target, str) and _TARGET.fullmatch(target)):
            return f"{said} {field} is not of the form 'module:attribute'"
    if given and kind != "task":
        return f"{said} {next(iter(given))} has no meaning: only tasks have one"
    if kind != "task" and item.metrics:
        return f"{said} metrics have no meaning: only tasks have some"
    if wrong := settings_fault(item.settings):
        return f"{said} settings {wrong}"
    if not all(isinstance(need, Need) for need in item.needs):
        return f"{said} needs are not of the class Need"
    if kind == "task" and (wrong := _metrics_fault(item.metrics)):
        return f"the offer {item.name!r}: {wrong}"
    return _label_fault(item, said)


def _metrics_fault(metrics: Any) -> str:
    if not isinstance(metrics, tuple) or not all(isinstance(one, Metric) for one in metrics):
        return "its metrics are not a tuple of the class Metric"
    return fault(metrics)


def _label_fault(item: Offer, said: str) -> str:
    try:
        fields = [
            name for _, name, _, _ in string.Formatter().parse(item.label) if name is not None
        ]
    except ValueError as error:
        return f"{said} label {item.label!r} is malformed: {error}"
    strange = [name for name in fields if name not in item.settings.model_fields]
    return f"{said} label names {strange[0]!r}, which is no setting of its own" if strange else ""
