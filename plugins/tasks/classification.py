"""The task: multi-label classification of texts with a transformer encoder."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.task import Batch, Evaluation, Split, Task
from altgrad_plugins.tasks.documents import Source
from altgrad_plugins.tasks.encoded import EncodedCorpus, EncodedSplit, Int64, batch_rows
from altgrad_plugins.tasks.encoder import (
    attends_to_all,
    build_classifier,
    encoder_config,
    size_facts,
)
from altgrad_plugins.tasks.eurlex import EurlexSource
from altgrad_plugins.tasks.layer_groups import LAYER_GROUPS
from altgrad_plugins.tasks.license_rules import LicenseRulesSource
from altgrad_plugins.tasks.losses import multilabel_loss, positive_weight
from altgrad_plugins.tasks.metrics import all_scores, best_threshold
from altgrad_plugins.tasks.preparation import prepared_corpus
from altgrad_plugins.tasks.settings import EurlexSettings, LicenseRulesSettings, ModelSettings


class TextClassification(Task):
    """Documents of a source, prepared once; their batches, model, loss and scores."""

    head = ("classifier",)
    layer_groups = LAYER_GROUPS

    def __init__(self, source: Source, model: ModelSettings) -> None:
        self._source = source
        self._model = model
        self._prepared: EncodedCorpus | None = None
        self._config: Any = None
        self._pos_weight: Tensor | None = None
        self._pos_weights: dict[torch.device, Tensor] = {}

    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None:
        """Read the prepared file from the cache, or make it. Checks what ``pretrained`` names."""
        self._prepared = prepared_corpus(self._source, self._model, cache_dir, log)
        tokenizer = self._corpus.facts["tokenizer"]
        self._config = encoder_config(self._model, tokenizer["vocab_size"], tokenizer["pad_id"])
        for name, size in size_facts(self._config, self._model).get("overruled", {}).items():
            log(f"model.{name}={size['asked']} gives way to {size['used']} of the pretrained model")
        train = self._corpus.splits["train"]
        counts = np.bincount(train.labels.values, minlength=self._labels).tolist()
        self._pos_weight = positive_weight(self._model.pos_weight, counts, len(train))
        self._pos_weights.clear()

    @property
    def _corpus(self) -> EncodedCorpus:
        if self._prepared is None:
            raise RuntimeError("prepare() must be called first")
        return self._prepared

    @property
    def _labels(self) -> int:
        return int(self._corpus.facts["labels"])

    def facts(self) -> dict[str, Any]:
        """Sizes, labels kept and left out, lengths, sources, and the encoder in use."""
        return {**self._corpus.facts, "model": size_facts(self._config, self._model)}

    def build_model(self) -> nn.Module:
        """Encoder, masked mean, classifier."""
        return build_classifier(self._config, self._labels, self._model)

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """``input_ids`` and ``attention_mask`` (n, width), ``targets`` (n, labels)."""
        train = self._corpus.splits["train"]
        rows = batch_rows(step, batch_size, seed, len(train))
        return self._batch(train, rows, self._model.pad_to_multiple_of)

    def _batch(self, split: EncodedSplit, rows: Int64, multiple_of: int = 1) -> Batch:
        pad_id, longest = self._corpus.facts["tokenizer"]["pad_id"], self._model.max_length
        input_ids, mask = split.padded(rows, pad_id, multiple_of, longest)
        tensors = {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy(mask),
            "targets": torch.from_numpy(split.targets(rows, self._labels)),
        }
        return Batch(tensors, samples=len(rows), tokens=int(mask.sum()))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean over all entries of the batch."""
        return self._loss(_logits_of(model, batch), batch.tensors["targets"])

    def graph_key(self, batch: Batch) -> Hashable | None:
        """Whether there is padding, since a mask is made only then.

        None without any where the model looks for it itself: it does not while it is captured, and would go
        by other kernels than in the steps before.
        """
        padded = _padded(batch)
        return padded if padded or attends_to_all(self._config) else None

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        device = logits.device
        if self._pos_weight is not None and device not in self._pos_weights:
            self._pos_weights[device] = self._pos_weight.to(device)
        return multilabel_loss(logits, targets, self._model, self._pos_weights.get(device))

    def evaluate(
        self,
        model: nn.Module,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        calibration: Mapping[str, float] | None = None,
    ) -> Evaluation:
        """Scores of a whole split.

        Predictions: ``probabilities`` (examples, labels) as float16, rounded after the scores were
        computed, ``targets`` (examples, labels) as uint8, ``threshold``, the same for every
        example, and ``ids``; rows in the order of the data.
        """
        examples = self._corpus.splits[split]
        logits = self._logits(model, examples, batch_size, device)
        targets = examples.targets(np.arange(len(examples)), self._labels)
        finite = torch.isfinite(logits)
        loss = float(self._loss(logits, torch.from_numpy(targets)))
        if not finite.all():
            loss = float("nan")
        probabilities = torch.sigmoid(logits).masked_fill(~finite, float("nan")).numpy()
        truth = targets.astype(np.uint8)
        if calibration is None:
            calibration = {"threshold": best_threshold(probabilities, truth)}
        scores = all_scores(probabilities, truth, calibration["threshold"])
        return Evaluation(
            {"loss": loss, **scores},
            dict(calibration),
            {
                "probabilities": probabilities.astype(np.float16),
                "targets": truth,
                "threshold": np.full(len(truth), calibration["threshold"], dtype=np.float32),
                "ids": examples.ids,
            },
        )

    def _logits(
        self, model: nn.Module, examples: EncodedSplit, batch_size: int, device: torch.device
    ) -> Tensor:
        """Logits (examples, labels), float32, on the CPU; batches hold examples of like length."""
        order = np.argsort(examples.tokens.lengths(), kind="stable")
        parts = []
        for start in range(0, len(order), batch_size):
            batch = self._batch(examples, order[start : start + batch_size]).to(device)
            parts.append(_logits_of(model, batch).detach().float())
        sorted_logits = torch.cat(parts).cpu()
        restored = torch.empty_like(sorted_logits)
        restored[torch.from_numpy(order)] = sorted_logits
        return restored


def _padded(batch: Batch) -> bool:
    return batch.tokens < batch.tensors["input_ids"].numel()


def _logits_of(model: nn.Module, batch: Batch) -> Tensor:
    input_ids, mask = batch.tensors["input_ids"], batch.tensors["attention_mask"]
    logits: Tensor = model(input_ids, mask, padded=_padded(batch))
    return logits


def eurlex(settings: EurlexSettings) -> TextClassification:
    """The task ``eurlex``."""
    return TextClassification(EurlexSource(settings.data), settings.model)


def license_rules(settings: LicenseRulesSettings) -> TextClassification:
    """The task ``license_rules``."""
    return TextClassification(LicenseRulesSource(settings.data), settings.model)
