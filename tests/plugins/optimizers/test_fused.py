"""The compiled step of ``manifold_adamw``: to the last bit what torch's operators do, and taken wherever it can be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from altgrad_core.interfaces import backend
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import keep_on_grid
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_plugins.optimizers import agreement, fused, manifold
from altgrad_plugins.optimizers.adamw import AdamWPlugin
from altgrad_plugins.optimizers.manifold import ManifoldAdamW
from altgrad_plugins.optimizers.settings import AdamWSettings, ManifoldAdamWSettings

pytestmark = pytest.mark.skipif(
    backend.cpu_backend() != "numba" or agreement.torch_lanes() is None,
    reason="no compiled step here",
)

LADDER = ["e0m7", "e1m6", "e2m5", "e3m4", "e4m3", "e5m2", "e6m1", "e7m0"]
SHAPES = [(3, 5), (16, 8), (1, 1), (40, 33), (0, 4), (64, 129)]


@contextmanager
def kernels(name: str) -> Iterator[None]:
    with mock.patch.object(backend, "cpu_backend", return_value=name):
        yield


class Weights(nn.Module):
    """Linear layers that nobody calls: their weights, of every shape, and a bias on no grid."""

    def __init__(self, size: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        for number, (rows, columns) in enumerate(SHAPES):
            layer = nn.Linear(columns, rows, bias=number == 0)
            weight = torch.randn(rows, columns, generator=draw) * size
            weight[::3, ::7] = 0
            layer.weight = nn.Parameter(weight)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, 0.3)
            self.add_module(str(number), layer.to(dtype))


class Trained:
    """A quantised :class:`Weights` with its optimizer, and what becomes of it."""

    def __init__(self, case: dict[str, Any], chosen: dict[str, Any]) -> None:
        self.model = Weights(case.get("size", 0.1), case.get("dtype", torch.float32))
        fmt = load_format(case["format"])
        quantize_model(self.model, fmt, **case.get("quantised", {}))
        case.get("change", lambda model: None)(self.model)
        geometry = {g.parameter: g for g in weight_geometry(self.model).values()}
        parameters = list(self.model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": parameters[:3]},
            {"params": parameters[3:], "weight_decay": 0.0, "lr": 3e-2},
        ]
        self.optimizer = ManifoldAdamW(
            groups, geometry, ManifoldAdamWSettings.model_validate(chosen), 1e-2
        )
        if case.get("quantised", {}).get("residency") == "grid":
            keep_on_grid(self.model, self.optimizer, torch.Generator().manual_seed(1))
        self.spoil: Callable[[Tensor], Any] = case.get("spoil", lambda grad: None)

    def steps(self, count: int, first: int = 0) -> Trained:
        for number in range(first, first + count):
            draw = torch.Generator().manual_seed(number)
            for index, parameter in enumerate(self.model.parameters()):
                grad = torch.randn(
                    parameter.shape, generator=draw, dtype=torch.float32
                ) * 10.0 ** -(index + number)
                self.spoil(grad)
                parameter.grad = None if index == 2 and number == 0 else grad.to(parameter.dtype)
            self.optimizer.step()
        return self

    def bits(self) -> dict[str, np.ndarray[Any, Any]]:
        found = {}
        for name, parameter in self.model.named_parameters():
            found[name] = parameter.detach()
            for key, value in self.optimizer.state[parameter].items():
                found[f"{name} {key}"] = value
        return {name: distinct(value) for name, value in found.items()}


def distinct(x: Tensor) -> np.ndarray[Any, Any]:
    """Zeros are told apart; a NaN is a NaN."""
    values = np.nan_to_num(x.double().numpy(), nan=7e77, posinf=8e77, neginf=-8e77)
    return np.stack([values, np.signbit(values)])


def assert_same(a: Trained, b: Trained) -> None:
    ours, theirs = a.bits(), b.bits()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert np.array_equal(value, theirs[name]), name


def both(case: dict[str, Any], chosen: dict[str, Any], count: int = 2) -> Trained:
    with kernels("numba"):
        ours = Trained(case, chosen).steps(count)
    with kernels("eager"):
        theirs = Trained(case, chosen).steps(count)
    assert_same(ours, theirs)
    return ours


def put(value: float) -> Callable[[Tensor], Any]:
    return lambda tensor: tensor.flatten()[:2].fill_(value) if tensor.numel() else None


CHOSEN = st.fixed_dictionaries(
    {
        "site": st.sampled_from(["pre", "post", "both"]),
        "normalize": st.sampled_from(["rms", "none"]),
        "max_stiffness": st.sampled_from([None, 1e-3, 1.5]),
        "betas": st.sampled_from([(0.9, 0.999), (0.5, 0.4), (0.0, 0.0), (0.3, 0.99)]),
        "eps": st.sampled_from([1e-8, 0.0, 1e-2]),
        "weight_decay": st.sampled_from([0.0, 0.01, 0.3]),
        "stiffness": st.sampled_from(["grid", "grid", "grid", "textbook", "permuted", "constant"]),
    }
)
SCALINGS = [
    ScalingSettings(),
    ScalingSettings(power_of_two=False),
    ScalingSettings(granularity="channel"),
]
CASES = st.fixed_dictionaries(
    {
        "format": st.sampled_from([*LADDER, "bf16", "fp32"]),
        "size": st.sampled_from([0.1, 3.0, 1e-20, 1e-30, 1e-37, 1e-44, 1e20, 0.0]),
        "quantised": st.fixed_dictionaries({"scaling": st.sampled_from(SCALINGS)}),
        "spoil": st.sampled_from(
            [lambda grad: None, put(math.nan), put(-math.inf), put(0.0), put(1e-42), put(3e38)]
        ),
    }
)


@settings(max_examples=60, deadline=None)
@given(case=CASES, chosen=CHOSEN)
@example({"format": "bf16", "size": 30.0}, {"site": "both"})
@example({"format": "e7m0", "size": 1e-30}, {"site": "both", "normalize": "none"})
def test_it_is_what_torchs_operators_do_to_the_last_bit(
    case: dict[str, Any], chosen: dict[str, Any]
) -> None:
    both(case, chosen)


@pytest.mark.parametrize("site", ["pre", "post", "both"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e38])
def test_weights_that_are_broken(site: str, value: float) -> None:
    def change(model: nn.Module) -> None:
        with torch.no_grad():
            for parameter in model.parameters():
                put(value)(parameter)

    both({"format": "e5m2", "change": change}, {"site": site})
    both({"format": "bf16", "change": change}, {"site": site, "normalize": "none"})


def transpose(model: nn.Module) -> None:
    for module in list(model.children()):
        module.weight.data = module.weight.data.t().contiguous().t()


@pytest.mark.parametrize(
    "case",
    [
        {"format": "e3m4", "dtype": torch.bfloat16},
        {"format": "e5m2", "dtype": torch.float16},
        {"format": "e5m2", "dtype": torch.float64},
        {"format": "e5m2", "change": transpose},
    ],
)
def test_what_the_kernel_cannot_take_is_left_to_torch(case: dict[str, Any]) -> None:
    with mock.patch.object(manifold, "stretched_update", wraps=manifold.stretched_update) as torchs:
        both(case, {"site": "both"})
    assert torchs.called


@pytest.mark.parametrize("fmt", ["e0m7", "e3m4", "e5m2", "e7m0"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic", "kahan"])
def test_weights_that_live_on_the_grid(fmt: str, rounding: str) -> None:
    kahan = {"compensation": load_format("bf16")} if rounding == "kahan" else {}
    quantised = {"residency": "grid", "rounding": "nearest" if kahan else rounding, **kahan}
    both({"format": fmt, "quantised": quantised}, {"site": "both"}, count=4)


@pytest.mark.parametrize(("small", "left"), [(3, 0), (2, 1)])
def test_what_is_on_no_grid_goes_along_if_it_is_small(
    small: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "_SMALL", small)
    with (
        kernels("numba"),
        mock.patch.object(manifold, "adam_update", wraps=manifold.adam_update) as torchs,
    ):
        trained = Trained({"format": "e5m2"}, {"site": "both"})
        bias = trained.model.get_parameter("0.bias")
        before = bias._version
        trained.steps(1)
    assert sum(len(call.args[1].params) for call in torchs.call_args_list) == left
    assert left or bias._version > before  # torch's kernel does not say that it wrote
    both({"format": "e5m2"}, {"site": "both"})


def free_parameters() -> Iterator[nn.Parameter]:
    """On no grid: sizes around a vector's, values that are no numbers, memory that no kernel takes."""
    draw = torch.Generator().manual_seed(5)
    for size in ((), (1,), (8,), (17,), (5, 40), (0,)):
        yield nn.Parameter(torch.randn(size, generator=draw))
    special = [0.0, -0.0, math.nan, math.inf, -math.inf, 1e-42, -1e-42, 3e38, 1e30, 1.0] * 3
    yield nn.Parameter(torch.tensor(special))
    yield nn.Parameter(torch.randn(6, 9, generator=draw).t())
    yield nn.Parameter(torch.randn(20, generator=draw, dtype=torch.float64))
    yield nn.Parameter(torch.randn(20, generator=draw).bfloat16())


