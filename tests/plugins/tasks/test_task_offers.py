"""The offers, the settings, and that planning reads them without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from altgrad_plugins.tasks import altgrad_tasks
from altgrad_plugins.tasks.settings import EurlexSettings, LicenseRulesSettings, ModelSettings

OFFERS = {offer.name: offer for offer in altgrad_tasks()}


def test_there_are_three_tasks_with_data_and_model_sections() -> None:
    assert set(OFFERS) == {"eurlex", "license_rules", "causal_lm"}
    for offer in OFFERS.values():
        assert set(offer.settings.model_fields) == {"data", "model"}
        assert len(offer.summary) <= 80


def test_license_rules_says_how_to_get_its_package() -> None:
    (need,) = OFFERS["license_rules"].needs
    assert (need.kind, need.name) == ("module", "licensedcode")
    assert need.hint == "pip install 'altgrad-bench[demo]'"


def test_fingerprints_are_computed_without_torch(acts: Path) -> None:
    code = f"""
import sys
from importlib import import_module
from altgrad_plugins.tasks import altgrad_tasks
for offer in altgrad_tasks():
    module, name = offer.fingerprint.split(":")
    compute = getattr(import_module(module), name)
    if offer.name in ("eurlex", "causal_lm"):
        settings = offer.settings.model_validate({{"data": {{"path": {str(acts)!r}}}}})
        assert compute(settings)["data"].startswith("sha256:")
for heavy in ("torch", "transformers", "tokenizers", "pandas", "datasets", "pyarrow", "numpy"):
    assert heavy not in sys.modules, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_paths_are_not_part_of_the_identity() -> None:
    for model, name in ((EurlexSettings().data, "path"), (ModelSettings(), "pretrained")):
        extra = type(model).model_fields[name].json_schema_extra
        assert extra == {"identity": False}


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ({"hidden_dim": 100, "num_heads": 3}, r"num_heads \(3\) must divide hidden_dim \(100\)"),
        ({"hidden_dims": 64}, "Extra inputs"),
        ({"dropout": 1.0}, "less than 1"),
        ({"type": "gpt2"}, "bert"),
        ({"pos_weight": "some"}, "balanced"),
        ({"max_length": 3}, "greater than or equal to 4"),
    ],
)
def test_wrong_model_settings_are_refused(section: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        EurlexSettings.model_validate({"model": section})


def test_a_data_setting_of_the_other_task_is_refused() -> None:
    with pytest.raises(ValidationError, match="path"):
        LicenseRulesSettings.model_validate({"data": {"path": "somewhere"}})
