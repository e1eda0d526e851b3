from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.planning.declaration import Suite
from altgrad_core.planning.suite import load_suite, shipped_suites

SuiteOf = Callable[..., Suite]


def values(suite: Suite, *paths: str) -> list[tuple[Any, ...]]:
    """The raw values at dotted paths of every condition, in order."""
    found = []
    for draft in suite.drafts():
        row = []
        for path in paths:
            here: Any = draft.values
            for key in path.split("."):
                here = here.get(key) if isinstance(here, dict) else None
            row.append(here)
        found.append(tuple(row))
    return found


# ---- the file --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainig: {max_steps: 3}", "line 4: unknown section 'trainig'. Did you mean 'training'"),
        ("training: [1]", "line 4: training: this section is a mapping of settings, got"),
        ("optimizer: 3", "'optimizer' is given twice"),
        ("seeds: 3", "line 4: seeds: a list of different whole numbers"),
        ("seeds: [0, 0]", "line 4: seeds: a list of different"),
        ("seeds: [true]", "line 4: seeds: a list of different"),
        ("seeds: [-1]", "line 4: seeds: a list of different"),
        ("seeds: []", "line 4: seeds: a list of different"),
        ("description: [a]", "line 4: description: this is a text"),
        ("matrix: {training.max_steps: 5}", "line 4: matrix: training.max_steps needs a list"),
        ("matrix: {training.max_steps: []}", "line 4: matrix: training.max_steps needs a list"),
        ("matrix: {trainign.max_steps: [1]}", "line 4: .*unknown section 'trainign'. Did you mean"),
        ("matrix: {seed: [1, 2]}", "line 4: .*unknown section 'seed'. Did you mean 'seeds'"),
        ("matrix: {training..x: [1]}", "line 4: "),
        ("matrix: [1]", "line 4: matrix: expected settings as section.key: value"),
        (
            "zip: {training.max_steps: [1, 2], training.learning_rate: [1]}",
            "line 4: zip: its lists must be of one length: training.max_steps has 2, "
            "training.learning_rate has 1",
        ),
        ("zip: {}", "line 4: zip: its lists must be of one length: it is empty"),
        (
            "matrix: {training.max_steps: [1]}\nzip: {training.max_steps: [2]}",
            "line 5: training.max_steps is an axis twice",
        ),
        ("include: {training.max_steps: 1}", "line 4: include: expected a list"),
        ("include:\n- training.max_steps: 1\n- 7", "line 6: include: expected settings"),
        ("exclude: [{}]", "line 4: exclude: this entry is empty"),
        ("exclude: [{optimiser.type: adamw}]", "line 4: exclude: unknown section 'optimiser'"),
        ("monitors: [flips, 3]", "line 4: monitors: expected a name"),
        ("monitors:\n- flips\n- flips: {interval: 3}", "line 6: monitors: 'flips' is given twice"),
        ("contrast: {axis: optimizer.type}", "line 4: contrast.baseline: this key is required"),
        (
            "contrast: {baseline: adamw, treatment: b, base: c}",
            "line 4: contrast.base: unknown key 'base'. Did you mean 'baseline'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line(suite_of: SuiteOf, text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^s.yaml, {message}" if "line" in message else message):
        suite_of(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml: the suite is empty; it has the sections model, data"),
        ("[1, 2]", "s.yaml, line 1: the suite is not a mapping"),
        ("name: a/b", "s.yaml, line 1: name: 'a/b' cannot be a folder's name"),
        ("name: .hidden", "cannot be a folder's name"),
        ("name: 3", "this is a text, and YAML reads 3: put it in quotes"),
    ],
)
def test_a_file_that_is_no_suite(suite_of: SuiteOf, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        suite_of(text, base="")


def test_what_a_suite_is_without_more(suite_of: SuiteOf) -> None:
    suite = suite_of("", base="data: {dataset: texts}")
    assert (suite.name, suite.description, suite.seeds) == ("s", "", (0,))
    assert values(suite, "data.dataset") == [("texts",)]
    assert suite.contrast is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("monitors: all", {"all": None}),
        ("monitors: flips", {"flips": None}),
        ("monitors: [flips, rank]", {"flips": None, "rank": None}),
        ("monitors: [all, {rank: {interval: 5}}]", {"all": None, "rank": {"interval": 5}}),
        ("monitors: {rank: {interval: 5}, flips:}", {"rank": {"interval": 5}, "flips": None}),
        ("monitors:", {}),
        ("monitors: []", {}),
    ],
)
def test_shapes_of_a_list_of_plugins(suite_of: SuiteOf, text: str, named: dict[str, Any]) -> None:
    assert values(suite_of(text), "monitors") == [(named,)]


