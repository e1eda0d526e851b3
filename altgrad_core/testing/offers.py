"""The conformance checks of any offer, by its kind: :func:`check_offer`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import SkipTest

import torch

from altgrad_core.interfaces.format import LISTED_BITS
from altgrad_core.interfaces.plugin import Kind
from altgrad_core.registry.catalog import Catalog, imported
from altgrad_core.registry.discovery import Registered
from altgrad_core.registry.needs import missing_needs
from altgrad_core.registry.strangers import StrangeError, strangers_code
from altgrad_core.testing.executors import check_executor
from altgrad_core.testing.formats import check_format
from altgrad_core.testing.monitors import check_monitor
from altgrad_core.testing.optimizers import check_optimizer
from altgrad_core.testing.rules import Fault, rule, told
from altgrad_core.testing.sections import check_section
from altgrad_core.testing.tasks import check_task
from altgrad_core.testing.trackers import check_tracker

_RATES = (0.01, 0.03, 0.1, 0.003, 0.001, 0.3, 1.0)
_PATIENCE = 2.0
_OFFER = "what an offer names exists, and is built from the settings of its example (the defaults, if it has none)"

_PROCESS = "a plugin leaves the process as it was: others live in it, too"


def check_offer(entry: Registered) -> None:
    """Run every conformance check on what the offer offers, built as its ``example`` says.

    Raises :class:`~altgrad_core.testing.rules.Fault` for the first rule that is broken, and
    ``unittest.SkipTest`` where this machine lacks what the offer needs.
    """
    if missing := missing_needs(entry.offer):
        raise SkipTest("; ".join(missing))
    one = Catalog([entry])
    with _one_thread(), tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        try:
            with strangers_code():
                with rule(_OFFER):
                    settings = _example(entry, place / "example")
                    one.validate(entry.kind, entry.offer.name, settings)
                    for target in _targets(entry):
                        imported(entry, target)
                    one.load(entry.kind, entry.offer.name)
                with rule(_PROCESS), _as_it_was():
                    _CHECKS[entry.kind](one, entry, settings, place)
        except StrangeError as error:
            cause = error.__cause__ or error
            if isinstance(cause, Fault | SkipTest):
                raise cause from None
            raise Fault(
                "a plugin raises nothing but what its contract says", told(cause)
            ) from error


def _targets(entry: Registered) -> Iterable[str]:
    offer = entry.offer
    named = (offer.target, offer.fingerprint, offer.resample, offer.source)
    return (target for target in named if target is not None)


def _example(entry: Registered, folder: Path) -> dict[str, Any]:
    example = entry.offer.example
    if isinstance(example, Mapping):
        return dict(example)
    folder.mkdir()
    return dict(imported(entry, example)(folder))


def _process() -> dict[str, Any]:
    return {
        "the working directory": Path.cwd(),
        "torch's default dtype": torch.get_default_dtype(),
        "torch's grad mode": torch.is_grad_enabled(),
        "torch's number of threads": torch.get_num_threads(),
        "torch's deterministic debug mode": torch.get_deterministic_debug_mode(),
    }


@contextmanager
def _as_it_was() -> Iterator[None]:
    """Raise ``AssertionError`` for what another piece of code in this process would notice; put it back."""
    before = _process()
    try:
        yield
        for what, value in _process().items():
            if value != before[what]:
                raise AssertionError(
                    f"{what} was {before[what]} before it was used, and is {value} now"
                )
    finally:
        folder, dtype, grad, threads, deterministic = before.values()
        os.chdir(folder)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)
        torch.set_num_threads(threads)
        if torch.get_deterministic_debug_mode() != deterministic:  # asking imports torch's compiler
            torch.use_deterministic_algorithms(deterministic > 0, warn_only=deterministic == 1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """What is checked is tiny: more threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _builder(one: Catalog, entry: Registered, settings: Mapping[str, Any]) -> Callable[..., Any]:
    def build(**more: Any) -> Any:
        with rule(_OFFER):
            return one.build(entry.kind, entry.offer.name, {**settings, **more})

    return build


