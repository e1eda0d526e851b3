"""Deterministic kernels: what is set, what a refusal ends, and on a GPU the restart itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from altgrad_core.errors import UserError
from altgrad_core.interfaces.monitor import Event, Monitor, Observation, StepView
from altgrad_core.interfaces.task import Batch, Evaluation, Task
from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import GridResidency
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.surgery import quantize_model
from altgrad_core.registry.build import load_format
from altgrad_core.training.determinism import make_deterministic
from altgrad_core.training.loop import Parts, Trainer
from altgrad_core.training.monitoring import MonitorPanel
from altgrad_core.training.settings import TrainingSettings
from altgrad_plugins.tasks.encoder import build_classifier, encoder_config
from altgrad_plugins.tasks.settings import ModelSettings

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the settings of this process back."""
    for name in (WORKSPACE, "TORCHINDUCTOR_DETERMINISTIC"):
        monkeypatch.setenv(name, "")
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    flags = [
        *((matmul, f"allow_{t}_reduced_precision_reduction") for t in ("bf16", "fp16")),
        *((matmul, "allow_tf32"), (cudnn, "allow_tf32"), (cudnn, "benchmark")),
        (torch.utils.deterministic, "fill_uninitialized_memory"),
    ]
    before = [(where, name, getattr(where, name)) for where, name in flags]
    strict = torch.get_deterministic_debug_mode()
    attention = torch.backends.cuda.cudnn_sdp_enabled()
    yield
    for where, name, value in before:
        setattr(where, name, value)
    torch.set_deterministic_debug_mode(strict)
    torch.backends.cuda.enable_cudnn_sdp(attention)


def test_on_cuda_torch_is_strict_and_sums_are_wide() -> None:
    make_deterministic(torch.device("cuda", 0))
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()
    assert torch.backends.cuda.mem_efficient_sdp_enabled()
    assert not torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
    assert not torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    assert not torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark


