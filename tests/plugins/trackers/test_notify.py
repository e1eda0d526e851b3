"""Notices of a suite: to a command, to a web hook, to nobody by mistake; and no address ever shown."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.interfaces.notice import Notice
from altgrad_core.testing.trackers import check_tracker
from altgrad_plugins.trackers.notify import VARIABLE, notify
from altgrad_plugins.trackers.notify_tracker import NotifyTracker
from altgrad_plugins.trackers.settings import NotifySettings

DEFAULT = NotifySettings()


def notice(kind: Any = "run_failed") -> Notice:
    text = "tiny: e5m2 seed 0 ended without a result: oom"
    return Notice(kind, "tiny", text, Path("/runs/tiny"), "0123456789ab", "e5m2 seed 0", "oom")


class Hook(BaseHTTPRequestHandler):
    bodies: list[dict[str, Any]]
    answer = 200

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        type(self).bodies.append(json.loads(self.rfile.read(length)))
        self.send_response(self.answer)
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hook]]:
    kind = type("OneHook", (Hook,), {"bodies": []})
    with HTTPServer(("127.0.0.1", 0), kind) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{server.server_port}/services/SECRET")
        yield kind
        server.shutdown()
        thread.join()


def test_conformance() -> None:
    check_tracker(NotifyTracker(DEFAULT))


def test_a_web_hook_gets_the_notice(hook: type[Hook]) -> None:
    notify(DEFAULT, notice())
    (body,) = hook.bodies
    assert body["text"] == body["content"] == notice().text
    assert (body["kind"], body["run"], body["status"]) == ("run_failed", "0123456789ab", "oom")
    assert body["folder"] == "/runs/tiny"


def test_only_what_is_asked_for_is_told(hook: type[Hook]) -> None:
    notify(DEFAULT, notice("suite_begins"))
    notify(NotifySettings(on=("suite_ended",)), notice())
    assert hook.bodies == []


@pytest.mark.parametrize("answer", [302, 403, 500])
def test_a_hook_that_refuses_is_an_error_without_its_address(hook: type[Hook], answer: int) -> None:
    hook.answer = answer
    with pytest.raises(ConnectionError, match=f"it answered {answer}") as error:
        notify(DEFAULT, notice())
    assert "SECRET" not in str(error.value)
    assert len(hook.bodies) == 1


def test_a_command_gets_the_text_and_the_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "tell it.py"
    script.write_text(
        "import pathlib, sys\npathlib.Path(sys.argv[1]).write_text(sys.argv[-1] + chr(10) + sys.stdin.read())"
    )
    monkeypatch.setenv(VARIABLE, f"{sys.executable} '{script}' '{tmp_path / 'told'}'")
    text = "$(touch x); `touch y` -- 'z'"
    notify(DEFAULT, Notice("suite_ended", "tiny", text, tmp_path, counts={"ok": 3}))
    said, body = (tmp_path / "told").read_text().split("\n", 1)
    assert said == text
    assert json.loads(body)["counts"] == {"ok": 3}


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("", "is not set"),
        ("no-such-command --at all", "not there: no-such-command"),
        ("say 'it", "no command line"),
        ("http://example.com/hook", "must be an https address"),
        ("ftp://127.0.0.1/hook", "must be an https address"),
        ("http://127.0.0.1.example.com/hook", "must be an https address"),
        ("https://", "must be an https address"),
        ("https://host:port/", "no address of a web hook"),
    ],
)
def test_a_place_that_cannot_be_told_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, place: str, why: str
) -> None:
    monkeypatch.setenv(VARIABLE, place)
    with pytest.raises(UserError, match=why):
        notify(DEFAULT, notice("suite_begins"))
