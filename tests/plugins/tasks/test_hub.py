"""The main job as a user with a network runs it: the hub's own clients against a stand-in of the hub."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from warm_cli import FULL, warm_cli

from altgrad_plugins.tasks.eurlex_hub import HUB
from altgrad_plugins.tasks.hub_errors import why

pytest.importorskip("datasets")
ROOT = Path(__file__).parents[3]
MATRIX = ROOT / "suites" / "eurlex_matrix.yaml"
WORDS = ("harbour", "fish", "vessel", "tax", "duty", "wine", "grape", "seed")
pytestmark = pytest.mark.slow


def write_acts(folder: Path, *, size: int = 24, padding: int = 0) -> None:
    """The three files of the published data set; ``padding`` characters of noise in the first act."""
    import pyarrow as pa
    from pyarrow import parquet

    draws = random.Random(0)
    folder.mkdir(parents=True)
    for number, split in enumerate(("train", "validation", "test")):
        titles = [" ".join(draws.choices(WORDS, k=6)) + f" {number} {i}" for i in range(size)]
        concepts = [[str(100 + WORDS.index(t.split()[0]) % 3), "200"] for t in titles]
        texts = list(titles)
        if split == "train" and padding:
            texts[0] += " " + draws.randbytes(padding // 2).hex()
        ids = [f"3{number:02}{i:04}" for i in range(size)]
        columns = {"celex_id": ids, "title": titles, "text": texts, "eurovoc_concepts": concepts}
        parquet.write_table(pa.table(columns), folder / f"eurlex-{split}.parquet")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A hub that holds nothing yet, and ``served.cli``: processes whose clients were imported to ask it."""
    spec = importlib.util.spec_from_file_location("hub_server", ROOT / "tests" / "hub_server.py")
    assert spec is not None
    assert spec.loader is not None
    sys.modules["hub_server"] = server = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(server)
    with server.hub_server() as running, pytest.MonkeyPatch.context() as patch:
        for name in [n for n in os.environ if n.startswith(("HF_", "HUGGING"))]:
            patch.delenv(name)
        running.server, running.home = server, tmp_path_factory.mktemp("hf")
        patch.setenv("HF_ENDPOINT", running.url)
        patch.setenv("HF_HOME", str(running.home))
        with warm_cli(preloaded=(*FULL, "datasets", "altgrad_plugins.tasks.eurlex_hub")) as cli:
            running.cli = cli
            yield running
    del sys.modules["hub_server"]


@pytest.fixture
def hub(served: Any, tmp_path: Path, own_cache: Path, pretrained_folder: Path) -> Any:
    """A hub that holds what the suite asks for, of which nothing was fetched yet."""
    model = yaml.safe_load(MATRIX.read_text())["model"]
    files = HUB["eurlex57k"]
    write_acts(tmp_path / "data" / "eurlex57k")
    shutil.rmtree(served.home)
    served.home.mkdir()
    served.asked.clear()
    served.breaks.clear()
    served.data = served.server.Repository(tmp_path / "data", files.revision)
    served.model = served.server.Repository(pretrained_folder, model["pretrained_revision"])
    served.repositories = {
        ("datasets", files.repository): served.data,
        ("models", model["pretrained"]): served.model,
    }
    return served


def run(
    hub: Any, folder: Path, *more: str, report: bool = False
) -> subprocess.CompletedProcess[str]:
    """The shipped suite with its own data and weights, cut to two runs of two steps."""
    small = ["training.max_steps=2", "training.eval_interval=2", "training.batch_size=4"]
    matrix = "matrix={quantization.format: [e5m2], optimizer.type: [adamw, manifold_adamw]}"
    settings = [*small, "model.max_length=16", "monitors=[]", matrix, *more]
    command = ["run", str(MATRIX), "--device", "cpu", *([] if report else ["--no-report"])]
    sets = (part for setting in settings for part in ("--set", setting))
    return hub.cli.run(*command, *sets, folder=folder)  # type: ignore[no-any-return]


