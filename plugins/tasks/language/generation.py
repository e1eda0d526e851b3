"""A short sample of what a model writes, so that a reader sees what it learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

NEW_TOKENS = 64
TEMPERATURE = 0.8
_SEED = 0


def continuation(
    logits_of: Callable[[Tensor], Tensor],
    prompt: Sequence[int],
    *,
    end_id: int,
    context: int,
    device: torch.device,
) -> list[int]:
    """Up to 64 tokens after ``prompt``, drawn at temperature 0.8, up to an end token.

    ``logits_of`` gives logits (1, length, vocabulary) of ids (1, length). Draws come from a generator of
    their own with a fixed seed: the same model writes the same text, and no other random number
    changes. It ends where a logit is not a number.
    """
    generator = torch.Generator().manual_seed(_SEED)
    ids = list(prompt)
    while len(ids) < len(prompt) + NEW_TOKENS:
        window = torch.tensor([ids[-context:]], device=device)
        last = logits_of(window)[0, -1].float().cpu() / TEMPERATURE
        if not torch.isfinite(last).all():
            break
        drawn = int(torch.multinomial(last.softmax(0), 1, generator=generator))
        if drawn == end_id:
            break
        ids.append(drawn)
    return ids[len(prompt) :]
