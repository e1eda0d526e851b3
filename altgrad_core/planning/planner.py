"""Suite -> Plan: before anything runs, each cell is complete and valid, or has a reason to skip.

Where a learning rate is ``auto``, a cell is complete but for that: the runner makes the tuning runs
first (:func:`plan_tuning`), and plans again with what they chose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from altgrad_core._axis import axis_text
from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import Metric, Split, shared
from altgrad_core.planning.declaration import Suite
from altgrad_core.planning.draft import Draft, lookup
from altgrad_core.planning.identity import Identities, canonical, digest
from altgrad_core.planning.known import refuse_unknown_key
from altgrad_core.planning.labels import design_axes, labels
from altgrad_core.planning.metrics import named
from altgrad_core.planning.plan import Cell, Plan, tuning_label
from altgrad_core.planning.resolve import Resolved, resolve
from altgrad_core.planning.sections import as_sections, short_format
from altgrad_core.planning.spec import RunSpec
from altgrad_core.planning.tune import AUTO
from altgrad_core.quantization.settings import FORMAT_KEYS, FormatChoice
from altgrad_core.registry.catalog import Catalog
from altgrad_core.registry.catalog import catalog as installed


@dataclass
class _Condition:
    """A condition that is kept, with its seeds."""

    resolved: Resolved
    sections: dict[str, dict[str, Any]]
    seeds: list[int]

    @property
    def tuned(self) -> bool:
        return self.resolved.tuned

    @property
    def formats(self) -> dict[str, FormatChoice | None]:
        quantization = self.resolved.spec.quantization
        return {f"quantization.{key}": getattr(quantization, key) for key in FORMAT_KEYS}


@dataclass
class _Planner:
    suite: Suite
    catalog: Catalog
    rates: Mapping[str, float] = field(default_factory=dict)
    """What was chosen for conditions whose learning rate is tuned."""
    notes: list[str] = field(default_factory=list)
    matched: set[int] = field(default_factory=set)
    """Which exclusions matched a cell."""
    fingerprints: dict[str, dict[str, str]] = field(default_factory=dict)
    known: dict[str, Any] = field(default_factory=dict)
    """What sections became, for conditions that say the same in them."""
    sides: dict[str, str] = field(default_factory=dict)
    """Value of the contrast's axis as it was written -> as the plan has it, with settings resolved."""

    def __post_init__(self) -> None:
        self.identities = Identities(self.catalog)

    def plan(self) -> Plan:
        conditions = self.kept()
        self.notes += [
            f"{one.document.where()}: exclude matches no cell"
            for index, one in enumerate(self.suite.exclude)
            if index not in self.matched
        ]
        cells = tuple(self.cells(conditions))
        suite = self.with_metrics(conditions)
        if not any(cell.spec or cell.waits for cell in cells):
            raise UserError(_nothing(self.suite, cells))
        for condition in conditions:
            self.notes += condition.resolved.notes
        return Plan(suite, cells, tuple(dict.fromkeys((*self.suite.notes, *self.notes))))

    def with_metrics(self, conditions: list[_Condition]) -> Suite:
        """The suite with the full names of the metrics that decide; ``UserError`` for unknown ones."""
        specs = [condition.resolved.spec for condition in conditions]
        if not specs:
            return self.suite
        metrics = shared({spec.task.name: spec.metrics for spec in specs})
        contrast, tune = self.suite.contrast, self.suite.tune
        if contrast is not None:
            name = self.metric("contrast", contrast.metric, metrics, "test")
            sides = {
                side: self.sides.get(value, value)
                for side, value in (
                    ("baseline", contrast.baseline),
                    ("treatment", contrast.treatment),
                )
            }
            contrast = contrast.model_copy(update={"metric": name, **sides})
        if tune.metric is not None or any(condition.tuned for condition in conditions):
            name = self.metric("tune", tune.metric, metrics, "validation")
            tune = tune.model_copy(update={"metric": name})
        return replace(self.suite, contrast=contrast, tune=tune)

    def metric(
        self, section: str, given: str | None, metrics: tuple[Metric, ...], split: Split
    ) -> str:
        try:
            return named(given, metrics, split)
        except UserError as error:
            where = self.suite.written.get(section)
            message = f"{section}.metric: {error}"
            if where is None:
                raise UserError(f"{self.suite.source}: {message}") from error
            raise where.error(message, ("metric",)) from error

    def tuning(self, rates: Sequence[float]) -> Iterator[Cell]:
        """The tuning runs: every tuned condition at every rate with every tuning seed."""
        tune = self.suite.tune
        for condition, label, axes in self.named(self.kept()):
            if not condition.tuned or condition.resolved.missing:
                continue
            for rate in rates:
                changes = {"learning_rate": rate}
                if tune.max_steps is not None:
                    changes["max_steps"] = tune.max_steps
                resolved = _with_training(condition.resolved, changes)
                make = self.maker(resolved, tuning_label(label, rate), axes)
                for seed in tune.seeds:
                    yield replace(make(seed), stage="tune")

    def kept(self) -> list[_Condition]:
        """The conditions that are not excluded, each once."""
        for exclusion in self.suite.exclude:
            for path, _ in exclusion.wanted:
                refuse_unknown_key(path, exclusion.document, self.catalog)
        return self.merged(list(self.conditions()))

    def conditions(self) -> Iterator[_Condition]:
        for draft in self.suite.drafts():
            seeds = [s for s in self.suite.seeds if not self.excluded({**draft.values, "seed": s})]
            if not seeds:
                continue
            resolved = resolve(draft, self.catalog, self.known)
            sections = as_sections(resolved.spec)
            if resolved.tuned:
                sections["training"]["learning_rate"] = AUTO
            seeds = [s for s in seeds if not self.excluded({**sections, "seed": s})]
            if seeds:
                condition = _Condition(resolved, sections, seeds)
                self.note_side(draft, condition)
                yield condition

    def note_side(self, draft: Draft, condition: _Condition) -> None:
        """Remember what the value of the contrast's axis is called once it is resolved."""
        if self.suite.contrast is not None:
            axis = self.suite.contrast.axis
            there, given = lookup(draft.values, tuple(axis.split(".")))
            found = self.axis_values([axis], condition)
            if there and axis in found:
                self.sides[axis_text(given)] = axis_text(found[axis])

    def excluded(self, values: dict[str, Any]) -> bool:
        found = {index for index, one in enumerate(self.suite.exclude) if one.matches(values)}
        self.matched |= found
        return bool(found)

    def merged(self, conditions: list[_Condition]) -> list[_Condition]:
        """The conditions, each once: two whose runs would have the same ids are one."""
        unique: dict[str, _Condition] = {}
        for condition in conditions:
            key = canonical(self.identities.of(condition.resolved.spec)) + str(condition.tuned)
            first = unique.setdefault(key, condition)
            if first is not condition:
                first.seeds = [s for s in self.suite.seeds if s in {*first.seeds, *condition.seeds}]
        if repeated := len(conditions) - len(unique):
            self.notes.append(f"{repeated} of the conditions repeat others and are not run twice")
        return list(unique.values())

    def named(self, conditions: list[_Condition]) -> list[tuple[_Condition, str, dict[str, Any]]]:
        """The conditions with their labels and the axes along which they differ."""
        keys = self.suite.axis_keys()
        rows = [self.axis_values(keys, condition) for condition in conditions]
        asked = self.suite.contrast.axis if self.suite.contrast is not None else ""
        axes = design_axes(keys, rows, asked) if conditions else []
        found = labels(_heads(conditions), axes, rows)
        return [
            (condition, label, {key: row[key] for key in axes if key in row})
            for condition, label, row in zip(conditions, found, rows, strict=True)
        ]

    def cells(self, conditions: list[_Condition]) -> Iterator[Cell]:
        makers = [
            (set(condition.seeds), self.waiting_or_made(condition, label, axes))
            for condition, label, axes in self.named(conditions)
        ]
        for seed in self.suite.seeds:
            yield from (make(seed) for seeds, make in makers if seed in seeds)

    def waiting_or_made(
        self, condition: _Condition, label: str, axes: dict[str, Any]
    ) -> Callable[[int], Cell]:
        """What makes the cell of each seed of a condition."""
        resolved = condition.resolved
        if condition.tuned and label in self.rates:
            resolved = _with_training(resolved, {"learning_rate": self.rates[label]})
        elif condition.tuned and not resolved.missing:
            template = resolved.spec.model_copy(update={"condition": label})
            return lambda seed: Cell(
                label, seed, axes, None, template=template.model_copy(update={"seed": seed})
            )
        return self.maker(resolved, label, axes)

    def axis_values(self, keys: list[str], condition: _Condition) -> dict[str, Any]:
        """The condition's values of those keys that it has; a format in its shortest form."""
        found = {}
        for key in keys:
            path = key.split(".")
            if path[:2] == ["optimizer", condition.resolved.spec.optimizer.name]:
                del path[1]  # a setting for that optimizer alone
            there, value = lookup(condition.sections, tuple(path))
            if there:
                choice = condition.formats.get(key)
                found[key] = short_format(choice, self.catalog) if choice else value
        return found

    def maker(self, resolved: Resolved, label: str, axes: dict[str, Any]) -> Callable[[int], Cell]:
        """What makes the cell of each seed: what seeds share is put together once."""
        if resolved.missing:
            return lambda seed: Cell(label, seed, axes, None, "; ".join(resolved.missing))
        common = resolved.spec.model_copy(
            update={
                "suite": self.suite.name,
                "condition": label,
                "axes": axes,
                "fingerprint": self.fingerprint(resolved.spec),
            }
        )
        shared_identity = self.identities.of(common)

        def cell(seed: int) -> Cell:
            found = digest(shared_identity | {"seed": seed})
            return Cell(label, seed, axes, common.model_copy(update={"seed": seed, "id": found}))

        return cell

    def fingerprint(self, spec: RunSpec) -> dict[str, str]:
        key = canonical(spec.task.model_dump(mode="json"))
        if key not in self.fingerprints:
            found = self.catalog.fingerprint(spec.task.name, spec.task.settings)
            self.fingerprints[key] = dict(sorted(found.items()))
        return self.fingerprints[key]


