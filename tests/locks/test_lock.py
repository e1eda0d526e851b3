"""The lock of a run: one holder, gone with it, and one sentence where there can be none."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from altgrad_core.errors import UserError
from altgrad_core.locks.lock import LockRefused, RunHeld, is_running, run_lock
from altgrad_core.results.run_directory import RunDirectory


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "abc")
    made.create("id: abc\n")
    return made


def test_whether_it_runs_is_known_without_the_right_to_write(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = os.open

    def read_only(path: Path, flags: int, *rest: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, flags, *rest)

    assert not is_running(directory.lock)
    with run_lock(directory.lock), monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        assert is_running(directory.lock)
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        assert not is_running(directory.lock)


def _hold(path: Path, ready: object, leave: object) -> None:
    with run_lock(RunDirectory(path).lock):
        ready.set()  # type: ignore[attr-defined]
        leave.wait(30)  # type: ignore[attr-defined]


def test_a_second_process_is_refused_while_the_first_lives(directory: RunDirectory) -> None:
    context = multiprocessing.get_context("spawn")
    ready, leave = context.Event(), context.Event()
    child = context.Process(target=_hold, args=(directory.path, ready, leave))
    child.start()
    assert ready.wait(30)
    assert is_running(directory.lock)
    with pytest.raises(UserError, match="another process"), run_lock(directory.lock):
        pytest.fail("two processes hold one run")
    leave.set()
    child.join(30)
    assert not is_running(directory.lock)


@pytest.mark.parametrize("end", ["leaves", "killed"])
def test_a_forked_copy_of_the_holder_does_not_hold_it(directory: RunDirectory, end: str) -> None:
    """A library's daemon that outlives its run: the next one need not wait for it."""
    told, say = os.pipe()
    holder = os.fork()
    if not holder:
        with run_lock(directory.lock):
            if not (daemon := os.fork()):
                os.setsid()
                time.sleep(60)
                os._exit(0)
            os.write(say, str(daemon).encode())
            time.sleep(60 if end == "killed" else 0.0)
        os._exit(0)
    daemon = int(os.read(told, 20))
    if end == "killed":
        os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)
    try:
        assert not is_running(directory.lock)
        with run_lock(directory.lock):
            assert is_running(directory.lock)
    finally:
        os.kill(daemon, signal.SIGKILL)


def test_a_folder_that_is_gone_or_refuses_is_one_sentence(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(directory.path)
    with pytest.raises(LockRefused, match="abc is gone"), run_lock(directory.lock):
        pytest.fail("it was not locked")
    assert not is_running(directory.lock)

    def read_only(*_: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(LockRefused, match="Read-only file system"), run_lock(directory.lock):
        pytest.fail("it was not locked")


def test_a_lock_of_a_folder_that_was_replaced_meanwhile_is_none(directory: RunDirectory) -> None:
    with run_lock(directory.lock):
        shutil.rmtree(directory.path)
        directory.create("id: abc\n")
        assert not is_running(directory.lock)
        with run_lock(directory.lock), pytest.raises(RunHeld), run_lock(directory.lock):
            pytest.fail("two hold it")
