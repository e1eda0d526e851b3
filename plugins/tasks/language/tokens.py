"""Text to tokens and back, with the bytes of text that each token stands for.

Bits per byte are comparable across tokenizers only if the bytes are those of the text as it was read.
A token stands for the UTF-8 bytes from the end of the token before it to its own end; what is left at
the end of a document goes to the token that ends it. So the bytes of a document's tokens always
add up to the document, whatever its tokenizer drops or rewrites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.pretrained import from_pretrained
from altgrad_plugins.tasks.tokenizer import tokenizer_file, train_byte_tokenizer

Ints = npt.NDArray[np.int64]
END = "[END]"
_CHUNK = 64
"""Texts tokenised at a time, which bounds the memory of long documents."""


class TextCodec(Protocol):
    """What the task needs of a tokenizer."""

    @property
    def vocab_size(self) -> int:
        """Token ids lie in ``[0, vocab_size)``."""

    @property
    def end_id(self) -> int:
        """Id of the token that ends a document."""

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[Ints, Ints]]:
        """Of each text the ids, and the bytes that each stands for; the end token is the last."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens."""


class ByteCodec:
    """Each byte is a token."""

    vocab_size, end_id = 257, 256

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[Ints, Ints]]:
        """See the protocol."""
        for text in texts:
            ids = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
            yield np.append(ids, self.end_id), np.append(np.ones_like(ids), 0)

    def decode(self, ids: Sequence[int]) -> str:
        """Bytes that are no character are shown as U+FFFD."""
        return bytes(i for i in ids if i < self.end_id).decode("utf-8", "replace")


class TokenizerCodec:
    """A ``tokenizers.Tokenizer``, trained here or from a pretrained model."""

    def __init__(self, tokenizer: Any, end_id: int) -> None:
        self._tokenizer, self.end_id = tokenizer, end_id
        tokenizer.encode_special_tokens = True  # a text that spells one ends no document
        tokenizer.no_truncation()
        tokenizer.no_padding()

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return 1 + max(map(int, self._tokenizer.get_vocab().values()))

    def encode(self, texts: Sequence[str]) -> Iterator[tuple[Ints, Ints]]:
        """See the protocol."""
        for start in range(0, len(texts), _CHUNK):
            chunk = list(texts[start : start + _CHUNK])
            encodings = self._tokenizer.encode_batch(chunk, add_special_tokens=False)
            for text, encoding in zip(chunk, encodings, strict=True):
                ends = np.array([end for _, end in encoding.offsets], dtype=np.int64)
                yield (
                    np.append(np.array(encoding.ids, dtype=np.int64), self.end_id),
                    _bytes_between(text, ends),
                )

    def decode(self, ids: Sequence[int]) -> str:
        """Special tokens are left out."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _bytes_between(text: str, ends: Ints) -> Ints:
    """Bytes from each end (in characters) to the next, and from the last to the end of the text."""
    ends = np.append(np.maximum.accumulate(ends), len(text))
    if not text.isascii():
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        width = 1 + sum((codes > last).astype(np.int64) for last in (0x7F, 0x7FF, 0xFFFF))
        ends = np.concatenate(([0], np.cumsum(width)))[ends]
    return np.diff(ends, prepend=0)


def trained_codec(
    path: Path, texts: Sequence[str], vocab_size: int, log: Callable[[str], None]
) -> TokenizerCodec:
    """Byte-level BPE that keeps every byte, from ``path`` or trained on ``texts`` first."""
    from tokenizers import Tokenizer

    tokenizer_file(path, lambda: train_byte_tokenizer(texts, vocab_size, END), vocab_size, log)
    tokenizer: Any = Tokenizer.from_file(str(path))
    return TokenizerCodec(tokenizer, int(tokenizer.token_to_id(END)))


def pretrained_codec(name: str, revision: str | None) -> TokenizerCodec:
    """The tokenizer of a hub name or a local folder. Raises :class:`UserError`."""
    from transformers import AutoTokenizer

    tokenizer = from_pretrained("tokenizer", AutoTokenizer, name, revision)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(
            f"model.pretrained: the tokenizer of {name} does not say which text a token stands for "
            "(it has no tokenizer.json), so bits per byte cannot be counted."
        )
    ends = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id)
    end = next((end for end in ends if end is not None), None)
    if end is None:
        raise UserError(
            f"model.pretrained: the tokenizer of {name} has no token that ends a text (eos_token)."
        )
    return TokenizerCodec(backend, int(end))


def codec_facts(codec: TextCodec, source: str) -> Mapping[str, Any]:
    """What the record says of the tokenizer."""
    return {"source": source, "vocab_size": codec.vocab_size, "end_id": codec.end_id}
