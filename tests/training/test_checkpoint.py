"""A checkpoint is read as it was written, or not at all: no changed bit of it enters a run."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import torch

from altgrad_core.training.checkpoint import CheckpointDamaged, load_checkpoint, save_checkpoint

FLIPS = int(os.environ.get("ALTGRAD_BIT_FLIPS", "400"))
STATE = {"step": 1, "tensor": torch.arange(50.0), "state": {"a": [1, "x"]}}


def test_it_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    assert load_checkpoint(path) is None
    save_checkpoint(path, STATE)
    found = load_checkpoint(path)
    assert found is not None
    assert torch.equal(found.pop("tensor"), STATE["tensor"])  # type: ignore[arg-type]
    assert found == {"step": 1, "state": {"a": [1, "x"]}}
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]


@pytest.mark.parametrize("kind", ["one bit", "cut", "longer", "noise"])
def test_damaged_bytes_are_refused_whatever_they_are(tmp_path: Path, kind: str) -> None:
    """``ALTGRAD_BIT_FLIPS`` sets how many of each are tried."""
    path, draw = tmp_path / "state.pt", random.Random(0)
    save_checkpoint(path, STATE)
    whole = path.read_bytes()
    for _ in range(FLIPS):
        text = bytearray(whole)
        if kind == "one bit":
            text[draw.randrange(len(text))] ^= 1 << draw.randrange(8)
        elif kind == "cut":
            text = text[: draw.randrange(len(text))]
        elif kind == "longer":
            text += draw.randbytes(draw.randrange(1, 9))
        else:
            text = bytearray(draw.randbytes(draw.randrange(300)))
        path.write_bytes(text)
        with pytest.raises(CheckpointDamaged, match=r"state\.pt is not as it was written"):
            load_checkpoint(path)


def test_one_that_this_torch_cannot_read_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "state.pt", {"step": os.getcwd})  # code, which is never unpickled
    with pytest.raises(CheckpointDamaged, match="cannot be read by this torch"):
        load_checkpoint(tmp_path / "state.pt")
