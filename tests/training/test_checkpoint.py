"""Checkpoints that are not what was written are said to be so, whatever their bytes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from altgrad_core.errors import UserError
from altgrad_core.training.checkpoint import load_checkpoint, save_checkpoint


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["cut", "bytes changed", "noise"])
def test_damaged_bytes_are_one_sentence(tmp_path: Path, kind: str) -> None:
    path, draw, refused = tmp_path / "state.pt", random.Random(0), 0
    save_checkpoint(path, {"step": 1, "tensor": torch.ones(50), "state": {"a": [1, "x"]}})
    whole = path.read_bytes()
    for _ in range(100):
        text = bytearray(whole)
        if kind == "cut":
            text = text[: draw.randrange(len(text))]
        elif kind == "noise":
            text = bytearray(draw.randbytes(draw.randrange(300)))
        for _ in range(20 if kind == "bytes changed" else 0):
            text[draw.randrange(len(text))] = draw.randrange(256)
        path.write_bytes(text)
        try:
            load_checkpoint(path)
        except UserError:  # anything else fails the test
            refused += 1
    assert refused > 50


def test_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"no checkpoint")
    with pytest.raises(UserError, match=r"state\.pt cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "state.pt")
