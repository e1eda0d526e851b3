"""The monitor against dense Hessians, and its predictions against losses that are computed."""

from __future__ import annotations

import itertools
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
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.testing.monitors import check_monitor

Matrix = np.ndarray[Any, Any]


def squared(model: nn.Module, batch: Batch) -> Tensor:
    loss: Tensor = (model(batch.tensors["inputs"]) - 0.3).square().mean()
    return loss


def probe(samples: int) -> Batch:
    inputs = torch.randn(samples, 6, generator=torch.Generator().manual_seed(samples))
    return Batch({"inputs": inputs}, samples, samples)


def plain_loss(model: nn.Module, inputs: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """The loss as a function of both weights in one float64 vector, and the weights: no rounding."""
    first, _, last = model
    biases = first.bias.detach().double(), last.bias.detach().double()

    def function(flat: Tensor) -> Tensor:
        one, two = flat[:42].view(7, 6), flat[42:].view(5, 7)
        output = torch.tanh(inputs.double() @ one.T + biases[0]) @ two.T + biases[1]
        return (output - 0.3).square().mean()

    weights = [first.weight, last.weight]
    return function, torch.cat([weight.detach().double().flatten() for weight in weights])


def rounded(place: Any) -> Tensor:
    """Both weights as the forward pass rounds them, in one float64 vector."""
    parts = [g.value(g.rung(g.parameter.detach())).flatten() for g in place.weights.values()]
    return torch.cat(parts).double()


def test_eigenvalues_trace_and_second_order_are_those_of_the_dense_hessian(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = two_layers("e5m2")
    monitor = load_monitor("curvature", samples=5, eigenvalues=3, tolerance=1e-6, probes=400)
    place = bench(monitor, model, loss=squared, probe=probe)
    function, flat = plain_loss(model, probe(5).tensors["inputs"])
    dense = torch.autograd.functional.hessian(function, flat).numpy()
    slope = torch.autograd.functional.jacobian(function, flat).numpy()
    move = (rounded(place) - flat).numpy()
    before, after = float(function(flat)), float(function(flat + torch.from_numpy(move)))
    metrics = place.step(inputs=torch.randn(3, 6), change=lambda name, weight: weight * 0)

    expected = np.sort(np.linalg.eigvalsh(dense))[::-1]
    for index in range(3):
        found = metrics[f"curvature/all/eigenvalue_{index + 1}"]
        assert found == pytest.approx(expected[index], rel=1e-4)
    traces = {"0.weight": np.trace(dense[:42, :42]), "2.weight": np.trace(dense[42:, 42:])}
    for name, trace in (traces | {"all": np.trace(dense)}).items():
        error = metrics[f"curvature/{name}/trace_error"]
        assert abs(metrics[f"curvature/{name}/trace"] - trace) < 4 * error
    off = dense - np.diag(np.diag(dense))
    theory = math.sqrt(2 * (off**2).sum() / 400)
    assert metrics["curvature/all/trace_error"] == pytest.approx(theory, rel=0.2)

    for name, part in (("0.weight", slice(0, 42)), ("2.weight", slice(42, 77)), ("all", slice(77))):
        inside = (dense.diagonal() * move**2)[part].sum() / 2
        error = metrics[f"curvature/{name}/rounding_loss_nearest_error"]
        assert abs(metrics[f"curvature/{name}/rounding_loss_nearest"] - inside) < 4 * error
        # The variance of a weighted Hutchinson estimate: that of vᵀ A v, A the mean of DH and HD.
        weighted = np.zeros((77, 77))
        weighted[part] = (move**2)[part, None] * dense[part] / 2
        mixed = (weighted + weighted.T) / 2
        theory = math.sqrt(2 * ((mixed - np.diag(np.diag(mixed))) ** 2).sum() / 400)
        assert error == pytest.approx(theory, rel=0.25)

    second_order = float(slope @ move + move @ dense @ move / 2)
    found = metrics["curvature/all/rounding_loss_second_order"]
    assert found == pytest.approx(second_order, rel=1e-3)
    measured = metrics["curvature/all/rounding_loss_measured"]
    assert measured == pytest.approx(after - before, rel=1e-3, abs=1e-7)
    assert measured == pytest.approx(
        found, rel=0.05, abs=1e-7
    )  # beyond second order there is little
    assert len(metrics) == 3 + 3 * 2 + 2 + 3 * 4


def test_rounding_losses_are_sums_over_the_diagonal(
    load_monitor: Callable[..., Monitor], load_format: Callable[..., Format], bench: Any
) -> None:
    """Channels of one input each: H is diagonal, and every estimate of it exact."""
    place, inputs, centre = diagonal_bench(load_monitor, load_format, bench)
    curvatures = (inputs.double() ** 2).mean(0)
    weight = place.model[0].weight.detach().double()
    grid = rounded(place).view(1, 6)
    exact = float((curvatures * (grid - weight) ** 2).sum() / 2)
    metrics = place.step(inputs=inputs)
    assert metrics["curvature/0.weight/trace"] == pytest.approx(float(curvatures.sum()), rel=1e-5)
    assert metrics["curvature/0.weight/trace_error"] == pytest.approx(0, abs=1e-6)
    assert metrics["curvature/0.weight/rounding_loss_nearest"] == pytest.approx(exact, rel=1e-4)
    # The latent weights are the minimum, so this is the whole loss of the rounded ones.
    assert metrics["curvature/all/rounding_loss_measured"] == pytest.approx(exact, rel=1e-3)
    assert metrics["curvature/all/rounding_loss_second_order"] == pytest.approx(exact, rel=1e-3)
    assert torch.equal(centre, place.model[0].weight.detach())


def diagonal_bench(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    **options: Any,
) -> tuple[Any, Tensor, Tensor]:
    """½ Σ hᵢ (wᵢ − cᵢ)², with c the weights as they are at first."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.93, -0.71, 0.33, 0.111, -0.052, 0.017]]))
    centre = model[0].weight.detach().clone()
    quantize_model(model, load_format("e4m3"), **options)
    inputs = torch.diag(torch.tensor([3.0, 1.0, 4.0, 1.5, 9.0, 26.0]))

    def quadratic(model: nn.Module, batch: Batch) -> Tensor:
        x = batch.tensors["inputs"]
        loss: Tensor = (model(x) - x @ centre.T).square().mean() / 2
        return loss

    monitor = load_monitor("curvature", samples=6, probes=2, interval=1)
    made = bench(
        monitor, model, loss=quadratic, probe=lambda samples: Batch({"inputs": inputs}, 6, 6)
    )
    return made, inputs, centre


def test_the_stochastic_prediction_is_the_mean_loss_of_stochastic_roundings(
    load_monitor: Callable[..., Monitor], load_format: Callable[..., Format], bench: Any
) -> None:
    """Over all 2⁶ of them; a quadratic loss with a full Hessian, away from its minimum."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 1, bias=False))
    fmt = load_format("e2m5")
    quantize_model(model, fmt)
    inputs = torch.randn(20, 6) @ torch.randn(6, 6)

    def quadratic(model: nn.Module, batch: Batch) -> Tensor:
        loss: Tensor = (model(batch.tensors["inputs"]) - 1).square().mean() / 2
        return loss

    monitor = load_monitor("curvature", samples=20, probes=3000)
    batch = Batch({"inputs": inputs}, 20, 20)
    place = bench(monitor, model, loss=quadratic, probe=lambda samples: batch)
    metrics = place.step(inputs=inputs)

    weight, scale = model[0].weight.detach(), float(place.weights["0.weight"].scale())
    values = fmt.code_values().double() * scale
    grid = np.array(sorted(set(values.tolist())))
    neighbours = []
    for w in weight[0].double().tolist():
        above = int(np.searchsorted(grid, w))
        low, high = grid[above - 1], grid[above]
        neighbours.append([(low, (high - w) / (high - low)), (high, (w - low) / (high - low))])
    mean = 0.0
    for choice in itertools.product(*neighbours):  # all that may come of it
        draw, chances = zip(*choice, strict=True)
        loss = ((np.array(draw) @ inputs.double().numpy().T - 1) ** 2).mean() / 2
        mean += math.prod(chances) * loss
    mean -= float(((weight.double() @ inputs.double().T - 1) ** 2).mean() / 2)
    found = metrics["curvature/all/rounding_loss_stochastic"]
    error = metrics["curvature/all/rounding_loss_stochastic_error"]
    assert abs(found - mean) < 4 * error
    assert 4 * error < 0.1 * mean

    dense = inputs.double().T @ inputs.double() / 20
    move = (rounded(place) - weight.double().flatten()).numpy()
    nearest = float((dense.diagonal().numpy() * move**2).sum() / 2)
    assert metrics["curvature/all/rounding_loss_nearest"] == pytest.approx(nearest, rel=0.05)
    # A quadratic loss has no more than a second order.
    assert metrics["curvature/all/rounding_loss_second_order"] == pytest.approx(
        metrics["curvature/all/rounding_loss_measured"], rel=1e-3, abs=1e-7
    )


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_of_a_resident_weight_the_target_of_the_update_is_rounded(
    rounding: str,
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
) -> None:
    options = {"residency": "grid", "rounding": rounding}
    place, inputs, _ = diagonal_bench(load_monitor, load_format, bench, **options)
    target = place.model[0].weight.detach() + torch.tensor(
        [[0.01, 0.02, -0.013, 0.004, 0.001, -0.0003]]
    )
    metrics = place.step(inputs=inputs, change=lambda name, weight: target)
    values = load_format("e4m3").code_values().double()
    scale = float(place.weights["0.weight"].scale())
    grid = np.array(sorted(set((values[values.isfinite()] * scale).tolist())))
    curvatures = (inputs.double() ** 2).mean(0).tolist()
    nearest = stochastic = 0.0
    for h, w in zip(curvatures, target[0].double().tolist(), strict=True):
        above = int(np.searchsorted(grid, w))
        low, high = w - grid[above - 1], grid[above] - w
        nearest += h * min(low, high) ** 2 / 2
        stochastic += h * low * high / 2
    assert metrics["curvature/0.weight/rounding_loss_nearest"] == pytest.approx(nearest, rel=1e-4)
    found = metrics["curvature/0.weight/rounding_loss_stochastic"]
    assert found == pytest.approx(stochastic, rel=1e-4)
    assert 0 < nearest < stochastic
    if rounding == "nearest":
        moved = place.model[0].weight.detach().double() - target.double()
        realised = float((torch.tensor(curvatures) * moved**2).sum() / 2)
        assert realised == pytest.approx(nearest, rel=1e-4)
    assert "curvature/all/rounding_loss_second_order" not in metrics
    assert metrics["curvature/all/rounding_loss_measured"] == pytest.approx(0, abs=1e-6)


def test_scales_per_row_are_taken_into_account(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = two_layers("e0m7", scaling=ScalingSettings(granularity="channel"))
    with torch.no_grad():
        model[0].weight.mul_(torch.logspace(-2, 0, 7)[:, None])
    place = bench(load_monitor("curvature"), model, loss=squared, probe=probe)
    function, flat = plain_loss(model, probe(8).tensors["inputs"])
    expected = float(function(rounded(place)) - function(flat))
    metrics = place.step(inputs=torch.randn(3, 6))
    assert metrics["curvature/all/rounding_loss_measured"] == pytest.approx(expected, rel=0.02)
    found = metrics["curvature/all/rounding_loss_second_order"]
    assert found == pytest.approx(expected, rel=0.02)


def test_probes_are_the_same_at_each_measurement_and_come_from_the_seed(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    def measure(seed: int, steps: int) -> list[dict[str, float]]:
        monitor = load_monitor("curvature", interval=1, seed=seed)
        place = bench(monitor, two_layers(), loss=squared, probe=probe)
        return [place.step(step, inputs=torch.randn(3, 6)) for step in range(1, steps + 1)]

    first, again = measure(0, 2)
    assert first == again == measure(0, 1)[0]
    other = measure(1, 1)[0]
    assert other["curvature/all/trace"] != first["curvature/all/trace"]
    eigenvalue = "curvature/all/eigenvalue_1"
    assert other[eigenvalue] == pytest.approx(first[eigenvalue], rel=0.05)


def test_broken_weights_give_nan_and_flat_losses_zero(
    load_monitor: Callable[..., Monitor],
    load_format: Callable[..., Format],
    bench: Any,
    two_layers: Any,
) -> None:
    model = two_layers()
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan
    metrics = bench(load_monitor("curvature"), model, loss=squared, probe=probe).step(
        inputs=torch.randn(3, 6)
    )
    assert math.isnan(metrics["curvature/all/eigenvalue_1"])
    assert math.isnan(metrics["curvature/0.weight/rounding_loss_nearest"])

    flat = nn.Sequential(nn.Linear(6, 5))
    quantize_model(flat, load_format("e3m4"))
    metrics = bench(load_monitor("curvature"), flat, probe=probe).step(inputs=torch.randn(3, 6))
    for metric in ("eigenvalue_1", "eigenvalue_2", "trace", "trace_error"):
        assert metrics[f"curvature/all/{metric}"] == 0
    assert metrics["curvature/all/rounding_loss_nearest"] == 0
    assert metrics["curvature/all/rounding_loss_second_order"] == pytest.approx(
        metrics["curvature/all/rounding_loss_measured"], rel=1e-3
    )


def test_without_eigenvalues_there_are_none_and_layers_choose_the_block(
    load_monitor: Callable[..., Monitor], bench: Any, two_layers: Any
) -> None:
    model = two_layers()
    monitor = load_monitor("curvature", eigenvalues=0, layers=("2.*",), probes=600)
    metrics = bench(monitor, model, loss=squared, probe=probe).step(inputs=torch.randn(3, 6))
    assert {name.split("/")[1] for name in metrics} == {"2.weight", "all"}
    assert not any("eigenvalue" in name for name in metrics)
    function, flat = plain_loss(model, probe(8).tensors["inputs"])
    dense = torch.autograd.functional.hessian(function, flat).numpy()
    error = metrics["curvature/all/trace_error"]
    assert abs(metrics["curvature/all/trace"] - np.trace(dense[42:, 42:])) < 4 * error


def test_conformance(load_monitor: Callable[..., Monitor]) -> None:
    check_monitor(load_monitor("curvature", interval=5, eigenvalues=1, probes=2, samples=3))
