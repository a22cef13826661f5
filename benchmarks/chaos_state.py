"""What a stage leaves behind, in a form in which two runs can be compared: files, registry, records of runs."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KEPT = (".dav2/mlflow.db", ".dav2/mlflow.db-journal", ".dav2/mlflow", ".dav2/outbox", "dvc.lock")
"""What stages change beside their own outputs."""
IGNORED = {".git", ".dvc", ".dav2", "__pycache__", "data", ".ruff_cache", ".mypy_cache"}
"""Folders of a project in which no stage leaves results; of ``.dav2`` only what KEPT names is looked at."""
MEASURED = {"memory_mb", "data_wait", "seconds", "time"}
"""Values that a run measures of itself, which two runs may have in common by chance."""
QUERIES = {
    "alias": "select name || '@' || alias, version from registered_model_aliases",
    "version": "select name || '/' || version, status || current_stage from model_versions",
    "version tag": "select name || '/' || version || ':' || key, value from model_version_tags",
    "model tag": "select name || ':' || key, value from registered_model_tags",
    "run": "select name, status || lifecycle_stage from runs",
    "parameter": "select r.name || ':' || p.key, p.value from params p join runs r using (run_uuid)",
    "metric": "select r.name || '#' || key || '#[' || step || ']', value from metrics m join runs r using (run_uuid)",
    "logged model": "select name, status || lifecycle_stage from logged_models",
}
"""Kind of a record → query for (name, value) of each."""


@dataclass
class State:
    """A moment of a project.

    Attributes:
        outputs: relative path → copy of each output of the stage that is there.
        kept: copies of KEPT, likewise.
        facts: name of a file, of a value in it or of a record → hash or value.
    """

    outputs: dict[str, Path]
    kept: dict[str, Path]
    facts: dict[str, str]


def facts(folder: Path, outputs: list[str]) -> dict[str, str]:
    """Everything about a project that a disturbed run must get right, by name."""
    found = {f"file {path.relative_to(folder)}": "" for path in _files(folder)}
    for output in outputs:
        place = folder / output
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file():
                found.update(_content(path, str(path.relative_to(folder))))
    return found | _records(folder / ".dav2/mlflow.db")


def volatile(one: State, other: State) -> set[str]:
    """Names of what two undisturbed runs differ in, positions in lists left out, and of what is measured."""
    names = one.facts.keys() | other.facts.keys()
    differs = {_place(name) for name in names if one.facts.get(name) != other.facts.get(name)}
    return differs | {_place(name) for name in names if MEASURED & {*name.split("#")}}


def differences(expected: State, found: State, free: set[str]) -> list[str]:
    """What is missing, left over or of another value, each as a short line."""
    lines = []
    for name in sorted(expected.facts.keys() | found.facts.keys()):
        if expected.facts.get(name) == found.facts.get(name) or _place(name) in free:
            continue
        how = "missing" if name not in found.facts else "left over" if name not in expected.facts else "differs"
        lines.append(f"{how}: {name}")
    return lines[:5]


def copied(source: Path, target: Path) -> Path:
    """A copy of a file or folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, symlinks=True)
    else:
        shutil.copy2(source, target)
    return target


def removed(path: Path) -> None:
    """Delete a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    found = []
    for top in folder.iterdir():
        if top.name not in IGNORED:
            found += [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
    return [path for path in found if "__pycache__" not in path.parts]


def _content(path: Path, name: str) -> dict[str, str]:
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text(encoding="utf-8")
        whole = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
        return {f"{name}{place}": repr(value) for place, value in _leaves(whole, "")}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()}


def _leaves(value: Any, place: str) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{place}#{key}")]
    if isinstance(value, list) and value:
        return [leaf for at, inner in enumerate(value) for leaf in _leaves(inner, f"{place}#[{at}]")]
    return [(place, value)]


def _place(name: str) -> str:
    """``metrics.jsonl#[]#seconds`` for the seconds of any line."""
    return "#".join("[]" if part.startswith("[") else part for part in name.split("#"))


def _records(database: Path) -> dict[str, str]:
    if not database.is_file():
        return {}
    found: dict[str, list[str]] = defaultdict(list)
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        for kind, query in QUERIES.items():
            for name, value in connection.execute(query):
                found[f"{kind} {name}"].append(str(value))
    connection.close()
    return {name: " | ".join(sorted(values)) for name, values in found.items()}
