"""The server: this machine alone, reading alone, and nothing but the suite's own text files."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.report.live.server import LiveServer, serve
from altgrad_core.report.live.snapshot import Snapshot


def nothing(suite: object) -> Any:
    raise AssertionError("no report is made")


@pytest.fixture
def server(under_way: Any, sample_document: ModuleType) -> Iterator[LiveServer]:
    running = LiveServer(under_way.folder, lambda suite: sample_document.sample())
    thread = threading.Thread(target=running.run)
    thread.start()
    yield running
    running.stop()
    thread.join()


def ask(
    server: LiveServer, path: str, *, method: str = "GET", host: str | None = None
) -> tuple[int, str, http.client.HTTPMessage]:
    """Send the path exactly as given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", f"127.0.0.1:{server.port}" if host is None else host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, answer.headers


def test_it_serves_the_page_and_the_progress(server: LiveServer) -> None:
    status, body, headers = ask(server, "/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "<title>Sample</title>" in body
    assert "1 of 3 runs have ended" in body
    status, body, _ = ask(server, "/progress")
    assert status == 200
    assert body.startswith('<div class="progress" data-version="')
    assert "<title>" not in body


def test_it_listens_on_this_machine_alone(server: LiveServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.port}/"


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_its_own_names_are_answered(server: LiveServer, name: str) -> None:
    assert ask(server, "/progress", host=f"{name}:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:{port}", "127.0.0.1", "localhost", "127.0.0.1:1", ""),
        *("localhost.evil.example:{port}", "127.0.0.1:{port}.evil.example", "0.0.0.0:{port}"),
        *("[::1]:{port}", "user@127.0.0.1:{port}"),
    ],
)
def test_any_other_host_is_refused(server: LiveServer, host: str) -> None:
    status, body, _ = ask(server, "/", host=host.format(port=server.port))
    assert status == 421
    assert "Sample" not in body


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}"])
def test_another_origin_is_refused(server: LiveServer, origin: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for given, status in ((origin, 403), ("http://127.0.0.1:{port}", 200)):
        headers = {"Origin": given.format(port=server.port)}
        connection.request("GET", "/progress", headers=headers)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == status
    connection.close()


def test_two_hosts_or_none_are_refused(server: LiveServer) -> None:
    own = f"Host: 127.0.0.1:{server.port}\r\n"
    for hosts in ("", own + "Host: evil.example\r\n", own + own):
        with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
            raw.sendall(f"GET / HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n".encode())
            assert raw.recv(100).split()[1] in (b"400", b"421")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_nothing_but_reading(server: LiveServer, method: str) -> None:
    assert ask(server, "/", method=method)[0] == 405


def test_head_is_get_without_the_body(server: LiveServer, under_way: Any) -> None:
    for path in ("/", "/progress", f"/{under_way.id}/spec.yaml"):
        status, body, headers = ask(server, path, method="HEAD")
        assert (status, body) == (200, "")
        assert int(headers["Content-Length"]) == len(ask(server, path)[1].encode())


def test_every_answer_keeps_others_out(server: LiveServer, under_way: Any) -> None:
    for path in ("/", "/progress", "/nothing", f"/{under_way.id}/log.txt", f"/{under_way.id}/"):
        headers = ask(server, path)[2]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
        assert "Python" not in headers["Server"]


def test_a_run_lists_its_text_files_and_gives_them(server: LiveServer, under_way: Any) -> None:
    (under_way.run / "log.txt").write_text("<b>printed</b>\n")
    (under_way.run / "predictions.npz").write_bytes(b"secret")
    status, body, _ = ask(server, f"/{under_way.id}/")
    assert status == 200
    links = [link for link in re.findall('href="([^"#]*)"', body) if link]
    assert links == ["spec.yaml", "status.json", "metrics.jsonl", "log.txt"]
    for name in links:
        status, text, headers = ask(server, f"/{under_way.id}/{name}")
        assert (status, text) == (200, (under_way.run / name).read_text())
        assert headers["Content-Type"] == "text/plain; charset=utf-8"
    for name in ("predictions.npz", "lock", "facts.json", "checkpoint/state.pt", "other.txt"):
        assert ask(server, f"/{under_way.id}/{name}")[0] == 404


def test_no_path_leads_out_of_the_suite(server: LiveServer, under_way: Any) -> None:
    outside = under_way.folder.parent / "status.json"
    outside.write_text("secret")
    (under_way.folder / "ffffffffffff").mkdir()  # no run
    (under_way.folder / "ffffffffffff" / "status.json").write_text("secret")
    run = under_way.id
    paths = [
        *(
            "/plan.json",
            "//etc/passwd",
            "/../status.json",
            "/..%2fstatus.json",
            "/%2e%2e/status.json",
        ),
        *(f"/{run}/../../status.json", f"/{run}/..%2f..%2fstatus.json", f"/{run}/%2e%2e/plan.json"),
        *(f"/{run}//status.json", f"/{run}/status.json/", f"/{run}/./status.json", f"/{run}"),
        *(f"/{run}\\status.json", f"/{run}/status.json%00", "/ffffffffffff/status.json"),
        *(f"http://127.0.0.1/{run}/status.json", f"x{run}/status.json", "*", "/aaaaaaaaaaaa/"),
    ]
    for path in paths:
        status, body, _ = ask(server, path)
        assert status == 404, path
        assert "secret" not in body


def test_links_to_elsewhere_are_not_followed(server: LiveServer, under_way: Any) -> None:
    outside = under_way.folder.parent / "outside"
    outside.mkdir()
    for name in ("spec.yaml", "log.txt"):
        (outside / name).write_text("secret")
    (under_way.run / "log.txt").symlink_to(outside / "log.txt")
    (under_way.folder / "eeeeeeeeeeee").symlink_to(outside)
    for path in (f"/{under_way.id}/log.txt", "/eeeeeeeeeeee/", "/eeeeeeeeeeee/log.txt"):
        status, body, _ = ask(server, path)
        assert (status, "secret" in body) == (404, False), path


def test_readers_at_the_same_time_share_one_report(
    server: LiveServer, under_way: Any, sample_document: ModuleType
) -> None:
    made = []

    def make(suite: object) -> Any:
        made.append(suite)
        return sample_document.sample()

    server.snapshot = Snapshot(under_way.folder, make)
    answers: list[int] = []
    readers = [
        threading.Thread(target=lambda: answers.append(ask(server, "/")[0])) for _ in range(6)
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert answers == [200] * 6
    assert len(made) == 1


def test_a_port_that_is_taken_or_none_is_a_users_error(server: LiveServer, under_way: Any) -> None:
    with pytest.raises(UserError, match=f"Port {server.port} .* --port"):
        serve(under_way.folder, nothing, port=server.port, open_browser=False)
    with pytest.raises(UserError, match="Port 70000"):
        serve(under_way.folder, nothing, port=70000, open_browser=False)


def test_a_folder_without_a_plan_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no plan\.json"):
        serve(tmp_path, nothing)


def test_it_says_where_it_is_and_stops_with_ctrl_c(under_way: Any) -> None:
    code = (
        "import signal, sys; from pathlib import Path; from functools import partial\n"
        "from altgrad_core.report.live.server import serve\n"
        # ignored where the tests run in the background of a shell
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "serve(Path(sys.argv[1]), print, open_browser=False, announce=partial(print, flush=True))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(under_way.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"dashboard: http://127\.0\.0\.1:(\d+)/ \(Ctrl-C stops it\)\n", line)
    assert found is not None, line
    with socket.create_connection(("127.0.0.1", int(found[1])), 10):
        process.send_signal(signal.SIGINT)  # with a connection open
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "dashboard stopped\n", "")
