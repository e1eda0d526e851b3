"""What is timed of a number format: rounding and codes of a tensor, a layer, and a training step.

Formats are simulated, so this is how fast the harness is with them, not hardware. Tensors are normal and
lie where the format wants them. A layer has as many weights as the tensor has elements; the training
step is that of an encoder of the quickstart's size on random vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.surgery import quantize_model

COPY = "copy"
TENSOR_WORK = ("quantise_nearest", "quantise_stochastic", "encode", "decode")
"""To be compared with a plain copy of the tensor."""
LAYER_WORK = ("linear_forward", "linear_forward_backward", "training_step")
"""To be compared with the same in float32, not quantised."""
WORK = (*TENSOR_WORK, *LAYER_WORK)

ELEMENTS = 1 << 20
_ROWS = 64
"""Rows of the layer's input."""
_SIGMAS = 6
"""Standard deviations between zero and the place where amax belongs: no element lies beyond."""
BATCH, LENGTH, WIDTH, LABELS = 32, 48, 128, 60

MakeOptimizer = Callable[[nn.Module], torch.optim.Optimizer]


def format_work(
    fmt: Format | None, device: torch.device, *, elements: int, names: Iterable[str] = WORK
) -> dict[str, Callable[[], object]]:
    """The calls to be timed, by name. Without a format what they are compared with: the copy, and
    each of ``LAYER_WORK`` in float32. ``names`` picks some of ``WORK``.
    """
    wanted = set(names)
    makers = _layer_work(fmt, device, elements)
    if fmt is None:
        makers = {COPY: lambda: _normal(elements, device).clone, **makers}
        wanted |= {COPY} if wanted & set(TENSOR_WORK) else set()
    else:
        makers = _tensor_work(fmt, device, elements) | makers
    return {name: make() for name, make in makers.items() if name in wanted}


_Makers = dict[str, Callable[[], Callable[[], object]]]


def _tensor_work(fmt: Format, device: torch.device, elements: int) -> _Makers:
    spread = fmt.max_finite / fmt.headroom / _SIGMAS if fmt.scaled else 1.0
    x = _normal(elements, device) * spread
    generator = torch.Generator(device).manual_seed(0)
    return {
        "quantise_nearest": lambda: partial(fmt.round, x),
        "quantise_stochastic": lambda: partial(fmt.round, x, "stochastic", generator),
        "encode": lambda: partial(fmt.encode, x),
        "decode": lambda: partial(fmt.decode, fmt.encode(x)),
    }


def _layer_work(fmt: Format | None, device: torch.device, elements: int) -> _Makers:
    return {
        "linear_forward": lambda: _linear(fmt, device, elements, backward=False),
        "linear_forward_backward": lambda: _linear(fmt, device, elements, backward=True),
        "training_step": lambda: training_step(fmt, device),
    }


def _normal(elements: int, device: torch.device) -> Tensor:
    return torch.randn(elements, generator=torch.Generator().manual_seed(0)).to(device)


def _linear(
    fmt: Format | None, device: torch.device, elements: int, *, backward: bool
) -> Callable[[], object]:
    side = math.isqrt(elements)
    layer = nn.Linear(side, side, bias=False)
    with torch.no_grad():
        layer.weight.copy_(_normal(side * side, torch.device("cpu")).view(side, side) / side**0.5)
    if fmt is not None:
        quantize_model(layer, fmt)
    layer.to(device)
    x = _normal(_ROWS * side, device).view(_ROWS, side)

    def call() -> None:
        y: Tensor = layer(x)
        if backward:
            y.sum().backward()  # type: ignore[no-untyped-call]

    return call


def training_step(
    fmt: Format | None, device: torch.device, make_optimizer: MakeOptimizer | None = None
) -> Callable[[], None]:
    """Forward, backward and update of ``BATCH`` sequences; AdamW unless another is made."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        block = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True)
        model = nn.Sequential(nn.TransformerEncoder(block, 2), nn.Linear(WIDTH, LABELS))
    if fmt is not None:
        quantize_model(model, fmt)
    model.to(device)
    optimizer = (make_optimizer or _adamw)(model)
    x = _normal(BATCH * LENGTH * WIDTH, device).view(BATCH, LENGTH, WIDTH)
    y = (_normal(BATCH * LABELS, device) > 1.6).float().view(BATCH, LABELS)

    def step() -> None:
        with hold_weights(model):
            loss = nn.functional.binary_cross_entropy_with_logits(model(x).mean(1), y)
            loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()

    return step


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=1e-4)
