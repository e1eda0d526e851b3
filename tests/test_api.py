"""``quantize_model`` of the library: what a suite writes may be given here, and errors say what would be right."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from altgrad_core import UserError, load_format, quantize_model
from altgrad_core.quantization.settings import ScalingSettings


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"attn": nn.Linear(8, 8), "mlp": nn.Linear(8, 8)})


def rounded(**options: Any) -> list[torch.Tensor]:
    """The outputs of the two layers with what was asked for."""
    made = model()
    quantize_model(made, **{"format": "e4m3"} | options)
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    return [layer(x) for layer in made.children()]


ALIKE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "format": (
        {"format": {"name": "exmy", "exponent_bits": 3, "mantissa_bits": 2}},
        {"format": load_format("exmy", exponent_bits=3, mantissa_bits=2)},
    ),
    "scaling": (
        {"scaling": {"granularity": "channel", "power_of_two": False}},
        {"scaling": ScalingSettings(granularity="channel", power_of_two=False)},
    ),
    "mode": ({"scaling": "frozen"}, {"scaling": ScalingSettings(mode="frozen")}),
    "mapping": ({"overrides": {"attn": "e5m2"}}, {"overrides": [("attn", "e5m2")]}),
    "suite": (
        {"overrides": [{"pattern": "attn", "format": None}]},
        {"overrides": [("attn", None)]},
    ),
    "kahan": (
        {"residency": "grid", "compensation": "kahan"},
        {"residency": "grid", "compensation": "bf16"},
    ),
    "none": ({"compensation": "none"}, {}),
}


@pytest.mark.parametrize(("words", "objects"), ALIKE.values(), ids=ALIKE)
def test_settings_of_a_suite_mean_what_the_objects_mean(
    words: dict[str, Any], objects: dict[str, Any]
) -> None:
    for a, b in zip(rounded(**words), rounded(**objects), strict=True):
        assert torch.equal(a, b)


def test_each_way_to_write_it_changes_something() -> None:
    plain = torch.cat(rounded())
    for name in ("format", "scaling", "mapping", "suite"):
        assert not torch.equal(torch.cat(rounded(**ALIKE[name][0])), plain), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": torch.float8_e4m3fn}, r"A format is given by its name.*not as torch\.float8"),
        ({"format": {"exponent_bits": 3}}, "A format is given by its name"),
        ({"scaling": "delayd"}, r"scaling\.mode: 'delayd' is not allowed\. Did you mean 'delayed'"),
        ({"scaling": {"granularty": "block"}}, "Did you mean 'granularity'"),
        ({"overrides": ["*attn*"]}, r"An override is a pattern and a format.*not '\*attn\*'"),
        ({"overrides": [{"pattern": "attn"}]}, "An override is a pattern and a format"),
        ({"compensation": "kahan"}, "a master loses nothing"),
        ({"overrides": {"atn": None}}, "'atn' matches no layer"),
    ],
)
def test_what_cannot_be_meant_is_one_clear_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rounded(**options)
