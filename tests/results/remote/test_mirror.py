"""A run that is sent from one machine and brought to another, whatever happens in between."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import shelf
from waiting import until

from altgrad_core.locks.lock import RunHeld
from altgrad_core.results.remote import courier
from altgrad_core.results.remote.courier import Courier
from altgrad_core.results.remote.lease import StoreLock
from altgrad_core.results.remote.mirror import RunMirror
from altgrad_core.results.remote.store import Store, StoreFault, open_store
from altgrad_core.results.run_directory import RunDirectory

MakeRun = Callable[..., RunDirectory]
Faults = Callable[..., None]
KEY = "toy/0123456789ab"


def mirror_of(store: Store, directory: RunDirectory) -> RunMirror:
    return RunMirror(store, directory, lambda line: None)


def on_another(make_run: MakeRun, store: Store, steps: int = 0) -> RunDirectory:
    """The run as another machine has it after fetching; before, it was as far as ``steps`` there."""
    directory = make_run("other", steps, "pending")
    if not steps:
        for path in (directory.checkpoint, directory.metrics):
            path.unlink()
    mirror_of(store, directory).fetch()
    return directory


def files_of(directory: RunDirectory) -> dict[str, bytes]:
    names = (
        "metrics.jsonl",
        "environment.json",
        "facts.json",
        "status.json",
        "checkpoint/state.pt",
    )
    paths = {name: directory.path / name for name in names}
    return {name: path.read_bytes() for name, path in paths.items() if path.exists()}


@pytest.mark.parametrize("url", ["shelf://bucket/runs", "memory://mirror-test/runs"])
def test_a_checkpoint_goes_on_elsewhere_with_its_record(
    url: str, on_shelf: Faults, make_run: MakeRun
) -> None:
    store, here = open_store(url), make_run("one", 4)
    mirror = mirror_of(store, here)
    mirror.send()
    make_run("one", 8)
    mirror.send()
    assert len(store.ls(f"{KEY}/checkpoint")) == 1
    there = make_run("other", 0, "pending")
    there.checkpoint.unlink()
    with there.log.open("a") as log:  # as the process that makes the run writes it
        mirror_of(store, there).fetch()
        log.write("and goes on\n")
    assert files_of(there) == files_of(here)
    assert there.log.read_text() == "8 steps on one\n0 steps on other\nand goes on\n"


def test_nothing_is_sent_twice(store: Store, make_run: MakeRun) -> None:
    mirror = mirror_of(store, make_run("one", 4))
    mirror.send()
    shelf.calls.clear()
    mirror.send()
    assert shelf.calls == []
    mirror_of(store, make_run("one", 4)).send()  # another process, as after a kill
    assert not [call for call in shelf.calls if call.startswith("pipe") and call.endswith(".tar")]


def test_the_checkpoint_that_is_further_on_counts(store: Store, make_run: MakeRun) -> None:
    here = make_run("one", 4)
    mirror_of(store, here).send()
    make_run("one", 8)  # the store gave no answer
    before = files_of(here)
    mirror_of(store, here).fetch()
    assert files_of(here) == before
    there = on_another(make_run, store, steps=2)
    assert files_of(there)["checkpoint/state.pt"].startswith(b"altgrad checkpoint sha256:4")
    make_run("other", 12)
    mirror_of(store, there).send()
    mirror_of(store, here).fetch()
    assert files_of(here) == files_of(there)


def test_a_checkpoint_that_was_cut_off_is_passed_over(store: Store, make_run: MakeRun) -> None:
    here = make_run("one", 4)
    mirror_of(store, here).send()
    whole = next(iter(store.ls(f"{KEY}/checkpoint")))
    store.write(f"{KEY}/checkpoint/00000007-{'0' * 16}-{'1' * 64}.tar", b"half a che")
    assert files_of(on_another(make_run, store)) == files_of(here)
    before = files_of(make_run("one", 8))
    mirror_of(store, here).fetch()
    assert files_of(here) == before
    store.remove([f"{KEY}/checkpoint/{whole}"])
    shutil.rmtree(here.path.parents[1].with_name("other"))
    assert "checkpoint/state.pt" not in files_of(on_another(make_run, store))


@pytest.mark.parametrize("name", ["../../../evil", "/evil", "evil", "metrics.jsonl"])
def test_no_name_in_a_bundle_leads_out_of_the_run(
    name: str, store: Store, make_run: MakeRun, tmp_path: Path
) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as bundle:
        link = tarfile.TarInfo("facts.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        bundle.addfile(link)
        told = tarfile.TarInfo(name)
        told.size = 4
        bundle.addfile(told, io.BytesIO(b"evil"))
    sha = hashlib.sha256(raw.getvalue()).hexdigest()
    store.write(f"{KEY}/checkpoint/00000001-{'0' * 16}-{sha}.tar", raw.getvalue())
    store.write(f"{KEY}/checkpoint/../../{name.strip('/.')}", b"evil")
    there = on_another(make_run, store)
    assert not there.facts.is_symlink()
    assert not [path for path in tmp_path.rglob("evil") if "shelf" not in path.parts]
    assert (files_of(there).get("metrics.jsonl") == b"evil") == (name == "metrics.jsonl")


def test_a_result_is_sent_with_its_status_last_and_brought(store: Store, make_run: MakeRun) -> None:
    here = make_run("one", 4)
    mirror = mirror_of(store, here)
    mirror.send()
    make_run("one", 8, "ok")
    shelf.calls.clear()
    mirror.deliver()
    written = [call.rpartition("/")[2] for call in shelf.calls if call.startswith("pipe")]
    assert written[-1] == "status.json"
    assert store.ls(f"{KEY}/checkpoint") == {}
    there = on_another(make_run, store)
    assert there.has_result()
    assert there.metrics.read_bytes() == here.metrics.read_bytes()


def test_half_a_result_is_never_a_whole(
    store: Store, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The machine dies in each of the writes, and in the middle of it."""
    write, left = shelf.Shelf.pipe_file, 0

    def dying(self: shelf.Shelf, path: str, value: bytes, **more: object) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            write(self, path, value[: len(value) // 2] if left == 0 else value)
        if left <= 0:
            raise OSError("dead")

    for number in range(1, 10):
        shutil.rmtree(tmp_path / "one", ignore_errors=True)
        shutil.rmtree(tmp_path / "other", ignore_errors=True)
        shutil.rmtree(tmp_path / "shelf")
        (tmp_path / "shelf").mkdir()
        mirror = mirror_of(store, make_run("one", 4))
        mirror.send()
        make_run("one", 8, "ok")
        with monkeypatch.context() as patch:
            patch.setattr(shelf.Shelf, "pipe_file", dying)
            left = number
            with suppress(StoreFault):
                mirror.deliver()
            done = left > 0
        there = on_another(make_run, store)
        assert there.has_result() == done
        if done:
            break
        assert there.checkpoint.exists(), "nothing to go on from"
        mirror.deliver()  # the store answers again
        shutil.rmtree(tmp_path / "other")
        assert on_another(make_run, store).has_result()
    assert number > 4


def test_a_result_that_another_has_sent_stays(store: Store, make_run: MakeRun) -> None:
    mirror_of(store, make_run("one", 8, "ok")).deliver()
    late = make_run("other", 8, "ok")
    late.write_status(late.status().model_copy(update={"seconds": 9.0}))
    before = store.read(f"{KEY}/status.json")
    mirror_of(store, late).deliver()
    assert store.read(f"{KEY}/status.json") == before
    with pytest.raises(RunHeld, match="has a result of another process"):
        mirror_of(store, late).take_again()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(courier, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(courier, "PATIENCE_SECONDS", 0.5)
    return


@pytest.mark.usefixtures("hasty", "quick")
def test_a_courier_sends_while_the_run_goes_on_and_at_its_end(
    store: Store, make_run: MakeRun
) -> None:
    here = make_run("one", 4)
    with Courier("shelf://bucket/runs", here, print):
        assert not StoreLock(store, KEY).take()
        for steps in (4, 8):
            make_run("one", steps)
            until(lambda said=f"{steps} steps": said in _sent_log(store))
        make_run("one", 12, "ok")
    assert on_another(make_run, store).has_result()
    assert [name for name in store.ls(KEY) if name.startswith("lock")] == []


def _sent_log(store: Store) -> str:
    for name in store.ls(f"{KEY}/checkpoint"):
        raw = store.read(f"{KEY}/checkpoint/{name}") or b""
        try:
            with tarfile.open(fileobj=io.BytesIO(raw)) as bundle:
                return bundle.extractfile("log.txt").read().decode()  # type: ignore[union-attr]
        except (tarfile.TarError, KeyError):  # being written
            continue
    return ""


@pytest.mark.usefixtures("hasty", "quick")
@pytest.mark.parametrize("fault", [{"gone": True}, {"hang": 0.3}, {"fail_every": 2}])
def test_no_fault_of_the_store_harms_the_run(
    fault: dict[str, object],
    on_shelf: Faults,
    make_run: MakeRun,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = "fail_every" in fault
    patience = 20.0 if answers else 0.5  # a busy machine is slow as well
    monkeypatch.setattr(courier, "PATIENCE_SECONDS", patience)
    monkeypatch.setattr(
        "altgrad_core.results.remote.store.CALL_SECONDS", 0.1 if "hang" in fault else 10.0
    )
    on_shelf(**fault)
    here, said = make_run("one", 4), []
    with Courier("shelf://bucket/runs", here, said.append, patience) as one:
        time.sleep(0.1)
        make_run("one", 8, "ok")
        before = files_of(here)
    assert files_of(here) == before
    assert one.answered == answers
    assert any("the store is tried again" in line for line in said) or answers
    on_shelf()
    time.sleep(0.4)
    mirror_of(store, here).deliver()
    assert on_another(make_run, store).has_result()


@pytest.mark.usefixtures("hasty", "quick")
def test_a_courier_whose_lock_was_lost_sends_nothing_over_the_result_of_another(
    store: Store, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("altgrad_core.results.remote.lease.SILENT_SECONDS", 60.0)
    another = f"{KEY}/lock.held-{'b' * 12}-1-1-alone-00000000"
    here = make_run("one", 4)
    with Courier("shelf://bucket/runs", here, print) as one:
        holder = next(name for name in store.ls(KEY) if name.startswith("lock"))
        store.write(another, b"0")
        store.remove([f"{KEY}/{holder}"])  # it was silent for too long
        until(lambda: one._mirror.lock.name != holder)
        other = make_run("other", 12, "ok")
        mirror_of(store, other).deliver()
        store.remove([another])
        make_run("one", 8)
        time.sleep(0.2)
        make_run("one", 12, "ok")
        here.write_status(here.status().model_copy(update={"seconds": 9.0}))
    assert store.read(f"{KEY}/status.json") == other.status_file.read_bytes()


def test_a_run_in_other_hands_is_not_begun(store: Store, make_run: MakeRun) -> None:
    holder = StoreLock(store, KEY)
    assert holder.take()
    with pytest.raises(RunHeld), Courier("shelf://bucket/runs", make_run("one", 4), print):
        pytest.fail("it was begun")
    holder.give_back()
