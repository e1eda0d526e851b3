"""Draws by counter: known answers of the generator, one stream for every way to compute it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from altgrad_core.interfaces import backend, compiled_draws
from altgrad_core.interfaces.compiling import kernel
from altgrad_core.interfaces.draws import keyed_uniform, new_key, uniform
from altgrad_core.interfaces.philox import words

CPU = torch.device("cpu")
KEYS = (0, 1, 2**32, 2**64 - 1, 0x299F31D0A4093822)


def test_known_answer() -> None:
    """Of the authors' Random123: counter 0, key 0."""
    expected = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert words(4, CPU, 0).tolist() == expected


def philox(counter: int, key: int) -> list[int]:
    """Philox4x32-10 in Python's integers, by the paper."""
    x = [counter & 0xFFFFFFFF, counter >> 32, 0, 0]
    k = [key & 0xFFFFFFFF, key >> 32]
    for _ in range(10):
        p0, p1 = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [p1 >> 32 ^ x[1] ^ k[0], p1 & 0xFFFFFFFF, p0 >> 32 ^ x[3] ^ k[1], p0 & 0xFFFFFFFF]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return x


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("count", [0, 1, 5, 1026])
def test_the_paper(key: int, count: int) -> None:
    expected = [word for block in range(-(-count // 4)) for word in philox(block, key)]
    assert words(count, CPU, key).tolist() == expected[:count]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7, 2049])
def test_compiled_draws_are_the_same(dtype: torch.dtype, key: int, count: int) -> None:
    drawn = torch.empty(count, dtype=dtype)
    compiled_draws.fill(drawn, key)
    stream = words(2 * count, CPU, key)
    if dtype == torch.float32:
        expected = (stream[:count] >> 8).double() / 2**24
    else:
        expected = ((stream[::2] >> 5) * 2**26 + (stream[1::2] >> 6)).double() / 2**53
    assert drawn.double().tolist() == expected.tolist()
    later = torch.empty(max(count - 4, 0), dtype=dtype)
    compiled_draws.fill(later, key, first=4)
    assert later.double().tolist() == expected[4:].tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_backend_draws_the_same(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    like = torch.empty(3, 5, 7, dtype=dtype)
    fast = keyed_uniform(like, 17)
    monkeypatch.setattr(backend, "cpu_backend", lambda: "eager")
    assert torch.equal(keyed_uniform(like, 17), fast)
    assert torch.equal(keyed_uniform(like.permute(2, 0, 1).reshape(3, 5, 7), 17), fast)


def test_draws_are_uniform_and_each_tensor_has_its_own() -> None:
    generator = torch.Generator().manual_seed(5)
    one, two = (uniform(torch.empty(20_000), generator) for _ in range(2))
    assert stats.kstest(one.numpy(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03
    assert torch.equal(uniform(torch.empty(20_000), torch.Generator().manual_seed(5)), one)


def test_keys_follow_the_generator_and_its_state() -> None:
    generator = torch.Generator().manual_seed(5)
    first = new_key(generator)
    state = generator.get_state()
    second = new_key(generator)
    generator.set_state(state)
    assert new_key(generator) == second != first
    assert 0 <= first < 2**64


def test_within_vmap_randomness_is_torchs_question() -> None:
    generator = torch.Generator().manual_seed(5)
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(lambda x: uniform(x, generator))(torch.empty(2, 3))


def test_a_kernel_that_can_be_kept_nowhere_is_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from numba.core import caching

    keeping = getattr(caching, "CacheImpl", None) or caching._CacheImpl  # its name of before
    monkeypatch.setattr(keeping, "_locator_classes", [])

    @kernel("void(float32[::1])")
    def doubled(x: np.ndarray) -> None:
        for i in range(x.shape[0]):
            x[i] *= 2

    x = np.arange(3, dtype=np.float32)
    doubled(x)
    assert x.tolist() == [0.0, 2.0, 4.0]
