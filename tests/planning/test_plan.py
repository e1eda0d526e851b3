from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.planning.plan import Plan
from altgrad_core.registry.catalog import Catalog

PlanOf = Callable[..., Plan]

MATRIX = """\
matrix:
  quantization.format: [bf16, e5m2]
  optimizer.type: [adamw, manifold_adamw]
"""
FOUR = ["bf16_adamw", "bf16_manifold", "e5m2_adamw", "e5m2_manifold"]


def names(plan: Plan) -> list[tuple[str, int]]:
    return [(cell.label, cell.seed) for cell in plan.cells]


def test_all_conditions_of_a_seed_come_before_the_next_seed(plan_of: PlanOf) -> None:
    plan = plan_of(MATRIX + "seeds: [4, 0]")
    assert names(plan) == [(label, seed) for seed in (4, 0) for label in FOUR]
    assert len({spec.id for spec in plan.specs}) == 8
    assert all(cell.skip is None for cell in plan.cells)


def test_a_spec_is_complete(plan_of: PlanOf) -> None:
    plan = plan_of(MATRIX + "monitors: [rank]\ntrackers: [jsonl]\ntraining: {max_steps: 7}")
    spec = plan.specs[-1]
    assert spec.task.name == "texts"
    assert spec.task.settings == {
        "data": {"path": None, "rows": 100},
        "model": {"width": 8, "pretrained": None},
    }
    assert spec.optimizer.name == "manifold_adamw"
    assert spec.optimizer.settings == {"weight_decay": 0.01, "site": "both", "cache": "cache"}
    assert spec.quantization.format.name == "e5m2"
    assert spec.training.max_steps == 7
    assert spec.training.batch_size == 16
    assert [m.model_dump() for m in spec.monitors] == [
        {"name": "rank", "settings": {"interval": 10}}
    ]
    assert [t.name for t in spec.trackers] == ["jsonl"]
    assert spec.distributions["stubs"] == "1.0"
    assert set(spec.distributions) == {"stubs", "altgrad-bench"}
    assert spec.fingerprint == {"rows": "hash of 100"}
    assert (spec.suite, spec.condition, spec.seed) == ("tried", "e5m2_manifold", 0)
    assert spec.axes == {"quantization.format": "e5m2", "optimizer.type": "manifold_adamw"}