@pytest.mark.parametrize(
    ("given", "kept"),
    [(None, ":4096:8"), (":0:0", ":4096:8"), (":16:8", ":16:8"), (":4096:8", ":4096:8")],
)
def test_cublas_gets_a_fixed_workspace(
    given: str | None, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if given is None:
        monkeypatch.delenv(WORKSPACE)
    else:
        monkeypatch.setenv(WORKSPACE, given)
    make_deterministic(torch.device("cuda", 0))
    assert os.environ[WORKSPACE] == kept


def test_on_the_cpu_nothing_is_refused() -> None:
    make_deterministic(torch.device("cpu"))
    assert torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize("first", [True, False], ids=["compiler first", "compiler last"])
def test_torchs_compiler_is_told_and_not_imported_for_it(first: bool) -> None:
    """Importing it takes as long as torch itself."""
    compiler = "import torch._inductor.config as config"
    program = (
        "import sys, torch\n"
        "from altgrad_core.training.determinism import make_deterministic\n"
        f"{compiler if first else ''}\n"
        "make_deterministic(torch.device('cpu'))\n"
        f"assert ('torch._inductor.config' in sys.modules) == {first}\n"
        f"{compiler}\n"
        "assert config.deterministic and torch.are_deterministic_algorithms_enabled()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def scattered(x: Tensor) -> Tensor:
    """What torch refuses as not deterministic, on the CPU too: a write to one place from two."""
    return x.clone().put_(torch.tensor([0, 0]), x.flatten()[:2])


class Reading(Task):
    """A small encoder that reads rows of random tokens, every other batch padded, with dropout in its attention."""

    kind = "bert"

    def __init__(self, spoil: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        self.spoil = spoil

    def prepare(self, cache_dir: Path, log: Callable[[str], None]) -> None: ...

    def facts(self) -> dict[str, Any]:
        return {}

    def build_model(self) -> nn.Module:
        sizes = {"hidden_dim": 64, "num_layers": 2, "num_heads": 2, "max_length": 48}
        settings = ModelSettings(type=self.kind, dropout=0.1, **sizes)  # type: ignore[arg-type]
        return build_classifier(encoder_config(settings, 40, pad_id=0), 3, settings)

    def batch(self, step: int, batch_size: int, seed: int) -> Batch:
        own = torch.Generator().manual_seed(step)
        ids = torch.randint(1, 40, (batch_size, 48), generator=own)
        lengths = torch.randint(4, 49, (batch_size, 1), generator=own) if step % 2 else 48
        mask = (torch.arange(48) < lengths).expand(batch_size, -1).long()
        tensors = {"ids": ids * mask, "mask": mask, "y": torch.rand(batch_size, 3, generator=own)}
        return Batch(tensors, samples=batch_size, tokens=int(mask.sum()))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        found = model(batch.tensors["ids"], batch.tensors["mask"], padded=self.graph_key(batch))
        return (self.spoil(found).float() - batch.tensors["y"]).square().mean()

    def graph_key(self, batch: Batch) -> bool:
        return batch.tokens < batch.tensors["ids"].numel()

    def evaluate(self, model: nn.Module, split: Any, **options: Any) -> Evaluation:
        device = options["device"]
        return Evaluation({"loss": float(self.loss(model, self.batch(99, 4, 0).to(device)))}, {})


class Sink:
    def __init__(self) -> None:
        self.lines: list[Any] = []

    def record(self, step: int, kind: str, metrics: Mapping[str, float]) -> None:
        self.lines.append((step, kind, dict(metrics)))

    def event(self, step: int, event: Event) -> None:
        self.lines.append((step, event.kind, event.message))

    def progress(self, step: int) -> None: ...

    def sync(self) -> int:
        return len(self.lines)

    def rewind(self, position: int) -> None:
        del self.lines[position:]

    def begins(self, step: int, why: str = "") -> None: ...


GRID = {"format": "e5m2", "residency": "grid", "rounding": "stochastic"}


class Unrepeatable(Monitor):
    def before_update(self, step: StepView) -> Observation:
        return Observation({"bad/all/value": scattered(step.loss.expand(3))[0]})


class Fine(Monitor):
    def after_update(self, step: StepView) -> Observation:
        return Observation({"fine/all/loss": step.loss})


def trainer(
    folder: Path,
    sink: Sink,
    task: Task,
    device: str = "cpu",
    quantization: Mapping[str, Any] = GRID,
    **changes: Any,
) -> Trainer:
    place = torch.device(device)
    torch.manual_seed(1)
    model, generator = task.build_model(), torch.Generator(place)
    formats = {k: load_format(v) for k, v in quantization.items() if k.endswith("format")}
    quantize_model(model, **{**quantization, **formats}, generator=generator)
    model.to(place)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    residency = GridResidency(model, generator)
    residency.attach(optimizer)
    monitors = [("unrepeatable", Unrepeatable()), ("fine", Fine())]
    intervals = {"eval_interval": 100, "log_interval": 2, "checkpoint_interval": 4}
    settings = {"batch_size": 16, "learning_rate": 0.01, "max_steps": 9} | intervals | changes
    parts = Parts(
        task=task,
        model=model,
        optimizer=optimizer,
        weights=weight_geometry(model),
        panel=MonitorPanel(monitors),
        device=place,
        generator=generator,
        residency=residency,
        change_format=lambda name, choice: None,
    )
    folder.mkdir(exist_ok=True)
    chosen = TrainingSettings.model_validate(settings)
    return Trainer(parts, chosen, 7, sink, folder / "state.pt")


def test_a_monitor_that_is_refused_is_an_event_and_the_run_goes_on(tmp_path: Path) -> None:
    make_deterministic(torch.device("cuda", 0))
    sink = Sink()
    result = trainer(tmp_path, sink, Reading(), max_steps=3).run()
    [failed] = [message for _, kind, message in sink.lines if kind == "monitor_failed"]
    assert "'unrepeatable' failed in before_update and is switched off" in failed
    assert "deterministic" in failed
    assert [step for step, kind, seen in sink.lines if "fine/all/loss" in seen] == [1, 2, 3]
    assert result.step == 3


def test_a_model_that_is_refused_ends_the_run_with_a_sentence(tmp_path: Path) -> None:
    make_deterministic(torch.device("cuda", 0))
    with pytest.raises(UserError, match=r"uses put_, which has no deterministic kernel"):
        trainer(tmp_path, Sink(), Reading(spoil=scattered)).run()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_on_cuda_an_interrupted_run_ends_bit_identical(
    tmp_path: Path, kind: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reading, "kind", kind)
    make_deterministic(torch.device("cuda", 0))

    class Killed(BaseException):
        pass

    class Cut(Reading):
        def batch(self, step: int, batch_size: int, seed: int) -> Batch:
            if step == 7:
                raise Killed
            return super().batch(step, batch_size, seed)

    options = {"device": "cuda", "precision": precision}
    whole, sink = Sink(), Sink()
    uninterrupted = trainer(tmp_path / "whole", whole, Reading(), **options)
    uninterrupted.run()
    with pytest.raises(Killed):
        trainer(tmp_path / "cut", sink, Cut(), **options).run()
    resumed = trainer(tmp_path / "cut", sink, Reading(), **options)
    resumed.run()
    assert sink.lines == whole.lines
    for name, value in resumed.parts.model.state_dict().items():
        assert torch.equal(value, uninterrupted.parts.model.state_dict()[name]), name


EVERYWHERE = {"format": "e5m2", "activation_format": "e4m3", "gradient_format": "e5m2"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(
    "quantization",
    [
        {"format": "bf16"},
        EVERYWHERE,
        {**EVERYWHERE, "scaling": ScalingSettings(mode="delayed")},
        GRID,
    ],
    ids=["bf16", "everywhere", "delayed", "grid"],
)
def test_on_cuda_graphs_change_no_bit(
    tmp_path: Path, quantization: Mapping[str, Any], precision: str
) -> None:
    make_deterministic(torch.device("cuda", 0))
    options = {"device": "cuda", "quantization": quantization, "precision": precision}
    found = []
    for mode in ("auto", "off"):
        sink = Sink()
        run = trainer(tmp_path / mode, sink, Reading(), cuda_graphs=mode, **options)
        run.run()
        assert bool(run.gradients._made) == (mode == "auto")
        found.append((sink.lines, run.parts.model.state_dict()))
    (lines, ours), (expected, theirs) = found
    assert lines == expected
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name
