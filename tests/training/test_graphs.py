"""Passes that are captured as CUDA graphs: which ones, and that it changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.interfaces.task import Batch
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.training import graphs
from altgrad_core.training.graphs import WARM, StepGraphs


class Recorded:
    """Stands for a CUDA graph: a replay computes again what was captured."""

    replays = 0

    def __init__(self) -> None:
        self.work: Callable[[], Tensor] | None = None

    def replay(self) -> None:
        assert self.work is not None
        type(self).replays += 1
        self.work()


class Bench:
    """A small model on what is taken for CUDA."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
        quantize_model(self.model, load_format("e5m2"), **options.pop("quantize", {}))
        self.passes, self.reseeded = 0, 0
        self.why: list[str] = []
        self.left: list[torch.device] = []
        self.refused: str | None = None
        self.capturing: Recorded | None = None
        Recorded.replays = 0

        @contextmanager
        def capturing(graph: Recorded, pool: object, stream: object) -> Iterator[None]:
            assert stream == "beside"
            if self.refused:
                raise RuntimeError(self.refused)
            self.capturing = graph
            yield
            self.capturing = None

        monkeypatch.setattr(graphs, "_capturing", capturing)
        monkeypatch.setattr(graphs, "_beside", lambda stream: nullcontext())
        monkeypatch.setattr(graphs, "_leave_capture", self.left.append)
        monkeypatch.setattr(torch.cuda, "Stream", lambda device: "beside")
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", object)
        monkeypatch.setattr(Batch, "to", lambda batch, device: batch)
        self.graphs = StepGraphs(
            model=self.model,
            device=torch.device("cuda", 0),
            compute=self.compute,
            key=options.pop("key", lambda batch: batch.tokens > 4),
            reseed=self.reseed,
            failed=self.why.append,
            **options,
        )

    def reseed(self) -> None:
        self.reseeded += 1

    def compute(self, batch: Batch) -> Tensor:
        self.passes += 1
        loss = self.model(batch.tensors["x"]).square().mean()
        loss.backward()
        found = loss.detach()
        if self.capturing is not None:
            graph, parameters = self.capturing, list(self.model.parameters())
            kept = [p.grad for p in parameters]

            def again() -> Tensor:
                for parameter in parameters:
                    parameter.grad = None
                fresh = self.model(batch.tensors["x"]).square().mean()
                fresh.backward()
                for parameter, gradient in zip(parameters, kept, strict=True):
                    gradient.copy_(parameter.grad)
                return found.copy_(fresh.detach())

            graph.work = again
        return found

    def step(self, rows: int = 3, tokens: int = 3) -> tuple[float, list[Tensor]]:
        self.model.zero_grad(set_to_none=True)
        x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(self.graphs_seen()))
        loss, _ = self.graphs(Batch({"x": x}, rows, tokens))
        gradients = [p.grad.clone() for p in self.model.parameters()]  # type: ignore[union-attr]
        self.model.zero_grad(set_to_none=True)
        expected = self.model(x).square().mean()
        expected.backward()
        assert torch.equal(loss, expected.detach())
        for ours, parameter in zip(gradients, self.model.parameters(), strict=True):
            assert torch.equal(ours, parameter.grad)  # type: ignore[arg-type]
        return float(loss), gradients

    _count = 0

    def graphs_seen(self) -> int:
        self._count += 1
        return self._count


def test_a_pass_is_captured_once_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    losses = [bench.step()[0] for _ in range(WARM + 4)]
    assert bench.passes == WARM + 1
    assert Recorded.replays == 4
    assert len(set(losses)) == len(losses)


@pytest.mark.parametrize(("name", "gradient"), [("e4m3", "e5m2"), ("e4m3", None), ("e0m7", "e0m7")])
def test_native_products_are_captured_like_others(
    monkeypatch: pytest.MonkeyPatch, name: str, gradient: str | None
) -> None:
    fmt = load_format(name)
    options = {
        "activation_format": fmt,
        "gradient_format": load_format(gradient) if gradient else None,
        "overrides": [("*", fmt)],
        "execution": "native",
    }
    bench = Bench(monkeypatch, quantize=options)
    losses = [bench.step()[0] for _ in range(WARM + 2)]
    assert (bench.passes, Recorded.replays) == (WARM + 1, 2)
    assert len(set(losses)) == len(losses)


def test_each_shape_and_key_is_captured_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    for _ in range(WARM + 1):
        for rows, tokens in ((3, 3), (2, 3), (3, 9)):
            bench.step(rows, tokens)
    assert Recorded.replays == 3
    bench.step(3, 4)  # another number of tokens, the same key
    assert Recorded.replays == 4


def test_no_more_kinds_are_captured_than_there_is_memory_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graphs, "MOST", 3)
    bench = Bench(monkeypatch)
    for rows in range(1, 6):
        for _ in range(WARM + 1):
            bench.step(rows)
    assert Recorded.replays == 3


@pytest.mark.parametrize(
    "options",
    [
        {"key": lambda batch: None},
        {"wanted": False},
        {"quantize": {"rounding": "stochastic", "generator": torch.Generator()}},
    ],
)
def test_what_could_not_be_repeated_is_not_captured(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    bench = Bench(monkeypatch, **options)
    for _ in range(WARM + 2):
        bench.model.zero_grad(set_to_none=True)
        bench.graphs(Batch({"x": torch.ones(2, 4)}, 2, 2))
    assert Recorded.replays == 0


def test_a_pass_with_hooks_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    for _ in range(WARM + 1):
        bench.step()
    seen: list[object] = []
    handle = bench.model[1].register_forward_hook(lambda *args: seen.append(args))
    bench.step()
    handle.remove()
    assert seen
    assert Recorded.replays == 1
    bench.step()
    assert Recorded.replays == 2


def test_what_cannot_be_captured_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.refused = "operation not permitted when stream is capturing\nmore"
    for _ in range(WARM + 3):
        bench.step()
    assert bench.why == [
        "steps are not captured as CUDA graphs: RuntimeError: operation not permitted when stream is capturing"
    ]
    assert (bench.reseeded, Recorded.replays) == (1, 0)
    assert bench.left == [torch.device("cuda", 0)]


def test_a_model_that_was_changed_is_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    for _ in range(WARM + 1):
        bench.step()
    bench.graphs.forget()
    bench.step()
    assert Recorded.replays == 1