def plan_suite(
    suite: Suite, catalog: Catalog | None = None, *, rates: Mapping[str, float] | None = None
) -> Plan:
    """Expand and validate ``suite`` with the installed plugins, or those of ``catalog``.

    ``rates`` are the learning rates that were chosen for conditions where it is ``auto``, by label;
    without them such cells wait. Raises ``UserError`` for a wrong setting (with file and line), for
    data that cannot be identified, and for a suite of which no cell can be run.
    """
    return _Planner(suite, catalog or installed(), rates or {}).plan()


def plan_tuning(
    suite: Suite, rates: Sequence[float], catalog: Catalog | None = None
) -> tuple[Cell, ...]:
    """The tuning runs of the conditions whose learning rate is ``auto``. Raises as above."""
    return tuple(_Planner(suite, catalog or installed()).tuning(rates))


def _heads(conditions: list[_Condition]) -> list[str]:
    """What labels begin with. Where only some are executed natively, these say so."""
    kinds = [condition.resolved.spec.quantization.execution for condition in conditions]
    said = "_native" if len(set(kinds)) > 1 else ""
    return [
        condition.resolved.head + (said if kind == "native" else "")
        for condition, kind in zip(conditions, kinds, strict=True)
    ]


def _with_training(resolved: Resolved, changes: dict[str, Any]) -> Resolved:
    training = resolved.spec.training.model_copy(update=changes)
    return replace(resolved, spec=resolved.spec.model_copy(update={"training": training}))


def _nothing(suite: Suite, cells: tuple[Cell, ...]) -> str:
    reasons = dict.fromkeys(cell.skip for cell in cells if cell.skip)
    why = "; ".join(reasons) if reasons else "every cell is excluded"
    return f"{suite.source}: the suite {suite.name!r} has no cell to run: {why}."
