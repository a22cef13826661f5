"""What made a model: data, code, settings and parent models, as one JSON document.

DVC's hashes are read from ``dvc.lock``, which is YAML; DVC itself is never imported. Every hash can be computed again
from what is at hand, which is what :mod:`dav2.tracking.verify` does.
"""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from dav2 import layout
from dav2.code_state import git_state
from dav2.documents import DocumentError, LabelReceipt, Origin
from dav2.files import sha256_file
from dav2.params import Params
from dav2.runs import Run, get_run
from dav2.tracking.store import TrackingError
from dav2.training.journal import read_run

FORMAT = 1
HASH = "sum"
"""What the tags begin with that hold a digest: of raw data and shards DVC's, of all else SHA-256."""
LIBRARIES = ("torch", "deepspeed", "timm", "numpy")


@dataclass(frozen=True)
class Lineage:
    """Everything that made one model.

    Attributes:
        run: ``teacher``, ``student-<key>`` or ``metric-<range>``.
        weights_sha256: of ``model.safetensors``.
        code: commit, dirty (whether tracked files differ from it), when the run started; says why without git.
        parameters: the run's recipe with seed and compute settings, when it started.
        data: source → raw (DVC hash of the files as published), shards (DVC hash), manifest (sha256).
        labels: source → teacher (sha256 of its weights), receipts (sha256 over all receipts), shards, manifest.
        parents: models this one learned from: run, role (teacher, initial weights), weights_sha256.
        outside: models made elsewhere that it learned from: role, and what :class:`dav2.documents.Origin` says.
        environment: versions of Python, dav2 and the libraries that decide the numbers.
        kind: ``teacher``, ``student`` or ``metric``.
        stage: the stage of ``dvc.yaml`` that trains it.
        machine: precision, and processor and GPU (:class:`dav2.machine.Machine`), as the run recorded them.
    """

    run: str
    weights_sha256: str
    code: dict[str, Any]
    parameters: dict[str, Any]
    data: dict[str, dict[str, str]]
    labels: dict[str, dict[str, str]]
    parents: list[dict[str, str]]
    environment: dict[str, str] = field(default_factory=dict)
    machine: dict[str, object] = field(default_factory=dict)
    kind: str = ""
    stage: str = ""
    outside: list[dict[str, str]] = field(default_factory=list)
    format: int = FORMAT

    def to_json(self) -> str:
        """The document as text, keys in order."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Lineage:
        """Read what :meth:`to_json` wrote.

        Raises:
            TrackingError: it is no such document."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise TrackingError(f"this is not a lineage document of dav2: {error}") from None

    def tags(self) -> dict[str, str]:
        """The same as flat tags, for MLflow's pages, which sort them: what can be read comes first."""
        settings = self.parameters.get("recipe", {})
        tags = {
            "model.kind": self.kind,
            "model.size": str(settings.get("size", "")),
            "model.data": ", ".join(self.data),
            "model.steps": str(settings.get("steps", "")),
            "dav2.run": self.run,
            "dav2.weights_sha256": self.weights_sha256,
            "git.commit": str(self.code.get("commit", "unknown")),
            "git.dirty": str(self.code.get("dirty", "unknown")).lower(),
        }
        for source, hashes in self.data.items():
            tags |= {f"{HASH}.data.{source}.{kind}": value for kind, value in hashes.items()}
        for source, hashes in self.labels.items():
            tags |= {f"{HASH}.labels.{source}.{kind}": value for kind, value in hashes.items()}
        for parent in self.parents:
            known = f"{parent['name']} version {parent['version']}" if "version" in parent else "not registered"
            tags[f"parent.{parent['run']}"] = f"{parent['role']}: {known}"
            tags[f"{HASH}.parent.{parent['run']}"] = parent["weights_sha256"]
        for origin in self.outside:
            tags[f"{HASH}.outside.{origin['name']}"] = origin["weights_sha256"]
            tags[f"outside.{origin['name']}.licence"] = origin.get("licence", "unknown")
        return tags


