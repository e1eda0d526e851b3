"""Notices of a suite to a person: a command of theirs, or a web hook. Free of torch.

Where they go is in the environment variable ``ALTGRAD_NOTIFY`` of whoever starts the suite, never in a suite: that is
data, which may come from elsewhere and starts no commands, and the address of a hook is a secret, which belongs in no
``spec.yaml``.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shlex
import shutil
import subprocess
import urllib.request
from dataclasses import asdict
from typing import Any, NoReturn
from urllib.parse import urlsplit

from altgrad_core.errors import UserError
from altgrad_core.interfaces.notice import Notice
from altgrad_plugins.trackers.settings import NotifySettings

VARIABLE = "ALTGRAD_NOTIFY"
_SECONDS = 10.0


def notify(settings: NotifySettings, notice: Notice) -> None:
    """Pass a notice on if ``settings`` ask for its kind.

    Raises ``UserError`` where the variable names nothing to pass it on to; other errors where that fails.
    """
    place = os.environ.get(VARIABLE, "").strip()
    if not place:
        raise UserError(
            f"the environment variable {VARIABLE} is not set. Give it a command, which is called with the text as "
            f"its last argument and the notice as JSON on its standard input, or the https address of a web hook."
        )
    is_hook = "://" in place.split(" ")[0]
    if is_hook:
        _refuse_open(place)
    elif shutil.which(_words(place)[0]) is None:
        raise UserError(f"{VARIABLE} names a command that is not there: {_words(place)[0]}")
    if notice.kind in settings.on:
        (_post if is_hook else _call)(place, notice)


def _words(place: str) -> list[str]:
    try:
        return shlex.split(place) or [place]
    except ValueError as error:
        raise UserError(f"{VARIABLE} is no command line: {error}") from error


def _refuse_open(place: str) -> None:
    """``UserError`` unless nobody on the way can read what is sent."""
    try:
        parts = urlsplit(place)
        host = parts.hostname or ""
        _ = parts.port  # raises where it is none
    except ValueError as error:
        raise UserError(f"{VARIABLE} is no address of a web hook: {error}") from error
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and _is_here(host))):
        raise UserError(
            f"{VARIABLE} must be an https address, or an http one of this machine (127.0.0.1): "
            "what is sent could be read on the way."
        )


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _body(notice: Notice) -> bytes:
    """As JSON. Chat services show ``text``; ``content`` is what Discord calls it."""
    told = asdict(notice) | {"folder": str(notice.folder), "content": notice.text}
    return json.dumps(told).encode()


def _call(place: str, notice: Notice) -> None:
    subprocess.run(
        [*_words(place), notice.text],
        input=_body(notice),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=_SECONDS,
        check=True,
        start_new_session=True,  # a Ctrl-C that ends the suite does not end what tells of it
    )


class _Nowhere(urllib.request.HTTPRedirectHandler):
    """An address that sends us elsewhere is not the one that was given."""

    def redirect_request(self, *_: Any) -> None:
        """None: the answer counts as an error."""


def _post(place: str, notice: Notice) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "altgrad-bench"}
    request = urllib.request.Request(place, _body(notice), headers)
    try:
        with urllib.request.build_opener(_Nowhere()).open(request, timeout=_SECONDS):
            pass
    except OSError as error:
        _without_address(error)


def _without_address(error: OSError) -> NoReturn:
    """Raise what went wrong without the address, which is a secret."""
    code = getattr(error, "code", None)
    reason = f"it answered {code}" if code else type(getattr(error, "reason", error)).__name__
    raise ConnectionError(f"the web hook of {VARIABLE} was not reached: {reason}") from None
