"""The lock of a file in the cache, also where there are none."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from pathlib import Path

import pytest

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.cache import atomic_path, is_whole, only_writer


def _write(path: Path, log: list[str]) -> None:
    with only_writer(path, log.append), atomic_path(path) as temporary:
        temporary.write_text("whole")
    assert is_whole(path, log.append)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_without_locks_nobody_waits_and_no_living_writer_loses_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    path, log = tmp_path / "file.npz", list[str]()
    old, new = (tmp_path / f".file.npz.{name}" for name in ("old", "new"))
    for left in (old, new):
        left.touch()
    then = time.time() - 2 * 86400
    os.utime(old, (then, then))
    _write(path, log)
    if number != errno.ENOSYS:  # for which filelock has an answer of its own
        assert "knows no locks" in log[0]
        assert not old.exists()
        assert new.exists()


def test_with_a_lock_all_that_killed_writers_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".file.npz.new"
    left.touch()
    log: list[str] = []
    _write(tmp_path / "file.npz", log)
    assert not left.exists()
    assert log == []


def test_a_folder_that_refuses_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.raises(UserError, match=r"Read-only file system.*ALTGRAD_CACHE"),
        only_writer(tmp_path / "file.npz", print),
    ):
        pytest.fail("it was not locked")
