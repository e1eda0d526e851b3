"""The server of ``altgrad-bench dashboard``: this machine alone, and reading alone.

It listens on 127.0.0.1 and answers GET and HEAD. A request must name this server as its host, and as its
origin if it names one, so that no web page can reach it under a name of its own (DNS rebinding). It
serves the report, its progress, and the text files of the suite's own runs; no other path of a request
reaches the file system. Other users of the same machine can read what it serves.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from altgrad_core.errors import UserError
from altgrad_core.interfaces.blocks import Cell, Paragraph, table
from altgrad_core.report.document import Document, Part
from altgrad_core.report.live.snapshot import Snapshot
from altgrad_core.report.render import render_html
from altgrad_core.results.stored import StoredSuite

ADDRESS = "127.0.0.1"
READABLE = (
    *("spec.yaml", "environment.json", "status.json", "facts.json"),
    *("metrics.jsonl", "log.txt"),
)
"""The files of a run that are shown, all of them text."""

_RUN = re.compile(r"/([0-9a-f]{12})/([a-z]+\.[a-z]+)?")
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Server": "altgrad-bench",
}


def serve(
    folder: Path,
    make: Callable[[StoredSuite], Document],
    *,
    port: int = 0,
    open_browser: bool = True,
    announce: Callable[[str], None] = print,
) -> None:
    """Serve the live report of the suite in ``folder`` until Ctrl-C.

    ``make`` turns the suite as it is into a report, ``port`` 0 takes a free one, ``announce`` is told
    the address. Raises ``UserError`` where the folder has no plan, or the port cannot be had.
    """
    if not (folder / "plan.json").is_file():
        raise UserError(f"{folder} holds no plan.json: run the suite first, or give its folder.")
    server = LiveServer(folder, make, port)

    def started() -> None:
        announce(f"dashboard: {server.url} (Ctrl-C stops it)")
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()

    with contextlib.suppress(KeyboardInterrupt):
        server.run(started)
    announce("dashboard stopped")


class _Server(uvicorn.Server):
    """Says when it answers, and Ctrl-C has become its own to handle."""

    on_start: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.on_start is not None:
            self.on_start()


class LiveServer:
    """A server of one suite, as an ASGI application; listens as soon as it is made."""

    def __init__(
        self, folder: Path, make: Callable[[StoredSuite], Document], port: int = 0
    ) -> None:
        self.snapshot = Snapshot(folder, make)
        try:
            self.socket = socket.create_server((ADDRESS, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise UserError(
                f"Port {port} of {ADDRESS} cannot be used: {reason}. Give another one with --port, "
                "or none for a free one."
            ) from error
        self.port: int = self.socket.getsockname()[1]
        self.url = f"http://{ADDRESS}:{self.port}/"
        self.hosts = frozenset(f"{name}:{self.port}" for name in (ADDRESS, "localhost"))
        config = uvicorn.Config(
            self,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)

    def run(self, started: Callable[[], None] | None = None) -> None:
        """Answer until :meth:`stop` is called, or Ctrl-C comes, which raises ``KeyboardInterrupt``.

        Calls ``started`` as soon as it answers.
        """
        self._server.on_start = started
        with self.socket:
            self._server.run(sockets=[self.socket])

    def stop(self) -> None:
        """Answer no more, from any thread."""
        self._server.should_exit = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        response = self._refused(request)
        if response is None:
            response = await run_in_threadpool(self._answer, scope["path"])
        response.headers.update(_HEADERS)
        await response(scope, receive, send)

    def _refused(self, request: Request) -> Response | None:
        """Why a request gets no answer; None where it gets one."""
        hosts = [host.lower() for host in request.headers.getlist("host")]
        origins = [origin.lower() for origin in request.headers.getlist("origin")]
        if len(hosts) != 1 or hosts[0] not in self.hosts:
            return PlainTextResponse(f"This server is {self.url}\n", 421)
        if any(origin.removeprefix("http://") not in self.hosts for origin in origins):
            return PlainTextResponse("Only this server's own pages may ask.\n", 403)
        if request.method not in ("GET", "HEAD"):
            return PlainTextResponse("This server can be read alone.\n", 405)
        return None

    def _answer(self, path: str) -> Response:
        if path == "/":
            return HTMLResponse(self.snapshot.page())
        if path == "/progress":
            return HTMLResponse(self.snapshot.progress())
        found = _RUN.fullmatch(path)
        directory = self.snapshot.folder / found[1] if found is not None else None
        if found is None or directory is None or not is_readable(directory / READABLE[0]):
            return PlainTextResponse("There is nothing here.\n", 404)
        if found[2] is None:
            return HTMLResponse(render_html(run_document(directory), directory))
        if not is_readable(directory / found[2]):
            return PlainTextResponse("The run has no such file.\n", 404)
        return PlainTextResponse((directory / found[2]).read_bytes())


def run_document(directory: Path) -> Document:
    """The list of a run's readable files."""
    files = [directory / name for name in READABLE if is_readable(directory / name)]
    rows = ({"name": f.name, "path": str(f), "size": f"{f.stat().st_size:,}"} for f in files)
    text = Paragraph("These files are the record of one run, as they are now.")
    listed = table(rows, [("File", lambda r: Cell(r["name"], href=r["path"])), ("Bytes", "size")])
    return Document(f"Run {directory.name}", (text,), (Part("Files", (listed,)),))


def is_readable(file: Path) -> bool:
    """Whether ``file`` is one of ``READABLE``, and itself a file of the run: no link to elsewhere."""
    inside = not file.is_symlink() and not file.parent.is_symlink()
    return file.name in READABLE and inside and file.is_file()
