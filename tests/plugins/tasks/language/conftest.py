"""A small folder of texts, and settings of a tiny decoder on it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from altgrad_plugins.tasks.language.settings import LanguageSettings

LINES = (
    "Permission is hereby granted to any person obtaining a copy of this software.",
    "The software is provided as is, without warranty of any kind.",
    "Redistributions of source code must retain the above notice.",
    "Règlement (UE) n° 1: les États membres prennent les mesures nécessaires.",
)


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 / 10 / 10 documents of a few of four lines each, as .jsonl."""
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    for split, count in (("train", 40), ("validation", 10), ("test", 10)):
        rows = [
            {"text": f"{split} {n}: " + " ".join(draw.sample(LINES, draw.choice([2, 3])))}
            for n in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def tiny_lm(texts: Path) -> Callable[..., LanguageSettings]:
    """Settings of a tiny decoder; ``data`` and ``model`` add to them."""

    def make(
        data: dict[str, Any] | None = None, model: dict[str, Any] | None = None
    ) -> LanguageSettings:
        sizes = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 16}
        return LanguageSettings.model_validate(
            {
                "data": {"path": str(texts), "vocab_size": 300, **(data or {})},
                "model": {**sizes, "dropout": 0.0, **(model or {})},
            }
        )

    return make
