"""Locks where there is no ``flock``, or where it may not reach: one holder, the dead told from the living."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from waiting import until

from altgrad_core.errors import UserError
from altgrad_core.locks import lease, lock, mounts
from altgrad_core.locks.lock import RunHeld, file_lock, is_running, run_lock
from altgrad_core.results.run_directory import RunDirectory

ELSEWHERE = "0123456789ab"


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "abc")
    made.create("id: abc\n")
    return made


def _refuse(*_: object, number: int = errno.ENOLCK) -> None:
    raise OSError(number, os.strerror(number))


@pytest.fixture
def without_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", _refuse)


def held(directory: RunDirectory) -> list[Path]:
    return sorted(directory.path.glob("lock.held-*"))


def written_by(directory: RunDirectory, machine: str, pid: int, began: int, age: float) -> Path:
    """The lease of someone else."""
    path = directory.path / f"lock.held-{machine}-{pid}-{began}-alone-0badcafe"
    path.touch()
    then = time.time() - age
    os.utime(path, (then, then))
    return path


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL])
def test_where_there_is_no_flock_a_run_is_held_once(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", partial(_refuse, number=number))
    assert not is_running(directory.lock)
    with run_lock(directory.lock):
        assert is_running(directory.lock)
        with pytest.raises(RunHeld), run_lock(directory.lock):
            pytest.fail("two hold one run")
        assert len(held(directory)) == 1
    assert not is_running(directory.lock)
    assert held(directory) == []


def test_shared_holders_bear_each_other_and_no_one_alone(
    tmp_path: Path, without_flock: None
) -> None:
    path = tmp_path / "lock"
    with (
        file_lock(path, seconds=0, shared=True) as one,
        file_lock(path, seconds=0, shared=True) as two,
    ):
        assert one
        assert two
        with file_lock(path, seconds=0) as alone:
            assert not alone
    with file_lock(path, seconds=0) as alone, file_lock(path, seconds=0, shared=True) as shared:
        assert alone
        assert not shared


def _count(path: Path, times: int) -> None:
    """Add to a number in a file, which only one process at a time can do."""
    fcntl.flock = _refuse
    for _ in range(times):
        with file_lock(path / "lock", seconds=60) as had:
            assert had
            number = json.loads((path / "number").read_text())
            time.sleep(0.002)
            (path / "number").write_text(json.dumps(number + 1))


def test_processes_that_contend_hold_it_one_after_another(tmp_path: Path) -> None:
    (tmp_path / "number").write_text("0")
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_count, args=(tmp_path, 15)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
        assert child.exitcode == 0
    assert (tmp_path / "number").read_text() == "60"
    assert not list(tmp_path.glob("lock.held-*"))


def test_a_holder_that_was_killed_holds_no_longer(
    directory: RunDirectory, without_flock: None
) -> None:
    told, say = os.pipe()
    if not (child := os.fork()):
        with run_lock(directory.lock):
            os.write(say, b".")
            time.sleep(60)
        os._exit(0)
    os.read(told, 1)
    with pytest.raises(RunHeld), run_lock(directory.lock):
        pytest.fail("two hold one run")
    os.kill(child, signal.SIGKILL)
    # It is not waited for before: a process whose end nobody has asked for yet is no holder.
    until(lambda: not is_running(directory.lock))
    assert len(held(directory)) == 1
    with run_lock(directory.lock):
        assert len(held(directory)) == 1
    os.waitpid(child, 0)


def test_a_copy_of_the_holder_neither_holds_it_nor_gives_it_back(
    directory: RunDirectory, without_flock: None
) -> None:
    with run_lock(directory.lock):
        if not (copy := os.fork()):
            with contextlib.suppress(BaseException):
                for path in held(directory):
                    lease.give_back(path)
            os._exit(0)
        os.waitpid(copy, 0)
        assert len(held(directory)) == 1
        assert is_running(directory.lock)


def test_a_number_that_another_process_has_now_holds_nothing(
    directory: RunDirectory, without_flock: None
) -> None:
    left = written_by(directory, lease.machine(), os.getpid(), 1, age=0)
    assert not is_running(directory.lock)
    with run_lock(directory.lock):
        assert not left.exists()


def test_one_elsewhere_holds_it_as_long_as_it_beats(
    directory: RunDirectory, without_flock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "WATCHED_SECONDS", 0.3)
    left = written_by(directory, ELSEWHERE, 1, 1, age=lease.SILENT_SECONDS - 10)
    assert is_running(directory.lock)
    with pytest.raises(RunHeld), run_lock(directory.lock):
        pytest.fail("two hold one run")

    written_by(directory, ELSEWHERE, 1, 1, age=lease.SILENT_SECONDS + 10)
    assert not is_running(directory.lock)
    with run_lock(directory.lock):
        assert not left.exists()
        assert is_running(directory.lock)


def test_one_elsewhere_that_beats_while_it_is_watched_keeps_it(
    directory: RunDirectory, without_flock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a clock that was set, or a server that gave no answer for a while."""
    monkeypatch.setattr(lease, "WATCHED_SECONDS", 1.0)
    left = written_by(directory, ELSEWHERE, 1, 1, age=lease.SILENT_SECONDS + 10)
    beat = threading.Timer(0.5, os.utime, [left])
    beat.start()
    with pytest.raises(RunHeld), run_lock(directory.lock):
        pytest.fail("two hold one run")
    beat.join()
    assert left.exists()


