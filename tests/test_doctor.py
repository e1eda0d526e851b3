"""``altgrad-bench doctor``: what is there, what is missing with what mends it, and what would run where."""

from __future__ import annotations

import json
import sys
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from altgrad_core import doctor
from altgrad_core.cli import app
from altgrad_core.interfaces.plugin import Need, Offer, hookimpl
from altgrad_core.registry.catalog import Catalog


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)


def by_name(found: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    return {one.name: one for one in found}


def test_on_a_machine_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.output
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert {one["state"] for one in found.values()} <= {"ok", "note", "missing"}
    for name in ("python", "altgrad-bench", "[demo]", "torch", "cpu", "runs", "cache"):
        assert found[name]["state"] == "ok", found[name]
    assert "12 runs on" in found["quickstart"]["text"]
    assert "432 runs" in found["residency"]["text"]  # three seeds, one of which was planned
    assert found["hub"]["state"] == "missing"
    assert "data.path" in found["hub"]["mend"]


def test_what_is_missing_and_what_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        requires = (
            "no-such-package>=2",
            "numpy>=999",
            "never; python_version < '3'",
            "absent; extra == 'more'",
        )
        metadata = metadata.metadata("altgrad-bench")

    class Named(dict[str, str]):
        def get_all(self, _: str) -> list[str]:
            return ["more"]

    Fake.metadata = Named()  # type: ignore[assignment]
    monkeypatch.setattr(doctor, "distribution", lambda _: Fake)
    found = by_name(list(doctor._packages()))
    assert found["no-such-package"].state == "broken"
    assert found["no-such-package"].mend == "pip install 'no-such-package>=2'"
    assert found["numpy"].state == "broken"
    assert ">=999 is needed" in found["numpy"].text
    assert "never" not in found
    assert found["[more]"].state == "missing"
    assert found["[more]"].mend == "pip install 'altgrad-bench[more]'"


def test_plugins_that_need_something_and_names_that_clash(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        @hookimpl
        def altgrad_formats(self) -> list[Offer]:
            need = Need("module", "no_such_module", "pip install it")
            return [Offer("mine", "one", "a:b", needs=(need,)), Offer("twice", "one", "a:b")]

    class Other:
        @hookimpl
        def altgrad_formats(self) -> list[Offer]:
            return [Offer("twice", "one", "a:b")]

        altgrad_nonsense = hookimpl(lambda self: [])

    both = Catalog.from_modules(Plugin(), Other(), distribution="stranger", version="2")
    monkeypatch.setattr("altgrad_core.registry.catalog.catalog", lambda: both)
    found = list(doctor._plugins())
    assert ("stranger 2", "ok", "3 formats") in {(one.name, one.state, one.text) for one in found}
    needs = by_name(found)["format mine"]
    assert (needs.state, needs.mend) == ("missing", "pip install it")
    broken = [one for one in found if one.state == "broken"]
    assert len(broken) == 2
    assert any("altgrad_nonsense" in one.text and "pip" in one.mend for one in broken)
    assert any("twice" in one.text and "uninstall" in one.mend for one in broken)


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALTGRAD_CACHE", str(tmp_path / "file" / "cache"))
    found = by_name(list(doctor._storage()))
    assert found["cache"].state == "broken"
    assert found["cache"].mend == "export ALTGRAD_CACHE=DIR"


def test_a_part_that_fails_is_a_finding_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash() -> Any:
        raise SystemExit("the lights went out")

    monkeypatch.setattr(doctor, "_python", crash)
    monkeypatch.setattr(doctor, "_suites", lambda: iter(()))
    found = doctor.examine()
    assert found[0].state == "broken"
    assert "the lights went out" in found[0].text
    assert "cpu" in by_name(found)


def test_a_torch_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (torch,) = doctor._devices()
    assert torch.state == "broken"
    assert "torch cannot be imported: ModuleNotFoundError" in torch.text
    assert torch.mend == "pip install --force-reinstall torch"
    assert doctor._where() == "cpu"


@pytest.mark.parametrize(("state", "code"), [("missing", 0), ("broken", 1)])
def test_what_is_broken_is_an_exit_code(
    state: doctor.State, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [doctor.Finding("devices", "cuda:0", state, "does not compute", "buy another")]
    monkeypatch.setattr(doctor, "examine", lambda: found)
    for options in ([], ["--json"]):
        done = CliRunner().invoke(app, ["doctor", *options])
        assert done.exit_code == code
        assert "buy another" in done.output
