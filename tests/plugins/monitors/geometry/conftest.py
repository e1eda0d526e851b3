"""A witness for everything about grids: search among the values of all codes, in float64."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.quantization.settings import ScalingSettings


class Zeroless(Format):
    """A lopsided grid without a zero: rung 0 is at 0.05, rung -1 at -0.2."""

    name = "zeroless"
    bits = 3

    def code_values(self) -> Tensor:
        return torch.tensor([-1.0, -0.3, -0.2, 0.05, 0.1, 0.4, 0.9, 1.5])


class Witness:
    """One grid, by its values in ascending order; weights and scales are plain floats."""

    def __init__(self, fmt: Format) -> None:
        values = fmt.code_values().double()
        self.values: list[float] = sorted(set((values[values.isfinite()] + 0.0).tolist()))
        self.zero = min(range(len(self.values)), key=lambda i: (abs(self.values[i]), -i))

    def index(self, w: float, scale: float) -> int:
        """Where the nearest value stands; no test value is a tie."""
        x = w / scale
        right = min(max(bisect_left(self.values, x), 1), len(self.values) - 1)
        left = right - 1
        return left if x - self.values[left] < self.values[right] - x else right

    def nearest(self, w: float, scale: float) -> float:
        return self.values[self.index(w, scale)] * scale

    def rung(self, w: float, scale: float) -> int:
        return self.index(w, scale) - self.zero

    def cell(self, w: float, scale: float) -> int:
        """The value below the gap that ``w`` lies in, the one away from zero if ``w`` is a value."""
        x = w / scale
        low = (bisect_right if x >= 0 else bisect_left)(self.values, x) - 1
        return min(max(low, 0), len(self.values) - 2)

    def gap(self, w: float, scale: float) -> float:
        last = self.values[-1]
        if abs(w / scale) >= last == 2 * self.values[-2]:  # where a format begins a new binade
            return last * scale
        low = self.cell(w, scale)
        return (self.values[low + 1] - self.values[low]) * scale

    def position(self, w: float, scale: float) -> float:
        outside = not self.values[0] < w / scale < self.values[-1]
        low = self.index(w, scale) if outside else self.cell(w, scale)
        return low - self.zero + (w - self.values[low] * scale) / self.gap(w, scale)

    def variance(self, w: float, scale: float) -> float:
        """Of stochastic rounding: two outcomes with their probabilities."""
        x = w / scale
        if x <= self.values[0] or x >= self.values[-1]:
            return 0.0
        low = bisect_right(self.values, x) - 1
        a, b = self.values[low] * scale, self.values[low + 1] * scale
        up = (w - a) / (b - a)
        return up * (b - w) ** 2 + (1 - up) * (w - a) ** 2


FORMATS = ("e5m2", "e0m7", "e7m0", "bf16", "zeroless")
SCALINGS = ("tensor", "channel", "block")


@pytest.fixture(scope="session")
def witness() -> type[Witness]:
    return Witness


@pytest.fixture(scope="session")
def any_format(load_format: Callable[..., Format]) -> Callable[[str], Format]:
    return lambda name: Zeroless() if name == "zeroless" else load_format(name)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every scale on a format of floats and one of a table; a tensor's alone on the others."""
    pairs = [
        (f, s) for f in FORMATS for s in SCALINGS if s == "tensor" or f in ("e5m2", "zeroless")
    ]
    if {"fmt", "scaling"} <= set(metafunc.fixturenames):
        metafunc.parametrize(("fmt", "scaling"), pairs, indirect=True)
    elif "fmt" in metafunc.fixturenames:
        metafunc.parametrize("fmt", FORMATS, indirect=True)


@pytest.fixture
def fmt(request: pytest.FixtureRequest, any_format: Callable[[str], Format]) -> Format:
    return any_format(request.param)


@pytest.fixture
def scaling(request: pytest.FixtureRequest) -> ScalingSettings:
    return ScalingSettings(granularity=request.param, block_size=4)


@pytest.fixture(params=["master", "grid"])
def residency(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Recorder:
    """What a step did to the weights of a bench, in float64 arrays, by layer.

    ``before``, ``intended`` and ``after`` are the weights, ``old_scale`` and ``scale`` the scales under
    which the old and the new weights stand, in the shape of the weights.
    """

    def __init__(self, place: Any, change: Callable[[str, Tensor], Tensor]) -> None:
        self.place, self._change = place, change
        self.before: dict[str, np.ndarray] = {}
        self.intended: dict[str, np.ndarray] = {}
        self.after: dict[str, np.ndarray] = {}
        self.old_scale: dict[str, np.ndarray] = {}
        self.scale: dict[str, np.ndarray] = {}

    def step(self, number: int = 1) -> dict[str, float]:
        """One step with a forward pass, and the metrics that come of it."""
        metrics: dict[str, float] = self.place.step(
            number, inputs=torch.randn(3, 6), change=self._note
        )
        for name, geometry in self.place.weights.items():
            self.after[name] = double(geometry.parameter)
            self.scale[name] = self._scale(name)
        return metrics

    def _note(self, name: str, weight: Tensor) -> Tensor:
        if name not in self.place.weights:
            return weight
        self.before[name], self.old_scale[name] = double(weight), self._scale(name)
        new = self._change(name, weight)
        self.intended[name] = double(new)
        return new

    def _scale(self, name: str) -> np.ndarray:
        geometry = self.place.weights[name]
        return double(geometry.scale().expand_as(geometry.parameter))

    def map(self, function: Callable[..., float], *arrays: dict[str, np.ndarray]) -> dict[str, Any]:
        """``function`` of the elements of each layer: layer -> float64 array, flat."""
        return {
            name: np.array(
                [
                    function(*e)
                    for e in zip(*(a[name].ravel().tolist() for a in arrays), strict=True)
                ]
            )
            for name in arrays[0]
        }


def double(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().copy()


@pytest.fixture(scope="session")
def recorder() -> type[Recorder]:
    return Recorder


@pytest.fixture
def place_of(bench: Any, two_layers: Any, load_monitor: Any) -> Callable[..., Any]:
    """``(monitor, format, settings of the monitor, **options of the model) -> Bench``."""

    def make(
        monitor: str, fmt: Format, settings: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        model: nn.Module = two_layers(fmt, **options)
        return bench(load_monitor(monitor, **{"interval": 1} | (settings or {})), model)

    return make
