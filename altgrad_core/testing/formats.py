"""Conformance checks for formats: :func:`check_format` runs them all. No test framework is needed.

Expected values come from the definition, in exact arithmetic, and, for formats that list their
codes, from the derivation in :class:`~altgrad_core.interfaces.format.Format` as a second witness.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from altgrad_core.interfaces.format import Format
from altgrad_core.testing.draws import no_other_draws
from altgrad_core.testing.format_native import held_natively
from altgrad_core.testing.format_probe import FormatProbe
from altgrad_core.testing.format_steady import never_waits, placed, tables, unchanged
from altgrad_core.testing.rules import rule

DRAWS = 1 << 15
SIGMAS = 7.0
"""Stochastic rounding fails if a mean is off by more than this many standard errors."""
_OWN_RULE = (
    "A format that rounds by a rule of its own states it in thresholds(), so that codes, rungs, "
    "stochastic rounding and stalls go by it, too."
)


def check_format(fmt: Format, device: str | torch.device = "cpu") -> None:
    """Check that ``fmt`` keeps the contract of :class:`Format`, on ``device``.

    Raises ``AssertionError`` with a sentence that says what is wrong, and for which value. Draws for
    stochastic rounding come from fixed seeds, so a verdict never changes. Before the seeds were
    fixed, a correct format had a chance below one in a million of a false alarm: at most 400 means
    are looked at, and beyond 7 standard errors lie 3e-12 of a normal distribution; the binomial
    distributions here have heavier tails than that by far less than the factor of 1000 left.
    """
    with rule(
        "a format is a subclass of altgrad_core.interfaces.Format with a name and 1 to 32 bits"
    ):
        _names(fmt)
    with rule("code_values(), or to_rung() and from_rung() of a wide format, give the grid"):
        first = tables(fmt)
        probe = FormatProbe(fmt, torch.device(device))
    drawn = "round() is given the only source of random numbers, a generator"
    with rule(drawn), no_other_draws(fmt.name, "draw from the generator"):
        for check, sentence in _RULES.items():
            with rule(sentence):
                check(probe)
    with rule("what a format says never changes: runs, encoded weights and tables rely on it"):
        unchanged(probe, first)


class _Derived(Format):
    """The base class's derivation from the values of another format."""

    def __init__(self, fmt: Format) -> None:
        self.name, self.bits = fmt.name, fmt.bits
        self._values, self._between = fmt.code_values(), fmt.thresholds()

    def code_values(self) -> Tensor:
        return self._values

    def thresholds(self) -> Tensor | None:
        return self._between


def _names(fmt: Format) -> None:
    name, bits = getattr(fmt, "name", None), getattr(fmt, "bits", None)
    if not isinstance(name, str) or not name:
        raise AssertionError(f"{type(fmt).__name__}: name must be a word, not {name!r}.")
    if not isinstance(bits, int) or not 1 <= bits <= 32:
        raise AssertionError(f"{name}: bits must be a number from 1 to 32, not {bits!r}.")


def _codes(p: FormatProbe) -> None:
    """Code -> value -> code."""
    if p.listed:
        values = p.fmt.code_values()
        p.require(
            values.shape == (2**p.fmt.bits,) and values.dtype == torch.float32,
            f"code_values() must be float32 of shape ({2**p.fmt.bits},), not {values.dtype} of "
            f"shape {tuple(values.shape)}.",
        )
        codes = torch.arange(2**p.fmt.bits)
        p.require_equal("decode()", codes, p.decode(codes), values)
    else:
        values = torch.cat([p.low, p.high, torch.tensor([0.0, -0.0, math.nan])])
    finite = values[values.isfinite()]
    back = p.encode(finite)
    p.require(not back.dtype.is_floating_point, f"encode() gives {back.dtype} and not integers.")
    decoded = p.decode(back)
    zeros = finite == 0
    both_zeros = len(set(finite[zeros].signbit().tolist())) == 2
    if not both_zeros:  # the only zero stands for both
        decoded = torch.where(zeros & (decoded == 0), finite, decoded)
    p.require_equal("decode(encode(value))", finite, decoded, finite)
    nan = torch.tensor([math.nan])
    if bool(values.isnan().any()):
        p.require(bool(p.decode(p.encode(nan)).isnan().all()), "encode(NaN) must mean NaN.")
    else:
        p.require_raises(ValueError, lambda: p.encode(nan), "encode(NaN), for which is no code,")
    p.require_raises(
        ValueError, lambda: p.decode(torch.tensor([2**p.fmt.bits])), "decode() of no code"
    )


