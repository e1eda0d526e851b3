"""Which products of codes there are, as planning knows them: by the names of torch's dtypes, without torch.

A format declares the dtype in which hardware multiplies its codes (``Offer.native``, ``Format.native``).
A product takes two of them. float8 with float8 is ``torch._scaled_mm``, int8 with int8 ``torch._int_mm``
(a uniform grid: codes are multiples of its step), and bfloat16 and float32 have the products that they always have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

_T = TypeVar("_T")
E4M3, E5M2, INT8 = "float8_e4m3fn", "float8_e5m2", "int8"
WIDE = ("bfloat16", "float32")
SCALED, INTEGER, PLAIN = "torch._scaled_mm", "torch._int_mm", "torch.mm"

PRODUCTS: Mapping[tuple[str, str], str] = {
    (E4M3, E4M3): SCALED,
    (E4M3, E5M2): SCALED,
    (E5M2, E4M3): SCALED,
    (INT8, INT8): INTEGER,
    **{(wide, wide): PLAIN for wide in WIDE},
}
"""Names of the dtypes of left and right -> what multiplies them."""
NATIVE = tuple(dict.fromkeys(left for left, _ in PRODUCTS))
"""The dtypes that a format may declare."""


@dataclass(frozen=True)
class Operand:
    """A format by name, and the dtype of its codes; "" if it declares none."""

    format: str
    dtype: str


@dataclass(frozen=True)
class Operands:
    """The formats of a model's layers: of all their weights, of their inputs, and of the gradients at their outputs.

    A layer's output is inputs × weights. In the backward pass, if gradients have a format, they are multiplied
    with both; if not, these products are simulated.
    """

    weights: tuple[Operand, ...]
    activation: Operand | None
    gradient: Operand | None

    def faults(self, granularities: Mapping[str, str]) -> Iterator[str]:
        """Why the products cannot be native, a sentence each; none if they can.

        granularities:
            name of a setting -> for how much of a tensor its scale stands.
        """
        for key, granularity in granularities.items():
            if granularity != "tensor":
                yield (
                    f"execution: native takes one scale for each tensor, and {key}.granularity is "
                    f"{granularity}"
                )
        if self.activation is None:
            yield (
                "execution: native multiplies codes with codes, so the inputs need a format, too: set "
                "activation_format"
            )
            return
        pairs = self._pairs()
        without = [one for one in _each(chain(*pairs)) if one.dtype not in NATIVE]
        for one in without:
            yield (
                f"execution: native: {one.format} has no native product (those with one declare "
                f"{', '.join(NATIVE)}: see native codes in altgrad-bench "
                "show format NAME); use execution: simulated"
            )
        for left, right in pairs:
            if not {left, right} & {*without} and (left.dtype, right.dtype) not in PRODUCTS:
                yield f"execution: native: {_refused(left, right)}"

    def multipliers(self) -> set[str]:
        """Names of what multiplies, where there are no :meth:`faults`."""
        return {PRODUCTS[left.dtype, right.dtype] for left, right in self._pairs()}

    def _pairs(self) -> list[tuple[Operand, Operand]]:
        """What is multiplied with what, each once."""
        inputs, gradients = self.activation, self.gradient
        sides = [(inputs, self.weights), (gradients, (*self.weights, inputs))]
        return _each(
            (a, b) for a, others in sides for b in others if a is not None and b is not None
        )


def _each(items: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(items))


def _refused(left: Operand, right: Operand) -> str:
    both = f"{left.format} × {right.format}"
    if (left.dtype, right.dtype) == (E5M2, E5M2):
        return (
            f"{both} is refused by the library that multiplies (cuBLAS, behind {SCALED}), and so "
            f"everywhere; a mixed pair of {E4M3} and {E5M2}, such as e4m3 × e5m2, it takes"
        )
    return f"{both} would be {left.dtype} × {right.dtype}, for which there is no product"
