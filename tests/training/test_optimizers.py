"""Which parameters which optimiser moves, and that joined optimisers are the ones they join."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.tasks import RelativeTask
from dav2.params import LossParams, OptimParams
from dav2.training.errors import TrainingError
from dav2.training.optimizers import Joined, build_optimizer, parameter_groups
from tests.training import processes
from tests.training.test_resume import RUN, metrics, weights
from tests.training.world import OPTIM, make_project

MUON = OptimParams(optimizer="muon", encoder_lr=1e-3, decoder_lr=2e-3, matrix_lr=0.03, weight_decay=0.1)


def task() -> RelativeTask:
    return RelativeTask(build("vitn"), LossParams(), "fp32", None)


def test_muon_moves_the_matrices_of_the_blocks_and_nothing_else() -> None:
    made = task()
    groups = parameter_groups(made, MUON)
    assert [(g["part"], g["lr"], g["weight_decay"]) for g in groups] == [
        ("matrices", 0.03, 0.1),
        ("encoder", 1e-3, 0.1),
        ("encoder", 1e-3, 0.0),
        ("decoder", 2e-3, 0.1),
        ("decoder", 2e-3, 0.0),
    ]
    blocks = [p for p in made.model.encoder.blocks.parameters() if p.ndim == 2]
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in blocks}
    assert {id(p) for g in groups for p in g["params"]} == {id(p) for p in made.parameters() if p.requires_grad}


def test_a_first_update_of_a_matrix_is_nearly_orthogonal() -> None:
    made = task()
    before = [p.detach().clone() for p in made.model.encoder.blocks.parameters() if p.ndim == 2]
    optimizer = build_optimizer(made, MUON.model_copy(update={"weight_decay": 0.0}), zero_stage=0)
    made.model(torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))).mean().backward()
    optimizer.step()
    after = [p.detach() for p in made.model.encoder.blocks.parameters() if p.ndim == 2]
    for old, new in zip(before, after, strict=True):
        values = torch.linalg.svdvals((new - old) / 0.03 / max(1, old.shape[0] / old.shape[1]) ** 0.5)
        # Few images give a gradient of low rank: its directions are stretched towards 1, the rest stays near 0.
        assert 0.6 < float(values.max()) < 1.3


def test_joined_optimisers_restored_go_on_as_if_never_stopped() -> None:
    def start() -> tuple[nn.Linear, nn.Linear, Joined]:
        torch.manual_seed(0)
        a, b = nn.Linear(6, 6, bias=False), nn.Linear(6, 1)
        muon = torch.optim.Muon([{"params": list(a.parameters()), "lr": 0.1, "part": "matrices"}])
        return a, b, Joined(muon, torch.optim.AdamW([{"params": list(b.parameters()), "lr": 0.01, "part": "rest"}]))

    def step(a: nn.Linear, b: nn.Linear, optimizer: Joined, seed: int) -> None:
        optimizer.zero_grad()
        b(a(torch.randn(4, 6, generator=torch.Generator().manual_seed(seed)))).square().mean().backward()
        for group in optimizer.param_groups:  # as a schedule does, through the joined groups
            group["lr"] *= 0.9
        optimizer.step()

    a, b, whole = start()
    for seed in range(4):
        step(a, b, whole, seed)
        if seed == 1:
            saved = (whole.state_dict(), a.state_dict(), b.state_dict())
            saved = torch.load(_stored(saved), weights_only=True)
    c, d, resumed = start()
    resumed.load_state_dict(saved[0])
    c.load_state_dict(saved[1])
    d.load_state_dict(saved[2])
    for seed in (2, 3):
        step(c, d, resumed, seed)
    assert torch.equal(a.weight, c.weight)
    assert torch.equal(b.weight, d.weight)
    assert [g["lr"] for g in resumed.param_groups] == [g["lr"] for g in whole.param_groups]


def _stored(value: object) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return buffer


def test_muon_needs_whole_matrices() -> None:
    with pytest.raises(TrainingError, match="ZeRO stage 2 partitions them"):
        build_optimizer(task(), MUON, zero_stage=2)


def test_a_killed_muon_run_ends_with_the_bytes_of_one_that_was_not(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    for name, folder in folders.items():
        folder.mkdir()
        params = make_project(folder, teacher={"optim": {**OPTIM, "optimizer": "muon"}})
        if name == "killed":
            ranks = processes.start(params, RUN)
            processes.wait_for_step(params, RUN, 3, ranks)
            processes.stop(ranks, signal.SIGKILL)
        processes.run_to_end(params, RUN)
    assert weights(folders["killed"]) == weights(folders["whole"])
    assert metrics(folders["killed"]) == metrics(folders["whole"])
