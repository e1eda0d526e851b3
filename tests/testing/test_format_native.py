"""A declared native dtype must hold the grid, and be the one that the offer names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from altgrad_core.interfaces import Offer, hookimpl
from altgrad_core.interfaces.format import Format
from altgrad_core.registry.catalog import Catalog, catalog
from altgrad_core.testing.format_native import held_natively
from altgrad_core.testing.format_probe import FormatProbe
from altgrad_core.testing.offers import check_offer
from altgrad_core.testing.rules import Fault

HALF = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


class Given(Format):
    """A format of 4 bits."""

    bits = 4

    def __init__(self, native: str, half: tuple[float, ...] = HALF) -> None:
        self.name, self.native, self._half = "given", native, torch.tensor(half)

    def code_values(self) -> Tensor:
        return torch.cat([self._half, -self._half])


def check(fmt: Format) -> None:
    held_natively(FormatProbe(fmt, torch.device("cpu")))


@pytest.mark.parametrize("native", ["float8_e4m3fn", "float8_e5m2", "int8", "bfloat16", ""])
def test_a_grid_of_4_bits_may_have_products_of_8(native: str) -> None:
    check(Given(native))


@pytest.mark.parametrize(
    ("native", "half", "said"),
    [
        (
            "float8_e4m3fn",
            (*HALF[:-1], 6.25),
            r"'float8_e4m3fn', which does not hold 6.25 \(code 7",
        ),
        ("float8_e4m3fn", (*HALF[:-1], 480.0), "does not hold 480.0"),
        ("float8_e5m2", (*HALF[:-1], 7.5), "does not hold 7.5"),
        ("int8", (*HALF[:-1], 6.25), "'int8', which does not hold 6.25"),
        ("int8", (*HALF[:-1], 64.5), "does not hold 64.5"),
        ("int8", (*HALF[:-1], float("nan")), "does not hold nan"),
        ("float4_e2m1fn_x2", HALF, "and products are of float8_e4m3fn, float8_e5m2, int8, bfl"),
    ],
)
def test_what_the_dtype_does_not_hold_is_named(
    native: str, half: tuple[float, ...], said: str
) -> None:
    with pytest.raises(AssertionError, match=said):
        check(Given(native, half))


def given(name: str, settings: object) -> Format:
    return Given("int8")


def test_an_offer_says_what_the_format_does() -> None:
    class Plugin:
        @hookimpl
        def altgrad_formats(self) -> list[Offer]:
            return [Offer("given", "given", f"{__name__}:given", native="float8_e4m3fn")]

    (entry,) = Catalog.from_modules(Plugin()).registered
    with pytest.raises(Fault, match="native is 'float8_e4m3fn' there, and 'int8' here"):
        check_offer(entry)


def test_built_in_offers_and_formats_agree() -> None:
    found = catalog()
    for name in ("e0m7", "e1m6", "e2m5", "e4m3", "e5m2", "bf16", "fp32"):
        fmt = found.build("format", name)
        assert fmt.native == found.get("format", name).offer.native
        check(fmt)
