"""The model: a ``transformers`` encoder, a pooled vector, and a linear classifier."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.pretrained import Named, from_pretrained
from altgrad_plugins.tasks.settings import ModelSettings

_POSITIONS_AFTER_PADDING = {"roberta", "xlm-roberta", "camembert"}
"""Architectures that count positions from ``pad_token_id + 1``."""
_GLOBAL_ATTENTION = {
    *("albert", "bert", "camembert", "distilbert", "electra", "ernie", "roberta", "xlm-roberta"),
}
"""Architectures in which every token attends to all others, so that one mask serves all layers."""
_DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout"),
    *("resid_pdrop", "embd_pdrop", "attn_pdrop"),
)


class TextClassifier(nn.Module):
    """Encoder, pooling, dropout, classifier.

    Token ids and mask, both (n, length), give logits (n, labels). ``padded`` says, from the host, whether
    the mask has a 0 at all: transformers would ask the device in every forward, and wait for it.
    """

    def __init__(self, encoder: nn.Module, width: int, labels: int, settings: ModelSettings):
        super().__init__()
        self.encoder = encoder
        self._one_mask = attends_to_all(encoder.config)
        self.pooling = settings.pooling
        self.dropout = nn.Dropout(settings.dropout)
        self.classifier = nn.Linear(width, labels)
        nn.init.normal_(self.classifier.weight, std=0.02)
        nn.init.constant_(self.classifier.bias, settings.classifier_bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, padded: bool = True) -> Tensor:
        """Logits, one column per label."""
        mask: Tensor | None = attention_mask
        if self._one_mask:
            mask = pairwise_mask(attention_mask) if padded else None
        hidden = self.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        pooled = hidden[:, 0] if self.pooling == "cls" else masked_mean(hidden, attention_mask)
        logits: Tensor = self.classifier(self.dropout(pooled))
        return logits


def attends_to_all(config: Any) -> bool:
    """Whether every token attends to all others, so that the host says whether there is a mask."""
    return config.model_type in _GLOBAL_ATTENTION


def pairwise_mask(mask: Tensor) -> Tensor:
    """Which token attends to which: (n, length) -> bool (n, 1, length, length), a view."""
    return mask.bool()[:, None, None, :].expand(-1, -1, mask.shape[1], -1)


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the positions where ``mask`` is 1: (n, length, width) -> (n, width), in float32."""
    weight = mask.unsqueeze(-1).float()
    return (hidden.float() * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


class Sizes(Named, Protocol):
    """What the sizes of encoders and decoders have in common."""

    @property
    def max_length(self) -> int:
        """Tokens that are read at once."""

    @property
    def dropout(self) -> float:
        """Everywhere alike."""

    @property
    def model_fields_set(self) -> set[str]:
        """The settings that were given."""


def encoder_config(settings: ModelSettings, vocab_size: int, pad_id: int) -> Any:
    """The ``transformers`` configuration: the pretrained model's, or one from the sizes.

    Raises :class:`UserError` if a pretrained model is too short or its vocabulary too small.
    """
    if settings.pretrained is None:
        return _config_from_sizes(settings, vocab_size, pad_id)
    return checked_config(settings, vocab_size)


def checked_config(settings: Sizes, vocab_size: int) -> Any:
    """The pretrained model's configuration, with the dropout of the settings.

    Raises :class:`UserError` if the model is too short or its vocabulary too small.
    """
    from transformers import AutoConfig

    assert settings.pretrained is not None
    config = from_pretrained(
        "configuration", AutoConfig, settings.pretrained, settings.pretrained_revision
    )
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and config.model_type in _POSITIONS_AFTER_PADDING:
        longest -= config.pad_token_id + 1
    if longest is not None and settings.max_length > longest:
        raise UserError(
            f"model.max_length is {settings.max_length}, but {settings.pretrained} reads at most "
            f"{longest} tokens."
        )
    if vocab_size > config.vocab_size:
        raise UserError(
            f"model.pretrained: the tokenizer of {settings.pretrained} has {vocab_size:,} tokens, "
            f"but the model embeds only {config.vocab_size:,}: they do not belong together."
        )
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, settings.dropout)
    return config


def _config_from_sizes(settings: ModelSettings, vocab_size: int, pad_id: int) -> Any:
    from transformers import AutoConfig

    positions = settings.max_length
    if settings.type in _POSITIONS_AFTER_PADDING:
        positions += pad_id + 1
    ffn_dim = settings.ffn_dim or 4 * settings.hidden_dim
    if settings.type == "distilbert":
        sizes = {"hidden_dim": ffn_dim}
        dropouts = {"dropout": settings.dropout, "attention_dropout": settings.dropout}
    else:
        sizes = {"intermediate_size": ffn_dim, "type_vocab_size": 1}
        dropouts = dict.fromkeys(_DROPOUTS[:2], settings.dropout)
    return AutoConfig.for_model(
        settings.type,
        vocab_size=vocab_size,
        pad_token_id=pad_id,
        hidden_size=settings.hidden_dim,
        num_hidden_layers=settings.num_layers,
        num_attention_heads=settings.num_heads,
        max_position_embeddings=positions,
        **sizes,
        **dropouts,
    )


def size_facts(config: Any, settings: Sizes) -> dict[str, Any]:
    """Type and sizes of the encoder in use, and which settings a pretrained one overrules."""
    facts: dict[str, Any] = {
        "type": config.model_type,
        "hidden_dim": config.hidden_size,
        "num_layers": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "pretrained": settings.pretrained,
    }
    if settings.pretrained is not None:
        facts["overruled"] = {
            name: {"asked": getattr(settings, name), "used": facts[name]}
            for name in ("type", "hidden_dim", "num_layers", "num_heads")
            if name in settings.model_fields_set and getattr(settings, name) != facts[name]
        }
    return facts


def build_classifier(config: Any, labels: int, settings: ModelSettings) -> TextClassifier:
    """The model, float32 on the CPU. Initial weights come from torch's global generator."""
    from transformers import AutoModel

    options: dict[str, Any] = {"attn_implementation": "sdpa"}
    if _takes_pooling_flag(config):
        options["add_pooling_layer"] = False
    if settings.pretrained is None:
        encoder = AutoModel.from_config(config, dtype=torch.float32, **options)
    else:
        encoder, loading = from_pretrained(
            "model",
            AutoModel,
            settings.pretrained,
            settings.pretrained_revision,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            **options,
        )
        complete(loading, settings.pretrained)
    return TextClassifier(encoder, config.hidden_size, labels, settings)


def complete(loading: Mapping[str, Any], pretrained: str) -> None:
    """Refuse a pretrained model without all of its weights, by what its loading said."""
    if loading["missing_keys"]:
        raise UserError(
            f"model.pretrained: {pretrained} lacks weights of its own architecture, such as "
            f"{sorted(loading['missing_keys'])[0]}; they would be random."
        )


def _takes_pooling_flag(config: Any) -> bool:
    """Whether the model class would build a pooler, which nothing here uses, unless told not to."""
    from transformers import AutoModel

    model_class = AutoModel._model_mapping[type(config)]
    return "add_pooling_layer" in inspect.signature(model_class.__init__).parameters
