"""What surrounds the rounding of resident weights, compiled: the bits of torch's operators, and used."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces import backend
from altgrad_core.quantization.kernels.backends import plain_on_cpu
from altgrad_core.quantization.residency import keep_on_grid
from altgrad_core.quantization.scaling import largest_magnitude
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format

pytestmark = pytest.mark.skipif(backend.cpu_backend() != "numba", reason="no compiled kernels")

SPECIAL = [0.0, -0.0, 1e-45, -1e-40, 2.0**-126, 3e38, -3e38, torch.inf, -torch.inf, torch.nan]


def floats(*specials: float) -> Tensor:
    """A few of every exponent, and what is special."""
    draw = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, (5001,), generator=draw, dtype=torch.int64)
    x = bits.to(torch.int32).view(torch.float32)
    return torch.cat([torch.where(x.isfinite(), x, 1.0), torch.tensor(specials)])


def same(a: Tensor, b: Tensor) -> bool:
    """NaN is NaN; zeros are told apart."""
    broken = a.isnan()
    sound = [one.masked_fill(broken, 0).view(torch.int32) for one in (a, b)]
    return torch.equal(broken, b.isnan()) and torch.equal(*sound)


@pytest.mark.parametrize("special", SPECIAL)
def test_the_largest_magnitude(special: float) -> None:
    for x in (floats(special), torch.tensor(special), torch.full((3,), special)):
        assert same(largest_magnitude(x), x.abs().amax())
        assert largest_magnitude(x).shape == ()
    parameter = nn.Parameter(torch.tensor([special, 0.5]))
    assert not largest_magnitude(parameter).requires_grad


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_that_torch_makes_tensors_of_plays_no_part(
    dtype: torch.dtype, default_dtype: Callable[[torch.dtype], None]
) -> None:
    x, layer = floats(), nn.Linear(9, 8)
    found = largest_magnitude(x)
    default_dtype(dtype)
    assert same(largest_magnitude(x), found)
    assert largest_magnitude(x[:0]).dtype == torch.float32
    quantize_model(layer, load_format("e5m2"), residency="grid", rounding="stochastic")
    buffers = dict(layer.named_buffers())
    assert {b.dtype for b in buffers.values() if b.is_floating_point()} == {torch.float32}


@pytest.mark.parametrize("scale", [2.0**-126, 0.75, 1.0, 3e30])
@pytest.mark.parametrize("ends", [(-448.0, 448.0), (-1.0, 7.0)])
def test_into_the_grid_and_out_again(scale: float, ends: tuple[float, float]) -> None:
    from altgrad_core.quantization.kernels import settling

    x, unit = floats(*SPECIAL), torch.tensor(scale)
    inside = (x / unit).clamp(*ends)
    assert same(settling.divided(x, unit, ends), inside)
    rounded = inside.round()
    expected = torch.where(x.isfinite(), rounded * unit + 0.0, x)
    for out in (torch.empty_like(x), rounded.clone(), x.clone()):
        version = out._version
        assert settling.settled(rounded, unit, x, out) is out
        assert same(out, expected)
        assert out._version > version
    settling.settled(rounded, unit, x, x)
    assert same(x, expected)


def test_what_may_be_read_as_it_is() -> None:
    x = torch.randn(4, 6)
    assert plain_on_cpu(x)
    others = [
        x.t(),
        x.double(),
        x.bfloat16(),
        x[:0],
        torch.view_as_complex(x.view(4, 3, 2)).conj().imag,
    ]
    assert not any(map(plain_on_cpu, others))
    assert others[-1].is_neg()
    with mock.patch.object(backend, "cpu_backend", return_value="eager"):
        assert not plain_on_cpu(x)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "kahan"])
@pytest.mark.parametrize("fmt", ["e0m7", "e5m2", "bf16", "table"])
def test_weights_end_where_the_operators_take_them(rounding: str, fmt: str) -> None:
    values = {"values": [0, 1, 2, 4, 8, 0.125, -0.125, -3]} if fmt == "table" else {}
    found = []
    for name in ("numba", "eager"):
        model = nn.Linear(33, 7)
        draw = torch.Generator().manual_seed(2)
        for parameter in model.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=draw))
        with mock.patch.object(backend, "cpu_backend", return_value=name):
            kahan = {"compensation": load_format("bf16")} if rounding == "kahan" else {}
            how = "nearest" if kahan else rounding
            quantize_model(
                model, load_format(fmt, **values), residency="grid", rounding=how, **kahan
            )
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            keep_on_grid(model, optimizer, torch.Generator().manual_seed(3))
            for number in range(6):
                for parameter in model.parameters():
                    parameter.grad = torch.randn(parameter.shape, generator=draw) * 2.0**number
                    if number == 5:
                        parameter.grad.view(-1)[:3] = torch.tensor(
                            [torch.nan, torch.inf, -torch.inf]
                        )
                optimizer.step()
        found.append(model.state_dict())
    for name, value in found[0].items():
        assert same(value.float(), found[1][name].float()), name
