"""Shared by all tests: one thread, a tiny data set of acts, and suites on it."""

from __future__ import annotations

import gc
import gzip
import importlib
import json
import random
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis
import pytest
import yaml
from warm_cli import LIGHT, Cli, warm_cli

# A deadline would measure the machine, which others use as well.
hypothesis.settings.register_profile("altgrad", deadline=None)
hypothesis.settings.load_profile("altgrad")

LONGEST = (
    *("test_studies.py", "test_pretend_device.py", "test_planted_verdicts.py", "test_triton.py"),
    *("test_end_to_end.py", "test_random_kills.py", "test_cli.py", "test_no_flock.py"),
    *("test_page_browser.py", "test_hub.py", "test_wandb.py", "test_dashboard.py"),
    *("test_foreign_models.py", "test_wandb_source.py", "test_tuning.py", "test_compiled.py"),
    *("test_settling_together.py", "test_step_speed.py", "test_license_rules.py"),
    *("test_tutorial.py", "test_package.py", "test_third_party.py", "test_inventory.py"),
    *("test_monitor_offers.py", "test_distributed.py", "test_sgd.py", "test_residency.py"),
    "test_store_hold.py",
)
"""Files that take longest: they come first, so that no process is left alone with one at the end."""

TOPICS = {
    "1309": ("fishing quota vessel herring catch", "sea waters stocks"),
    "2443": ("customs tariff import duty goods", "code classification origin"),
    "5360": ("wheat cereal farm aid premium", "crop area payment"),
    "3003": ("bank capital credit institution", "risk supervision ratio"),
}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported here stays: it need not be looked through, now or each time that memory is tidied."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """One more than there are cores: a fifth of the time tests wait, for a disk or a process of their own."""
    return (yield) + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def write_acts(path: Path, count: int, seed: int) -> None:
    """Acts whose words tell their concepts, in the schema of ``NLP-AUEB/eurlex``."""
    words = random.Random(seed)
    with gzip.open(path, "wt") as file:
        for number in range(count):
            concepts = words.sample(sorted(TOPICS), words.choice([1, 1, 2]))
            text = [w for c in concepts for part in TOPICS[c] for w in part.split()]
            words.shuffle(text)
            act = {
                "celex_id": f"3{seed}{number:05d}",
                "title": " ".join(["regulation", "on", *text[:6]]),
                "text": " ".join(text),
                "eurovoc_concepts": concepts,
            }
            file.write(json.dumps(act) + "\n")


@pytest.fixture(scope="session")
def tiny_acts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train, validation and test files of a few dozen acts."""
    folder = tmp_path_factory.mktemp("acts")
    for seed, (split, count) in enumerate([("train", 96), ("validation", 24), ("test", 24)]):
        write_acts(folder / f"{split}.jsonl.gz", count, seed)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def signals() -> Iterator[None]:
    """SIGINT and SIGHUP do what they do in a terminal, also where tests run in the background or under ``nohup``."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def default_dtype() -> Iterator[Callable[[Any], None]]:
    """Sets what torch makes tensors of where nothing is said, until the test ends."""
    import torch

    before = torch.get_default_dtype()
    yield torch.set_default_dtype
    torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def page_script() -> Path:
    """The file of the script that reports share, in the user's cache: making it takes seconds."""
    from altgrad_core.report.pictures import bundle_file, vega_bundle

    vega_bundle()
    return bundle_file()


@pytest.fixture
def own_cache(tmp_path: Path, page_script: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own, for child processes as well."""
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / page_script.name).symlink_to(page_script)
    monkeypatch.setenv("ALTGRAD_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def cli() -> Iterator[Cli]:
    """Command lines, each in a process of its own that need not import what they all need."""
    with warm_cli(preloaded=LIGHT) as running:
        yield running


@pytest.fixture(scope="session")
def warm() -> Iterator[Cli]:
    """As ``cli``, for what runs suites and reports."""
    with warm_cli() as running:
        yield running


@pytest.fixture
def write_suite(tiny_acts: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a suite on the tiny acts; keywords replace whole sections."""

    def write(name: str = "tiny", **sections: Any) -> Path:
        suite: dict[str, Any] = {
            "name": name,
            "model": {
                "hidden_dim": 16,
                "num_layers": 1,
                "num_heads": 2,
                "max_length": 16,
                "dropout": 0.1,
            },
            "data": {"dataset": "eurlex", "path": str(tiny_acts), "vocab_size": 200},
            "training": {
                "batch_size": 8,
                "learning_rate": 1e-3,
                "max_steps": 12,
                "eval_interval": 4,
                "log_interval": 2,
                "checkpoint_interval": 4,
            },
            "optimizer": {"type": "adamw"},
            "matrix": {
                "quantization.format": ["bf16", "e5m2"],
                "optimizer.type": ["adamw", "manifold_adamw"],
            },
            "monitors": ["flips", "rank", "throughput"],
        }
        suite |= sections
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(suite, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def fabricated() -> ModuleType:
    """The hand-made run directories of ``tests/fabricated_runs.py``."""
    return importlib.import_module("fabricated_runs")


@pytest.fixture(scope="session")
def sample_document() -> ModuleType:
    """The module ``tests/sample_document.py``."""
    return importlib.import_module("sample_document")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The module ``tests/chromium.py`` with a running browser as ``chromium.running``."""
    module: Any = importlib.import_module("chromium")
    program = module.find_chromium()
    if program is None:
        pytest.skip("needs Debian's chromium: apt-get install chromium")
    with module.browser(program) as module.running:
        yield module


@pytest.fixture
def watch_waits() -> Any:
    """A context: what it ``seen`` would have made the host wait for a device, were all tensors there."""
    from altgrad_core.testing.waits import Watch

    return Watch
