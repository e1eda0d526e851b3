"""What is installed, for ``altgrad-bench list`` and ``show``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.table import Table
from rich.text import Text

from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import Kind
from altgrad_core.registry.catalog import catalog
from altgrad_core.registry.discovery import Registered
from altgrad_core.registry.needs import missing_needs
from altgrad_core.registry.problems import unknown

KINDS: tuple[Kind, ...] = get_args(Kind)


def listing(kind: Kind | None) -> dict[str, list[dict[str, str]]]:
    """The offers of ``kind``, or of every kind, as plain data: ``formats`` and so on -> a row each."""
    return {
        f"{each}s": [_listed(entry) for entry in catalog().offers(each).values()]
        for each in (KINDS if kind is None else (kind,))
    }


def problems() -> list[str]:
    """The plugins that could not be read, and the names that are offered twice."""
    return [str(one) for one in (*catalog().clashes(), *catalog().broken)]


def print_listing(listed: Mapping[str, Sequence[Mapping[str, str]]], console: Console) -> None:
    """Print a table for each kind of a :func:`listing`."""
    for title, rows in listed.items():
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        headings = list(rows[0]) if rows else ["name"]
        for heading in headings:
            table.add_column(heading)
        for row in rows:
            table.add_row(*(Text(row[heading]) for heading in headings))
        console.print(table)
        console.print()


def _listed(entry: Registered) -> dict[str, str]:
    missing = "; ".join(missing_needs(entry.offer))
    offer = entry.offer
    return {
        "name": offer.name,
        "summary": offer.summary,
        "from": entry.origin,
        "needs": missing,
    }


def parse_kind(word: str) -> Kind:
    """The kind that ``word`` names, in the singular or the plural."""
    for kind in KINDS:
        if word in (kind, f"{kind}s"):
            return kind
    raise UserError(unknown("kind of plugin", word, KINDS))


def described(kind: str, name: str, settings: Sequence[str] = ()) -> dict[str, Any]:
    """A plugin as plain data: where it comes from, what it needs, its settings, its facts.

    The facts of a format whose grid depends on settings are those of its offer, unless ``settings``
    (``KEY=VALUE``) say which grid is meant. Raises ``UserError`` where there is no such plugin.
    """
    registered = catalog().get(parse_kind(kind), name)
    offer = registered.offer
    facts = dict(offer.details)
    if registered.kind == "format" and _is_one_grid(offer.settings, settings):
        from altgrad_core.format_card import format_facts

        facts = format_facts(_format(registered, settings), offer.details)
    return {
        "kind": registered.kind,
        "name": offer.name,
        "summary": offer.summary,
        "from": registered.origin,
        "target": offer.target,
        "missing": missing_needs(offer),
        "settings": setting_rows(offer.settings),
        "facts": {
            key: to_jsonable_python(value, fallback=str, inf_nan_mode="strings")
            for key, value in facts.items()
        },
    }


def print_offer(kind: str, name: str, settings: Sequence[str], console: Console) -> None:
    """Print where a plugin comes from, its facts and settings, and, for a format, its grid."""
    registered = catalog().get(parse_kind(kind), name)
    offer = registered.offer
    console.print(Text(f"{registered.kind} {offer.name}: {offer.summary}", style="bold"))
    console.print(Text(f"from {registered.origin}, {offer.target}"))
    for missing in missing_needs(offer):
        console.print(Text(f"missing here: {missing}", style="yellow"))
    console.print(settings_table(offer.settings))
    if registered.kind != "format":
        return
    if not _is_one_grid(offer.settings, settings):
        console.print(
            "its grid depends on its settings: add --set KEY=VALUE to see one", markup=False
        )
        return
    from altgrad_core.format_card import format_card

    native = {"native codes": offer.native} if offer.native else {}
    console.print(format_card(_format(registered, settings), {**offer.details, **native}))


def settings_table(model: type[BaseModel], prefix: str = "") -> Table:
    """Name, type, default and meaning of each setting; nested models are written with dots."""
    table = Table(box=None, pad_edge=False, title="settings", title_justify="left")
    for heading in ("name", "type", "default", "meaning"):
        table.add_column(heading, overflow="fold")
    for row in setting_rows(model, prefix):
        default = "required" if row["required"] else json.dumps(row["default"])
        cells = (row["name"], row["type"], default, row["meaning"])
        table.add_row(*(Text(cell) for cell in cells))
    if not table.row_count:
        table.add_row(Text("none"), "", "", "")
    return table


def setting_rows(model: type[BaseModel], prefix: str = "") -> list[dict[str, Any]]:
    """``name``, ``type``, ``required``, ``default`` (a JSON value) and ``meaning`` of each setting."""
    rows: list[dict[str, Any]] = []
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            rows += setting_rows(kind, f"{prefix}{name}.")
            continue
        required = info.is_required()
        default = None if required else info.get_default(call_default_factory=True)
        rows.append(
            {
                "name": f"{prefix}{name}",
                "type": kind.__name__ if isinstance(kind, type) else _written(kind),
                "required": required,
                "default": to_jsonable_python(default, fallback=str),
                "meaning": info.description or "",
            }
        )
    return rows


def _written(annotation: Any) -> str:
    """An annotation as one would write it, without the modules of its names and without limits."""
    return re.sub(r"\b\w+\.(?=\w)", "", str(_bare(annotation)))


def _bare(annotation: Any) -> Any:
    """``tuple[float, float]`` of ``tuple[Annotated[float, …], Annotated[float, …]]``."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _bare(annotation.__origin__)
    if origin in (tuple, list):
        return origin[tuple(map(_bare, get_args(annotation)))]
    return annotation


def _is_one_grid(model: type[BaseModel], settings: Sequence[str]) -> bool:
    required = any(info.is_required() for info in model.model_fields.values())
    return bool(settings) or not required


def _format(registered: Registered, settings: Sequence[str]) -> Any:
    values: dict[str, Any] = {}
    for item in settings:
        key, equals, text = item.partition("=")
        if not equals:
            raise UserError(f"--set {item!r}: expected KEY=VALUE, e.g. --set exponent_bits=3.")
        values[key] = yaml.safe_load(text)
    return catalog().build("format", registered.offer.name, values)
