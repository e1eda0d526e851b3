"""The draws of stochastic rounding, by counter: which block, backend or device asks makes no difference.

Element ``i`` of a tensor (in its logical order) gets word ``i % 4`` of Philox (:mod:`.philox`) at counter ``i // 4``,
under a key that the generator gives once for each tensor. A uniform number of float32 is the word's upper 24
bits times 2^-24; one of float64 takes words ``2 i`` and ``2 i + 1``, the upper 27 and 26 bits of which make 53.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from altgrad_core.interfaces.backend import backend_for
from altgrad_core.interfaces.philox import words


def new_key(generator: torch.Generator) -> int:
    """The next key, of 64 bits. A CUDA generator is asked for its place, which waits for nothing."""
    if generator.device.type == "cpu":
        drawn = torch.randint(2**32, (2,), dtype=torch.int64, generator=generator, device="cpu")
        high, low = drawn.tolist()
        return int(high << 32 | low)
    place = generator.get_offset()
    generator.set_offset(place + 4)  # the least that it can move on
    return (generator.initial_seed() * 0x9E3779B97F4A7C15 + place) % 2**64


def uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1): shape, dtype (float32 or float64) and device of ``like``.

    Within a transform of ``torch.func`` they are torch's own, which knows what is to be random there.
    """
    if torch._C._are_functorch_transforms_active():
        return torch.rand(like.shape, dtype=like.dtype, device=like.device, generator=generator)
    return keyed_uniform(like, new_key(generator))


def keyed_uniform(like: Tensor, key: int) -> Tensor:
    """The numbers of :func:`uniform` for a key."""
    backend = backend_for(like)
    if backend != "eager":
        drawn = torch.empty(like.shape, dtype=like.dtype, device=like.device)
        _fill(backend)(drawn, key)
        return drawn
    if like.dtype == torch.float32:
        bits = words(like.numel(), like.device, key) >> 8
        return bits.to(like.dtype).mul_(2.0**-24).reshape(like.shape)
    pairs = words(2 * like.numel(), like.device, key).view(-1, 2)
    bits = (pairs[:, 0] >> 5 << 26) + (pairs[:, 1] >> 6)
    return bits.to(like.dtype).mul_(2.0**-53).reshape(like.shape)


@cache
def _fill(backend: str) -> Callable[[Tensor, int], None]:
    if backend == "numba":
        from altgrad_core.interfaces import compiled_draws

        return compiled_draws.fill
    from altgrad_core.interfaces import gpu_draws

    return gpu_draws.fill
