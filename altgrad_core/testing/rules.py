"""What a conformance check says: the rule that is broken, and the smallest example of it."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator
from pathlib import Path

from altgrad_core.errors import UserError


class Fault(AssertionError):
    """A rule of the plugin contract that is broken, with an example of what happens instead."""

    def __init__(self, rule: str, example: str) -> None:
        self.rule, self.example = rule, example.rstrip(". ")
        super().__init__(f"{self.example}. The rule: {rule}")


@contextlib.contextmanager
def rule(sentence: str) -> Iterator[None]:
    """Whatever is wrong within, or raised there, breaks the rule that the sentence states."""
    try:
        yield
    except Fault:
        raise
    except AssertionError as error:
        raise Fault(sentence, str(error)) from error
    except UserError as error:
        raise Fault(sentence, str(error)) from error
    except Exception as error:
        raise Fault(sentence, f"it raised {told(error)}") from error


def told(error: BaseException) -> str:
    """The error and where it was raised, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
