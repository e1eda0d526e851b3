"""An independent reference: formats by their definition, in NumPy and rationals alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

# name: exponent bits, mantissa bits, bias, specials
DEFINITIONS = {
    "e0m7": (0, 7, 0, "none"),
    "e1m6": (1, 6, 0, "none"),
    "e2m5": (2, 5, 1, "none"),
    "e3m4": (3, 4, 3, "none"),
    "e4m3": (4, 3, 7, "fn"),
    "e5m2": (5, 2, 15, "ieee"),
    "e6m1": (6, 1, 31, "none"),
    "e7m0": (7, 0, 63, "none"),
}


def bfloat16_patterns() -> np.ndarray:
    """Every bfloat16 value as float32, NaN payloads among them."""
    return (np.arange(2**16, dtype=np.uint32) << 16).view(np.float32)


class Reference:
    """A format by its definition: ``values[code]`` as float64, and brute-force rounding."""

    def __init__(self, exponent_bits: int, mantissa_bits: int, bias: int, specials: str) -> None:
        e, m = exponent_bits, mantissa_bits
        half = 2 ** (e + m)
        exact: list[Fraction | float] = []
        for code in range(half):
            field, mantissa = code >> m, code & (2**m - 1)
            if specials == "fn" and code == half - 1:
                exact.append(math.nan)
            elif specials == "ieee" and field == 2**e - 1:
                exact.append(math.nan if mantissa else math.inf)
            elif e == 0:
                exact.append(Fraction(mantissa, 2**m))
            elif field == 0:
                exact.append(Fraction(mantissa, 2**m) * Fraction(2) ** (1 - bias))
            else:
                exact.append((1 + Fraction(mantissa, 2**m)) * Fraction(2) ** (field - bias))
        self.exact = [v for v in exact if isinstance(v, Fraction)]
        half_values = np.array([float(v) for v in exact])
        self.values = np.concatenate([half_values, -half_values])
        self.magnitudes = half_values[np.isfinite(half_values)]
        self.largest = self.magnitudes[-1]
        self.special = {"none": None, "fn": math.nan, "ieee": math.inf}[specials]
        # The value that the code after the largest would have without specials or an end.
        top = len(self.exact)
        field, mantissa = top >> m, top & (2**m - 1)
        beyond = (1 + Fraction(mantissa, 2**m)) * Fraction(2) ** (field - bias)
        self.beyond = float(Fraction(top, 2**m) if e == 0 else beyond)

    def round(self, x: np.ndarray, overflow: str = "saturate") -> np.ndarray:
        """Nearest by looking at every value; a tie goes to the even code. ``x`` is exact in float64.

        Values here have few bits, so the distance of ``x`` to its two neighbours is exact in float64.
        """
        with np.errstate(invalid="ignore"):  # signalling NaNs among the bit patterns
            x = x.astype(np.float64)
        grid = np.append(self.magnitudes, self.beyond)
        unique, back = np.unique(np.abs(x), return_inverse=True)
        best = np.empty(len(unique))
        for start in range(0, len(unique), 4096):
            part = np.minimum(unique[start : start + 4096], 2 * self.beyond)
            distance = np.abs(part[:, None] - grid[None, :])
            code = distance.argmin(1)  # the first of two equal ones
            after = np.minimum(code + 1, len(grid) - 1)
            rows = np.arange(len(part))
            tie = (distance[rows, after] == distance[rows, code]) & (after != code)
            code = np.where(tie & (code % 2 == 1), after, code)
            best[start : start + 4096] = np.where(np.isnan(part), np.nan, grid[code])
        over = best > self.largest
        best[over] = self.largest if overflow == "saturate" else self.special
        return np.copysign(best[back], x)

    def probes(self) -> np.ndarray:
        """Grid values, their midpoints, the float32 beside each, the overflow region; both signs."""
        over = [v for v in (self.beyond, 2 * self.beyond) if v < 2.0**128]
        grid = np.append(self.magnitudes, over).astype(np.float32)
        middle = [(a + b) / 2 for a, b in zip(self.exact, self.exact[1:], strict=False)]
        top = (self.exact[-1] + Fraction(self.beyond)) / 2
        exact = np.array([float(v) for v in [*middle, top]])
        assert (exact.astype(np.float32) == exact).all()
        centres = np.concatenate([grid, exact.astype(np.float32)])
        sides = [np.nextafter(centres, np.float32(s)) for s in (np.inf, -np.inf)]
        edge = np.array([0, 2**-149, 2**-126, 3.4028235e38, np.inf, np.nan], dtype=np.float32)
        half = np.concatenate([centres, *sides, edge])
        return np.concatenate([half, -half])


@pytest.fixture(scope="session")
def reference() -> Callable[..., Reference]:
    """``reference("e3m4")`` or ``reference(E, M, bias, specials)``."""
    known: dict[tuple[object, ...], Reference] = {}

    def make(*definition: object) -> Reference:
        if len(definition) == 1:
            definition = DEFINITIONS[str(definition[0])]
        if definition not in known:
            known[definition] = Reference(*definition)
        return known[definition]

    return make


@pytest.fixture(scope="session")
def patterns() -> np.ndarray:
    return bfloat16_patterns()


@pytest.fixture(scope="session")
def same() -> Callable[[np.ndarray, np.ndarray], None]:
    """Asserts equality bit for bit, save that any NaN equals any NaN."""

    def check(got: np.ndarray, want: np.ndarray) -> None:
        np.testing.assert_array_equal(got, want)
        numbers = ~np.isnan(np.asarray(want))
        np.testing.assert_array_equal(np.signbit(got)[numbers], np.signbit(want)[numbers])

    return check


@pytest.fixture(scope="session")
def build() -> Callable[..., object]:
    """Builds a built-in format by name and settings, the way the registry does."""
    from importlib import import_module

    from altgrad_plugins.formats import altgrad_formats

    offers = {offer.name: offer for offer in altgrad_formats()}

    def make(name: str, **settings: object) -> object:
        offer = offers[name]
        module, attribute = offer.target.split(":")
        target = getattr(import_module(module), attribute)
        return target(name, offer.settings.model_validate(settings))

    return make
