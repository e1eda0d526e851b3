"""What a model must beat: a unigram and a bigram model of the training tokens.

Unigram, add-one: ``p(b) = (c(b) + 1) / (N + V)``. Bigram, interpolated with it (a Dirichlet prior, MacKay and
Peto 1995): ``p(b | a) = (c(ab) + λ p(b)) / (c(a) + λ)``, with λ from a few powers of ten, the best on
validation data.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from altgrad_plugins.tasks.language.blocks import Blocks
from altgrad_plugins.tasks.language.resample import scores
from altgrad_plugins.tasks.settings import SPLITS, SplitName

STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
Floats = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


class Counts:
    """Counts of tokens and pairs of one stream, (n,)."""

    def __init__(self, stream: npt.NDArray[Any], vocab_size: int) -> None:
        tokens = stream.astype(np.int64)
        self._vocab = vocab_size
        single = np.bincount(tokens[1:], minlength=vocab_size)
        self.unigram: Floats = (single + 1) / (single.sum() + vocab_size)
        self._before = np.bincount(tokens[:-1], minlength=vocab_size)
        self._pairs, self._together = np.unique(
            tokens[:-1] * vocab_size + tokens[1:], return_counts=True
        )

    def bigram(self, read: Int64, predicted: Int64, strength: float) -> Floats:
        """Probabilities of ``predicted`` after ``read``, of their shape."""
        wanted = read * self._vocab + predicted
        at = np.searchsorted(self._pairs, wanted).clip(max=len(self._pairs) - 1)
        together = np.where(self._pairs[at] == wanted, self._together[at], 0)
        prior = strength * self.unigram[predicted]
        return (together + prior) / (self._before[read] + strength)


def baselines(splits: Mapping[SplitName, Blocks], vocab_size: int) -> dict[str, Any]:
    """``{"unigram": {split: {metric: value}}, "bigram": …}`` on validation and test blocks."""
    counts = Counts(splits["train"].tokens, vocab_size)
    pairs = {split: splits[split].rows(np.arange(len(splits[split]))) for split in SPLITS[1:]}

    def told(split: SplitName, probabilities: Floats) -> dict[str, float]:
        nats, blocks = np.asarray(-np.log(probabilities).sum()), splits[split]
        sizes = np.asarray(float(blocks.sizes.sum()))
        found = scores(nats, np.asarray(float(blocks.predicted)), sizes)
        return {name: round(float(value), 6) for name, value in found.items()}

    def bigram(split: SplitName, strength: float) -> dict[str, float]:
        return told(split, counts.bigram(*pairs[split], strength))

    best = min(STRENGTHS, key=lambda strength: bigram("validation", strength)["loss"])
    return {
        "unigram": {split: told(split, counts.unigram[pairs[split][1]]) for split in pairs},
        "bigram": {"prior_strength": best, **{split: bigram(split, best) for split in pairs}},
    }
