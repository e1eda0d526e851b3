"""The prepared data: token ids and label indices of every example, in one file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from altgrad_plugins.tasks.cache import atomic_path
from altgrad_plugins.tasks.settings import SPLITS, SplitName

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths, end to end."""

    values: Int32
    offsets: Int64
    """Row ``i`` is ``values[offsets[i]:offsets[i + 1]]``; shape (rows + 1,)."""

    @classmethod
    def of(cls, rows: Iterable[list[int]]) -> Self:
        """Pack the rows."""
        parts = [np.asarray(row, dtype=np.int32) for row in rows]
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        return cls(np.concatenate(parts) if parts else np.empty(0, np.int32), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Int32:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def lengths(self) -> Int64:
        """Length of each row."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class EncodedSplit:
    """The examples of one split."""

    ids: npt.NDArray[np.str_]
    tokens: Ragged
    labels: Ragged

    def __len__(self) -> int:
        return len(self.ids)

    def padded(
        self, rows: Int64, pad_id: int, multiple_of: int = 1, longest: int | None = None
    ) -> tuple[Int64, Int64]:
        """Token ids and mask (1: token, 0: padding) of ``rows``, both (rows, width).

        The width is the length of the longest of them, up to the next multiple of ``multiple_of``, but no more
        than ``longest``, which no row exceeds.
        """
        picked = [self.tokens[row] for row in rows]
        width = -(-max(len(row) for row in picked) // multiple_of) * multiple_of
        width = width if longest is None else min(width, longest)
        input_ids = np.full((len(picked), width), pad_id, dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for index, row in enumerate(picked):
            input_ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return input_ids, mask

    def targets(self, rows: Int64, labels: int) -> npt.NDArray[np.float32]:
        """1.0 where an example has a label, shape (rows, labels)."""
        targets = np.zeros((len(rows), labels), dtype=np.float32)
        for index, row in enumerate(rows):
            targets[index, self.labels[row]] = 1.0
        return targets


@dataclass(frozen=True)
class EncodedCorpus:
    """All splits, with the facts that were found on the way."""

    splits: dict[SplitName, EncodedSplit]
    facts: dict[str, Any]

    def save(self, path: Path) -> None:
        """Write one ``.npz``, whole or not at all."""
        arrays: dict[str, npt.NDArray[Any]] = {"facts": np.array(json.dumps(self.facts))}
        for name, split in self.splits.items():
            arrays[f"{name}_ids"] = split.ids
            for part, ragged in (("tokens", split.tokens), ("labels", split.labels)):
                arrays[f"{name}_{part}"] = ragged.values
                arrays[f"{name}_{part}_offsets"] = ragged.offsets
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            splits = {
                name: EncodedSplit(
                    arrays[f"{name}_ids"],
                    Ragged(arrays[f"{name}_tokens"], arrays[f"{name}_tokens_offsets"]),
                    Ragged(arrays[f"{name}_labels"], arrays[f"{name}_labels_offsets"]),
                )
                for name in SPLITS
            }
            return cls(splits, json.loads(str(arrays["facts"])))


def batch_rows(step: int, batch_size: int, seed: int, count: int) -> Int64:
    """The rows of training step ``step`` (from 1): positions in an endless row of shuffled epochs.

    A pure function: epoch ``e`` is the permutation of ``PCG64([seed, e])``; a batch may straddle
    two.
    """
    first = (step - 1) * batch_size
    positions = range(first, first + batch_size)
    return np.array(
        [_epoch_order(count, seed, position // count)[position % count] for position in positions]
    )


@lru_cache(maxsize=8)
def _epoch_order(count: int, seed: int, epoch: int) -> Int64:
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(count)
