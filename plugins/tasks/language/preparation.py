"""From a source to the prepared file: documents cleaned, tokenised and packed, once for all runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.cache import cache_key, is_whole, only_writer
from altgrad_plugins.tasks.documents import Corpus, Document, limit
from altgrad_plugins.tasks.language.blocks import Blocks, PackedCorpus
from altgrad_plugins.tasks.language.ngrams import baselines
from altgrad_plugins.tasks.language.settings import LanguageSettings
from altgrad_plugins.tasks.language.sources import fingerprint, text_source
from altgrad_plugins.tasks.language.tokens import (
    ByteCodec,
    TextCodec,
    codec_facts,
    pretrained_codec,
    trained_codec,
)
from altgrad_plugins.tasks.near_duplicates import words
from altgrad_plugins.tasks.settings import SPLITS, SplitName

Log = Callable[[str], None]
_ENCODING = 2
"""Version of the prepared file; a change makes old caches unused."""
_FOLDER = "causal_lm"


def prepared_blocks(
    settings: LanguageSettings, cache_dir: Path, log: Log
) -> tuple[PackedCorpus, TextCodec]:
    """The prepared data, from the cache if it is there, and the tokenizer. Raises ``UserError``.

    Of several processes that start together one makes the file and the others wait for it.
    """
    found = fingerprint(settings)
    path = cache_dir / _FOLDER / f"{_key(settings, found, context=settings.model.max_length)}.npz"
    corpus = _load(path, log)
    if corpus is None:
        with only_writer(path, log):
            corpus = _load(path, lambda _: None)
            if corpus is None:
                corpus = _packed(settings, found, cache_dir, log)
                corpus.save(path)
    return corpus, _codec(settings, found, None, cache_dir, log)


def _key(settings: LanguageSettings, found: Mapping[str, str], **more: Any) -> str:
    """What the prepared file depends on: content and settings, not the place of the data."""
    data = settings.data.model_dump(mode="json", exclude={"path"})
    parts = {
        "encoding": _ENCODING,
        "fingerprint": dict(found),
        "settings": {**data, "source": settings.data.chosen_source},
        "libraries": {name: metadata.version(name) for name in ("tokenizers", "transformers")},
    }
    return cache_key({**parts, **more})


def _load(path: Path, log: Log) -> PackedCorpus | None:
    return PackedCorpus.load(path) if is_whole(path, log) else None


def _packed(
    settings: LanguageSettings, found: Mapping[str, str], cache_dir: Path, log: Log
) -> PackedCorpus:
    source, context = text_source(settings.data), settings.model.max_length
    loaded = source.load(cache_dir, log)
    if source.fingerprint() != found["data"]:  # the file would stand under the wrong key
        raise UserError(
            "the texts changed while they were read. Leave them as they are, and run the suite again."
        )
    corpus = _cleaned(loaded, settings.data.max_examples)
    codec = _codec(settings, found, corpus, cache_dir, log)
    counts = {split: len(documents) for split, documents in corpus.splits.items()}
    log(f"tokenising {sum(counts.values()):,} documents (once)")
    splits = {
        split: Blocks.packed(
            codec.encode([document.text for document in documents]),
            codec.end_id,
            codec.vocab_size,
            context,
            None if split == "train" else settings.data.max_eval_blocks,
        )
        for split, documents in corpus.splits.items()
    }
    _refuse_too_little(splits, corpus.facts)
    origin = settings.model.pretrained or ("bytes" if isinstance(codec, ByteCodec) else "trained")
    facts = {
        "texts": source.name,
        **corpus.facts,
        "fingerprint": dict(found),
        "documents": counts,
        "context": context,
        "tokenizer": codec_facts(codec, origin),
        "blocks": {split: len(blocks) for split, blocks in splits.items()},
        "tokens": {split: blocks.predicted for split, blocks in splits.items()},
        "bytes": {split: int(blocks.sizes.sum()) for split, blocks in splits.items()},
        "tokens_left_over": {split: blocks.left_over for split, blocks in splits.items()},
        "baselines": baselines(splits, codec.vocab_size),
    }
    return PackedCorpus(splits, facts)


def _cleaned(loaded: Corpus, most: int | None) -> Corpus:
    """No empty texts, and none that an earlier split has as well; in the order of their hashes.

    Equal are texts that differ in case, punctuation and space alone.
    """
    seen: set[str] = set()
    splits: dict[SplitName, list[Document]] = {}
    empty, repeated = {}, {}
    for split in SPLITS:
        documents = limit(loaded.splits[split], most)
        normal = [" ".join(words(document.text)) for document in documents]
        empty[split] = sum(not text for text in normal)
        repeated[split] = sum(text in seen for text in normal if text)
        kept = [d for d, text in zip(documents, normal, strict=True) if text and text not in seen]
        splits[split] = sorted(kept, key=Document.digest)
        seen.update(normal)
    facts = {**loaded.facts, "empty_texts": empty, "left_out_as_in_an_earlier_split": repeated}
    return Corpus(splits, facts)


def _codec(
    settings: LanguageSettings,
    found: Mapping[str, str],
    corpus: Corpus | None,
    cache_dir: Path,
    log: Log,
) -> TextCodec:
    """The tokenizer; one that is trained lies in the cache. ``corpus``: the texts, if they are at hand."""
    model, data = settings.model, settings.data
    if model.pretrained is not None:
        return pretrained_codec(model.pretrained, model.pretrained_revision)
    if data.tokenizer == "bytes":
        return ByteCodec()
    path = cache_dir / _FOLDER / f"tokenizer-{_key(settings, found)}.json"
    if corpus is None and not is_whole(path, log):  # taken out of the cache, or damaged there
        corpus = _cleaned(text_source(data).load(cache_dir, log), data.max_examples)
    texts = [] if corpus is None else [document.text for document in corpus.splits["train"]]
    return trained_codec(path, texts, data.vocab_size, log)


def _refuse_too_little(splits: Mapping[SplitName, Blocks], facts: Mapping[str, Any]) -> None:
    empty, repeated = facts["empty_texts"], facts["left_out_as_in_an_earlier_split"]
    for split, blocks in splits.items():
        if not len(blocks):
            raise UserError(
                f"the {split} texts have {len(blocks.tokens) - 1:,} tokens, and one block has "
                f"{blocks.context:,} ({empty[split]:,} texts without a word were left out, and "
                f"{repeated[split]:,} that an earlier split has): give more text, or lower "
                "model.max_length (or raise data.max_examples if it is set)."
            )
