"""The baselines, counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from altgrad_plugins.tasks.language.blocks import Blocks
from altgrad_plugins.tasks.language.ngrams import STRENGTHS, Counts, baselines

STREAM = np.array([0, 1, 2, 1, 2, 0])  # predicted: 1 2 1 2 0, of a vocabulary of 4


def test_unigram_and_bigram_are_smoothed() -> None:
    counts = Counts(STREAM, 4)
    assert counts.unigram.tolist() == pytest.approx([2 / 9, 3 / 9, 3 / 9, 1 / 9])
    seen, unseen, never = counts.bigram(np.array([1, 2, 3]), np.array([2, 3, 3]), 10.0)
    assert seen == pytest.approx((2 + 10 * 3 / 9) / (2 + 10))
    assert unseen == pytest.approx((0 + 10 / 9) / (2 + 10))
    assert never == pytest.approx(1 / 9)


def test_probabilities_add_up_to_one() -> None:
    counts = Counts(STREAM, 4)
    for before in range(4):
        read, predicted = np.full(4, before), np.arange(4)
        assert counts.bigram(read, predicted, 10.0).sum() == pytest.approx(1.0)


def test_baselines_are_of_the_tokens_that_the_model_predicts() -> None:
    blocks = Blocks(STREAM, np.array([7]), context=4)  # predicts 1 2 1 2
    found = baselines({"train": blocks, "validation": blocks, "test": blocks}, 4)
    uni = found["unigram"]["test"]
    assert uni["loss"] == pytest.approx(math.log(3), abs=1e-5)
    assert uni["perplexity"] == pytest.approx(3.0, abs=1e-4)
    assert uni["bits_per_byte"] == pytest.approx(4 * math.log2(3) / 7, abs=1e-5)
    assert found["bigram"]["prior_strength"] == STRENGTHS[0]
    assert found["bigram"]["test"]["perplexity"] < uni["perplexity"]
