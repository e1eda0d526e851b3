"""The hand-made run directories that the tests of the tables read."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def fabricated() -> ModuleType:
    """The module ``tests/fabricated_runs.py``."""
    path = Path(__file__).parents[1] / "fabricated_runs.py"
    spec = importlib.util.spec_from_file_location("fabricated_runs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
