"""Every hook is specified, documented, and read."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.plugin import Kind, Offer, hookimpl
from altgrad_core.registry import hookspecs
from altgrad_core.registry.catalog import Catalog

ROOT = Path(__file__).parents[2]
SPECS = {
    name: function
    for name, function in inspect.getmembers(hookspecs, inspect.isfunction)
    if name.startswith("altgrad_")
}


def test_each_kind_has_its_hook_and_each_hook_its_kind() -> None:
    assert set(hookspecs.HOOKS) == set(get_args(Kind))
    assert set(hookspecs.HOOKS.values()) == set(SPECS)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_each_hook_is_documented(name: str) -> None:
    document = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    assert f"`{name}()`" in document
    sentence = inspect.getdoc(SPECS[name])
    assert sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert not inspect.signature(SPECS[name]).parameters


@pytest.mark.parametrize(("kind", "hook"), sorted(hookspecs.HOOKS.items()))
def test_each_hook_is_read(kind: Kind, hook: str) -> None:
    def offers() -> list[Offer]:
        metrics = (Metric("loss", "Loss", "lower", primary=True),) if kind == "task" else ()
        return [Offer(name, name, "a:b", metrics=metrics) for name in ("one", "two")]

    offers.__name__ = hook
    found = Catalog.from_modules(SimpleNamespace(**{hook: hookimpl(offers)}))
    assert not found.broken
    assert found.names(kind) == ["one", "two"]
    assert all(not found.names(other) for other in hookspecs.HOOKS if other != kind)


def test_the_contract_fits_on_one_screen() -> None:
    assert len(inspect.getsource(hookspecs).splitlines()) <= 74
