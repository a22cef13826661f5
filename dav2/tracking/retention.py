"""What may be removed, by rule; never what a registered version was made from or consists of.

Everything is listed before anything is removed. In doubt a rule does nothing and says why: a version that was
registered from uncommitted code may stand on data that no commit names, and then DVC's cache is left alone.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dav2 import layout
from dav2.files import TEMPORARY, sha256_file
from dav2.params import Params
from dav2.runs import all_runs
from dav2.tracking import store
from dav2.tracking.lineage import HASH
from dav2.tracking.versions import versions_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

DAY = 86400.0
KEPT_TAG = "dav2-kept-"
"""Tags of the commits that registered versions were made by."""


@dataclass(frozen=True)
class Removal:
    """One thing that a rule would remove.

    Attributes:
        rule: name of the rule.
        what: a path, or a name in MLflow.
        size: bytes that come free; 0 where it is not known.
        remove: removes it.
    """

    rule: str
    what: str
    size: int
    remove: Callable[[], None] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Kept:
    """What registered versions need.

    Attributes:
        weights: sha256 of their weights and of those of their parents.
        models: identities of their logged models.
        commits: of the code they were made by.
        dirty: names of those whose code was not committed.
    """

    weights: frozenset[str]
    models: frozenset[str]
    commits: frozenset[str]
    dirty: tuple[str, ...]


def kept(api: MlflowClient) -> Kept:
    """What every version of every registered model needs, whether it has an alias or not."""
    versions = [each for model in api.search_registered_models() for each in versions_of(api, model.name)]
    tags = [version.tags for version in versions]
    weights = {
        value
        for each in tags
        for name, value in each.items()
        if name == layout.WEIGHTS_TAG or name.startswith(("parent.", f"{HASH}.parent."))
    }
    return Kept(
        weights=frozenset(weights),
        models=frozenset(str(version.source).removeprefix("models:/") for version in versions),
        commits=frozenset(each["git.commit"] for each in tags if "git.commit" in each),
        dirty=tuple(f"{v.name}/{v.version}" for v in versions if v.tags.get("git.dirty") != "false"),
    )


def plan(root: Path, params: Params, days: float) -> tuple[list[Removal], list[str]]:
    """What every rule would remove of the project at ``root``, and remarks on what was left alone.

    Args:
        days: what is younger stays.

    Raises:
        TrackingError: MLflow does not answer; without it nobody knows what registered versions need.
    """
    api = store.client(root)
    with store.told(root):
        needed = kept(api)
        before = time.time() - days * DAY
        found = [*_unfinished(root), *_gone_runs(root, params, needed), *_job_logs(root, before)]
        found += _checkpoint_models(api, root, needed, before)
    cache, remark = _cache(root, needed)
    return [*found, *cache], [remark] if remark else []


def _unfinished(root: Path) -> Iterator[Removal]:
    """What killed writers left; nobody writes one file for a whole day."""
    for path in sorted((root / layout.ARTIFACTS).rglob(f"{TEMPORARY}*")):
        if path.is_file() and path.stat().st_mtime < time.time() - DAY:
            yield Removal("unfinished file", str(path), path.stat().st_size, path.unlink)


def _gone_runs(root: Path, params: Params, needed: Kept) -> Iterator[Removal]:
    """Training folders and models of runs that ``params.yaml`` no longer has."""
    runs = all_runs(params)
    for parent in (layout.TRAINING, layout.MODELS):
        for folder in sorted((root / parent).glob("*")):
            if folder.name in runs or folder.name == "teacher" or not folder.is_dir():
                continue
            weights = layout.model(root, folder.name) / layout.WEIGHTS
            if weights.is_file() and sha256_file(weights) in needed.weights:
                continue
            yield Removal("run that is gone", str(folder), _size(folder), partial(shutil.rmtree, folder))


def _job_logs(root: Path, before: float) -> Iterator[Removal]:
    """Logs of jobs on a cluster."""
    for path in sorted((root / layout.STATE / "slurm").glob("*.log")):
        if path.stat().st_mtime < before:
            yield Removal("job log", str(path), path.stat().st_size, path.unlink)


def _checkpoint_models(api: MlflowClient, root: Path, needed: Kept, before: float) -> Iterator[Removal]:
    """Checkpoints that MLflow keeps, but for registered ones, each run's last and its best; all their metrics stay."""
    by_run: dict[str, list[LoggedModel]] = {}
    for model in _logged_models(api, store.experiment(api, root)):
        by_run.setdefault(str(model.source_run_id), []).append(model)
    for models in by_run.values():
        last = max(models, key=lambda model: int(model.tags.get("dav2.step", 0)))
        best = max(models, key=_score)
        for model in models:
            registered = model.model_id in needed.models or model.tags.get(layout.WEIGHTS_TAG) in needed.weights
            if not registered and model not in (last, best) and model.creation_timestamp / 1000 < before:
                folder = _folder_of(root, model)
                size = _size(folder) if folder is not None else 0
                free = partial(_free, api, str(model.model_id), folder)
                yield Removal("checkpoint in MLflow", str(model.name), size, free)


def _logged_models(api: MlflowClient, experiment: str) -> Iterator[LoggedModel]:
    token = None
    while True:
        page = api.search_logged_models([experiment], page_token=token)
        yield from (model for model in page if model.model_type == "checkpoint")
        token = page.token
        if not token:
            return


def _score(model: LoggedModel) -> tuple[float, float]:
    values = {metric.key: metric.value for metric in model.metrics or []}
    return float(values.get("da2k", float("-inf"))), -float(values.get("val_loss", float("inf")))


def _folder_of(root: Path, model: LoggedModel) -> Path | None:
    """Folder of a logged model in the local store; ``None`` where a server keeps it."""
    folder = Path(str(model.artifact_location).removeprefix("file://"))
    return folder if store.artifact_root(root) in folder.parents else None


def _free(api: MlflowClient, identity: str, folder: Path | None) -> None:
    """Delete a logged model, and its files where they are this folder's own.

    ``mlflow gc`` is not called for it: it would also remove for good every run that was ever deleted. A server's owner
    calls it there.
    """
    api.delete_logged_model(identity)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _cache(root: Path, needed: Kept) -> tuple[list[Removal], str]:
    """DVC's cache, but for what the folder as it is, a branch, a tag or a registered version names; or why it stays.

    DVC collects by branches and tags, so the commit of each version gets a tag, which keeps git from losing it too.
    """
    if not (root / ".dvc" / "cache").is_dir():
        return [], ""
    if needed.dirty:
        return [], f"DVC's cache is left alone: {', '.join(needed.dirty)} came from uncommitted code or data"
    there = set(_output(root, "git", "rev-list", "--all").split())
    lost = sorted(needed.commits - there)
    if lost:
        return [], f"DVC's cache is left alone: no branch or tag holds commit {lost[0][:12]} of a registered version"

    def remove() -> None:
        for commit in sorted(needed.commits):
            _output(root, "git", "tag", "--force", f"{KEPT_TAG}{commit[:12]}", commit)
        _output(root, sys.executable, "-m", "dvc", "gc", "--workspace", "--all-branches", "--all-tags", "--force")

    size = _size(root / ".dvc" / "cache")
    what = f"in DVC's cache, of {size / 1e6:.0f} MB, what neither this folder, a branch, a tag nor a version names"
    return [Removal("DVC cache", what, 0, remove)], ""


def _output(root: Path, *command: str) -> str:
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
