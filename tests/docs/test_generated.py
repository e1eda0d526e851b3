"""The generated pages of the docs leave nothing out: plugins, commands, keys, hooks and interfaces."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from altgrad_core import interfaces
from altgrad_core.cli import app
from altgrad_core.interfaces.plugin import Kind
from altgrad_core.planning.keys import setting_keys
from altgrad_core.planning.schema import suite_schema
from altgrad_core.planning.suite import shipped_suites
from altgrad_core.registry.hookspecs import HOOKS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("_generate", DOCS / "_generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(generate: Any) -> dict[str, str]:
    return dict(generate.pages())


def test_a_page_for_each_built_in_plugin(generate: Any, pages: dict[str, str]) -> None:
    for kind in get_args(Kind):
        for name, one in generate.ours().offers(kind).items():
            page = pages[f"plugins/{kind}-{name}"]
            assert page.startswith(f"# {name}\n")
            assert f"plugins/{kind}-{name}" in pages["plugins"]
            for setting in one.offer.settings.model_fields:
                assert f"`{setting}" in page
    assert "smallest normal" in pages["plugins/format-e3m4"]
    assert "decides" in pages["plugins/task-eurlex"]


def test_every_command_every_key_every_suite(generate: Any, pages: dict[str, str]) -> None:
    def words(command: Any) -> list[str]:
        inner = getattr(command, "commands", {}).values()
        return [str(command.name), *(word for one in inner for word in words(one))]

    for name in words(typer.main.get_command(app))[1:]:
        assert f" {name}\n" in pages["commands"]
    assert "Traceback" not in pages["commands"]
    for key in setting_keys(suite_schema(generate.ours())):
        assert f"| `{key}` |" in pages["suite"]
    for name, path in shipped_suites().items():
        assert f"## {name}\n" in pages["suites"]
        assert path.read_text().splitlines()[-1] in pages["suites"]


def test_every_hook_interface_and_check(generate: Any, pages: dict[str, str]) -> None:
    contract = pages["contract"]
    for hook in HOOKS.values():
        assert f"`{hook}()`" in contract
    for name in interfaces.__all__:
        found = inspect.getmodule(getattr(interfaces, name))
        if found is not None and found.__name__.startswith("altgrad_core.interfaces."):
            assert f"automodule:: {found.__name__}\n" in contract, name
    for kind in get_args(Kind):
        assert f"autofunction:: altgrad_core.testing.check_{kind}\n" in contract


def test_every_page_of_the_docs_is_in_the_site() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).with_suffix("").as_posix()
        if name != "index" and not name.startswith("generated/"):
            assert f"\n{name}\n" in index, name