def _format(one: Catalog, entry: Registered, settings: Mapping[str, Any], folder: Path) -> None:
    build = _builder(one, entry, settings)
    fmt = build()
    with rule(
        "the offer says in which dtype hardware multiplies a format's codes, as the format does"
    ):
        if fmt.native != entry.offer.native:
            raise AssertionError(f"native is {entry.offer.native!r} there, and {fmt.native!r} here")
    check_format(fmt)
    with rule("a format is what its name and settings say: built again, it is the same"):
        if fmt.bits <= LISTED_BITS and not torch.equal(
            fmt.code_values().nan_to_num(), build().code_values().nan_to_num()
        ):
            raise AssertionError("built twice, its code_values() differ")


def _optimizer(one: Catalog, entry: Registered, settings: Mapping[str, Any], folder: Path) -> None:
    """At the first learning rate at which it gets anywhere: which one suits it is not known."""
    plugin = _builder(one, entry, settings)()
    for rate in _RATES:
        try:
            return check_optimizer(plugin, learning_rate=rate)
        except Fault as fault:
            if "must at least halve the loss" not in fault.example:
                raise
            last = fault
    raise Fault(
        last.rule, f"{last.example}; nor at any learning rate of {', '.join(map(str, _RATES))}"
    )


def _monitor(one: Catalog, entry: Registered, settings: Mapping[str, Any], folder: Path) -> None:
    short = {"interval": 1} if "interval" in entry.offer.settings.model_fields else {}
    check_monitor(_builder(one, entry, {**short, **settings})())


def _task(one: Catalog, entry: Registered, settings: Mapping[str, Any], folder: Path) -> None:
    build = _builder(one, entry, settings)
    model = one.validate("task", entry.offer.name, settings)
    if entry.offer.fingerprint is not None:
        with rule(
            "fingerprint() says what the data are, in strings, and the same for the same data"
        ):
            _fingerprint(one, entry, settings)
    weights = getattr(getattr(model, "model", None), "pretrained", None)
    check_task(build, folder / "task", metrics=entry.offer.metrics, pretrained=weights is not None)


def _fingerprint(one: Catalog, entry: Registered, settings: Mapping[str, Any]) -> None:
    first, again = (one.fingerprint(entry.offer.name, settings) for _ in range(2))
    if first != again:
        raise AssertionError(f"asked twice, it gives {first} and {again}")
    if not all(isinstance(word, str) for pair in first.items() for word in pair):
        raise AssertionError(f"it gives {first}")


def _section(one: Catalog, entry: Registered, settings: Mapping[str, Any], folder: Path) -> None:
    from altgrad_core.testing.sample_suite import sample_findings

    section = _builder(one, entry, settings)()
    with rule(
        "a section makes blocks of any findings, the same ones each time, and changes no table"
    ):
        check_section(section, *sample_findings())


def _executor(one: Catalog, entry: Registered, settings: Mapping[str, Any], folder: Path) -> None:
    executor = _builder(one, entry, settings)()
    with rule("an executor runs each job in a process of its own and tells its end as it was"):
        check_executor(executor, timeout=_PATIENCE)


def _tracker(one: Catalog, entry: Registered, settings: Mapping[str, Any], folder: Path) -> None:
    tracker = _builder(one, entry, settings)()
    with rule("a tracker takes any metric and event, raises nothing and is soon done"):
        check_tracker(tracker)


_CHECKS: Mapping[Kind, Callable[[Catalog, Registered, Mapping[str, Any], Path], None]] = {
    "format": _format,
    "optimizer": _optimizer,
    "monitor": _monitor,
    "task": _task,
    "section": _section,
    "executor": _executor,
    "tracker": _tracker,
}
