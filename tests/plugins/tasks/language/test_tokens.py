"""The bytes that tokens stand for add up to the text, whatever the tokenizer does to it."""

from __future__ import annotations

import numpy as np
import pytest

from altgrad_plugins.tasks.language.tokens import ByteCodec, TokenizerCodec, trained_codec
from altgrad_plugins.tasks.tokenizer import train_tokenizer

TEXTS = ["The vessel, the quota.", "  Çà et là\n\n– ½ 😀!  ", "x", "\n", "Write [END] here."]


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> TokenizerCodec:
    path = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    return trained_codec(path, TEXTS * 3, 280, lambda message: None)


def test_texts_come_back_as_they_were(bpe: TokenizerCodec) -> None:
    for codec in (bpe, ByteCodec()):
        for text, (ids, _) in zip(TEXTS, codec.encode(TEXTS), strict=True):
            assert np.flatnonzero(ids == codec.end_id).tolist() == [len(ids) - 1]
            assert max(ids) < codec.vocab_size
            assert codec.decode(ids.tolist()) == text


def test_bytes_add_up_to_the_text(bpe: TokenizerCodec) -> None:
    rewriting = TokenizerCodec(train_tokenizer(TEXTS, 280), 2)  # lower case, NFKC
    for codec in (bpe, ByteCodec(), rewriting):
        for text, (ids, sizes) in zip(TEXTS, codec.encode(TEXTS), strict=True):
            assert len(ids) == len(sizes)
            assert sizes.sum() == len(text.encode())
            assert (sizes >= 0).all()


def test_a_token_stands_for_its_own_bytes(bpe: TokenizerCodec) -> None:
    (ids, sizes) = next(bpe.encode(["The vessel"]))
    lengths = [len(bpe.decode([token])) for token in ids]
    assert np.array_equal(sizes, lengths)