# ---- axes ------------------------------------------------------------------------------------

MATRIX = """\
matrix:
  quantization.format: [bf16, e5m2, e3m4]
  optimizer.type: [adamw, manifold_adamw]
"""


def test_the_matrix_is_the_cartesian_product_and_its_last_axis_varies_fastest(
    suite_of: SuiteOf,
) -> None:
    suite = suite_of(MATRIX + "  training.max_steps: [1, 2]\n")
    expected = itertools.product(["bf16", "e5m2", "e3m4"], ["adamw", "manifold_adamw"], [1, 2])
    paths = ("quantization.format", "optimizer.type", "training.max_steps")
    assert values(suite, *paths) == list(expected)


def test_zipped_axes_move_together_inside_the_product(suite_of: SuiteOf) -> None:
    zipped = "{optimizer.type: [adamw, manifold_adamw], training.learning_rate: [1e-3, 2e-3]}"
    suite = suite_of(f"matrix: {{training.max_steps: [1, 2]}}\nzip: {zipped}")
    pairs = [("adamw", 1e-3), ("manifold_adamw", 2e-3)]
    expected = [(steps, *pair) for steps in (1, 2) for pair in pairs]
    paths = ("training.max_steps", "optimizer.type", "training.learning_rate")
    assert values(suite, *paths) == expected


def test_several_zips_are_several_axes(suite_of: SuiteOf) -> None:
    suite = suite_of(
        """\
        zip:
          - {training.max_steps: [1, 2], training.batch_size: [10, 20]}
          - {training.warmup_steps: [3, 4]}
        """
    )
    paths = ("training.max_steps", "training.batch_size", "training.warmup_steps")
    assert values(suite, *paths) == [(1, 10, 3), (1, 10, 4), (2, 20, 3), (2, 20, 4)]


def test_a_section_as_an_axis_is_merged_into_the_base(suite_of: SuiteOf) -> None:
    suite = suite_of(
        """\
        optimizer: {weight_decay: 0.5}
        matrix:
          optimizer:
            - adamw
            - {type: manifold_adamw, site: post}
        """,
        base="data: {dataset: texts}\n",
    )
    assert values(suite, "optimizer") == [
        ({"weight_decay": 0.5, "type": "adamw"},),
        ({"weight_decay": 0.5, "type": "manifold_adamw", "site": "post"},),
    ]
    assert suite.axis_keys() == ["optimizer.type", "optimizer.site"]


def test_a_deeper_mapping_replaces_what_was_there(suite_of: SuiteOf) -> None:
    suite = suite_of(
        """\
        quantization: {format: {name: exmy, exponent_bits: 3, mantissa_bits: 2}}
        matrix: {quantization.format: [{name: exmy, exponent_bits: 4}, e5m2]}
        """
    )
    assert values(suite, "quantization.format") == [
        ({"name": "exmy", "exponent_bits": 4},),
        ("e5m2",),
    ]


def test_included_cells_come_after_the_product_on_top_of_the_base(suite_of: SuiteOf) -> None:
    suite = suite_of(
        """\
        training: {max_steps: 7, batch_size: 3}
        matrix: {optimizer.type: [adamw, manifold_adamw]}
        include:
          - {training.max_steps: 9, quantization: {format: e3m4}}
        """
    )
    paths = ("optimizer.type", "training.max_steps", "training.batch_size", "quantization.format")
    assert values(suite, *paths) == [
        ("adamw", 7, 3, None),
        ("manifold_adamw", 7, 3, None),
        ("adamw", 9, 3, "e3m4"),
    ]


def test_included_cells_alone_are_all_there_is(suite_of: SuiteOf) -> None:
    suite = suite_of("include: [{training.max_steps: 1}, {training.max_steps: 2}]")
    assert values(suite, "training.max_steps") == [(1,), (2,)]