def test_formats_are_completed_wherever_they_stand(plan_of: PlanOf) -> None:
    text = """\
        quantization:
          format: {name: exmy, exponent_bits: 3}
          activation_format: {name: exmy, exponent_bits: 4, mantissa_bits: 1}
          overrides:
            - {pattern: "*.query", format: {name: exmy, settings: {exponent_bits: 5}}}
            - {pattern: "*.head", format: null}
        """
    quantization = plan_of(text).specs[0].quantization
    assert quantization.format.settings == {
        "exponent_bits": 3,
        "mantissa_bits": 2,
        "overflow": "saturate",
    }
    assert quantization.activation_format is not None
    assert quantization.activation_format.settings["mantissa_bits"] == 1
    first, second = quantization.overrides
    assert first.format is not None
    assert first.format.settings["exponent_bits"] == 5
    assert first.format.settings["mantissa_bits"] == 2
    assert second.format is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training: {max_step: 3}",
            "s.yaml, line 4: training.max_step: unknown key 'max_step'. Did you mean 'max_steps'? "
            "Allowed: batch_size, ",
        ),
        (
            "training:\n  max_steps: lots",
            "s.yaml, line 5: training.max_steps: input should be a valid integer, unable to parse "
            "string as an integer, got 'lots'",
        ),
        (
            "training: {schedule: cosin}",
            "s.yaml, line 4: training.schedule: 'cosin' is not allowed. Did you mean 'cosine'? "
            "Allowed: constant, linear, cosine.",
        ),
        (
            "matrix:\n  quantization.format:\n    - bf16\n    - e5m1",
            "s.yaml, line 7: quantization.format: unknown format 'e5m1'. Did you mean 'e5m2'? "
            "Allowed: bf16, e5m2, e3m4, exmy, unlabelled, rare.",
        ),
        (
            "quantization:\n  format:\n    name: exmy",
            "s.yaml, line 5: quantization.format.exponent_bits: this key is required",
        ),
        (
            "quantization:\n  format:\n    name: exmy\n    exponent_bits: three",
            "s.yaml, line 7: quantization.format.exponent_bits: input should be a valid integer",
        ),
        (
            "quantization:\n  overrides:\n  - pattern: a\n    format: e3m5",
            "s.yaml, line 7: quantization.overrides[0].format: unknown format 'e3m5'",
        ),
        (
            "quantization:\n  overrides:\n  - patern: a\n    format: e3m4",
            "s.yaml, line 6: quantization.overrides[0].pattern: this key is required\n"
            "s.yaml, line 6: quantization.overrides[0].patern: unknown key 'patern'. "
            "Did you mean 'pattern'",
        ),
        (
            "matrix:\n  optimizer:\n  - adamw\n  - type: manifold_adamw\n    sites: pre",
            "s.yaml, line 8: optimizer.sites: unknown key 'sites'. Did you mean 'site'",
        ),
        (
            "matrix: {optimizer.type: [adamw, manifold_adam]}",
            "s.yaml, line 4: optimizer.type: unknown optimizer 'manifold_adam'. Did you mean "
            "'manifold_adamw'",
        ),
        (
            "model: {widht: 3}",
            "s.yaml, line 4: model.widht: unknown key 'widht'. Did you mean 'width'? "
            "Allowed: width, pretrained.",
        ),
        (
            "monitors: [flip]",
            "s.yaml, line 4: monitors.flip: unknown monitor 'flip'. Did you mean 'flips'",
        ),
        (
            "monitors:\n- rank:\n    intervall: 3",
            "s.yaml, line 6: monitors.rank.intervall: unknown key 'intervall'. Did you mean 'interval'",
        ),
        ("monitors: {all: {interval: 3}}", "s.yaml, line 4: monitors.all: this takes no settings"),
        ("trackers: [wandb]", "s.yaml, line 4: trackers.wandb: unknown tracker 'wandb'"),
        (
            "exclude: [{quantization.fromat: e5m2}]",
            "s.yaml, line 4: quantization.fromat: unknown key 'fromat'. Did you mean 'format'",
        ),
        ("exclude: [{optimizer.sites: a}]", "unknown key 'sites'. Did you mean 'site'"),
        ("exclude: [{model.deep: a}]", "unknown key 'deep'"),
        ("exclude: [{monitors.lips: a}]", "unknown key 'lips'. Did you mean 'flips'"),
    ],
)
def test_a_wrong_setting_is_said_with_its_place(plan_of: PlanOf, text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_of(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("optimizer: adamw", "^s.yaml: data.dataset: the name of the task is missing"),
        ("data: {dataset: 3}\noptimizer: adamw", "data.dataset: the name of the task is 3"),
        ("data: {dataset: text}\noptimizer: adamw", "unknown task 'text'. Did you mean 'texts'"),
        (
            "data: {dataset: texts}",
            "optimizer.type: the name of the optimizer is missing. Allowed: adamw",
        ),
        ("data: {dataset: texts, row: 3}\noptimizer: adamw", "line 1: data.row: unknown key 'row'"),
    ],
)
def test_a_task_and_an_optimizer_must_be_named(plan_of: PlanOf, base: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan_of("", base=base)


def test_the_wrong_override_is_named_and_not_the_file(plan_of: PlanOf) -> None:
    with pytest.raises(UserError, match=r"^--set training.max_steps=x: training.max_steps: input"):
        plan_of("training: {max_steps: 3}", "training.max_steps=x")


def test_a_list_for_what_is_no_axis_is_told_how_to_become_one(plan_of: PlanOf) -> None:
    axis = r"\. Several values make an axis: matrix\.training\.max_steps"
    with pytest.raises(UserError, match=axis):
        plan_of("training: {max_steps: 3}", "training.max_steps=[3, 4]")
    with pytest.raises(UserError, match=axis):
        plan_of("training: {max_steps: [3, 4]}")
    with pytest.raises(UserError, match=r"got \[3, 'x'\]$"):
        plan_of("training: {max_steps: 3}", "training.max_steps=[3, x]")


def test_all_monitors_are_those_that_can_run_here_by_name(plan_of: PlanOf) -> None:
    spec = plan_of("monitors: [all, {rank: {interval: 3}}]").specs[0]
    assert [(m.name, m.settings["interval"]) for m in spec.monitors] == [("flips", 10), ("rank", 3)]
    assert [m.name for m in plan_of("", "monitors=all").specs[0].monitors] == ["flips", "rank"]
    off = plan_of("monitors: all", "monitors.rank=false").specs[0]
    assert [m.name for m in off.monitors] == ["flips"]


def test_the_order_of_monitors_does_not_matter(plan_of: PlanOf) -> None:
    one, other = plan_of("monitors: [rank, flips]"), plan_of("monitors: [flips, rank]")
    assert one.specs[0].id == other.specs[0].id


# ---- skips -----------------------------------------------------------------------------------


def test_cells_that_lack_something_are_skipped_with_the_reason(plan_of: PlanOf) -> None:
    plan = plan_of("matrix: {quantization.format: [bf16, rare]}")
    assert [cell.spec is None for cell in plan.cells] == [False, True]
    assert plan.cells[1].label == "rare_adamw"
    assert plan.cells[1].axes == {"quantization.format": "rare"}
    assert plan.cells[1].skip == (
        "format rare needs the Python module 'a_module_that_nobody_has' (pip install it)"
    )


def test_wrong_settings_of_a_cell_that_would_be_skipped_are_still_an_error(
    plan_of: PlanOf,
) -> None:
    with pytest.raises(UserError, match=r"training\.max_steps"):
        plan_of("matrix: {quantization.format: [bf16, rare]}\ntraining: {max_steps: -1}")


def test_a_suite_that_expands_to_nothing_says_why(plan_of: PlanOf) -> None:
    with pytest.raises(
        UserError, match=r"s.yaml: the suite 'tried' has no cell to run: task needy needs"
    ):
        plan_of("", base="data: {dataset: needy}\noptimizer: adamw\nname: tried\n")
    with pytest.raises(UserError, match="has no cell to run: every cell is excluded"):
        plan_of(MATRIX + "exclude: [{optimizer.type: [adamw, manifold_adamw]}]")


def test_an_explicit_monitor_that_cannot_run_skips_and_a_tracker_does_not(plan_of: PlanOf) -> None:
    with pytest.raises(UserError, match="no cell to run: monitor lab needs"):
        plan_of("monitors: [lab]")
    plan = plan_of("trackers: [jsonl, cloud]")
    assert [t.name for t in plan.specs[0].trackers] == ["jsonl"]
    assert plan.notes == (
        "tracker cloud is left out: it needs the Python module 'a_module_that_nobody_has' "
        "(pip install it)",
    )


def test_data_of_a_skipped_cell_is_not_looked_at(plan_of: PlanOf, stub_module: Any) -> None:
    plan_of("matrix: {data.dataset: [texts, needy]}")
    assert len(stub_module.calls) == 1


def test_each_data_set_is_identified_once(plan_of: PlanOf, stub_module: Any) -> None:
    plan = plan_of(MATRIX + "  data.rows: [1, 2]\nseeds: [0, 1, 2]")
    assert len(plan.specs) == 24
    assert sorted(settings.data.rows for settings in stub_module.calls) == [1, 2]


# ---- exclusion and merging -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exclude", "left"),
    [
        ("{quantization.format: e5m2}", FOUR[:2]),
        ("{quantization: {format: e5m2}, optimizer: {type: adamw}}", [*FOUR[:2], FOUR[3]]),
        (
            "{optimizer.type: manifold_adamw, quantization.format: [bf16, e3m4]}",
            [FOUR[0], *FOUR[2:]],
        ),
        ("{optimizer.site: both}", ["bf16_adamw", "e5m2_adamw"]),  # a default
        ("{training.max_steps: 5000, optimizer.type: adamw}", ["bf16_manifold", "e5m2_manifold"]),
        ("{optimizer: adamw}", ["bf16_manifold", "e5m2_manifold"]),
        ("{training.max_steps: 4}", FOUR),
        ("{quantization.quantize_encoder: 1}", FOUR),  # true is not 1
    ],
)
def test_exclusion(plan_of: PlanOf, exclude: str, left: list[str]) -> None:
    plan = plan_of(f"{MATRIX}exclude: [{exclude}]")
    assert [cell.label for cell in plan.cells] == left
    noted = "s.yaml, line 7: exclude matches no cell" in plan.notes
    assert noted == (left == FOUR)


