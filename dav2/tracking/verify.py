"""Hashes again what a version was made from, and says what no longer matches."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dav2 import layout
from dav2.documents import LabelReceipt
from dav2.families.directory import weights_digest
from dav2.files import sha256_file
from dav2.params import Params, ParamsError
from dav2.runs import get_run
from dav2.tracking import registry
from dav2.tracking.lineage import Lineage, label_hashes
from dav2.tracking.store import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

State = Literal["same", "differs", "absent"]


@dataclass(frozen=True)
class Check:
    """One hash made again: what it is of, and whether it is as recorded. ``absent``: not at hand on this machine."""

    what: str
    state: State
    detail: str = ""


Waiting = Callable[[], Check]
"""A check that is still to be made."""


def verify(api: MlflowClient, version: ModelVersion, root: Path, params: Params) -> list[Check]:
    """Hash weights, manifests, shards, raw data and label receipts of a version again."""
    return [check() for check in checks_of(api, version, root, params)]


def checks_of(api: MlflowClient, version: ModelVersion, root: Path, params: Params) -> list[Waiting]:
    """The checks of :func:`verify`, which take time when they are made."""
    lineage = registry.lineage_of(api, version)
    checks: list[Waiting] = [
        partial(_registered_weights, api, version, lineage),
        _weights(root, lineage.run, lineage.weights_sha256),
    ]
    checks += [_weights(root, parent["run"], parent["weights_sha256"]) for parent in lineage.parents]
    checks += [_outside(root, origin["name"], origin["weights_sha256"]) for origin in lineage.outside]
    for source, hashes in lineage.data.items():
        if source not in params.data_sets:
            checks.append(partial(Check, f"data {source}", "absent", "params.yaml has no such source"))
            continue
        checks += _data(root, params, source, hashes)
    return [*checks, *_labels(root, params, lineage)]


def dvc_hash(path: Path) -> str:
    """The md5 by which DVC 3 knows a file or folder.

    Of a folder: the md5 of the JSON list of its files' md5 and relative paths in order of path, ``.dir`` behind it.
    """
    # ``dvc.api`` gives no hash of what lies outside a repository's records; the function behind ``dvc add`` belongs to
    # an inner package and wants an object store to write to. A test holds this one to what ``dvc add`` records.
    if path.is_file():
        return _md5_file(path)
    entries = [
        {"md5": _md5_file(file), "relpath": file.relative_to(path).as_posix()}
        for file in path.rglob("*")
        if file.is_file()
    ]
    entries.sort(key=lambda entry: entry["relpath"])
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def _md5_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _compare(what: str, path: Path, recorded: str, make: Callable[[Path], str]) -> Check:
    if not path.exists():
        return Check(what, "absent", f"{path} is not here")
    found = make(path)
    return Check(what, "same") if found == recorded else Check(what, "differs", f"{recorded[:12]} → {found[:12]}")


def _outside(root: Path, name: str, recorded: str) -> Waiting:
    return partial(_compare, f"weights of outside.{name}", layout.outside(root, name), recorded, weights_digest)


def _weights(root: Path, run: str, recorded: str) -> Waiting:
    return partial(_compare, f"weights of {run}", layout.weights(root, run), recorded, sha256_file)


def _registered_weights(api: MlflowClient, version: ModelVersion, lineage: Lineage) -> Check:
    """The registry's own copy."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    what = f"weights in the registry ({version.name} version {version.version})"
    uri = f"{registry.files_of(api, version)}/artifacts/{lineage.run}/model.safetensors"
    try:
        return _compare(what, Path(download_artifacts(uri)), lineage.weights_sha256, sha256_file)
    except (MlflowException, OSError) as error:
        return Check(what, "absent", str(error))


def _data(root: Path, params: Params, source: str, hashes: dict[str, str]) -> Iterator[Waiting]:
    shards = root / params.shards(source)
    if "manifest" in hashes:
        yield partial(_compare, f"manifest of {source}", shards / "manifest.parquet", hashes["manifest"], sha256_file)
        yield from _shards(source, shards)
    if "raw" in hashes:
        yield partial(_compare, f"raw data of {source}", root / params.data_sets[source].path, hashes["raw"], dvc_hash)


def _shards(source: str, folder: Path) -> Iterator[Waiting]:
    """Shards against the hashes that their manifest carries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dav2.data import storage
    from dav2.data.store.manifest import shard_path

    try:
        metadata = pq.read_schema(folder / "manifest.parquet").metadata or {}
    except (OSError, pa.ArrowInvalid):
        return  # Absent or damaged: the manifest's own check says so.
    for name, entry in json.loads(metadata.get(b"shards", b"{}")).items():
        path = shard_path(folder, name)
        if storage.is_remote(path):
            yield partial(_stored, f"shard {source}/{name}", path, int(entry["bytes"]))
        else:
            yield partial(_compare, f"shard {source}/{name}", Path(path), entry["sha256"], sha256_file)


def _stored(what: str, path: str, expected: int) -> Check:
    """An object by its size: the store checked its bytes on arrival, and to hash them is to fetch them all."""
    from dav2.data import storage

    try:
        size = storage.size(path)
    except OSError as error:
        return Check(what, "absent", str(error))
    return Check(what, "same" if size == expected else "differs", "" if size == expected else f"{size} bytes")


def _labels(root: Path, params: Params, lineage: Lineage) -> Iterator[Waiting]:
    if not lineage.labels:
        return
    try:
        found = label_hashes(get_run(params, lineage.run), root, params, {})
    except (TrackingError, ParamsError, OSError) as error:
        yield partial(Check, "pseudo-labels", "absent", str(error))
        return
    for source, hashes in lineage.labels.items():
        for kind in ("receipts", "manifest", "teacher"):
            now = str(found.get(source, {}).get(kind, ""))
            state: State = "same" if now == hashes[kind] else "differs" if now else "absent"
            yield partial(
                Check,
                f"label {kind} of {source}",
                state,
                "" if state == "same" else f"{hashes[kind][:12]} → {now[:12]}",
            )
        yield from _label_shards(source, root / params.labels(source))


def _label_shards(source: str, folder: Path) -> Iterator[Waiting]:
    for path in sorted(folder.glob("*.receipt.json")):
        receipt = LabelReceipt.read(path)
        what = f"label shard {source}/{receipt.shard}"
        yield partial(_compare, what, folder / receipt.shard, receipt.label_sha256, sha256_file)
