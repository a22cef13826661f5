"""Registered models: a version is ``candidate`` when registered, ``champion`` by promotion, ``previous`` for rollback.

Every version carries, beside its weights, the evidence its gates look at: scores, baselines, data gates, size, lineage.
A promotion therefore judges what was registered, wherever it runs and whatever has changed on disk since.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dav2 import layout
from dav2.documents import Evidence, LicenceLine, RegisteredModel, ScoreFile
from dav2.licences import lines
from dav2.params import Params
from dav2.runs import get_run
from dav2.tracking import card, decisions, runs, servable, store, versions, view
from dav2.tracking import lineage as lineages
from dav2.tracking.decisions import CANDIDATE, CHAMPION
from dav2.tracking.evidence import EVIDENCE, LICENCES, SCORES, collect_evidence, documents_of, score_tags
from dav2.tracking.licences import licences_of_run
from dav2.tracking.lineage import Lineage
from dav2.tracking.servable import LINEAGE
from dav2.tracking.store import TrackingError
from dav2.tracking.versions import version_of_weights, versions_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


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

    def record(self) -> RegisteredModel:
        """What the stage leaves for people."""
        return RegisteredModel(**{key: value for key, value in asdict(self).items() if key != "new"})


def register(run: str, root: Path, params: Params, scores: ScoreFile) -> Registered:
    """Register the final model of ``run`` as a servable version with the alias ``candidate``.

    Weights that are registered already keep their version; its evidence is brought up to date.

    Args:
        scores: ``artifacts/scores/<run>.json``.

    Raises:
        TrackingError: the scores are of other weights, the run was not recorded, or MLflow cannot be reached.
    """
    lineage = lineages.collect(run, root, params)
    if scores.weights_sha256 != lineage.weights_sha256:
        raise TrackingError(
            f"{layout.scores(root, run)} was made from other weights than {layout.model(root, run)} holds; "
            f"run 'dvc repro' to score the model again"
        )
    name = get_run(params, run).registered
    size = lineages.model_file(root, run).stat().st_size / 1e6
    api = store.client(root)
    with store.told(root, f"{size:.0f} MB for {name}"), store.exclusive(root, f"register-{name}"):
        lineage = _with_parent_versions(api, root, params, lineage)
        licences = licences_of_run(run, root, params, lambda uri: licences_of(uri, root))
        evidence = collect_evidence(root, params, scores, run, licences)
        documents, tags = documents_of(evidence, scores), {**score_tags(scores), **lines.tags(licences)}
        version = version_of_weights(api, name, lineage.weights_sha256)
        new = version is None
        if version is None:
            run_id = runs.find_run(api, store.experiment(api, root), lineage)
            model_id = servable.log_servable(api, run_id, root, name, lineage, documents, documents[LICENCES])
            version = versions.create_version(api, name, model_id, run_id, lineage.tags() | tags)
        else:
            servable.attach(api, root, name, model_id_of(version), documents)
            for tag, value in tags.items():
                api.set_model_version_tag(name, version.version, tag, value)
        _describe(api, root, params, lineage, version, evidence)
        kept = versions.without_duplicates(api, name, version)
        new = new and kept.version == version.version
        versions.raise_candidate(api, name, kept)
    return Registered(name, str(kept.version), run, model_id_of(kept), lineage.weights_sha256, new=new)


def _describe(
    api: MlflowClient, root: Path, params: Params, lineage: Lineage, version: ModelVersion, evidence: Evidence
) -> None:
    """Write what a person reads on MLflow's pages: the version's card, the model's warning, the run's final scores."""
    run_id = version.run_id or None
    picture = card.picture_of(api, run_id)
    text = card.describe_version(version.name, get_run(params, lineage.run), lineage, evidence, picture)
    api.update_model_version(version.name, version.version, text)
    if not api.get_registered_model(version.name).description:
        api.update_registered_model(version.name, card.describe_model(version.name))
    if run_id is not None and evidence.scores is not None:
        view.log_scores(api, store.experiment(api, root), run_id, evidence.scores)


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


def licences_of(uri: str, root: Path) -> list[LicenceLine] | None:
    """What a registered version (``models:/name/3``, or any other name of it) stands on; ``None`` if not known."""
    try:
        with store.told(root):
            api = store.client(root)
            return evidence_of(api, resolve(api, uri.removeprefix("models:/"))).licences
    except TrackingError:
        return None


def _damaged(version: ModelVersion, document: str, error: Exception) -> TrackingError:
    what = str(error).splitlines()[0]
    return TrackingError(
        f"{document} of {version.name} version {version.version} is damaged ({what}); "
        "'dvc repro -f register' writes it again"
    )


def champion_scores(run: str, root: Path, params: Params) -> ScoreFile | None:
    """The score file of the champion among the versions of ``run``; ``None`` if there is no champion.

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
        version = api.get_model_version(name, str(aliases[CHAMPION]))
        try:
            return ScoreFile.model_validate_json(read_document(api, version, SCORES))
        except ValidationError as error:
            raise _damaged(version, SCORES, error) from None


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