def test_an_excluded_cell_need_not_be_valid(plan_of: PlanOf) -> None:
    text = MATRIX + "  optimizer.site: [pre]\nexclude: [{optimizer.type: adamw}]"
    assert [cell.label for cell in plan_of(text).cells] == ["bf16_manifold", "e5m2_manifold"]


def test_exclusion_by_seed(plan_of: PlanOf) -> None:
    plan = plan_of(MATRIX + "seeds: [0, 1]\nexclude: [{seed: 1, optimizer.type: adamw}]")
    assert names(plan) == [
        *((label, 0) for label in FOUR),
        ("bf16_manifold", 1),
        ("e5m2_manifold", 1),
    ]


def test_conditions_that_are_the_same_run_are_one(plan_of: PlanOf) -> None:
    text = MATRIX + "include: [{quantization.format: bf16}, {quantization.format: e3m4}]"
    plan = plan_of(text)
    assert [cell.label for cell in plan.cells] == [*FOUR, "e3m4_adamw"]
    assert plan.notes == ("1 of the conditions repeat others and are not run twice",)


def test_conditions_that_differ_in_trackers_alone_are_one(plan_of: PlanOf) -> None:
    plan = plan_of("matrix: {trackers: [[jsonl], []]}")
    assert len(plan.cells) == 1


