"""How long the step of each optimizer takes, beside ``torch.optim.AdamW(fused=True)`` on the same parameters.

The parameters are those of an encoder and a linear head, with gradients that stay as they are, so that nothing but
the optimizer, and the rounding of weights that live on their grid, is timed. All take turns, see
:mod:`.interleave`; a *ratio* is the median over rounds of the time to that of torch's in the same round.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from altgrad_core._axis import axis_text
from altgrad_core.errors import UserError
from altgrad_core.execution.assemble import resolve_device
from altgrad_core.execution.environment import describe_environment
from altgrad_core.execution.format_speed import format_choice
from altgrad_core.execution.interleave import interleaved
from altgrad_core.execution.speeds import Speeds, Timing, summary
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import keep_on_grid
from altgrad_core.quantization.settings import FormatChoice
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.registry.catalog import catalog
from altgrad_core.registry.problems import unknown
from altgrad_core.registry.strangers import StrangeError, strangers_code

TORCH = "torch.optim.AdamW"
"""The name under which the rival stands among the optimizers."""
SIZES: Mapping[str, tuple[int, int]] = {"small": (128, 2), "base": (768, 1)}
"""Width and layers of the encoder: the quickstart's, and one layer of DistilBERT's."""
MASTER = "master"
WEIGHTS: Mapping[str, Mapping[str, Any]] = {
    MASTER: {},
    "grid": {"residency": "grid"},
    "grid, stochastic": {"residency": "grid", "rounding": "stochastic"},
    "grid, kahan": {"residency": "grid", "compensation": "bf16"},
}
"""Where weights live and how they are rounded, as ``quantize_model`` takes it."""
_LABELS, _RATE = 60, 1e-4


@dataclass(frozen=True)
class StepSpeed(Timing):
    """The step of one optimizer on one kind of weights; the rival is torch's."""

    optimizer: str
    weights: str
    distribution: str
    version: str


@dataclass(frozen=True)
class OptimizerSpeeds(Speeds[StepSpeed]):
    """How fast optimizers are; those of two files with the same format and size compare."""

    keys: ClassVar = ("optimizer", "weights")
    format: str
    size: str
    parameters: int


def measure_optimizers(
    fmt: Any,
    wanted: Sequence[Any] = (),
    *,
    device: str,
    rounds: int,
    threads: int,
    size: str = "small",
    weights: Sequence[str] = (),
    log: Callable[[str], None] = lambda text: None,
) -> OptimizerSpeeds:
    """Time the optimizers that are ``wanted``: names, or mappings of ``type`` and settings as in a suite.

    None wanted means every optimizer that is installed; those that cannot be built without settings or fail
    are then left out, with the reason. ``weights`` picks some of ``WEIGHTS``. Raises ``UserError`` where a
    format, optimizer, size or kind of weights that is wanted cannot be had.
    """
    for given, known, kind in ((size, SIZES, "size"), *((w, WEIGHTS, "weights") for w in weights)):
        if given not in known:
            raise UserError(unknown(kind, given, known))
    torch.set_num_threads(threads)
    place = resolve_device(device)
    rival = step_calls(fmt, None, size=size, weights=[MASTER], device=place)
    calls = {(TORCH, kind): call for kind, call in rival.items()}
    left_out: dict[str, str] = {}
    origins: dict[str, tuple[str, str]] = {TORCH: ("torch", torch.__version__)}
    for one in wanted or catalog().names("optimizer"):
        label = axis_text(one)
        try:
            entry = catalog().get("optimizer", _optimizer_choice(one)[0])
            made = step_calls(fmt, one, size=size, weights=weights or [*WEIGHTS], device=place)
        except UserError as error:
            if wanted:
                raise
            left_out[label] = str(error)
        else:
            calls |= {(label, kind): call for kind, call in made.items()}
            origins[label] = (entry.distribution, entry.version)
    parameters = sum(p.numel() for p in _encoder(size, place).parameters())
    log(
        f"{len(origins) - 1} optimizers, {parameters} parameters, {rounds} rounds, {threads} thread(s), {place}"
    )
    times = interleaved(calls, place, rounds=rounds)
    rows = tuple(_speed(key, times, origins[key[0]]) for key in times)
    environment = describe_environment(place, dict(origins.values()))
    return OptimizerSpeeds(rows, left_out, environment, rounds, axis_text(fmt), size, parameters)


def step_calls(
    fmt: Any,
    optimizer: Any,
    *,
    size: str,
    weights: Sequence[str],
    device: torch.device | None = None,
) -> dict[str, Callable[[], object]]:
    """The step of an optimizer for each kind of weights; None: torch's own, on weights that are not quantised.

    Raises ``UserError`` for a format or optimizer that cannot be had.
    """
    place = device or torch.device("cpu")
    choice = format_choice(fmt)
    catalog().build("format", choice.name, choice.settings)  # says by itself what is wrong with it
    if optimizer is None:
        parameters = _encoder(size, place).parameters()
        return dict.fromkeys(weights, torch.optim.AdamW(parameters, lr=_RATE, fused=True).step)
    name, settings = _optimizer_choice(optimizer)
    return {kind: _step(choice, name, settings, WEIGHTS[kind], size, place) for kind in weights}


def _optimizer_choice(given: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(given, str):
        return given, {}
    if isinstance(given, Mapping) and isinstance(given.get("type"), str):
        return given["type"], {str(k): v for k, v in given.items() if k != "type"}
    raise UserError(
        f"{given!r} is no optimizer: write a name, or a type with settings as in a suite, "
        "'{type: sgd, momentum: 0.9}'."
    )


def _encoder(size: str, device: torch.device) -> nn.Sequential:
    """With gradients."""
    width, layers = SIZES[size]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        encoder = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        model = nn.Sequential(encoder, nn.Linear(width, _LABELS)).to(device)
        for parameter in model.parameters():
            parameter.grad = 1e-3 * torch.randn(parameter.shape).to(device)
    return model


def _step(
    fmt: FormatChoice,
    name: str,
    settings: dict[str, Any],
    kind: Mapping[str, Any],
    size: str,
    device: torch.device,
) -> Callable[[], object]:
    """The step of an optimizer on quantised weights; called once."""
    options, model, width = dict(kind), _encoder(size, device), SIZES[size][0]
    if "compensation" in options:
        options["compensation"] = load_format(options["compensation"])
    quantize_model(model, load_format(fmt.name, **fmt.settings), **options)
    geometry = {g.parameter: g for g in weight_geometry(model).values()}
    groups = [{"params": list(model.parameters())}]
    plugin = catalog().build("optimizer", name, settings)
    with torch.no_grad():
        model(torch.zeros(1, 1, width, device=device))  # which settles the scales
    draws = [torch.Generator(device).manual_seed(seed) for seed in range(2)]
    try:
        with strangers_code():
            optimizer = plugin.build(groups, geometry, learning_rate=_RATE, generator=draws[0])
            if options.get("residency") == "grid":
                keep_on_grid(model, optimizer, draws[1])
            optimizer.step()
    except StrangeError as error:
        raise UserError(f"the optimizer {name!r} fails at its step: {error}") from error
    step: Callable[[], object] = optimizer.step
    return step


def _speed(
    key: tuple[str, str],
    times: Mapping[tuple[str, str], Sequence[float]],
    origin: tuple[str, str],
) -> StepSpeed:
    return StepSpeed(*summary(times[key], times[TORCH, MASTER]), *key, *origin)