def test_it_is_the_clock_of_the_file_system_that_counts(
    directory: RunDirectory, without_flock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1e12)
    written_by(directory, ELSEWHERE, 1, 1, age=0)
    os.utime(held(directory)[0])
    assert is_running(directory.lock)
    with pytest.raises(RunHeld), run_lock(directory.lock):
        pytest.fail("two hold one run")


def test_a_holder_beats_and_one_that_lost_its_lease_ends(
    directory: RunDirectory, without_flock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    ended: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _, number: ended.append(number))
    monkeypatch.setattr(lease, "_heart", lease._Heart())
    with run_lock(directory.lock):
        (mine,) = held(directory)
        os.utime(mine, (0, 0))
        until(lambda: mine.stat().st_mtime > 0)
        assert ended == []
        mine.unlink()  # as one does that found it silent
        until(lambda: ended)
    assert ended == [signal.SIGTERM]


@pytest.mark.parametrize("flocked", [True, False])
def test_leases_are_heeded_where_flock_is_trusted_and_taken_where_others_may_come(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, flocked: bool
) -> None:
    monkeypatch.setattr(lock, "is_local", lambda folder: flocked)
    with run_lock(directory.lock):
        assert bool(held(directory)) is not flocked
    written_by(directory, ELSEWHERE, 1, 1, age=0)
    assert is_running(directory.lock)
    with pytest.raises(UserError, match="another process"), run_lock(directory.lock):
        pytest.fail("two hold one run")


def test_leases_can_be_asked_for(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lock.LOCKS, "files")
    with run_lock(directory.lock):
        assert held(directory)


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "mountinfo"
    monkeypatch.setattr(mounts, "_TABLE", path)
    return path


@pytest.mark.parametrize(
    ("folder", "local"),
    [
        ("/home/me/runs", False),
        ("/home", True),
        ("/homes", True),
        ("/home/me and you/runs", True),
        ("/lustre", False),
        ("/new", False),
    ],
)
def test_a_folder_is_shared_where_its_file_system_may_be(
    table: Path, folder: str, local: bool
) -> None:
    table.write_text(
        "21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        "22 21 0:50 / /home/me rw - nfs4 server:/home/me rw,vers=4.2\n"
        "23 21 0:51 / /home/me\\040and\\040you rw - ext4 /dev/sdb rw\n"
        "24 21 0:52 / /lustre rw - xfs /dev/sdc rw\n"
        "25 24 0:53 / /lustre rw - lustre mgs@tcp:/fs rw\n"
        "26 21 0:54 / /new rw - nobody-knows none rw\n"
    )
    assert mounts.is_local(Path(folder)) is local


def test_without_a_table_of_mounts_flock_is_trusted(table: Path) -> None:
    assert mounts.is_local(Path("/"))
