"""Recordings that wait: a training that MLflow could not take is kept in ``.dav2/outbox`` and recorded later.

An entry is a folder with everything that the recording needs, as it was, so that another training of the same run takes
nothing away from it. It lies outside ``artifacts``, because DVC would take it for something that the training made, and
its delivery for a change of that. Delivered twice, an entry adds nothing: the run is found by its identity.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from dav2 import layout
from dav2.params import Params
from dav2.tracking import lineage as lineages
from dav2.tracking import runs, store
from dav2.tracking.lineage import Lineage
from dav2.tracking.store import TrackingError, UnavailableError

if TYPE_CHECKING:
    from mlflow import MlflowClient

FOLDER = "outbox"
LINEAGE = "lineage.json"


def record(run: str, root: Path, params: Params) -> dict[str, object]:
    """Record a finished training run, or put the recording into the outbox if MLflow cannot take it now.

    Returns:
        As :func:`dav2.tracking.runs.log_training`; or ``{"waiting": folder of the entry, "why": one line}``.

    Raises:
        TrackingError: the run left no files, or the disk is too full even for the entry.
    """
    lineage = lineages.collect(run, root, params)
    try:
        return runs.log_training(run, root, params, lineage)
    except UnavailableError as error:
        return {"waiting": str(put(root, lineage)), "why": str(error)}


def put(root: Path, lineage: Lineage) -> Path:
    """Keep what recording the run of ``lineage`` needs; returns the folder, which is whole or absent."""
    source = layout.training(root, lineage.run)
    entry = _outbox(root) / f"{lineage.run}-{runs.identity(lineage)[:16]}"
    with store.told(root, "the recording of a training, which itself is kept"), store.exclusive(root, FOLDER):
        _sweep(root)
        if entry.is_dir():
            return entry
        temporary = entry.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            temporary.mkdir(parents=True)
            (temporary / LINEAGE).write_text(lineage.to_json(), "utf-8")
            for path in runs.recorded_files(source):
                _keep(path, temporary / path.relative_to(source))
            temporary.rename(entry)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return entry


def waiting(root: Path) -> list[Path]:
    """Entries of the outbox, in order of their names."""
    return sorted(path for path in _outbox(root).glob("*") if path.is_dir() and not path.name.startswith("."))


def deliver(root: Path, api: MlflowClient) -> list[str]:
    """Record what waits; returns a line for each entry that says what became of it. Nothing is raised for one.

    A process that is killed meanwhile leaves its entry, and the next finds by the run's identity what is there already.
    """
    if not waiting(root):
        return []
    said = []
    with store.exclusive(root, FOLDER):
        _sweep(root)
        for entry in waiting(root):
            try:
                lineage = Lineage.from_json((entry / LINEAGE).read_text("utf-8"))
                recorded = runs.record_folder(api, root, lineage, entry)
            except (TrackingError, OSError, json.JSONDecodeError) as error:
                said.append(f"the recording {entry} waits on: {error}")
                continue
            gone = entry.with_name(f".{secrets.token_hex(8)}.tmp")
            entry.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)
            said.append(f"recorded {lineage.run}, which had waited in {entry}, as MLflow run {recorded['run_id']}")
    return said


def _outbox(root: Path) -> Path:
    return root / store.STATE / FOLDER


def _sweep(root: Path) -> None:
    """Remove what a killed process left; the lock is held, so nobody is at work on it."""
    for path in _outbox(root).glob(".*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


def _keep(path: Path, copy: Path) -> None:
    """Journals are appended to and are copied; large files never change in place and get a second name."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix not in (".json", ".jsonl"):
        try:
            os.link(path, copy)
        except OSError:
            pass  # Another file system, or one without links.
        else:
            return
    shutil.copyfile(path, copy)
