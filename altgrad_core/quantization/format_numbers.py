"""What a format is in numbers, worked out from its values: the properties that a benefit may go with.

Signal to quantisation noise is that of one fixed tensor: ``N = 2^16`` normal quantiles
``x_i = Φ⁻¹((i + 1/2) / N)``, divided by the scale that maps the largest of them to where the format wants
it, its largest value over its headroom (scale 1 for formats that are not scaled), rounded to nearest and
scaled back:

    SQNR = 10 log₁₀(Σ x² / Σ (x − s·round(x/s))²)  in dB

It has no random part and needs no training.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from numpy.typing import NDArray

from altgrad_core.interfaces.format import LISTED_BITS, Format
from altgrad_core.interfaces.placement import normal_sample, sqnr

_POINTS = 2**16


def numbers_of(fmt: Format) -> dict[str, object]:
    """A format's properties, as JSON holds them.

    - ``bits``: width of a code; ``scaled``: whether tensors are scaled to its range (formats used at
      scale 1 are references);
    - ``exponent_bits``, ``mantissa_bits``: None for a format that does not say so, such as a table;
    - ``binades``: its range, ``log2(largest / smallest positive)``; ``sqnr``: in dB, see the module, and
      None where rounding changes nothing;
    - ``uniform``: whether all neighbouring values are equally far apart, so that its stiffness is the
      same for every weight of a tensor; None for one of more than 16 bits, which is not listed;
    - ``grid``: a text that is equal for formats with the same grid: their finite values are equal up to
      a power of two, or outright for formats used at scale 1; empty for one of more than 16 bits.
    """
    listed = fmt.bits <= LISTED_BITS
    values = np.unique(fmt.code_values().double().cpu().numpy()) if listed else np.empty(0)
    values = values[np.isfinite(values)] + 0.0  # one zero
    facts, noise = fmt.facts(), normal_sqnr(fmt)
    found = {name: facts.get(name.replace("_", " ")) for name in ("exponent_bits", "mantissa_bits")}
    return {
        "bits": fmt.bits,
        "scaled": fmt.scaled,
        **{n: float(v) if isinstance(v, int | float) else None for n, v in found.items()},
        "binades": math.log2(fmt.max_finite) - math.log2(fmt.min_positive),
        "sqnr": noise if math.isfinite(noise) else None,
        "uniform": len(np.unique(np.diff(values))) == 1 if listed else None,
        "grid": _grid(values, scaled=fmt.scaled) if listed else "",
    }


def normal_sqnr(fmt: Format) -> float:
    """Signal to quantisation noise of a normal tensor, in dB; inf where rounding changes nothing."""
    largest = fmt.max_finite
    headroom = fmt.headroom if fmt.scaled else largest / float(normal_sample(_POINTS).max())
    return float(
        sqnr(
            fmt.round, largest, torch.tensor([headroom], dtype=torch.float64, device="cpu"), _POINTS
        )
    )


def _grid(values: NDArray[np.float64], *, scaled: bool) -> str:
    """A digest of the values, divided by the power of two in the largest if the format is scaled.

    Dividing by a power of two is exact in float64, so equal grids are equal here.
    """
    exponent = int(np.frexp(values[-1])[1]) if scaled else 0
    normalised = np.ldexp(values, -exponent).astype("<f8")
    return hashlib.sha256(bytes([scaled]) + normalised.tobytes()).hexdigest()[:12]
