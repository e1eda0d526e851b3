"""The command line as its users meet it: answers without torch, and one clear paragraph for a mistake."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner
from warm_cli import Cli

import altgrad_core.cli
from altgrad_core.cli import app
from altgrad_core.execution import runner
from altgrad_core.execution.interruption import Interrupted

SUITES = Path(__file__).parents[1] / "suites"


Refused = Callable[..., str]


@pytest.fixture
def refused(cli: Cli, tmp_path: Path) -> Refused:
    """Runs something that must be refused with one paragraph, exit code 2 and no traceback."""

    def said(*arguments: str | Path, by: Cli = cli) -> str:
        done = by.run(*arguments, folder=tmp_path)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        message = done.stderr.strip()
        assert message.startswith("error: ")
        return message

    return said


def test_plan_of_the_matrix_lists_12_cells_without_torch() -> None:
    code = (
        "import sys; from altgrad_core.cli import main\n"
        f"sys.argv = ['altgrad-bench', 'plan', {str(SUITES / 'eurlex_matrix.yaml')!r}, '--json']\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    cells = json.loads(done.stdout)["cells"]
    assert len(cells) == 12
    assert len({cell["id"] for cell in cells}) == 12
    conditions = {cell["condition"] for cell in cells}
    formats = ("bf16", "e5m2", "e3m4", "e1m6", "e0m7", "e7m0")
    assert conditions == {f"{f}_{o}" for f in formats for o in ("adamw", "manifold")}


def test_export_gives_files_that_users_would_name_and_that_run_alone(
    cli: Cli, tmp_path: Path
) -> None:
    done = cli.run("plan", SUITES / "eurlex_matrix.yaml", "--json", "--export", tmp_path)
    ids = {cell["condition"]: cell["id"] for cell in json.loads(done.stdout)["cells"]}
    names = {path.name for path in tmp_path.iterdir()}
    assert {"bf16_adamw.yaml", "e5m2_manifold.yaml"} <= names
    assert len(names) == 12
    alone = cli.run("plan", tmp_path / "e5m2_manifold.yaml", "--json")
    [cell] = json.loads(alone.stdout)["cells"]
    assert cell["id"] == ids["e5m2_manifold"]


def test_the_version(cli: Cli) -> None:
    assert cli.run("--version").stdout == f"altgrad-bench {altgrad_core.__version__}\n"


def test_list_as_data(cli: Cli) -> None:
    listed = json.loads(cli.run("list", "--json").stdout)
    assert listed["problems"] == []
    (e3m4,) = [row for row in listed["formats"] if row["name"] == "e3m4"]
    assert e3m4["from"] == f"altgrad-bench {altgrad_core.__version__}"
    suites = json.loads(cli.run("list", "suites", "--json").stdout)
    assert list(suites) == ["suites", "problems"]
    assert "eurlex_matrix" in [row["name"] for row in suites["suites"]]


def test_a_broken_plugin_is_an_exit_code(tmp_path: Path) -> None:
    info = tmp_path / "stranger-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[altgrad]\nplugin = stranger_plugin\n")
    (tmp_path / "stranger_plugin.py").write_text("raise KeyboardInterrupt\n")
    done = subprocess.run(
        [sys.executable, "-m", "altgrad_core.cli", "list", "formats"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "e3m4" in done.stdout
    assert "stranger 1.0 (plugin = stranger_plugin): KeyboardInterrupt" in done.stdout


def test_list_and_show(cli: Cli) -> None:
    listed = cli.run("list").stdout
    for name in ("e3m4", "manifold_adamw", "grid_optim", "license_rules", "wandb", "local"):
        assert name in listed
    shown = cli.run("show", "format", "e3m4").stdout
    assert "31" in shown
    assert "overflow" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert "exponent_bits" in cli.run("show", "format", "exmy", "--set", "exponent_bits=3",
                                  "--set", "mantissa_bits=2").stdout  # fmt: skip


def here(*arguments: str | Path) -> str:
    """What a command prints that is run in this process."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_show_as_data() -> None:
    shown = json.loads(here("show", "format", "exmy", "--json"))
    assert (shown["kind"], shown["name"], shown["facts"]) == ("format", "exmy", {})
    (bits,) = [row for row in shown["settings"] if row["name"] == "exponent_bits"]
    assert (bits["type"], bits["required"]) == ("int", True)
    settings = ("--set", "exponent_bits=3", "--set", "mantissa_bits=2")
    assert json.loads(here("show", "format", "exmy", *settings, "--json"))["facts"]["largest"] == 28
    assert "add --set" in here("show", "format", "exmy")


