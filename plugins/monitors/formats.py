"""What monitors ask the formats of layers, once for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from altgrad_core.interfaces.format import Format

T = TypeVar("T")


class PerFormat(Generic[T]):
    """``ask(format)`` for the format of each layer, asked anew where an intervention has exchanged it.

    Formats answer on the host, by tensors of their own; to ask them in every step would cost time.
    """

    def __init__(self, ask: Callable[[Format], T]) -> None:
        self._ask = ask
        self._known: dict[str, tuple[Format, T]] = {}

    def __call__(self, layer: str, fmt: Format) -> T:
        """The answer for ``fmt``, the present format of ``layer``."""
        known = self._known.get(layer)
        if known is None or known[0] is not fmt:
            known = self._known[layer] = (fmt, self._ask(fmt))
        return known[1]
