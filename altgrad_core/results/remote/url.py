"""What stands after ``--runs``: a folder, or the URL of one on a store. Free of fsspec.

Runs are made in folders of this machine, whatever the URL: what is made here, and copies of what is read, lie in the
cache, in a folder for each URL.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from altgrad_core._files import default_cache
from altgrad_core.errors import UserError

_URL = re.compile(r"((?:[A-Za-z][A-Za-z0-9+.-]*::)*[A-Za-z][A-Za-z0-9+.-]+):/+(.*)", re.DOTALL)
"""One slash is enough: a ``Path`` of a URL has no more. A chain, ``simplecache::s3://…``, is a URL, too."""
_FOLDER = ("file", "local")
"""fsspec's two names of this machine's own file system."""


_MAY_LACK_HOST = ("hdfs", "arrow_hdfs", "viewfs")


@dataclass(frozen=True)
class Place:
    """Where runs are: their folder here, and the URL that it is sent to; empty where the folder is all."""

    runs: Path
    store: str = ""


def place_of(runs: str | Path) -> Place:
    """The place that a user has named. Raises ``UserError`` as :func:`url_of`."""
    url = url_of(runs)
    return Place(here(url) / "staging", url) if url else Place(folder_of(runs))


def folder_of(place: str | Path) -> Path:
    """The folder that is no store: a path, or ``file:///path``."""
    found = _URL.fullmatch(str(place))
    return Path("/", found[2]) if found and found[1].lower() in _FOLDER else Path(place)


def url_of(place: str | Path) -> str:
    """The URL of a store; empty for a folder.

    Raises ``UserError`` for a URL that holds a secret, or may: it would stand in plans, logs and reports.
    """
    found = _URL.fullmatch(str(place))
    if found is None or found[1].lower() in _FOLDER:
        return ""
    protocol, rest = found[1].lower(), found[2].rstrip("/")
    # hdfs:///path is of the cluster that is set up there; a Path has lost what tells it from a host.
    empty_host = protocol in _MAY_LACK_HOST and f"{place}"[len(protocol) :].startswith(":///")
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if (at and ":" in user) or re.search(r"[?#]|::", f"{protocol} {rest}"):
        raise UserError(
            f"what follows {protocol}:// holds a password, a token or options (?…), or chains protocols (::). It would "
            "stand in plans and logs: leave it out. The store's own environment variables and files say who you are "
            "(AWS_ACCESS_KEY_ID or ~/.aws for s3://), and FSSPEC_… variables or ~/.config/fsspec what else there is."
        )
    if not rest or ".." in rest.split("/"):
        raise UserError(f"{protocol}://{rest} names no folder on a store: s3://bucket/runs would.")
    return f"{protocol}://{'/' * empty_host}{rest}"


def here(url: str) -> Path:
    """The folder of this machine that belongs to a URL."""
    return default_cache() / "remote" / hashlib.sha256(url.encode()).hexdigest()[:16]
