"""The prepared data: one stream of tokens for each split, cut into blocks, in one file.

A stream is an end token, then documents that each close with one. Block ``i`` of context ``L`` reads tokens
``iL … iL + L − 1`` and predicts ``iL + 1 … iL + L``: no padding, and every token is predicted once.
What fills no block, or is not asked for, is left over at the end. Documents come in the order of their hashes, so that
neighbours in a block have nothing to do with each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from altgrad_plugins.tasks.cache import atomic_path
from altgrad_plugins.tasks.settings import SPLITS, SplitName

Int64 = npt.NDArray[np.int64]
_SHORT = 1 << 16


@dataclass(frozen=True)
class Blocks:
    """The blocks of one split."""

    tokens: npt.NDArray[Any]
    """The stream, (blocks · context + 1 or more,), in the smallest integers that hold the ids."""
    sizes: Int64
    """UTF-8 bytes that the predicted tokens of each block stand for; (blocks,)."""
    context: int

    @classmethod
    def packed(
        cls,
        documents: Iterable[tuple[Int64, Int64]],
        end_id: int,
        vocab_size: int,
        context: int,
        most: int | None = None,
    ) -> Self:
        """From ids and bytes of documents, each closed by its end token; at most ``most`` blocks."""
        kind = np.uint16 if vocab_size <= _SHORT else np.int32
        ids, sizes = [np.array([end_id], dtype=kind)], [np.zeros(1, np.int64)]
        for its_ids, its_sizes in documents:
            ids.append(its_ids.astype(kind))
            sizes.append(its_sizes)
        tokens, size = np.concatenate(ids), np.concatenate(sizes)
        count = (len(tokens) - 1) // context
        count = count if most is None else min(count, most)
        return cls(tokens, size[1 : count * context + 1].reshape(count, context).sum(1), context)

    def __len__(self) -> int:
        return len(self.sizes)

    def rows(self, rows: Int64) -> tuple[Int64, Int64]:
        """Tokens that are read and tokens that are predicted, both (rows, context)."""
        places = rows[:, None] * self.context + np.arange(self.context + 1)
        window = self.tokens[places].astype(np.int64)
        return window[:, :-1], window[:, 1:]

    @property
    def predicted(self) -> int:
        """Tokens that are predicted in all."""
        return len(self) * self.context

    @property
    def left_over(self) -> int:
        """Tokens at the end that are in no block."""
        return len(self.tokens) - 1 - self.predicted


@dataclass(frozen=True)
class PackedCorpus:
    """All splits, with the facts that were found on the way."""

    splits: dict[SplitName, Blocks]
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write one ``.npz``, whole or not at all."""
        arrays: dict[str, npt.NDArray[Any]] = {"facts": np.array(json.dumps(self.facts))}
        for name, split in self.splits.items():
            arrays |= {f"{name}_tokens": split.tokens, f"{name}_sizes": split.sizes}
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            facts = json.loads(str(arrays["facts"]))
            splits = {
                name: Blocks(arrays[f"{name}_tokens"], arrays[f"{name}_sizes"], facts["context"])
                for name in SPLITS
            }
            return cls(splits, facts)
