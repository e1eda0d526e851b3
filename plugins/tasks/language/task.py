"""The task: next-token prediction with a transformer decoder."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from altgrad_core.interfaces.task import Batch, Evaluation, Split, Task
from altgrad_plugins.tasks.encoded import Int64, batch_rows
from altgrad_plugins.tasks.encoder import size_facts
from altgrad_plugins.tasks.language.blocks import Blocks, PackedCorpus
from altgrad_plugins.tasks.language.decoder import (
    build_decoder,
    decoder_config,
    head_name,
    whole_rows,
)
from altgrad_plugins.tasks.language.generation import continuation
from altgrad_plugins.tasks.language.preparation import prepared_blocks
from altgrad_plugins.tasks.language.resample import scores
from altgrad_plugins.tasks.language.settings import LanguageSettings
from altgrad_plugins.tasks.language.tokens import TextCodec
from altgrad_plugins.tasks.layer_groups import LAYER_GROUPS

_PROMPT = 16
"""Tokens of the first validation block that the sample continues."""


class LanguageModelling(Task):
    """Blocks of texts; their batches, model, loss and scores."""

    head = ("lm_head",)
    layer_groups = LAYER_GROUPS

    def __init__(self, settings: LanguageSettings) -> None:
        self._settings = settings
        self._prepared: tuple[PackedCorpus, TextCodec] | None = None
        self._config: Any = None

    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None:
        """Read the prepared file from the cache, or make it. Checks what ``pretrained`` names."""
        self._prepared = prepared_blocks(self._settings, cache_dir, log)
        tokenizer = self._corpus.facts["tokenizer"]
        model = self._settings.model
        self._config = decoder_config(model, tokenizer["vocab_size"], tokenizer["end_id"])
        for name, size in self.facts()["model"].get("overruled", {}).items():
            log(f"model.{name}={size['asked']} gives way to {size['used']} of the pretrained model")

    @property
    def _corpus(self) -> PackedCorpus:
        if self._prepared is None:
            raise RuntimeError("prepare() must be called first")
        return self._prepared[0]

    @property
    def epoch_samples(self) -> int:
        """Blocks of the training split."""
        return len(self._corpus.splits["train"])

    def facts(self) -> dict[str, Any]:
        """Sizes, tokens and bytes, sources, n-gram baselines, and the decoder in use."""
        sizes = size_facts(self._config, self._settings.model)
        sizes.get("overruled", {}).pop("type", None)  # "decoder" is any
        sizes["tied_head"] = bool(self._config.tie_word_embeddings)
        return {**self._corpus.facts, "model": sizes}

    def build_model(self) -> nn.Module:
        """The decoder with its head, as ``transformers`` names its modules."""
        model = build_decoder(self._config, self._settings.model)
        self.head = (head_name(model),)
        return model

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """``input_ids`` and ``targets``, both (n, context)."""
        train = self._corpus.splits["train"]
        return _batch(train, batch_rows(step, batch_size, seed, len(train)))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean over all tokens of the batch, in nats."""
        logits = _logits(model, batch.tensors["input_ids"])
        return functional.cross_entropy(
            logits.flatten(0, 1).float(), batch.tensors["targets"].flatten()
        )

    def graph_key(self, batch: Batch) -> Hashable:
        """Nothing but the tensors."""
        return "tensors"

    def evaluate(
        self,
        model: nn.Module,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        calibration: Mapping[str, float] | None = None,
    ) -> Evaluation:
        """Scores of a whole split, and on validation data a sample of what the model writes.

        Predictions, a row for each block in the order of the data: ``nats`` (summed over its tokens),
        ``tokens`` and ``bytes`` (of the predicted tokens).
        """
        blocks = self._corpus.splits[split]
        nats = self._nats(model, blocks, batch_size, device)
        tokens = np.full(len(blocks), blocks.context, dtype=np.int64)
        found = scores(*(part.sum(dtype=np.float64) for part in (nats, tokens, blocks.sizes)))
        sample = (self._sample(model, device),) if split == "validation" else ()
        return Evaluation(
            {name: float(value) for name, value in found.items()},
            dict(calibration or {}),
            {"nats": nats, "tokens": tokens, "bytes": blocks.sizes},
            sample,
        )

    def _nats(
        self, model: nn.Module, blocks: Blocks, batch_size: int, device: torch.device
    ) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Summed loss of each block, (blocks,)."""
        parts = []
        for start in range(0, len(blocks), batch_size):
            rows = np.arange(start, min(start + batch_size, len(blocks)))
            batch = _batch(blocks, rows).to(device)
            logits = _logits(model, batch.tensors["input_ids"]).float()
            targets = batch.tensors["targets"]
            losses = functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
            parts.append(losses.double().sum(dim=1))
        return torch.cat(parts).cpu().numpy()

    def _sample(self, model: nn.Module, device: torch.device) -> str:
        """The beginning of the validation text, an arrow, and how the model goes on."""
        assert self._prepared is not None
        corpus, codec = self._prepared
        read, _ = corpus.splits["validation"].rows(np.arange(1))
        prompt = read[0, :_PROMPT].tolist()
        written = continuation(
            lambda ids: _logits(model, ids),
            prompt,
            end_id=codec.end_id,
            context=self._settings.model.max_length,
            device=device,
        )
        return f"{codec.decode(prompt)} ⟶ {codec.decode(written)}"


def _batch(blocks: Blocks, rows: Int64) -> Batch:
    read, predicted = blocks.rows(rows)
    tensors = {"input_ids": torch.from_numpy(read), "targets": torch.from_numpy(predicted)}
    return Batch(tensors, samples=len(rows), tokens=predicted.size)


def _logits(model: nn.Module, input_ids: Tensor) -> Tensor:
    with whole_rows():
        logits: Tensor = model(input_ids=input_ids, use_cache=False).logits
    return logits


def causal_lm(settings: LanguageSettings) -> LanguageModelling:
    """The task ``causal_lm``."""
    return LanguageModelling(settings)
