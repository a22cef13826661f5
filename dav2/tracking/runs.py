"""Training runs in MLflow: parameters, curves, pictures, data sets, and every kept checkpoint as a logged model.

Training writes files and never talks to MLflow, so a server that is down stops nothing. What is recorded here is a
function of those files: recording twice finds the run by its identity and adds nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dav2 import layout
from dav2.documents import EvaluationLine, StepLine
from dav2.files import sha256_file
from dav2.params import Params
from dav2.tracking import store, view
from dav2.tracking.lineage import Lineage
from dav2.tracking.store import TrackingError
from dav2.training.journal import read_evaluations, read_steps

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

Item = TypeVar("Item")

IDENTITY = "dav2.identity"
METRICS_PER_REQUEST, PARAMS_PER_REQUEST, TAGS_PER_REQUEST = 1000, 100, 100
LONGEST_VALUE = 6000
JOURNALS = ("run.json", "metrics.jsonl", "evaluations.jsonl")
FIRST = ("loss", "val_loss", "da2k")
"""What a person looks for first: it stands on top of a run's charts."""
# MLflow sorts groups by name, what is in none as "Model metrics": these come after it.
GROUPS = {
    "speed": ("images_per_second", "data_wait", "memory_mb", "seconds"),
    "steps": ("steps", "skipped", "da2k_pairs"),
}
CHECKPOINT_FILES = ("model.safetensors", "config.json", "card.md")


def log_training(run: str, root: Path, params: Params, lineage: Lineage) -> dict[str, object]:
    """Record a finished training run.

    Returns:
        ``{"run_id", "experiment_id", "models": {checkpoint folder: model identity}}``.

    Raises:
        TrackingError: the run left no files, or MLflow cannot be reached.
    """
    folder = layout.training(root, run)
    if not read_steps(folder):
        raise TrackingError(f"{folder / 'metrics.jsonl'} is missing or empty; run 'dvc repro', which trains '{run}'")
    return record_folder(store.client(root), root, lineage, folder)


def record_folder(api: MlflowClient, root: Path, lineage: Lineage, folder: Path) -> dict[str, object]:
    """Record what a training wrote to ``folder``; as :func:`log_training`, also after a call that was cut off."""
    run = lineage.run
    metrics = _plain(read_steps(folder))
    size = sum(path.stat().st_size for path in recorded_files(folder)) / 1e6
    with store.told(root, f"{size:.0f} MB for the checkpoints of {run}"), store.exclusive(root, f"record-{run}"):
        experiment = store.experiment(api, root)
        view.describe(api, experiment)
        run_id = _find_or_create(api, experiment, run, lineage, begun=_milliseconds(metrics[0]))
        if api.get_run(run_id).info.status != "FINISHED":
            _log_settings(api, run_id, lineage)
            evaluations = _plain(read_evaluations(folder))
            _log_inputs(api, run_id, root, lineage, evaluations)
            _log_curves(api, run_id, metrics, evaluations)
            _log_files(api, run_id, folder, lineage)
        models = _log_checkpoints(api, experiment, run_id, run, folder)
        api.set_terminated(run_id, "FINISHED", end_time=_milliseconds(metrics[-1]))
    return {"run_id": run_id, "experiment_id": experiment, "models": models}


def recorded_files(folder: Path) -> list[Path]:
    """Files of a training that are recorded: journals, pictures and the checkpoints that are whole."""
    files = [path for name in JOURNALS if (path := folder / name).is_file()]
    files += sorted((folder / "previews").glob("*"))
    files += [path / name for path in _whole_checkpoints(folder) for name in CHECKPOINT_FILES]
    return [path for path in files if path.is_file()]


def _whole_checkpoints(folder: Path) -> list[Path]:
    needed = ("model.safetensors", "config.json")
    found = sorted((folder / "checkpoints").glob("step-*"))
    return [path for path in found if all((path / name).is_file() for name in needed)]


