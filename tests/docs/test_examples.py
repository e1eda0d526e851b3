"""Every example of the docs works: Python is run, command lines are read, planned or run, suites are judged."""

from __future__ import annotations

import ast
import re
import shlex
import sys
import textwrap
import tomllib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema
import pytest
import torch
import typer
import yaml
from fabricated_runs import cell, final_line, monitor_line, write_plan, write_run
from torch import nn
from typer.testing import CliRunner

from altgrad_core.cli import app
from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import NoSettings
from altgrad_core.planning.document import parse
from altgrad_core.planning.draft import SECTIONS
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.reading import STRUCTURE
from altgrad_core.planning.schema import suite_schema
from altgrad_core.planning.suite import load_suite, parse_suite
from altgrad_core.registry.catalog import catalog

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^( *)```(\S*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
READ_ONLY = ("wandb:", "after.json", "altgrad_posit8")
"""In Python that only its imports are run of: it needs a service, or what the page has made before."""
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b|\[|…")
"""In a command line that is only read: a word that stands for something of the reader's."""
QUICK = ("list", "show", "schema", "plan")


@dataclass(frozen=True)
class Example:
    """A fenced block."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def examples() -> Iterator[Example]:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    pages += sorted(page for page in (ROOT / "docs").rglob("*.md") if "generated" not in page.parts)
    pages += sorted((ROOT / "examples").glob("*/README.md"))
    for page in pages:
        if page.name == "tutorial.md":  # followed word for word in test_tutorial.py
            continue
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Example(page, line, found[2], textwrap.dedent(found[3]))


EXAMPLES = list(examples())


def of(*languages: str) -> Any:
    found = [one for one in EXAMPLES if one.language in languages]
    assert found
    return pytest.mark.parametrize("example", found, ids=str)


def test_every_block_says_what_it_is() -> None:
    known = ("python", "sh", "console", "yaml", "toml", "text", "")
    odd = [
        str(one)
        for one in EXAMPLES
        if one.language not in known and not one.language.startswith("{")
    ]
    assert odd == []
    assert len(EXAMPLES) > 50


class _Layer(nn.Module):
    """A layer with its weight under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.ones(3, 2))


def reader() -> dict[str, Any]:
    """What the examples take for granted: the reader's own model, data and tensors."""
    body = nn.Sequential(OrderedDict(hidden=nn.Linear(8, 8), final=nn.Linear(8, 8)))
    parts = {"attention": nn.Linear(8, 8), "body": body, "lm_head": nn.Linear(8, 2)}
    model = nn.Sequential(OrderedDict(parts))
    return {
        "torch": torch,
        "model": model,
        "any_module": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "data": [[torch.ones(2, 8)]],
        "loss": lambda model, batch: model(batch).square().mean(),
        "generator": torch.Generator().manual_seed(0),
        "x": torch.linspace(-3, 3, 7),
        "k": torch.arange(5),
        "codes": torch.arange(5),
        "MyLayer": _Layer,
    }


PAGES = list(dict.fromkeys(one.page for one in EXAMPLES if one.language == "python"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_runs_from_the_top_of_a_page_to_its_end(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("runs/quickstart", "runs/residency"):
        (tmp_path / folder).mkdir(parents=True)
        made = [monitor_line(1, rank__all__stable_rank=3.0), final_line(100, 0.5)]
        run = write_run(tmp_path / folder, "e5m2", "adamw", 0, lines=made)
        write_plan(tmp_path / folder, [cell("e5m2", "adamw", 0, run)])
    mine = ModuleType("my_package.settings")
    mine.MySettings = NoSettings  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_package", ModuleType("my_package"))
    monkeypatch.setitem(sys.modules, "my_package.settings", mine)
    names: dict[str, Any] = {}
    for one in EXAMPLES:
        if one.page != page or one.language != "python":
            continue
        names |= reader()
        code = ast.parse(one.text, filename=str(one))
        if any(word in one.text for word in READ_ONLY):
            kept = (node for node in code.body if isinstance(node, ast.Import | ast.ImportFrom))
            code.body = [node for node in kept if "altgrad_posit8" not in ast.unparse(node)]
        exec(compile(code, str(one), "exec"), names)


def lines(text: str) -> Iterator[list[str]]:
    """The command lines of a block, as words, without comments, prompts and redirections."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line.removeprefix("$ "), comments=True)
        if ">" in words:
            words = words[: words.index(">")]
        if words:
            yield words


def read(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command that the words call and its parameters. Raises for a command or option that is none."""
    command: Any = typer.main.get_command(app)
    path: list[str] = []
    while inner := getattr(command, "commands", None):
        if words and words[0].startswith("--"):
            known = [option for one in command.params for option in one.opts]
            assert words[0] in [*known, "--help"], words
            return words[0], {}
        assert words, f"{path}: no command"
        assert words[0] in inner, f"{words[0]} is no command"
        path.append(words[0])
        command, words = inner[words[0]], words[1:]
    context = command.make_context(" ".join(path), list(words))
    return " ".join(path), context.params


@pytest.fixture
def here(tiny_acts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of a reader who has what the command lines speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALTGRAD_CACHE", str(tmp_path / "cache"))
    (tmp_path / "suites").symlink_to(ROOT / "suites")
    (tmp_path / "my").mkdir()
    for name in ("acts", "my/acts"):
        (tmp_path / name).symlink_to(tiny_acts)
    (tmp_path / "my" / "texts").mkdir()
    for number in range(20):
        (tmp_path / "my" / "texts" / f"{number}.txt").write_text(f"a text of number {number} " * 9)
    (tmp_path / "my_suite.yaml").write_text(whole_suite())
    return tmp_path


def whole_suite() -> str:
    """The suite that docs/suites.md begins with."""
    (text, *_) = (
        one.text for one in EXAMPLES if one.page.name == "suites.md" and one.language == "yaml"
    )
    return text


@of("sh", "console")
def test_command_lines_are_ones_that_there_are(example: Example, here: Path) -> None:
    for words in lines(example.text):
        if words[0] == "make":
            targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            assert all(word in targets for word in words[1:] if "=" not in word), words
        if words[0] != "altgrad-bench":
            continue
        command, given = read(words[1:])
        if PLACEHOLDER.search(" ".join(words)):
            continue
        if command in QUICK:
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, (words, done.output, done.exception)
        elif command == "run":
            planned(given["suite"], given["set_"] or ())


def planned(suite: str, settings: list[str]) -> None:
    """A suite is planned, where its data are at hand."""
    try:
        plan = plan_suite(load_suite(suite, [*settings, "seeds=[0]"]))
    except UserError as error:
        raise AssertionError(f"{suite} {settings}: {error}") from error
    assert plan.cells


@pytest.fixture(scope="module")
def judge() -> Any:
    return jsonschema.Draft202012Validator(suite_schema(catalog()))


@of("yaml")
def test_suites_and_parts_of_them_are_valid(
    example: Example, judge: Any, here: Path, subtests_of: Callable[[str], list[str]]
) -> None:
    for text in subtests_of(example.text):
        document = parse(text, str(example), here)
        if not (isinstance(document.data, dict) and {*document.data} & {*SECTIONS, *STRUCTURE}):
            continue  # of something else
        assert [
            f"{one.json_path}: {one.message[:300]}" for one in judge.iter_errors(document.data)
        ] == []
        if "matrix" in document.data and "name" in document.data:
            assert plan_suite(parse_suite(text, str(example), here)).cells


@pytest.fixture
def subtests_of() -> Callable[[str], list[str]]:
    """A block, or each of its lines where these are alternatives: the same key again and again."""

    def split(text: str) -> list[str]:
        keys = re.findall(r"^(\w+):", text, re.MULTILINE)
        return [text] if len(keys) == len(set(keys)) else text.strip().splitlines()

    return split


@of("toml")
def test_toml_is_read(example: Example) -> None:
    assert tomllib.loads(example.text)


def test_a_wrong_command_line_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="is no command"):
        read(["plam", "quickstart"])
    with pytest.raises(Exception, match="No such option"):
        read(["plan", "quickstart", "--exprt", "x"])
    assert read(["run", "quickstart", "--set", "a.b=1"])[1]["set_"] == ["a.b=1"]
    assert yaml.safe_load(whole_suite())["name"] == "my_suite"
