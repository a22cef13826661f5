"""What MLflow's pages show first: the runs with the columns that tell models apart, and a sentence about them.

MLflow keeps a list's columns in the reader's browser, but a view that somebody shared as a tag of the experiment, and
a link can name it. So one view is kept there under a fixed name, and :func:`address` names it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from dav2.documents import ScoreFile
from dav2.tracking.layer_gates import judged_metrics

if TYPE_CHECKING:
    from mlflow import MlflowClient

KEY = "dav2"
VIEW_TAG, KIND_TAG, NOTE_TAG = f"mlflow.sharedViewState.{KEY}", "mlflow.experimentKind", "mlflow.note.content"
KIND = "custom_model_development"
NOTE = (
    "One run for each training of dav2; its checkpoints are under Models. `scores/…` are those of the final model, "
    "written when it is registered; `loss`, `val_loss` and `da2k` are the curves of the training."
)
SCORES = "scores"
COLUMNS = ("tags.`model.kind`", "params.`recipe.size`", f"metrics.`{SCORES}/da2k`")
LAST = ("params.`recipe.steps`", "attributes.`Duration`")


def address(url: str, experiment: str) -> str:
    """The list of runs with dav2's columns. Without the kind in it MLflow opens on its tools for language models."""
    query = f"workflowType=machine_learning&viewStateShareKey={KEY}"
    return f"{url.rstrip('/')}/#/experiments/{experiment}/runs?{query}"


def describe(api: MlflowClient, experiment: str, benchmarks: Iterable[str] = ()) -> None:
    """Write kind, sentence and view of the experiment where they are not there yet.

    Args:
        benchmarks: depth benchmarks whose AbsRel gets a column, beside those that have one.
    """
    present = api.get_experiment(experiment).tags
    errors = _errors(present.get(VIEW_TAG)) | {f"metrics.`{abs_rel(name)}`" for name in benchmarks}
    wanted = {KIND_TAG: KIND, NOTE_TAG: NOTE, VIEW_TAG: json.dumps(_state([*COLUMNS, *sorted(errors), *LAST]))}
    for tag, value in wanted.items():
        if present.get(tag) != value:
            api.set_experiment_tag(experiment, tag, value)


def abs_rel(benchmark: str) -> str:
    """Name of the metric that holds a final model's AbsRel on ``benchmark``."""
    return f"{SCORES}/abs_rel {benchmark}"


def log_scores(api: MlflowClient, experiment: str, run_id: str, scores: ScoreFile) -> None:
    """Write the final model's scores into its run, and columns for them into the view."""
    da2k = scores.known_da2k
    found = {} if da2k is None or da2k.accuracy is None else {f"{SCORES}/da2k": da2k.accuracy}
    errors = {name: entry.metrics.get("abs_rel") for name, entry in scores.benchmarks.items()}
    found |= {abs_rel(name): error for name, error in errors.items() if error is not None}
    layers = {name: judged_metrics(entry) for name, entry in scores.benchmarks.items()}
    found |= {
        f"{SCORES}/{metric} {name}": value
        for name, judged in layers.items()
        for metric, value in judged.items()
        if value is not None
    }
    present = api.get_run(run_id).data.metrics
    for name, value in found.items():
        if present.get(name) != value:
            api.log_metric(run_id, name, value)
    # The first is the usual one; the others judge the same images by other rules.
    describe(api, experiment, [name for name, error in errors.items() if error is not None][:1])


def _errors(view: str | None) -> set[str]:
    try:
        shown = [str(column) for column in json.loads(view or "{}").get("selectedColumns", [])]
    except (ValueError, TypeError, AttributeError):
        return set()  # Anybody may write a tag; a view that is none is written anew.
    return {column for column in shown if column.startswith("metrics.") and column not in COLUMNS}


def _state(columns: list[str]) -> dict[str, object]:
    """Everything that MLflow's page keeps of a view; a key that is left out stops it from opening."""
    return {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "globalLineChartConfig": {},
    }
