"""Whatever stands in a suite file, the answer is a plan or a ``UserError``, never a crash."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzzed, harmed, randoms
from hypothesis import example, given
from hypothesis import strategies as st

from altgrad_core.errors import UserError
from altgrad_core.planning.draft import SECTIONS
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.reading import STRUCTURE
from altgrad_core.planning.spec_file import dump_yaml
from altgrad_core.planning.suite import load_suite, parse_suite, shipped_suites
from altgrad_core.registry.catalog import Catalog

WORDS = [
    *("format", "name", "type", "settings", "site", "scaling", "mode", "overrides", "pattern"),
    *("e5m2", "exmy", "adamw", "manifold_adamw", "flips", "all", "exponent_bits", "interval"),
    *("dataset", "texts", "path", "rows", "width", "max_steps", "axis", "baseline", "treatment"),
]
DOTTED = {
    "quantization.format": ["bf16", "e5m2", {"name": "exmy", "exponent_bits": 3}, "rare"],
    "quantization.format.exponent_bits": [3, 4],
    "optimizer.type": ["adamw", "manifold_adamw"],
    "optimizer": ["adamw", {"type": "manifold_adamw", "site": "pre"}],
    "optimizer.manifold_adamw.site": ["pre", "post"],
    "training.max_steps": [1, 2, 3],
    "training": [{"max_steps": 4}],
    "data.path": ["here", None],
    "monitors": ["all", ["flips"], {"rank": False}],
    "monitors.flips": [None, {"interval": 2}],
    "trackers": [["jsonl"], ["cloud"]],
}
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-2, 3)
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text()
)
_junk = st.recursive(
    _leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*WORDS, *DOTTED, *SECTIONS]), inner, max_size=3)
    ),
    max_leaves=6,
)


def _mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """``right`` in nine cases of ten."""
    return st.integers(0, 9).flatmap(lambda n: _junk if n == 0 else right)


_pairs = st.sampled_from(sorted(DOTTED)).flatmap(
    lambda key: st.tuples(st.just(key), _mostly(st.sampled_from(DOTTED[key])))
)
_cell = st.lists(_pairs, max_size=3).map(dict)
_axis = st.sampled_from(sorted(DOTTED)).flatmap(
    lambda key: st.tuples(
        st.just(key),
        _mostly(st.lists(_mostly(st.sampled_from(DOTTED[key])), min_size=2, max_size=2)),
    )
)
_axes = st.lists(_axis, min_size=1, max_size=2).map(dict)
_suites = st.fixed_dictionaries(
    {"data": st.just({"dataset": "texts"}), "optimizer": st.just({"type": "adamw"})},
    optional={
        "training": _mostly(st.just({"max_steps": 9})),
        "quantization": _mostly(st.just({"format": "exmy"})),
        "matrix": _mostly(_axes),
        "zip": _mostly(_axes),
        "include": _mostly(st.lists(_mostly(_cell), max_size=2)),
        "exclude": _mostly(st.lists(_mostly(_cell), max_size=2)),
        "seeds": _mostly(st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True)),
    },
)
_overrides = st.lists(
    _pairs | st.tuples(st.sampled_from([*SECTIONS, *STRUCTURE, "x."]), _junk), max_size=2
)


@pytest.mark.usefixtures("stub_module")
@fuzzed(150)
@example({"data": {"dataset": "texts"}, "include": [{"monitors.flips": [None]}]}, [])
@given(_suites, _overrides)
def test_a_plan_or_a_user_error(
    tmp_path_factory: pytest.TempPathFactory,
    plugins: Catalog,
    suite: dict[str, Any],
    overrides: list[tuple[str, Any]],
) -> None:
    folder = tmp_path_factory.getbasetemp()
    texts = [f"{key}={dump_yaml(value).removesuffix('...' + chr(10))}" for key, value in overrides]
    try:
        plan = plan_suite(parse_suite(dump_yaml(suite), "s.yaml", folder, texts), plugins)
    except UserError:
        return
    assert plan.specs
    assert len({(cell.label, cell.seed) for cell in plan.cells}) == len(plan.cells)
    assert len({spec.id for spec in plan.specs}) == len(plan.specs)


SHIPPED = [path.read_bytes() for path in shipped_suites().values()]


@fuzzed(120)
@given(randoms)
def test_a_shipped_suite_with_harmed_bytes(
    tmp_path_factory: pytest.TempPathFactory, draw: random.Random
) -> None:
    path = tmp_path_factory.getbasetemp() / "harmed.yaml"
    path.write_bytes(harmed(draw.choice(SHIPPED), draw))
    with contextlib.suppress(UserError):
        assert load_suite(path).name


SETS = [
    *(b"training.max_steps=50", b"matrix.quantization.format=[bf16, e3m4]", b"seeds=[0, 1, 2]"),
    *(b"contrast.margin=0.01", b"tune.learning_rates=[0.1, 0.2]", b"optimizer={type: adamw}"),
    *(
        b"quantization.overrides=[]",
        b"monitors=all",
        b"include=[]",
        b"data.path=x",
        b"name=y",
        b"zip=[]",
    ),
]


@pytest.mark.usefixtures("stub_module")
@fuzzed(150)
@given(randoms)
def test_overrides_with_harmed_bytes(tmp_path: Path, plugins: Catalog, draw: random.Random) -> None:
    base = dump_yaml({"data": {"dataset": "texts"}, "matrix": {"optimizer.type": ["adamw"]}})
    texts = [
        harmed(draw.choice(SETS), draw).decode("utf-8", "surrogateescape")
        for _ in range(draw.randrange(1, 4))
    ]
    with contextlib.suppress(UserError):
        assert plan_suite(parse_suite(base, "s.yaml", tmp_path, texts), plugins).cells


@pytest.fixture(scope="module")
def plugins(stub_plugins: object) -> Catalog:
    return Catalog.from_modules(stub_plugins)
