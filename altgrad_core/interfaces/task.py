"""What a task must be: data, a model, a loss and an evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

Split = Literal["validation", "test"]


@dataclass
class Batch:
    """One batch: tensors to move to the device, and its size counted on the host."""

    tensors: dict[str, Tensor]
    samples: int
    tokens: int
    """Real (not padding) tokens."""

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``. From pinned memory, a copy to CUDA does not hold up the host."""
        moved = {
            name: (tensor.pin_memory() if device.type == "cuda" else tensor).to(
                device, non_blocking=True
            )
            for name, tensor in self.tensors.items()
        }
        return Batch(moved, self.samples, self.tokens)

    def rows(self, first: int, count: int) -> Batch:
        """``count`` examples from number ``first`` on.

        Every tensor whose first dimension is ``samples`` is cut along it; any other stays as it is. Of the
        tokens, which cannot be told apart, it is given its share.
        """
        tensors = {
            name: tensor[first : first + count]
            if tensor.ndim and tensor.shape[0] == self.samples
            else tensor
            for name, tensor in self.tensors.items()
        }
        return Batch(tensors, count, self.tokens * count // self.samples)


@dataclass
class Evaluation:
    """Metrics of one split, with what is needed to recompute them.

    calibration:
        what was tuned on this split and may be applied to another, e.g. ``{"threshold": 0.31}``.
    predictions:
        arrays with one row per example, saved as ``predictions.npz``.
    samples:
        short texts that show what the model does, e.g. how it continues a sentence; recorded as
        events of the kind ``sample``.
    """

    metrics: dict[str, float]
    calibration: dict[str, float] = field(default_factory=dict)
    predictions: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    samples: tuple[str, ...] = ()


class Task(ABC):
    """Data, model, loss and evaluation of one training job.

    The settings model of a task's offer has two fields, ``data`` and ``model``: the suite sections of
    the same name (``data.dataset``, the task's name, is taken off before).
    """

    head: tuple[str, ...] = ()
    """``fnmatch`` patterns of the module names that are the head: classifier, output embeddings."""

    layer_groups: Mapping[str, Sequence[str]] = MappingProxyType({})
    """Name -> ``fnmatch`` patterns of module names: the groups ``attention`` and ``mlp``, among which
    the setting ``quantization.layers`` picks. A pattern may match no module."""

    @property
    def epoch_samples(self) -> int | None:
        """Training examples of an epoch, once prepared; None where epochs mean nothing, or are not told."""
        return None

    @abstractmethod
    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None:
        """Load and tokenise the data. Deterministic: no seed enters. Raises ``UserError``."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Facts about the prepared data for the record: sizes, labels, unseen labels, source. JSON values."""

    @abstractmethod
    def build_model(self) -> nn.Module:
        """A float32 model on the CPU. Initial weights are drawn from torch's global generator, seeded by the caller."""

    @abstractmethod
    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        """The training batch of ``step`` (from 1), on the CPU. A pure function of its arguments."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean loss of the batch, 0-d."""

    def graph_key(self, batch: Batch) -> Hashable | None:
        """What of ``batch``, beside its tensors and its number of samples, :meth:`loss` goes by.

        Batches with one key (and one shape) launch the same kernels, so a training step on CUDA may be captured
        once and replayed: see :mod:`altgrad_core.training.graphs`. None, the default, where the loss may go by
        anything on the host (``batch.tokens``, a counter of its own) or waits for the device: never captured.
        """
        return None

    @abstractmethod
    def evaluate(
        self,
        model: nn.Module,
        split: Split,
        *,
        batch_size: int,
        device: torch.device,
        calibration: Mapping[str, float] | None = None,
    ) -> Evaluation:
        """Evaluate the model (already in eval mode, under ``no_grad``).

        With ``calibration`` (from the validation split) its values are used; without, they are tuned on
        this split. The metrics are those that the task's offer declares: all of them, no others.
        """