def identity(lineage: Lineage) -> str:
    """What makes two recordings the same run: its name, its weights and its settings."""
    parts = [lineage.run, lineage.weights_sha256, json.dumps(lineage.parameters, sort_keys=True)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def find_run(api: MlflowClient, experiment: str, lineage: Lineage) -> str | None:
    """The recorded run of a lineage, if there is one."""
    found = api.search_runs([experiment], f"tags.`{IDENTITY}` = '{identity(lineage)}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _plain(lines: Sequence[StepLine | EvaluationLine]) -> list[dict[str, object]]:
    return [line.model_dump(exclude_defaults=True) for line in lines]


def _find_or_create(api: MlflowClient, experiment: str, run: str, lineage: Lineage, begun: int | None) -> str:
    found = find_run(api, experiment, lineage)
    if found is not None:
        return found
    created = api.create_run(experiment, begun, run_name=run, tags={IDENTITY: identity(lineage)})
    return str(created.info.run_id)


def _log_settings(api: MlflowClient, run_id: str, lineage: Lineage) -> None:
    from mlflow.entities import Param, RunTag

    settings = [Param(name, str(value)[:LONGEST_VALUE]) for name, value in flatten(lineage.parameters)]
    for chunk in _chunks(settings, PARAMS_PER_REQUEST):
        api.log_batch(run_id, params=chunk)
    tags = [RunTag(name, value) for name, value in lineage.tags().items()]
    for chunk in _chunks(tags, TAGS_PER_REQUEST):
        api.log_batch(run_id, tags=chunk)


def _log_inputs(
    api: MlflowClient, run_id: str, root: Path, lineage: Lineage, evaluations: list[dict[str, object]]
) -> None:
    """Data sets by manifest digest, for training and for evaluation, and parent models that the registry knows."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

    datasets = []
    for name, hashes in lineage.data.items():
        source = json.dumps({"path": f"dvc:{name}", **hashes})
        dataset = Dataset(name, hashes.get("manifest", "unknown")[:32], "dvc", source)
        datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", "training")]))
    measured = {name: digest for line in evaluations for name, digest in _measured_on(line).values()}
    for name, digest in measured.items():
        dataset = Dataset(name, digest, "dvc", json.dumps({"path": f"dvc:{name}", "manifest": digest}))
        datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", "evaluation")]))
    parents = [model_of_weights(api, root, parent["weights_sha256"]) for parent in lineage.parents]
    inputs = api.get_run(run_id).inputs
    known = {model.model_id for model in (inputs.model_inputs if inputs else [])}
    models = [LoggedModelInput(model_id) for model_id in parents if model_id and model_id not in known]
    api.log_inputs(run_id, datasets=datasets, models=models)


def model_of_weights(api: MlflowClient, root: Path, weights_sha256: str) -> str | None:
    """Identity of the newest logged model that holds these weights."""
    found = api.search_logged_models(
        [store.experiment(api, root)],
        f"tags.`dav2.weights_sha256` = '{weights_sha256}'",
        max_results=1,
        order_by=[{"field_name": "creation_time", "ascending": False}],
    )
    return str(found[0].model_id) if found else None


def _milliseconds(line: Mapping[str, object]) -> int | None:
    """When a line was written, since 1970; a run lasts from its first line to its last."""
    time = line.get("time")
    return int(time * 1000) if isinstance(time, int | float) and time else None


def _log_curves(
    api: MlflowClient, run_id: str, metrics: list[dict[str, object]], evaluations: list[dict[str, object]]
) -> None:
    """Every number of every line. Steps and times are the run's own, so that logging them again changes nothing."""
    entries = [entry for line in [*metrics, *evaluations] for entry in _metrics_of(line)]
    for chunk in _chunks(entries, METRICS_PER_REQUEST):
        api.log_batch(run_id, metrics=chunk)


def _measured_on(line: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """Score → name and digest of the data it was measured on, as MLflow keeps them."""
    measured = line.get("measured_on")
    if not isinstance(measured, dict):
        return {}
    return {score: (data["name"], data["digest"][:32]) for score, data in measured.items()}


def _step(line: Mapping[str, object]) -> int:
    step = line["step"]
    assert isinstance(step, int), "every line of the journal is of a step"
    return step


def _metrics_of(line: Mapping[str, object], model_id: str | None = None) -> list[Metric]:
    """The numbers of a line; a score's data set is that of the name it begins with (``da2k_kinds.aerial``: da2k).

    MLflow's page has a section for what stands before a slash, below that of the names without one.
    """
    from mlflow.entities import Metric

    step, time = _step(line), _milliseconds(line) or 0
    numbers = [
        (name, float(value))
        for name, value in flatten({key: value for key, value in line.items() if key not in ("step", "time")})
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    measured = _measured_on(line)

    def data_of(name: str) -> dict[str, str]:
        score = next((score for score in measured if name.startswith(score)), None)
        return {} if score is None else dict(zip(("dataset_name", "dataset_digest"), measured[score], strict=True))

    return [Metric(shown_as(name), value, time, step, model_id=model_id, **data_of(name)) for name, value in numbers]


def shown_as(name: str) -> str:
    """A number of the journal as MLflow's page names it: loss and accuracy first, the others in groups."""
    if name in FIRST:
        return name
    if name.startswith("da2k_kinds."):
        return f"scene kinds/{name.removeprefix('da2k_kinds.')}"
    if name.startswith("lr_"):
        return f"rates of learning/{name.removeprefix('lr_')}"
    group = next((group for group, names in GROUPS.items() if name in names), "parts of the loss")
    return f"{group}/{name}"


def _log_files(api: MlflowClient, run_id: str, folder: Path, lineage: Lineage) -> None:
    api.log_text(run_id, lineage.to_json(), "lineage.json")
    for name in JOURNALS:
        if (folder / name).is_file():
            api.log_artifact(run_id, str(folder / name))
    if (folder / "previews").is_dir():
        api.log_artifacts(run_id, str(folder / "previews"), "previews")
        _show_pictures(api, run_id, folder / "previews")


def _show_pictures(api: MlflowClient, run_id: str, folder: Path) -> None:
    """Put the previews where MLflow's page shows pictures by step, beside the curves; those that are there stay."""
    from PIL import Image, UnidentifiedImageError

    there = [file.path for file in api.list_artifacts(run_id, "images")]
    for path in sorted(folder.glob("step-*.png")):
        step = int(path.stem.removeprefix("step-"))
        if any(f"%step%{step}%" in name for name in there):
            continue
        try:
            with Image.open(path) as picture:
                api.log_image(run_id, picture.convert("RGB"), key="photograph - prediction - target", step=step)
        except UnidentifiedImageError:
            continue  # One that a kill cut off; the file itself is among the artefacts.


def _log_checkpoints(api: MlflowClient, experiment: str, run_id: str, run: str, folder: Path) -> dict[str, str]:
    """Each checkpoint folder that is whole becomes a logged model with the metrics of its step."""
    evaluations = {line["step"]: line for line in _plain(read_evaluations(folder))}
    models = {}
    for path in _whole_checkpoints(folder):
        step = int(path.name.removeprefix("step-"))
        line = evaluations.get(step, {"step": step})
        models[path.name] = _checkpoint_model(api, experiment, run_id, f"{run}-{step:06d}", path, line)
    return models


def _checkpoint_model(
    api: MlflowClient, experiment: str, run_id: str, name: str, path: Path, line: Mapping[str, object]
) -> str:
    """Identity of the logged model of a checkpoint; it becomes ready last, so that one cut off is gone on with."""
    from mlflow.entities import LoggedModelOutput

    step = _step(line)
    found = api.search_logged_models([experiment], f"source_run_id = '{run_id}' AND name = '{name}'")
    ready = [model for model in found if str(model.status) == "READY"]
    if ready:
        return str(ready[0].model_id)
    tags = {"dav2.weights_sha256": sha256_file(path / "model.safetensors"), "dav2.step": str(step)}
    model = found[0] if found else api.create_logged_model(experiment, name, run_id, tags, model_type="checkpoint")
    for file in CHECKPOINT_FILES:
        if (path / file).is_file():
            api.log_model_artifact(model.model_id, str(path / file))
    for chunk in _chunks(_metrics_of(line, model.model_id), METRICS_PER_REQUEST):
        api.log_batch(run_id, metrics=chunk)
    outputs = api.get_run(run_id).outputs
    if model.model_id not in [output.model_id for output in (outputs.model_outputs if outputs else [])]:
        api.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    api.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def flatten(tree: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """``{"a": {"b": 1}}`` → ``("a.b", 1)``; empty mappings and ``None`` are left out."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name}", value


def _chunks(items: list[Item], size: int) -> Iterator[list[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
