"""Versions of a registered model: made once for the same weights, however many register them at the same time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dav2.layout import WEIGHTS_TAG
from dav2.tracking.decisions import CANDIDATE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def version_of_weights(api: MlflowClient, name: str, weights_sha256: str) -> ModelVersion | None:
    """The version of ``name`` that holds these weights: of several the first, the others are about to be removed."""
    return _first_of_weights(api, name).get(weights_sha256)


def _first_of_weights(api: MlflowClient, name: str) -> dict[str, ModelVersion]:
    """Weights → first version that holds them, in order of versions."""
    first: dict[str, ModelVersion] = {}
    for version in sorted(versions_of(api, name), key=lambda each: int(each.version)):
        first.setdefault(version.tags.get(WEIGHTS_TAG, f"version {version.version}"), version)
    return first


def model_names(api: MlflowClient) -> list[str]:
    """Every registered model of dav2, however many pages the registry takes to tell."""
    found: list[str] = []
    token = None
    while True:
        page = api.search_registered_models("name LIKE 'dav2-%'", order_by=["name ASC"], page_token=token)
        found += [model.name for model in page]
        token = page.token
        if not token:
            return found


def versions_of(api: MlflowClient, name: str) -> list[ModelVersion]:
    """Every version of a registered model, in no particular order."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = api.search_model_versions(f"name = '{name}'", page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def create_version(
    api: MlflowClient, name: str, model_id: str, run_id: str | None, tags: dict[str, str]
) -> ModelVersion:
    """Make a version of the logged model ``model_id``, and the registered model if it is the first."""
    from mlflow.exceptions import MlflowException

    try:
        api.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return api.create_model_version(name, f"models:/{model_id}", run_id=run_id, tags=tags, model_id=model_id)


def without_duplicates(api: MlflowClient, name: str, made: ModelVersion) -> ModelVersion:
    """Of versions with the same weights, made in two places at once, keep the first, which is returned."""
    from mlflow.exceptions import MlflowException

    weights = made.tags[WEIGHTS_TAG]
    same = [version for version in versions_of(api, name) if version.tags.get(WEIGHTS_TAG) == weights]
    first, *others = sorted(same, key=lambda version: int(version.version))
    named = {str(version) for version in api.get_registered_model(name).aliases.values()}
    for version in others:
        if str(version.version) in named:
            continue
        try:
            api.delete_model_version(name, version.version)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    return first


def raise_candidate(api: MlflowClient, name: str, version: ModelVersion) -> None:
    """Let the newest version be the candidate, unless the present candidate is at least as new as ``version``."""
    from mlflow.exceptions import MlflowException

    wrote, least = False, int(version.version)
    while True:
        newest = max(int(each.version) for each in _first_of_weights(api, name).values())
        present = api.get_registered_model(name).aliases.get(CANDIDATE)
        # What was written may have taken the place of what somebody with a newer version wrote a moment before.
        if present is not None and int(present) >= (newest if wrote else least):
            return
        try:
            api.set_registered_model_alias(name, CANDIDATE, str(newest))
        except MlflowException as error:
            # Somebody has just removed it as a duplicate of an older one: look again.
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            continue
        wrote = True
