"""Settings are read section by section, and are those that YAML says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fuzzing import json_values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altgrad_core.errors import UserError
from altgrad_core.results import objects
from altgrad_core.results.objects import read_settings


def read(folder: Path, text: str | bytes) -> dict[str, Any]:
    path = folder / "spec.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_settings(path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(max_size=5), json_values, min_size=1, max_size=4))
def test_what_is_dumped_is_read(tmp_path: Path, value: dict[str, Any]) -> None:
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    assert repr(read(tmp_path, text)) == repr(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "a: &x [1, 2]\nb: *x\n",
        "{a: 1,\nb: 2}\n",
        "# of a hand\na:\n- 1\n-  b: 2\n# between\nc: |+\n  x\n\n\nd: 3\n",
        "%YAML 1.1\n---\na: 1\n...\n",
        "a: 'one\n  two'\nb: >\n  three\n  four\n? c\n: 5\n",
        "base: &b {x: 1}\n<<: *b\n",
        "a: 1\na: 2\n",
        "\ufeffa: 1\nä: ö\n",
    ],
)
def test_what_hands_write_is_read(tmp_path: Path, text: str) -> None:
    assert read(tmp_path, text) == yaml.safe_load(text)
    assert read(tmp_path, text.removeprefix("\ufeff").encode("utf-16")) == yaml.safe_load(text)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "- 1\n", "word\n", "a: 1\n---\nb: 2\n", "a: [\n", "a: *x\n"]
)
def test_what_are_no_settings_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match=r"spec\.yaml cannot be read"):
        read(tmp_path, text)


def test_a_section_that_runs_share_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    whole = yaml.load

    def load(text: bytes, **options: Any) -> Any:
        parsed.append(text)
        return whole(text, **options)

    monkeypatch.setattr(objects.yaml, "load", load)
    shared = "shared_by_the_runs_of_this_test:\n- 1\n- a: 2\n"
    for seed in (910, 911):
        assert read(tmp_path, f"{shared}seed: {seed}\n")["seed"] == seed
    assert parsed == [shared.encode(), b"seed: 910\n", b"seed: 911\n"]
