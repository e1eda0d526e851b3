"""A run with native products, before it begins: is there what multiplies?"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from altgrad_core.errors import UserError
from altgrad_core.execution.assemble import check_execution
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.suite import load_suite
from altgrad_core.quantization.native import products

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def spec(weight: str, activation: str, gradient: str, execution: str = "native") -> Any:
    formats = {"format": weight, "activation_format": activation, "gradient_format": gradient}
    given = [f"quantization.{key}={name}" for key, name in formats.items()]
    given += [
        f"quantization.execution={execution}",
        "matrix=null",
        "contrast=null",
        "optimizer.type=adamw",
    ]
    return plan_suite(load_suite("smoke", given)).specs[0]


def test_what_multiplies_is_on_record() -> None:
    assert check_execution(spec("e4m3", "e4m3", "e5m2"), CPU) == {"products": ["torch._scaled_mm"]}
    assert check_execution(spec("e0m7", "e1m6", "e0m7"), CPU) == {"products": ["torch._int_mm"]}
    assert check_execution(spec("bf16", "bf16", "null"), CPU) == {"products": ["torch.mm"]}


def test_a_simulated_run_needs_and_records_nothing() -> None:
    assert check_execution(spec("e5m2", "e5m2", "e5m2", "simulated"), CUDA) == {}


def test_a_device_without_the_product_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    products.unavailable.cache_clear()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A GPU")
    try:
        with pytest.raises(UserError, match=r"A GPU has compute capability 8\.6, where"):
            check_execution(spec("e4m3", "e4m3", "e5m2"), CUDA)
        assert check_execution(spec("e0m7", "e0m7", "null"), CUDA) == {
            "products": ["torch._int_mm"]
        }
    finally:
        products.unavailable.cache_clear()
