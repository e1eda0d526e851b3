"""The hub: pinned files, LexGLUE's class numbers, and what is said without a network."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.documents import Document
from altgrad_plugins.tasks.eurlex_hub import HUB, HubName, read_hub

datasets = pytest.importorskip("datasets")


def _answer(monkeypatch: pytest.MonkeyPatch, table: Any) -> list[Any]:
    asked: list[Any] = []

    def load_dataset(kind: str, data_files: dict[str, str]) -> Any:
        asked.append((kind, data_files))
        return dict.fromkeys(data_files, table)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_eurlex57k_is_read_at_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"celex_id": ["3"], "title": ["Pets"], "text": ["Dogs."], "eurovoc_concepts": [["7"]]}
    asked = _answer(monkeypatch, datasets.Dataset.from_dict(rows))
    splits = read_hub("eurlex57k", "title")
    assert splits["test"] == [Document("3", "Pets", ("7",))]
    ((kind, files),) = asked
    assert kind == "parquet"
    assert files["validation"] == (
        "hf://datasets/jonathanli/eurlex@04b1573bfbb926f9c5c9e2c149468c65ab6e604f"
        "/eurlex57k/eurlex-validation.parquet"
    )


def test_lex_glue_classes_become_concept_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    names = datasets.ClassLabel(names=["100163", "100168"])
    features = datasets.Features({"text": datasets.Value("string"), "labels": [names]})
    rows = {"text": ["Dogs.", "Cats."], "labels": [[1, 0], []]}
    _answer(monkeypatch, datasets.Dataset.from_dict(rows, features=features))
    assert read_hub("lex_glue", "both")["train"] == [
        Document("train:1", "Dogs.", ("100163", "100168")),
        Document("train:2", "Cats.", ()),
    ]


def test_lex_glue_without_class_names_keeps_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    _answer(monkeypatch, datasets.Dataset.from_dict({"text": ["Dogs."], "labels": [[12, 3]]}))
    assert read_hub("lex_glue", "text")["train"] == [Document("train:1", "Dogs.", ("12", "3"))]


@pytest.mark.parametrize("failure", [ConnectionError("unreachable"), TimeoutError()])
def test_a_failure_says_what_to_do(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    def load_dataset(*_: Any, **__: Any) -> Any:
        raise failure

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    for name in HUB:
        with pytest.raises(UserError) as error:
            read_hub(name, "both")
        message = str(error.value)
        assert "no network" in message
        assert "data.path=" in message
        assert "data.dataset=license_rules" in message
        assert type(failure).__name__ in message
        assert error.value.__cause__ is failure


@pytest.mark.parametrize("name", ["eurlex57k"])
def test_offline_is_a_user_error(name: HubName, tmp_path: Any) -> None:
    code = f"""
from altgrad_core.errors import UserError
from altgrad_plugins.tasks.eurlex_hub import read_hub
try:
    read_hub({name!r}, "both")
except UserError as error:
    print(error)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "cannot be fetched from the Hugging Face hub" in done.stdout
    assert "data.path=FOLDER" in done.stdout
