"""What strangers' distributions have to be checked for: each planted fault is said with what to do about it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from altgrad_core import cli
from altgrad_core.errors import UserError
from altgrad_core.interfaces.plugin import CONTRACT
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite
from altgrad_core.registry.catalog import Catalog
from altgrad_core.testing import inventory
from altgrad_core.testing.inventory import Result, results, subjects

Install = Callable[..., None]

GOOD = """
from altgrad_core.interfaces import Offer, hookimpl

@hookimpl
def altgrad_trackers():
    return [Offer("quiet", "a tracker", "altgrad_core.interfaces.tracker:Tracker")]
"""
TAKES = """
import pydantic
from altgrad_core.interfaces import NoSettings, Offer, Settings, hookimpl

def Mine(settings):
    from altgrad_core.interfaces import Tracker
    return Tracker()

{more}

@hookimpl
def altgrad_trackers():
    return [Offer("mine", "a tracker", {target}, {settings})]
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``install(distribution, source)`` puts a distribution with one plugin module on the path."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def put(distribution: str, source: str) -> None:
        module = distribution.replace("-", "_")
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{module}-2.5.dist-info"
        info.mkdir()
        named = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 2.5\n"
        (info / "METADATA").write_text(named)
        (info / "entry_points.txt").write_text(f"[altgrad]\nplugin = {module}\n")
        made.append(module)

    yield put
    for name in made:
        sys.modules.pop(name, None)


@pytest.fixture
def lenient() -> Iterator[None]:
    """torch as it starts: runs that other tests made in this process leave it deterministic."""
    before = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(False)
    yield
    torch.use_deterministic_algorithms(before > 0, warn_only=before == 1)


def source(target: str = '"stranger:Mine"', settings: str = "NoSettings", more: str = "") -> str:
    return TAKES.format(target=target, settings=settings, more=more)


def checked(*names: str) -> list[Result]:
    return list(results(subjects(*names, known=Catalog.discover())))


def fault(*names: str) -> str:
    """What the one fault says: what is wrong here, and the rule."""
    (bad,) = [one for one in checked(*names) if one.verdict == "fault"]
    return f"{bad.said} | {bad.rule}"


def test_a_good_one_passes(install: Install) -> None:
    install("stranger", source())
    found = checked("stranger")
    assert [(str(one.subject), one.verdict) for one in found] == [
        ("modules stranger", "ok"),
        ("tracker mine", "ok"),
    ]
    assert [str(one.subject) for one in checked("mine")] == ["tracker mine"]


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (
            "import torch\n",
            r"importing stranger imports torch, in stranger, line 1: move what needs it",
        ),
        ("print('hello')\n", r"prints to stdout: 'hello': leave printing to the functions"),
        ("import sys; sys.stderr.write('oh')\n", r"importing stranger prints to stderr: 'oh'"),
        ("import os; os.system('echo child')\n", r"importing stranger prints to stdout: 'child'"),
    ],
)
def test_a_module_that_does_something_when_it_is_imported(
    install: Install, planted: str, said: str
) -> None:
    install("stranger", planted + source())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        message = fault("stranger")
    assert re.search(said, message), message
    assert "print nothing and raise nothing" in message


