"""Messages from outside: no escape sequences, no control characters, no surrogates, no megabytes."""

from __future__ import annotations

import time

import pytest

from altgrad_core._text import LIMIT, plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("loss is NaN – ü 日本 😀", "loss is NaN – ü 日本 😀"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("10 %\r20 %\r\nend", "10 %\n20 %\nend"),
        ("\x1b[31mred\x1b[0m \x1b[2J\x1b[1;1Hhome", "red home"),
        ("\x1b]0;a title\x07text \x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "text link"),
        ("\x1bcreset \x1b(Bset \x9b31mC1", "reset set C1"),
        ("\x1b", ""),
        ("a\x00b\x07c\x7fd\x85e", "abcde"),
        ("abc\u202edcba\u2066", "abcdcba"),
        ("half \ud83d pair \ud83d\ude00", "half \ufffd pair 😀"),
    ],
)
def test_what_is_left_of_a_text(text: str, expected: str) -> None:
    assert plain(text) == expected
    assert plain(plain(text)) == plain(text)


def test_a_long_text_is_cut_and_says_so() -> None:
    start = time.perf_counter()
    found = plain("x\x1b]" * 10_000_000)
    assert time.perf_counter() - start < 5
    assert len(found) < LIMIT + 50
    assert found.endswith("… (30,000,000 characters in all)")
    assert plain("y" * LIMIT) == "y" * LIMIT
    assert plain("y" * 5000, None) == "y" * 5000
