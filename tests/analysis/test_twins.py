"""A/A pairs: which runs ought to be equal, and what it means if they are not."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from altgrad_core.analysis.findings import find
from altgrad_core.analysis.twins import NoiseFloor, Twins, find_twins, noise_floors
from altgrad_core.results.collect import load_results
from altgrad_core.results.stored import read_suite

METRIC = "final/test/f1_micro_tuned"
PAIR = [("e0m7", "e1m6")]


def uneven(fmt: str, side: str, seed: int) -> float:
    return 0.5 + 0.01 * seed + (0.02 if fmt == "e1m6" and side != "adamw" else 0.0)


def twins_of(planted: ModuleType, f: ModuleType, folder: Path, **more: Any) -> tuple[Twins, ...]:
    given = {"formats": ["e0m7", "e1m6"], "seeds": [0, 1], **more}
    planted.write_suite(f, folder, given.pop("score", uneven), **given)
    return find(read_suite(folder), PAIR).twins


def test_equal_grids_are_compared_all_else_equal(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    found = twins_of(planted, fabricated, tmp_path)
    assert [(t.setting, t.seed, t.equal) for t in found] == [
        ("adamw", 0, True),
        ("adamw", 1, True),
        ("manifold_adamw", 0, False),
        ("manifold_adamw", 1, False),
    ]
    assert [t.difference for t in found] == pytest.approx([0, 0, 0.02, 0.02])
    assert [t.broken for t in found] == [False, False, True, True]
    (floor,) = noise_floors(found)
    assert floor.largest == pytest.approx(0.02)


def test_formats_that_were_not_run_have_no_twins(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    planted.write_suite(fabricated, tmp_path, uneven, formats=["e5m2", "bf16"], seeds=[0])
    results = load_results(tmp_path)
    assert find_twins(results, METRIC, [("bf16", "absent")]) == []
    assert find_twins(results, METRIC, []) == []
    assert noise_floors([]) == []


def test_other_scales_promise_nothing(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    given = {"scaling": {"mode": "current", "power_of_two": False}}
    found = twins_of(planted, fabricated, tmp_path, quantization=given)
    assert [t.promised for t in found] == [False] * 4
    assert not any(t.broken for t in found)


def test_scales_of_activations_count_too(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    given = {
        "scaling": {"power_of_two": True},
        "activation_scaling": {"power_of_two": False},
        "gradient_scaling": None,
    }
    found = twins_of(planted, fabricated, tmp_path, quantization=given)
    assert not any(t.promised for t in found)


def test_another_machine_promises_nothing(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    found = twins_of(
        planted, fabricated, tmp_path, environment=lambda fmt: {"device_name": f"card of {fmt}"}
    )
    assert not any(t.promised for t in found)


def test_without_their_settings_it_is_not_known_what_runs_promise(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    twins_of(planted, fabricated, tmp_path)
    found = find_twins(load_results(tmp_path), METRIC, PAIR)
    assert [t.promised for t in found] == [None] * 4
    assert not any(t.broken for t in found)


def test_two_diverged_runs_are_not_equal_and_one_is_a_difference(
    planted: ModuleType, fabricated: ModuleType, tmp_path: Path
) -> None:
    def score(fmt: str, side: str, seed: int) -> float | None:
        return None if seed == 0 or fmt == "e0m7" else 0.4

    found = twins_of(planted, fabricated, tmp_path, score=score)
    assert [(t.seed, t.difference) for t in found] == [(1, 0.4), (1, 0.4)]


def test_the_largest_difference_is_the_floor() -> None:
    assert NoiseFloor(("a", "b"), (0.1, 0.3, 0.2)).largest == 0.3
