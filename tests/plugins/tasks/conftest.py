"""Small data and models for the tests of the tasks."""

from __future__ import annotations

import gzip
import json
import os
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from altgrad_plugins.tasks.settings import EurlexSettings

Row = dict[str, Any]
WORDS = {
    "1309": "fishing quota vessel herring catch",
    "2443": "customs tariff import duty goods",
    "5360": "wheat cereal farm aid premium",
}


def make_rows(count: int, seed: int) -> list[Row]:
    """Acts whose words tell their concepts."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        concepts = draw.sample(sorted(WORDS), draw.choice([1, 1, 2]))
        text = [word for concept in concepts for word in WORDS[concept].split()]
        draw.shuffle(text)
        rows.append(
            {
                "celex_id": f"3{seed}{number:04d}",
                "title": f"Regulation {number} on {text[0]}",
                "text": " ".join(text),
                "eurovoc_concepts": concepts,
            }
        )
    return rows


def write_file(path: Path, rows: Iterable[Row]) -> None:
    """Write rows in the format that the name asks for."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(list(rows)), path)
        return
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


@pytest.fixture
def act_rows() -> Callable[[int, int], list[Row]]:
    """Makes ``count`` acts from a seed."""
    return make_rows


@pytest.fixture
def write_rows() -> Callable[[Path, Iterable[Row]], None]:
    """Writes rows to a file."""
    return write_file


@pytest.fixture
def acts(tmp_path: Path) -> Path:
    """A folder with 40 / 12 / 12 acts."""
    folder = tmp_path / "acts"
    folder.mkdir()
    for seed, (split, count) in enumerate([("train", 40), ("validation", 12), ("test", 12)]):
        write_file(folder / f"{split}.jsonl", make_rows(count, seed))
    return folder


@pytest.fixture
def tiny(acts: Path) -> Callable[..., EurlexSettings]:
    """Settings of a tiny encoder on the acts; ``data`` and ``model`` add to them."""

    def make(
        data: dict[str, Any] | None = None, model: dict[str, Any] | None = None
    ) -> EurlexSettings:
        sizes = {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 12}
        return EurlexSettings.model_validate(
            {
                "data": {"path": str(acts), "vocab_size": 300, **(data or {})},
                "model": {**sizes, "dropout": 0.0, **(model or {})},
            }
        )

    return make


@pytest.fixture
def messages() -> list[str]:
    """What a task logged, if ``messages.append`` is its log."""
    return []


@pytest.fixture(scope="session")
def pretrained_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``save_pretrained`` leaves it: a BERT of width 24 and a WordPiece tokenizer."""
    import torch
    from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast

    folder = tmp_path_factory.mktemp("pretrained")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = " ".join(WORDS.values()).split()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    vocabulary += [*letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=32,
        max_position_embeddings=20,
    )
    BertForMaskedLM(config).half().save_pretrained(folder)
    return folder


@pytest.fixture
def eurlex_data() -> Path:
    """The folder of real EU acts, if the machine has one."""
    named = os.environ.get("ALTGRAD_EURLEX_DIR")
    beside = Path(__file__).parents[4] / "shared" / "data" / "eurlex"
    folder = Path(named) if named else beside
    if not (folder / "titles").is_dir():
        pytest.skip(f"no EU acts in {folder}: name their folder in ALTGRAD_EURLEX_DIR")
    return folder


@pytest.fixture
def attention(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Calls a function, as if its stream were captured or not, and gives the mask and direction of each attention."""
    plain = torch.nn.functional.scaled_dot_product_attention

    def watch(call: Callable[[], object], capturing: bool) -> list[object]:
        seen: list[object] = []

        def watched(*tensors: torch.Tensor, attn_mask: Any = None, **options: Any) -> torch.Tensor:
            layout = None if attn_mask is None else (attn_mask.dtype, attn_mask.stride())
            seen.append((layout, options["is_causal"]))
            return plain(*tensors, attn_mask=attn_mask, **options)

        with monkeypatch.context() as patched:
            patched.setattr("torch.nn.functional.scaled_dot_product_attention", watched)
            patched.setattr("torch.cuda.is_current_stream_capturing", lambda: capturing)
            call()
        assert seen
        return seen

    return watch
