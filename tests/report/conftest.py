"""The modules that the tests of the report share."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fabricated() -> ModuleType:
    """The module ``tests/fabricated_runs.py``."""
    return _module("fabricated_runs")


@pytest.fixture(scope="session")
def sample_document() -> ModuleType:
    """The module ``tests/sample_document.py``."""
    return _module("sample_document")
