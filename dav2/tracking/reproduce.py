"""Puts code, settings and data of a registered version into a folder of their own, ready to be run again."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dav2 import layout
from dav2.files import write_whole
from dav2.params import ParamsError
from dav2.params.text import check_words, decode, parse
from dav2.tracking import registry
from dav2.tracking.servable import PROJECT_FILES
from dav2.tracking.store import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Reproduction:
    """What was put where.

    Attributes:
        folder: a git worktree at the version's commit, with its params.yaml and dvc.lock.
        commands: what to run, in order.
        warnings: what cannot be the same, and why.
    """

    folder: Path
    commands: list[str]
    warnings: list[str]


def reproduce(api: MlflowClient, version: ModelVersion, root: Path, folder: Path) -> Reproduction:
    """Check out the code of ``version`` into ``folder`` (which must not exist) and put its settings there.

    Raises:
        TrackingError: the version's commit is not known or not here, ``folder`` exists, or its settings are not safe.
    """
    lineage = registry.lineage_of(api, version)
    commit = lineage.code.get("commit")
    if not commit:
        raise TrackingError(f"{version.name} version {version.version} names no commit: {lineage.code.get('unknown')}")
    if folder.exists():
        raise TrackingError(f"{folder} exists; name another folder with --into")
    documents = _documents(api, version)
    done = subprocess.run(
        ["git", "worktree", "add", "--detach", str(folder.resolve()), commit], cwd=root, capture_output=True, text=True
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["git failed"])[-1]
        raise TrackingError(f"commit {commit[:12]} cannot be checked out ({reason}); fetch it with 'git fetch --all'")
    warnings = []
    if lineage.code.get("dirty"):
        files = ", ".join(lineage.code.get("changed", []))
        warnings.append(f"the model was made with uncommitted changes to {files}; what of them is not settings is lost")
    for name in PROJECT_FILES:
        if name in documents:
            write_whole(folder / name, documents[name])
        else:
            warnings.append(f"the version holds no {name}; the commit's own is used")
    cache = (root / ".dvc" / "cache").resolve()
    commands = [
        f"cd {folder}",
        f"dvc cache dir --local {cache}",
        *(["dvc pull data.dvc"] if (folder / "data.dvc").exists() else []),
        f"dvc repro {lineage.stage}".rstrip(),
        f"sha256sum {layout.weights(Path(), lineage.run)}  # was {lineage.weights_sha256}",
    ]
    return Reproduction(folder, commands, warnings)


def _documents(api: MlflowClient, version: ModelVersion) -> dict[str, str]:
    """Settings and lock file that the version holds, read before anything is written.

    Raises:
        TrackingError: params.yaml holds a name that DVC must not put into a command.
    """
    found = {}
    for name in PROJECT_FILES:
        try:
            found[name] = registry.read_document(api, version, name)
        except TrackingError:
            continue
    if "params.yaml" in found:
        where = f"params.yaml of {version.name} version {version.version}"
        try:
            check_words(parse(decode(found["params.yaml"].encode(), where), where), where)
        except ParamsError as error:
            raise TrackingError(f"{error}; nothing was checked out") from None
    return found