@pytest.mark.parametrize("word", ["KeyboardInterrupt", "SystemExit(0)", "RuntimeError('no')"])
def test_a_plugin_that_raises_at_import_stops_nothing(install: Install, word: str) -> None:
    install("stranger", f"raise {word}")
    install("other", GOOD)
    found = {str(one.subject): one for one in checked("stranger", "other")}
    bad = found["plugin plugin = stranger"]
    assert bad.verdict == "fault"
    assert word.partition("(")[0] in bad.said
    assert found["tracker quiet"].verdict in ("ok", "fault")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ('"stranger:Theirs"', "has no attribute 'Theirs'"),
        ('"nowhere:Mine"', "No module named 'nowhere'"),
    ],
)
def test_a_target_that_does_not_exist(install: Install, target: str, said: str) -> None:
    install("stranger", source(target=target))
    message = fault("stranger")
    assert "the tracker 'mine' of stranger 2.5 cannot be loaded from" in message
    assert said in message
    assert "what an offer names exists" in message


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("class S(pydantic.BaseModel):\n    a: int = 1", "which lets unknown keys pass in silence"),
        (
            "class T(pydantic.BaseModel):\n    b: int = 1\nclass S(Settings):\n    a: list[T] | None = None",
            "lets unknown keys pass in silence, by their part T,",
        ),
        (
            "class S(Settings):\n    model_config = pydantic.ConfigDict(extra='allow')\n    a: int = 1",
            "which lets unknown keys pass in silence",
        ),
        (
            "class S(pydantic.BaseModel):\n    model_config = pydantic.ConfigDict(extra='forbid')",
            "whose values can be changed after they were checked",
        ),
        ("S = dict", "is not a subclass of altgrad_core.interfaces.Settings"),
    ],
)
def test_settings_that_are_not_strict(install: Install, more: str, said: str) -> None:
    install("stranger", source(settings="S", more=more))
    message = fault("stranger")
    assert said in message
    assert "altgrad_core.interfaces.Settings" in message


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("'99.0'", "asks for version 99.0 of the plugin contract.*install a newer altgrad-bench"),
        ("'1.99'", "asks for version 1.99 of the plugin contract.*install a newer altgrad-bench"),
        ("'0.9'", "asks for version 0.9 .*install a newer version of it"),
        ("2", "altgrad_contract must be MAJOR.MINOR as a string"),
    ],
)
def test_another_version_of_the_contract(install: Install, wanted: str, said: str) -> None:
    install("stranger", f"altgrad_contract = {wanted}\n" + source())
    message = fault("stranger")
    assert re.search(said, message), message


def test_the_installed_version_of_the_contract_is_taken(install: Install) -> None:
    install("stranger", f"altgrad_contract = {CONTRACT!r}\n" + source())
    assert [one.verdict for one in checked("stranger")] == ["ok", "ok"]


def test_a_clash_is_a_fault_of_both_and_breaks_only_suites_that_use_the_name(
    install: Install,
) -> None:
    clash = GOOD.replace("altgrad_trackers", "altgrad_formats").replace("quiet", "e5m2")
    install("stranger", clash)
    message = fault("stranger")
    assert "is offered by altgrad-bench" in message
    assert "ask its author for another name" in message
    known = Catalog.discover()
    (ours,) = [one for one in subjects("altgrad-bench", known=known) if one.name == "e5m2"]
    with pytest.raises(AssertionError, match="a name is offered once"):
        ours.check()
    plan = plan_suite(load_suite("smoke", ["quantization.format=[bf16,e3m4]"]), known)
    assert len(plan.specs) == 4
    with pytest.raises(UserError, match="'e5m2' is offered by altgrad-bench"):
        plan_suite(load_suite("smoke"), known)


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("os.chdir('/')", "the working directory was"),
        (
            "torch.set_num_threads(3)",
            "torch's number of threads was 1 before it was used, and is 3",
        ),
        ("torch.set_default_dtype(torch.float64)", "torch's default dtype was torch.float32"),
        (
            "torch.set_deterministic_debug_mode('error')",
            "torch's deterministic debug mode was 0 before it was used, and is 2",
        ),
        ("torch.use_deterministic_algorithms(True)", "torch's deterministic debug mode was 0"),
    ],
)
@pytest.mark.usefixtures("lenient")
def test_a_plugin_leaves_the_process_as_it_was(install: Install, does: str, said: str) -> None:
    more = f"""
def Changes(settings):
    import os, torch
    from altgrad_core.interfaces import Tracker
    class Mine(Tracker):
        def ready(self): {does}
    return Mine()
"""
    install("stranger", source(target='"stranger:Changes"', more=more))
    before = Path.cwd()
    message = fault("stranger")
    assert said in message
    assert "a plugin leaves the process as it was" in message
    assert Path.cwd() == before
    assert torch.get_deterministic_debug_mode() == 0
    if compiler := sys.modules.get("torch._inductor.config"):
        assert not compiler.deterministic


