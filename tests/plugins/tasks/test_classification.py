"""The whole task: the conformance check, learning, evaluation, caches, and several processes."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.task import Evaluation
from altgrad_core.testing.tasks import check_task
from altgrad_plugins.tasks.classification import TextClassification, eurlex
from altgrad_plugins.tasks.declared import METRICS
from altgrad_plugins.tasks.metrics import all_scores
from altgrad_plugins.tasks.settings import EurlexSettings

Tiny = Callable[..., EurlexSettings]
CPU = torch.device("cpu")


def _silent(message: str) -> None:
    """A log that nobody reads."""


@pytest.fixture
def task(tiny: Tiny, tmp_path: Path) -> TextClassification:
    made = eurlex(tiny())
    made.prepare(tmp_path / "cache", _silent)
    return made


@torch.no_grad()
def _evaluate(task: TextClassification, model: nn.Module, **options: Any) -> Evaluation:
    options = {"split": "validation", "batch_size": 5, "device": CPU, **options}
    return task.evaluate(model.eval(), options.pop("split"), **options)


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"type": "distilbert", "loss": "focal", "pos_weight": 3.0},
        {"type": "roberta", "pos_weight": "balanced", "pooling": "cls", "dropout": 0.2},
    ],
    ids=["bert", "distilbert", "roberta"],
)
def test_the_task_keeps_its_contract(tiny: Tiny, tmp_path: Path, model: dict[str, Any]) -> None:
    check_task(lambda: eurlex(tiny(model=model)), tmp_path / "check", metrics=METRICS)


def test_a_pretrained_model_keeps_the_contract(
    tiny: Tiny, tmp_path: Path, pretrained_folder: Path
) -> None:
    settings = tiny(model={"pretrained": str(pretrained_folder)})
    check_task(lambda: eurlex(settings), tmp_path / "check", metrics=METRICS)


def test_it_learns(tiny: Tiny, tmp_path: Path) -> None:
    task = eurlex(tiny(data={"text": "text"}, model={"max_length": 16}))
    task.prepare(tmp_path, _silent)
    torch.manual_seed(0)
    model = task.build_model()
    before = _evaluate(task, model).metrics
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model.train()
    for step in range(1, 121):
        optimizer.zero_grad()
        task.loss(model, task.batch(step, 8, seed=0)).backward()
        optimizer.step()
    after = _evaluate(task, model).metrics
    assert after["loss"] < before["loss"] / 2
    assert after["f1_micro_tuned"] > 0.9


def test_predictions_are_in_the_order_of_the_data_and_give_the_scores(
    task: TextClassification, acts: Path
) -> None:
    torch.manual_seed(0)
    evaluation = _evaluate(task, task.build_model())
    rows = [json.loads(line) for line in (acts / "validation.jsonl").read_text().splitlines()]
    names = task.facts()["label_names"]
    predictions = evaluation.predictions
    assert predictions["ids"].tolist() == [row["celex_id"] for row in rows]
    truth = [[name in row["eurovoc_concepts"] for name in names] for row in rows]
    assert predictions["targets"].tolist() == np.array(truth).astype(int).tolist()
    assert predictions["targets"].dtype == np.uint8
    assert predictions["probabilities"].dtype == np.float16
    again = all_scores(
        predictions["probabilities"].astype(np.float32),
        predictions["targets"],
        evaluation.calibration["threshold"],
    )
    assert again["f1_micro"] == evaluation.metrics["f1_micro"]
    assert "threshold" not in again


def test_the_loss_of_a_split_is_the_mean_over_its_examples(
    tiny: Tiny, tmp_path: Path, acts: Path
) -> None:
    (acts / "validation.jsonl").write_bytes((acts / "train.jsonl").read_bytes())
    task = eurlex(tiny(model={"pos_weight": "balanced"}))
    task.prepare(tmp_path / "cache", _silent)
    model = task.build_model().eval()
    with torch.no_grad():
        everything = task.loss(model, task.batch(1, 40, seed=3)).item()
    assert _evaluate(task, model).metrics["loss"] == pytest.approx(everything, rel=1e-5)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_broken_model_is_reported_and_does_not_crash(
    task: TextClassification, poison: float
) -> None:
    model = task.build_model()
    assert isinstance(model.classifier, nn.Linear)
    with torch.no_grad():
        model.classifier.bias[1] = poison
    evaluation = _evaluate(task, model)
    assert np.isnan(evaluation.metrics["loss"])
    assert evaluation.metrics["f1_micro_tuned"] == 0.0
    assert evaluation.metrics["hamming_loss"] == 1.0
    assert evaluation.calibration == {"threshold": 0.5}
    broken = np.isnan(evaluation.predictions["probabilities"])
    assert broken[:, 1].all()
    assert not broken[:, 0].any()


def test_bfloat16_autocast_keeps_loss_and_scores_in_float32(task: TextClassification) -> None:
    model = task.build_model()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = task.loss(model, task.batch(1, 8, seed=0))
        evaluation = _evaluate(task, model)
    assert loss.dtype == torch.float32
    assert np.isfinite(evaluation.metrics["loss"])


def test_tokens_are_those_that_are_not_padding(task: TextClassification) -> None:
    batch = task.batch(3, 8, seed=1)
    ids, mask = batch.tensors["input_ids"], batch.tensors["attention_mask"]
    assert batch.tokens == int((ids != 0).sum()) == int(mask.sum())
    assert mask.sum(dim=1).max() == ids.shape[1]


def test_max_examples_bounds_every_split(tiny: Tiny, tmp_path: Path) -> None:
    task = eurlex(tiny(data={"max_examples": 10}))
    task.prepare(tmp_path, _silent)
    assert task.facts()["examples"] == {"train": 10, "validation": 10, "test": 10}


def test_settings_that_matter_get_their_own_file(
    tiny: Tiny, tmp_path: Path, acts: Path, messages: list[str]
) -> None:
    def prepare(**sections: Any) -> int:
        before = len(list(tmp_path.glob("cache/**/*.npz")))
        eurlex(tiny(**sections)).prepare(tmp_path / "cache", messages.append)
        return len(list(tmp_path.glob("cache/**/*.npz"))) - before

    assert prepare() == 1
    assert prepare() == 0
    assert prepare(model={"hidden_dim": 32}) == 0
    assert prepare(data={"top_k": 2}) == 1
    assert prepare(model={"max_length": 8}) == 1
    moved = acts.rename(tmp_path / "moved")
    assert prepare(data={"path": str(moved)}) == 0
    (moved / "test.jsonl").write_bytes((moved / "train.jsonl").read_bytes())
    assert prepare(data={"path": str(moved)}) == 1


def test_what_is_left_out_is_logged(tiny: Tiny, tmp_path: Path, messages: list[str]) -> None:
    eurlex(tiny(data={"top_k": 1})).prepare(tmp_path, messages.append)
    assert "labels: 1 of 3 in the training split" in messages
    assert any("examples without labels are kept" in message for message in messages)


def test_a_pretrained_model_overrules_sizes_aloud(
    tiny: Tiny, tmp_path: Path, pretrained_folder: Path, messages: list[str]
) -> None:
    settings = tiny(model={"pretrained": str(pretrained_folder)})
    eurlex(settings).prepare(tmp_path, messages.append)
    assert "model.hidden_dim=16 gives way to 24 of the pretrained model" in messages


@pytest.mark.parametrize("damage", ["cut", "bit", "no digest"])
@pytest.mark.parametrize("kind", ["eurlex/*.npz", "eurlex/tokenizer-*.json"])
def test_a_damaged_cache_file_is_made_again(
    tiny: Tiny, tmp_path: Path, messages: list[str], kind: str, damage: str
) -> None:
    eurlex(tiny()).prepare(tmp_path, _silent)
    (file,) = tmp_path.glob(kind)
    whole = file.read_bytes()
    if damage == "no digest":
        file.with_name(f"{file.name}.sha256").unlink()
    else:
        harmed = bytearray(whole[: len(whole) // 2] if damage == "cut" else whole)
        harmed[-9] ^= 1
        file.write_bytes(harmed)
    if file.suffix == ".json":  # it is read when there are texts to encode
        next(tmp_path.glob("eurlex/*.npz")).unlink()
    eurlex(tiny()).prepare(tmp_path, messages.append)
    assert any(f"{file} is damaged" in message for message in messages)
    assert file.read_bytes() == whole
    messages.clear()
    eurlex(tiny()).prepare(tmp_path, messages.append)
    assert not any("damaged" in message for message in messages)


def test_what_a_killed_writer_left_in_the_cache_is_removed(tiny: Tiny, tmp_path: Path) -> None:
    eurlex(tiny()).prepare(tmp_path, _silent)
    (prepared,) = tmp_path.glob("eurlex/*.npz")
    prepared.unlink()
    cut = prepared.with_name(f".{prepared.name}.0a1b")
    cut.write_bytes(b"half")
    eurlex(tiny()).prepare(tmp_path, _silent)
    assert not cut.exists()


def test_a_cache_that_cannot_be_written_is_a_user_error(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="ALTGRAD_CACHE"):
        eurlex(tiny()).prepare(tmp_path / "file", _silent)


def test_no_space_is_a_user_error_and_leaves_nothing(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(UserError, match="No space left on device"):
        eurlex(tiny()).prepare(tmp_path, _silent)
    left = [path.name for path in (tmp_path / "eurlex").iterdir() if path.suffix != ".lock"]
    assert len(left) == 2  # the tokenizer, with its digest
    assert left[0].startswith("tokenizer-")


def test_what_is_prepared_must_be_prepared_first(tiny: Tiny) -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        eurlex(tiny()).facts()


def _prepare(settings: EurlexSettings, cache: Path, results: Any) -> None:
    log: list[str] = []
    task = eurlex(settings)
    task.prepare(cache, log.append)
    results.put((any("tokenising" in line for line in log), task.batch(1, 4, 0).tokens))


def test_processes_that_start_together_make_the_file_once(tiny: Tiny, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    arguments = (tiny(), tmp_path / "cache", results)
    processes = [context.Process(target=_prepare, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    assert sorted(made for made, _ in answers) == [False, False, True]
    assert len({tokens for _, tokens in answers}) == 1


def test_the_key_knows_the_versions_that_tokenise(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eurlex(tiny()).prepare(tmp_path, _silent)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0")
    eurlex(tiny()).prepare(tmp_path, _silent)
    assert len(list(tmp_path.glob("eurlex/*.npz"))) == 2


def test_real_acts_are_read(eurlex_data: Path, tmp_path: Path) -> None:
    settings = EurlexSettings.model_validate(
        {
            "data": {
                "path": str(eurlex_data / "titles"),
                "top_k": 100,
                "max_examples": 500,
                "vocab_size": 500,
            },
            "model": {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 32},
        }
    )
    task = eurlex(settings)
    task.prepare(tmp_path, _silent)
    facts = task.facts()
    assert facts["labels"] == 100
    assert facts["test_texts_also_in_train"] == 0
    assert facts["unseen"]["test"]["labels"] > 0


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_a_training_step_asks_the_device_nothing(
    tiny: Tiny, tmp_path: Path, kind: str, watch_waits: Any
) -> None:
    task = eurlex(tiny(model={"type": kind, "pos_weight": "balanced"}))
    task.prepare(tmp_path, _silent)
    model, batch = task.build_model(), task.batch(1, 8, seed=0)
    task.loss(model, batch)
    with watch_waits() as watch:
        task.loss(model, batch).backward()
    assert watch.seen == []


def test_the_weight_of_positives_is_moved_once_to_each_device(tiny: Tiny, tmp_path: Path) -> None:
    """Evaluation computes its loss on the host, training on the device, in turns."""
    task = eurlex(tiny(model={"pos_weight": "balanced"}))
    task.prepare(tmp_path, _silent)
    moved: list[str] = []

    class Weight(torch.Tensor):
        def to(self, device: Any) -> torch.Tensor:  # type: ignore[override]
            moved.append(str(device))
            return self.as_subclass(torch.Tensor).to(device)

    assert task._pos_weight is not None
    task._pos_weight = task._pos_weight.as_subclass(Weight)
    labels = len(task.facts()["label_names"])
    for _ in range(3):
        for device in ("meta", "cpu"):
            logits = torch.zeros(2, labels, device=device)
            assert task._loss(logits, torch.zeros_like(logits)).device.type == device
    assert moved == ["meta", "cpu"]


def test_training_batches_may_be_padded_to_fewer_widths(tiny: Tiny, tmp_path: Path) -> None:
    """Which changes no score, but for last bits, and pads no evaluation; by default, nothing."""
    made = []
    for padded in ({}, {"pad_to_multiple_of": 5}):
        task = eurlex(tiny(model={"max_length": 64, "dropout": 0.0, **padded}))
        task.prepare(tmp_path / "cache", _silent)
        made.append(task)
    torch.manual_seed(0)
    model = made[0].build_model()
    widths = []
    for step in range(1, 9):
        plain, wide = (task.batch(step, 1, 0) for task in made)
        width = plain.tensors["input_ids"].shape[1]
        assert width == int(plain.tensors["attention_mask"].sum(1).max())
        assert wide.tensors["input_ids"].shape[1] == min(-(-width // 5) * 5, 64)
        assert wide.tokens == plain.tokens
        losses = [task.loss(model, batch) for task, batch in zip(made, (plain, wide), strict=True)]
        torch.testing.assert_close(*losses)
        widths.append(width)
    assert len(set(widths)) > 1
    one, other = (_evaluate(task, model) for task in made)
    assert one.metrics == other.metrics


@pytest.mark.parametrize(("kind", "whole"), [("bert", False), ("modernbert", None)])
def test_passes_are_told_apart_by_padding_and_not_captured_where_the_model_looks_for_it(
    task: TextClassification, kind: str, whole: object
) -> None:
    """Such a model skips its mask where nothing is padded, but not while it is captured."""
    from transformers import AutoConfig

    task._config = AutoConfig.for_model(kind)
    batch = task.batch(1, 8, seed=0)
    full = batch.tensors["input_ids"].numel()
    assert task.graph_key(replace(batch, tokens=full - 1)) is True
    assert task.graph_key(replace(batch, tokens=full)) is whole
