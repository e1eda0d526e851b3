"""Labelled texts before they become numbers."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from altgrad_plugins.tasks.settings import SPLITS, CorpusSettings, SplitName


@dataclass(frozen=True)
class Document:
    """One example: a stable id, what the model reads, and its labels (sorted, each once)."""

    id: str
    text: str
    labels: tuple[str, ...]

    def digest(self) -> bytes:
        """SHA-256 of id and text."""
        return hashlib.sha256(f"{self.id}\0{self.text}".encode()).digest()


@dataclass(frozen=True)
class Corpus:
    """Three splits of documents, with what a reader of the results should know about them."""

    splits: dict[SplitName, list[Document]]
    facts: dict[str, Any] = field(default_factory=dict)


class Source(Protocol):
    """Where documents come from."""

    @property
    def name(self) -> str:
        """Name of the task."""

    @property
    def settings(self) -> CorpusSettings:
        """The ``data`` section."""

    def fingerprint(self) -> str:
        """Identity of the raw data: a hash, a pinned revision or a version."""

    def load(self, cache_dir: Path, log: Callable[[str], None]) -> Corpus:
        """Read the documents. Raises ``UserError``."""


def limit(documents: Sequence[Document], count: int | None) -> list[Document]:
    """At most ``count`` documents, those with the smallest digests, in their old order.

    The choice does not depend on the order of the file, and a larger ``count`` only adds documents.
    """
    if count is None or len(documents) <= count:
        return list(documents)
    digests = [document.digest() for document in documents]
    chosen = sorted(range(len(documents)), key=lambda i: (digests[i], i))[:count]
    return [documents[i] for i in sorted(chosen)]


def overlap_facts(corpus: Corpus) -> dict[str, int]:
    """Counts of ids and texts that occur in training and again elsewhere, or twice."""
    trained_ids, trained_texts = _ids_and_texts(corpus.splits["train"])
    facts = {"repeated_ids_in_train": _repeats(d.id for d in corpus.splits["train"])}
    for split in SPLITS[1:]:
        documents = corpus.splits[split]
        facts[f"{split}_ids_also_in_train"] = sum(d.id in trained_ids for d in documents)
        facts[f"{split}_texts_also_in_train"] = sum(d.text in trained_texts for d in documents)
    return facts


def _ids_and_texts(documents: Iterable[Document]) -> tuple[set[str], set[str]]:
    ids, texts = set(), set()
    for document in documents:
        ids.add(document.id)
        texts.add(document.text)
    return ids, texts


def _repeats(ids: Iterable[str]) -> int:
    return sum(count - 1 for count in Counter(ids).values())
