"""A cell's draft -> complete, validated settings. Every plugin's own model has its say here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

import altgrad_core
from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Kind
from altgrad_core.planning.draft import Draft
from altgrad_core.planning.spec import PluginChoice, RunSpec
from altgrad_core.planning.tune import AUTO
from altgrad_core.quantization.settings import FORMAT_KEYS, FormatChoice, QuantizationSettings
from altgrad_core.registry.catalog import Catalog
from altgrad_core.registry.discovery import Registered
from altgrad_core.registry.needs import missing_needs
from altgrad_core.registry.problems import Path, dotted, explain, meant_as_axis, unknown
from altgrad_core.training.settings import TrainingSettings

_CORE = "altgrad-bench"
_T = TypeVar("_T")
_ModelT = TypeVar("_ModelT", bound=BaseModel)


@dataclass(frozen=True)
class Resolved:
    """A condition with every default written out, and what is known about its plugins."""

    spec: RunSpec
    """Without id, suite, condition, axes, seed and fingerprint."""
    head: str
    """``e5m2_manifold``: the labels of format and optimizer."""
    missing: tuple[str, ...]
    """What this machine lacks, and settings that make no sense together."""
    notes: tuple[str, ...]
    tuned: bool = False
    """Whether the learning rate is ``auto``; the one in ``spec`` is then none."""


def resolve(draft: Draft, catalog: Catalog, known: dict[str, Any] | None = None) -> Resolved:
    """Validate and complete ``draft``. ``UserError`` gives the place of each wrong setting.

    ``known`` keeps what sections became, for further drafts that say the same in them.
    """
    return _Resolver(draft, catalog, {} if known is None else known).resolved()


class _Resolver:
    def __init__(self, draft: Draft, catalog: Catalog, known: dict[str, Any]) -> None:
        self.draft = draft
        self.catalog = catalog
        self.known = known
        self.used: list[Registered] = []
        self.notes: list[str] = []

    def once(self, make: Callable[[], _T], *sections: str) -> _T:
        """What ``make`` makes of these sections, for all drafts that say the same in them.

        ``repr`` tells ``1``, ``1.0`` and ``True`` apart, and may tell apart what is equal.
        """
        key = repr((make.__name__, [self.draft.values.get(section) for section in sections]))
        if key not in self.known:
            used, notes = len(self.used), len(self.notes)
            made = make()
            self.known[key] = made, self.used[used:], self.notes[notes:]
            return made
        made, further, said = self.known[key]
        self.used += further
        self.notes += said
        return cast(_T, made)

    def resolved(self) -> Resolved:
        given = dict(self.draft.values.get("training", {}))
        if tuned := given.get("learning_rate") == AUTO:
            del given["learning_rate"]
        training = self.validated(TrainingSettings, given, ("training",))
        quantization = self.once(self.quantization, "quantization")
        task = self.once(self.task, "data", "model")
        optimizer = self.once(self.optimizer, "optimizer")
        monitors = self.once(self.monitors, "monitors")
        distributions = {entry.distribution: entry.version for entry in self.used}
        distributions[_CORE] = altgrad_core.__version__
        heads = (self.label("format", quantization.format), self.label("optimizer", optimizer))
        needs = [
            f"{entry.kind} {entry.offer.name} {need}"
            for entry in self.used
            for need in missing_needs(entry.offer)
        ]
        needs += quantization.contradictions(self.native)
        spec = RunSpec(
            id="",
            suite="",
            condition="",
            seed=0,
            task=task,
            quantization=quantization,
            optimizer=optimizer,
            training=training,
            monitors=monitors,
            trackers=self.once(self.trackers, "trackers"),
            metrics=self.catalog.get("task", task.name).offer.metrics,
            distributions=dict(sorted(distributions.items())),
        )
        missing = tuple(dict.fromkeys(needs))
        return Resolved(spec, "_".join(heads), missing, tuple(self.notes), tuned)

    def task(self) -> PluginChoice:
        data = dict(self.draft.values.get("data", {}))
        path: Path = ("data", "dataset")
        name = self.name("task", data.pop("dataset", None), path)
        fields = self.entry("task", name, path).offer.settings.model_fields
        sections = {"data": data, "model": self.draft.values.get("model", {})}
        settings = {key: value for key, value in sections.items() if value or key in fields}
        return self.chosen("task", name, settings, path, ())

    def optimizer(self) -> PluginChoice:
        """The optimizer; a key that is an optimizer's name holds settings for that one alone."""
        settings = dict(self.draft.values.get("optimizer", {}))
        path: Path = ("optimizer", "type")
        name = self.name("optimizer", settings.pop("type", None), path)
        places: dict[str, Path] = {}
        for other in self.catalog.names("optimizer"):
            alone = self.alone(other, settings.pop(other, None))
            if other == name:
                settings |= alone
                places = {key: ("optimizer", other, key) for key in alone}
        for key in settings:
            self.hint(name, key)
        return self.chosen("optimizer", name, settings, path, ("optimizer",), places)

    def alone(self, name: str, settings: Any) -> dict[str, Any]:
        """Settings that are for the optimizer ``name`` alone; known keys, whether it is used or not."""
        path: Path = ("optimizer", name)
        if settings is None:
            return {}
        if not isinstance(settings, dict):
            raise self.draft.error(path, f"expected the settings of {name}, got {settings!r}")
        known = self.catalog.get("optimizer", name).offer.settings.model_fields
        for key in settings:
            if key not in known:
                raise self.draft.error((*path, key), unknown("key", key, known))
        return settings

    def hint(self, name: str, key: str) -> None:
        """Refuse a setting that only other optimizers have, saying how to give it to them alone."""
        offers = {n: entry.offer for n, entry in self.catalog.offers("optimizer").items()}
        having = [n for n, offer in offers.items() if key in offer.settings.model_fields]
        if name in offers and having and name not in having:
            have = f"{' and '.join(having)} {'has' if len(having) == 1 else 'have'}"
            raise self.draft.error(
                ("optimizer", key),
                f"{name} has no such setting, {have}: for one optimizer alone, write "
                f"optimizer.{having[0]}.{key}",
            )

    def quantization(self) -> QuantizationSettings:
        here: Path = ("quantization",)
        read = self.validated(QuantizationSettings, self.draft.values.get("quantization", {}), here)
        overrides = tuple(
            override.model_copy(
                update={"format": self.format(override.format, (*here, "overrides", i, "format"))}
            )
            for i, override in enumerate(read.overrides)
        )
        formats = {key: self.format(getattr(read, key), (*here, key)) for key in FORMAT_KEYS}
        return read.model_copy(update={**formats, "overrides": overrides})

    def native(self, choice: FormatChoice) -> str:
        """The dtype in which hardware multiplies codes of that format."""
        return self.catalog.get("format", choice.name).offer.native

    def format(self, choice: FormatChoice | None, path: Path) -> FormatChoice | None:
        if choice is None:
            return None
        full = self.chosen("format", choice.name, choice.settings, path, path)
        return FormatChoice(name=full.name, settings=full.settings)

    def listed(self, kind: Kind, section: str) -> tuple[PluginChoice, ...]:
        """The plugins of a section like ``monitors``; ``all`` is every one that can run here and only looks."""
        given = dict(self.draft.values.get(section, {}))
        if "all" in given:
            if given.pop("all"):
                raise self.draft.error((section, "all"), "this takes no settings")
            for entry in self.catalog.offers(kind).values():
                if not missing_needs(entry.offer) and not entry.offer.intervenes:
                    given.setdefault(entry.offer.name, None)
        chosen = []
        for name in sorted(name for name, settings in given.items() if settings is not False):
            settings = {} if given[name] is None else given[name]
            path: Path = (section, name)
            chosen.append(self.chosen(kind, name, settings, path, path))
        return tuple(chosen)

    def monitors(self) -> tuple[PluginChoice, ...]:
        return self.listed("monitor", "monitors")

    def trackers(self) -> tuple[PluginChoice, ...]:
        """Trackers hold copies: one that cannot run here is left out, with a note."""
        kept = []
        for choice in self.listed("tracker", "trackers"):
            missing = missing_needs(self.catalog.get("tracker", choice.name).offer)
            self.notes += [f"tracker {choice.name} is left out: it {need}" for need in missing]
            kept += [] if missing else [choice]
        return tuple(kept)

    def name(self, kind: Kind, given: Any, path: Path) -> str:
        if isinstance(given, str):
            return given
        known = ", ".join(self.catalog.names(kind))
        got = "is missing" if given is None else f"is {given!r}, which is no name"
        raise self.draft.error(path, f"the name of the {kind} {got}. Allowed: {known}.")

    def entry(self, kind: Kind, name: str, path: Path) -> Registered:
        try:
            return self.catalog.get(kind, name)
        except UserError as error:
            raise self.draft.error(path, str(error)) from error

    def chosen(
        self,
        kind: Kind,
        name: str,
        settings: Any,
        name_path: Path,
        path: Path,
        places: Mapping[str, Path] | None = None,
    ) -> PluginChoice:
        """A plugin with its complete settings. ``path`` is where the suite gives them.

        ``places`` are the paths of those settings that stand somewhere else.
        """
        entry = self.entry(kind, name, name_path)
        model = self.validated(entry.offer.settings, settings, path, places or {})
        if kind != "tracker":  # trackers have no part in the result
            self.used.append(entry)
        for at, choice in _formats_within(model):
            self.chosen("format", choice.name, choice.settings, (*path, *at), (*path, *at))
        return PluginChoice(name=name, settings=model.model_dump(mode="json"))

    def label(self, kind: Kind, choice: PluginChoice | FormatChoice) -> str:
        """The plugin's short name; settings fill the braces of the one that its offer gives."""
        offer = self.catalog.get(kind, choice.name).offer
        return (offer.label or offer.name).format_map(choice.settings)

    def validated(
        self,
        model: type[_ModelT],
        settings: Any,
        path: Path,
        places: Mapping[str, Path] = MappingProxyType({}),
    ) -> _ModelT:
        try:
            return model.model_validate(settings)
        except ValidationError as error:
            faults = []
            for problem in explain(error, model):
                first, *rest = problem.path or ("",)
                moved = places.get(str(first))
                full = (*moved, *rest) if moved else (*path, *problem.path)
                key, message = dotted(full), problem.message
                if meant_as_axis(model, settings, problem.path):
                    message = f"{message.rstrip('.')}. Several values make an axis: matrix.{key}"
                faults.append(f"{self.draft.where(full)}: {key}: {message}")
            raise UserError("\n".join(faults)) from error
        except UserError as error:  # a validator's own words
            raise self.draft.error(path, str(error)) from error


def _formats_within(settings: BaseModel) -> Iterator[tuple[Path, FormatChoice]]:
    """The formats that a plugin's settings name: they must exist, and have a part in the result."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for index, item in enumerate(value if isinstance(value, tuple) else (value,)):
            if isinstance(item, FormatChoice):
                yield (name, index) if isinstance(value, tuple) else (name,), item
