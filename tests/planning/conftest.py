"""Plugins for the tests of planning: small, known, and independent of the built-in ones."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Literal

import pytest
from pydantic import Field, PositiveInt

from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.plugin import Need, NoSettings, Offer, Settings, hookimpl
from altgrad_core.planning.plan import Plan
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import Suite, parse_suite
from altgrad_core.registry.catalog import Catalog

ABSENT = Need("module", "a_module_that_nobody_has", "pip install it")
METRICS = (
    Metric("accuracy", "Accuracy", "higher", 0.0, primary=True, curve=True),
    Metric("loss", "Loss", "lower"),
)
NOWHERE = "altgrad_stub_plugins:nothing"


class Layout(Settings):
    exponent_bits: int
    mantissa_bits: int = 2
    overflow: Literal["saturate", "special"] = "saturate"


class Decay(Settings):
    weight_decay: float = Field(0.01, ge=0)


class Site(Decay):
    site: Literal["none", "pre", "post", "both"] = "both"
    cache: str = Field("cache", json_schema_extra={"identity": False})


class Interval(Settings):
    interval: PositiveInt = 10


class Data(Settings):
    path: str | list[str] | dict[str, str] | None = Field(
        None, json_schema_extra={"identity": False}
    )
    rows: PositiveInt = 100


class Model(Settings):
    width: PositiveInt = 8
    pretrained: str | None = None


class Texts(Settings):
    data: Data = Data()
    model: Model = Model()


def _offer(name: str, settings: type[Settings] = NoSettings, **more: object) -> Offer:
    return Offer(name, f"{name} for tests", NOWHERE, settings, **more)  # type: ignore[arg-type]


class StubPlugins:
    @hookimpl
    def altgrad_formats(self) -> list[Offer]:
        return [
            *(_offer(name) for name in ("bf16", "e5m2", "e3m4")),
            _offer("exmy", Layout, label="x{exponent_bits}m{mantissa_bits}"),
            _offer("unlabelled", Layout),
            _offer("rare", needs=(ABSENT,)),
        ]

    @hookimpl
    def altgrad_optimizers(self) -> list[Offer]:
        return [_offer("adamw", Decay), _offer("manifold_adamw", Site, label="manifold")]

    @hookimpl
    def altgrad_monitors(self) -> list[Offer]:
        return [_offer("rank", Interval), _offer("flips", Interval), _offer("lab", needs=(ABSENT,))]

    @hookimpl
    def altgrad_tasks(self) -> list[Offer]:
        fingerprint = "altgrad_stub_plugins:fingerprint"
        return [
            _offer("texts", Texts, fingerprint=fingerprint, metrics=METRICS),
            _offer("needy", Texts, fingerprint=fingerprint, needs=(ABSENT,), metrics=METRICS),
        ]

    @hookimpl
    def altgrad_trackers(self) -> list[Offer]:
        return [_offer("jsonl"), _offer("cloud", needs=(ABSENT,))]


class StubModule(ModuleType):
    """Holds the fingerprint function, and counts its calls."""

    calls: list[Settings]

    def fingerprint(self, settings: Texts) -> dict[str, str]:
        self.calls.append(settings)
        return {"rows": f"hash of {settings.data.rows}"}


@pytest.fixture
def stub_module(monkeypatch: pytest.MonkeyPatch) -> StubModule:
    module = StubModule("altgrad_stub_plugins")
    module.calls = []
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture(scope="session")
def stub_plugins() -> StubPlugins:
    return StubPlugins()


@pytest.fixture
def stubs(stub_module: StubModule) -> Catalog:
    return Catalog.from_modules(StubPlugins(), distribution="stubs", version="1.0")


SuiteOf = Callable[..., Suite]
PlanOf = Callable[..., Plan]

BASE = """\
name: tried
data: {dataset: texts}
optimizer: {type: adamw}
"""


@pytest.fixture
def suite_of(tmp_path: Path) -> SuiteOf:
    """``suite_of(text, *overrides)``: the suite of BASE and the text, as file ``s.yaml``."""

    def make(text: str = "", *overrides: str, base: str = BASE) -> Suite:
        return parse_suite(base + textwrap.dedent(text), "s.yaml", tmp_path, overrides)

    return make


@pytest.fixture
def plan_of(suite_of: SuiteOf, stubs: Catalog) -> PlanOf:
    def make(text: str = "", *overrides: str, base: str = BASE) -> Plan:
        return plan_suite(suite_of(text, *overrides, base=base), stubs)

    return make
