"""From text to token ids: a pretrained model's tokenizer, or one trained on the training split.

The trained one is lower-cased byte-level BPE: it has no unknown tokens, and training it twice gives
the same file. (Training WordPiece with ``tokenizers`` does not: it numbers the continuation pieces
in the order of a hash map.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from altgrad_plugins.tasks.cache import atomic_path, is_whole, only_writer
from altgrad_plugins.tasks.pretrained import from_pretrained

PAD, CLS, SEP = "[PAD]", "[CLS]", "[SEP]"
_SPECIAL = [PAD, "[UNK]", CLS, SEP, "[MASK]"]
_CHUNK = 1024
"""Texts tokenised at a time, which bounds the memory of long documents."""
_TRAINED_ON = 4000
"""Characters of each text that a tokenizer is trained on."""


class TextTokenizer(Protocol):
    """What the task needs of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Token ids lie in ``[0, vocab_size)``."""

    @property
    def pad_id(self) -> int:
        """Id that fills rows up."""

    def encode(self, texts: Sequence[str], max_length: int) -> Iterator[list[int]]:
        """Token ids of each text with the special ones, at most ``max_length``."""


class TrainedTokenizer:
    """A ``tokenizers.Tokenizer`` from a file."""

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_file(str(path))

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return int(self._tokenizer.get_vocab_size())

    @property
    def pad_id(self) -> int:
        """Id of ``[PAD]``."""
        return int(self._tokenizer.token_to_id(PAD))

    def encode(self, texts: Sequence[str], max_length: int) -> Iterator[list[int]]:
        """``[CLS] ... [SEP]``, cut to ``max_length``."""
        self._tokenizer.enable_truncation(max_length)
        for start in range(0, len(texts), _CHUNK):
            for encoding in self._tokenizer.encode_batch(texts[start : start + _CHUNK]):
                yield encoding.ids


class PretrainedTokenizer:
    """The tokenizer that belongs to a pretrained model."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return len(self._tokenizer)

    @property
    def pad_id(self) -> int:
        """The padding token's id, or 0: padding is masked out everywhere."""
        pad = self._tokenizer.pad_token_id
        return 0 if pad is None else int(pad)

    def encode(self, texts: Sequence[str], max_length: int) -> Iterator[list[int]]:
        """As the model was trained to read it, cut to ``max_length``."""
        for start in range(0, len(texts), _CHUNK):
            encoded = self._tokenizer(
                list(texts[start : start + _CHUNK]),
                truncation=True,
                max_length=max_length,
                padding=False,
            )
            yield from encoded["input_ids"]


def trained_tokenizer(
    path: Path, texts: Sequence[str], vocab_size: int, log: Callable[[str], None]
) -> TrainedTokenizer:
    """The tokenizer in ``path``, trained on ``texts`` first if there is none yet."""
    tokenizer_file(path, lambda: train_tokenizer(texts, vocab_size), vocab_size, log)
    return TrainedTokenizer(path)


def tokenizer_file(
    path: Path, train: Callable[[], Any], vocab_size: int, log: Callable[[str], None]
) -> None:
    """Write the ``tokenizers.Tokenizer`` that ``train`` makes to ``path``, if there is no whole one yet."""
    if not is_whole(path, log):
        with only_writer(path, log):
            if not is_whole(path, lambda _: None):
                log(f"training a tokenizer of {vocab_size:,} tokens (once)")
                tokenizer = train()
                with atomic_path(path) as temporary:
                    temporary.write_text(tokenizer.to_str(), encoding="utf-8")


def train_byte_tokenizer(texts: Sequence[str], vocab_size: int, end: str) -> Any:
    """A byte-level BPE that gives every text back as it was; ``end`` is its only special token.

    Of each text the first 4,000 characters count.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[end],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text[:_TRAINED_ON] for text in texts), trainer)
    return tokenizer


def train_tokenizer(texts: Sequence[str], vocab_size: int) -> Any:
    """A lower-cased byte-level BPE ``tokenizers.Tokenizer``; the same for the same texts.

    Of each text the first 4,000 characters count.
    """
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text[:_TRAINED_ON] for text in texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in (CLS, SEP)],
    )
    return tokenizer


def pretrained_tokenizer(name: str, revision: str | None) -> PretrainedTokenizer:
    """The tokenizer of a hub name or a local folder. Raises :class:`UserError`."""
    from transformers import AutoTokenizer

    return PretrainedTokenizer(from_pretrained("tokenizer", AutoTokenizer, name, revision))
