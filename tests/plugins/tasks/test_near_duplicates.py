"""Groups of near duplicates against exact Jaccard similarities."""

from __future__ import annotations

import random

import numpy as np

from altgrad_plugins.tasks.near_duplicates import _hash_family, near_duplicate_groups


def _jaccard(one: list[str], two: list[str]) -> float:
    a, b = ({tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in (one, two))
    return len(a & b) / len(a | b)


def _text(draw: random.Random, count: int) -> list[str]:
    return [f"w{draw.randrange(5000)}" for _ in range(count)]


def test_close_texts_meet_and_others_do_not() -> None:
    draw = random.Random(0)
    texts: list[list[str]] = []
    pairs: list[tuple[int, float]] = []
    for number in range(60):
        original = _text(draw, 400)
        changed = list(original)
        for _ in range(2 if number % 2 else 60):
            changed[draw.randrange(400)] = "changed"
        pairs.append((len(texts), _jaccard(original, changed)))
        texts += [original, changed]
    groups = near_duplicate_groups(texts)
    close = [groups[i + 1] == i for i, similarity in pairs if similarity > 0.94]
    far = [groups[i + 1] == i for i, similarity in pairs if similarity < 0.7]
    assert len(close) + len(far) >= 55
    assert np.mean(close) > 0.7
    assert not any(far)
    assert all(groups[i] == i for i, _ in pairs)


def test_groups_close_transitively_and_name_their_first_text() -> None:
    text = _text(random.Random(1), 50)
    other = _text(random.Random(2), 50)
    assert near_duplicate_groups([other, text, other, text, text]) == [0, 1, 0, 1, 1]


def test_short_texts_are_compared_whole() -> None:
    assert near_duplicate_groups([["a", "b"], ["a", "b"], ["a", "c"], ["b", "a"]]) == [0, 0, 2, 3]


def test_the_hashes_never_change() -> None:
    """Splits rest on them. The first value of SplitMix64 from 0 is known."""
    multipliers, offsets = _hash_family(2)
    assert int(multipliers[0]) == 0xE220A8397B1DCDAF
    assert all(int(m) % 2 == 1 for m in multipliers)
    assert len({*multipliers.tolist(), *offsets.tolist()}) == 4
