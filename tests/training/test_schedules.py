"""Learning rates over a run, and the average of weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from dav2.params import OptimParams
from dav2.training.ema import Ema
from dav2.training.schedules import learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "at_half"), [("constant", 1.0), ("linear", 0.5), ("poly", 0.5**0.9), ("cosine", 0.5)]
)
def test_after_the_warm_up_the_rate_follows_its_curve(schedule: str, at_half: float) -> None:
    optim = OptimParams(schedule=schedule, warmup_steps=10)  # type: ignore[arg-type]
    assert learning_rate_factor(10, 110, optim) == 1.0
    assert learning_rate_factor(60, 110, optim) == pytest.approx(at_half)


def test_the_warm_up_rises_linearly_to_one() -> None:
    optim = OptimParams(schedule="cosine", warmup_steps=4)
    assert [learning_rate_factor(step, 100, optim) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["constant", "linear", "poly", "cosine"])
@pytest.mark.parametrize("warmup", [0, 3, 50])
def test_every_update_of_a_run_has_a_rate_above_zero_and_at_most_one(schedule: str, warmup: int) -> None:
    optim = OptimParams(schedule=schedule, warmup_steps=warmup)  # type: ignore[arg-type]
    factors = [learning_rate_factor(step, 20, optim) for step in range(20)]
    assert all(0 < factor <= 1 for factor in factors)


def test_the_average_is_the_recursion_written_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    ema = Ema(model, 0.5)
    wanted = model.weight.detach().clone()
    for updates in range(4):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        ema.update()
        decay = min(0.5, (1 + updates) / (10 + updates))
        wanted = decay * wanted + (1 - decay) * model.weight.detach()
    torch.testing.assert_close(ema.average["weight"], wanted)
    assert set(ema.average) == {"weight"}

    own = model.weight.detach().clone()
    with ema.applied():
        torch.testing.assert_close(model.weight.detach(), wanted)
    assert torch.equal(model.weight, own)

    ema.save(tmp_path / "ema.safetensors")
    restored = Ema(model, 0.5)
    restored.load(tmp_path / "ema.safetensors")
    assert restored.updates == 4
    assert torch.equal(restored.average["weight"], ema.average["weight"])


def test_the_average_follows_quickly_at_first() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    ema = Ema(model, 0.9999)
    with torch.no_grad():
        model.weight.fill_(1.0)
    for _ in range(100):
        ema.update()
    assert ema.average["weight"].item() > 0.99
    assert math.isfinite(ema.average["weight"].item())
