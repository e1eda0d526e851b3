"""One run of the task as a suite has it: what its record holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from altgrad_core.execution import worker
from altgrad_core.planning.planner import plan_suite
from altgrad_core.planning.spec_file import dump_spec
from altgrad_core.planning.suite import load_suite
from altgrad_core.results.run_directory import RunDirectory
from altgrad_plugins.tasks.language.resample import scores

BLOCK = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def _suite(texts: Path, **quantization: Any) -> str:
    return yaml.safe_dump(
        {
            "data": {"dataset": "causal_lm", "path": str(texts), "vocab_size": 300},
            "model": {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "max_length": 16},
            "training": {"max_steps": 4, "eval_interval": 2, "log_interval": 2, "batch_size": 8},
            "quantization": {"format": "e5m2", **quantization},
            "optimizer": "manifold_adamw",
            "monitors": ["flips", "throughput"],
            "trackers": [],
        }
    )


@pytest.mark.parametrize(
    "quantization",
    [
        {"layers": "mlp_only", "residency": "grid", "rounding": "stochastic"},
        {"layers": "body_and_head", "residency": "grid"},
    ],
)
def test_a_run_records_losses_epochs_samples_and_blocks(
    texts: Path, tmp_path: Path, quantization: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text(_suite(texts, **quantization))
    (spec,) = plan_suite(load_suite(path)).specs
    directory = RunDirectory(tmp_path / spec.id)
    directory.create(dump_spec(spec))
    assert worker.run_worker(directory.path, "cpu", tmp_path / "cache") == 0
    assert directory.status().status == "ok", directory.status().message

    records = list(directory.records())
    told = [record.event for record in records if record.event is not None]
    assert [event["kind"] for event in told] == ["sample"] * 2
    assert all(" ⟶ " in event["message"] for event in told)
    final = {
        k: v for record in records if record.kind == "final" for k, v in record.metrics.items()
    }
    trained = [record.metrics for record in records if record.kind == "train"]
    facts = json.loads(directory.facts.read_text())
    assert trained[-1]["train/all/epoch"] == pytest.approx(32 / facts["data"]["blocks"]["train"])
    with np.load(directory.predictions) as arrays:
        again = scores(*(arrays[f"test_{name}"].sum() for name in ("nats", "tokens", "bytes")))
    for name, value in again.items():
        assert final[f"final/test/{name}"] == pytest.approx(float(value)), name

    layers = facts["quantization"]["layers"]
    log = capsys.readouterr().out
    assert all(f"  {name}: {fmt}\n" in log for name, fmt in layers.items())
    of = {name: layers[f"transformer.h.0.{name}"] for name in BLOCK}
    only = quantization["layers"] == "mlp_only"
    assert of == {n: "bf16" if only and n.startswith("attn") else "e5m2" for n in BLOCK}
    assert ("lm_head" in layers) is not only
