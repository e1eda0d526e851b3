"""The prepared file, and batches as a pure function of step, size and seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from altgrad_plugins.tasks.encoded import EncodedCorpus, EncodedSplit, Ragged, batch_rows
from altgrad_plugins.tasks.settings import SPLITS

ROWS = [[2, 5, 3], [2, 3], [2, 7, 8, 9, 3]]


def _split() -> EncodedSplit:
    return EncodedSplit(np.array(["a", "bb", "ü"]), Ragged.of(ROWS), Ragged.of([[1], [], [0, 2]]))


def test_rows_of_any_length_are_kept() -> None:
    ragged = Ragged.of([*ROWS, []])
    assert [ragged[i].tolist() for i in range(len(ragged))] == [*ROWS, []]
    assert ragged.lengths().tolist() == [3, 2, 5, 0]
    assert len(Ragged.of([])) == 0


def test_a_batch_is_padded_to_its_longest_row() -> None:
    ids, mask = _split().padded(np.array([1, 0]), pad_id=99)
    assert ids.tolist() == [[2, 3, 99], [2, 5, 3]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1]]


def test_a_batch_may_be_padded_to_a_multiple_within_the_longest_that_there_may_be() -> None:
    rows = np.array([1, 0])  # of 2 and 3 tokens
    widths = [
        _split().padded(rows, 99, multiple, longest)[0].shape[1]
        for multiple, longest in ((1, 8), (2, 8), (2, 3), (3, None), (8, None), (8, 5))
    ]
    assert widths == [3, 4, 3, 3, 8, 5]
    ids, mask = _split().padded(rows, 99, 4)
    assert ids.tolist() == [[2, 3, 99, 99], [2, 5, 3, 99]]
    assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0]]


def test_targets_mark_the_labels() -> None:
    targets = _split().targets(np.array([2, 1, 0]), labels=3)
    assert targets.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    corpus = EncodedCorpus({name: _split() for name in SPLITS}, {"labels": 3, "name": "ü"})
    corpus.save(tmp_path / "prepared.npz")
    loaded = EncodedCorpus.load(tmp_path / "prepared.npz")
    assert loaded.facts == corpus.facts
    for name in SPLITS:
        assert loaded.splits[name].ids.tolist() == ["a", "bb", "ü"]
        for row in range(3):
            assert loaded.splits[name].tokens[row].tolist() == ROWS[row]
        assert loaded.splits[name].labels.offsets.tolist() == [0, 1, 1, 3]
    names = sorted(entry.name for entry in tmp_path.iterdir())
    assert names == ["prepared.npz", "prepared.npz.sha256"]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**40))
def test_every_epoch_visits_every_row_once(count: int, size: int, seed: int) -> None:
    steps = 2 * count // size + 2
    rows = np.concatenate([batch_rows(step, size, seed, count) for step in range(1, steps)])
    for epoch in range(len(rows) // count):
        assert sorted(rows[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_batches_do_not_depend_on_history_and_size_only_cuts_the_row() -> None:
    in_order = [batch_rows(step, 4, 7, 10).tolist() for step in range(1, 9)]
    backwards = [batch_rows(step, 4, 7, 10).tolist() for step in range(8, 0, -1)]
    assert in_order == backwards[::-1]
    doubled = [batch_rows(step, 8, 7, 10) for step in (1, 2, 3, 4)]
    assert np.concatenate(in_order).tolist() == np.concatenate(doubled).tolist()


def test_the_order_is_the_documented_one() -> None:
    orders = [np.random.Generator(np.random.PCG64([7, epoch])).permutation(6) for epoch in (0, 1)]
    rows = [batch_rows(step, 4, 7, 6) for step in (1, 2, 3)]
    assert np.array_equal(np.concatenate(rows), np.concatenate(orders))
    assert not np.array_equal(orders[0], orders[1])