def test_show_a_suite(refused: Refused) -> None:
    changed = ("--set", "training.max_steps=5", "--set", "quantization.format=[bf16, e3m4]")
    shown = json.loads(here("show", "suite", "quickstart", *changed, "--json"))
    assert shown["file"].endswith("quickstart.yaml")
    assert shown["settings"]["data"]["dataset"] == "license_rules"
    formats, optimizers = shown["axes"]
    assert formats == [{"quantization.format": name} for name in ("bf16", "e3m4")]
    assert [row["optimizer.type"] for row in optimizers] == ["adamw", "manifold_adamw"]
    assert shown["overrides"] == {"training.max_steps": 5}
    assert shown["contrast"]["treatment"] == "manifold_adamw"
    text = here("show", "suite", SUITES / "quickstart.yaml")
    assert "optimizer.type: manifold_adamw" in text
    assert "Did you mean 'quickstart'" in refused("show", "suite", "quickstrt")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["training.max_step=5"], ["max_step", "max_steps"]),
        (["matrix.quantization.format=[e5m3]"], ["e5m3", "e5m2"]),
        (["training.max_steps=many"], ["training.max_steps", "integer"]),
        (["training.precision=fp17"], ["training.precision", "fp32"]),
        (["monitors=[flop]"], ["flop", "flips"]),
        (["optimizer.type=adamw2"], ["adamw2", "adamw"]),
        (["matrix.quantization.format=[]"], ["quantization.format"]),
        (["data.dataset=eurlexx"], ["eurlexx", "eurlex"]),
        (["model.num_heads=7"], ["num_heads", "hidden_dim"]),
    ],
)
def test_wrong_settings_name_the_fix(
    refused: Refused,
    write_suite: Callable[..., Path],
    tmp_path: Path,
    settings: list[str],
    expected: list[str],
) -> None:
    overrides = [part for setting in settings for part in ("--set", setting)]
    message = refused("run", write_suite(), *overrides)
    for word in expected:
        assert word in message
    assert not (tmp_path / "runs").exists()


def test_errors_in_a_file_give_file_and_line(
    refused: Refused, write_suite: Callable[..., Path]
) -> None:
    path = write_suite(training={"max_steps": 5, "lerning_rate": 0.1})
    line = next(n for n, t in enumerate(path.read_text().splitlines(), 1) if "lerning_rate" in t)
    message = refused("plan", path)
    assert f"{path.name}" in message
    assert f"line {line}" in message or f":{line}" in message
    assert "learning_rate" in message


def test_an_unknown_suite_names_the_shipped_ones(refused: Refused) -> None:
    message = refused("run", "quickstrat")
    assert "quickstart" in message
    assert "eurlex_matrix" in message


def test_a_package_of_ours_that_is_not_installed_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lacks(name: str) -> None:
        monkeypatch.setattr(sys, "argv", ["altgrad-bench", "list"])
        error = ModuleNotFoundError(f"No module named {name!r}", name=name)
        monkeypatch.setattr(altgrad_core.cli, "app", Mock(side_effect=error))
        altgrad_core.cli.main()

    with pytest.raises(SystemExit) as end:
        lacks("huggingface_hub.utils")
    assert end.value.code == 2
    assert "the package huggingface_hub is not installed" in capsys.readouterr().err
    with pytest.raises(ModuleNotFoundError):
        lacks("somebody_elses")


def test_missing_data_is_refused_before_anything_runs(
    refused: Refused, write_suite: Callable[..., Path]
) -> None:
    message = refused("run", write_suite(), "--set", "data.path=nowhere")
    assert "nowhere" in message


def test_a_malformed_row_is_named(
    refused: Refused, warm: Cli, write_suite: Callable[..., Path], tmp_path: Path, own_cache: Path
) -> None:
    folder = tmp_path / "acts"
    folder.mkdir()
    good = {"celex_id": "3", "title": "t", "text": "some text", "eurovoc_concepts": ["1"]}
    for split in ("train", "validation", "test"):
        rows = [good, good | {"eurovoc_concepts": "1"}] if split == "train" else [good]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    message = refused("run", write_suite(), "--set", f"data.path={folder}", by=warm)
    assert "train.jsonl" in message
    assert "row 2" in message
    assert "eurovoc_concepts" in message


def test_a_device_that_is_not_there_is_not_replaced(
    refused: Refused, warm: Cli, write_suite: Callable[..., Path], own_cache: Path
) -> None:
    message = refused("run", write_suite(), "--device", "cuda:63", by=warm)
    assert "cuda:63" in message
    assert "--device cpu" in message


