"""A stand-in of W&B's server on loopback: enough of it for wandb's own client to log and to read.

It dispatches on the name of the GraphQL operation. Runs are kept as the real server does it: config
and summary as JSON texts, the history as rows by step. What it returns is strict JSON, with NaN and
the infinities as strings, as W&B returns them; histories can be parquet files, as they are of
finished runs there, in which they are numbers.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "0123456789" * 4
ENTITY = "team"
_OPERATION = re.compile(r"\b(?:query|mutation)\s+(\w+)")


@dataclass
class Run:
    """A run as the server keeps it."""

    name: str
    config: str = "{}"
    summary: str = "{}"
    state: str = "running"
    group: str | None = None
    display_name: str | None = None
    tags: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    parquet: bool = False
    """Whether its history is given out as a parquet file."""

    def set_config(self, config: dict[str, Any]) -> None:
        """Keep a config in the server's form."""
        self.config = json.dumps({key: {"value": value} for key, value in config.items()})

    def read_config(self) -> dict[str, Any]:
        """The config, out of the server's form."""
        return {key: held["value"] for key, held in json.loads(self.config).items()}


@dataclass
class WandbServer:
    """Projects by name, and what was asked of the server."""

    url: str = ""
    projects: dict[str, dict[str, Run]] = field(default_factory=dict)
    page: int = 3
    """Runs that are given out at once, whatever is asked for."""
    asked: list[str] = field(default_factory=list)
    """Names of the operations that were asked for."""
    broken: set[str] = field(default_factory=set)
    """Names of operations that end in an error."""
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def answer(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        """The data of an operation. ``KeyError`` for one that is not known here."""
        self.asked.append(operation)
        if operation in self.broken:
            raise ValueError(f"{operation} is out of order")
        answers = {
            "Viewer": self.viewer,
            "GetDefaultEntity": self.viewer,
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "OrganizationCoreWeaveOrganizationID": lambda _: {"entity": None},
            "RunResumeStatus": self.resume_status,
            "UpsertBucket": self.upsert,
            "NotifyScriptableRunAlert": self.alert,
            "CreateRunFiles": self.create_files,
            "Runs": self.runs,
            "RunHistoryKeys": self.history_keys,
            "RunParquetHistory": self.parquet_history,
            "HistoryPage": self.history_page,
        }
        return answers[operation](given)

    def viewer(self, given: dict[str, Any]) -> dict[str, Any]:
        mail = {"username": "u", "email": "u@example.org"}
        return {
            "viewer": {"id": "U", "entity": ENTITY, "flags": "{}", "teams": {"edges": []}} | mail
        }

    def alert(self, given: dict[str, Any]) -> dict[str, Any]:
        self.alerts.append(given)
        return {"notifyScriptableRunAlert": {"success": True}}

    def resume_status(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.projects.get(given["project"], {}).get(given["name"])
        owner = {"id": "E", "name": given["entity"] or ENTITY}
        return {
            "model": {"id": "P", "name": given["project"], "entity": owner, "bucket": _tail(run)}
        }

    def upsert(self, given: dict[str, Any]) -> dict[str, Any]:
        runs = self.projects.setdefault(given["project"], {})
        name = given.get("name") or str(given["id"]).removeprefix("run-")
        new = name not in runs
        run = runs.setdefault(name, Run(name))
        for key, attribute in (
            *(("config", "config"), ("groupName", "group"), ("displayName", "display_name")),
            *(("tags", "tags"), ("state", "state"), ("summaryMetrics", "summary")),
        ):
            if given.get(key) is not None:
                setattr(run, attribute, given[key])
        if not new:
            run.state = "running"
        owner = {"id": "E", "name": given.get("entity") or ENTITY}
        bucket = {
            **{"id": f"run-{name}", "name": name, "displayName": run.display_name},
            **{"description": None, "config": run.config, "sweepName": None},
            "project": {"id": "P", "name": given["project"], "entity": owner},
            "historyLineCount": len(run.rows),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": new}}

    def create_files(self, given: dict[str, Any]) -> dict[str, Any]:
        files = [
            {"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in given["files"]
        ]
        return {"createRunFiles": {"runID": "R", "uploadHeaders": [], "files": files}}

    def runs(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["entity"] != ENTITY or given["project"] not in self.projects:
            return {"project": None}
        runs = list(self.projects[given["project"]].values())
        start = int(given["cursor"] or 0)
        stop = start + self.page
        edges = [
            {"node": _node(run), "cursor": str(start + place)}
            for place, run in enumerate(runs[start:stop], 1)
        ]
        page = {"endCursor": str(stop), "hasNextPage": stop < len(runs)}
        found = {"edges": edges, "pageInfo": page}
        return {
            "project": {"internalId": "1", "runCount": len(runs), "readOnly": False, "runs": found}
        }

    def run(self, given: dict[str, Any]) -> Run:
        name = given.get("name") or given.get("run") or given["runName"]
        return self.projects[given["project"]][name]

    def history_keys(self, given: dict[str, Any]) -> dict[str, Any]:
        last = max((row["_step"] for row in self.run(given).rows), default=-1)
        return {"project": {"run": {"historyKeys": {"lastStep": last, "sets": [], "keys": {}}}}}

    def parquet_history(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.run(given)
        urls = [f"{self.url}/parquet/{given['project']}/{run.name}"] if run.parquet else []
        live = [] if run.parquet else [{"_step": row["_step"]} for row in run.rows[:1]]
        return {"project": {"run": {"parquetHistory": {"parquetUrls": urls, "liveData": live}}}}

    def history_page(self, given: dict[str, Any]) -> dict[str, Any]:
        inside = range(given["minStep"], given["maxStep"])
        rows = [json.dumps(_strict(r)) for r in self.run(given).rows if r["_step"] in inside]
        return {"project": {"run": {"history": rows}}}

    def stream(self, project: str, name: str, body: dict[str, Any]) -> None:
        """Take what a client that logs sends in pieces."""
        run = self.projects[project][name]
        for file, part in (body.get("files") or {}).items():
            if file == "wandb-history.jsonl":
                run.rows += [json.loads(line) for line in part["content"]]
            elif file == "wandb-summary.json":
                run.summary = part["content"][-1]
        if body.get("complete"):
            run.state = "finished" if body.get("exitcode") == 0 else "failed"

    def parquet(self, project: str, name: str) -> bytes:
        """The history as a parquet file."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = self.projects[project][name].rows
        names = dict.fromkeys(key for row in rows for key in row)
        table = pa.table({key: [row.get(key) for row in rows] for key in names})
        file = io.BytesIO()
        pq.write_table(table, file)
        return file.getvalue()


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server on loopback for as long as the block lasts."""
    server = WandbServer()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"wandb": server}))
    http.daemon_threads = True
    server.url = f"http://127.0.0.1:{http.server_port}"
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wandb: WandbServer

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            """The client has gone."""

    def do_GET(self) -> None:
        _, kind, *place = self.path.split("/")
        self._send(
            self.wandb.parquet(*place) if kind == "parquet" else b"", "application/x-parquet"
        )

    def do_PUT(self) -> None:
        self._body()
        self._send(b"{}")

    def do_POST(self) -> None:
        body = json.loads(self._body() or b"{}")
        if self.path.endswith("/file_stream"):
            _, _, _, project, name, _ = self.path.split("/")
            self.wandb.stream(project, name, body)
            self._send(b"{}")
        elif self._key() == KEY:
            self._send(json.dumps(self._graphql(body), allow_nan=False).encode())
        else:
            self._send(b'{"errors":[{"message":"user is not logged in"}]}', code=401)

    def _graphql(self, body: dict[str, Any]) -> dict[str, Any]:
        named = _OPERATION.search(body["query"])
        operation = body.get("operationName") or (named[1] if named else "")
        try:
            return {"data": self.wandb.answer(operation, body.get("variables") or {})}
        except (KeyError, ValueError) as error:
            return {"data": None, "errors": [{"message": f"{operation}: {error}"}]}

    def _key(self) -> str:
        _, _, credentials = self.headers.get("Authorization", "").partition(" ")
        return b64decode(credentials).decode().partition(":")[2]

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, body: bytes, kind: str = "application/json", code: int = 200) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _strict(value: Any) -> Any:
    """JSON data without what JSON lacks."""
    if isinstance(value, dict):
        return {key: _strict(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_strict(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    return value


def _node(run: Run) -> dict[str, Any]:
    """A run as the query ``Runs`` wants it."""
    return {
        **{"id": f"run-{run.name}", "name": run.name, "displayName": run.display_name},
        **{"config": run.config, "summaryMetrics": json.dumps(_strict(json.loads(run.summary)))},
        **{"state": run.state, "group": run.group, "tags": run.tags, "projectId": "1"},
        **dict.fromkeys(("sweepName", "jobType", "commit", "description", "notes", "historyKeys")),
        **{"readOnly": False, "systemMetrics": "{}", "historyLineCount": len(run.rows)},
        **{"createdAt": "2026-01-01T00:00:00", "heartbeatAt": "2026-01-01T00:00:00"},
        "user": {"name": "u", "username": "u"},
    }


def _tail(run: Run | None) -> dict[str, Any] | None:
    """A run as a client that resumes it wants it; ``t`` is how it knows that the run began."""
    if run is None:
        return None
    return {
        **{"id": f"run-{run.name}", "name": run.name, "displayName": run.display_name},
        **{"config": run.config, "summaryMetrics": json.dumps(_strict(json.loads(run.summary)))},
        **{"logLineCount": 0, "eventsLineCount": 0, "historyLineCount": len(run.rows)},
        "historyTail": json.dumps([json.dumps(_strict(row)) for row in run.rows[-1:]]),
        **{"eventsTail": "[]", "tags": run.tags, "notes": None, "wandbConfig": '{"t": 1}'},
    }
