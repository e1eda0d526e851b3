"""Texts from a folder of ``.txt`` and ``.jsonl`` files.

A ``.txt`` file is a document; so is a row of a ``.jsonl`` file, by its field ``text``. Where the folder
has a ``train``, a ``validation`` and a ``test`` (a file, or a folder of files), these are the splits.
Two of them are refused. Otherwise documents are split 80/10/10 as those of ``license_rules`` are: by
hash, near duplicates together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.digest import file_digest
from altgrad_plugins.tasks.documents import Corpus, Document
from altgrad_plugins.tasks.eurlex_files import json_rows
from altgrad_plugins.tasks.settings import SPLITS, SplitName

SUFFIXES = (".txt", ".jsonl", ".jsonl.gz")


@dataclass(frozen=True)
class FilesSource:
    """The documents of a folder."""

    path: str
    name: str = "files"

    def fingerprint(self) -> str:
        """``sha256:`` over names and bytes of the files."""
        folder, total = Path(self.path).expanduser(), hashlib.sha256()
        for file in find_texts(folder):
            name = file.relative_to(folder).as_posix()
            total.update(name.encode("utf-8", "surrogateescape") + b"\0" + file_digest(file))
        return f"sha256:{total.hexdigest()}"

    def load(self, cache_dir: Path, log: Callable[[str], None]) -> Corpus:
        """Read every file."""
        folder = Path(self.path).expanduser()
        files = find_texts(folder)
        log(f"reading {len(files):,} file{'s' * (len(files) > 1)} in {folder}")
        given: dict[SplitName, list[Document]] = {split: [] for split in SPLITS}
        loose: list[Document] = []
        by_split = _named_splits(files, folder)
        for file in files:
            split = next((s for s in SPLITS if s == _split_name(file, folder)), None)
            if not by_split:
                loose += _documents(file, folder)
            elif split is not None:
                given[split] += _documents(file, folder)
        facts: dict[str, Any] = {"source": f"{len(files)} files"}
        return Corpus(given if by_split else _divided(loose, folder, facts), facts)


def find_texts(folder: Path) -> list[Path]:
    """The files that are read, in the order of their names. Raises :class:`UserError` without any."""
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"data.path: {folder} {found}; it should be a folder with files that end in "
            f"{', '.join(SUFFIXES)}."
        )
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name.endswith(SUFFIXES))
    if not files:
        raise UserError(f"data.path: {folder} holds no file that ends in {', '.join(SUFFIXES)}.")
    return files


def _named_splits(files: list[Path], folder: Path) -> bool:
    """Whether the folder names its splits. Two of three are refused: one's texts would be in the others."""
    names = {_split_name(file, folder) for file in files}
    there = [split for split in SPLITS if split in names]
    if len(there) == 2:
        (lacking,) = set(SPLITS) - set(there)
        raise UserError(
            f"data.path: {folder} has {' and '.join(there)}, and no {lacking}. Add a file or folder of "
            f"that name; or rename these, and all documents are split 80/10/10 by hash."
        )
    return len(there) == len(SPLITS)


def _split_name(file: Path, folder: Path) -> str:
    """The name of what lies in ``folder`` itself: the file's, without its ending, or a folder's."""
    first, *rest = file.relative_to(folder).parts
    return first if rest else first.partition(".")[0]


def _documents(file: Path, folder: Path) -> Iterator[Document]:
    name = file.relative_to(folder).as_posix()
    if file.suffix == ".txt":
        try:
            text = file.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"file {file} is not UTF-8: {error}.") from error
        yield Document(name, text, ())
        return
    for number, row in json_rows(file):
        held = row.get("text") if isinstance(row, Mapping) else None
        if not isinstance(held, str):
            raise UserError(
                f"file {file}, row {number} should be an object with a string 'text'; {_found(row)}."
            )
        try:
            held.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"file {file}, row {number}: 'text' holds half of a character at position {error.start}."
            ) from error
        yield Document(f"{name}:{number}", held, ())


def _found(row: Any) -> str:
    if not isinstance(row, Mapping):
        return f"found a {type(row).__name__}"
    if "text" in row:
        return f"found {row['text']!r:.40} there"
    return f"found {', '.join(map(repr, row)) or 'no field'}"


def _divided(
    documents: list[Document], folder: Path, facts: dict[str, Any]
) -> dict[SplitName, list[Document]]:
    """The documents by split, each text once. Adds to ``facts``."""
    from altgrad_plugins.tasks.near_duplicates import assign_splits, near_duplicate_groups, words

    normal: dict[str, Document] = {}
    for document in documents:
        normal.setdefault(" ".join(words(document.text)), document)
    normal.pop("", None)
    groups = near_duplicate_groups([text.split() for text in normal])
    distinct = list(dict.fromkeys(groups))
    if len(distinct) < len(SPLITS):
        raise UserError(
            f"data.path: {folder} holds {len(distinct)} distinct document(s), and each of "
            f"{', '.join(SPLITS)} needs one of its own. Add documents, or name files train.txt, "
            "validation.txt and test.txt (or .jsonl)."
        )
    chosen = dict(zip(groups, assign_splits(list(normal), groups), strict=True))
    for split in SPLITS:  # of few documents the hash may give a split none
        if split not in chosen.values():
            held = list(chosen.values())
            chosen[next(g for g in distinct if held.count(chosen[g]) > 1)] = split
    facts |= {
        "left_out": {"duplicate": len(documents) - len(normal)},
        "near_duplicate_groups": len(distinct),
    }
    splits: dict[SplitName, list[Document]] = {split: [] for split in SPLITS}
    for document, group in zip(normal.values(), groups, strict=True):
        splits[chosen[group]].append(document)
    return splits
