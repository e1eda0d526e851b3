"""Products, eigenvalues, trace and diagonal against a dense Hessian in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from altgrad_plugins.monitors.curvature.hessian import Hessian, hutchinson, leading_eigenvalues

Matrix = np.ndarray[Any, Any]


def small_model() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4)).double()
    return model, torch.randn(9, 5).double(), torch.randn(9, 4).double()


def loss_of(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.mse_loss(model(inputs), targets)


def watched(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.ndim > 1]


@pytest.fixture(scope="module")
def dense() -> Matrix:
    """By torch's own nested differentiation, of a function of one flat vector of weights."""
    model, inputs, targets = small_model()
    names = [name for name, p in model.named_parameters() if p.ndim > 1]
    shapes = {name: model.get_parameter(name).shape for name in names}

    def function(flat: Tensor) -> Tensor:
        pieces = flat.split([shapes[name].numel() for name in names])
        replaced = {n: p.view(shapes[n]) for n, p in zip(names, pieces, strict=True)}
        output = torch.func.functional_call(model, replaced, (inputs,))
        return nn.functional.mse_loss(output, targets)

    flat = torch.cat([model.get_parameter(name).detach().flatten() for name in names])
    matrix: Matrix = torch.autograd.functional.hessian(function, flat).numpy()
    return matrix


@pytest.fixture
def hessian() -> Hessian:
    model, inputs, targets = small_model()
    return Hessian(loss_of(model, inputs, targets), watched(model))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat(samples: list[Tensor]) -> Matrix:
    """Of each probe, the pieces as one row."""
    rows: Matrix = torch.cat([part.flatten(1) for part in samples], 1).numpy()
    return rows


def test_products_are_the_columns_of_the_dense_hessian(hessian: Hessian, dense: Matrix) -> None:
    assert hessian.size == 54
    columns = np.stack([hessian.flat_product(row) for row in np.eye(54)])
    assert columns == pytest.approx(dense, rel=1e-10, abs=1e-14)


@pytest.mark.parametrize("count", [1, 4, 12])
def test_leading_eigenvalues_by_lanczos_are_the_largest(
    count: int, hessian: Hessian, dense: Matrix
) -> None:
    expected = np.sort(np.linalg.eigvalsh(dense))[::-1]
    assert expected[-1] < 0  # so that "largest" is not "of largest magnitude" throughout
    found = leading_eigenvalues(hessian, count, seeded(), tolerance=1e-8, restarts=200)
    assert found == pytest.approx(expected[:count].tolist(), rel=1e-8)


def test_every_eigenvalue_of_a_small_hessian_at_once(hessian: Hessian, dense: Matrix) -> None:
    """So many that the Krylov space is the whole space, and one too many."""
    expected = np.sort(np.linalg.eigvalsh(dense))[::-1]
    found = leading_eigenvalues(hessian, 55, seeded(), tolerance=0.1, restarts=1)
    assert found[:54] == pytest.approx(expected.tolist(), rel=1e-8, abs=1e-12)
    assert math.isnan(found[54])


def test_the_tolerance_is_one_of_the_eigenvalue(hessian: Hessian, dense: Matrix) -> None:
    expected = np.sort(np.linalg.eigvalsh(dense))[::-1][:2]
    for seed in range(20):
        found = leading_eigenvalues(hessian, 2, seeded(seed), tolerance=0.05, restarts=10)
        assert found == pytest.approx(expected.tolist(), rel=0.05)


def test_eigenvalues_that_are_not_found_in_time_are_nan(hessian: Hessian) -> None:
    found = leading_eigenvalues(hessian, 9, seeded(), tolerance=1e-14, restarts=1)
    assert len(found) == 9
    assert math.isnan(found[-1])


def test_hutchinson_is_what_its_signs_make_of_the_dense_hessian(
    hessian: Hessian, dense: Matrix
) -> None:
    seen = []

    class Recorded(Hessian):
        def product(self, vectors: Any) -> list[Tensor]:
            seen.append(np.concatenate([v.numpy().ravel() for v in vectors]))
            return super().product(vectors)

    hessian.__class__ = Recorded
    found = hutchinson(hessian, 7, seeded())
    signs = np.array(seen)
    assert signs.shape == (7, 54)
    assert set(signs.ravel()) == {-1.0, 1.0}
    samples = signs * (signs @ dense)
    assert [part.shape for part in found] == [(7, 6, 5), (7, 4, 6)]
    assert flat(found) == pytest.approx(samples, rel=1e-9, abs=1e-14)


def test_hutchinson_is_unbiased_with_the_variance_of_theory(
    hessian: Hessian, dense: Matrix
) -> None:
    """Var vᵀ H v = 2 Σ_{i≠j} hᵢⱼ², and Var of the i-th of v ⊙ H v is Σ_{j≠i} hᵢⱼ²."""
    probes = 3000
    found = hutchinson(hessian, probes, seeded(1))
    off = dense - np.diag(np.diag(dense))
    samples = flat(found).sum(axis=1)
    deviation = math.sqrt(2 * (off**2).sum())
    assert samples.std(ddof=1) == pytest.approx(deviation, rel=0.08)
    error = deviation / math.sqrt(probes)
    assert abs(samples.mean() - np.trace(dense)) < 4 * error
    assert 4 * error < 0.2 * np.trace(dense)  # so that zero would not pass
    diagonal = flat(found).mean(axis=0)
    errors = np.sqrt((off**2).sum(axis=1) / probes)
    assert np.all(np.abs(diagonal - np.diag(dense)) < 5 * errors)
    for part in (slice(0, 30), slice(30, 54)):
        inside = np.diag(dense)[part].sum()
        spread = math.sqrt((off[part] ** 2).sum() * 2 / probes)
        assert abs(diagonal[part].sum() - inside) < 4 * spread


def test_a_loss_without_curvature_in_some_or_all_weights() -> None:
    weight, other, unused = (nn.Parameter(torch.ones(3)) for _ in range(3))
    some = Hessian(weight.square().sum() + other.sum(), [weight, other, unused])
    products = some.product([torch.ones(3), torch.ones(3), torch.ones(3)])
    assert [product.tolist() for product in products] == [[2, 2, 2], [0, 0, 0], [0, 0, 0]]
    assert [part.tolist() for part in some.gradient] == [[2, 2, 2], [1, 1, 1], [0, 0, 0]]
    none = Hessian(other.sum(), [other, unused])
    assert [p.tolist() for p in none.product([torch.ones(3)] * 2)] == [[0, 0, 0], [0, 0, 0]]
