"""What is cleaned away, and what never is."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dav2 import layout
from dav2.params import Params
from dav2.tracking import lineage, registry, retention, runs, store
from tests.tracking import builders


def names(root: Path, params: Params, days: float = 0.0) -> set[tuple[str, str]]:
    found, _ = retention.plan(root, params, days)
    return {(removal.rule, Path(removal.what).name) for removal in found}


def test_registered_versions_their_parents_and_the_runs_of_now_stay(project: Path, params: Params) -> None:
    builders.register_three(project, params)
    assert names(project, params) == set()


def test_gone_runs_and_what_killed_writers_left_go(project: Path, params: Params) -> None:
    builders.register_three(project, params)
    builders.write_run(project, params, "student-vits", seed=9)
    unfinished = project / layout.ARTIFACTS / "shards" / ".part-0123456789ab.tar"
    unfinished.write_bytes(bytes(10))
    young = unfinished.with_name(".part-ffffffffffff.tar")
    young.write_bytes(bytes(10))
    long_ago = time.time() - 2 * retention.DAY
    os.utime(unfinished, (long_ago, long_ago))
    assert names(project, params) == {
        ("run that is gone", "student-vits"), ("unfinished file", unfinished.name),
    }  # fmt: skip
    for removal in retention.plan(project, params, 0.0)[0]:
        removal.remove()
    assert not layout.training(project, "student-vits").exists() and not unfinished.exists() and young.exists()
    assert names(project, params) == set()


def test_a_gone_run_whose_weights_are_registered_stays(project: Path, params: Params) -> None:
    registry.register("student-vitt", project, params, builders.scores(project, "student-vitt", 0.75))
    fewer = params.model_copy(update={"students": {}, "metric": {}})
    assert names(project, fewer) == {("run that is gone", "metric-indoor")}


def test_old_checkpoints_in_mlflow_go_but_for_the_last_and_the_best(project: Path, params: Params) -> None:
    runs.log_training("teacher", project, params, lineage.collect("teacher", project, params))
    api = store.client(project)
    assert names(project, params, days=1.0) == set()
    home = store.experiment(api, project)
    run = api.search_runs([home])[0].info.run_id
    middle = api.create_logged_model(
        home, "teacher-000150", run, {layout.WEIGHTS_TAG: "0" * 64, "dav2.step": "150"}, model_type="checkpoint"
    )
    file = project / "weights"
    file.write_bytes(bytes(1000))
    api.log_model_artifact(middle.model_id, str(file))
    found, _ = retention.plan(project, params, 0.0)
    # Step 200 is both the last and the best.
    assert {removal.what for removal in found} == {"teacher-000100", "teacher-000150"}
    assert {removal.size for removal in found if removal.what == "teacher-000150"} == {1000}
    for removal in found:
        removal.remove()
    assert names(project, params) == set()
    assert not list(store.artifact_root(project).rglob("weights"))


def test_a_cache_that_a_version_may_need_is_left_alone(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".dvc" / "cache").mkdir(parents=True)
    (project / "params.yaml").write_text((project / "params.yaml").read_text() + "# changed\n")
    for name in ("teacher", "student-vitt", "metric-indoor"):
        builders.write_record(project, params, name)
    builders.register_three(project, params)
    _, remarks = retention.plan(project, params, 0.0)
    assert remarks and "left alone" in remarks[0] and "dav2-teacher/1" in remarks[0]
