"""The model: every architecture from scratch, pretrained folders, and what can be wrong with them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core.errors import UserError
from altgrad_plugins.tasks.encoder import (
    TextClassifier,
    build_classifier,
    encoder_config,
    masked_mean,
    size_facts,
)
from altgrad_plugins.tasks.pretrained import local_folder, pretrained_fingerprint
from altgrad_plugins.tasks.settings import ModelSettings
from altgrad_plugins.tasks.tokenizer import pretrained_tokenizer

SIZES = {"hidden_dim": 24, "num_layers": 2, "num_heads": 3, "max_length": 10, "ffn_dim": 40}
IDS = torch.tensor([[2, 7, 8, 9, 5, 6, 11, 12, 13, 3], [2, 9, 3, 0, 0, 0, 0, 0, 0, 0]])
MASK = (IDS != 0).long()


def _build(settings: ModelSettings, vocab_size: int = 50, seed: int = 0) -> TextClassifier:
    config = encoder_config(settings, vocab_size, pad_id=0)
    torch.manual_seed(seed)
    return build_classifier(config, 4, settings)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_every_type_has_the_sizes_asked_for(kind: Any) -> None:
    settings = ModelSettings(type=kind, dropout=0.3, **SIZES)
    model = _build(settings)
    linear = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}
    shapes = sorted(tuple(m.weight.shape) for m in linear.values())
    attention = [(24, 24)] * 4 + [(24, 40), (40, 24)]
    assert shapes == sorted([*attention * 2, (4, 24)])
    dropouts = {m.p for m in model.modules() if isinstance(m, nn.Dropout)}
    assert dropouts == {0.3}
    facts = size_facts(model.encoder.config, settings)
    assert facts == {
        "type": kind,
        "hidden_dim": 24,
        "num_layers": 2,
        "num_heads": 3,
        "pretrained": None,
    }


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_padding_does_not_matter_and_all_parameters_learn(kind: Any, pooling: Any) -> None:
    model = _build(ModelSettings(type=kind, pooling=pooling, dropout=0.0, **SIZES))
    logits = model(IDS, MASK)
    assert logits.shape == (2, 4)
    alone = model(IDS[1:, :3], MASK[1:, :3])
    torch.testing.assert_close(logits[1:], alone, rtol=1e-4, atol=1e-5)
    logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_the_feed_forward_width_defaults_to_four_times_the_hidden() -> None:
    model = _build(ModelSettings(hidden_dim=8, num_layers=1, num_heads=2))
    widths = {m.out_features for m in model.encoder.modules() if isinstance(m, nn.Linear)}
    assert widths == {8, 32}


def test_the_classifier_starts_at_its_bias() -> None:
    model = _build(ModelSettings(classifier_bias=-2.5, **SIZES))
    assert torch.equal(model.classifier.bias, torch.full((4,), -2.5))
    assert 0.005 < model.classifier.weight.std() < 0.05


def test_initial_weights_come_from_the_seed() -> None:
    settings = ModelSettings(**SIZES)
    one, same, other = (_build(settings, seed=seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


def test_the_mean_leaves_padding_out() -> None:
    hidden = torch.randn(2, 3, 5)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    mean = masked_mean(hidden.bfloat16(), mask)
    assert mean.dtype == torch.float32
    wide = hidden.bfloat16().float()
    torch.testing.assert_close(mean, torch.stack([wide[0, :2].mean(0), wide[1].mean(0)]))


def test_a_pretrained_folder_gives_weights_sizes_and_tokenizer(pretrained_folder: Path) -> None:
    from safetensors.torch import load_file

    settings = ModelSettings(pretrained=str(pretrained_folder), num_heads=3, hidden_dim=48)
    tokenizer = pretrained_tokenizer(str(pretrained_folder), None)
    (row,) = tokenizer.encode(["fishing quota vessel"], 4)
    assert row[0] == 2
    assert len(row) == 4
    settings = settings.model_copy(update={"max_length": 20})
    config = encoder_config(settings, tokenizer.vocab_size, tokenizer.pad_id)
    model = build_classifier(config, 4, settings)
    saved = load_file(pretrained_folder / "model.safetensors")
    for name, parameter in model.encoder.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, saved[f"bert.{name}"].float()), name
    assert size_facts(config, settings) == {
        "type": "bert",
        "hidden_dim": 24,
        "num_layers": 2,
        "num_heads": 3,
        "pretrained": str(pretrained_folder),
        "overruled": {"hidden_dim": {"asked": 48, "used": 24}},
    }


def test_settings_that_a_pretrained_model_cannot_meet(pretrained_folder: Path) -> None:
    long = ModelSettings(pretrained=str(pretrained_folder), max_length=21)
    with pytest.raises(UserError, match=r"model\.max_length is 21, but .* at most 20 tokens"):
        encoder_config(long, 50, 0)
    short = ModelSettings(pretrained=str(pretrained_folder), max_length=20)
    with pytest.raises(UserError, match="they do not belong together"):
        encoder_config(short, 5000, 0)


@pytest.mark.parametrize(
    ("gone", "looked_for"),
    [
        (["tokenizer.json", "vocab.txt"], "no tokenizer: looked for tokenizer.json, vocab.txt"),
        (["config.json"], "no configuration: looked for config.json"),
        (["model.safetensors"], "no weights: looked for model.safetensors"),
    ],
)
def test_an_incomplete_folder_says_what_was_looked_for(
    pretrained_folder: Path, tmp_path: Path, gone: list[str], looked_for: str
) -> None:
    folder = tmp_path / "incomplete"
    shutil.copytree(pretrained_folder, folder)
    for name in gone:
        (folder / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match=looked_for):
        pretrained_fingerprint(ModelSettings(pretrained=str(folder)))


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/no/where", "a/b/c"])
def test_a_path_that_is_no_folder_is_not_taken_for_a_hub_name(name: str) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        local_folder(name)
    assert local_folder("distilbert/distilbert-base-uncased") is None


def test_broken_weights_and_configuration_are_user_errors(
    pretrained_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(pretrained_folder, folder)
    settings = ModelSettings(pretrained=str(folder), max_length=20)
    config = encoder_config(settings, 50, 0)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"the model in .*broken cannot be loaded"):
        build_classifier(config, 4, settings)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"the configuration in .*broken cannot be loaded"):
        encoder_config(settings, 50, 0)


def test_weights_that_are_missing_are_not_made_up(pretrained_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "partial"
    shutil.copytree(pretrained_folder, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["bert.encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    settings = ModelSettings(pretrained=str(folder), max_length=20)
    with pytest.raises(UserError, match=r"lacks weights .*layer\.1\.output\.dense\.weight"):
        build_classifier(encoder_config(settings, 50, 0), 4, settings)


def test_the_fingerprint_is_of_the_files_or_the_name(
    pretrained_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def of(**settings: Any) -> dict[str, str]:
        return pretrained_fingerprint(ModelSettings(**settings))

    folder = tmp_path / "copy"
    shutil.copytree(pretrained_folder, folder)
    before = of(pretrained=str(folder))
    assert before == of(pretrained=str(pretrained_folder))
    (folder / "README.md").write_text("changed")
    assert of(pretrained=str(folder)) == before
    (folder / "vocab.txt").write_text("changed")
    assert of(pretrained=str(folder)) != before
    assert of() == {}
    assert of(pretrained="org/name") == {"model": "hub:org/name"}
    assert of(pretrained="org/name", pretrained_revision="abc") == {"model": "hub:org/name@abc"}
    commit = "0123456789" * 4
    pinned = {"model": f"hub:org/name@{commit}"}
    assert of(pretrained="org/name", pretrained_revision=commit) == pinned


def test_a_hub_name_without_network_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    settings = ModelSettings(pretrained="altgrad-bench/no-such-model")
    for load in (
        lambda: pretrained_tokenizer("altgrad-bench/no-such-model", None),
        lambda: encoder_config(settings, 50, 0),
    ):
        with pytest.raises(UserError) as error:
            load()
        assert "no network?" in str(error.value)
        assert "model.pretrained=null" in str(error.value)


ARCHITECTURES = (
    *("albert", "bert", "camembert", "distilbert", "electra", "ernie", "roberta", "xlm-roberta"),
)


def of_architecture(kind: str) -> TextClassifier:
    """A small classifier around any encoder of transformers."""
    from transformers import AutoConfig

    config = AutoConfig.for_model(
        kind,
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=20,
        pad_token_id=0,
        **({"embedding_size": 24} if kind in ("albert", "electra") else {}),
    )
    torch.manual_seed(0)
    return build_classifier(config, 4, ModelSettings(**SIZES)).eval()


@pytest.mark.parametrize("kind", [*ARCHITECTURES, "modernbert"])
def test_the_mask_of_the_host_gives_the_bits_of_transformers_own(kind: str) -> None:
    model = of_architecture(kind)
    for ids, mask in ((IDS, MASK), (IDS[:1], MASK[:1])):
        hidden = model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        expected = model.classifier(masked_mean(hidden, mask))
        assert torch.equal(model(ids, mask, padded=bool((mask == 0).any())), expected)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("rows", [2, 1], ids=["padded", "whole"])
def test_a_forward_asks_the_device_nothing(kind: str, rows: int, watch_waits: Any) -> None:
    model = of_architecture(kind)
    with watch_waits() as watch:
        model(IDS[:rows], MASK[:rows], padded=rows == 2)
    assert watch.seen == []


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("rows", [2, 1], ids=["padded", "whole"])
def test_attention_goes_by_the_same_kernels_when_captured(
    kind: str, rows: int, attention: Any
) -> None:
    """Flash attention takes no mask, and no fused kernel one whose last stride is not 1."""
    model = of_architecture(kind)

    def forward() -> object:
        return model(IDS[:rows], MASK[:rows], padded=rows == 2)

    seen = attention(forward, capturing=True)
    assert seen == attention(forward, capturing=False)
    for mask, _ in seen:
        assert (mask is None) == (rows == 1)
        assert mask is None or mask[1][-1] == 1
