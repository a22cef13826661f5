"""The labelling stage as a person runs it: a process, a Prefect server, an exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from dav2.data.store.manifest import read_manifest
from tests.conftest import ROOT, PrefectServer
from tests.pseudo_label.conftest import save_teacher, write_shards
from tests.pseudo_label.test_workers import contents

LABELS = "artifacts/pseudo/photos"


class Stage:
    """A project folder with photographs and a teacher, and the stage's command in it."""

    def __init__(self, folder: Path, server: PrefectServer) -> None:
        self.folder = folder
        self.environment = {**os.environ, **server.environment, "PYTHONPATH": str(ROOT)}
        write_shards(folder / "artifacts/shards/unlabelled/photos", shards=4)
        save_teacher(folder / "artifacts/models/teacher")

    def settle(self, **changes: Any) -> None:
        """Write params.yaml: the sample's, with the labelling section changed."""
        tree = yaml.safe_load((ROOT / "params.yaml").read_text())
        small = {"sources": ["photos"], "input_size": 56, "precision": "fp32", "batch": 3, "threads": 1}
        tree["pseudo_label"] = {**small, "retries": 0, **changes}
        for student in tree["students"].values():
            student["sources"] = ["photos"]
        (self.folder / "params.yaml").write_text(yaml.safe_dump(tree))

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "flows.pseudo_label"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, succeeds: bool = True) -> str:
        process = self.start()
        output = process.communicate()[0]
        assert (process.returncode == 0) == succeeds, output
        return output

    def labels(self) -> dict[str, bytes]:
        return contents(str(self.folder / LABELS))


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, prefect_server: PrefectServer) -> Stage:
    made = Stage(tmp_path_factory.mktemp("stage"), prefect_server)
    made.settle()
    made.run()
    return made


def test_the_stage_labels_every_photograph_of_its_sources(stage: Stage) -> None:
    labels = pd.read_parquet(stage.folder / LABELS / "manifest.parquet")
    photos = read_manifest(stage.folder / "artifacts/shards/unlabelled/photos")
    assert list(labels["key"]) == list(photos["key"])
    assert labels["flip_agreement"].notna().all()


def test_running_it_again_labels_nothing(stage: Stage) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (stage.folder / LABELS).glob("*.tar")}
    assert "0 shards to label" in stage.run()
    assert {path.name: path.stat().st_mtime_ns for path in (stage.folder / LABELS).glob("*.tar")} == before


def test_a_stage_killed_with_its_workers_at_work_ends_in_the_same_bytes(stage: Stage) -> None:
    expected = stage.labels()
    for path in (stage.folder / LABELS).iterdir():
        path.unlink()
    stage.settle(runner="process_pool", workers=2)
    process = stage.start()
    while process.poll() is None and not list((stage.folder / LABELS).glob("*.receipt.json")):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert len(list((stage.folder / LABELS).glob("*.receipt.json"))) < 4
    stage.run()
    assert stage.labels() == expected


def test_a_poison_shard_is_set_aside_named_and_the_rest_is_labelled(stage: Stage) -> None:
    expected = stage.labels()
    row = read_manifest(stage.folder / "artifacts/shards/unlabelled/photos").iloc[8]
    shard = stage.folder / "artifacts/shards/unlabelled/photos" / row["shard"]
    good = shard.read_bytes()
    shard.write_bytes(good[: row["offset_image"] + 20] + b"\0" * 40 + good[row["offset_image"] + 60 :])
    for name in (row["shard"], "train-000003.tar"):
        (stage.folder / LABELS / name).unlink()
    stage.settle(retries=1)
    output = stage.run(succeeds=False)
    assert row["key"] in output
    assert "1 tasks failed 2 times, the rest is labelled" in output
    labels = pd.read_parquet(stage.folder / LABELS / "manifest.parquet")
    assert len(labels) == 21
    shard.write_bytes(good)
    stage.run()
    assert stage.labels() == expected


def test_a_missing_teacher_says_what_to_run(stage: Stage) -> None:
    teacher = stage.folder / "artifacts/models/teacher"
    teacher.rename(teacher.with_name("elsewhere"))
    try:
        assert "dvc repro teacher" in stage.run(succeeds=False)
    finally:
        teacher.with_name("elsewhere").rename(teacher)
