"""Code that comes with a pretrained model is never run, whatever a prompt would be answered."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.pretrained import from_pretrained


class Factory:
    """Notes how it is asked."""

    asked: dict[str, Any]

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> str:
        cls.asked = options
        return name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {"model_type": "strange", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Config: pass\n")
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    return tmp_path


def test_foreign_code_is_refused_for_folders_and_the_hub(folder: Path) -> None:
    for name in (str(folder), "someone/model"):
        # a commit, which the hub need not be asked for
        from_pretrained("model", Factory, name, "0" * 40, dtype="float32")
        assert Factory.asked["trust_remote_code"] is False
        assert Factory.asked["dtype"] == "float32"


def test_code_in_a_folder_is_not_run_though_the_answer_were_yes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoConfig

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 10))
    with pytest.raises(UserError, match=r"model\.pretrained: the configuration in"):
        from_pretrained("configuration", AutoConfig, str(folder), None)
    assert not (folder / "ran").exists()
