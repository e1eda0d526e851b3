"""A store answers in time, or it is a fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import until

from altgrad_core.results.remote import store as module
from altgrad_core.results.remote.store import Store, StoreFault, open_store

Faults = Callable[..., None]


@pytest.mark.parametrize("url", ["shelf://bucket/runs", "memory://store-test/runs"])
def test_files_are_written_listed_read_and_removed(
    url: str, on_shelf: Faults, tmp_path: Path
) -> None:
    there = open_store(url)
    assert there.ls("toy") == {} == there.find()
    assert there.read("toy/a") is None
    there.write("toy/a", b"one")
    there.write_many({f"toy/{n:03d}/b": str(n).encode() for n in range(100)})
    (tmp_path / "file").write_bytes(b"two")
    there.send(tmp_path / "file", "toy/deep/er/c")
    assert list(there.ls("toy")) == ["a"]
    assert there.ls("toy")["a"]["size"] == 3
    assert set(there.find("toy")) == {"a", "deep/er/c", *(f"{n:03d}/b" for n in range(100))}
    assert set(there.find()) == {f"toy/{name}" for name in there.find("toy")}
    names = ["toy/099/b", "toy/nothing", "toy/001/b", "toy/a"]
    assert list(there.read_many(names)) == [(names[0], b"99"), (names[2], b"1"), (names[3], b"one")]
    assert there.bring("toy/deep/er/c", tmp_path / "back", 3)
    assert (tmp_path / "back").read_bytes() == b"two"
    assert not there.bring("toy/nothing", tmp_path / "back", 0)
    there.remove(["toy/a", "toy/nothing"])
    assert there.ls("toy") == {}


def test_every_failure_is_a_fault_and_none_looks_like_an_empty_folder(
    store: Store, on_shelf: Faults, tmp_path: Path
) -> None:
    store.write("toy/a", b"one")
    on_shelf(gone=True)
    for ask in (
        lambda: store.ls("toy"),
        lambda: store.find(),
        lambda: store.read("toy/a"),
        lambda: store.write("toy/a", b"two"),
        lambda: store.write_many({"toy/a": b"two"}),
        lambda: store.bring("toy/a", tmp_path / "a", 3),
        lambda: store.remove(["toy/a"]),
    ):
        with pytest.raises(StoreFault, match="OSError: the shelf has fallen down"):
            ask()


def test_a_call_that_hangs_is_given_up_and_many_are_not_begun(
    store: Store, on_shelf: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CALL_SECONDS", 0.05)
    on_shelf(hang=60.0)
    for _ in range(4):
        with pytest.raises(StoreFault, match=r"gave no answer for 0.05 s"):
            store.ls("toy")
    assert store.hangs
    with pytest.raises(StoreFault, match="4 calls hang"):
        store.ls("toy")
    monkeypatch.setattr(module, "CALL_SECONDS", 30.0)
    on_shelf()
    until(lambda: not store.hangs)
    assert store.ls("toy") == {}


def test_what_a_fault_says_holds_no_signature() -> None:
    said = module._told(OSError("PUT https://host/a?X-Amz-Signature=geheim&b=1 failed"))
    assert "geheim" not in said
    assert "https://host/a?… failed" in said


def test_a_fault_is_one_sentence_however_much_a_library_says() -> None:
    said = module._told(OSError("\nUnable to load libjvm\n" + "dlopen(/a/libjvm.so) failed\n" * 99))
    assert said == "OSError: Unable to load libjvm"
    assert module._told(OSError()) == "OSError: it says no more"
