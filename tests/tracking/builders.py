"""A small project as the stages leave it: trained runs, labels, manifests, scores, a dvc.lock, in a git repository."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image

from dav2 import layout
from dav2.code_state import git_state
from dav2.documents import Code, ScoreFile
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from dav2.families.directory import weights_digest
from dav2.params import Params
from dav2.runs import get_run
from dav2.tracking import promotion, registry
from tests.documents import evaluation_line, label_receipt, run_record, step_line, verdict, write_journal

ACCURACY = {"teacher": 0.8, "student-vitt": 0.75}


def write_project(root: Path, params: Params) -> None:
    """Teacher, one student and its metric model, all trained, labelled and scored."""
    for name in params.data_sets:
        _write(root / params.shards(name) / "manifest.parquet", f"manifest of {name}")
    write_run(root, params, "teacher", seed=1)
    teacher = weights_digest(root / "artifacts/models/teacher")
    for source in params.pseudo_label.sources:
        folder = root / params.labels(source)
        _write(folder / "manifest.parquet", f"labels of {source}")
        _write(folder / "train-000000.tar", f"labels of {source}")
        digest = hashlib.sha256((folder / "train-000000.tar").read_bytes()).hexdigest()
        made = {"teacher": teacher, "label_sha256": digest, "run": {"host": "a"}}
        label_receipt("train-000000.tar", **made).write(folder / "train-000000.receipt.json")
    write_run(root, params, "student-vitt", seed=2)
    write_run(root, params, "metric-indoor", seed=3)
    for group in ("synthetic", "unlabelled", "benchmark", "pseudo"):
        write_gate(root, group, passed=True)
    for name, accuracy in {"baseline-constant": 0.0, "baseline-row": 0.6, "baseline-brightness": 0.5}.items():
        scored = ScoreFile.model_validate({"model": name, "da2k": {"accuracy": accuracy}})
        scored.write(root / f"artifacts/scores/{name}.json")
    stages = {f"ingest@{name}": _stage(source.path, params.shards(name)) for name, source in params.sources.items()}
    stages["pseudo_label"] = _stage("artifacts/models/teacher", "artifacts/pseudo")
    _write(root / "dvc.lock", yaml.safe_dump({"schema": "2.0", "stages": stages}))
    _write(root / ".gitignore", "/artifacts/\n/.dav2/\n")
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "x"]):
        subprocess.run(["git", *command], cwd=root, check=True)
    for run in ("teacher", "student-vitt", "metric-indoor"):
        write_record(root, params, run)


def write_record(root: Path, params: Params, run: str) -> None:
    """The run's record, as if the code of now had made it."""
    settings = get_run(params, run).settings.model_dump(mode="json")
    started = {"seed": params.seed, "settings": settings, "compute": params.compute.model_dump(mode="json")}
    record = run_record(run, code=Code(**git_state(root)), **started)
    record.write(layout.training(root, run) / "run.json")


def write_run(root: Path, params: Params, run: str, seed: int) -> str:
    """A finished training run with two checkpoints; returns the digest of its weights."""
    torch.manual_seed(seed)
    kind, _, key = run.partition("-")
    model = build("vitn", params.metric[key].max_depth if kind == "metric" else None)
    folder, out = root / "artifacts/training" / run, root / "artifacts/models" / run
    for step in (100, 200):
        save_directory(model, folder / f"checkpoints/step-{step:06d}", "a checkpoint")
    save_directory(model, out, "a model")
    steps = [step_line(step, 1.0 / step) for step in range(1, 201)]
    measured = {"da2k": {"name": "da2k", "digest": "d" * 64}, "val_loss": {"name": "irs, vkitti2", "digest": "e" * 64}}
    scores = {"da2k": 0.7, "da2k_kinds": {"aerial": 0.6}, "measured_on": measured}
    evaluations = [evaluation_line(step, val_loss=1.0 / step, **scores) for step in (100, 200)]
    write_journal(folder, steps, evaluations)
    (folder / "previews").mkdir(exist_ok=True)
    Image.new("RGB", (6, 4)).save(folder / "previews/step-000100.png")
    return weights_digest(out)


def register_three(root: Path, params: Params) -> None:
    """Three versions of the teacher: 1 was replaced by 2, the champion; 3 is a candidate that will pass."""
    for seed in (21, 22, 23):
        write_run(root, params, "teacher", seed)
        registry.register("teacher", root, params, scores(root, "teacher", 0.8))
        if seed != 23:
            promotion.promote("dav2-teacher", root, params)


def scores(root: Path, run: str, accuracy: float, **changes: Any) -> ScoreFile:
    """Scores of the run's present weights, ± 0.05 around ``accuracy``."""
    kinds = {kind: {"accuracy": accuracy, "pairs": 50} for kind in ("indoor", "outdoor")}
    da2k = {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05, "pairs": 100, "kinds": kinds}
    digest = weights_digest(root / "artifacts/models" / run)
    plain = {"model": run, "weights_sha256": digest, "da2k": da2k, "latency_ms": 20.0}
    return ScoreFile.model_validate({**plain, **changes})


def write_gate(root: Path, group: str, passed: bool) -> None:
    verdict(group, passed).write(layout.verdict(root, group))


def _stage(source: str, out: str) -> dict[str, Any]:
    return {
        "deps": [{"path": source, "md5": f"md5-of-{source}.dir"}],
        "outs": [{"path": out, "md5": f"md5-of-{out}.dir"}],
    }


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
