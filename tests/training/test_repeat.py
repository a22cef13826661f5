"""``compute.deterministic`` and ``compute.tf32``: what they switch, and that two runs are equal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dav2 import layout
from dav2.families.depth_anything.alignment import lower_median, median_by_sorting
from dav2.params import load
from dav2.training.journal import METRICS, read_run
from dav2.training.launch import environment, launch
from tests.training import processes
from tests.training.processes import read_lines, train_rank
from tests.training.world import COMMON, make_project

RUN = "teacher"


def switches() -> list[Any]:
    cudnn = torch.backends.cudnn
    return [
        torch.backends.cuda.matmul.allow_tf32,
        cudnn.allow_tf32,
        torch.are_deterministic_algorithms_enabled() and cudnn.deterministic and not cudnn.benchmark,
    ]


def note_switches(params: Path, run: str) -> None:
    """Train, and write down the switches during each update and each evaluation."""
    from dav2.training.engine import Engine
    from dav2.training.validation import Validator

    seen: dict[str, Any] = {}
    update, loss = Engine.update, Validator._loss

    def noted_update(self: Engine, batches: Any) -> Any:
        seen.setdefault("update", []).append(switches())
        return update(self, batches)

    def noted_loss(self: Validator, task: Any) -> float:
        seen.setdefault("evaluation", []).append(switches())
        (params.parent / "switches.json").write_text(json.dumps(seen))
        return loss(self, task)

    Engine.update, Validator._loss = noted_update, noted_loss  # type: ignore[method-assign]
    train_rank(params, run)


@pytest.mark.parametrize("setting", [False, True])
def test_training_uses_tf32_where_a_setting_says_so_and_evaluation_never(tmp_path: Path, setting: bool) -> None:
    params = make_project(tmp_path, compute={"tf32": setting, "deterministic": setting})
    processes.run_to_end(params, RUN, 1, note_switches)
    seen = json.loads((tmp_path / "switches.json").read_text())
    assert seen["update"] == [[setting] * 3] * 6
    assert seen["evaluation"] == [[False, False, setting]] * 4
    described = read_run(layout.training(tmp_path, RUN))
    compute = described.compute
    assert compute["tf32"] is setting and compute["deterministic"] is setting


def test_on_a_processor_the_setting_changes_no_bit(tmp_path: Path) -> None:
    ends = []
    for setting in (False, True):
        params = make_project(tmp_path / str(setting), compute={"deterministic": setting})
        processes.run_to_end(params, RUN)
        ends.append((layout.model(params.parent, RUN) / "model.safetensors").read_bytes())
    assert ends[0] == ends[1]


def test_the_launcher_prepares_cublas_before_cuda_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    for setting in (False, True):
        params = load(make_project(tmp_path / str(setting), compute={"deterministic": setting}))
        assert environment(params).get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if setting else None)


def test_the_median_of_a_gpu_is_that_of_a_processor() -> None:
    torch.manual_seed(0)
    values = torch.randn(6, 41).mul(4).round()
    values[1, ::2] = torch.nan
    values[2, 1:] = torch.nan
    values[3] = torch.nan
    values[4, :1] = torch.nan
    values[5] = 3.0
    torch.testing.assert_close(median_by_sorting(values), lower_median(values), rtol=0, atol=0, equal_nan=True)
    x = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    assert torch.equal(*(torch.autograd.grad(f(x).sum(), x)[0] for f in (median_by_sorting, lower_median)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    "compute", [{"precision": "bf16"}, {"precision": "fp32"}, {"precision": "bf16", "compile": "whole"}]
)
def test_two_runs_on_a_gpu_are_equal_with_the_setting(tmp_path: Path, compute: dict[str, Any]) -> None:
    ends = []
    for name in ("one", "two"):
        teacher = {**COMMON, "sources": ["rooms"], "crop": 70, "steps": 12}
        params = make_project(tmp_path / name, compute={**compute, "deterministic": True}, teacher=teacher)
        model = launch(RUN, params, params.parent)
        lines = processes.comparable(read_lines(layout.training(params.parent, RUN) / METRICS))
        ends.append(((model / "model.safetensors").read_bytes(), lines))
    assert ends[0] == ends[1]
