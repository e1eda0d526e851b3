"""Gradient noise against the formulas of McCandlish et al., and against a noise that is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.format import Format
from altgrad_core.interfaces.monitor import Monitor
from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.surgery import quantize_model
from altgrad_plugins.monitors.gradients.batches import parts_of


def mean_loss(model: nn.Module, batch: Batch) -> Tensor:
    loss: Tensor = model(batch.tensors["inputs"]).square().mean()
    return loss


def mean_output(model: nn.Module, batch: Batch) -> Tensor:
    """Linear in the weight: the gradient of an example is the example."""
    loss: Tensor = model(batch.tensors["inputs"]).mean()
    return loss


def two_sizes(parts: list[np.ndarray[Any, Any]], size: int) -> tuple[float, float]:
    """Appendix A.1 as it stands there: tr Σ and ‖G‖² from the norms at two batch sizes."""
    big = size * len(parts)
    small_norm = np.mean([(part**2).sum() for part in parts])
    big_norm = (np.mean(parts, axis=0) ** 2).sum()
    noise = (small_norm - big_norm) / (1 / size - 1 / big)
    signal = (big * big_norm - size * small_norm) / (big - size)
    return float(noise), float(signal)


@pytest.mark.parametrize(("examples", "parts", "size"), [(8, 4, 2), (11, 3, 3), (3, 8, 1)])
def test_estimates_are_those_of_two_batch_sizes(
    examples: int,
    parts: int,
    size: int,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    model = two_layers("e3m4", activation_format=load_format("e4m3"))
    inputs = torch.randn(examples, 6)
    place = bench(load_monitor("gradient_noise", parts=parts), model, loss=mean_loss)
    count = min(parts, examples)
    gradients: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name in place.weights}
    for part in range(count):
        model.zero_grad()
        rows = inputs[part * size : (part + 1) * size]
        mean_loss(model, Batch({"inputs": rows}, size, size)).backward()
        for name, geometry in place.weights.items():
            gradients[name].append(geometry.parameter.grad.double().numpy().copy())
    metrics = place.step(inputs=inputs)

    found = {name: two_sizes(each, size) for name, each in gradients.items()}
    found["all"] = tuple(sum(pair[i] for pair in found.values()) for i in (0, 1))
    for layer, (noise, signal) in found.items():
        values = {m: metrics[f"gradient_noise/{layer}/{m}"] for m in ("noise", "signal", "snr")}
        assert values["noise"] == pytest.approx(noise, rel=1e-6)
        assert values["signal"] == pytest.approx(signal, rel=1e-6)
        assert values["snr"] == pytest.approx(signal / (noise / (count * size)), rel=1e-6)
        scale = metrics[f"gradient_noise/{layer}/noise_scale"]
        assert scale == pytest.approx(noise / signal if signal > 0 else math.nan, nan_ok=True)
    assert len(metrics) == 4 * 3


def test_estimates_are_unbiased_for_examples_whose_distribution_is_known(
    load_monitor: Callable[..., Monitor], load_format: Callable[..., Format], bench: Any
) -> None:
    """Examples from N(μ, diag σ²): the mean over many batches must be Σ σ² and ‖μ‖²."""
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    quantize_model(model, load_format("fp32"))
    monitor = load_monitor("gradient_noise", interval=1, parts=4)
    place = bench(monitor, model, loss=mean_output)
    generator = torch.Generator().manual_seed(0)
    centre, deviation = torch.tensor([0.3, -0.1, 0.2]), torch.tensor([1.0, 0.5, 2.0])
    rows = []
    for step in range(1, 601):
        inputs = centre + deviation * torch.randn(8, 3, generator=generator)
        metrics = place.step(step, inputs=inputs)
        rows.append([metrics[f"gradient_noise/0.weight/{m}"] for m in ("noise", "signal")])
    table = np.array(rows)
    error = table.std(axis=0, ddof=1) / math.sqrt(len(rows))
    truth = np.array([float((deviation**2).sum()), float((centre**2).sum())])
    assert np.all(np.abs(table.mean(axis=0) - truth) < 4 * error)
    assert np.all(4 * error < truth * [0.2, 2])
    # A plug-in estimate, ‖ḡ‖² for ‖G‖², would be off by tr Σ / 8: far outside of this error.
    assert truth[0] / 8 > 10 * error[1]
    assert (table[:, 1] < 0).any()


def test_without_signal_there_is_no_noise_scale_and_without_noise_it_is_zero(
    load_monitor: Callable[..., Monitor], load_format: Callable[..., Format], bench: Any
) -> None:
    model = nn.Sequential(nn.Linear(3, 1, bias=False))
    quantize_model(model, load_format("fp32"))
    place = bench(load_monitor("gradient_noise", parts=2, interval=1), model, loss=mean_output)
    opposed = place.step(1, inputs=torch.tensor([[1.0, 2, 3], [-1, -2, -3]]))
    assert opposed["gradient_noise/all/noise"] == pytest.approx(28)
    assert opposed["gradient_noise/all/signal"] == pytest.approx(-14)
    assert opposed["gradient_noise/all/snr"] == pytest.approx(-1)
    assert math.isnan(opposed["gradient_noise/all/noise_scale"])
    same = place.step(2, inputs=torch.tensor([[1.0, 2, 3]]).repeat(4, 1))
    assert same["gradient_noise/all/noise"] == same["gradient_noise/all/noise_scale"] == 0
    assert same["gradient_noise/all/signal"] == pytest.approx(14)
    assert same["gradient_noise/all/snr"] == math.inf


def test_a_batch_of_one_and_a_step_without_gradients_give_nothing(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    place = bench(load_monitor("gradient_noise"), two_layers())
    assert place.step(inputs=torch.ones(1, 6)) == {}
    assert place.step() == {}


def test_dropout_is_no_part_of_the_noise(
    load_monitor: Callable[..., Monitor], load_format: Callable[..., Format], bench: Any
) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 1, bias=False))
    quantize_model(model, load_format("fp32"))
    place = bench(load_monitor("gradient_noise", parts=2), model, loss=mean_output)
    metrics = place.step(inputs=torch.ones(4, 3))
    assert metrics["gradient_noise/all/noise"] == 0


def test_batches_are_cut_along_the_examples_and_nothing_else() -> None:
    tensors = {
        "ids": torch.arange(35).view(7, 5),
        "targets": torch.arange(7),
        "weights": torch.ones(5),
        "scale": torch.tensor(2.0),
        "square": torch.arange(49).view(7, 7),
    }
    parts = parts_of(Batch(tensors, samples=7, tokens=35), 3)
    assert [part.samples for part in parts] == [2, 2, 2]
    assert [part.tokens for part in parts] == [10, 10, 10]
    assert torch.equal(parts[1].tensors["ids"], tensors["ids"][2:4])
    assert parts[2].tensors["targets"].tolist() == [4, 5]
    assert parts[1].tensors["square"].shape == (2, 7)
    for part in parts:
        assert part.tensors["weights"] is tensors["weights"]
        assert part.tensors["scale"] is tensors["scale"]
    assert [part.samples for part in parts_of(Batch(tensors, 7, 35), 9)] == [1] * 7
    assert parts_of(Batch({}, 0, 0), 3) == []
