"""From a source to the prepared file: labels counted, texts tokenised, once for all runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.cache import cache_key, is_whole, only_writer
from altgrad_plugins.tasks.documents import Corpus, Source, limit, overlap_facts
from altgrad_plugins.tasks.encoded import EncodedCorpus, EncodedSplit, Ragged
from altgrad_plugins.tasks.labels import build_vocabulary, label_facts
from altgrad_plugins.tasks.pretrained import pretrained_fingerprint
from altgrad_plugins.tasks.settings import SPLITS, ModelSettings
from altgrad_plugins.tasks.tokenizer import TextTokenizer, pretrained_tokenizer, trained_tokenizer

Log = Callable[[str], None]

_ENCODING = 1
"""Version of the prepared file; a change makes old caches unused."""
_CHARACTERS_PER_TOKEN = 32
"""Text beyond this many characters per token of ``max_length`` is not looked at: no tokenizer gets
there, and whole statutes would be tokenised in vain."""


def prepared_corpus(
    source: Source, model: ModelSettings, cache_dir: Path, log: Log
) -> EncodedCorpus:
    """The prepared data, from the cache if it is there. Raises ``UserError``.

    Of several processes that start together one makes the file and the others wait for it.
    """
    fingerprint = {"data": source.fingerprint(), **pretrained_fingerprint(model)}
    folder = cache_dir / source.name
    path = folder / f"{_key(source, fingerprint, max_length=model.max_length)}.npz"
    corpus = _load(path, log)
    if corpus is None:
        with only_writer(path, log):
            corpus = _load(path, lambda _: None)
            if corpus is None:
                corpus = _encode(source, model, fingerprint, cache_dir, log)
                corpus.save(path)
    return corpus


def _key(source: Source, fingerprint: Mapping[str, str], **more: Any) -> str:
    """What the prepared file depends on: content and settings, not the place of the data."""
    parts = {
        "encoding": _ENCODING,
        "fingerprint": dict(fingerprint),
        "settings": source.settings.model_dump(mode="json", exclude={"path"}),
        "libraries": {name: metadata.version(name) for name in ("tokenizers", "transformers")},
    }
    return cache_key({**parts, **more})


def _load(path: Path, log: Log) -> EncodedCorpus | None:
    return EncodedCorpus.load(path) if is_whole(path, log) else None


def _encode(
    source: Source, model: ModelSettings, fingerprint: dict[str, str], cache_dir: Path, log: Log
) -> EncodedCorpus:
    settings = source.settings
    loaded = source.load(cache_dir, log)
    if source.fingerprint() != fingerprint["data"]:  # the file would stand under the wrong key
        raise UserError(
            f"the data of {source.name} changed while they were read. Leave them as they are, and run "
            "the suite again."
        )
    corpus = Corpus(
        {split: limit(loaded.splits[split], settings.max_examples) for split in SPLITS},
        loaded.facts,
    )
    vocabulary = build_vocabulary(corpus.splits["train"], settings)
    tokenizer = _tokenizer(source, model, corpus, fingerprint, cache_dir, log)
    sizes = {split: len(corpus.splits[split]) for split in SPLITS}
    log(f"tokenising {sum(sizes.values()):,} examples (once)")
    longest = _CHARACTERS_PER_TOKEN * model.max_length
    splits = {}
    for split, documents in corpus.splits.items():
        texts = [document.text[:longest] for document in documents]
        splits[split] = EncodedSplit(
            np.array([document.id for document in documents]),
            Ragged.of(tokenizer.encode(texts, model.max_length)),
            Ragged.of(vocabulary.encode(documents)),
        )
    facts = {
        "dataset": source.name,
        **corpus.facts,
        "fingerprint": fingerprint,
        "examples": sizes,
        "empty_texts": {s: sum(not d.text for d in corpus.splits[s]) for s in SPLITS},
        **overlap_facts(corpus),
        **label_facts(corpus, vocabulary),
        **_token_facts(splits, tokenizer, model),
    }
    _report(facts, log)
    return EncodedCorpus(splits, facts)


def _tokenizer(
    source: Source,
    model: ModelSettings,
    corpus: Corpus,
    fingerprint: Mapping[str, str],
    cache_dir: Path,
    log: Log,
) -> TextTokenizer:
    if model.pretrained is not None:
        return pretrained_tokenizer(model.pretrained, model.pretrained_revision)
    path = cache_dir / source.name / f"tokenizer-{_key(source, fingerprint)}.json"
    return trained_tokenizer(
        path, [d.text for d in corpus.splits["train"]], source.settings.vocab_size, log
    )


def _token_facts(
    splits: Mapping[Any, EncodedSplit], tokenizer: TextTokenizer, model: ModelSettings
) -> dict[str, Any]:
    lengths = {name: split.tokens.lengths() for name, split in splits.items()}
    return {
        "tokenizer": {
            "source": model.pretrained or "trained on the training split",
            "vocab_size": tokenizer.vocab_size,
            "pad_id": tokenizer.pad_id,
        },
        "max_length": model.max_length,
        "tokens_per_example": {n: round(float(x.mean()), 2) for n, x in lengths.items()},
        "examples_at_max_length": {
            n: int((x >= model.max_length).sum()) for n, x in lengths.items()
        },
    }


def _report(facts: Mapping[str, Any], log: Log) -> None:
    """Say what a user should not have to look up."""
    log(f"labels: {facts['labels']:,} of {facts['labels_in_train']:,} in the training split")
    for split in SPLITS:
        count = facts["examples_without_labels"][split]
        if count:
            log(f"{split}: {count:,} examples without labels are kept")
        unseen = facts["unseen"].get(split, {"labels": 0})
        if unseen["labels"]:
            log(f"{split}: {unseen['labels']:,} labels unseen in training are not scored")