def test_cells_do_not_share_their_values(suite_of: SuiteOf) -> None:
    suite = suite_of("matrix: {optimizer: [{type: adamw}]}\nquantization: {overrides: [{a: 1}]}")
    first, second = next(suite.drafts()), next(suite.drafts())
    first.values["quantization"]["overrides"][0]["a"] = 2
    first.values["optimizer"]["type"] = "other"
    assert second.values["quantization"]["overrides"] == [{"a": 1}]
    assert second.values["optimizer"] == {"type": "adamw"}


# ---- contrast --------------------------------------------------------------------------------


def test_the_usual_contrast_is_first_against_second_optimizer(suite_of: SuiteOf) -> None:
    contrast = suite_of(MATRIX).contrast
    assert contrast is not None
    assert (contrast.axis, contrast.baseline, contrast.treatment) == (
        "optimizer.type",
        "adamw",
        "manifold_adamw",
    )


def test_three_optimizers_have_no_usual_contrast(suite_of: SuiteOf) -> None:
    assert suite_of("matrix: {optimizer.type: [a, b, c]}").contrast is None


def test_a_contrast_of_another_axis(suite_of: SuiteOf) -> None:
    text = "contrast: {axis: training.max_steps, baseline: 1, treatment: 2, metric: m}"
    contrast = suite_of(f"matrix: {{training.max_steps: [1, 2]}}\n{text}").contrast
    assert contrast is not None
    assert (contrast.baseline, contrast.treatment, contrast.metric) == ("1", "2", "m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{baseline: adam, treatment: manifold_adamw}", "baseline: unknown value 'adam'.*'adamw'"),
        (
            "{axis: optimiser.type, baseline: a, treatment: b}",
            "axis: unknown axis 'optimiser.type'",
        ),
    ],
)
def test_a_contrast_of_what_there_is_not(suite_of: SuiteOf, text: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^s.yaml, line 7: contrast.{message}"):
        suite_of(f"{MATRIX}contrast: {text}")


def test_an_override_that_takes_a_side_away_takes_the_contrast_too(suite_of: SuiteOf) -> None:
    text = f"{MATRIX}contrast: {{baseline: adamw, treatment: manifold_adamw}}"
    suite = suite_of(text, "optimizer.type=adamw")
    assert suite.contrast is None
    assert any("no contrast is reported" in note for note in suite.notes)


# ---- paths -----------------------------------------------------------------------------------


def test_paths_in_a_file_start_at_its_folder_and_those_of_overrides_here(
    suite_of: SuiteOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    base = "data: {dataset: texts, path: acts}\n"
    assert values(suite_of(base=base), "data.path") == [(str(tmp_path / "acts"),)]
    over = suite_of("", "data.path=acts", base=base)
    assert values(over, "data.path") == [(str(here / "acts"),)]
    axis = suite_of("matrix: {data.path: [a, ../b]}", base=base)
    assert values(axis, "data.path") == [(str(tmp_path / "a"),), (str(tmp_path.parent / "b"),)]


@pytest.mark.parametrize(
    ("given", "absolute"),
    [
        ("{train: a.jsonl, test: /b}", {"train": "{}/a.jsonl", "test": "/b"}),
        ("[a, b]", ["{}/a", "{}/b"]),
        ("hf://datasets/x@1/y", "hf://datasets/x@1/y"),
        ("null", None),
        ("3", 3),
    ],
)
def test_shapes_of_a_data_path(
    suite_of: SuiteOf, tmp_path: Path, given: str, absolute: Any
) -> None:
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: filled(v) for k, v in value.items()}
        if isinstance(value, list):
            return [filled(v) for v in value]
        return value.format(tmp_path) if isinstance(value, str) else value

    assert values(suite_of(f"  \ndata: {{path: {given}}}", base=""), "data.path") == [
        (filled(absolute),)
    ]


def test_a_pretrained_model_is_a_folder_if_it_looks_like_one_or_is_one(
    suite_of: SuiteOf, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()

    def pretrained(value: str) -> Any:
        return values(suite_of(f"model: {{pretrained: {value}}}"), "model.pretrained")[0][0]

    assert pretrained("distilbert-base-uncased") == "distilbert-base-uncased"
    assert pretrained("mine") == str(tmp_path / "mine")
    assert pretrained("./other") == str(tmp_path / "other")
    assert pretrained("~/other") == str(Path.home() / "other")
    assert pretrained("null") is None


# ---- finding ---------------------------------------------------------------------------------


def test_shipped_suites_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"smoke", "quickstart", "eurlex_matrix"} <= set(shipped_suites())
    suite = load_suite("quickstart")
    assert (suite.name, suite.source) == ("quickstart", "quickstart.yaml")


def test_a_file_is_found_before_a_shipped_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("name: mine\n")
    assert load_suite("quickstart").name == "mine"


def test_a_suite_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tried.yaml").write_text("name: tried")
    with pytest.raises(UserError, match=r"no suite 'quikstart'. Did you mean 'quickstart'"):
        load_suite("quikstart")
    with pytest.raises(UserError, match=r"Did you mean tried.yaml\?"):
        load_suite("tired.yaml")
    with pytest.raises(UserError, match=r"Did you mean 'quickstart', which needs no path\?"):
        load_suite("suites/quickstart.yaml")
    with pytest.raises(UserError, match="is a folder, not a suite file"):
        load_suite(str(tmp_path))
    Path("binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        load_suite("binary.yaml")


# ---- overrides -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["training.max_steps", "=3", "", " =3"])
def test_an_override_needs_key_and_value(suite_of: SuiteOf, text: str) -> None:
    with pytest.raises(UserError, match=r"^--set .*expected section.key=value"):
        suite_of("", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trainig.max_steps=3", "unknown section 'trainig'. Did you mean 'training'"),
        ("seed=3", "unknown section 'seed'. Did you mean 'seeds'"),
        ("seeds=3", "seeds: a list of different whole numbers"),
        ("training.max_steps=[1", "this is not valid YAML"),
        ("data.dataset.x=1", "data.dataset is 'texts', not a mapping"),
    ],
)
def test_a_wrong_override_is_named(suite_of: SuiteOf, text: str, message: str) -> None:
    with pytest.raises(UserError, match=r"^--set .*" + message):
        list(suite_of("", text).drafts())


def test_an_override_holds_in_every_cell(suite_of: SuiteOf) -> None:
    text = MATRIX + "include: [{training.max_steps: 9}]\ntraining: {max_steps: 5}"
    suite = suite_of(
        text, "training.max_steps=1e1", "seeds=[3, 4]", "name=other", "model.width=null"
    )
    assert set(values(suite, "training.max_steps", "model.width")) == {(10.0, None)}
    assert (suite.seeds, suite.name) == ((3, 4), "other")
    assert suite.notes == (
        "--set training.max_steps=1e1 holds in every cell, over the axis training.max_steps",
    )


def test_the_last_override_wins(suite_of: SuiteOf) -> None:
    suite = suite_of("", "training.max_steps=1", "training.max_steps=2")
    assert values(suite, "training.max_steps") == [(2,)]


@pytest.mark.parametrize(
    ("given", "left"),
    [("e3m4", ["e3m4"]), ("[e3m4, bf16]", ["e3m4", "bf16"]), ("e4m3", ["e4m3"])],
)
def test_an_override_of_an_axis_replaces_its_values_and_says_so(
    suite_of: SuiteOf, given: str, left: list[str]
) -> None:
    suite = suite_of(MATRIX, f"quantization.format={given}")
    expected = list(itertools.product(left, ["adamw", "manifold_adamw"]))
    assert values(suite, "quantization.format", "optimizer.type") == expected
    note = f"--set quantization.format={given} replaces the values of the axis quantization.format"
    assert suite.notes == (note,)


def test_an_override_of_an_axis_reaches_the_included_cells(suite_of: SuiteOf) -> None:
    include = "include: [{quantization.format: e4m3}, {training.max_steps: 9}]"
    suite = suite_of(MATRIX + include, "quantization.format=bf16", "optimizer.type=adamw")
    assert values(suite, "quantization.format", "training.max_steps") == [
        ("bf16", None),
        ("bf16", 9),
    ]
    assert "--set quantization.format=bf16 drops 1 of the included cells" in suite.notes


def test_an_override_of_a_zipped_axis(suite_of: SuiteOf) -> None:
    text = "zip: {training.max_steps: [1, 2], training.batch_size: [10, 20]}"
    paths = ("training.max_steps", "training.batch_size")
    assert values(suite_of(text, "training.max_steps=7"), *paths) == [(7, 10), (7, 20)]
    assert values(suite_of(text, "training.max_steps=[7, 8]"), *paths) == [(7, 10), (8, 20)]
    with pytest.raises(UserError, match=r"zipped with training.batch_size: give one value, or 2"):
        suite_of(text, "training.max_steps=[7, 8, 9]")


def test_an_override_inside_a_section_axis_wins(suite_of: SuiteOf) -> None:
    text = "matrix: {optimizer: [{type: adamw}, {type: manifold_adamw, site: pre}]}"
    suite = suite_of(text, "optimizer.site=post")
    assert values(suite, "optimizer.site") == [("post",), ("post",)]
    assert suite.notes == (
        "--set optimizer.site=post holds in every cell, over the axis optimizer.site",
    )


def test_a_whole_section_override_is_merged(suite_of: SuiteOf) -> None:
    suite = suite_of("training: {max_steps: 5}", "training={batch_size: 3}")
    assert values(suite, "training") == [({"max_steps": 5, "batch_size": 3},)]


def test_an_override_descends_into_short_forms(suite_of: SuiteOf) -> None:
    text = "quantization: {format: exmy, scaling: delayed}"
    suite = suite_of(text, "quantization.format.exponent_bits=3", "quantization.scaling.history=4")
    assert values(suite, "quantization") == [
        (
            {
                "format": {"name": "exmy", "exponent_bits": 3},
                "scaling": {"mode": "delayed", "history": 4},
            },
        )
    ]


def test_monitors_can_be_replaced_and_changed(suite_of: SuiteOf) -> None:
    assert values(suite_of("monitors: [flips]", "monitors=all"), "monitors") == [({"all": None},)]
    suite = suite_of("monitors: [flips, rank]", "monitors.rank.interval=3", "monitors.flips=false")
    assert values(suite, "monitors") == [({"flips": False, "rank": {"interval": 3}},)]


def test_matrix_overrides_make_and_replace_axes(suite_of: SuiteOf) -> None:
    suite = suite_of(
        MATRIX, "matrix.training.max_steps=[1, 2]", "matrix.quantization.format=[e3m4]"
    )
    assert values(suite, "training.max_steps", "quantization.format")[:2] == [
        (1, "e3m4"),
        (2, "e3m4"),
    ]
    with pytest.raises(
        UserError, match=r"--set matrix.training.max_steps=3: matrix: .*needs a list"
    ):
        suite_of("", "matrix.training.max_steps=3")


def test_structure_can_be_replaced(suite_of: SuiteOf) -> None:
    suite = suite_of(MATRIX + "include: [{training.max_steps: 1}]", "include=[]", "matrix={}")
    assert len(list(suite.drafts())) == 1
    contrast = suite_of(MATRIX, "contrast={baseline: manifold_adamw, treatment: adamw}").contrast
    assert contrast is not None
    assert contrast.baseline == "manifold_adamw"
    text = f"{MATRIX}contrast: {{baseline: adamw, treatment: manifold_adamw}}"
    metric = suite_of(text, "contrast.metric=final/test/loss").contrast
    assert metric is not None
    assert metric.metric == "final/test/loss"


def test_where_a_setting_was_written(suite_of: SuiteOf) -> None:
    text = """\
        training:
          max_steps: 3
          batch_size: 4
        matrix:
          optimizer:
            - {type: adamw}
            -
              type: manifold_adamw
              site: pre
        monitors:
          - flips
          - rank: {interval: 7}
        """
    suite = suite_of(text, "training.batch_size=5")
    last = list(suite.drafts())[-1]
    expected = {
        ("training", "max_steps"): "s.yaml, line 5",
        ("training", "batch_size"): "--set training.batch_size=5",
        ("training", "learning_rate"): "s.yaml, line 4",
        ("optimizer", "type"): "s.yaml, line 11",
        ("optimizer", "site"): "s.yaml, line 12",
        ("monitors", "flips"): "s.yaml, line 14",
        ("monitors", "rank", "interval"): "s.yaml, line 15",
        ("data", "dataset"): "s.yaml, line 2",
    }
    assert {path: last.where(path) for path in expected} == expected


def test_load_suite_reads_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my suite.yaml"
    file.write_text("name: mine\ndata: {dataset: texts, path: here}\n", encoding="utf-8")
    suite = load_suite(file, ["seeds=[1]"])
    assert (suite.name, suite.seeds, suite.source) == ("mine", (1,), str(file))
    assert values(suite, "data.path") == [(str(tmp_path / "here"),)]
