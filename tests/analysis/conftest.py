"""The hand-made run directories that the tests of the analysis read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def fabricated() -> ModuleType:
    """The module ``tests/fabricated_runs.py``."""
    return _module("fabricated_runs", Path(__file__).parents[1] / "fabricated_runs.py")


def _module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
