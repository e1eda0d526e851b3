"""What a shell is told: plugins, suites, folders of runs, keys and values of ``--set``; quickly, without torch."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from altgrad_core.cli import app
from altgrad_core.planning.keys import setting_keys
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.schema import suite_schema
from altgrad_core.planning.suite import parse_suite, shipped_suites
from altgrad_core.registry.catalog import catalog


def completed(line: str, shell: str = "zsh") -> str:
    """What the shell is given for a line that ends where the cursor is."""
    asked = {
        "_ALTGRAD_BENCH_COMPLETE": f"complete_{shell}",
        **{"_TYPER_COMPLETE_ARGS": line, "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        **{"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))},
    }
    done = CliRunner().invoke(app, env=asked, prog_name="altgrad-bench")
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("line", "there", "not_there"),
    [
        ("altgrad-bench show format e", ["e5m2", "exmy"], ["bf16"]),
        ("altgrad-bench show opt", ["optimizer"], ["format"]),
        ("altgrad-bench show suite q", ["quickstart"], ["smoke"]),
        ("altgrad-bench list sui", ["suites"], []),
        ("altgrad-bench new ", ["format", "tracker"], ["suite"]),
        ("altgrad-bench check altgrad", ["altgrad-bench"], ["e5m2"]),
        ("altgrad-bench check e5", ["e5m2"], ["e4m3"]),
        ("altgrad-bench plan ", ["smoke", "residency", "mine.yaml"], ["e5m2"]),
        ("altgrad-bench report ", ["done"], ["begun", "smoke"]),
        ("altgrad-bench report --runs other ", ["elsewhere"], ["done"]),
        ("altgrad-bench run smoke --executor ", ["local", "fresh"], []),
        ("altgrad-bench run smoke --set training.max_", ["training.max_steps="], ["batch_size"]),
        ("altgrad-bench run smoke --set optimizer.manifold_adamw.s", ["manifold_adamw.site="], []),
        ("altgrad-bench run smoke --set monitors.rank.", ["monitors.rank.interval="], []),
        ("altgrad-bench run smoke --set tune.", ["tune.learning_rates="], []),
        ("altgrad-bench run smoke --set matrix.quantization.res", ["matrix.quantization.residency="], []),
        ("altgrad-bench run smoke --set quantization.format=e", ["quantization.format=e4m3"], ["bf16"]),
        ("altgrad-bench run smoke --set training.precision=", ["precision=bf16", "precision=auto"], []),
    ],
)  # fmt: skip
def test_what_begins_so_is_offered(
    line: str,
    there: list[str],
    not_there: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").touch()
    for folder, planned in (("runs/done", True), ("runs/begun", False), ("other/elsewhere", True)):
        (tmp_path / folder).mkdir(parents=True)
        if planned:
            (tmp_path / folder / "plan.json").touch()
    said = completed(line)
    for word in there:
        assert word in said
    for word in not_there:
        assert word not in said


@pytest.mark.parametrize("shell", ["zsh", "fish", "bash"])
def test_every_shell_and_a_word_that_nothing_begins_with(shell: str) -> None:
    assert "e5m2" in completed("altgrad-bench show format e5", shell)
    assert "e5" not in completed("altgrad-bench show format zzz", shell)
    assert completed("altgrad-bench show nonsense e", shell).count("e5m2") == 0


def test_every_command_that_takes_a_suite_or_a_key_completes_it() -> None:
    def walk(command: Any) -> Iterator[Any]:
        for inner in getattr(command, "commands", {}).values():
            yield from walk(inner)
        yield command

    missing = [
        f"{command.name} {parameter.name}"
        for command in walk(typer.main.get_command(app))
        for parameter in command.params
        if parameter.name
        in ("suite", "suites", "set_", "kind", "executor", "first", "sources", "names")
        and parameter._custom_shell_complete is None
    ]
    assert missing == []


def test_every_key_of_a_section_is_one_that_the_planner_knows() -> None:
    """A key that is offered is never refused as unknown, whatever its value."""
    found = setting_keys(suite_schema(catalog()))
    assert len(found) > 250
    for name in ("training.max_steps", "data.dataset", "quantization.scaling.mode", "seeds"):
        assert name in found
    assert found["training.max_steps"].types == "integer"
    assert found["optimizer.site"].values == ("none", "pre", "post", "both")
    text = shipped_suites()["smoke"].read_text()
    for key in ("training.schedule", "quantization.rounding", "optimizer.manifold_adamw.site"):
        for value in found[key].values:
            suite = parse_suite(text, "smoke", Path(), [f"{key}={value}", "seeds=[0]"])
            assert plan_suite(suite).cells


def test_a_shell_has_its_answer_at_once_and_without_torch() -> None:
    code = (
        "import sys; from altgrad_core.cli import main\n"
        "sys.argv = ['altgrad-bench']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers', 'pandas', 'rich.console'} & set(sys.modules)\n"
    )
    line = {"COMP_WORDS": "altgrad-bench show format e5", "COMP_CWORD": "3"}
    asked = os.environ | line | {"_ALTGRAD_BENCH_COMPLETE": "complete_bash"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=asked
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.split() == ["e5m2"]
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 1.5  # seconds of one core; 0.45 on an idle one
