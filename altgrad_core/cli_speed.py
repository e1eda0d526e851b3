"""``altgrad-bench speed``: what formats, monitors, optimizers, steps and suites cost on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Annotated, Any

import typer
import yaml

from altgrad_core import completion
from altgrad_core._streams import stdout_to_stderr
from altgrad_core.cli_options import DeviceOption, JsonOption, SetOption
from altgrad_core.errors import UserError
from altgrad_core.terminal import output, say

ThreadsOption = Annotated[int, typer.Option(min=1, help="CPU threads.")]

RoundsOption = Annotated[int, typer.Option(min=1, help="Measured rounds.")]
_SuiteArgument = Annotated[
    str,
    typer.Argument(
        metavar="SUITE", help="Model, data and conditions.", autocompletion=completion.suites
    ),
]
_FormatsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FORMAT]...",
        help="Names, or '{name: exmy, exponent_bits: 3, mantissa_bits: 4}' [default: all].",
        autocompletion=completion.formats,
    ),
]

speed = typer.Typer(help="Measure what things cost on this machine.", no_args_is_help=True)


@speed.command(name="monitors")
def speed_monitors(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="Its first cell gives model, data and format.",
            autocompletion=completion.suites,
        ),
    ] = "quickstart",
    set_: SetOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    rounds: Annotated[int, typer.Option(min=3, help="Measured steps of each kind.")] = 20,
    threads: ThreadsOption = 1,
) -> None:
    """Step time with each monitor alone and with all, as a ratio to none."""
    from altgrad_core._files import default_cache
    from altgrad_core.execution.monitor_speed import measure_monitors
    from altgrad_core.execution.present import speed_table
    from altgrad_core.planning.planner import plan_suite
    from altgrad_core.planning.suite import load_suite

    plan_ = plan_suite(load_suite(suite, ["monitors=all", *(set_ or ())]))
    measure = partial(
        measure_monitors,
        plan_.specs[0],
        device=device,
        cache=default_cache(),
        rounds=rounds,
        threads=threads,
    )
    _tell(measure, lambda found: [speed_table(found)], as_json=as_json)


@speed.command(name="formats")
def speed_formats(
    names: _FormatsArgument = None,
    work: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Only this: encode, training_step, … [default: all]."),
    ] = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    rounds: Annotated[int, typer.Option(min=3, help="Measured calls of each kind.")] = 20,
    threads: ThreadsOption = 1,
    elements: Annotated[int, typer.Option(min=64, help="Elements of the tensor.")] = 1 << 20,
) -> None:
    """Rounding, codes, a layer and a training step with each format, beside a plain copy."""
    from altgrad_core.execution.format_speed import measure_formats
    from altgrad_core.execution.present import format_speed_tables

    measure = partial(
        measure_formats,
        [_as_in_a_suite(name) for name in names or ()],
        device=device,
        rounds=rounds,
        threads=threads,
        elements=elements,
        work=work or (),
    )
    _tell(measure, format_speed_tables, as_json=as_json)


@speed.command(name="optimizer")
def speed_optimizer(
    fmt: Annotated[
        str,
        typer.Argument(
            metavar="FORMAT", help="On whose grid weights are.", autocompletion=completion.formats
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[OPTIMIZER]...",
            help="Names, or '{type: sgd, momentum: 0.9}' [default: all].",
            autocompletion=completion.optimizers,
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(help="small: the quickstart's parameters; base: a layer of DistilBERT's.")
    ] = "small",
    weights: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Only this: master, grid, … [default: all]."),
    ] = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    rounds: Annotated[int, typer.Option(min=3, help="Measured steps of each kind.")] = 50,
    threads: ThreadsOption = 1,
) -> None:
    """The step of each optimizer, beside torch's fused AdamW on the same parameters."""
    from altgrad_core.execution.optimizer_speed import measure_optimizers
    from altgrad_core.execution.present import optimizer_speed_table

    measure = partial(
        measure_optimizers,
        _as_in_a_suite(fmt),
        [_as_in_a_suite(name) for name in names or ()],
        device=device,
        rounds=rounds,
        threads=threads,
        size=size,
        weights=weights or (),
    )
    _tell(measure, lambda found: [optimizer_speed_table(found)], as_json=as_json)


@speed.command(name="rounding")
def speed_rounding(
    names: _FormatsArgument = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    rounds: RoundsOption = 10,
    threads: ThreadsOption = 1,
    elements: Annotated[int, typer.Option(min=64, help="Elements of the tensor.")] = 1 << 24,
    peers: Annotated[bool, typer.Option(help="Other libraries, as far as installed.")] = True,
) -> None:
    """Rounding into a given tensor, as a share of a plain copy, beside other libraries."""
    from altgrad_core.execution.present import rounding_speed_table
    from altgrad_core.execution.rounding_speed import measure_rounding

    measure = partial(
        measure_rounding,
        [_as_in_a_suite(name) for name in names or ()],
        device=device,
        rounds=rounds,
        threads=threads,
        elements=elements,
        peers=peers,
    )
    _tell(measure, lambda found: [rounding_speed_table(found)], as_json=as_json)


@speed.command(name="step")
def speed_step(
    suite: _SuiteArgument = "quickstart",
    set_: SetOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    rounds: RoundsOption = 5,
    threads: ThreadsOption = 1,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Of a round [default: a monitor's longest interval, at most a run's steps]."
        ),
    ] = None,
) -> None:
    """The training step of each condition, monitors included, beside the same in plain bf16."""
    from altgrad_core._files import default_cache
    from altgrad_core.execution.present import condition_speed_table
    from altgrad_core.execution.step_speed import measure_steps
    from altgrad_core.planning.planner import plan_suite
    from altgrad_core.planning.suite import load_suite

    measure = partial(
        measure_steps,
        plan_suite(load_suite(suite, list(set_ or ()))),
        device=device,
        cache=default_cache(),
        rounds=rounds,
        threads=threads,
        steps=steps,
    )
    _tell(measure, lambda found: [condition_speed_table(found)], as_json=as_json)


@speed.command(name="suite")
def speed_suite(
    suite: _SuiteArgument = "quickstart",
    set_: SetOption = None,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    rounds: RoundsOption = 1,
    threads: ThreadsOption = 1,
) -> None:
    """The runs of a suite, each a process, beside their bare training steps."""
    from altgrad_core._files import default_cache
    from altgrad_core.execution.present import suite_speed_table
    from altgrad_core.execution.suite_speed import measure_suite
    from altgrad_core.planning.planner import plan_suite
    from altgrad_core.planning.suite import load_suite

    measure = partial(
        measure_suite,
        plan_suite(load_suite(suite, list(set_ or ()))),
        device=device,
        cache=default_cache(),
        rounds=rounds,
        threads=threads,
    )
    _tell(measure, lambda found: [suite_speed_table(found)], as_json=as_json)


def _tell(
    measure: Callable[..., Any], tables: Callable[[Any], Iterable[Any]], *, as_json: bool
) -> None:
    """Measure, with a ``log`` to say what is going on, and print the result: its ``tables``, or JSON."""
    from rich.console import Console

    console = Console(stderr=True) if as_json else output()
    with stdout_to_stderr() if as_json else nullcontext():  # plugins may print
        found = measure(log=lambda text: say(console, text))
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
        return
    for table in tables(found):
        console.print(table)
    for label, reason in found.left_out.items():
        say(console, f"left out: {label}: {reason}")


def _as_in_a_suite(text: str) -> object:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"{text!r} cannot be read as YAML: {error}") from error
