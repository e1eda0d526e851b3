"""A store for tests, ``shelf://…``: the folder ``$SHELF``, seen by fsspec without rename, locks and whole writes.

Its faults stand in ``$SHELF.json``, and may change while it is used: ``fail_every`` (the nth call of a process fails),
``gone`` (all do), ``slow`` (seconds), ``hang`` (as well, or until the faults change), ``only`` (a part of the names of
the files that they are for).
"""

from __future__ import annotations

import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

calls: list[str] = []
_count = itertools.count(1)


class Shelf(AbstractFileSystem):  # type: ignore[misc]
    protocol = "shelf"

    def _at(self, what: str, path: str) -> Path:
        calls.append(f"{what} {path}")
        faults = self._faults()
        if faults.get("only", "") in path:
            time.sleep(faults.get("slow", 0.0))
            awakes = time.monotonic() + faults.get("hang", 0.0)
            while time.monotonic() < awakes and self._faults() == faults:
                time.sleep(0.01)
            if faults.get("gone") or next(_count) % faults.get("fail_every", 1 << 60) == 0:
                raise OSError("the shelf has fallen down")
        return Path(os.environ["SHELF"], self._strip_protocol(path))

    def _faults(self) -> dict[str, Any]:
        try:
            return dict(json.loads(Path(f"{os.environ['SHELF']}.json").read_text()))
        except (FileNotFoundError, ValueError):
            return {}

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        place = self._at("ls", path)
        if not place.exists():
            raise FileNotFoundError(path)
        found = []
        for one in sorted(place.iterdir()) if place.is_dir() else [place]:
            try:
                info = one.stat()
            except FileNotFoundError:
                continue
            name = str(one.relative_to(os.environ["SHELF"]))
            kind = "directory" if one.is_dir() else "file"
            found.append({"name": name, "size": info.st_size, "type": kind, "mtime": info.st_mtime})
        return found if detail else [one["name"] for one in found]

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        return self._at("cat", path).read_bytes()

    def get_file(self, rpath: str, lpath: str, *_: Any, **__: Any) -> None:
        Path(lpath).write_bytes(self._at("get", rpath).read_bytes())

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        place = self._at("pipe", path)
        with place.open("wb") as file:  # not whole, and not at once
            for start in range(0, len(value), 1 << 12):
                file.write(value[start : start + (1 << 12)])
                file.flush()

    def put_file(self, lpath: str, rpath: str, *_: Any, **__: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        self._at("makedirs", path).mkdir(parents=True, exist_ok=exist_ok)

    def rm_file(self, path: str) -> None:
        self._at("rm", path).unlink()


fsspec.register_implementation("shelf", Shelf, clobber=True)
