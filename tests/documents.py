"""Documents as a finished pipeline leaves them, made by the models that the writers use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dav2.documents import Code, EvaluationLine, LabelReceipt, RunRecord, StepLine, Verdict
from dav2.training.journal import Journal


def run_record(run: str, **changes: Any) -> RunRecord:
    """The record of a finished run."""
    plain: dict[str, Any] = {
        "run": run, "status": "finished", "fingerprint": "f" * 64, "steps": 200, "settings": {}, "precision": "fp32",
        "precision_why": "asked for", "seed": 0, "compute": {}, "world": 1, "zero_stage": 0, "device": "cpu",
        "threads": 1, "parameters": 1, "training_frames": 1, "origins": {}, "code": Code(unknown="a test"),
        "machine": {},
    }  # fmt: skip
    return RunRecord(**{**plain, **changes})


def step_line(step: int, loss: float | None, **changes: Any) -> StepLine:
    """One update."""
    plain: dict[str, Any] = {
        "steps": 200, "grad_norm": 1.0, "images_per_second": 20.0, "data_wait": 0.0, "memory_mb": 1.0,
        "time": 1e9 + step,
    }  # fmt: skip
    return StepLine(**{"step": step, "loss": loss, **plain, **changes})


def evaluation_line(step: int, **scores: Any) -> EvaluationLine:
    """One evaluation."""
    return EvaluationLine(**{"step": step, "seconds": 1.0, "time": 1e9 + step, **scores})


def write_journal(folder: Path, steps: list[StepLine], evaluations: list[EvaluationLine]) -> None:
    """The journal of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder, active=True)
    for step in steps:
        journal.metrics(step)
    for evaluation in evaluations:
        journal.evaluation(evaluation)


def label_receipt(shard: str, **changes: Any) -> LabelReceipt:
    """The receipt of a labelled shard."""
    plain: dict[str, Any] = {
        "fingerprint": "f" * 64, "teacher": "t" * 64, "images": "i" * 64, "options": {}, "frames": 1,
        "label_sha256": "l" * 64, "label_bytes": 1, "rows_sha256": "r" * 64,
    }  # fmt: skip
    return LabelReceipt(**{"shard": shard, **plain, **changes})


def verdict(group: str, passed: bool = True, **changes: Any) -> Verdict:
    """The verdict of a data gate."""
    failures = [] if passed else ["valid must be ≥ 0.5"]
    plain: dict[str, Any] = {"expectations": 12, "frames": 3, "digest": "d" * 64, "failures": failures}
    return Verdict(**{"group": group, "passed": passed, **plain, **changes})
