"""How many examples the fuzzing tests draw: few by default, as many as ``ALTGRAD_FUZZ`` says in a long mode."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

LONG = int(os.environ.get("ALTGRAD_FUZZ", "0"))


def fuzzed(examples: int) -> Callable[[Any], Any]:
    """Settings for a test that draws so many examples by default, and the same ones each time."""
    return settings(
        max_examples=LONG or examples,
        deadline=None,
        derandomize=not LONG,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.explicit, Phase.generate, *([Phase.shrink] if LONG else [])),
        database=None,
    )


def harmed(whole: bytes, draw: random.Random) -> bytes:
    """The bytes with something of what happens to files: cut, a bit, rubbish, parts doubled or lost."""
    text = bytearray(whole)
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        place = draw.randrange(len(text) + 1)
        match draw.randrange(7):
            case 0:
                text = text[:place]
            case 1 if text:
                text[min(place, len(text) - 1)] ^= 1 << draw.randrange(8)
            case 2:
                text[place:place] = draw.randbytes(draw.randrange(1, 9))
            case 3:
                text[place:place] = text[place : place + draw.randrange(1, 200)]
            case 4:
                del text[place : place + draw.randrange(1, 50)]
            case 5:
                word = draw.choice(WORDS)
                text[place : place + len(word) * draw.randrange(2)] = word
            case _:
                text[place:] = bytes(len(text) - place)
    return bytes(text)


WORDS = [
    *(
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"-1",
        b"1e999",
        b"NaN",
        b"true",
        b'"\\ud800"',
        b"\xff\xfe",
        b"\0",
    ),
    *(
        b"[" * 5000,
        b'{"a":' * 3000,
        b"!!python/object:os.system",
        b"&a [*a]",
        b"*b",
        b"9" * 5000,
        b": ",
    ),
    *(
        b"\n",
        b"\n- ",
        b"\n  ",
        b"../../x",
        b"2026-11-26",
        b"0x10",
        b"1_000",
        b"? ",
        b"| ",
        b"<<: ",
        b'"',
    ),
]

randoms = st.randoms(use_true_random=False)

scalars: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["ok", "final", "tune", "../../x", "quantization.format", "NaN", "a" * 5000])
)
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def replaced(value: Any, draw: random.Random, new: Any) -> Any:
    """JSON data with one part, somewhere in it, replaced by ``new``, taken away, or moved to another name."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(list(value))
        match draw.randrange(6):
            case 0:
                return {k: v for k, v in value.items() if k != name}
            case 1:
                return {**value, draw.choice(["x", "id", "layout", name + "_"]): value[name]}
            case _:
                return {**value, name: replaced(value[name], draw, new)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        inner = replaced(value[place], draw, new)
        return [*value[:place], inner, *value[place + draw.randrange(2) :]]
    return new
