"""Statistics of whole tensors that stay on the device: none of these waits for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from altgrad_core.interfaces.geometry import WeightGeometry
from altgrad_plugins.monitors.layers import per_layer


def spoilt(x: Tensor) -> Tensor:
    """0 if every element of ``x`` is finite, else NaN: added to what hides a broken element."""
    return x.sum(dtype=torch.float64) * 0


def quantiles(x: Tensor, percents: Sequence[int]) -> Tensor:
    """For each of ``percents`` the least element that so many % of ``x`` do not exceed; of its dtype.

    Always an element, never a mean of two. On the CPU by selection, since a sort takes ten times as
    long; elsewhere by one sort, since selection has no deterministic kernel on CUDA.
    """
    ranks = [max(1, -(-percent * x.numel() // 100)) for percent in percents]
    return (_selected if x.device.type == "cpu" else _picked)(x.flatten(), ranks)


def _selected(x: Tensor, ranks: Sequence[int]) -> Tensor:
    return torch.stack([x.kthvalue(rank).values for rank in ranks])


def _picked(x: Tensor, ranks: Sequence[int]) -> Tensor:
    ordered = x.sort().values
    return torch.stack([ordered[rank - 1] for rank in ranks])


def correlation(x: Tensor, y: Tensor, counted: Tensor) -> Tensor:
    """Pearson's correlation of ``x`` and ``y`` over the elements that are ``counted`` (bool).

    0-d, float64. NaN where one of the two does not vary at all.
    """
    dx, dy = centred(x, counted), centred(y, counted)
    variances = dx.square().sum() * dy.square().sum()
    return (dx * dy).sum() / variances.sqrt()


def centred(x: Tensor, counted: Tensor) -> Tensor:
    """``x`` less its mean over what is ``counted``, and 0 elsewhere: float64.

    Measured from the smallest element first, so that what does not vary is 0 exactly.
    """
    x = x.to(torch.float64)
    offset = torch.where(counted, x, torch.inf).amin()
    x = torch.where(counted, x - offset, 0.0)
    return torch.where(counted, x - x.sum() / counted.sum(), 0.0)


def average_ranks(x: Tensor, counted: Tensor) -> Tensor:
    """The rank (from 1) of each ``counted`` element of ``x`` among them, ties sharing their mean.

    float64; what is not counted has a rank beyond all others. Pearson's correlation of two of these
    is Spearman's.
    """
    x = torch.where(counted, x, torch.inf).flatten()
    ordered = x.sort().values
    below = torch.searchsorted(ordered, x)
    up_to = torch.searchsorted(ordered, x, right=True)
    return ((below + up_to + 1).to(torch.float64) / 2).view(counted.shape)


def decibels(signal: Tensor, noise: Tensor) -> Tensor:
    """``10 log10(signal / noise)``: inf without noise, NaN without either."""
    return 10 * (signal / noise).log10()


def layer_sizes(weights: Mapping[str, WeightGeometry], layers: Sequence[str]) -> Tensor:
    """How many elements each layer has: float64, ``(L, 1)``, on their device.

    A copy to the device, so it is made at the start.
    """
    parameters = [weights[layer].parameter for layer in layers]
    sizes = torch.tensor([p.numel() for p in parameters], dtype=torch.float64).unsqueeze(1)
    return sizes.to(parameters[0].device) if parameters else sizes


def size_shares(weights: Mapping[str, WeightGeometry], layers: Sequence[str]) -> Tensor:
    """The share of each layer in the elements of all of them: as :func:`layer_sizes`."""
    sizes = layer_sizes(weights, layers)
    return sizes / sizes.sum()


def columns(
    family: str, metrics: Sequence[str], layers: Iterable[str], rows: Tensor
) -> dict[str, float | Tensor]:
    """``rows``, shape ``(layers, metrics)``, under their names ``family/layer/metric``."""
    layers = list(layers)
    found: dict[str, float | Tensor] = {}
    for metric, values in zip(metrics, rows.unbind(1), strict=True):
        found |= per_layer(family, metric, layers, values)
    return found
