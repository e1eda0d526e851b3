"""Pretrained decoders: loaded whole, kept to their sizes, and refused where they look ahead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from altgrad_core.errors import UserError
from altgrad_core.testing.tasks import check_task
from altgrad_plugins.tasks.language.declared import METRICS
from altgrad_plugins.tasks.language.settings import LanguageSettings
from altgrad_plugins.tasks.language.task import _logits, causal_lm
from altgrad_plugins.tasks.tokenizer import train_byte_tokenizer

Tiny = Callable[..., LanguageSettings]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``save_pretrained`` leaves it: a small decoder and a byte-level BPE."""
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp(request.param)
    tokenizer = train_byte_tokenizer(["the software is provided as is"] * 3, 280, "<end>")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(path)
    torch.manual_seed(5)
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"max_position_embeddings": 20, "vocab_size": 300}
    more = {"intermediate_size": 32} if request.param == "llama" else {}
    config = AutoConfig.for_model(request.param, **sizes, **more, bos_token_id=0, eos_token_id=0)
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    return path


def test_a_pretrained_decoder_keeps_the_contract(
    tiny_lm: Tiny, tmp_path: Path, folder: Path
) -> None:
    settings = tiny_lm(model={"pretrained": str(folder)})
    check_task(lambda: causal_lm(settings), tmp_path, metrics=METRICS, pretrained=True)


def test_its_weights_and_sizes_are_used(tiny_lm: Tiny, tmp_path: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    said: list[str] = []
    task = causal_lm(tiny_lm(model={"pretrained": str(folder)}))
    task.prepare(tmp_path, said.append)
    model = task.build_model()
    for name, tensor in AutoModelForCausalLM.from_pretrained(folder).state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert task.facts()["model"]["hidden_dim"] == 24
    assert "model.hidden_dim=16 gives way to 24 of the pretrained model" in said
    assert not any("model.type" in line for line in said)


def test_a_context_longer_than_the_model_is_refused(
    tiny_lm: Tiny, tmp_path: Path, folder: Path
) -> None:
    task = causal_lm(tiny_lm(model={"pretrained": str(folder), "max_length": 32}))
    with pytest.raises(UserError, match=r"max_length is 32, but .* reads at most 20 tokens"):
        task.prepare(tmp_path, lambda message: None)


def test_an_encoder_is_refused(tiny_lm: Tiny, tmp_path: Path, pretrained_folder: Path) -> None:
    task = causal_lm(tiny_lm(model={"pretrained": str(pretrained_folder)}))
    task.prepare(tmp_path, lambda message: None)
    with pytest.raises(UserError, match="is no decoder: its predictions depend on the tokens to"):
        task.build_model()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_attention_goes_by_the_same_kernels_when_captured(
    kind: str, attention: Any, watch_waits: Any
) -> None:
    """And what decides on them does not ask the device."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {} if kind == "gpt2" else {"num_key_value_heads": 2, "head_dim": 12}
    config = AutoConfig.for_model(kind, vocab_size=50, **sizes, **more)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").eval()
    ids = torch.arange(20).reshape(2, 10)
    seen = attention(lambda: _logits(model, ids), capturing=True)
    assert seen == attention(lambda: _logits(model, ids), capturing=False) == [(None, True)] * 2
    with watch_waits() as watch:
        expected = _logits(model, ids)
    assert watch.seen == []
    assert torch.equal(model(input_ids=ids, use_cache=False).logits, expected)
