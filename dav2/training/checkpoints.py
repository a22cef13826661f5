"""Checkpoints that are whole or absent.

A checkpoint is the folder ``checkpoints/step-000100``. It is a model directory (``model.safetensors``, ``config.json``,
``card.md``) with the engine's state in ``engine/``, the run's in ``state.json``, and ``manifest.json`` with the size
and SHA-256 of every file. All of it is written to a temporary folder, synced, and takes its name in one rename.
``latest`` names the newest; it is a convenience for people and is never trusted: resuming takes the newest folder
whose manifest verifies. DeepSpeed's own files hold pickles, so nothing is loaded that no manifest of ours covers.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dav2 import layout
from dav2.files import sha256_file, sync, write_whole, written_whole
from dav2.params import CheckpointParams
from dav2.training.errors import TrainingError

MANIFEST = "manifest.json"
STATE = "state.json"
ENGINE = "engine"
LATEST = "latest"
TEMPORARY = ".tmp"
MODEL = (layout.CARD, layout.CONFIG, layout.WEIGHTS)
"""Files of a model directory, weights last."""
_NAME = re.compile(r"step-(\d{6,})")


class CheckpointError(TrainingError):
    """A checkpoint cannot be written or read; the message says why."""


class NoSpaceError(CheckpointError):
    """A checkpoint would not fit on the disk; nothing of it has been written."""


def folder_name(step: int) -> str:
    """Name of the checkpoint folder after ``step`` updates."""
    return f"step-{step:06d}"


def step_of(folder: Path) -> int:
    """Updates done in the checkpoint ``folder``.

    Raises:
        CheckpointError: the folder is not named like a checkpoint.
    """
    match = _NAME.fullmatch(folder.name)
    if match is None:
        raise CheckpointError(f"{folder} is not a checkpoint; its name should look like step-000100")
    return int(match.group(1))


def list_checkpoints(directory: Path) -> list[Path]:
    """Checkpoint folders by step, oldest first, verified or not."""
    found = [entry for entry in directory.glob("step-*") if _NAME.fullmatch(entry.name)] if directory.is_dir() else []
    return sorted(found, key=step_of)


def problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, or ``None`` when every file is there and has its recorded hash."""
    try:
        files: dict[str, dict[str, object]] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (json.JSONDecodeError, KeyError, UnicodeDecodeError):
        return f"{MANIFEST} is damaged"
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["size"] or sha256_file(path) != entry["sha256"]:
            return f"{name} does not match its recorded hash"
    return None


def newest(directory: Path) -> Path | None:
    """The newest checkpoint that verifies; ``None`` when there is none."""
    for folder in reversed(list_checkpoints(directory)):
        if problem(folder) is None:
            return folder
    return None


def read_state(folder: Path) -> dict[str, Any]:
    """The run's state in a checkpoint."""
    state: dict[str, object] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return state


def temporary_folder(directory: Path, step: int) -> Path:
    """Where the checkpoint of ``step`` is written before it has its name."""
    return directory / f"{folder_name(step)}{TEMPORARY}"


def begin(directory: Path, step: int) -> Path:
    """An empty temporary folder for the checkpoint of ``step``."""
    temporary = temporary_folder(directory, step)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def commit(temporary: Path, state: dict[str, object]) -> Path:
    """Give a filled temporary folder its name: state and manifest written, everything synced, one rename.

    A folder that already has the name (a resumed run reached the same step again) is replaced.

    Returns:
        The checkpoint folder.
    """
    directory = temporary.parent
    write_whole(temporary / STATE, json.dumps(state, indent=1))
    files = sorted(path for path in temporary.rglob("*") if path.is_file())
    entries = {}
    for path in files:
        sync(path)
        entries[str(path.relative_to(temporary))] = {"size": path.stat().st_size, "sha256": sha256_file(path)}
    write_whole(temporary / MANIFEST, json.dumps({"step": state["step"], "files": entries}, indent=1))
    for folder in [temporary, *(path for path in temporary.rglob("*") if path.is_dir())]:
        sync(folder)
    final = directory / temporary.name.removesuffix(TEMPORARY)
    _discard(final)
    temporary.rename(final)
    sync(directory)
    write_whole(directory / LATEST, final.name + "\n")
    return final


def clean(directory: Path) -> None:
    """Remove what an interrupted write or removal left behind."""
    for entry in directory.glob(f"*{TEMPORARY}"):
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


def prune(directory: Path, rules: CheckpointParams, best: int | None) -> list[Path]:
    """Remove checkpoints that no rule keeps: the newest ``keep_last``, multiples of ``keep_every``, and the best.

    Args:
        directory: the ``checkpoints`` folder.
        rules: see :class:`dav2.params.CheckpointParams`.
        best: step of the best checkpoint so far.

    Returns:
        The folders that were removed.
    """
    folders = list_checkpoints(directory)
    kept = {step_of(folder) for folder in folders[-rules.keep_last :]} | {best}
    removed = []
    for folder in folders:
        step = step_of(folder)
        if step not in kept and not (rules.keep_every and step % rules.keep_every == 0):
            _discard(folder)
            removed.append(folder)
    return removed


def export_model(folder: Path, target: Path) -> None:
    """Copy a checkpoint's model, ZeRO-3 or not, into a model directory of its own.

    Raises:
        CheckpointError: the folder is no checkpoint or is damaged.
    """
    step_of(folder)
    wrong = problem(folder)
    if wrong is not None:
        raise CheckpointError(f"{folder} cannot be used: {wrong}")
    # Weights last: a directory that has them is whole.
    for name in MODEL:
        with written_whole(target / name) as temporary:
            shutil.copyfile(folder / name, temporary)


def require_space(directory: Path, needed: int) -> None:
    """Refuse to begin a checkpoint that will not fit.

    Raises:
        NoSpaceError: fewer than ``needed`` bytes are free.
    """
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise NoSpaceError(
            f"{directory}: a checkpoint needs {needed / 1e6:.0f} MB and {free / 1e6:.0f} MB are free; make room, or "
            "keep fewer checkpoints (checkpoint.keep_last)"
        )


def write_with(temporary: Path, actions: list[Callable[[Path], object]]) -> None:
    """Fill a temporary folder; on an error it is removed again.

    Raises:
        CheckpointError: the disk is full or a file cannot be written.
    """
    try:
        for action in actions:
            action(temporary)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as a RuntimeError of its archive writer.
        shutil.rmtree(temporary, ignore_errors=True)
        raise CheckpointError(f"{temporary.parent}: the checkpoint could not be written: {error}") from error


def _discard(folder: Path) -> None:
    """Remove a checkpoint so that a half-removed one is never taken for whole: it loses its name first."""
    if folder.exists():
        grave = folder.with_name(f"{folder.name}.removed{TEMPORARY}")
        shutil.rmtree(grave, ignore_errors=True)
        folder.rename(grave)
        shutil.rmtree(grave)
