from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from dav2.params import Params
from dav2.tracking import lineage, patience, runs, store
from dav2.tracking.store import TrackingError
from dav2.training.journal import read_steps


def record(project: Path, params: Params, run: str = "teacher") -> dict[str, Any]:
    return runs.log_training(run, project, params, lineage.collect(run, project, params))


def test_a_run_holds_settings_curves_files_and_data(project: Path, params: Params) -> None:
    api = store.client(project)
    recorded = record(project, params)
    run = api.get_run(recorded["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["recipe.optim.encoder_lr"] == str(params.teacher.optim.encoder_lr)
    assert run.data.tags["git.dirty"] == "false"
    history = api.get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(step, 1.0 / step) for step in range(1, 201)]
    assert {file.path for file in api.list_artifacts(run.info.run_id)} >= {"lineage.json", "previews", "metrics.jsonl"}
    contexts = {data.dataset.name: data.tags[0].value for data in run.inputs.dataset_inputs}
    measured = {"da2k": "evaluation", "irs, vkitti2": "evaluation"}
    assert contexts == dict.fromkeys(params.teacher.sources, "training") | measured


def test_every_checkpoint_is_a_logged_model_with_the_metrics_of_its_step(project: Path, params: Params) -> None:
    api = store.client(project)
    recorded = record(project, params)
    assert list(recorded["models"]) == ["step-000100", "step-000200"]
    model = api.get_logged_model(recorded["models"]["step-000200"])
    expected = {"val_loss": (1 / 200, "irs, vkitti2", "e" * 32), "da2k": (0.7, "da2k", "d" * 32)}
    expected |= {"scene kinds/aerial": (0.6, "da2k", "d" * 32), "speed/seconds": (1.0, None, None)}
    assert {m.key: (m.value, m.dataset_name, m.dataset_digest) for m in model.metrics} == expected
    assert model.source_run_id == recorded["run_id"]
    files = {Path(file.path).name for file in api.list_logged_model_artifacts(model.model_id)}
    assert files == {"model.safetensors", "config.json", "card.md"}


def test_recording_twice_adds_nothing(project: Path, params: Params) -> None:
    first, second = record(project, params), record(project, params)
    assert first == second
    api = store.client(project)
    assert len(api.search_runs([first["experiment_id"]])) == 1
    assert len(api.search_logged_models([first["experiment_id"]])) == 2


def test_a_recording_that_was_cut_off_is_finished_by_the_next(project: Path, params: Params) -> None:
    recorded = record(project, params)
    api = store.client(project)
    api.update_run(recorded["run_id"], status="RUNNING")
    folder = project / "artifacts/training/teacher/checkpoints"
    (folder / "step-000200").rename(folder / "step-000300")
    again = record(project, params)
    assert again["run_id"] == recorded["run_id"]
    assert len(api.get_metric_history(recorded["run_id"], "loss")) == 200
    assert list(again["models"]) == ["step-000100", "step-000300"]


def test_a_student_run_names_the_teacher_that_labelled_for_it(project: Path, params: Params) -> None:
    teacher = record(project, params)
    student = record(project, params, "student-vitt")
    inputs = store.client(project).get_run(student["run_id"]).inputs.model_inputs
    assert [model.model_id for model in inputs] == [teacher["models"]["step-000200"]]


def test_a_last_line_that_a_kill_cut_off_is_left_out(project: Path, params: Params) -> None:
    path = project / "artifacts/training/teacher/metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 201, "lo')
    assert len(read_steps(path.parent)) == 200


def test_a_run_without_files_says_what_makes_them(project: Path, params: Params) -> None:
    (project / "artifacts/training/teacher/metrics.jsonl").unlink()
    with pytest.raises(TrackingError, match=r"metrics\.jsonl is missing or empty; run 'dvc repro'"):
        record(project, params)


def test_a_server_that_is_down_is_named_and_nothing_is_lost(
    project: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(patience, "PAUSE", 0.01)
    with pytest.raises(TrackingError, match=f"MLflow server {uri} does not answer.*records it later"):
        record(project, params)


def test_nested_settings_become_dotted_names() -> None:
    tree = json.loads('{"a": {"b": 1, "c": {}}, "d": null, "e": [1]}')
    assert dict(runs.flatten(tree)) == {"a.b": 1, "e": [1]}
