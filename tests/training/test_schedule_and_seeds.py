"""Learning rate and seeds are pure functions of the step."""

from __future__ import annotations

import torch

from altgrad_core.training.schedule import learning_rate
from altgrad_core.training.seeds import derive_seed, seed_step
from altgrad_core.training.settings import TrainingSettings


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings.model_validate({"learning_rate": 1.0, "max_steps": 10} | changes)


def test_constant_rate_after_warmup() -> None:
    rates = [learning_rate(settings(warmup_steps=4), step) for step in range(1, 11)]
    assert rates == [0.25, 0.5, 0.75, 1.0] + [1.0] * 6


def test_linear_and_cosine_match_the_formulas_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(()))
    for name, scheduler in (
        ("linear", torch.optim.lr_scheduler.LambdaLR),
        ("cosine", torch.optim.lr_scheduler.CosineAnnealingLR),
    ):
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        witness = (
            scheduler(optimizer, lambda done: 1 - done / 10)
            if name == "linear"
            else scheduler(optimizer, T_max=10)
        )
        for step in range(1, 11):
            ours = learning_rate(settings(schedule=name), step)
            torch.testing.assert_close(
                ours, optimizer.param_groups[0]["lr"], rtol=1e-12, atol=1e-15
            )
            optimizer.step()
            witness.step()


def test_seeds_differ_by_seed_stream_and_step_and_never_change() -> None:
    seeds = {
        derive_seed(seed, stream, step)
        for seed in range(3)
        for stream in ("model", "step", "rounding")
        for step in range(50)
    }
    assert len(seeds) == 3 * 3 * 50
    assert all(0 <= s < 2**63 for s in seeds)
    assert derive_seed(0, "model") == 3280544018810414899


def test_a_step_draws_the_same_whatever_was_drawn_before() -> None:
    own = torch.Generator()
    draws = []
    for waste in (0, 7):
        torch.rand(waste)
        seed_step(5, 17, own)
        draws.append((torch.rand(4), torch.rand(4, generator=own)))
    assert torch.equal(draws[0][0], draws[1][0])
    assert torch.equal(draws[0][1], draws[1][1])
    assert not torch.equal(draws[0][0], draws[0][1])
