"""Part of :func:`~altgrad_core.testing.formats.check_format`: hardware's dtype holds the grid, code by code."""

from __future__ import annotations

import torch

from altgrad_core.quantization.native.pairs import INT8, NATIVE
from altgrad_core.testing.format_probe import FormatProbe


def held_natively(p: FormatProbe) -> None:
    """The value of every code of a format that declares a native dtype, through that dtype and back."""
    name = p.fmt.native
    if not name:
        return
    p.require(name in NATIVE, f"native is {name!r}, and products are of {', '.join(NATIVE)}.")
    dtype = getattr(torch, name)
    values = p.fmt.code_values() if p.listed else torch.cat([p.low, p.high])
    if name == INT8:
        step = torch.tensor(p.fmt.min_positive)
        lost = (values / step).to(dtype).float() * step != values
    else:
        back = values.to(dtype).float()
        lost = (back.view(torch.int32) != values.view(torch.int32)) & ~(
            back.isnan() & values.isnan()
        )
    for place in lost.nonzero().flatten()[:1].tolist():
        of = f" (code {place})" if p.listed else ""
        p.require(False, f"native is {name!r}, which does not hold {values[place].item()!r}{of}.")
