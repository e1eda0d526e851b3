"""The plan of the house: arrows run one way, the core names no plugin, packaging lists every folder."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What each part of the core may import from the core; the interfaces and errors are open to all.
ALLOWED: dict[str, set[str]] = {
    "interfaces": set(),
    "registry": set(),
    "locks": set(),
    "results": {"registry", "locks"},
    "quantization": set(),
    "training": {"quantization", "results"},
    "planning": {"training", "quantization", "registry"},
    "execution": {"planning", "training", "quantization", "registry", "results", "locks"},
    "analysis": {"planning", "results", "registry", "quantization"},
    "report": {"analysis", "registry", "results"},
    "testing": {
        *("quantization", "registry", "training", "execution"),
        *("results", "analysis", "report"),  # findings for sections
    },
    "scaffold": {"registry"},
}
SHARED_BY_SECTIONS = ("altgrad_core.analysis.words", "altgrad_core.report.charts")
OPEN = {"interfaces", "errors", "_axis", "_files", "_lazy", "_streams", "_text"}


def imported_modules(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            package = ROOT.joinpath(*str(node.module).split("."))
            modules = [
                alias.name for alias in node.names if (package / f"{alias.name}.py").exists()
            ]
            found |= {f"{node.module}.{name}" for name in modules} or {str(node.module)}
    return found


def core_files(part: str) -> list[Path]:
    return sorted((ROOT / "altgrad_core" / part).rglob("*.py"))


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_arrows_of_the_core_run_one_way(part: str) -> None:
    files = core_files(part)
    assert files
    for path in files:
        for module in imported_modules(path):
            package, _, rest = module.partition(".")
            assert package not in ("altgrad_plugins", "altgrad_suites"), f"{path} imports {module}"
            if package == "altgrad_core" and rest:
                target = rest.split(".")[0]
                allowed = ALLOWED[part] | OPEN | {part}
                # `show format` draws the card, and only when asked for one
                if path.name == "present.py" and target == "format_card":
                    continue
                assert target in allowed, f"{path} imports {module}"


@pytest.mark.parametrize("part", sorted(ALLOWED))
def test_no_modules_of_a_part_import_each_other_in_a_circle(part: str) -> None:
    """Imports inside functions count as well."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in core_files(part)
    }
    arrows = {name: imported_modules(path) & modules.keys() for name, path in modules.items()}
    TopologicalSorter(arrows).prepare()  # raises CycleError, which names the circle


def test_every_part_of_the_core_has_its_arrows() -> None:
    folders = {p.parent.name for p in (ROOT / "altgrad_core").glob("*/__init__.py")}
    assert folders == set(ALLOWED)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "plugins").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_plugins_see_interfaces_and_quantization_only(path: Path) -> None:
    kind = path.relative_to(ROOT / "plugins").parts[0]
    for module in imported_modules(path):
        if module.startswith("altgrad_core"):
            target = [*module.split("."), "interfaces"][1]
            if kind == "sections" and target in ("report", "analysis"):
                assert module in SHARED_BY_SECTIONS, f"{path} imports {module}"
                continue
            if kind == "trackers" and target == "results":  # what they keep can be read back
                continue
            assert target in ("interfaces", "errors", "quantization"), f"{path} imports {module}"
        if module.startswith("altgrad_plugins."):
            assert module.split(".")[1] == kind, f"{path} imports {module}"


def offer_names() -> set[str]:
    from altgrad_core.registry.catalog import catalog

    kinds = ("format", "optimizer", "monitor", "task", "tracker")
    return {name for kind in kinds for name in catalog().offers(kind)}


def test_the_core_names_no_plugin() -> None:
    # Words that are names of plugins and of other things as well are looked for as whole strings.
    ordinary = {
        "table",
        "amax",
        "rank",
        "overflow",
        "gradients",
        "throughput",
        "flips",
        "stiffness",
    }
    dtypes = {"bf16", "fp32"}  # names of compute precisions, and of the default baseline
    names = offer_names() - ordinary - dtypes
    assert {"e5m2", "manifold_adamw", "license_rules"} <= names
    for path in sorted((ROOT / "altgrad_core").rglob("*.py")):
        docstrings = set()
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                docstrings.add(id(node.value))
            if isinstance(node, ast.keyword) and node.arg in ("help", "description"):
                docstrings |= {id(c) for c in ast.walk(node.value)}
        for node in ast.walk(tree):
            told = isinstance(node, ast.Constant) and id(node) not in docstrings
            if told and node.value in names:
                pytest.fail(f"{path}:{node.lineno} names the plugin {node.value!r}")


def test_packaging_lists_every_folder() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {"altgrad_suites"}
    for top, package in (("altgrad_core", "altgrad_core"), ("plugins", "altgrad_plugins")):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / top).parts
            folders.add(".".join((package, *parts)))
    assert sorted(listed) == sorted(folders)


def test_importing_the_package_and_the_hooks_does_not_import_torch() -> None:
    """Nor does a format import pandas, nor the table of what is quantised transformers."""
    code = (
        "import sys, altgrad_core, altgrad_core.cli, altgrad_core.planning.planner\n"
        "from altgrad_core.registry.catalog import catalog\n"
        "kinds = ('format','optimizer','monitor','task','executor','tracker')\n"
        "assert all(catalog().offers(k) for k in kinds)\n"
        "assert not catalog().broken, catalog().broken\n"
        "heavy = {'torch','transformers','pandas','matplotlib','altair','datasets','wandb','uvicorn','fsspec'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "altgrad_core.load_format('e5m2').code_values()\n"
        "import altgrad_core.quantization.surgery\n"
        "assert 'torch' in sys.modules and not {'pandas', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_repository_speaks_of_the_product_alone() -> None:
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True, check=False
    ).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    unfinished = re.compile(r"\bTO" + r"DO\b|\bFIX" + r"ME\b")
    for name in tracked:
        path = ROOT / name
        if path.suffix in (".py", ".md", ".yaml", ".toml") and path.is_file():
            found = unfinished.search(path.read_text())
            assert found is None, f"{name}: {found}"