@pytest.mark.usefixtures("lenient")
def test_it_is_put_back_as_it_was_and_not_stricter(install: Install) -> None:
    install("stranger", source())
    torch.set_deterministic_debug_mode("warn")
    checked("stranger")
    assert torch.get_deterministic_debug_mode() == 1


def test_what_this_machine_lacks_is_no_fault(install: Install) -> None:
    needs = 'NoSettings, needs=(Need("module", "no_such_module", "pip install it"),)'
    install("stranger", source(settings=needs).replace("Offer,", "Need, Offer,", 1))
    (skipped,) = [one for one in checked("stranger") if one.verdict != "ok"]
    assert skipped.verdict == "skipped"
    assert "needs the Python module 'no_such_module' (pip install it)" in str(skipped)


def test_a_name_that_nobody_has_is_one_sentence() -> None:
    with pytest.raises(
        UserError, match=r"unknown distribution or offer 'e5m3'. Did you mean 'e5m2'"
    ):
        subjects("e5m3")


def test_the_command_exits_with_1_on_a_fault(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("stranger", source(target='"stranger:Theirs"'))
    known = Catalog.discover()
    monkeypatch.setattr(inventory, "catalog", lambda: known)
    done = CliRunner().invoke(cli.app, ["check", "stranger"])
    assert done.exit_code == 1
    assert "[2/2] tracker mine of stranger 2.5: FAULT" in done.output
    assert "1 keep the contract, 1 break it, 0 cannot be checked here." in done.output
    done = CliRunner().invoke(cli.app, ["check", "--json", "mine"])
    assert done.exit_code == 1
    (row,) = json.loads(done.stdout)["results"]
    assert (row["result"], row["distribution"], row["version"]) == ("fault", "stranger", "2.5")
    assert row["rule"]
    assert row["said"]


@pytest.mark.slow
def test_pytest_checks_a_distribution_when_asked_and_is_idle_otherwise(
    pytester_like: Callable[..., Any],
) -> None:
    asked = pytester_like("-v", "--altgrad-check", "quiet-one", "--altgrad-check", "loud-one")
    for said in ("modules quiet-one PASSED", "tracker mine PASSED", "modules loud-one FAILED"):
        assert f"altgrad: {said}" in asked.stdout, asked.stdout + asked.stderr
    assert "prints to stdout: 'loud'" in asked.stdout
    assert "1 failed, 3 passed" in asked.stdout
    none = pytester_like("--altgrad-check", "no-one")
    assert "unknown distribution or offer 'no-one'" in none.stderr
    assert none.returncode == 4
    idle = pytester_like("-q", "test_idle.py")
    assert "1 passed" in idle.stdout, idle.stdout


@pytest.fixture
def pytester_like(tmp_path: Path, install: Install) -> Callable[..., Any]:
    install("quiet-one", source().replace("stranger:", "quiet_one:"))
    install(
        "loud-one",
        "print('loud')\n" + source().replace("stranger:", "loud_one:").replace('"mine"', '"her"'),
    )
    test = (
        "import sys\ndef test_idle():\n"
        "    assert not {'torch', 'pydantic', 'altgrad_core.interfaces'} & set(sys.modules)\n"
    )
    (tmp_path / "test_idle.py").write_text(test)

    def run(*arguments: str) -> Any:
        # by its module, not by the entry point, which an installation of before may not have
        ours = ["-p", "no:altgrad", "-p", "altgrad_core.testing.pytest_plugin"]
        flags = ["-p", "no:cacheprovider", *ours]
        chosen = arguments if "test_idle.py" in arguments else (*arguments, "--ignore=test_idle.py")
        return subprocess.run(
            [sys.executable, "-P", "-m", "pytest", *flags, *chosen],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run
