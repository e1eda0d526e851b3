"""What is installed on this machine, what is missing, what would run where: ``altgrad-bench doctor``."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table
from rich.text import Text

from altgrad_core._files import default_cache
from altgrad_core._streams import stdout_to_stderr
from altgrad_core._text import plain
from altgrad_core.errors import UserError
from altgrad_core.registry.strangers import StrangeError, strangers_code

_PROJECT = "altgrad-bench"
_LEAST_DISK = 2e9
"""Bytes below which a suite may fill the disk with its checkpoints."""
_HUB_PATIENCE = 3.0
"""Seconds for an answer of the hub."""

_PRODUCTS = {"torch._scaled_mm": "float8", "torch._int_mm": "int8"}
"""What multiplies codes, and of which dtype."""

State = Literal["ok", "note", "missing", "broken"]
_STYLES: dict[State, str] = {"ok": "green", "note": "cyan", "missing": "yellow", "broken": "red"}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    ``missing`` is what some suites do without, ``broken`` what stops work; then ``mend`` says what to
    do, as a command where there is one.
    """

    area: str
    name: str
    state: State
    text: str
    mend: str = ""

    def to_json(self) -> dict[str, str]:
        """As plain data."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything. What fails while it is looked at is a finding as well."""
    parts: tuple[Callable[[], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _devices,
        _plugins,
        _storage,
        _hub,
        _suites,
    )
    found: list[Finding] = []
    for part in parts:
        try:
            with strangers_code(), stdout_to_stderr():
                found += part()
        except (StrangeError, UserError) as error:
            area = part.__name__.strip("_")
            mend = f"pip install --force-reinstall {_PROJECT}"
            found.append(Finding(area, area, "broken", str(error), mend))
    return found


def print_findings(found: Sequence[Finding], console: Console) -> None:
    """Print a line for each finding, with what mends it below."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for width in (None, None, None):
        table.add_column(overflow="fold", width=width)
    area = ""
    for one in found:
        text = Text.assemble((f"{one.state:<8}", _STYLES[one.state]), plain(one.text, None))
        if one.mend:
            text.append(f"\n        → {plain(one.mend, None)}", style="bold")
        table.add_row("" if one.area == area else Text(one.area), Text(one.name), text)
        area = one.area
    console.print(table)
    counts = Counter(one.state for one in found)
    said = ", ".join(f"{counts[state]} {state}" for state in _STYLES if counts[state])
    console.print(Text(f"\n{said}"))


def _python() -> Iterator[Finding]:
    wanted = distribution(_PROJECT).metadata["Requires-Python"]
    good = Requirement(f"python{wanted}").specifier.contains(platform.python_version())
    text = f"{platform.python_version()} ({sys.executable}), {platform.platform()}"
    mend = "" if good else f"make a virtual environment with Python {wanted}"
    yield Finding("python", "python", "ok" if good else "broken", text, mend)
    place = Path(__file__).parent
    yield Finding("python", _PROJECT, "ok", f"{version(_PROJECT)} ({place})")


def _packages() -> Iterator[Finding]:
    requirements = [Requirement(text) for text in distribution(_PROJECT).requires or ()]
    for one in requirements:
        if _belongs(one, "") and (said := _unmet(one)):
            yield Finding("packages", one.name, "broken", said, f"pip install '{_bare(one)}'")
    for extra in distribution(_PROJECT).metadata.get_all("Provides-Extra") or ():
        mine = [one for one in requirements if _belongs(one, extra) and not _belongs(one, "")]
        missing = [f"{one.name} {said}" for one in mine if (said := _unmet(one))]
        state: State = "missing" if missing else "ok"
        text = ", ".join(missing or (one.name for one in mine))
        mend = f"pip install '{_PROJECT}[{extra}]'" if missing else ""
        yield Finding("packages", f"[{extra}]", state, text, mend)


def _belongs(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _unmet(requirement: Requirement) -> str:
    """What is wrong with the installed version, or an empty string."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return "is not installed"
    if not requirement.specifier.contains(found, prereleases=True):
        return f"{found} is installed, and {requirement.specifier} is needed"
    return ""


def _bare(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _devices() -> Iterator[Finding]:
    from altgrad_core.execution.launch import cores, default_workers
    from altgrad_core.registry.needs import no_cuda

    try:
        with strangers_code():
            import torch

            from altgrad_core.interfaces.backend import cpu_backend
    except StrangeError as error:
        text = f"torch cannot be imported: {error}"
        yield Finding("devices", "torch", "broken", text, "pip install --force-reinstall torch")
        return
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "the CPU alone"
    yield Finding("devices", "torch", "ok", f"{torch.__version__}, built for {built}")
    runs = default_workers("cpu", 1_000_000)
    rounding = {"numba": "numba's kernels", "eager": "torch's operators, which is slower"}
    how = f"{cores()} cores: {runs} runs at once; rounding by {rounding[cpu_backend()]}"
    yield Finding("devices", "cpu", "ok", how)
    yield _native("cpu")
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            yield _cuda(number)
            yield _native("cuda", number)
        return
    why = no_cuda()
    if why:
        yield Finding("devices", "cuda", "note", f"none: {why}. Everything runs on the CPU")
    else:
        text = f"the driver shows a GPU, and torch, built for {built}, does not use it"
        yield Finding("devices", "cuda", "missing", text, "install a torch that is built for CUDA")


def _cuda(number: int) -> Finding:
    import torch

    name = f"cuda:{number}"
    try:
        with strangers_code():
            facts = torch.cuda.get_device_properties(number)
            float((torch.ones(2, device=name) + 1).sum())
    except StrangeError as error:
        mend = "install a torch that is built for this GPU, or run with --device cpu"
        return Finding("devices", name, "broken", f"does not compute: {error}", mend)
    size = f"{facts.total_memory / 2**30:.0f} GiB, compute capability {facts.major}.{facts.minor}"
    return Finding("devices", name, "ok", f"{facts.name}, {size}: one run at a time")


def _native(kind: str, number: int = 0) -> Finding:
    """Which 8-bit products ``quantization.execution: native`` finds on a device."""
    from altgrad_core.quantization.native.products import unavailable

    lacking = {name: unavailable(name, kind, number) for name in _PRODUCTS}
    there = [f"{what} by {name}" for name, what in _PRODUCTS.items() if not lacking[name]]
    parts = [f"8-bit products: {', '.join(there) or 'none'}"]
    parts += [f"no {what}: {lacking[name]}" for name, what in _PRODUCTS.items() if lacking[name]]
    name = kind if kind == "cpu" else f"{kind}:{number}"
    state: State = "ok" if len(there) == len(_PRODUCTS) else "note"
    return Finding("devices", f"{name} native", state, "; ".join(parts))


def _plugins() -> Iterator[Finding]:
    from altgrad_core.registry.catalog import catalog
    from altgrad_core.registry.needs import missing_needs

    found = catalog()
    for origin in dict.fromkeys(one.origin for one in found.registered):
        kinds = Counter(one.kind for one in found.registered if one.origin == origin)
        text = ", ".join(f"{n} {kind}{'' if n == 1 else 's'}" for kind, n in kinds.items())
        yield Finding("plugins", origin, "ok", text)
    for one in found.registered:
        if missing := missing_needs(one.offer):
            hints = [need.hint for need in one.offer.needs if need.hint]
            name = f"{one.kind} {one.offer.name}"
            yield Finding("plugins", name, "missing", "; ".join(missing), "; ".join(hints))
    for broken in found.broken:
        mend = (
            f"pip install --upgrade {broken.distribution}, or pip uninstall {broken.distribution}"
        )
        name = f"{broken.distribution} {broken.version}"
        yield Finding("plugins", name, "broken", f"{broken.entry_point}: {broken.error}", mend)
    for clash in found.clashes():
        said, _, mend = clash.partition(": ")
        yield Finding("plugins", "names", "broken", said, mend.rstrip("."))


def _storage() -> Iterator[Finding]:
    for name, folder, mend in (
        ("runs", Path("runs"), "run with --runs DIR"),
        ("cache", default_cache(), "export ALTGRAD_CACHE=DIR"),
    ):
        there = folder.absolute()
        while not there.exists():
            there = there.parent
        if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
            text = f"{folder} cannot be written"
            yield Finding("storage", name, "broken", text, mend)
            continue
        free = shutil.disk_usage(there).free
        enough = free >= _LEAST_DISK
        text = f"{folder}: {free / 1e9:.1f} GB free"
        state: State = "ok" if enough else "missing"
        yield Finding("storage", name, state, text, "" if enough else f"free some, or {mend}")


def _hub() -> Iterator[Finding]:
    from huggingface_hub import constants

    mend = "set data.path and model.pretrained to local folders, or look at the network"
    address = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE:
        text = "switched off by HF_HUB_OFFLINE: only what is in its cache can be used"
        yield Finding("data", "hub", "missing", text, f"unset HF_HUB_OFFLINE, or {mend}")
        return
    try:
        request = urllib.request.Request(address, method="HEAD")
        urllib.request.urlopen(request, timeout=_HUB_PATIENCE).close()
    except urllib.error.HTTPError:
        pass  # it has answered
    except (OSError, ValueError) as error:
        text = f"{address} does not answer ({error})"
        yield Finding("data", "hub", "missing", text, mend)
        return
    yield Finding("data", "hub", "ok", f"{address} answers")


def _suites() -> Iterator[Finding]:
    from altgrad_core.planning.suite import shipped_suites

    for name in shipped_suites():
        try:
            yield _suite(name)
        except UserError as error:
            yield Finding("suites", name, "missing", str(error), f"{_PROJECT} show suite {name}")


def _suite(name: str) -> Finding:
    """What of the suite would run, and where: one seed is planned, and stands for all."""
    from altgrad_core.execution.launch import default_workers
    from altgrad_core.planning.planner import plan_suite
    from altgrad_core.planning.suite import load_suite

    suite = load_suite(name)
    cells = plan_suite(load_suite(name, [f"seeds=[{suite.seeds[0]}]"])).cells
    skipped = Counter(cell.skip for cell in cells if cell.skip)
    runs = (len(cells) - skipped.total()) * len(suite.seeds)
    device = _where()
    at_once = default_workers(device, runs)
    text = f"{runs} runs on {device}, {at_once} at once" if runs else "nothing can run"
    if not skipped:
        return Finding("suites", name, "ok", text)
    reasons = "; ".join(f"{n * len(suite.seeds)} skipped: {why}" for why, n in skipped.items())
    return Finding("suites", name, "missing", f"{text}; {reasons}", f"{_PROJECT} plan {name}")


def _where() -> str:
    """Where a run goes with ``--device auto``."""
    torch: Any = sys.modules.get("torch")
    return "cuda" if torch is not None and torch.cuda.is_available() else "cpu"
