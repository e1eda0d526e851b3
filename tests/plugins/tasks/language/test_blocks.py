"""Packing: every token once, no padding, bytes by block."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from altgrad_plugins.tasks.language.blocks import Blocks, PackedCorpus

DOCUMENTS = [([5, 6, 7, 0], [1, 2, 3, 0]), ([8, 9, 0], [4, 5, 0]), ([6, 0], [6, 0])]


def _packed(context: int, most: int | None = None) -> Blocks:
    documents = [(np.array(ids), np.array(sizes)) for ids, sizes in DOCUMENTS]
    return Blocks.packed(documents, 0, 10, context, most)


def test_every_token_is_predicted_once_from_those_before() -> None:
    blocks = _packed(4)
    read, predicted = blocks.rows(np.arange(len(blocks)))
    assert read.tolist() == [[0, 5, 6, 7], [0, 8, 9, 0]]
    assert predicted.tolist() == [[5, 6, 7, 0], [8, 9, 0, 6]]
    assert blocks.sizes.tolist() == [6, 15]
    assert (blocks.predicted, blocks.left_over) == (8, 1)


def test_only_so_many_blocks_are_kept() -> None:
    blocks = _packed(4, most=1)
    assert (len(blocks), blocks.left_over) == (1, 5)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    splits = {"train": _packed(4), "validation": _packed(4), "test": _packed(4, 1)}
    PackedCorpus(splits, {"context": 4}).save(tmp_path / "c.npz")  # type: ignore[arg-type]
    again = PackedCorpus.load(tmp_path / "c.npz")
    for split, blocks in again.splits.items():
        assert np.array_equal(blocks.tokens, splits[split].tokens)
        assert np.array_equal(blocks.sizes, splits[split].sizes)
        assert blocks.tokens.dtype == np.uint16
