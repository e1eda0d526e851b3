"""The label policy: the training split decides, and nothing is dropped in silence."""

from __future__ import annotations

from collections import Counter

import pytest

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.documents import Corpus, Document, overlap_facts
from altgrad_plugins.tasks.labels import build_vocabulary, label_facts
from altgrad_plugins.tasks.settings import CorpusSettings


def _documents(*labels: str, prefix: str = "") -> list[Document]:
    return [Document(f"{prefix}{i}", f"text {i}", tuple(each)) for i, each in enumerate(labels)]


TRAIN = _documents("ab", "abc", "a", "bd", "")
CORPUS = Corpus(
    {
        "train": TRAIN,
        "validation": _documents("a", "cx", "x", prefix="v"),
        "test": _documents("xyz", "b", prefix="t"),
    }
)


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (CorpusSettings(), ("a", "b", "c", "d")),
        (CorpusSettings(top_k=3), ("a", "b", "c")),
        (CorpusSettings(min_count=2), ("a", "b")),
        (CorpusSettings(min_count=2, top_k=1), ("a",)),
    ],
)
def test_frequent_labels_first_and_ties_by_name(
    settings: CorpusSettings, names: tuple[str, ...]
) -> None:
    vocabulary = build_vocabulary(TRAIN, settings)
    counts = Counter(label for document in TRAIN for label in document.labels)
    assert vocabulary.names == names
    assert vocabulary.counts == tuple(counts[name] for name in names)
    assert build_vocabulary(TRAIN[::-1], settings) == vocabulary


def test_labels_outside_the_vocabulary_are_no_targets() -> None:
    vocabulary = build_vocabulary(TRAIN, CorpusSettings(top_k=2))
    assert vocabulary.encode(TRAIN) == [[0, 1], [0, 1], [0], [1], []]


def test_every_label_left_out_is_counted() -> None:
    facts = label_facts(CORPUS, build_vocabulary(TRAIN, CorpusSettings(top_k=2)))
    assert facts["labels"] == 2
    assert facts["labels_in_train"] == 4
    assert facts["cut"] == {
        "train": {"labels": 2, "occurrences": 2},
        "validation": {"labels": 1, "occurrences": 1},
        "test": {"labels": 0, "occurrences": 0},
    }
    assert facts["unseen"] == {
        "validation": {"labels": 1, "occurrences": 2},
        "test": {"labels": 3, "occurrences": 3},
    }
    assert facts["examples_without_labels"] == {"train": 1, "validation": 2, "test": 1}
    assert facts["labels_per_example"]["train"] == pytest.approx(6 / 5)
    assert facts["label_names"] == ["a", "b"]


@pytest.mark.parametrize("train", [TRAIN, _documents("", "")])
def test_no_labels_left_is_an_error(train: list[Document]) -> None:
    with pytest.raises(UserError, match=r"no labels are left: data\.min_count is 9"):
        build_vocabulary(train, CorpusSettings(min_count=9))


def test_examples_that_occur_twice_are_counted() -> None:
    corpus = Corpus(
        {
            "train": [*_documents("a", "b"), Document("0", "again", ())],
            "validation": [Document("1", "new", ())],
            "test": [Document("new", "text 1", ()), Document("newer", "text 9", ())],
        }
    )
    assert overlap_facts(corpus) == {
        "repeated_ids_in_train": 1,
        "validation_ids_also_in_train": 1,
        "validation_texts_also_in_train": 0,
        "test_ids_also_in_train": 0,
        "test_texts_also_in_train": 1,
    }
