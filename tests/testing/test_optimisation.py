"""The conformance checks do not vanish under ``python -O``, which leaves out assert statements and ``if __debug__``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import altgrad_core

FILES = sorted((Path(altgrad_core.__file__).parent / "testing").glob("*.py"))


def left_out(source: str) -> list[int]:
    """The lines of what an optimising Python leaves out."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assert) or (isinstance(node, ast.Name) and node.id == "__debug__")
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_nothing_of_the_checks_is_left_out(file: Path) -> None:
    assert not left_out(file.read_text())


def test_what_would_be_left_out_is_seen() -> None:
    assert left_out("def f(x):\n    assert x\n    if __debug__:\n        g(x)\n") == [2, 3]
