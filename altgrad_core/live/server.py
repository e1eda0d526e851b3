"""The server of ``altgrad-bench dashboard``: this machine alone, and reading alone.

It listens on 127.0.0.1 and answers GET and HEAD. A request must name this server as its host, so
that no web page can reach it under a name of its own (DNS rebinding). It serves the report, its
progress, and the text files of the suite's own runs; no path of a request reaches the file system.
Other users of the same machine can read what it serves.
"""

from __future__ import annotations

import re
import socketserver
import sys
import threading
import webbrowser
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from altgrad_core.analysis.html import render_html
from altgrad_core.errors import UserError
from altgrad_core.live.documents import READABLE, is_readable, run_document
from altgrad_core.live.snapshot import Snapshot

ADDRESS = "127.0.0.1"

_RUN = re.compile(r"/([0-9a-f]{12})/([a-z]+\.[a-z]+)?")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def serve(
    folder: Path,
    *,
    port: int = 0,
    open_browser: bool = True,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve the live report of the suite in ``folder`` until Ctrl-C.

    ``port`` 0 takes a free one; ``announce`` is told the address. Raises ``UserError`` where the
    folder has no plan, or the port cannot be had.
    """
    if not (folder / "plan.json").is_file():
        raise UserError(f"{folder} holds no plan.json: run the suite first, or give its folder.")
    with LiveServer(folder, port) as server:
        try:
            announce(f"dashboard: {server.url} (Ctrl-C stops it)")
            if open_browser:
                threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            announce("dashboard stopped")


class LiveServer(ThreadingHTTPServer):
    """A server of one suite; listens as soon as it is made."""

    daemon_threads = True

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.snapshot = Snapshot(folder)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"Port {port} of {ADDRESS} cannot be used: {reason}. Give another one with --port, "
                "or none for a free one."
            ) from error

    def server_bind(self) -> None:
        """Bind without asking a name server who this machine is."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{ADDRESS}:{self.server_port}/"

    @property
    def hosts(self) -> frozenset[str]:
        """The hosts that a request may name."""
        return frozenset(f"{name}:{self.server_port}" for name in (ADDRESS, "localhost"))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle is no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: LiveServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "altgrad-bench", ""
    timeout = 60

    def do_GET(self) -> None:
        """Answer with headers and body."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer with headers alone."""
        self._answer()

    def do_POST(self) -> None:
        """Refuse: nothing can be changed here."""
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "This server can be read alone.")

    do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST

    def end_headers(self) -> None:
        """Every answer carries the headers that keep it where it belongs."""
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not written to the terminal."""

    def _answer(self) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, f"This server is {self.server.url}")
            return
        path = urlsplit(self.path).path if self.path.startswith("/") else ""
        if path == "/":
            self._send_html(self.server.snapshot.page())
        elif path == "/progress":
            self._send_html(self.server.snapshot.progress())
        elif (match := _RUN.fullmatch(path)) is not None:
            self._send_run(self.server.snapshot.folder / match[1], match[2])
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    def _send_run(self, directory: Path, name: str | None) -> None:
        """The list of a run's files, or one of them."""
        if not is_readable(directory / READABLE[0]):
            self._refuse(HTTPStatus.NOT_FOUND, "The suite has no such run.")
        elif name is None:
            self._send_html(render_html(run_document(directory)))
        elif is_readable(directory / name):
            self._send_file(directory / name)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "The run has no such file.")

    def _send_html(self, text: str) -> None:
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", text.encode())

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True
        self._send(status, "text/plain; charset=utf-8", f"{reason}\n".encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self._head(status, kind, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_file(self, path: Path) -> None:
        """The file as long as it is now: it may grow meanwhile."""
        with path.open("rb") as file:
            length = path.stat().st_size
            self._head(HTTPStatus.OK, "text/plain; charset=utf-8", length)
            if self.command != "HEAD" and _copy(file, self.wfile, length) < length:
                self.close_connection = True  # it has shrunk: the answer ends here

    def _head(self, status: HTTPStatus, kind: str, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()


def _copy(source: BufferedIOBase, target: BufferedIOBase, length: int) -> int:
    """Copy up to ``length`` bytes, and say how many there were."""
    left = length
    while left and (chunk := source.read(min(left, 1 << 16))):
        target.write(chunk)
        left -= len(chunk)
    return length - left
