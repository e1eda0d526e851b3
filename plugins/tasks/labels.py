"""The label vocabulary: from the training split alone, with an account of every label left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.documents import Corpus, Document
from altgrad_plugins.tasks.settings import SPLITS, CorpusSettings


@dataclass(frozen=True)
class LabelVocabulary:
    """The labels that are learned, most frequent first (ties by name)."""

    names: tuple[str, ...]
    counts: tuple[int, ...]
    """Training examples with each label."""
    trained: frozenset[str]
    """Every label of the training split, kept or cut."""

    def encode(self, documents: Sequence[Document]) -> list[list[int]]:
        """For each document the positions of its labels that are kept, ascending."""
        position = {name: index for index, name in enumerate(self.names)}
        return [sorted(position[n] for n in d.labels if n in position) for d in documents]


def build_vocabulary(train: Sequence[Document], settings: CorpusSettings) -> LabelVocabulary:
    """Count the labels of the training split and keep those that ``min_count`` and ``top_k`` allow.

    Raises :class:`UserError` if none are left.
    """
    counts = Counter(label for document in train for label in document.labels)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    kept = [(name, count) for name, count in ranked if count >= settings.min_count]
    kept = kept[: settings.top_k]
    if not kept:
        most = f"the most frequent is on {ranked[0][1]} of them" if ranked else "they carry none"
        raise UserError(
            f"no labels are left: data.min_count is {settings.min_count}, and of the labels on the "
            f"{len(train):,} training examples {most}. Lower data.min_count, or raise "
            "data.max_examples if it is set."
        )
    names, kept_counts = zip(*kept, strict=True)
    return LabelVocabulary(names, kept_counts, frozenset(counts))


def label_facts(corpus: Corpus, vocabulary: LabelVocabulary) -> dict[str, Any]:
    """What became of the labels.

    ``cut``: labels of the training split that ``min_count`` or ``top_k`` took off. ``unseen``:
    labels that the training split does not have. Both as number of labels and of their occurrences,
    per split. ``examples_without_labels``: kept, with all targets zero.
    """
    kept = frozenset(vocabulary.names)
    facts: dict[str, Any] = {
        "labels": len(kept),
        "labels_in_train": len(vocabulary.trained),
        "cut": {},
        "unseen": {},
        "examples_without_labels": {},
        "labels_per_example": {},
    }
    for split in SPLITS:
        documents = corpus.splits[split]
        counts = Counter(label for document in documents for label in document.labels)
        cut = {n: c for n, c in counts.items() if n in vocabulary.trained and n not in kept}
        unseen = {n: c for n, c in counts.items() if n not in vocabulary.trained}
        facts["cut"][split] = {"labels": len(cut), "occurrences": sum(cut.values())}
        if split != "train":
            facts["unseen"][split] = {"labels": len(unseen), "occurrences": sum(unseen.values())}
        facts["examples_without_labels"][split] = sum(kept.isdisjoint(d.labels) for d in documents)
        used = sum(count for name, count in counts.items() if name in kept)
        facts["labels_per_example"][split] = round(used / len(documents), 4)
    facts["label_names"] = list(vocabulary.names)
    return facts
