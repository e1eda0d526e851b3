"""The data of the task ``license_rules``: licence texts and notices from ``licensedcode-data``.

The package (CC-BY-4.0, by nexB Inc. and others) holds one file per text, with a YAML header that
names the licences and says what kind of text it is. Labels of a document: ``key:<licence>`` for
each licence of its expression, ``category:<category>`` of those licences, and
``kind:<text|notice|reference|...>``.

Left out: texts under 15 words, false positives, deprecated texts, and texts that equal an earlier
one in all but case, punctuation and space. Splits are 80/10/10 by the hash of the text; near
duplicates stay together, and large groups of them (such as the many wordings of one notice) are
trained on.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import yaml

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.cache import atomic_path, cache_key, is_whole, only_writer
from altgrad_plugins.tasks.documents import Corpus, Document
from altgrad_plugins.tasks.pretrained import pretrained_fingerprint
from altgrad_plugins.tasks.settings import (
    SPLITS,
    LicenseRulesDataSettings,
    LicenseRulesSettings,
    SplitName,
)

MODULE = "licensedcode"
DISTRIBUTION = "licensedcode-data"
HINT = "pip install 'altgrad-bench[demo]'"
MIN_WORDS = 15
_PARSER = 1
"""Version of what this module makes of the package; a change makes old caches unused."""

_HEADER = re.compile(r"---\s*\n(.*?)\n---\s*(?:\n|$)", re.DOTALL)
_OPERATORS = {"and", "or", "with"}
_KIND = "is_license_"


@dataclass(frozen=True)
class LicenseRulesSource:
    """The documents of the installed package."""

    settings: LicenseRulesDataSettings
    name: str = "license_rules"

    def fingerprint(self) -> str:
        """Name and version of the package: its releases do not change."""
        return f"pypi:{DISTRIBUTION}=={_installed_version()}, parser {_PARSER}"

    def load(self, cache_dir: Path, log: Callable[[str], None]) -> Corpus:
        """The documents, parsed once and then read back from the cache."""
        path = cache_dir / "license_rules" / f"{cache_key({'data': self.fingerprint()})}.jsonl"
        if not is_whole(path, log):
            with only_writer(path, log):
                if not is_whole(path, lambda _: None):
                    log(f"parsing the texts of {DISTRIBUTION} (once)")
                    _write(path, *parse_rules(data_folder()))
        facts, splits = _read(path)
        return Corpus(splits, {"source": self.fingerprint(), "licence": "CC-BY-4.0", **facts})


def fingerprint(settings: LicenseRulesSettings) -> dict[str, str]:
    """Identity of the data, and of the pretrained model if one is named. Free of torch."""
    return {
        "data": LicenseRulesSource(settings.data).fingerprint(),
        **pretrained_fingerprint(settings.model),
    }


def data_folder() -> Path:
    """The package's data folder. Raises :class:`UserError` where the package is missing."""
    spec = util.find_spec(MODULE)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(location) / "data"
        if (folder / "rules").is_dir() and (folder / "licenses").is_dir():
            return folder
    raise UserError(f"the package {DISTRIBUTION}, which holds this data, is not installed: {HINT}")


def _installed_version() -> str:
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"the package {DISTRIBUTION}, which holds this data, is not installed: {HINT}"
        ) from None


def parse_rules(folder: Path) -> tuple[dict[str, Any], dict[SplitName, list[Document]]]:
    """Facts (what was left out, and why) and the documents, in the order of file names.

    folder:
        holds ``licenses/*.LICENSE``, which give each licence its category, and ``rules/*.RULE``.
    """
    from altgrad_plugins.tasks.near_duplicates import assign_splits, near_duplicate_groups, words

    categories = {
        path.stem: header.get("category") for path, header, _ in _files(folder, "LICENSE")
    }
    left_out: Counter[str] = Counter()
    documents: dict[str, Document] = {}
    for path, header, text in _files(folder, "RULE"):
        reason = _left_out(header, text)
        normal = " ".join(words(text))
        reason = reason or ("duplicate" if normal in documents else None)
        if reason:
            left_out[reason] += 1
        else:
            documents[normal] = Document(path.stem, text, _labels(header, categories))
    groups = near_duplicate_groups([normal.split() for normal in documents])
    assigned = assign_splits(list(documents), groups)
    splits: dict[SplitName, list[Document]] = {split: [] for split in SPLITS}
    for document, split in zip(documents.values(), assigned, strict=True):
        splits[split].append(document)
    facts = {"left_out": dict(sorted(left_out.items())), "near_duplicate_groups": len(set(groups))}
    return facts, splits


def _files(folder: Path, suffix: str) -> Iterator[tuple[Path, dict[str, Any], str]]:
    """Path, YAML header and text of each file, in the order of file names."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for path in sorted((folder / f"{suffix.lower()}s").glob(f"*.{suffix}")):
        content = path.read_text(encoding="utf-8")
        match = _HEADER.match(content)
        header = yaml.load(match[1], Loader=loader) if match else None
        if match is None or not isinstance(header, dict):
            raise UserError(f"{path} has no YAML header; reinstall {DISTRIBUTION}: {HINT}")
        # {{...}} marks the phrases that identify a licence: an annotation, not part of the text.
        text = content[match.end() :].replace("{{", "").replace("}}", "").strip()
        yield path, header, text


def _left_out(header: dict[str, Any], text: str) -> str | None:
    if header.get("is_false_positive"):
        return "false_positive"
    if header.get("is_deprecated"):
        return "deprecated"
    if len(text.split()) < MIN_WORDS:
        return "short"
    return None if header.get("license_expression") else "without_licence"


def _labels(header: dict[str, Any], categories: dict[str, str | None]) -> tuple[str, ...]:
    words = re.findall(r"[^\s()]+", str(header["license_expression"]))
    keys = {word for word in words if word.lower() not in _OPERATORS}
    labels = {f"key:{key}" for key in keys}
    labels |= {f"category:{categories[key]}" for key in keys if categories.get(key)}
    labels |= {f"kind:{n.removeprefix(_KIND)}" for n in header if n.startswith(_KIND) and header[n]}
    return tuple(sorted(labels))


def _write(path: Path, facts: dict[str, Any], splits: dict[SplitName, list[Document]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        stream.write(json.dumps(facts) + "\n")
        for split, documents in splits.items():
            for document in documents:
                stream.write(json.dumps({"split": split, **asdict(document)}) + "\n")


def _read(path: Path) -> tuple[dict[str, Any], dict[SplitName, list[Document]]]:
    splits: dict[SplitName, list[Document]] = {split: [] for split in SPLITS}
    with path.open(encoding="utf-8") as stream:
        facts: dict[str, Any] = json.loads(next(stream))
        for line in stream:
            row = json.loads(line)
            document = Document(row["id"], row["text"], tuple(row["labels"]))
            splits[row["split"]].append(document)
    return facts, splits
