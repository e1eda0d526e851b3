"""The ladder: the eight ways to share seven bits between exponent and mantissa. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping

from altgrad_plugins.formats.layout import Layout

LADDER: Mapping[str, Layout] = {
    "e0m7": Layout(0, 7),
    "e1m6": Layout(1, 6),
    "e2m5": Layout(2, 5),
    "e3m4": Layout(3, 4),
    "e4m3": Layout(4, 3, specials="fn"),  # OCP 8-bit floating point: E4M3 and E5M2
    "e5m2": Layout(5, 2, specials="ieee"),
    "e6m1": Layout(6, 1),
    "e7m0": Layout(7, 0),
}
"""Name -> layout. Each bias is the standard one, ``2^(E - 1) - 1``."""

NATIVE: Mapping[str, str] = {
    "e0m7": "int8",  # both are uniform grids of -127 to 127 steps
    "e1m6": "int8",
    "e4m3": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
}
"""Name -> the dtype in which hardware multiplies codes, of those that have one."""

BF16 = Layout(8, 7, specials="ieee")
"""bfloat16: the upper half of a float32."""