def collect(run: str, root: Path, params: Params) -> Lineage:
    """Lineage of the finished run ``run`` of the project at ``root``.

    Raises:
        TrackingError: the model is not there, or ``dvc.lock`` cannot be read.
    """
    described = get_run(params, run)
    try:
        started = read_run(layout.training(root, run))
    except DocumentError as error:
        raise TrackingError(str(error)) from None
    locked = read_dvc_lock(root)
    return Lineage(
        run=run,
        weights_sha256=sha256_file(model_file(root, run)),
        # As they were when the run started: what is edited while it trains did not make its weights.
        code=dict(git_state(root)) if started is None else started.code.model_dump(exclude_none=True),
        parameters={
            "seed": params.seed if started is None else started.seed,
            "compute": params.compute.model_dump(mode="json") if started is None else started.compute,
            "recipe": described.settings.model_dump(mode="json") if started is None else started.settings,
        },
        data={name: data_hashes(root, params, name, locked) for name in described.sources},
        labels=label_hashes(described, root, params, locked),
        parents=[_parent(root, role, parent) for role, parent in described.parents.items()],
        outside=[_origin(root, role, name) for role, name in described.outside.items()],
        environment=_environment(),
        machine={} if started is None else started.model_dump(include={"precision", "precision_why", "machine"}),
        kind=described.kind,
        stage=described.stage,
    )


def model_file(root: Path, run: str) -> Path:
    """Weights of the finished run."""
    path = layout.weights(root, run)
    if not path.is_file():
        raise TrackingError(f"{path} is missing; run 'dvc repro', which trains '{run}'")
    return path


def read_dvc_lock(root: Path) -> dict[str, str]:
    """Path → hash of everything that ``dvc.lock`` says was read or written; empty where there is no ``dvc.lock``."""
    path = root / "dvc.lock"
    try:
        stages = yaml.safe_load(path.read_text(encoding="utf-8")).get("stages", {})
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, AttributeError) as error:
        raise TrackingError(f"{path} cannot be read ({error}); restore it with 'git checkout dvc.lock'") from None
    hashes: dict[str, str] = {}
    for part in ("deps", "outs"):  # What a stage wrote counts more than what a later stage found.
        for stage in stages.values():
            for entry in stage.get(part, []):
                hashes[entry["path"]] = str(entry.get("md5") or entry.get("hash") or "")
    return hashes


def data_hashes(root: Path, params: Params, source: str, locked: dict[str, str]) -> dict[str, str]:
    """Hashes of one source: raw files and shards as DVC knows them, and the manifest."""
    hashes = {"raw": locked.get(params.data_sets[source].path, ""), "shards": locked.get(params.shards(source), "")}
    manifest = root / params.shards(source) / "manifest.parquet"
    if manifest.is_file():
        hashes["manifest"] = sha256_file(manifest)
    return {kind: value for kind, value in hashes.items() if value}


def label_hashes(run: Run, root: Path, params: Params, locked: dict[str, str]) -> dict[str, dict[str, str]]:
    """Hashes of the pseudo-labels that a student saw; empty for other runs."""
    if run.student is None:
        return {}
    result = {}
    for source in run.student.sources:
        folder = root / params.labels(source)
        receipts = [_receipt(path) for path in sorted(folder.glob("*.receipt.json"))]
        if not receipts:
            raise TrackingError(f"{folder} holds no receipts of pseudo-labels; run 'dvc repro pseudo_label'")
        result[source] = {
            "teacher": ", ".join(sorted({receipt.teacher for receipt in receipts})),
            "receipts": hashlib.sha256(
                json.dumps([receipt.decisive() for receipt in receipts], sort_keys=True).encode()
            ).hexdigest(),
            "manifest": sha256_file(root / params.labels(source, run.student.labels) / "manifest.parquet"),
        }
    labels = locked.get(f"{layout.ARTIFACTS}/{run.student.labels}")
    return {source: {**hashes, "shards": labels} if labels else hashes for source, hashes in result.items()}


def _receipt(path: Path) -> LabelReceipt:
    try:
        return LabelReceipt.read(path)
    except DocumentError as error:
        raise TrackingError(f"{error} with 'dvc repro pseudo_label'") from None


def _parent(root: Path, role: str, run: str) -> dict[str, str]:
    return {"run": run, "role": role, "weights_sha256": sha256_file(model_file(root, run))}


def _origin(root: Path, role: str, name: str) -> dict[str, str]:
    return {"role": role, **read_origin(layout.outside(root, name)).model_dump(exclude={"format"}, exclude_none=True)}


def read_origin(folder: Path) -> Origin:
    """Where the model in ``folder``, which was made elsewhere, comes from.

    Raises:
        TrackingError: its record is missing or damaged.
    """
    path = folder / layout.ORIGIN
    try:
        return Origin.read(path)
    except FileNotFoundError:
        raise TrackingError(f"{path} is missing; 'dvc repro outside@{folder.name}' writes it") from None
    except DocumentError as error:
        raise TrackingError(str(error)) from None


def _environment() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for library in ("dav2", *LIBRARIES):
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            versions[library] = "not installed"
    return versions
