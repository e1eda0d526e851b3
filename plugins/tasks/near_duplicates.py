"""Groups of near-duplicate texts, so that none of a group is trained on and another tested on.

MinHash (Broder 1997) over word 5-shingles, with banding: two texts fall into one group if all
hashes of at least one band agree, which at 4 bands of 16 hashes happens for half of the pairs at a
Jaccard similarity of 0.92, and hardly below 0.8. Groups are closed transitively.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from altgrad_plugins.tasks.settings import SplitName

SHINGLE = 5
BANDS = 4
ROWS = 16
LARGE_GROUP = 100
"""Groups with more texts, such as the many wordings of one notice, are trained on."""

_Words = npt.NDArray[np.uint64]
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def near_duplicate_groups(texts: Sequence[Sequence[str]]) -> list[int]:
    """For each text, as words, the index of the first text of its group."""
    multiplier, offset = _hash_family(BANDS * ROWS)
    word_hash: dict[str, int] = {}
    first_with: list[dict[bytes, int]] = [{} for _ in range(BANDS)]
    parent = list(range(len(texts)))
    for index, words in enumerate(texts):
        signature = (_shingles(words, word_hash)[:, None] * multiplier + offset).min(axis=0)
        for band, seen in enumerate(first_with):
            other = seen.setdefault(signature[band * ROWS : (band + 1) * ROWS].tobytes(), index)
            a, b = _root(parent, index), _root(parent, other)
            parent[max(a, b)] = min(a, b)
    return [_root(parent, index) for index in range(len(texts))]


def _shingles(words: Sequence[str], word_hash: dict[str, int]) -> _Words:
    """Distinct hashes of the runs of 5 words (of all, if there are fewer), shape (n,)."""
    for word in words:
        if word not in word_hash:
            word_hash[word] = zlib.crc32(word.encode())
    ids = np.array([word_hash[word] for word in words], dtype=np.uint64)
    count = max(len(ids) - SHINGLE + 1, 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for shift in range(min(SHINGLE, len(ids))):
        hashes = hashes * np.uint64(_GOLDEN) + ids[shift : shift + count]
    return np.unique(hashes ^ (hashes >> np.uint64(29)))


def _hash_family(size: int) -> tuple[_Words, _Words]:
    """Odd multipliers and offsets of ``size`` hashes, by SplitMix64: the same with every numpy."""
    state, drawn = 0, []
    for _ in range(2 * size):
        state = (state + _GOLDEN) & _MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        drawn.append(z ^ (z >> 31))
    values = np.array(drawn, dtype=np.uint64)
    return values[:size] | np.uint64(1), values[size:]


def _root(parent: list[int], index: int) -> int:
    while parent[index] != index:
        parent[index] = parent[parent[index]]
        index = parent[index]
    return index


def words(text: str) -> list[str]:
    """The words of a text, without case, punctuation and space."""
    return re.findall(r"\w+", text.lower())


def assign_splits(normalised: list[str], groups: list[int]) -> list[SplitName]:
    """A split for each text, 80/10/10: its group's, which the hash of the group's first text decides."""
    sizes = Counter(groups)
    chosen: dict[int, SplitName] = {}
    for group, size in sizes.items():
        digest = hashlib.sha256(normalised[group].encode()).digest()
        share = int.from_bytes(digest[:8], "big") / 2**64
        if size > LARGE_GROUP or share < 0.8:
            chosen[group] = "train"
        else:
            chosen[group] = "validation" if share < 0.9 else "test"
    return [chosen[group] for group in groups]