def test_an_override_that_makes_conditions_equal_merges_them(plan_of: PlanOf) -> None:
    plan = plan_of(MATRIX, "optimizer={type: adamw}")
    assert [cell.label for cell in plan.cells] == ["bf16_adamw", "e5m2_adamw"]


# ---- axes and labels -------------------------------------------------------------------------


def test_further_axes_are_appended_where_labels_would_be_ambiguous(plan_of: PlanOf) -> None:
    plan = plan_of("matrix: {training.learning_rate: [1e-3, 2e-5], optimizer.type: [adamw]}")
    assert [cell.label for cell in plan.cells] == [
        "bf16_adamw_learning_rate=0.001",
        "bf16_adamw_learning_rate=2e-05",
    ]
    text = MATRIX + "include: [{training.max_steps: 9}]\nquantization: {format: bf16}"
    assert [cell.label for cell in plan_of(text).cells] == [
        "bf16_adamw_max_steps=5000",
        *FOUR[1:],
        "bf16_adamw_max_steps=9",
    ]


def test_what_follows_from_another_axis_is_no_axis_of_its_own(plan_of: PlanOf) -> None:
    zipped = "{optimizer.type: [adamw, manifold_adamw], training.learning_rate: [1e-3, 2e-3]}"
    plan = plan_of(f"matrix: {{quantization.format: [bf16, e5m2]}}\nzip: {zipped}")
    assert [cell.label for cell in plan.cells] == FOUR
    assert [spec.training.learning_rate for spec in plan.specs] == [1e-3, 2e-3] * 2
    assert all(list(cell.axes) == ["quantization.format", "optimizer.type"] for cell in plan.cells)


def test_settings_of_one_optimizer_alone_are_no_axis(plan_of: PlanOf) -> None:
    plan = plan_of(
        "matrix: {quantization.format: [bf16, e5m2], "
        "optimizer: [adamw, {type: manifold_adamw, site: pre}]}"
    )
    assert [cell.label for cell in plan.cells] == FOUR
    assert plan.cells[3].axes == {"quantization.format": "e5m2", "optimizer.type": "manifold_adamw"}
    assert plan.suite.contrast is not None
    assert plan.suite.contrast.treatment == "manifold_adamw"


def test_formats_with_settings_have_labels_of_their_own(plan_of: PlanOf) -> None:
    plan = plan_of(
        "matrix: {quantization.format: [{name: exmy, exponent_bits: 3}, "
        "{name: unlabelled, exponent_bits: 3}, {name: unlabelled, exponent_bits: 4}]}"
    )
    assert [cell.label for cell in plan.cells] == [
        "x3m2_adamw",
        "unlabelled_adamw_format=unlabelled-exponent_bits=3",
        "unlabelled_adamw_format=unlabelled-exponent_bits=4",
    ]
    assert plan.cells[0].axes == {"quantization.format": {"name": "exmy", "exponent_bits": 3}}


# ---- output ----------------------------------------------------------------------------------


