"""The model: a decoder of ``transformers`` with its head, from sizes or pretrained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.encoder import checked_config, complete
from altgrad_plugins.tasks.language.settings import DecoderSettings
from altgrad_plugins.tasks.pretrained import from_pretrained

_PROBE = 8
"""Tokens of the text on which a pretrained model shows that it does not look ahead."""


def decoder_config(settings: DecoderSettings, vocab_size: int, end_id: int) -> Any:
    """The ``transformers`` configuration: the pretrained model's, or GPT-2's with the sizes.

    Raises :class:`UserError` if a pretrained model is too short or its vocabulary too small.
    """
    from transformers import GPT2Config

    if settings.pretrained is not None:
        return checked_config(settings, vocab_size)
    return GPT2Config(
        vocab_size=vocab_size,
        n_positions=settings.max_length,
        n_embd=settings.hidden_dim,
        n_layer=settings.num_layers,
        n_head=settings.num_heads,
        n_inner=settings.ffn_dim,
        resid_pdrop=settings.dropout,
        embd_pdrop=settings.dropout,
        attn_pdrop=settings.dropout,
        bos_token_id=end_id,
        eos_token_id=end_id,
        tie_word_embeddings=settings.tied_head,
        use_cache=False,
    )


def build_decoder(config: Any, settings: DecoderSettings) -> nn.Module:
    """The model, float32 on the CPU. Initial weights come from torch's global generator.

    Raises :class:`UserError` for a pretrained model that lacks weights or looks ahead.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {"attn_implementation": "sdpa", "dtype": torch.float32}
    if settings.pretrained is None:
        made: nn.Module = AutoModelForCausalLM.from_config(config, **options)
        return made
    model, loading = from_pretrained(
        "model",
        AutoModelForCausalLM,
        settings.pretrained,
        settings.pretrained_revision,
        config=config,
        output_loading_info=True,
        **options,
    )
    complete(loading, settings.pretrained)
    _refuse_looking_ahead(model, settings.pretrained)
    return model  # type: ignore[no-any-return]


@contextmanager
def whole_rows() -> Iterator[None]:
    """Within the context every row is one text, and ``transformers`` does not look for several in one.

    It would ask the device in each forward, and while a CUDA graph is captured, when it cannot ask, make a mask,
    with which attention goes by another kernel than before.
    """
    from transformers import masking_utils

    found = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = found


def head_name(model: Any) -> str:
    """Name of the module that turns hidden states into logits."""
    head = model.get_output_embeddings()
    return next(str(name) for name, module in model.named_modules() if module is head)


@torch.no_grad()
def _refuse_looking_ahead(model: nn.Module, name: str) -> None:
    """An encoder loads as a decoder, too, and would read the tokens that it is to predict."""
    training = model.training
    model.eval()
    one = torch.arange(_PROBE)[None]
    two = one.clone()
    two[0, -1] = 0
    before, after = (model(input_ids=ids, use_cache=False).logits[:, :-1] for ids in (one, two))
    model.train(training)
    if not torch.allclose(before, after, rtol=1e-4, atol=1e-4):
        raise UserError(
            f"model.pretrained: {name} is no decoder: its predictions depend on the tokens to come."
        )
