"""Models that we did not write: quantised, trained, saved, loaded, restored; and what else torch does to them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn import functional as F

from altgrad_core.quantization.geometry import weight_geometry
from altgrad_core.quantization.residency import keep_on_grid
from altgrad_core.quantization.settings import ScalingSettings
from altgrad_core.quantization.storage import compact_state, load_compact_state
from altgrad_core.quantization.surgery import dequantize_model, quantize_model
from altgrad_core.registry.build import load_format

E4M3, BF16 = load_format("e4m3"), load_format("bf16")
IDS = torch.arange(16).reshape(2, 8) % 13 + 2
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 40,
    "max_position_embeddings": 24,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


class HandWritten(nn.Module):
    """A plain GPT with a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Embedding(40, 16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 24), nn.Linear(24, 16)
        self.head = nn.Linear(16, 40, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True))
        return self.head(x + self.down(F.gelu(self.up(self.norm(x)))))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, dropout=0.0, batch_first=True)
        self.embed = nn.Embedding(40, 16)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(16, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(ids)).mean(1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 3)
        self.attention = nn.MultiheadAttention(16, 4, kdim=16, vdim=16, batch_first=True)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        return self.head(self.attention(x, x, x)[0].mean(1))


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 8)
        self.one, self.two = nn.Conv1d(8, 6, 3, padding=1), nn.Conv2d(1, 4, 3, stride=2)
        self.back, self.head = nn.ConvTranspose2d(4, 2, 2), nn.Linear(2 * 3 * 4, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.one(self.embed(ids).mT).relu()
        return self.head(self.back(self.two(x[:, None])).relu().flatten(1))


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    layers: int
    """How many layers are quantised."""
    tied: tuple[str, str] | None = None


def _classifier(kind: str, **extra: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        config = getattr(transformers, f"{kind}Config")(**SIZES, num_labels=3, **extra)
        return getattr(transformers, f"{kind}ForSequenceClassification")(config)  # type: ignore[no-any-return]

    return build


def _decoder(kind: str, head: str = "LMHeadModel", **extra: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        sizes = SIZES | extra
        config = getattr(transformers, f"{kind}Config")(**sizes, tie_word_embeddings=True)
        return getattr(transformers, f"{kind}{head}")(config)  # type: ignore[no-any-return]

    return build


_LLAMA = ("model.embed_tokens", "lm_head")
CASES = {
    "BERT": Case(_classifier("Bert"), 14),
    "DistilBERT": Case(_classifier("DistilBert", hidden_dim=24), 14),
    "RoBERTa": Case(_classifier("Roberta"), 14),
    "GPT-2": Case(_decoder("GPT2", n_inner=24), 9, ("transformer.wte", "lm_head")),
    "Llama": Case(_decoder("Llama", "ForCausalLM", num_key_value_heads=2), 15, _LLAMA),
    "Qwen2": Case(_decoder("Qwen2", "ForCausalLM", num_key_value_heads=2), 15, _LLAMA),
    "Qwen3": Case(_decoder("Qwen3", "ForCausalLM", num_key_value_heads=2, head_dim=4), 15, _LLAMA),
    "hand-written GPT": Case(HandWritten, 5, ("embed", "head")),
    "TransformerEncoder": Case(Encoder, 9),
    "MultiheadAttention": Case(Attention, 3),
    "convolutions": Case(Convolutions, 4),
}
KINDS = ("BERT", "GPT-2", "Llama", "hand-written GPT", "MultiheadAttention", "convolutions")
"""One of those with the same kinds of layers."""
EVERY = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def built(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.build().eval()  # dropout would draw numbers


def loss_of(model: nn.Module) -> Tensor:
    output = model(IDS)
    logits = getattr(output, "logits", output)
    targets = IDS.flatten() if logits.ndim == 3 else torch.tensor([0, 2])
    return F.cross_entropy(logits.flatten(0, -2), targets)


def quantised(case: Case, residency: Any = "grid") -> nn.Module:
    model = built(case)
    scaling = ScalingSettings(granularity="channel")
    compensation = BF16 if residency == "grid" else None
    report = quantize_model(
        model, E4M3, residency=residency, scaling=scaling, compensation=compensation
    )
    assert len(report.layers) == case.layers, report
    return model


def train(model: nn.Module, residency: str = "grid", steps: int = 3) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    detach = keep_on_grid(model, optimizer)
    losses = []
    for _ in range(steps):
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    detach()
    return losses


@pytest.mark.parametrize(
    ("name", "residency"),
    [*((name, "grid") for name in CASES), *((name, "master") for name in KINDS)],
)
def test_they_train_save_load_and_come_back(name: str, residency: Any, tmp_path: Path) -> None:
    case = CASES[name]
    plain = built(case)
    model = quantised(case, residency)
    losses = train(model, residency)
    assert losses[-1] < losses[0]
    geometry = weight_geometry(model)
    for grid in geometry.values():
        weight = grid.parameter.detach()
        assert grid.resident is (residency == "grid")
        assert torch.equal(grid.value(grid.rung(weight)), weight) is grid.resident
    if case.tied is not None:
        first, second = map(model.get_submodule, case.tied)
        assert first.weight is second.weight
    expected = loss_of(model)

    # our checkpoints, and plain ones, restore bit for bit
    torch.save(compact_state(model), tmp_path / "compact.pt")
    torch.save(model.state_dict(), tmp_path / "state.pt")
    later = train(copy.deepcopy(model), residency, steps=2)
    for file in ("compact.pt", "state.pt"):
        fresh = quantised(case, residency)
        load_compact_state(fresh, torch.load(tmp_path / file))
        assert torch.equal(loss_of(fresh), expected)
        assert train(fresh, residency, steps=2) == later

    # weights of the plain model load into the quantised one; the grid has them at the next step, so
    # until then a tied embedding sees them unrounded
    fresh = quantised(case, residency)
    fresh.load_state_dict(plain.state_dict())
    torch.testing.assert_close(
        loss_of(fresh), loss_of(quantised(case, residency)), rtol=0.01, atol=0
    )

    trained = copy.deepcopy(dict(model.named_parameters()))
    dequantize_model(model)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert [set(vars(m)) for m in model.modules()] == [set(vars(m)) for m in plain.modules()]
    assert list(model.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(model.state_dict())
    assert torch.equal(loss_of(plain), loss_of(model))
    assert all(torch.equal(p, trained[name]) for name, p in plain.named_parameters())


@pytest.mark.parametrize("residency", ["master", "grid"])
@pytest.mark.parametrize("name", ["BERT", "GPT-2", "Qwen3"])
def test_save_pretrained_writes_what_from_pretrained_reads(
    name: str, residency: Any, tmp_path: Path
) -> None:
    case = CASES[name]
    model: Any = quantised(case, residency)
    train(model, residency)
    expected = loss_of(model)
    model.save_pretrained(tmp_path / "whole")
    kind = type(model)
    again, said = kind.from_pretrained(tmp_path / "whole", output_loading_info=True)
    assert not any(said.values()), said
    assert {type(m) for m in again.modules()} == {type(m) for m in built(case).modules()}
    scaling = ScalingSettings(granularity="channel")
    quantize_model(again.eval(), E4M3, residency=residency, scaling=scaling)
    torch.testing.assert_close(loss_of(again), expected, rtol=1e-6, atol=0)

    base = model.base_model  # a part of it is a model, too
    base.save_pretrained(tmp_path / "base")
    _, said = type(base).from_pretrained(tmp_path / "base", output_loading_info=True)
    assert not said["unexpected_keys"]
    assert not said["missing_keys"]
    dequantize_model(model)
    assert model._keys_to_ignore_on_save == built(case)._keys_to_ignore_on_save


@EVERY
def test_the_tools_of_torch_see_the_same_model(case: Case) -> None:
    model = quantised(case)
    expected = loss_of(model)
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    whole = _Loss(model)
    parameters = {n: p.detach().clone() for n, p in whole.named_parameters()}
    torch.testing.assert_close(functional_call(whole, parameters, ()), expected)
    found = grad(lambda p: functional_call(whole, p, ()))(parameters)
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[f"model.{name}"], gradient, rtol=1e-4, atol=1e-6)

    assert torch.equal(loss_of(copy.deepcopy(model)), expected)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    keep_on_grid(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss_of(model)
    torch.testing.assert_close(low.float(), expected, rtol=0.05, atol=0.05)
    scaler.scale(low).backward()
    scaler.step(optimizer)
    scaler.update()
    assert float(loss_of(model)) < float(expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GPT-2", "TransformerEncoder", "convolutions"])
def test_compiled_models_compute_the_same(name: str) -> None:
    model = quantised(CASES[name])
    torch.compiler.reset()
    compiled = loss_of(torch.compile(model, backend="eager", fullgraph=True))  # type: ignore[arg-type]
    torch.testing.assert_close(compiled, loss_of(model))


class _Loss(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self) -> Tensor:
        return loss_of(self.model)


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["BERT", "GPT-2", "Qwen3"])
def test_gradient_checkpointing_gives_the_same_gradients(name: str, reentrant: bool) -> None:
    model: Any = quantised(CASES[name], "master").train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    loss_of(model).backward()
    expected = [p.grad for p in model.parameters()]
    model.zero_grad()
    kwargs = {"use_reentrant": reentrant}
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
    loss_of(model).backward()
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
