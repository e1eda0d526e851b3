"""Locks on a store that has none."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import pytest
import shelf
from waiting import until

from altgrad_core.locks.lease import machine, new_name
from altgrad_core.results.remote import lease
from altgrad_core.results.remote.lease import Onlooker, StoreLock
from altgrad_core.results.remote.store import Store, StoreFault, open_store

pytestmark = pytest.mark.usefixtures("quick")
Elsewhere = Callable[[str], None]
Faults = Callable[..., None]


def test_one_has_it_and_those_that_share_do(store: Store) -> None:
    one, other = StoreLock(store, "toy"), StoreLock(store, "toy")
    assert one.take()
    assert not other.take()
    assert not other.take(shared=True)
    one.give_back()
    assert other.take(shared=True)
    assert one.take(shared=True)
    assert not StoreLock(store, "toy").take()
    one.give_back()
    other.give_back()
    assert store.ls("toy") == {}


def test_at_most_one_of_many_that_come_at_once_has_it(on_shelf: Faults) -> None:
    on_shelf(slow=0.002)
    inside, most, done = 0, 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal inside, most, done
        lock = StoreLock(open_store("shelf://bucket/runs"), "toy")
        while not lock.take():
            time.sleep(0.02)
        with guard:
            inside += 1
            most = max(most, inside)
        time.sleep(0.01)
        with guard:
            inside -= 1
            done += 1
        lock.give_back()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (most, done) == (1, 4)


def test_a_holder_elsewhere_keeps_it_while_it_beats_and_not_for_long_after(
    store: Store, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere("a")
    there = StoreLock(store, "toy")
    assert there.take()
    elsewhere("b")
    here, onlooker = StoreLock(store, "toy"), Onlooker()
    time.sleep(lease.SILENT_SECONDS)  # since it was taken
    before = there._count
    until(lambda: there._count > before)
    assert not here.take()
    assert onlooker.sees_holder(store, "toy")
    lease._hearts.remove(there)  # its machine is lost
    there.beat()
    assert not here.take(), "it may still live"
    watched, watch = [], StoreLock._one_beats
    monkeypatch.setattr(
        StoreLock, "_one_beats", lambda *given: watched.append(given[2]) or watch(*given)
    )
    until(here.take)
    assert watched[-1] == lease.WATCHED_SECONDS
    there.beat()
    assert not there.held, "it learns that it was lost"
    assert list(store.ls("toy")) == [here.name]


def test_an_onlooker_sees_silence_without_a_clock(store: Store, elsewhere: Elsewhere) -> None:
    elsewhere("a")
    there = StoreLock(store, "toy")
    there.take()
    lease._hearts.remove(there)  # it may beat once more
    elsewhere("b")
    onlooker, begun = Onlooker(), time.monotonic()
    assert onlooker.sees_holder(store, "toy")
    until(lambda: not onlooker.sees_holder(store, "toy"))
    assert time.monotonic() - begun >= lease.SILENT_SECONDS


def test_a_dead_process_of_this_machine_holds_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    store.write(f"toy/lock.held-{machine()}-{pid}-1-alone-00000000", b"7")
    monkeypatch.delattr(StoreLock, "_one_beats")  # it need not be watched
    assert StoreLock(store, "toy").take()


def test_what_a_hung_call_leaves_behind_is_nobodys(store: Store) -> None:
    store.write(f"toy/{new_name('lock', False)}", b"0")  # it arrived after this process gave up
    assert StoreLock(store, "toy").take()


def test_a_store_that_does_not_list_what_was_written_gives_no_lock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shelf.Shelf, "ls", lambda *_, **__: [])
    with pytest.raises(StoreFault, match="does not list what was just written"):
        StoreLock(store, "toy").take()


def test_a_fault_while_it_is_given_back_is_made_up_for(store: Store, on_shelf: Faults) -> None:
    lock, other = StoreLock(store, "toy"), StoreLock(store, "keeps the heart beating")
    assert lock.take()
    assert other.take()
    on_shelf(gone=True)
    lock.give_back()
    on_shelf()
    assert store.ls("toy")
    until(lambda: not store.ls("toy"))
