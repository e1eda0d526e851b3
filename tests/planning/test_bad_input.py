"""Whatever stands in a suite file, the answer is a plan or a ``UserError``, never a crash."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altgrad_core.errors import UserError
from altgrad_core.planning.draft import SECTIONS
from altgrad_core.planning.plan import plan_suite
from altgrad_core.planning.reading import STRUCTURE
from altgrad_core.planning.spec_file import dump_yaml
from altgrad_core.planning.suite import parse_suite
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
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
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


@pytest.fixture(scope="module")
def plugins(stub_plugins: object) -> Catalog:
    return Catalog.from_modules(stub_plugins)
