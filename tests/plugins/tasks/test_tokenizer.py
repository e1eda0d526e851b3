"""The trained tokenizer: deterministic, lossless on new words, made once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from altgrad_plugins.tasks.tokenizer import TrainedTokenizer, train_tokenizer, trained_tokenizer

TEXTS = ["Commission Decision on pets", "Council Regulation on fishing", "Ünïcode 漢字 text"] * 20


@pytest.fixture
def tokenizer(tmp_path: Path) -> TrainedTokenizer:
    return trained_tokenizer(tmp_path / "tokenizer.json", TEXTS, 400, lambda message: None)


def test_training_is_deterministic_across_processes_and_threads() -> None:
    code = (
        "import hashlib, sys\n"
        "from altgrad_plugins.tasks.tokenizer import train_tokenizer\n"
        f"texts = {TEXTS!r}\n"
        "print(hashlib.sha256(train_tokenizer(texts, 400).to_str().encode()).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        for threads in ("1", "2", "4")
    }
    assert len(digests) == 1


def test_it_is_trained_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "tokenizer.json"
    messages: list[str] = []
    first = trained_tokenizer(path, TEXTS, 400, messages.append)
    again = trained_tokenizer(path, ["other texts"], 400, messages.append)
    assert messages == ["training a tokenizer of 400 tokens (once)"]
    assert list(first.encode(TEXTS, 32)) == list(again.encode(TEXTS, 32))


def test_rows_are_framed_and_cut(tokenizer: TrainedTokenizer) -> None:
    long, empty = tokenizer.encode([" ".join(TEXTS), ""], 9)
    vocabulary = tokenizer._tokenizer.get_vocab()
    assert len(long) == 9
    assert (long[0], long[-1]) == (vocabulary["[CLS]"], vocabulary["[SEP]"])
    assert empty == [vocabulary["[CLS]"], vocabulary["[SEP]"]]
    assert tokenizer.pad_id == vocabulary["[PAD]"] == 0


def test_no_character_is_unknown(tokenizer: TrainedTokenizer) -> None:
    text = "never seen: żółw 🐢 \x00"
    (ids,) = tokenizer.encode([text], 100)
    assert tokenizer._tokenizer.token_to_id("[UNK]") not in ids
    assert tokenizer._tokenizer.decode(ids).strip() == text
    assert max(ids) < tokenizer.vocab_size


def test_case_does_not_matter(tokenizer: TrainedTokenizer) -> None:
    upper, lower = tokenizer.encode(["COUNCIL Regulation", "council regulation"], 32)
    assert upper == lower


def test_many_texts_keep_their_order(tokenizer: TrainedTokenizer) -> None:
    texts = [f"text {number}" for number in range(2500)]
    alone = [next(iter(tokenizer.encode([text], 32))) for text in texts[1020:1030]]
    assert list(tokenizer.encode(texts, 32))[1020:1030] == alone


def test_the_size_is_an_upper_limit() -> None:
    assert train_tokenizer(TEXTS, 300).get_vocab_size() == 300
