"""Importing this makes ``flock`` fail as on a file system without locks, here and in every copy of the process."""

from __future__ import annotations

import errno
import fcntl
import os


def _refuse(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


fcntl.flock = _refuse
