"""On a GPU: nothing waits for the device, and the bits are those of the CPU where they can be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import nn

from altgrad_core.interfaces import backend
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.hold import hold_weights
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.testing.optimizers import check_optimizer
from altgrad_plugins.optimizers import altgrad_optimizers
from altgrad_plugins.optimizers.manifold import ManifoldAdamWPlugin
from altgrad_plugins.optimizers.settings import ManifoldAdamWSettings, StiffnessSettings
from altgrad_plugins.optimizers.stiffness import Stiffness

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


# settings that take other ways through the code
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "adamw": [{}],
    "manifold_adamw": [{}, {"stiffness": "permuted"}, {"stiffness": "constant"}],
    "grid_optim": [{}],
    "sgd": [{}, {"site": "both", "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}],
    "lion": [{}],
    "madam": [{}],
}


def plugins() -> list[Any]:
    built = []
    for offer in altgrad_optimizers():
        module, _, attribute = offer.target.partition(":")
        plugin = getattr(__import__(module, fromlist=[attribute]), attribute)
        built.extend(plugin(offer.settings(**settings)) for settings in VARIANTS[offer.name])
    return built


@contextmanager
def no_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("plugin", plugins(), ids=lambda plugin: type(plugin).__name__)
def test_the_checks_pass_on_cuda(plugin: Any) -> None:
    check_optimizer(plugin, device="cuda")


@pytest.mark.parametrize("plugin", plugins(), ids=lambda plugin: type(plugin).__name__)
@pytest.mark.parametrize("fmt", ["e5m2", "e7m0", "bf16", "fp32"])
@pytest.mark.parametrize("mode", ["current", "delayed"])
@pytest.mark.parametrize("power_of_two", [True, False])
def test_a_step_never_waits_for_the_device(
    plugin: Any, fmt: str, mode: Any, power_of_two: bool
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)).cuda()
    scaling = ScalingSettings(mode=mode, power_of_two=power_of_two)
    quantize_model(model, load_format(fmt), activation_format=load_format(fmt), scaling=scaling)
    optimizer = plugin.build(
        [{"params": list(model.parameters())}],
        {g.parameter: g for g in weight_geometry(model).values()},
        learning_rate=1e-3,
        generator=torch.Generator("cuda"),
    )
    x = torch.randn(8, 16, device="cuda")

    def step() -> None:
        with hold_weights(model), torch.autocast("cuda", dtype=torch.bfloat16):
            model(x).float().square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    step()  # tables are copied to the device once
    with no_waiting():
        step()


@pytest.mark.parametrize("site", ["pre", "post", "both"])
def test_a_uniform_grid_without_decay_is_adamw_on_cuda_too(site: Any) -> None:
    """With decay, the fused kernel rounds the decayed weight differently, in the last bit."""
    results = []
    for enabled in (True, False):
        torch.manual_seed(0)
        model = nn.Linear(64, 64).cuda()
        quantize_model(model, load_format("e0m7"))
        settings = ManifoldAdamWSettings(site=site, enabled=enabled, weight_decay=0.0)
        optimizer = ManifoldAdamWPlugin(settings).build(
            [{"params": list(model.parameters())}],
            {g.parameter: g for g in weight_geometry(model).values()},
            learning_rate=1e-3,
            generator=torch.Generator("cuda"),
        )
        noise = torch.Generator("cuda").manual_seed(1)
        for _ in range(5):
            model(torch.zeros(1, 64, device="cuda"))
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, device="cuda", generator=noise)
            optimizer.step()
        results.append(model.weight.detach())
    assert torch.equal(*results)


@pytest.mark.parametrize("site", ["pre", "post", "both"])
@pytest.mark.parametrize("fmt", ["e0m7", "e3m4", "e5m2", "e7m0"])
@pytest.mark.parametrize("options", [{}, {"normalize": "none"}, {"max_stiffness": 1.5}], ids=str)
def test_kernels_take_the_step_of_the_operators(site: Any, fmt: str, options: Any) -> None:
    """But for the last bit of the root mean square of S; and twice the same bits."""
    from altgrad_plugins.optimizers import gpu_manifold

    found = []
    for name in ("triton", "triton", "eager"):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(300, 200), nn.Linear(33, 17)).cuda()
        settings = ManifoldAdamWSettings(site=site, **options)
        with (
            mock.patch.object(backend, "gpu_backend", return_value=name),
            mock.patch.object(gpu_manifold, "update", wraps=gpu_manifold.update) as update,
        ):
            quantize_model(model, load_format(fmt))
            optimizer = ManifoldAdamWPlugin(settings).build(
                [{"params": list(model.parameters())}],
                {g.parameter: g for g in weight_geometry(model).values()},
                learning_rate=1e-3,
                generator=torch.Generator("cuda"),
            )
            noise = torch.Generator("cuda").manual_seed(1)
            for _ in range(4):
                for parameter in model.parameters():
                    parameter.grad = torch.randn(parameter.shape, device="cuda", generator=noise)
                optimizer.step()
            taken = [len(call.args[3]) for call in update.call_args_list]
            assert taken == ([2] * 4 if name == "triton" else [])
        found.append([parameter.detach() for parameter in model.parameters()])
    for once, again, operators in zip(*found, strict=True):
        assert torch.equal(once, again)
        torch.testing.assert_close(once, operators, rtol=1e-5, atol=1e-6)


def test_the_permutation_is_that_of_the_cpu() -> None:
    torch.manual_seed(0)
    model = nn.Linear(64, 64)
    quantize_model(model, load_format("e5m2"))
    stiffness = Stiffness(
        StiffnessSettings(stiffness="permuted", normalize="none"),
        {g.parameter: g for g in weight_geometry(model).values()},
    )
    (cpu,) = stiffness([model.weight])
    model.cuda()
    (cuda,) = stiffness([model.weight])
    assert cuda.device.type == "cuda"
    assert torch.equal(cpu, cuda.cpu())


@pytest.mark.parametrize("fmt", ["e0m7", "e3m4", "e7m0"])
@pytest.mark.parametrize("power_of_two", [True, False])
def test_scales_and_rungs_are_those_of_the_cpu(fmt: str, power_of_two: bool) -> None:
    torch.manual_seed(0)
    model = nn.Linear(100, 100)
    quantize_model(model, load_format(fmt), scaling=ScalingSettings(power_of_two=power_of_two))
    geometry = weight_geometry(model)["weight"]
    weight = model.weight.detach().clone()
    cpu = (geometry.scale(), geometry.rung(weight), geometry.ulp(weight))
    model.cuda()
    cuda = (geometry.scale(), geometry.rung(weight.cuda()), geometry.ulp(weight.cuda()))
    for a, b in zip(cpu, cuda, strict=True):
        assert torch.equal(a, b.cpu())
