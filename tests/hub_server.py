"""A stand-in for the Hugging Face hub on the loopback: the addresses that its clients ask, over real files.

Repositories are folders, each at one commit. Answered are ``api/…`` (about, tree, paths) and
``…/resolve/REVISION/PATH``, with ranges; a repository can be gated, and a connection can break.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_ABOUT = re.compile(r"/api/(models|datasets)/(.+?)(?:/revision/([^/]+))?$")
_TREE = re.compile(r"/api/(models|datasets)/(.+?)/(tree|paths-info)/([^/]+)(?:/(.*))?$")
_FILE = re.compile(r"/(?:(datasets)/)?(.+?)/resolve/([^/]+)/(.+)$")


@dataclass
class Repository:
    """Files at one commit, called ``main`` as well."""

    folder: Path
    commit: str
    gated: bool = False


@dataclass
class Hub:
    """What the server holds, and what it was asked: ``(method, path, range)``."""

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    """(``models`` or ``datasets``, name) -> files."""
    breaks: dict[str, int] = field(default_factory=dict)
    """file name -> bytes after which the next whole answer breaks off, once"""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A hub that listens while the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        wanted = json.loads(body) if body.startswith("{") else parse_qs(body)
        self._answer(wanted)

    def _answer(self, wanted: dict[str, Any] | None = None) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if found := _TREE.match(path):
            kind, name, what, revision, under = found.groups()
            repository = self._repository(kind, name, revision)
            if repository is not None:
                paths = wanted["paths"] if what == "paths-info" and wanted else None
                self._json(_listing(repository.folder, under or "", paths))
        elif found := _FILE.match(path):
            kind, name, revision, file = found.groups()
            repository = self._repository(kind or "models", name, revision)
            if repository is not None:
                self._file(repository, file)
        elif found := _ABOUT.match(path):
            kind, name, revision = found.groups()
            repository = self._repository(kind, name, revision)
            if repository is not None:
                files = [{"rfilename": e["path"]} for e in _listing(repository.folder, "", None)]
                self._json({"id": name, "sha": repository.commit, "siblings": files})
        else:
            self._error(404, "EntryNotFound", "Entry not found")

    def _repository(self, kind: str, name: str, revision: str | None) -> Repository | None:
        """The repository at that revision; answers the request itself where there is none."""
        found = self.hub.repositories.get((kind, name))
        if found is None:
            self._error(401, "RepoNotFound", "Repository not found")
        elif revision not in (None, "main", found.commit):
            self._error(404, "RevisionNotFound", "Revision not found")
        elif found.gated:
            self._error(403, "GatedRepo", f"Access to {name} is restricted")
        else:
            return found
        return None

    def _file(self, repository: Repository, file: str) -> None:
        place = repository.folder / file
        if not place.is_file():
            self._error(404, "EntryNotFound", "Entry not found", repository.commit)
            return
        content = place.read_bytes()
        begin, status = 0, 200
        if ranged := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            begin, status = int(ranged[1]), 206
            end = int(ranged[2]) + 1 if ranged[2] else len(content)
        else:
            end = len(content)
        part = content[begin:end]
        self.send_response(status)
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(part)))
        if status == 206:
            last = begin + len(part) - 1
            self.send_header("Content-Range", f"bytes {begin}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = self.hub.breaks.pop(place.name, None)
        if stop is None:
            self.wfile.write(part)
        else:
            self.wfile.write(part[:stop])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str, message: str, commit: str | None = None) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        if commit is not None:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", "0")
        self.end_headers()


def _listing(folder: Path, under: str, paths: list[str] | None) -> list[dict[str, Any]]:
    """The files below ``under``, or those of ``paths``, as the hub lists them."""
    entries = []
    for place in sorted(p for p in folder.rglob("*") if p.is_file()):
        path = place.relative_to(folder).as_posix()
        if (paths is None and path.startswith(under)) or (paths is not None and path in paths):
            oid = hashlib.sha1(place.read_bytes()).hexdigest()
            entries.append({"type": "file", "path": path, "size": place.stat().st_size, "oid": oid})
    return entries
