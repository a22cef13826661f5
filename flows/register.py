"""Stage ``register``: final models become registered versions with their lineage, as candidates for promotion."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.logging import get_run_logger

from dav2 import layout
from dav2.documents import DocumentError, RegisteredModel, RegisteredRecord, ScoreFile
from dav2.runs import all_runs
from flows.runtime import TASK, StageError, deliver_waiting, read_params, run_stage, show_table

OUT = Path(layout.REGISTERED)


@task(task_run_name="register-{run}", retries=2, retry_delay_seconds=10, **TASK)
def register(run: str, params_path: str) -> RegisteredModel:
    """Register the final model of ``run``; an unchanged model keeps its version."""
    from dav2.tracking import registry
    from dav2.tracking.store import TrackingError

    path = layout.scores(Path(), run)
    try:
        scores = ScoreFile.read(path)
    except DocumentError as error:
        raise StageError(f"{error}: 'dvc repro -f evaluate@{run}'") from error
    try:
        deliver_waiting(get_run_logger().info)
        return registry.register(run, Path(), read_params(params_path), scores).record()
    except TrackingError as error:
        raise StageError(f"{run}: {error}") from error


@flow(name="register")
def register_flow(params_path: str = "params.yaml") -> list[str]:
    """Register every model of the pipeline, parents first; returns their names."""
    models = [register(run, params_path) for run in all_runs(read_params(params_path))]
    rows = [model.model_dump() for model in models]
    title = "Versions in the registry; each is a candidate until 'dav2 promote NAME' has run its gates"
    show_table("registered-models", rows, title)
    RegisteredRecord(models=models).write(OUT)
    return [model.name for model in models]


if __name__ == "__main__":
    run_stage(register_flow)
