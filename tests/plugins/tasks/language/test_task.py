"""The whole task: the conformance check, learning, baselines, samples, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.task import Evaluation
from altgrad_core.quantization.from_settings import quantize_from_settings
from altgrad_core.quantization.settings import QuantizationSettings
from altgrad_core.registry.build import load_format
from altgrad_core.testing.tasks import check_task
from altgrad_plugins.tasks.language.declared import METRICS
from altgrad_plugins.tasks.language.resample import weighted_scores
from altgrad_plugins.tasks.language.settings import LanguageSettings
from altgrad_plugins.tasks.language.task import LanguageModelling, causal_lm

Tiny = Callable[..., LanguageSettings]
CPU = torch.device("cpu")


def _silent(message: str) -> None:
    """A log that nobody reads."""


@torch.no_grad()
def _evaluate(task: LanguageModelling, model: nn.Module, split: Any = "test") -> Evaluation:
    return task.evaluate(model.eval(), split, batch_size=5, device=CPU)


def _trained(task: LanguageModelling, steps: int) -> nn.Module:
    torch.manual_seed(0)
    model = task.build_model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        task.loss(model, task.batch(step, 8, seed=0)).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(
    ("data", "model"),
    [({}, {}), ({"tokenizer": "bytes"}, {"tied_head": False, "dropout": 0.1})],
    ids=["bpe", "bytes"],
)
def test_the_task_keeps_its_contract(
    tiny_lm: Tiny, tmp_path: Path, data: dict[str, Any], model: dict[str, Any]
) -> None:
    check_task(lambda: causal_lm(tiny_lm(data, model)), tmp_path / "check", metrics=METRICS)


def test_it_falls_well_below_both_baselines(tiny_lm: Tiny, tmp_path: Path) -> None:
    task = causal_lm(tiny_lm(model={"hidden_dim": 32, "num_layers": 2, "max_length": 32}))
    task.prepare(tmp_path, _silent)
    found = _evaluate(task, _trained(task, 150)).metrics
    baselines = task.facts()["baselines"]
    unigram, bigram = (baselines[name]["test"]["perplexity"] for name in ("unigram", "bigram"))
    assert bigram < unigram
    assert found["perplexity"] < 0.7 * bigram


def test_the_metrics_are_what_they_are_called(tiny_lm: Tiny, tmp_path: Path) -> None:
    task = causal_lm(tiny_lm())
    task.prepare(tmp_path, _silent)
    found, facts = _evaluate(task, task.build_model()), task.facts()
    nats, size = found.predictions["nats"].sum(), found.predictions["bytes"].sum()
    assert found.metrics["loss"] == pytest.approx(nats / facts["tokens"]["test"])
    assert found.metrics["loss"] == pytest.approx(
        math.log(facts["tokenizer"]["vocab_size"]), rel=0.1
    )
    assert found.metrics["perplexity"] == pytest.approx(math.exp(found.metrics["loss"]))
    assert size == facts["bytes"]["test"]
    assert found.metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / size)
    once = weighted_scores(found.predictions, np.ones((2, len(found.predictions["nats"]))))
    for name, values in once.items():
        assert values == pytest.approx([found.metrics[name]] * 2), name
    assert once.keys() == {metric.name for metric in METRICS}


def test_training_and_evaluation_measure_one_loss(tiny_lm: Tiny, tmp_path: Path) -> None:
    task = causal_lm(tiny_lm())
    task.prepare(tmp_path, _silent)
    model, count = task.build_model().eval(), task.epoch_samples
    batch = task.batch(1, count, seed=3)  # an epoch holds every block once
    assert (batch.samples, batch.tokens) == (count, task.facts()["tokens"]["train"])
    logits = model(input_ids=batch.tensors["input_ids"]).logits
    by_hand = -logits.log_softmax(-1).gather(2, batch.tensors["targets"][..., None]).mean()
    assert task.loss(model, batch).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_the_sample_continues_the_validation_text(tiny_lm: Tiny, tmp_path: Path) -> None:
    task = causal_lm(tiny_lm(data={"tokenizer": "bytes"}))
    task.prepare(tmp_path, _silent)
    (sample,) = _evaluate(task, _trained(task, 60), "validation").samples
    prompt, arrow, written = sample.partition(" ⟶ ")
    assert prompt.startswith("validation ")
    assert arrow
    assert len(written) > 10
    assert _evaluate(task, task.build_model(), "test").samples == ()


def test_a_model_without_numbers_is_evaluated(tiny_lm: Tiny, tmp_path: Path) -> None:
    task = causal_lm(tiny_lm())
    task.prepare(tmp_path, _silent)
    model = task.build_model()
    nn.init.constant_(model.get_parameter("transformer.ln_f.weight"), math.nan)
    found = _evaluate(task, model, "validation")
    assert all(math.isnan(value) for value in found.metrics.values())
    assert weighted_scores(found.predictions, np.ones((1, len(found.predictions["nats"])))) == {}


def test_the_tokenizer_is_made_again_where_the_cache_lost_it(tiny_lm: Tiny, tmp_path: Path) -> None:
    first = causal_lm(tiny_lm())
    first.prepare(tmp_path, _silent)
    (file,) = (tmp_path / "causal_lm").glob("tokenizer-*.json")
    before = file.read_bytes()
    file.unlink()
    causal_lm(tiny_lm()).prepare(tmp_path, _silent)
    assert file.read_bytes() == before


def test_a_split_whose_texts_were_left_out_says_so(tmp_path: Path) -> None:
    for name, text in (("train", "to be read " * 20), ("validation", "To be read, " * 20)):
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "test.txt").write_text("!? " * 20)
    settings = LanguageSettings.model_validate(
        {"data": {"path": str(tmp_path)}, "model": {"max_length": 16}}
    )
    with pytest.raises(UserError, match=r"validation texts have 0 tokens.* 1 that an earlier"):
        causal_lm(settings).prepare(tmp_path / "cache", _silent)


def test_too_little_text_is_refused(tiny_lm: Tiny, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train texts have .* tokens, and one block has 5,000"):
        causal_lm(tiny_lm(model={"max_length": 5000})).prepare(tmp_path, _silent)


@pytest.mark.parametrize("head", [False, True])
def test_every_matrix_of_the_blocks_is_quantised_and_the_head_by_its_own_switch(
    tiny_lm: Tiny, tmp_path: Path, head: bool
) -> None:
    task = causal_lm(tiny_lm())
    task.prepare(tmp_path, _silent)
    model = task.build_model()
    settings = QuantizationSettings.model_validate({"format": "e5m2", "quantize_classifier": head})
    report = quantize_from_settings(
        model, settings, task.head, lambda choice: load_format(choice.name), None, task.layer_groups
    )
    blocks = {
        f"transformer.h.0.{n}" for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert set(report.layers) == blocks | ({"lm_head"} if head else set())
    assert model.get_parameter("transformer.wte.weight") is model.get_output_embeddings().weight  # type: ignore[operator, union-attr]
    assert math.isfinite(_evaluate(task, model).metrics["loss"])
