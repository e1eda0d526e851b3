"""Small data for an instance of each task that can be made anywhere. Free of torch."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from altgrad_plugins.tasks.settings import SPLITS

_TOPICS = {
    "1309": "fishing quota vessel herring catch sea waters stocks",
    "2443": "customs tariff import duty goods code classification origin",
    "5360": "wheat cereal farm aid premium crop area payment",
}
_MODEL = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 16}
_COUNTS = dict(zip(SPLITS, (48, 16, 16), strict=True))


def acts(folder: Path) -> dict[str, Any]:
    """Acts whose words tell their concepts, and the settings that read them."""
    for split, count in _COUNTS.items():
        words = random.Random(split)
        lines = []
        for number in range(count):
            concepts = sorted(words.sample(sorted(_TOPICS), words.choice([1, 2])))
            text = _text(words, concepts)
            act = {"celex_id": f"{split}{number}", "title": text[:40], "text": text}
            lines.append(json.dumps({**act, "eurovoc_concepts": concepts}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    return {"data": {"path": str(folder), "vocab_size": 300}, "model": _MODEL}


def texts(folder: Path) -> dict[str, Any]:
    """Text files of made-up sentences, and the settings that read them."""
    words = random.Random(0)
    for number in range(60):
        text = " ".join(_text(words, sorted(_TOPICS)) for _ in range(8))
        (folder / f"{number}.txt").write_text(text)
    return {"data": {"path": str(folder), "vocab_size": 300}, "model": _MODEL}


def _text(words: random.Random, topics: list[str]) -> str:
    found = [word for topic in topics for word in _TOPICS[topic].split()]
    words.shuffle(found)
    return " ".join(found)
