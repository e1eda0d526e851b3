"""EU law from local files: which files, what they hold, and their hash."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.digest import file_digest
from altgrad_plugins.tasks.documents import Document
from altgrad_plugins.tasks.rows import LABELS, TextChoice, parse_row
from altgrad_plugins.tasks.settings import SPLITS, SplitName

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


def find_files(path: str | Mapping[SplitName, str]) -> dict[SplitName, Path]:
    """The file of each split in a folder, or as the mapping says.

    Raises :class:`UserError` where a split has no file, or more than one.
    """
    if isinstance(path, str):
        return {split: _in_folder(Path(path).expanduser(), split) for split in SPLITS}
    missing = [split for split in SPLITS if split not in path]
    if missing:
        raise UserError(
            f"data.path names no file for {' and '.join(missing)}: it should be a folder, or a "
            f"mapping with {', '.join(SPLITS)}."
        )
    files = {split: Path(path[split]).expanduser() for split in SPLITS}
    for split, file in files.items():
        if not file.is_file():
            raise UserError(f"data.path.{split}: there is no file {file}.")
        if not file.name.endswith(SUFFIXES):
            raise UserError(f"data.path.{split}: {file} should end in {', '.join(SUFFIXES)}.")
    return files


def _in_folder(folder: Path, split: str) -> Path:
    names = [f"{split}{suffix}" for suffix in SUFFIXES]
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise UserError(
            f"data.path: {folder} {found}; it should be a folder with a file for each of "
            f"{', '.join(SPLITS)} (such as {names[0]}), or a mapping from split to file."
        )
    found_files = [folder / name for name in names if (folder / name).is_file()]
    if len(found_files) > 1:
        raise UserError(
            f"data.path: {folder} holds {' and '.join(f.name for f in found_files)}; "
            f"leave one file for {split}, or name the files with a mapping from split to file."
        )
    if not found_files:
        held = sorted(entry.name for entry in folder.iterdir())[:8]
        raise UserError(
            f"data.path: {folder} has no file for {split}: looked for {', '.join(names)}; "
            f"the folder holds {', '.join(held) or 'nothing'}."
        )
    return found_files[0]


def files_fingerprint(files: Mapping[SplitName, Path]) -> str:
    """``sha256:`` over the bytes of the three files, in the order of the splits."""
    total = hashlib.sha256()
    for split in SPLITS:
        total.update(file_digest(files[split]))
    return f"sha256:{total.hexdigest()}"


def read_split(path: Path, split: SplitName, choice: TextChoice) -> list[Document]:
    """The documents of one file. Raises :class:`UserError` that names the row that is wrong."""
    rows = _parquet_rows(path) if path.suffix == ".parquet" else json_rows(path)
    documents = [parse_row(row, path.name, number, split, choice) for number, row in rows]
    if not documents:
        raise UserError(f"file {path} holds no rows; the {split} split needs at least one.")
    return documents


def json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Number (from 1) and value of each line of a ``.jsonl`` or ``.jsonl.gz``. Raises :class:`UserError`."""
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    yield number, _json(line, path, number)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(
            f"file {path} is not a whole gzip file (after row {number}): {error}."
        ) from error


def _json(line: bytes, path: Path, number: int) -> Any:
    try:
        return json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UserError(f"file {path}, row {number} is not UTF-8: {error}.") from error
    except (ValueError, RecursionError) as error:  # also numbers too long, lists too deep
        raise UserError(f"file {path}, row {number} is not JSON: {error}.") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            wanted = ("celex_id", "title", "text", LABELS)
            columns = [name for name in file.schema_arrow.names if name in wanted]
            batches = file.iter_batches(columns=columns)
            rows = itertools.chain.from_iterable(batch.to_pylist() for batch in batches)
            yield from enumerate(rows, start=1)
    except pa.ArrowException as error:
        raise UserError(f"file {path} is not a readable parquet file: {error}.") from error
