"""Stage ``register``: final models become registered versions with their lineage, as candidates for promotion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.logging import get_run_logger

from dav2 import layout
from dav2.files import write_whole
from dav2.runs import all_runs
from flows.runtime import TASK, StageError, deliver_waiting, read_params, run_stage, show_table

OUT = Path(layout.REGISTERED)


@task(task_run_name="register-{run}", retries=2, retry_delay_seconds=10, **TASK)
def register(run: str, params_path: str) -> dict[str, Any]:
    """Register the final model of ``run``; an unchanged model keeps its version."""
    from dav2.tracking import registry
    from dav2.tracking.store import TrackingError

    path = layout.scores(Path(), run)
    try:
        scores = json.loads(path.read_text("utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StageError(f"{path} cannot be read ({error}); 'dvc repro -f evaluate@{run}' makes it again") from error
    try:
        deliver_waiting(get_run_logger().info)
        return registry.register(run, Path(), read_params(params_path), scores).as_dict()
    except TrackingError as error:
        raise StageError(f"{run}: {error}") from error


@flow(name="register")
def register_flow(params_path: str = "params.yaml") -> list[dict[str, Any]]:
    """Register every model of the pipeline, parents first."""
    rows = [register(run, params_path) for run in all_runs(read_params(params_path))]
    show_table("registered-models", rows, "Registered versions; 'dav2 promote NAME' runs a candidate's gates")
    write_whole(OUT, json.dumps(rows, indent=2) + "\n")
    return rows


if __name__ == "__main__":
    run_stage(register_flow)
