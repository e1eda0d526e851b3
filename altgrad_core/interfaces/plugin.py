"""How a plugin announces what it has: an :class:`Offer` per name, returned from a hook.

A plugin module is named by an entry point of the group ``altgrad`` and holds functions marked with
``hookimpl``. It must not import torch: listing, planning and ``--help`` read offers and nothing else.
What an offer points at (``target``) is imported when it is first used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pluggy
from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from altgrad_core.interfaces.metric import Metric

PROJECT = "altgrad"
"""The pluggy project name, which is also the entry-point group."""

CONTRACT = "1.0"
"""Version of what ``altgrad_core.interfaces`` promises to plugins, as MAJOR.MINOR; see docs/plugins.md.

A plugin module may ask for one: ``altgrad_contract = "1.0"``. It is refused where another MAJOR is
installed, or an older MINOR.
"""

Kind = Literal["format", "optimizer", "monitor", "task", "section", "executor", "tracker"]

hookimpl = pluggy.HookimplMarker(PROJECT)


UNLESS_DEFAULT: Literal["unless default"] = "unless default"
"""The mark of a field that is part of a run's content id only where it differs from its default."""


def mark_of(field: FieldInfo) -> Literal[True, False, "unless default"]:
    """How a field of :class:`Settings` takes part in a run's content id: always (True), never, or unless default.

    Raises ``ValueError`` for a mark that means nothing, and for ``unless default`` without a default.
    """
    extra = field.json_schema_extra
    mark = extra.get("identity", True) if isinstance(extra, Mapping) else True
    if mark is True or mark is False:
        return mark
    if mark != UNLESS_DEFAULT:
        raise ValueError(
            f"is marked identity: {mark!r}, where False and {UNLESS_DEFAULT!r} mean something"
        )
    if field.is_required():
        raise ValueError(f"is marked identity: {mark!r} and has no default")
    return UNLESS_DEFAULT


def _simple(annotation: Any) -> set[Any]:
    """The types that an annotation is made of, but for those within lists and other containers."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        return set().union(*(_simple(part) for part in get_args(annotation)))
    return {annotation} if isinstance(annotation, type) or annotation is Any else set()


class Settings(BaseModel):
    """Base of every settings model: unknown keys are errors, values never change after validation.

    Which fields are part of a run's content id is marked in ``json_schema_extra``: without a mark a field
    is. ``{"identity": False}`` leaves it out (a path, a cache folder, a host name). ``{"identity":
    "unless default"}`` leaves it out where it has its default: for a field that is added after a release, so
    that the runs that were made without it keep their ids. That default must mean what was done before.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """To Python, ``True`` is 1: a suite that says so where a number belongs means something else."""
        if isinstance(value, bool) and info.field_name:
            kinds = _simple(cls.model_fields[info.field_name].annotation)
            if kinds & {int, float} and not kinds & {bool, Any, object}:
                raise ValueError(f"a number belongs here, not {str(value).lower()}")
        return value


class NoSettings(Settings):
    """For a plugin that has nothing to set."""


@dataclass(frozen=True)
class Need:
    """Something an offer needs on the machine.

    ``kind`` is ``"module"`` (an importable module) or ``"cuda"`` (a CUDA device). ``hint`` says how to
    get it, e.g. ``pip install 'altgrad-bench[demo]'``.
    """

    kind: Literal["module", "cuda"]
    name: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Offer:
    """One plugin by name.

    name:
        what users write in a suite; lower case, digits, ``_`` and ``-``.
    summary:
        one line for ``altgrad-bench list``.
    target:
        ``"module:attr"``, imported when used and then called. What it is called with depends on the
        kind: formats ``target(name, settings)``; all others ``target(settings)``.
    settings:
        the pydantic model of the plugin's settings (a subclass of :class:`Settings`).
    needs:
        what must be on the machine.
    fingerprint:
        tasks only: ``"module:attr"`` of a function ``(settings) -> dict[str, str]`` in a module
        that does not import torch. It identifies the data (a hash, a pinned revision) and any other
        input that the settings name by path.
    metrics:
        tasks only, and needed there: every number that ``Task.evaluate`` returns, as a
        :class:`~altgrad_core.interfaces.metric.Metric`; exactly one is primary.
    resample:
        tasks only: ``"module:attr"`` of a function ``(predictions, weights) -> {metric: values}``, a
        mapping of any kind, in a module that does not import torch. ``predictions`` are the arrays of one split that
        ``Task.evaluate`` returned, one row for each of n examples; ``weights`` (draws, n) say how often
        each example counts, and ``values`` (draws,) are the metric then. It may know some of the
        metrics only. With it, reports say how far a difference is the choice of test examples.
    source:
        trackers only: ``"module:attr"`` of a function ``(address) -> suites`` that reads back what the
        tracker has kept, so that ``NAME:ADDRESS`` is a source of results; it raises ``UserError``.
    notify:
        trackers only: ``"module:attr"`` of a function ``(settings, notice) -> None`` in a module that does not
        import torch. It is called where the suite was started, with each
        :class:`~altgrad_core.interfaces.notice.Notice` of it, in order. The first, ``suite_begins``, comes before
        anything is run, and a ``UserError`` then stops the suite; whatever it raises later costs the notice.
    imports:
        modules that a run with this plugin imports beyond that of ``target``, when it gets to them: large ones
        are worth naming, so that they are imported once for many runs.
    label:
        the short form of the name in condition labels (``e5m2_manifold``); the name itself if empty.
        It may name settings in braces: ``e{exponent_bits}m{mantissa_bits}``. Of a section: another
        name that ``--questions`` takes (``q3``).
    details:
        facts for ``altgrad-bench show``, in order.
    example:
        settings of the smallest useful instance, which the conformance checks build; the defaults if empty.
        Where it needs files: ``"module:attr"`` of a function ``(folder) -> settings`` that writes them into
        an empty folder.
    order:
        sections only: their place in the report, lowest first. The built-in ones lie between 10
        (benefit), 20 (controls) and 900 (where the runs come from).
    native:
        formats only: the torch dtype in which hardware multiplies its codes, as ``Format.native`` of what is built;
        "" where none does.
    intervenes:
        monitors only: it acts on the run (clips gradients, shifts formats), and is therefore used
        where a suite names it, never by ``monitors: all``.
    """

    name: str
    summary: str
    target: str
    settings: type[BaseModel] = NoSettings
    needs: tuple[Need, ...] = ()
    fingerprint: str | None = None
    resample: str | None = None
    source: str | None = None
    notify: str | None = None
    imports: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    label: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    example: Mapping[str, Any] | str = field(default_factory=dict)
    order: int = 500
    native: str = ""
    intervenes: bool = False