def test_a_run_directory_of_another_version_is_refused(
    cli: Cli, refused: Refused, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    suite = write_suite()
    cell = json.loads(cli.run("plan", suite, "--json").stdout)["cells"][0]
    folder = tmp_path / "runs" / "tiny" / cell["id"]
    folder.mkdir(parents=True)
    (folder / "spec.yaml").write_text("layout: 99\n")
    message = refused("run", suite)
    assert "99" in message
    assert (folder / "spec.yaml").read_text() == "layout: 99\n"


def test_report_and_status_without_runs_say_where_they_looked(refused: Refused) -> None:
    for command in ("report", "status"):
        assert "plan.json" in refused(command, "quickstart")


def test_every_command_explains_itself() -> None:
    code = (
        "import typer; from altgrad_core.cli import app; from typer.testing import CliRunner\n"
        "def walk(command, path):\n"
        "    done = CliRunner().invoke(app, [*path, '--help'])\n"
        "    assert done.exit_code == 0 and 'Usage' in done.output, (path, done.output, done.exception)\n"
        "    print(' '.join(path))\n"
        "    for name, inner in getattr(command, 'commands', {}).items(): walk(inner, [*path, name])\n"
        "walk(typer.main.get_command(app), [])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = set(done.stdout.splitlines())
    assert {"run", "plan", "report", "compare", "doctor", "speed monitors", "speed formats"} <= told


def test_an_unknown_executor_is_refused_before_data_are_looked_at(
    refused: Refused, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    suite = write_suite(data={"dataset": "eurlex", "path": str(tmp_path / "nowhere")})
    message = refused("run", suite, "--executor", "locale", "--runs", tmp_path / "runs")
    assert "unknown executor 'locale'. Did you mean 'local'?" in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("executor", "given", "told"),
    [
        ("local", "gpus=1", "settings of the executor 'local': gpus: unknown key 'gpus'"),
        ("ray", "gpu=1", "Did you mean 'gpus'?"),
        ("ray", "gpus=-1", "gpus: input should be greater than or equal to 0"),
        ("ray", "gpus", "--executor-set gpus: expected --executor-set KEY=VALUE"),
        ("ray", "address=ray://head:10001", "start the suite on a machine of the cluster"),
    ],
)
def test_settings_of_an_executor_are_checked_before_data_are_looked_at(
    refused: Refused,
    write_suite: Callable[..., Path],
    tmp_path: Path,
    executor: str,
    given: str,
    told: str,
) -> None:
    suite = write_suite(data={"dataset": "eurlex", "path": str(tmp_path / "nowhere")})
    assert told in refused("run", suite, "--executor", executor, "--executor-set", given)


def test_places_that_cannot_be_used_are_a_sentence(
    refused: Refused, write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    suite = write_suite()
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", "/proc/runs", tmp_path / ("n" * 300)):
        assert str(place)[:20] in refused("run", suite, "--runs", place)
    assert "/proc/x" in refused("plan", suite, "--export", "/proc/x")
    assert "300 characters" in refused("plan", suite, "--set", "name=" + "n" * 300)
    assert len(refused("plan", "x" * 5000)) < 600


def test_a_current_folder_that_is_gone_is_a_sentence(
    write_suite: Callable[..., Path], tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    code = (
        "import os, sys; from altgrad_core.cli import main\n"
        f"os.mkdir({str(gone)!r}); os.chdir({str(gone)!r}); os.rmdir({str(gone)!r})\n"
        f"sys.argv = ['altgrad-bench', 'plan', {str(write_suite())!r}, '--set', 'training.max_steps=3']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "current folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [("report",), ("compare", "runs/none.zip"), ("status",)])
def test_an_archive_that_is_not_there_is_called_that(
    refused: Refused, command: tuple[str, ...]
) -> None:
    said = refused(*command, "runs/none.zip")
    assert (
        said == "error: there is no archive runs/none.zip: give its path from the current folder."
    )


@pytest.mark.parametrize("command", ["status", "dashboard"])
def test_an_archive_that_is_none_is_refused(refused: Refused, command: str, tmp_path: Path) -> None:
    (tmp_path / "there.zip").touch()
    said = refused(command, "there.zip")
    assert said.startswith("error: there.zip is no whole archive of results")


def test_verify_says_which_run_it_needs(refused: Refused, tmp_path: Path) -> None:
    for name in ("aaa111aaa111", "aaa222aaa222", "bbb333bbb333"):
        folder = tmp_path / "runs" / "toy" / name
        folder.mkdir(parents=True)
        (folder / "spec.yaml").write_text("layout: 1\n")
    assert "2 runs begin with aaa" in refused("verify", "aaa")
    assert "no run 'ccc' found" in refused("verify", "ccc")
    assert "no result to verify" in refused("verify", "bbb3")
    assert "holds a plan.json" in refused("verify", "toy", "--all")


def test_an_interruption_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(runner, "run_suite", interrupted)
    done = CliRunner().invoke(app, ["run", "smoke"])
    assert done.exit_code == 130
    assert "interrupted by SIGINT. The same command goes on from here" in done.output
