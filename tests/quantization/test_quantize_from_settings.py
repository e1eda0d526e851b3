"""The `quantization` section of a suite, carried out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.from_settings import quantize_from_settings
from altgrad_core.quantization.report import QuantizationReport
from altgrad_core.quantization.settings import FormatChoice, QuantizationSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

HEAD = ("classifier",)


def model() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "encoder": nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]),
            "classifier": nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)),
        }
    )


def quantize(head: tuple[str, ...] = HEAD, **settings: Any) -> tuple[QuantizationReport, list[str]]:
    loaded: list[str] = []

    def load(choice: FormatChoice) -> Format:
        loaded.append(choice.name)
        return load_format(choice.name, **choice.settings)

    net = model()
    report = quantize_from_settings(net, QuantizationSettings(**settings), head, load)
    return report, loaded


def test_the_head_is_left_alone_by_default() -> None:
    report, loaded = quantize(format="e5m2")
    assert report.layers == {"encoder.0": "e5m2", "encoder.1": "e5m2"}
    assert report.skipped == {
        "classifier.0": "head, quantize_classifier: false",
        "classifier.2": "head, quantize_classifier: false",
    }
    assert loaded == ["e5m2"]


def test_encoder_and_classifier_have_switches_of_their_own() -> None:
    everything, _ = quantize(format="e5m2", quantize_classifier=True)
    assert len(everything.layers) == 4
    head, _ = quantize(format="e5m2", quantize_classifier=True, quantize_encoder=False)
    assert list(head.layers) == ["classifier.0", "classifier.2"]
    assert head.skipped["encoder.0"] == "quantize_encoder: false"
    nothing, _ = quantize(format="e5m2", quantize_encoder=False)
    assert not nothing.layers


def test_overrides_come_last_and_each_format_is_built_once() -> None:
    report, loaded = quantize(
        format="e5m2",
        activation_format="e5m2",
        overrides=[
            {"pattern": "encoder.1", "format": "bf16"},
            {"pattern": "classifier.2", "format": "bf16"},
            {"pattern": "encoder.0", "format": None},
        ],
    )
    assert report.layers == {"encoder.1": "bf16", "classifier.2": "bf16"}
    assert report.skipped["encoder.0"] == "override 'encoder.0': null"
    assert report.activation_format == "e5m2"
    assert sorted(loaded) == ["bf16", "e5m2"]


def of_embedding(head: str, **settings: Any) -> QuantizationReport:
    net = nn.ModuleDict({"embed": nn.Embedding(4, 4), "norm": nn.LayerNorm(4)})
    if head != "all":
        net["body"] = nn.Linear(4, 4)
    heads = ("embed", "norm") if head == "all" else (head,)
    choice = QuantizationSettings(format="e5m2", **settings)
    return quantize_from_settings(net, choice, heads, lambda c: load_format(c.name))


def test_a_head_that_cannot_be_quantised_says_so_where_it_is_asked_for() -> None:
    assert list(of_embedding("embed").layers) == ["body"]
    with pytest.raises(
        UserError, match=r"head 'embed' matches only .*'embed': Embedding is a type"
    ):
        of_embedding("embed", quantize_classifier=True)
    with pytest.raises(UserError, match=r"head 'norm' matches no layer .* Those are: body"):
        of_embedding("norm", quantize_classifier=True)


def test_so_does_a_model_of_which_nothing_can_be() -> None:
    with pytest.raises(UserError, match=r"no layer that can be quantised: 'embed': Embedding is"):
        of_embedding("all")
    assert not of_embedding("all", quantize_encoder=False).layers
    with pytest.raises(UserError, match="no module of it holds a matrix"):
        quantize_model(nn.ReLU(), load_format("e5m2"))


def test_patterns_must_match() -> None:
    with pytest.raises(
        UserError, match=r"'encoder\.9' matches no layer of the model that can.*encoder\.0"
    ):
        quantize(format="e5m2", overrides=[{"pattern": "encoder.9", "format": None}])
    with pytest.raises(UserError, match=r"its head is 'head'.*classifier"):
        quantize(head=("head",), format="e5m2")
    assert len(quantize(head=(), format="e5m2")[0].layers) == 4