def _rungs(p: FormatProbe) -> None:
    """Rung -> value -> rung, in order."""
    if p.listed:
        rungs = torch.arange(p.bottom, p.top + 1)
        distinct = p.fmt.code_values()
        distinct = torch.unique(distinct[distinct.isfinite()] + 0.0)
        p.require(
            torch.equal(p.from_rung(rungs), distinct),
            "from_rung() must give every distinct finite value of code_values(), in order.",
        )
    else:
        rungs = torch.unique(torch.cat([p.lower, p.lower + 1]))
    values = p.from_rung(rungs)
    p.require(bool((values.diff() > 0).all()), "values must rise from rung to rung.")
    p.require_equal("to_rung()", values, p.to_rung(values), rungs.to(torch.int32))
    p.require(
        not bool((values == 0).any()) or float(p.from_rung(torch.tensor(0))) == 0,
        "rung 0 must be zero.",
    )
    nan = torch.tensor([math.nan])
    p.require_equal("to_rung()", nan, p.to_rung(nan), torch.tensor([0], dtype=torch.int32))
    beyond = torch.tensor([p.bottom - 1, p.top + 1])
    p.require_equal("from_rung()", beyond, p.from_rung(beyond), values[[0, -1]])
    p.require(p.fmt.max_finite == float(values[-1]), "max_finite must be the last rung's value.")
    p.require(
        p.fmt.min_positive == float(values[values > 0][0]),
        "min_positive must be the value of the first rung above zero.",
    )


def _nearest(p: FormatProbe) -> None:
    """Rounding against the definition, in exact arithmetic."""
    odd_low, odd_high = p.encode(p.low) % 2, p.encode(p.high) % 2
    same = odd_low == odd_high
    even = torch.where(same, p.lower % 2 == 1, odd_low == 1)
    tie_up = torch.where(p.owned() == 0, even, p.owned() < 0).tolist()
    low, high = p.low.tolist(), p.high.tolist()
    between = (
        [(value, value) for value in p.between.tolist()]
        if p.own_rule
        else list(zip(low, high, strict=True))
    )
    for dtype in (torch.float32, torch.float64):
        for x, index in p.around(dtype):
            up = []
            for value, i in zip(x.tolist(), index.tolist(), strict=True):
                a, b = between[i]
                side = math.fsum((value, value, -a, -b))  # rounded once, so its sign is exact
                up.append(side > 0 or (side == 0 and tie_up[i]))
            above = torch.tensor(up)
            want = torch.where(above, p.high[index], p.low[index]).to(dtype)
            want = torch.where(want == 0, want.copysign(x), want)
            p.require_equal(f"round() in {dtype}", x, p.round(x), want, _OWN_RULE)
            rungs = (p.lower[index] + above).to(torch.int32)
            p.require_equal(f"to_rung() in {dtype}", x, p.to_rung(x), rungs, _OWN_RULE)


def _derivation(p: FormatProbe) -> None:
    """All that may be overridden, against the base class: every bfloat16, and near every value."""
    if not p.listed:
        return
    derived = _Derived(p.fmt)
    patterns = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16).float()
    x = torch.cat([patterns, *(x for x, _ in p.around(torch.float32))])
    x = torch.cat([x, torch.nextafter(x, torch.tensor(math.inf))])
    x = x[(x >= p.low[0]) & (x <= p.high[-1])]
    p.require_equal("round()", x, p.round(x), derived.round(x))
    p.require_equal("to_rung()", x, p.to_rung(x), derived.to_rung(x))
    p.require_equal("encode()", x, p.encode(x), derived.encode(x))
    inside = x[(x > p.low[0]) & (x < p.high[-1])]
    p.require_equal("ulp()", inside, p.ulp(inside), derived.ulp(inside))