def test_the_plan_as_json(plan_of: PlanOf) -> None:
    plan = plan_of(
        "matrix: {quantization.format: [bf16, rare], optimizer.type: [adamw, manifold_adamw]}"
    )
    data = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert data["suite"] == "tried"
    assert data["contrast"]["treatment"] == "manifold_adamw"
    assert [cell["condition"] for cell in data["cells"]] == [cell.label for cell in plan.cells]
    assert data["cells"][0]["id"] == plan.specs[0].id == data["cells"][0]["spec"]["id"]
    assert data["cells"][2]["id"] is None
    assert "needs the Python module" in data["cells"][2]["skip"]


def test_broken_data_stops_the_plan(plan_of: PlanOf, stub_module: Any) -> None:
    def refuse(settings: Any) -> dict[str, str]:
        raise UserError("the file is missing")

    stub_module.fingerprint = refuse
    with pytest.raises(UserError, match="the file is missing"):
        plan_of("")


def test_planning_uses_the_given_plugins_alone(plan_of: PlanOf, stubs: Catalog) -> None:
    with pytest.raises(UserError, match="unknown format 'e7m0'"):
        plan_of("quantization: {format: e7m0}")
    assert "e7m0" not in stubs.names("format")


# ---- settings for one optimizer alone --------------------------------------------------------


def test_settings_under_an_optimizers_name_are_for_it_alone(plan_of: PlanOf) -> None:
    plan = plan_of(
        MATRIX + "optimizer: {weight_decay: 0.5, adamw: {weight_decay: 0.1}}",
        "optimizer.manifold_adamw.site=pre",
        base="name: tried\ndata: {dataset: texts}\n",
    )
    adamw, manifold = plan.specs[:2]
    assert adamw.optimizer.settings == {"weight_decay": 0.1}
    assert manifold.optimizer.settings == {"weight_decay": 0.5, "site": "pre", "cache": "cache"}
    direct = plan_of("", "optimizer={type: manifold_adamw, weight_decay: 0.5, site: pre}")
    assert direct.specs[0].id == manifold.id


def test_they_can_be_an_axis_that_the_others_do_not_have(plan_of: PlanOf) -> None:
    text = "  optimizer.manifold_adamw.site: [pre, post]"
    plan = plan_of(MATRIX + text, "quantization.format=bf16")
    assert [cell.label for cell in plan.cells] == [
        "bf16_adamw",
        "bf16_manifold_pre",
        "bf16_manifold_post",
    ]
    key = "optimizer.manifold_adamw.site"
    assert [cell.axes.get(key) for cell in plan.cells] == [None, "pre", "post"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.site=pre",
            "--set optimizer.site=pre: optimizer.site: adamw has no such setting, manifold_adamw "
            "has: for one optimizer alone, write optimizer.manifold_adamw.site",
        ),
        (
            "optimizer.manifold_adamw.site=per",
            "--set optimizer.manifold_adamw.site=per: optimizer.manifold_adamw.site: 'per' is not "
            "allowed. Did you mean 'pre'?",
        ),
        (
            "optimizer.manifold_adamw.sight=pre",
            "optimizer.manifold_adamw.sight: unknown key 'sight'. Did you mean 'site'?",
        ),
        ("optimizer.manifold_adamw=3", "optimizer.manifold_adamw: expected the settings of"),
        ("optimizer.manifold=3", "optimizer.manifold: unknown key 'manifold'"),
    ],
)
def test_wrong_settings_for_one_optimizer(plan_of: PlanOf, override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        plan_of(MATRIX, override)
    assert message in str(caught.value)


def test_settings_that_make_no_sense_together_are_skipped_with_the_reason(plan_of: PlanOf) -> None:
    plan = plan_of(
        """
        matrix:
          quantization.residency: [master, grid]
          quantization.compensation: [none, kahan]
        """
    )
    skips = {cell.label: cell.skip for cell in plan.cells}
    assert list(skips) == [
        "bf16_adamw_master",
        "bf16_adamw_master_kahan",
        "bf16_adamw_grid",
        "bf16_adamw_grid_kahan",
    ]
    assert skips["bf16_adamw_master_kahan"] is not None
    assert "a master loses nothing" in skips["bf16_adamw_master_kahan"]
    assert sum(skip is not None for skip in skips.values()) == 1
