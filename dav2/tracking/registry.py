"""Registered models: a version is ``candidate`` when registered, ``champion`` by promotion, ``previous`` for rollback.

Every version carries, beside its weights, the evidence its gates look at: scores, baselines, data gates, size, lineage.
A promotion therefore judges what was registered, wherever it runs and whatever has changed on disk since.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dav2.params import Params
from dav2.runs import get_run
from dav2.tracking import lineage as lineages
from dav2.tracking import runs, store
from dav2.tracking.decisions import CANDIDATE, CHAMPION
from dav2.tracking.lineage import Lineage
from dav2.tracking.store import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

WEIGHTS_TAG = "dav2.weights_sha256"
EVIDENCE, LINEAGE, SCORES = "evidence.json", "lineage.json", "scores.json"
PROJECT_FILES = ("params.yaml", "dvc.lock")
BASELINES = ("baseline-constant", "baseline-row", "baseline-brightness")


@dataclass(frozen=True)
class Registered:
    """A version in the registry.

    Attributes:
        name: registered model.
        version: counted from 1.
        run: training run that made it.
        model_id: logged model that holds its files.
        weights_sha256: of its weights.
        new: whether this call made the version.
    """

    name: str
    version: str
    run: str
    model_id: str
    weights_sha256: str
    new: bool

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if key != "new"}


def register(run: str, root: Path, params: Params, scores: dict[str, Any]) -> Registered:
    """Register the final model of ``run`` as a servable version with the alias ``candidate``.

    Weights that are registered already keep their version; its evidence is brought up to date.

    Args:
        scores: content of ``artifacts/scores/<run>.json``.

    Raises:
        TrackingError: the scores are of other weights, the run was not recorded, or MLflow cannot be reached.
    """
    lineage = lineages.collect(run, root, params)
    if scores.get("weights_sha256") != lineage.weights_sha256:
        raise TrackingError(
            f"artifacts/scores/{run}.json was made from other weights than artifacts/models/{run} holds; "
            f"run 'dvc repro' to score the model again"
        )
    name = get_run(params, run).registered
    api = store.client(root)
    with store.exclusive(root, f"register-{name}"):
        lineage = _with_parent_versions(api, root, params, lineage)
        evidence = collect_evidence(root, params, scores, lineage)
        found = version_of_weights(api, name, lineage.weights_sha256)
        if found is not None:
            model_id = model_id_of(found)
            _attach(api, model_id, _documents(evidence, scores))
            _tag_scores(api, name, found.version, scores)
            return Registered(name, str(found.version), run, model_id, lineage.weights_sha256, new=False)
        experiment = store.experiment(api, root)
        run_id = runs.find_run(api, experiment, lineage)
        model_id = _log_servable(api, experiment, run_id, root, lineage, _documents(evidence, scores))
        version = _create_version(api, name, model_id, run_id, lineage)
        _tag_scores(api, name, version, scores)
        api.set_registered_model_alias(name, CANDIDATE, version)
    return Registered(name, version, run, model_id, lineage.weights_sha256, new=True)


def collect_evidence(root: Path, params: Params, scores: dict[str, Any], lineage: Lineage) -> dict[str, Any]:
    """What gates look at, as it is on disk now."""
    quality = {path.parent.name: _read(path) for path in sorted((root / "artifacts" / "quality").glob("*/result.json"))}
    baselines = {}
    for name in BASELINES:
        path = root / "artifacts" / "scores" / f"{name}.json"
        if path.is_file():
            baselines[name] = _read(path).get("da2k", {}).get("accuracy")
    weights = lineages.model_file(root, lineage.run)
    return {
        "scores": _summary(scores),
        "baselines": baselines,
        "quality": {
            group: {key: result.get(key) for key in ("passed", "digest", "failures", "expectations", "frames")}
            for group, result in quality.items()
        },
        "megabytes": weights.stat().st_size / 1e6,
    }


def _summary(scores: dict[str, Any]) -> dict[str, Any]:
    """What gates compare of a score file, without the outcomes of single images."""

    def chosen(part: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
        return {name: part[name] for name in names if name in part}

    summary = chosen(scores, ("model", "weights_sha256", "latency_ms"))
    if "da2k" in scores:
        summary["da2k"] = chosen(scores["da2k"], ("accuracy", "low", "high", "pairs", "kinds", "data"))
    compared = ("protocol", "protocol_hash", "data", "metrics", "intervals", "frames")
    summary["benchmarks"] = {name: chosen(each, compared) for name, each in scores.get("benchmarks", {}).items()}
    return summary


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _documents(evidence: dict[str, Any], scores: dict[str, Any]) -> dict[str, str]:
    """What lies beside the weights of a version: what gates compare, and every outcome for paired comparisons."""
    return {EVIDENCE: json.dumps(evidence, indent=1), SCORES: json.dumps(scores)}


def _with_parent_versions(api: MlflowClient, root: Path, params: Params, lineage: Lineage) -> Lineage:
    """The lineage with name and version of each parent that is registered."""
    parents = []
    for parent in lineage.parents:
        name = get_run(params, parent["run"]).registered
        version = version_of_weights(api, name, parent["weights_sha256"])
        known = {"name": name, "version": str(version.version)} if version is not None else {}
        parents.append({**parent, **known})
    return Lineage(**{**asdict(lineage), "parents": parents})


def version_of_weights(api: MlflowClient, name: str, weights_sha256: str) -> ModelVersion | None:
    """Newest version of ``name`` that holds these weights."""
    found = [v for v in api.search_model_versions(f"name = '{name}'") if v.tags.get(WEIGHTS_TAG) == weights_sha256]
    return max(found, key=lambda version: int(version.version)) if found else None


def model_id_of(version: ModelVersion) -> str:
    """Logged model of a version; REST answers leave ``model_id`` empty, the source always names it."""
    return str(version.model_id or version.source.removeprefix("models:/"))


def evidence_of(api: MlflowClient, version: ModelVersion) -> dict[str, Any]:
    """What was known of a version when it was registered."""
    evidence: dict[str, Any] = json.loads(read_document(api, version, EVIDENCE))
    return evidence


def champion_scores(run: str, root: Path, params: Params) -> dict[str, Any] | None:
    """Content of the score file of the champion among the versions of ``run``; ``None`` if there is no champion.

    Raises:
        TrackingError: MLflow cannot be reached, or the champion's scores are gone.
    """
    from mlflow.exceptions import MlflowException

    api = store.client(root)
    try:
        champion = api.get_model_version_by_alias(get_run(params, run).registered, CHAMPION)
    except MlflowException:
        return None
    scores: dict[str, Any] = json.loads(read_document(api, champion, SCORES))
    return scores


def lineage_of(api: MlflowClient, version: ModelVersion) -> Lineage:
    """Lineage of a version."""
    return Lineage.from_json(read_document(api, version, LINEAGE))


def read_document(api: MlflowClient, version: ModelVersion, name: str) -> str:
    """A text file that lies beside the weights of a version."""
    from mlflow.artifacts import load_text
    from mlflow.exceptions import MlflowException

    try:
        return str(load_text(f"{files_of(api, version)}/{name}"))
    except (MlflowException, OSError) as error:
        raise TrackingError(f"{version.name} version {version.version} has no {name}: {error}") from None


def files_of(api: MlflowClient, version: ModelVersion) -> str:
    """Address of the folder that holds the files of a version."""
    return str(api.get_logged_model(model_id_of(version)).artifact_location).rstrip("/")


def resolve(api: MlflowClient, model: str) -> ModelVersion:
    """The version that ``name``, ``name@alias`` or ``name/version`` means.

    A bare name means the champion, else the candidate, else the newest version.

    Raises:
        TrackingError: there is no such model, alias or version.
    """
    from mlflow.exceptions import MlflowException

    name, at, alias = model.partition("@")
    name, slash, number = name.partition("/")
    try:
        if at:
            return api.get_model_version_by_alias(name, alias)
        if slash:
            return api.get_model_version(name, number)
        aliases = api.get_registered_model(name).aliases
    except MlflowException:
        raise TrackingError(f"no registered model answers to '{model}'; 'dav2 models' lists them") from None
    for each in (CHAMPION, CANDIDATE):
        if each in aliases:
            return api.get_model_version(name, str(aliases[each]))
    versions = api.search_model_versions(f"name = '{name}'")
    if not versions:
        raise TrackingError(f"'{name}' has no versions yet; 'dvc repro register' makes one")
    return max(versions, key=lambda version: int(version.version))


def _log_servable(
    api: MlflowClient, experiment: str, run_id: str | None, root: Path, lineage: Lineage, documents: dict[str, str]
) -> str:
    """Log model directory and serving code as a pyfunc model; returns its identity."""
    from mlflow.entities import LoggedModelOutput

    from dav2.tracking.pyfunc import save_pyfunc

    tags = {WEIGHTS_TAG: lineage.weights_sha256}
    model = api.create_logged_model(experiment, lineage.run, run_id, tags, model_type="final")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, "model")
        save_pyfunc(lineages.model_file(root, lineage.run).parent, package, model.model_id)
        api.log_model_artifacts(model.model_id, str(package))
    documents = {LINEAGE: lineage.to_json(), **documents}
    # Settings and hashes as they were, committed or not: what 'dav2 reproduce' puts back.
    documents |= {name: (root / name).read_text("utf-8") for name in PROJECT_FILES if (root / name).is_file()}
    _attach(api, model.model_id, documents)
    api.finalize_logged_model(model.model_id, "READY")
    if run_id is not None:
        step = int(lineage.parameters["recipe"]["steps"])
        api.log_outputs(run_id, [LoggedModelOutput(model.model_id, step)])
    return str(model.model_id)


def _attach(api: MlflowClient, model_id: str, documents: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in documents.items():
            path = Path(folder, name)
            path.write_text(text, encoding="utf-8")
            api.log_model_artifact(model_id, str(path))


def _create_version(api: MlflowClient, name: str, model_id: str, run_id: str | None, lineage: Lineage) -> str:
    from mlflow.exceptions import MlflowException

    try:
        api.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = api.create_model_version(
        name, f"models:/{model_id}", run_id=run_id, tags=lineage.tags(), model_id=model_id
    )
    return str(version.version)


def _tag_scores(api: MlflowClient, name: str, version: str, scores: dict[str, Any]) -> None:
    accuracy = scores.get("da2k", {}).get("accuracy")
    if accuracy is not None:
        api.set_model_version_tag(name, version, "da2k.accuracy", f"{accuracy:.4f}")