def free_gradients(parameters: list[nn.Parameter], step: int) -> None:
    draw = torch.Generator().manual_seed(step)
    for index, parameter in enumerate(parameters):
        grad = torch.randn(parameter.shape, generator=draw, dtype=torch.float32)
        if index == 6:
            grad[step::3] = 0.0
            grad[step + 1 :: 3] *= -0.0
        grad = grad.to(parameter.dtype)
        parameter.grad = grad if index != 4 else grad[:1].expand(parameter.shape)


@pytest.mark.parametrize("site", ["none", "pre", "post", "both"])
@pytest.mark.parametrize(("lr", "decay"), [(1e-2, 0.0), (3e-3, 0.1), (0.1, 10.0), (0.3, 7.0)])
def test_what_is_on_no_grid_is_stepped_as_by_torch(site: str, lr: float, decay: float) -> None:
    ours, theirs = list(free_parameters()), list(free_parameters())
    layer = nn.Linear(8, 8, bias=False)
    quantize_model(layer, load_format("e5m2"))
    geometry = {g.parameter: g for g in weight_geometry(layer).values()}
    chosen = ManifoldAdamWSettings.model_validate({"site": site, "weight_decay": decay})
    optimizer = ManifoldAdamW([{"params": [layer.weight, *ours]}], geometry, chosen, lr)
    torchs = torch.optim.AdamW(theirs, lr=lr, weight_decay=decay, fused=True)
    for step in range(3):
        layer.weight.grad = torch.ones(8, 8)
        free_gradients(ours, step)
        free_gradients(theirs, step)
        with kernels("numba"):
            optimizer.step()
        torchs.step()
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        assert np.array_equal(distinct(one.detach()), distinct(other.detach())), number
        for name, value in torchs.state[other].items():
            assert np.array_equal(distinct(optimizer.state[one][name]), distinct(value)), name