def _ends(p: FormatProbe) -> None:
    """NaN, inf, and what lies beyond the largest value."""
    p.require(bool(p.round(torch.tensor([math.nan])).isnan().all()), "round(NaN) must be NaN.")
    for end, sign, rung in ((p.high[-1], 1, p.top), (p.low[0], -1, p.bottom)):
        beyond = end + sign * end.abs() * torch.tensor([0.0, 0.5, 3.0, math.inf])
        beyond[-1] = sign * math.inf
        got = p.round(beyond)
        kept = got == end
        p.require(
            bool(kept[0])
            and bool((kept | ~got.isfinite()).all() and (kept.int().diff() < 1).all()),
            f"at and beyond {end.item()!r} round() must give that value, or from somewhere on NaN "
            f"or inf, but for {beyond.tolist()} it gives {got.tolist()}.",
        )
        want = torch.full(beyond.shape, rung, dtype=torch.int32)
        p.require_equal("to_rung()", beyond, p.to_rung(beyond), want)


def _ulps(p: FormatProbe) -> None:
    gap = (p.high.double() - p.low.double()).float()
    # The end towards zero, and the middle; what is above -0 belongs to the side above zero.
    middle = p.low / 2 + p.high / 2
    positive, negative, inside = p.low >= 0, p.high < 0, (middle > p.low) & (middle < p.high)
    for x, chosen in ((p.low, positive), (p.high, negative), (middle, inside)):
        p.require_equal("ulp()", x[chosen], p.ulp(x[chosen]), gap[chosen])
    last = p.ulp(torch.tensor([p.fmt.max_finite, math.inf]))
    p.require(
        bool((last.isfinite() & (last > 0)).all()) and float(last[0]) == float(last[1]),
        f"ulp() at and beyond max_finite must be one positive number, not {last.tolist()}.",
    )
    p.require(bool(p.ulp(torch.tensor([math.nan])).isnan().all()), "ulp(NaN) must be NaN.")


def _dtypes(p: FormatProbe) -> None:
    x = torch.cat([p.low, p.low / 2 + p.high / 2, torch.tensor([-0.0, math.nan])])
    for dtype in (torch.bfloat16, torch.float16):
        narrow = x.to(dtype)
        narrow = narrow[~narrow.isinf()]
        if p.fmt.exact_in(dtype):
            want = p.round(narrow.float()).to(dtype)
            p.require_equal(f"round() in {dtype}", narrow, p.round(narrow), want)
        p.require_equal("to_rung()", narrow, p.to_rung(narrow), p.to_rung(narrow.float()))
    integers = torch.tensor([1, 2])
    for method in (p.round, p.ulp, p.to_rung, p.encode):
        p.require_raises(TypeError, partial(method, integers), f"{method.__name__}() of integers")


def _shapes(p: FormatProbe) -> None:
    flat = torch.cat([p.low, p.high])
    square = flat.view(2, -1)
    for x in (flat[0], flat[:0], square, square.t(), flat[::2]):
        given = x.clone()
        p.require_equal("round()", given, p.round(x), given)
        p.require_equal("round() must not change its input, which", given, x, given)
        out = torch.empty_like(given, device=p.device)
        into = p.fmt.round_into(out, given.to(p.device)).cpu()
        p.require_equal("round_into()", given, into, given)
        for name in ("ulp", "to_rung", "encode"):
            shape = getattr(p, name)(x).shape
            p.require(shape == x.shape, f"{name}() makes {tuple(shape)} of {tuple(x.shape)}.")
    leaf = flat.clone().requires_grad_()
    p.require(not p.round(leaf).requires_grad, "round() must give a tensor without a gradient.")


