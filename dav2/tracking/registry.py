"""Registered models: a version is ``candidate`` when registered, ``champion`` by promotion, ``previous`` for rollback.

Every version carries, beside its weights, the evidence its gates look at: scores, baselines, data gates, size, lineage.
A promotion therefore judges what was registered, wherever it runs and whatever has changed on disk since.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from dav2 import layout
from dav2.documents import DocumentError, Evidence, Judgement, Verdict
from dav2.params import Params
from dav2.runs import get_run
from dav2.tracking import decisions, runs, servable, store, versions
from dav2.tracking import lineage as lineages
from dav2.tracking.decisions import CANDIDATE, CHAMPION
from dav2.tracking.lineage import Lineage
from dav2.tracking.servable import LINEAGE
from dav2.tracking.store import TrackingError
from dav2.tracking.versions import version_of_weights, versions_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

EVIDENCE, SCORES = "evidence.json", "scores.json"
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
        """What the stage leaves for people."""
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
    size = lineages.model_file(root, run).stat().st_size / 1e6
    api = store.client(root)
    with store.told(root, f"{size:.0f} MB for {name}"), store.exclusive(root, f"register-{name}"):
        lineage = _with_parent_versions(api, root, params, lineage)
        documents = _documents(collect_evidence(root, params, scores, lineage), scores)
        version = version_of_weights(api, name, lineage.weights_sha256)
        new = version is None
        if version is None:
            run_id = runs.find_run(api, store.experiment(api, root), lineage)
            model_id = servable.log_servable(api, run_id, root, name, lineage, documents)
            version = versions.create_version(api, name, model_id, run_id, lineage.tags() | _score_tags(scores))
        else:
            servable.attach(api, root, name, model_id_of(version), documents)
            for tag, value in _score_tags(scores).items():
                api.set_model_version_tag(name, version.version, tag, value)
        kept = versions.without_duplicates(api, name, version)
        new = new and kept.version == version.version
        versions.raise_candidate(api, name, kept)
    return Registered(name, str(kept.version), run, model_id_of(kept), lineage.weights_sha256, new=new)


def collect_evidence(root: Path, params: Params, scores: dict[str, Any], lineage: Lineage) -> Evidence:
    """What gates look at, as it is on disk now."""
    quality = {path.parent.name: _verdict(path) for path in sorted((root / layout.QUALITY).glob("*/result.json"))}
    baselines = {}
    for name in BASELINES:
        path = layout.scores(root, name)
        if path.is_file():
            baselines[name] = _read(path).get("da2k", {}).get("accuracy")
    weights = lineages.model_file(root, lineage.run)
    run = get_run(params, lineage.run)
    return Evidence(
        kind=run.kind,
        validated=list(run.validated),
        scores=_summary(scores),
        baselines=baselines,
        quality=quality,
        megabytes=weights.stat().st_size / 1e6,
    )


def _verdict(path: Path) -> Judgement:
    try:
        found = Verdict.read(path)
    except DocumentError as error:
        raise TrackingError(str(error)) from None
    return Judgement(**found.model_dump(include=set(Judgement.model_fields)))


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


def _documents(evidence: Evidence, scores: dict[str, Any]) -> dict[str, str]:
    """What lies beside the weights of a version: what gates compare, and every outcome for paired comparisons."""
    return {EVIDENCE: evidence.model_dump_json(indent=1), SCORES: json.dumps(scores)}


def _with_parent_versions(api: MlflowClient, root: Path, params: Params, lineage: Lineage) -> Lineage:
    """The lineage with name and version of each parent that is registered."""
    parents = []
    for parent in lineage.parents:
        name = get_run(params, parent["run"]).registered
        version = version_of_weights(api, name, parent["weights_sha256"])
        known = {"name": name, "version": str(version.version)} if version is not None else {}
        parents.append({**parent, **known})
    return Lineage(**{**asdict(lineage), "parents": parents})


def model_id_of(version: ModelVersion) -> str:
    """Logged model of a version; REST answers leave ``model_id`` empty, the source always names it."""
    return str(version.model_id or version.source.removeprefix("models:/"))


def evidence_of(api: MlflowClient, version: ModelVersion) -> Evidence:
    """What was known of a version when it was registered."""
    try:
        return Evidence.model_validate_json(read_document(api, version, EVIDENCE))
    except ValidationError as error:
        raise _damaged(version, EVIDENCE, error) from None


def _read_json(api: MlflowClient, version: ModelVersion, document: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(read_document(api, version, document))
    except json.JSONDecodeError as error:
        raise _damaged(version, document, error) from None
    return content


def _damaged(version: ModelVersion, document: str, error: Exception) -> TrackingError:
    what = str(error).splitlines()[0]
    return TrackingError(
        f"{document} of {version.name} version {version.version} is damaged ({what}); "
        "'dvc repro -f register' writes it again"
    )


def champion_scores(run: str, root: Path, params: Params) -> dict[str, Any] | None:
    """Content of the score file of the champion among the versions of ``run``; ``None`` if there is no champion.

    Raises:
        TrackingError: MLflow cannot be reached, or the champion's scores are gone.
    """
    from mlflow.exceptions import MlflowException

    api, name = store.client(root), get_run(params, run).registered
    with store.told(root):
        try:
            decisions.settle(api, name)
            aliases = api.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        if CHAMPION not in aliases:
            return None
        return _read_json(api, api.get_model_version(name, str(aliases[CHAMPION])), SCORES)


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
        if store.is_outage(error):
            raise
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
        if slash:
            return api.get_model_version(name, number)
        decisions.settle(api, name)
        if at:
            return api.get_model_version_by_alias(name, alias)
        aliases = api.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise TrackingError(f"no registered model answers to '{model}'; 'dav2 models' lists them") from None
    for each in (CHAMPION, CANDIDATE):
        if each in aliases:
            return api.get_model_version(name, str(aliases[each]))
    found = versions_of(api, name)
    if not found:
        raise TrackingError(f"'{name}' has no versions yet; 'dvc repro register' makes one")
    return max(found, key=lambda version: int(version.version))


def _score_tags(scores: dict[str, Any]) -> dict[str, str]:
    accuracy = scores.get("da2k", {}).get("accuracy")
    return {} if accuracy is None else {"da2k.accuracy": f"{accuracy:.4f}"}