def test_parameters_that_share_their_count_of_steps_are_left_to_torch() -> None:
    layer = nn.Linear(8, 8, bias=False)
    quantize_model(layer, load_format("e5m2"))
    geometry = {g.parameter: g for g in weight_geometry(layer).values()}
    ours, theirs = ([nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))] for _ in range(2))
    optimizer = ManifoldAdamW(
        [{"params": [layer.weight, *ours]}], geometry, ManifoldAdamWSettings(), 1e-2
    )
    torchs = torch.optim.AdamW(theirs, lr=1e-2, weight_decay=0.01, fused=True)
    for own, parameters in ((optimizer, [layer.weight, *ours]), (torchs, theirs)):
        for number in range(3):
            for parameter in parameters:
                parameter.grad = torch.full(parameter.shape, 0.1 + number)
            with kernels("numba"):
                own.step()
            if number == 0:
                first, second = parameters[-2:]
                own.state[second]["step"] = own.state[first]["step"]
    for one, other in zip(ours, theirs, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("fmt", [*LADDER, "bf16", "fp32"])
@pytest.mark.parametrize("normalize", ["rms", "none"])
def test_ordinary_weights_are_taken_by_the_kernel(fmt: str, normalize: str) -> None:
    with kernels("numba"), mock.patch.object(manifold, "stretched_update") as torchs:
        trained = Trained({"format": fmt}, {"site": "both", "normalize": normalize}).steps(2)
    left = [call.args[1].params[0] for call in torchs.call_args_list]
    assert not any(weight.any() for weight in left)  # of zeros, S can be too small
    weight = next(trained.model.parameters())
    assert weight._version > 0  # autograd, and who keeps a rounded weight, see that it was written
    assert trained.optimizer.state[weight]["step"] == 2


@pytest.mark.parametrize("fmt", ["e0m7", "e1m6"])
@pytest.mark.parametrize("site", ["pre", "post", "both"])
def test_on_a_uniform_grid_it_is_adamw(fmt: str, site: str) -> None:
    with kernels("numba"):
        ours = Trained({"format": fmt}, {"site": site, "track_position": False})
        theirs = Trained({"format": fmt}, {"site": site, "track_position": False})
        groups = [
            {k: g[k] for k in ("params", "lr", "weight_decay")}
            for g in theirs.optimizer.param_groups
        ]
        theirs.optimizer = AdamWPlugin(AdamWSettings()).build(  # type: ignore[assignment]
            groups, {}, learning_rate=1e-2, generator=torch.Generator()
        )
        assert_same(ours.steps(3), theirs.steps(3))


def test_a_restart_may_go_on_with_the_other() -> None:
    case, chosen = {"format": "e4m3"}, {"site": "both"}
    with kernels("eager"):
        whole, first = Trained(case, chosen).steps(4), Trained(case, chosen).steps(2)
    second = Trained(case, chosen)
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    with kernels("numba"):
        assert_same(whole, second.steps(2, first=2))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_that_torch_makes_tensors_of_plays_no_part(
    dtype: torch.dtype, default_dtype: Callable[[torch.dtype], None]
) -> None:
    quantised = {"residency": "grid", "rounding": "stochastic"}
    case, chosen = {"format": "e5m2", "quantised": quantised}, {"site": "both"}
    with kernels("numba"):
        usual = Trained(case, chosen).steps(2)
        other = Trained(case, chosen)
        default_dtype(dtype)
        assert agreement.torch_lanes.__wrapped__() == agreement.torch_lanes()
        assert_same(usual, other.steps(2))


def test_a_torch_that_it_does_not_repeat_takes_the_step_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def off_by_a_bit(group: Any, chosen: Any, rows: Any, lanes: int) -> Any:
        return launch({**group, "eps": group["eps"] * 1.0001}, chosen, rows, lanes)

    launch = agreement.launch
    monkeypatch.setattr(agreement, "launch", off_by_a_bit)
    with pytest.warns(RuntimeWarning, match="does not repeat torch"):
        assert agreement.torch_lanes.__wrapped__() is None
    monkeypatch.setattr(agreement, "torch_lanes", lambda: None)
    case, chosen = {"format": "e5m2"}, {"site": "both"}
    with mock.patch.object(manifold, "stretched_update", wraps=manifold.stretched_update) as torchs:
        with kernels("numba"):
            Trained(case, chosen).steps(1)
        assert len(torchs.call_args_list) == len(SHAPES) - 1  # one has no gradient
    both(case, chosen)
