"""Preparation: a process that prints, asks, dawdles or dies is neither waited for nor misunderstood."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.execution import preparation
from altgrad_core.execution.options import RunOptions
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite
from altgrad_core.registry.catalog import catalog
from altgrad_core.results.run_directory import RunDirectory

HEAD = """
import json, sys, time
report = open(sys.argv[1], "a", buffering=1)
def say(**line): report.write(json.dumps(line) + "\\n")
"""
FOUND = "say(device='cpu', name='CPU')\n"


@pytest.fixture
def prepare(
    write_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, list[str]]]:
    """Prepare with this Python program in the worker's place; the device, and what was said."""
    spec = plan_suite(load_suite(write_suite())).specs[0]
    directory = RunDirectory(tmp_path / "runs" / spec.id)
    directory.path.mkdir(parents=True)

    def prepare(program: str, timeout: float | None = None) -> tuple[str, list[str]]:
        def command(*arguments: Any) -> tuple[str, ...]:
            return (sys.executable, "-c", HEAD + program, arguments[-1])

        said: list[str] = []
        observer: Any = type("Observer", (), {"message": staticmethod(said.append)})
        monkeypatch.setattr(preparation, "worker_command", command)
        device = preparation.prepare_data(
            [spec],
            {spec.id: directory},
            (),
            catalog().build("executor", "local", {}),
            RunOptions(timeout=timeout),
            observer,
        )
        return device, said

    return prepare


def test_floods_on_both_streams_and_a_question_do_not_hang_it(
    prepare: Callable[..., tuple[str, list[str]]],
) -> None:
    device, said = prepare(
        "say(message='reading')\n"
        "for stream in (sys.stderr, sys.stdout) * 2: stream.write('a library warns\\n' * 20_000)\n"
        "assert sys.stdin.read() == ''\n"
        + FOUND
        + 'print(\'{"device": "a last line that is not ours"}\')\n',
        timeout=60,
    )
    assert device == "cpu"
    assert said == ["preparing data: eurlex", "  reading", "device: cpu (CPU)"]


@pytest.mark.parametrize(
    ("program", "timeout", "words"),
    [
        ("say(error='no such file: x.jsonl'); sys.exit(2)", None, "^no such file: x.jsonl$"),
        ("print('last words'); sys.exit(3)", None, r"exit code 3:\nlast words"),
        ("import os; os.kill(os.getpid(), 9)", None, "killed by SIGKILL"),
        ("time.sleep(60)", 1.0, "ran out of time"),
        ("", None, "exit code 0"),
        (FOUND + "sys.exit(1)", None, "exit code 1"),
    ],
    ids=["error", "crash", "killed", "timeout", "says nothing", "crash at the end"],
)
def test_every_other_end_is_a_clear_error(
    prepare: Callable[..., tuple[str, list[str]]],
    program: str,
    timeout: float | None,
    words: str,
) -> None:
    with pytest.raises(UserError, match=words):
        prepare(program, timeout=timeout)


def test_nothing_is_left_behind(
    prepare: Callable[..., tuple[str, list[str]]], tmp_path: Path
) -> None:
    prepare(FOUND)
    assert [p.name for p in (tmp_path / "runs").iterdir() if p.name.startswith(".")] == []
