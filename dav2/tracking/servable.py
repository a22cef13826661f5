"""The logged model behind a version: a model directory with its serving code and documents, whole before it counts.

Whatever a killed process left is known for sure as its own: each model carries the place in which it was made, and only
one process of a place registers a model of that name at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

from dav2.files import write_whole
from dav2.layout import CARD, WEIGHTS_TAG
from dav2.licences.lines import with_section
from dav2.tracking import lineage as lineages
from dav2.tracking import store
from dav2.tracking.lineage import Lineage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

PLACE_TAG, NAME_TAG = "dav2.place", "dav2.registered_as"
LINEAGE = "lineage.json"
PROJECT_FILES = ("params.yaml", "dvc.lock")


@contextmanager
def workspace(root: Path, name: str) -> Iterator[Path]:
    """An empty folder for what is being registered as ``name``; its lock must be held. Leftovers are removed."""
    folder = root / store.STATE / "register" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def log_servable(
    api: MlflowClient,
    run_id: str | None,
    root: Path,
    name: str,
    lineage: Lineage,
    documents: dict[str, str],
    licences: str,
) -> str:
    """Log model directory and serving code as a pyfunc model for ``name``; returns its identity.

    ``licences`` is the section of the model's card that says what it was made from, as it is known now.

    One of the same weights that a killed process began is gone on with, one of other weights is removed. The lock
    of ``name`` must be held, and no version may hold these weights yet.
    """
    from mlflow.entities import LoggedModelOutput

    from dav2.tracking.pyfunc import save_pyfunc

    experiment = store.experiment(api, root)
    model = _left_behind(api, experiment, root, name, lineage)
    if model is None:
        tags = {WEIGHTS_TAG: lineage.weights_sha256, PLACE_TAG: store.place(root), NAME_TAG: name}
        model = api.create_logged_model(experiment, lineage.run, run_id, tags, model_type="final")
    model_id = str(model.model_id)
    with workspace(root, name) as folder:
        package = folder / "model"
        save_pyfunc(lineages.model_file(root, lineage.run).parent, package, model_id)
        for path in package.rglob(CARD):
            write_whole(path, with_section(path.read_text("utf-8"), licences))
        api.log_model_artifacts(model_id, str(package))
    documents = {LINEAGE: lineage.to_json(), **documents}
    # Settings and hashes as they were, committed or not: what 'dav2 reproduce' puts back.
    documents |= {file: (root / file).read_text("utf-8") for file in PROJECT_FILES if (root / file).is_file()}
    attach(api, root, name, model_id, documents)
    outputs = api.get_run(run_id).outputs if run_id is not None else None
    if run_id is not None and model_id not in [each.model_id for each in (outputs.model_outputs if outputs else [])]:
        step = int(lineage.parameters["recipe"]["steps"])
        api.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
    api.finalize_logged_model(model_id, "READY")
    return model_id


def attach(api: MlflowClient, root: Path, name: str, model_id: str, documents: dict[str, str]) -> None:
    """Put text files beside the weights of a logged model, in place of those of the same names."""
    with workspace(root, name) as folder:
        for file, text in documents.items():
            write_whole(folder / file, text)
            api.log_model_artifact(model_id, str(folder / file))


def _left_behind(api: MlflowClient, experiment: str, root: Path, name: str, lineage: Lineage) -> LoggedModel | None:
    """A model of these weights that was begun here; half-written ones of other weights are removed."""
    mine = f"tags.`{PLACE_TAG}` = '{store.place(root)}' AND tags.`{NAME_TAG}` = '{name}'"
    found = None
    for model in api.search_logged_models([experiment], mine):
        if model.tags.get(WEIGHTS_TAG) == lineage.weights_sha256 and found is None:
            found = model
        elif str(model.status) == "PENDING":
            api.delete_logged_model(model.model_id)
            location = urlparse(model.artifact_location)
            if location.scheme in ("", "file"):
                shutil.rmtree(unquote(location.path), ignore_errors=True)
    return found
