"""Stages ``teacher``, ``student@<size>``, ``metric@<range>``, ``marigold@<key>``: one run, watched and recorded."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.logging import get_run_logger

from dav2 import layout
from dav2.documents import EvaluationLine, StepLine
from dav2.params import NamedTeacherParams
from flows.runtime import TASK, Progress, StageError, deliver_waiting, read_params, run_stage, show_picture, show_table


@task(task_run_name="train-{run}", **TASK)
def train(run: str, params_path: str) -> str:
    """Train under torchrun (or Ray), in a process group of its own; returns the model's folder."""
    from dav2.runs import get_run
    from dav2.training.launch import TrainingError, launch
    from dav2.training.speed import told

    progress, logger = Progress(f"train-{run}", "steps"), get_run_logger()
    steps = get_run(read_params(params_path), run).settings.steps

    def report(event: StepLine | EvaluationLine) -> None:
        if isinstance(event, StepLine):
            loss = "skipped, not finite" if event.loss is None else f"loss {event.loss:.4f}"
            progress(event.step, steps, f"{loss}, {told(event)}")
        else:
            shown = {"step": event.step, "val_loss": event.val_loss, "da2k": event.da2k, "seconds": event.seconds}
            logger.info(", ".join(f"{name} {value}" for name, value in shown.items() if value is not None))

    try:
        return str(launch(run, Path(params_path), Path(), report))
    except TrainingError as error:
        raise StageError(str(error)) from error


@task(task_run_name="licences-{run}", **TASK)
def say_licences(run: str, params_path: str) -> None:
    """Write what the model was made from, and under which licences, into its card."""
    from dav2.tracking import registry
    from dav2.tracking.licences import complete_card
    from dav2.tracking.store import TrackingError

    try:
        complete_card(run, Path(), read_params(params_path), lambda uri: registry.licences_of(uri, Path()))
    except TrackingError as error:
        raise StageError(str(error)) from error


@task(task_run_name="record-{run}", retries=2, retry_delay_seconds=10, **TASK)
def record(run: str, params_path: str) -> dict[str, Any]:
    """Put the run, its curves and every kept checkpoint into MLflow; doing it twice adds nothing.

    What was trained stays if MLflow cannot take it now: the recording waits in ``.dav2/outbox`` for the next command.
    """
    from dav2.tracking import outbox
    from dav2.tracking.store import TrackingError

    logger = get_run_logger()
    try:
        recorded = outbox.record(run, Path(), read_params(params_path))
    except TrackingError as error:
        raise StageError(str(error)) from error
    if "waiting" in recorded:
        logger.warning(
            f"{run} is trained but not recorded: {recorded['why']}. The recording waits in {recorded['waiting']}; "
            "the next stage or dav2 command that reaches MLflow delivers it"
        )
    else:
        deliver_waiting(logger.info)
    return recorded


@task(task_run_name="use-{name}", **TASK)
def use_as_teacher(name: str) -> str:
    """Let a model made elsewhere stand where the teacher's does; returns its folder."""
    from dav2.families import outside
    from dav2.families.directory import WeightsError

    try:
        return str(outside.use_as_teacher(name, Path()))
    except WeightsError as error:
        raise StageError(str(error)) from error


@flow(name="train")
def train_flow(run: str, params_path: str = "params.yaml") -> dict[str, object]:
    """Train one model and record it."""
    teacher = read_params(params_path).teacher
    if run == "teacher" and isinstance(teacher, NamedTeacherParams):
        return {"model": use_as_teacher(teacher.name)}
    model = train(run, params_path)
    say_licences(run, params_path)
    recorded = record(run, params_path)
    previews = sorted((layout.training(Path(), run) / "previews").glob("*.png"))
    if previews:
        show_picture(f"preview-{run}", previews[-1], f"What {run} sees at its end: photograph, prediction, target")
    rows = [{"checkpoint": name, "logged model": identity} for name, identity in recorded.get("models", {}).items()]
    where = f"in MLflow run {recorded['run_id']}" if "run_id" in recorded else f"not recorded yet: {recorded['why']}"
    show_table(f"checkpoints-{run}", rows, f"Checkpoints of {run} that can be loaded, {where}")
    return {"model": model, **recorded}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    run_stage(train_flow, run=parser.parse_args().run)
