"""A headless Chromium driven over its DevTools pipe: what the page tests need, and no more.

As a script it takes a screenshot of a page, a report's for instance::

    python tests/chromium.py runs/quickstart/report/report.html out.png --width 1280 --height 2400
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--force-color-profile=srgb",
    "--remote-debugging-pipe",
)

_CONNECT = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """The program, if this machine has one."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Chromium:
    """A browser process: commands go in on its descriptor 3, answers and events come out on 4."""

    def __init__(self, program: str, profile: Path) -> None:
        command_out, self._commands = os.pipe()
        self._answers, answer_in = os.pipe()
        ends = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (command_out, answer_in)]
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CONNECT, *map(str, ends), *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=ends,
            start_new_session=True,
        )
        for fd in (command_out, answer_in, *ends):
            os.close(fd)
        self._buffer = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events on the way are kept."""
        self._number += 1
        body = {"id": self._number, "method": method, "params": params}
        if session is not None:
            body["sessionId"] = session
        os.write(self._commands, json.dumps(body).encode() + b"\0")
        while True:
            message = self._next(30.0)
            if message.get("id") == self._number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def settle(self, seconds: float) -> None:
        """Take in what arrives within that time."""
        end = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while (left := end - time.monotonic()) > 0:
                self.events.append(self._next(left))

    def close(self) -> None:
        with contextlib.suppress(OSError, RuntimeError, TimeoutError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for fd in (self._commands, self._answers):
            os.close(fd)

    def _next(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            if not ready:
                raise TimeoutError("chromium does not answer")
            chunk = os.read(self._answers, 1 << 20)
            if not chunk:
                raise OSError("chromium is gone")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message


class Tab:
    """One page. Its console, its errors and its requests are watched from the start."""

    def __init__(self, browser: Chromium) -> None:
        self.browser = browser
        self.target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        attached = browser.call("Target.attachToTarget", targetId=self.target, flatten=True)
        self.session: str = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def close(self) -> None:
        """Close it: what it shows costs no more."""
        self.browser.call("Target.closeTarget", targetId=self.target)

    def emulate(self, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """A window of that size, a phone's if it is narrow, in light or dark mode."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Go there, and wait until the page is loaded."""
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 60.0) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.run(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"never true: {expression}")
            self.browser.settle(0.05)

    def press(self, key: str, code: int = 0, text: str = "") -> None:
        """Press and release a key, as the keyboard does."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **named)
        self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def move(self, x: float, y: float) -> None:
        """Move the mouse there."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path, height: int | None = None) -> None:
        """The page as a PNG: the whole of it, or its upper part of that height."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        tall = min(size["height"], height or size["height"])
        clip = {"x": 0, "y": 0, "width": size["width"], "height": tall, "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def events(self, method: str) -> list[dict[str, Any]]:
        """What has happened so far, by the name of the event."""
        own = [e for e in self.browser.events if e.get("sessionId") == self.session]
        return [event["params"] for event in own if event.get("method") == method]

    def complaints(self) -> list[str]:
        """Errors and warnings: thrown, written to the console, or the browser's own."""
        self.browser.settle(0.2)
        found = [json.dumps(e["exceptionDetails"]) for e in self.events("Runtime.exceptionThrown")]
        for event in self.events("Runtime.consoleAPICalled"):
            found.append(json.dumps(event["args"]))
        found += [e["entry"]["text"] for e in self.events("Log.entryAdded")]
        return found

    def requests(self) -> list[str]:
        """The addresses that were asked for."""
        self.browser.settle(0.2)
        return [e["request"]["url"] for e in self.events("Network.requestWillBeSent")]


@contextlib.contextmanager
def browser(program: str) -> Iterator[Chromium]:
    """A browser with an empty profile, gone at the end."""
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        running = Chromium(program, Path(profile))
        try:
            yield running
        finally:
            running.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Take a screenshot of a page.")
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, help="of the page's upper part [default: all of it]")
    parser.add_argument("--dark", action="store_true")
    given = parser.parse_args()
    program = find_chromium()
    if program is None:
        sys.exit("there is no chromium on this machine")
    with browser(program) as running:
        tab = Tab(running)
        tab.emulate(width=given.width, dark=given.dark)
        tab.open(given.page.resolve().as_uri())
        tab.wait("document.documentElement.dataset.drawn === 'yes'", 60)
        tab.screenshot(given.out, given.height)


if __name__ == "__main__":
    main()