def test_the_default_path_of_the_main_job(hub: Any, tmp_path: Path) -> None:
    done = run(hub, tmp_path, report=True)
    assert done.returncode == 0, done.stdout + done.stderr
    suite = tmp_path / "runs" / "eurlex_matrix"
    assert (suite / "report" / "report.html").is_file()
    cells = json.loads((suite / "plan.json").read_text())["cells"]
    assert [c["condition"] for c in cells] == ["e5m2_adamw", "e5m2_manifold"]
    for cell in cells:
        assert json.loads((suite / cell["id"] / "status.json").read_text())["status"] == "ok"
        spec = (suite / cell["id"] / "spec.yaml").read_text()
        assert HUB["eurlex57k"].revision in spec
        assert hub.model.commit in spec
    asked = {path for _, path, _ in hub.asked if "/resolve/" in path}
    for revision in (hub.data.commit, hub.model.commit):
        assert any(f"/resolve/{revision}/" in path for path in asked)
    assert not [p for p in asked if f"/{hub.data.commit}/" not in p and hub.model.commit not in p]


def test_a_model_without_a_revision_is_pinned_by_what_was_found(hub: Any, tmp_path: Path) -> None:
    first, unpinned = hub.model.commit, "model.pretrained_revision=null"
    done = run(hub, tmp_path, unpinned)
    assert done.returncode == 0, done.stdout + done.stderr
    suite = tmp_path / "runs" / "eurlex_matrix"
    cells = json.loads((suite / "plan.json").read_text())["cells"]
    for cell in cells:
        spec = yaml.safe_load((suite / cell["id"] / "spec.yaml").read_text())
        assert spec["fingerprint"]["model"].endswith(f"@{first}")
        facts = json.loads((suite / cell["id"] / "facts.json").read_text())
        assert facts["data"]["fingerprint"]["model"].endswith(f"@{first}")
    hub.model.commit = (
        "f" * 40
    )  # the repository goes on, and the runs of this suite stay what they are
    again = run(hub, tmp_path, unpinned)
    assert again.returncode == 0, again.stdout + again.stderr
    assert json.loads((suite / "plan.json").read_text())["cells"] == cells


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: Any, tmp_path: Path) -> None:
    shutil.rmtree(hub.data.folder)
    write_acts(hub.data.folder / "eurlex57k", padding=24_000_000)
    size = (hub.data.folder / "eurlex57k" / "eurlex-train.parquet").stat().st_size
    assert size > 12_000_000
    hub.breaks["eurlex-train.parquet"] = 11_000_000
    done = read(hub)
    assert done.stdout == "24\n", done.stderr
    assert not hub.breaks
    ranges = [r for method, p, r in hub.asked if p.endswith("train.parquet") and method == "GET"]
    assert len(ranges) == 2
    assert ranges[1].startswith("bytes=10"), ranges  # whole chunks of ten megabytes are kept


def read(hub: Any) -> subprocess.CompletedProcess[str]:
    """Read the data set in a process of its own, as preparation does; what a user would be told."""
    code = (
        "from altgrad_core.errors import UserError\n"
        "from altgrad_plugins.tasks.eurlex_hub import read_hub\n"
        "try: print(len(read_hub('eurlex57k', 'title')['train']))\n"
        "except UserError as error: print(error)\n"
    )
    return hub.cli.run("-c", code)  # type: ignore[no-any-return]


def test_what_the_hub_refuses_is_called_by_its_name(hub: Any) -> None:
    hub.data.gated = True
    assert "access to it is restricted" in read(hub).stdout
    hub.data.gated = False
    hub.data.commit = "0" * 40
    assert "it has no such revision" in read(hub).stdout
    hub.repositories.clear()
    assert "there is none of that name, or it is private" in read(hub).stdout


def test_so_is_a_file_that_is_no_parquet(hub: Any) -> None:
    (hub.data.folder / "eurlex57k" / "eurlex-test.parquet").write_bytes(b"not parquet at all")
    said = read(hub).stdout
    assert "what was fetched cannot be read" in said
    assert "network" not in said


def test_a_gated_model_ends_the_suite_before_anything_trains(hub: Any, tmp_path: Path) -> None:
    hub.model.gated = True
    done = run(hub, tmp_path)
    assert done.returncode == 2
    said = " ".join((done.stdout + done.stderr).split())
    assert "'distilbert-base-uncased' cannot be fetched" in said
    assert "access to it is restricted" in said
    assert "network" not in said


def test_a_full_disk_is_not_the_hubs() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "blob")
    wrapped = RuntimeError("could not load")
    wrapped.__cause__ = full
    with pytest.raises(OSError, match="No space left") as raised:
        why(wrapped)
    assert raised.value is full
