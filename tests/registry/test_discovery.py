"""Strangers' distributions, as ``importlib.metadata`` finds them: good, broken and clashing."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from altgrad_core.errors import UserError
from altgrad_core.interfaces.metric import Metric
from altgrad_core.interfaces.plugin import Need, Offer, hookimpl
from altgrad_core.registry.catalog import Catalog

Install = Callable[..., None]

LOSS = Metric("loss", "Loss", "lower", primary=True)
GOOD = """
from altgrad_core.interfaces import Offer, hookimpl

@hookimpl
def altgrad_formats():
    yield Offer("{name}", "a format", "nowhere:build")
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """``install(distribution, module, source)`` puts a distribution with one plugin on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def put(distribution: str, module: str, source: str, entries: str = "") -> None:
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{distribution.replace('-', '_')}-2.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n"
        )
        (info / "entry_points.txt").write_text(f"[altgrad]\n{entries or f'plugin = {module}'}\n")
        made.append(module)

    yield put
    for name in made:
        sys.modules.pop(name, None)


def error_of(catalog: Catalog, distribution: str) -> str:
    (broken,) = [plugin for plugin in catalog.broken if plugin.distribution == distribution]
    assert broken.version == "2.5"
    assert broken.entry_point.startswith("plugin = ")
    return broken.error


def test_a_stranger_is_found_beside_the_built_in_plugins(install: Install) -> None:
    install("stranger", "stranger_plugin", GOOD.format(name="odd4"))
    catalog = Catalog.discover()
    entry = catalog.get("format", "odd4")
    assert (entry.origin, entry.kind) == ("stranger 2.5", "format")
    assert catalog.get("format", "e5m2").distribution == "altgrad-bench"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt('mine')", "KeyboardInterrupt: mine"),
        ("raise RuntimeError('\\x1b[2J' + 'x' * 10**7)", "RuntimeError: xxx"),
        (GOOD + "    raise SystemExit('hook')\n", "altgrad_formats() raised SystemExit: hook"),
        (GOOD + "    raise KeyboardInterrupt\n", "altgrad_formats() raised KeyboardInterrupt"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
        ("x = 1", "no hook found: mark functions"),
        (GOOD.replace("altgrad_formats", "altgrad_fromats"), "Did you mean 'altgrad_formats'?"),
        (GOOD.replace("altgrad_formats()", "altgrad_formats(config)"), "PluginValidationError"),
        (
            GOOD + "    raise RuntimeError('later')\n",
            "altgrad_formats() raised RuntimeError: later",
        ),
        (GOOD + "    yield 3\n", "altgrad_formats() returned 3, which is not an Offer"),
    ],
)
def test_a_broken_plugin_is_told_of_and_stops_nothing(
    install: Install, source: str, error: str
) -> None:
    install("broken-one", "broken_plugin", source.replace("{name}", "odd4"))
    install("stranger", "stranger_plugin", GOOD.format(name="odd5"))
    catalog = Catalog.discover()
    assert error in error_of(catalog, "broken-one")
    assert len(error_of(catalog, "broken-one")) < 3000
    assert catalog.get("format", "odd5").distribution == "stranger"
    with pytest.raises(
        UserError, match=r"could not be read.*broken-one 2.5 \(plugin = broken_plugin"
    ):
        catalog.get("format", "never")


@pytest.mark.usefixtures("signals")
def test_a_person_who_presses_ctrl_c_ends_the_reading(install: Install) -> None:
    press = "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(5)\n"
    install("pressed", "pressed_plugin", press)
    with pytest.raises(KeyboardInterrupt):
        Catalog.discover()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_what_a_plugin_prints_does_not_reach_stdout(
    install: Install, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = "import os\nprint('by python')\nos.system('echo by a child')\n"
    install("loud", "loud_plugin", noise + GOOD.format(name="odd4") + "    print('by a hook')\n")
    print("before")
    assert Catalog.discover().get("format", "odd4").distribution == "loud"
    print("after")
    out, err = capfd.readouterr()
    assert out == "before\nafter\n"
    assert [err.count(f"by {who}") for who in ("python", "a child", "a hook")] == [1, 1, 1]


@pytest.mark.parametrize("word", ["SystemExit(3)", "KeyboardInterrupt()", "RuntimeError('no')"])
def test_a_target_that_cannot_be_imported_is_a_clear_error(install: Install, word: str) -> None:
    install("stranger", "stranger_plugin", GOOD.format(name="odd4"))
    catalog = Catalog.discover()
    target = catalog.get("format", "odd4").offer.target.partition(":")[0]
    sys.modules.pop(target, None)
    (Path(sys.path[0]) / f"{target}.py").write_text(f"raise {word}")
    with pytest.raises(UserError, match=r"cannot be loaded from .*" + word.partition("(")[0]):
        catalog.load("format", "odd4")


def test_good_offers_of_a_hook_that_fails_later_are_kept(install: Install) -> None:
    install("half", "half_plugin", GOOD.format(name="odd4") + "    raise RuntimeError('later')\n")
    assert Catalog.discover().get("format", "odd4").distribution == "half"


def test_two_offers_of_one_name_name_both_distributions(install: Install) -> None:
    install("stranger", "stranger_plugin", GOOD.format(name="e5m2"))
    catalog = Catalog.discover()
    with pytest.raises(
        UserError, match=r"'e5m2' is offered by altgrad-bench .* and by stranger 2.5"
    ):
        catalog.get("format", "e5m2")
    (clash,) = catalog.clashes()
    assert "stranger 2.5" in clash
    assert "e5m2" not in catalog.offers("format")
    assert catalog.get("format", "e3m4")


def test_one_name_in_two_kinds_is_no_clash() -> None:
    class Both:
        @hookimpl
        def altgrad_formats(self) -> list[Offer]:
            return [Offer("x", "a format", "a:b")]

        @hookimpl
        def altgrad_tasks(self) -> list[Offer]:
            return [Offer("x", "a task", "a:b", metrics=(LOSS,))]

    assert Catalog.from_modules(Both()).clashes() == []


def test_one_module_behind_two_entry_points_is_read_once(install: Install) -> None:
    entries = "plugin = stranger_plugin\nplugin_again = stranger_plugin"
    install("stranger", "stranger_plugin", GOOD.format(name="odd4"), entries)
    catalog = Catalog.discover()
    assert catalog.clashes() == []
    assert catalog.get("format", "odd4")


@pytest.mark.parametrize(
    ("item", "error"),
    [
        (Offer("E5M2", "x", "a:b"), "name is not of lower-case letters"),
        (Offer("a b", "x", "a:b"), "name is not of lower-case letters"),
        (Offer("", "x", "a:b"), "name is not of lower-case letters"),
        (Offer("x", "x", "a.b"), "not of the form 'module:attribute'"),
        (Offer("x", "x", "a:b", fingerprint="a:b"), "only tasks have one"),
        (Offer("x", "x", "a:b", metrics=(LOSS,)), "only tasks have some"),
        (
            Offer("x", "x", "a:b", settings=dict),
            "not a subclass of altgrad_core.interfaces.Settings",
        ),  # type: ignore[arg-type]
        (Offer("x", "x", "a:b", needs=("torch",)), "not of the class Need"),  # type: ignore[arg-type]
        (Offer("x", "x", "a:b", label="{bits}"), "label names 'bits', which is no setting"),
        (Offer("x", "x", "a:b", label="{"), "label '{' is malformed"),
        ("e5m2", "'e5m2', which is not an Offer"),
    ],
)
def test_a_malformed_offer_is_refused_and_its_neighbours_are_not(item: Any, error: str) -> None:
    class Plugin:
        @hookimpl
        def altgrad_formats(self) -> list[Any]:
            return [Offer("first", "x", "a:b"), item, Offer("last", "x", "a:b")]

    catalog = Catalog.from_modules(Plugin())
    assert catalog.names("format") == ["first", "last"]
    (broken,) = catalog.broken
    assert error in broken.error


def test_a_hook_that_returns_no_list() -> None:
    plugin = SimpleNamespace(altgrad_formats=hookimpl(lambda: Offer("x", "x", "a:b")))
    (broken,) = Catalog.from_modules(plugin).broken
    assert "altgrad_formats() raised TypeError" in broken.error


def test_attributes_that_are_no_hooks_are_not_touched() -> None:
    class Lazy(ModuleType):
        def __dir__(self) -> list[str]:
            return ["heavy", "altgrad_formats"]

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            raise AssertionError(f"{name} was touched")

    module = Lazy("lazy")
    vars(module)["altgrad_formats"] = hookimpl(
        lambda: [Offer("x", "x", "a:b", needs=(Need("cuda"),))]
    )
    assert Catalog.from_modules(module).names("format") == ["x"]


def test_discovery_imports_nothing_heavy_and_happens_once() -> None:
    code = """
import sys
from altgrad_core.registry.catalog import catalog
assert catalog() is catalog()
assert "e5m2" in catalog().names("format")
heavy = ("torch", "numpy", "pandas", "transformers", "wandb")
assert not [name for name in heavy if name in sys.modules]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
