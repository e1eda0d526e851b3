"""Philox4x32-10: 32-bit words by counter and key.

J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. :func:`words` computes
with torch and is the reference; :mod:`.compiled_draws` does the same in one pass.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
"""By which the two halves of the key grow from round to round."""
_WORD = 0xFFFFFFFF


def words(count: int, device: torch.device, key: int) -> Tensor:
    """The first ``count`` words of the stream, as int64 below 2^32; shape ``(count,)``."""
    block = torch.arange(-(-count // 4), dtype=torch.int64, device=device)
    x = [block & _WORD, block >> 32, torch.zeros_like(block), torch.zeros_like(block)]
    halves = key & _WORD, key >> 32
    for turn in range(ROUNDS):
        left, right = ((k + turn * w) & _WORD for k, w in zip(halves, WEYL, strict=True))
        (high0, low0), (high1, low1) = (
            _product(x[0], MULTIPLIERS[0]),
            _product(x[2], MULTIPLIERS[1]),
        )
        x = [high1 ^ x[1] ^ left, low1, high0 ^ x[3] ^ right, low0]
    return torch.stack(x, 1).view(-1)[:count]


def _product(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """The upper and lower 32 bits of a product of 32-bit numbers, none of which fills an int64's sign."""
    low = x * (factor & 0xFFFF)
    high = x * (factor >> 16) + (low >> 16)
    return high >> 16, (high << 16 | low & 0xFFFF) & _WORD
