"""Ranks from the singular values of a matrix, and two ways to all of them.

With ``σ₁ ≥ σ₂ ≥ …`` the singular values of ``W``, a weight with more than two dimensions being
flattened to ``out × rest``:

==================  ===============================================================================
``stable_rank``     ‖W‖_F² / ‖W‖₂² = Σ σᵢ² / σ₁² (Rudelson & Vershynin 2007, arXiv:math/0503442)
``effective_rank``  exp(−Σ pᵢ ln pᵢ) with pᵢ = σᵢ / Σ σⱼ (Roy & Vetterli, EUSIPCO 2007)
``spectral_norm``   ‖W‖₂ = σ₁
==================  ===============================================================================

Ranks have no unit, and lie between 1 and min(out, rest); they are 0 for a matrix of zeros. The
spectral norm has the unit of the weight. With a NaN or inf in the matrix all three are NaN.

*Gram.* σᵢ = sqrt(λᵢ(W Wᵀ)) from the Gram matrix of the shorter side, in float64, where squaring
costs nothing that float32 weights have: eigenvalues below ``n ε λ₁`` are rounding noise and count
as zero, which is σ below 4e-7 σ₁ at n = 768. *Exact.* ``torch.linalg.svdvals`` in float64, several
times as slow, with the noise at ``n ε σ₁``, 2e-13 σ₁.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

METRICS = ("stable_rank", "effective_rank", "spectral_norm")
"""The columns of what :func:`from_grams` and :func:`from_matrices` return."""


def as_matrix(weight: Tensor) -> Tensor:
    """The weight as a matrix, its shorter side first: float64."""
    matrix = weight.detach().flatten(1).to(torch.float64)
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def from_grams(weights: Sequence[Tensor]) -> Tensor:
    """:data:`METRICS` of each weight, by its Gram matrix: float64, shape ``(len(weights), 3)``.

    Gram matrices of one size go through the eigenvalue solver together.
    """
    grams = [matrix @ matrix.T for matrix in map(as_matrix, weights)]
    by_size: dict[int, list[int]] = {}
    for index, matrix in enumerate(grams):
        by_size.setdefault(matrix.shape[0], []).append(index)
    found: dict[int, Tensor] = {}
    for indices in by_size.values():
        batch = torch.stack([grams[index] for index in indices])
        found.update(zip(indices, _from_grams(batch).unbind(), strict=True))
    return torch.stack([found[index] for index in range(len(grams))])


def from_matrices(weights: Sequence[Tensor]) -> Tensor:
    """:data:`METRICS` of each weight, by its singular values: float64, ``(len(weights), 3)``."""
    rows = []
    for matrix in map(as_matrix, weights):
        finite = torch.isfinite(matrix).all()
        values = torch.linalg.svdvals(torch.where(finite, matrix, 1.0))
        noise = matrix.shape[1] * torch.finfo(values.dtype).eps * values[:1]
        row = _from_values(torch.where(values > noise, values, 0.0)[None])[0]
        rows.append(torch.where(finite, row, torch.nan))
    return torch.stack(rows)


def _from_grams(grams: Tensor) -> Tensor:
    """The metrics for each of the Gram matrices ``(B, n, n)``: shape ``(B, 3)``."""
    size = grams.shape[-1]
    finite = torch.isfinite(grams).all(-1).all(-1)
    identity = torch.eye(size, dtype=grams.dtype, device=grams.device)
    squares = torch.linalg.eigvalsh(torch.where(finite[:, None, None], grams, identity))
    noise = size * torch.finfo(squares.dtype).eps * squares[:, -1:]
    values = torch.where(squares > noise, squares, 0.0).sqrt().flip(-1)
    return torch.where(finite[:, None], _from_values(values), torch.nan)


def _from_values(values: Tensor) -> Tensor:
    """The metrics for each row of singular values ``(B, n)``, largest first: shape ``(B, 3)``."""
    largest = values[:, :1]
    stable = (values / largest).square().sum(-1)
    shares = values / values.sum(-1, keepdim=True)
    effective = torch.special.entr(shares).sum(-1).exp()
    ranks = torch.where(largest > 0, torch.stack((stable, effective), -1), 0.0)
    return torch.cat((ranks, largest), -1)