def _stochastic(p: FormatProbe) -> None:
    grid = torch.cat([p.low, p.high]).repeat(64)
    state = torch.get_rng_state()
    p.require_equal("stochastic rounding", grid, p.draw(grid, seed=1), grid)
    p.require(
        torch.equal(state, torch.get_rng_state()),
        "stochastic rounding must draw from its generator, not from the global one.",
    )
    p.require_raises(
        ValueError,
        lambda: p.fmt.round(grid.to(p.device), "stochastic"),
        "stochastic rounding without a generator",
    )
    # 56 pairs over the whole grid, and those around zero
    spread = torch.linspace(0, len(p.lower) - 1, min(56, len(p.lower))).long()
    near_zero = (p.lower.abs() <= 2).nonzero().flatten()
    index = torch.unique(torch.cat([spread, near_zero]))
    _owned(p)
    index = index[p.owned()[index] == 0]
    low, high = p.low[index].double(), p.high[index].double()
    for dtype in (torch.float32, torch.float64):
        for share in (0.125, 0.5, 0.8):
            _unbiased(p, (low * (1 - share) + high * share).to(dtype), low, high)


def _owned(p: FormatProbe) -> None:
    """Where one end has all that lies between, stochastic rounding has no choice either."""
    chosen = p.owned() != 0
    low, high = p.low[chosen], p.high[chosen]
    want = torch.where(p.owned()[chosen] > 0, high, low)
    x = low / 2 + high / 2
    want = torch.where(want == 0, want.copysign(x), want).expand(64, -1)
    many = x.expand(64, -1).contiguous()
    p.require_equal("stochastic rounding beside such a threshold", many, p.draw(many, seed=4), want)


def _unbiased(p: FormatProbe, x: Tensor, low: Tensor, high: Tensor) -> None:
    """Each element of ``x``, between ``low`` and ``high``, must go up as often as its place says."""
    share = (x.double() - low) / (high - low)
    inside = (share > 0.01) & (share < 0.99)
    x, low, high, share = x[inside], low[inside], high[inside], share[inside]
    if len(x) == 0:  # float32 has nothing between the values of fp32
        return
    many = x.expand(DRAWS, -1).contiguous()
    got = p.draw(many, seed=2)
    again = p.draw(many[:2], seed=3), p.draw(many[:2], seed=3)
    p.require_equal("stochastic rounding with the same seed", many[:2], *again)
    up, down = got.double() == high, got.double() == low
    p.require(bool((up | down).all()), "stochastic rounding must give one of the two neighbours.")
    often = up.double().mean(0)
    variance = share * (1 - share) / DRAWS
    off = (often - share).abs() / variance.sqrt()
    worst = int(off.argmax())
    p.require(
        float(off[worst]) < SIGMAS,
        f"stochastic rounding is biased: {x[worst].item()!r} goes up in {often[worst]:.4f} of "
        f"{DRAWS} draws, and should in {share[worst]:.4f}.",
    )
    together = (often - share).sum().abs() / variance.sum().sqrt()
    p.require(
        float(together) < SIGMAS,
        f"stochastic rounding is biased: over {len(x)} values of {x.dtype} it goes up in "
        f"{often.mean():.5f} of the draws, and should in {share.mean():.5f}.",
    )


_RULES: dict[Callable[[FormatProbe], None], str] = {
    _codes: "decode() gives the value of a code and encode() the code of a value; there and back is the same",
    _rungs: "rungs number the distinct values in order, 0 is zero, and the ends of the ladder are the ends",
    _nearest: "rounding to nearest breaks ties to the even code and rounds once",
    _derivation: "a method that is overridden gives what the one of Format derives from code_values()",
    _ends: "NaN stays NaN, and what lies beyond the ends of the grid becomes the end",
    _ulps: "ulp() is the gap to the neighbouring value away from zero",
    _dtypes: "float64, float32, bfloat16 and float16 are taken as they are, and other dtypes raise TypeError",
    _shapes: "tensors of any shape and stride are taken, and neither they nor gradients are touched",
    _stochastic: "stochastic rounding picks a neighbour so that the mean is exact, from the generator given",
    placed: "headroom is at least 1, and closed_under_doubling what the values are, or the careful answer, False",
    held_natively: "a native dtype, where one is declared, holds the value of every code, bit for bit",
    never_waits: "round(), ulp(), to_rung() and from_rung() never wait for the device once tables are there",
}
