"""The Hessian of a loss, known by its products with vectors alone (Pearlmutter 1994).

``H v = ∇ ⟨∇L, v⟩``: the gradient is computed once, with its graph, and each product is one more
backward pass through that. Nothing of size n × n is ever built.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh
from torch import Tensor

_Vector = np.ndarray[Any, np.dtype[np.float64]]


class Hessian:
    """Of ``loss`` with respect to ``weights``, taken together as one vector of ``size`` elements.

    Lives as long as the graph of ``loss``. ``gradient`` is the gradient, detached.
    """

    def __init__(self, loss: Tensor, weights: Sequence[Tensor]) -> None:
        self.weights = list(weights)
        self.size = sum(weight.numel() for weight in self.weights)
        found = torch.autograd.grad(
            loss, self.weights, create_graph=True, allow_unused=True, materialize_grads=True
        )
        # A gradient without a graph is constant: its row of blocks is zero.
        self._curved = [index for index, part in enumerate(found) if part.requires_grad]
        self._gradient = found
        self.gradient = [part.detach() for part in found]

    def product(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """``H v``, for a vector in pieces of the shapes of the weights."""
        if not self._curved:
            return [torch.zeros_like(weight) for weight in self.weights]
        products = torch.autograd.grad(
            [self._gradient[index] for index in self._curved],
            self.weights,
            [vectors[index] for index in self._curved],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return [product.detach() for product in products]

    def flat_product(self, vector: _Vector) -> _Vector:
        """``H v`` of a flat vector on the host. Waits for the device."""
        flat = torch.from_numpy(np.ascontiguousarray(vector.ravel())).to(
            self.weights[0].device, self.weights[0].dtype
        )
        pieces = torch.split_with_sizes(flat, [weight.numel() for weight in self.weights])
        shaped = [p.view(w.shape) for p, w in zip(pieces, self.weights, strict=True)]
        product = torch.cat([piece.flatten() for piece in self.product(shaped)])
        result: _Vector = product.double().cpu().numpy()
        return result


def hutchinson(hessian: Hessian, probes: int, generator: torch.Generator) -> list[Tensor]:
    """``v ⊙ H v`` for ``probes`` Rademacher vectors: for each weight, ``(probes, *its shape)``.

    E[v vᵀ] = I, so ``E[v ⊙ H v] = diag H`` (Bekas, Kokiopoulou & Saad 2007) and its sum is the
    trace (Hutchinson 1990); the sum over one weight is the trace of that weight's own block.
    """
    samples = []
    for _ in range(probes):
        signs = [_signs(weight, generator) for weight in hessian.weights]
        samples.append(torch._foreach_mul(hessian.product(signs), signs))
    return [torch.stack(of_weight) for of_weight in zip(*samples, strict=True)]


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    bits = torch.randint(0, 2, like.shape, generator=generator, device=like.device)
    return bits.to(like.dtype) * 2 - 1


_OWN_DRAWS = {"rng": 0} if "rng" in inspect.signature(eigsh).parameters else {}
"""Newer ARPACKs of scipy draw anew where they must start again, and from no seed unless they are given one."""


def leading_eigenvalues(
    hessian: Hessian, count: int, generator: torch.Generator, *, tolerance: float, restarts: int
) -> list[float]:
    """The ``count`` largest eigenvalues, by sign, largest first; NaN for those not found.

    By the implicitly restarted Lanczos method (ARPACK, through scipy), from a start that is drawn
    from ``generator``. A Hessian no larger than the Krylov space would be is built and solved.
    """
    size, space = hessian.size, max(2 * count + 1, 20)
    if size <= space:
        dense = np.stack([hessian.flat_product(row) for row in np.eye(size)])
        found = np.linalg.eigvalsh((dense + dense.T) / 2)
    else:
        device = generator.device
        start = torch.randn(size, dtype=torch.float64, device=device, generator=generator)
        operator = LinearOperator((size, size), matvec=hessian.flat_product, dtype=np.float64)
        try:
            found = eigsh(
                operator,
                k=count,
                which="LA",
                v0=start.cpu().numpy(),
                ncv=space,
                tol=tolerance,
                maxiter=restarts,
                return_eigenvectors=False,
                **_OWN_DRAWS,
            )
        except ArpackNoConvergence as stopped:
            found = stopped.eigenvalues
        except ArpackError:
            found = np.empty(0)
    largest = sorted(found.tolist(), reverse=True)[:count]
    return largest + [math.nan] * (count - len(largest))
