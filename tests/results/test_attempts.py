"""Every attempt at a run is on record, and what changed between those that made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.results.attempts import changes, with_attempt
from altgrad_core.results.objects import read_environment

OLD: dict[str, Any] = {"device": "cpu", "threads": 1, "packages": {"torch": "2.10"}}
NEW: dict[str, Any] = {**OLD, "packages": {"torch": "2.11"}}


def begun(*attempts: tuple[dict[str, Any], int | None]) -> dict[str, Any]:
    """What the file holds after attempts that began, and announced themselves before."""
    held: dict[str, Any] = {}
    for environment, step in attempts:
        announced = with_attempt(held, environment, None)
        held = announced if step is None else with_attempt(held, environment, step)
    return held


def test_alike_attempts_are_counted() -> None:
    held = begun((OLD, 0), (OLD, 4), (OLD, 8))
    assert (held["attempts"], held["step"], held["earlier"]) == (3, 0, [])
    assert changes(held) == []


def test_another_one_is_kept_and_told() -> None:
    held = begun((OLD, 0), (OLD, 4), (NEW, 8), (OLD, 9))
    assert [one["packages"]["torch"] for one in held["earlier"]] == ["2.10", "2.11"]
    assert changes(held) == [
        "torch 2.10, from step 8 on 2.11",
        "torch 2.11, from step 9 on 2.10",
    ]


def test_what_came_before_a_new_beginning_has_no_part_in_it() -> None:
    held = begun((OLD, 0), (NEW, 0), (NEW, 5))
    assert len(held["earlier"]) == 1
    assert changes(held) == []


def test_an_attempt_that_never_began_has_no_part_in_it() -> None:
    held = begun((OLD, 0), (NEW, None), (OLD, 4))
    assert (held["earlier"], held["attempts"], changes(held)) == ([], 2, [])


@pytest.mark.parametrize("earlier", [3, [3], [{"packages": 3}], [{"earlier": [{"threads": "x"}]}]])
def test_rubbish_is_refused_in_one_sentence(tmp_path: Path, earlier: Any) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({**OLD, "earlier": earlier}))
    with pytest.raises(UserError, match=r"environment\.json cannot be read"):
        read_environment(tmp_path / "environment.json")
