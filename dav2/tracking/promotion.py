"""Promotion and rollback: which version of a registered model is the champion, and how it came to be so.

Aliases move only inside a lock that lives in the registry itself, so that it holds for everybody who uses it: of two
promotions at once one goes on, and the other is told. What was decided is written to the model's history.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dav2.params import Params
from dav2.tracking import registry, store
from dav2.tracking.gates import Gate, run_gates
from dav2.tracking.registry import CANDIDATE, CHAMPION, PREVIOUS
from dav2.tracking.store import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

REPLACED, ROLLED_BACK, HISTORY, STATUS = "dav2.replaced", "dav2.rolled_back", "dav2.history", "validation_status"
KEPT_HISTORY = 20
LOCK_SUFFIX = "-promotion-lock"
LOCK_SECONDS = 600.0


@dataclass(frozen=True)
class Promotion:
    """Transcript of one attempt to promote.

    Attributes:
        name, version: what was to be promoted.
        champion: version that was champion before, if any.
        gates: every gate with its verdict and the numbers behind it.
        promoted: whether ``version`` is the champion now.
        forced: whether it became so in spite of a gate.
        reason: what the person who forced it gave as the reason.
    """

    name: str
    version: str
    champion: str | None
    gates: list[Gate]
    promoted: bool
    forced: bool = False
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "gates": [gate.as_dict() for gate in self.gates]}


def promote(name: str, root: Path, params: Params, *, force: bool = False, reason: str = "") -> Promotion:
    """Run the gates of ``name``'s candidate and make it the champion if it passes.

    Args:
        force: make it the champion even if a gate fails; needs ``reason``, which is recorded.

    Raises:
        TrackingError: no such model or candidate, the candidate is champion already, another promotion of this
            model is running, or force without a reason.
    """
    if force and not reason.strip():
        raise TrackingError("--force needs --reason: it is recorded with the version")
    api = store.client(root)
    with _registry_lock(api, root, name):
        candidate = _alias(api, name, CANDIDATE)
        if candidate is None:
            raise TrackingError(f"{name} has no candidate; 'dvc repro register' makes one")
        champion = _alias(api, name, CHAMPION)
        if champion is not None and champion.version == candidate.version:
            raise TrackingError(f"{name} version {candidate.version} is the champion already")
        gates = _judge(api, candidate, champion, params)
        passed = all(gate.passed for gate in gates)
        promotion = Promotion(
            name=name,
            version=str(candidate.version),
            champion=str(champion.version) if champion else None,
            gates=gates,
            promoted=passed or force,
            forced=force and not passed,
            reason=reason if force and not passed else "",
        )
        api.set_model_version_tag(name, candidate.version, STATUS, "passed" if passed else "failed")
        if promotion.promoted:
            _crown(api, promotion)
        action = ("forced" if promotion.forced else "promoted") if promotion.promoted else "refused"
        failed = [gate.gate for gate in gates if not gate.passed]
        _remember(api, name, promotion.version, action, reason=promotion.reason, failed=failed)
    return promotion


def rollback(name: str, root: Path) -> tuple[str, str]:
    """Make the version that the champion replaced champion again; returns (new, old) version.

    The version that is rolled back can be promoted again by force only.

    Raises:
        TrackingError: there is no previous version, or a promotion of this model is running.
    """
    api = store.client(root)
    with _registry_lock(api, root, name):
        champion, previous = _alias(api, name, CHAMPION), _alias(api, name, PREVIOUS)
        if champion is None or previous is None:
            raise TrackingError(f"{name} has no previous champion to go back to; 'dav2 models' shows its versions")
        api.set_registered_model_alias(name, CHAMPION, previous.version)
        api.set_model_version_tag(name, champion.version, ROLLED_BACK, _now())
        earlier = previous.tags.get(REPLACED)
        if earlier:
            api.set_registered_model_alias(name, PREVIOUS, earlier)
        else:
            api.delete_registered_model_alias(name, PREVIOUS)
        _remember(api, name, str(champion.version), "rolled back", to=str(previous.version))
    return str(previous.version), str(champion.version)


def history(api: MlflowClient, name: str) -> list[dict[str, Any]]:
    """What was decided about a registered model, oldest first: version, action, when, by, reason."""
    entries: list[dict[str, Any]] = json.loads(api.get_registered_model(name).tags.get(HISTORY, "[]"))
    return entries


def _judge(api: MlflowClient, candidate: ModelVersion, champion: ModelVersion | None, params: Params) -> list[Gate]:
    run = candidate.tags["dav2.run"]
    gates = run_gates(
        run,
        registry.evidence_of(api, candidate),
        registry.evidence_of(api, champion) if champion is not None else None,
        params.register_,
    )
    if ROLLED_BACK in candidate.tags:
        gates.append(Gate("not rolled back", False, f"it was rolled back on {candidate.tags[ROLLED_BACK]}"))
    return gates


def _crown(api: MlflowClient, promotion: Promotion) -> None:
    """Move the aliases: first what to go back to, then the champion, so that a kill in between loses nothing."""
    if promotion.champion is not None:
        api.set_model_version_tag(promotion.name, promotion.version, REPLACED, promotion.champion)
        api.set_registered_model_alias(promotion.name, PREVIOUS, promotion.champion)
    api.set_registered_model_alias(promotion.name, CHAMPION, promotion.version)
    if promotion.forced:
        api.set_model_version_tag(promotion.name, promotion.version, "dav2.forced", promotion.reason)


def _alias(api: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        aliases = api.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise TrackingError(f"there is no registered model '{name}'; 'dav2 models' lists them") from None
        raise
    return api.get_model_version(name, str(aliases[alias])) if alias in aliases else None


def _remember(api: MlflowClient, name: str, version: str, action: str, **details: Any) -> None:
    entry = {"version": version, "action": action, "when": _now(), "by": getpass.getuser()}
    entry |= {key: value for key, value in details.items() if value}
    entries = [*history(api, name), entry][-KEPT_HISTORY:]
    api.set_registered_model_tag(name, HISTORY, json.dumps(entries))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@contextmanager
def _registry_lock(api: MlflowClient, root: Path, name: str) -> Iterator[None]:
    """Hold the promotion lock of ``name``: an entry whose name only one client can create.

    A registry has no locks, but it refuses a second model of the same name, whatever store and server it runs on. The
    lock of a process that died is taken over: at once on its own machine, after ``LOCK_SECONDS`` elsewhere.
    """
    lock = name + LOCK_SUFFIX
    with store.exclusive(root, "promotion"):  # Two local processes must not both take over a dead one's lock.
        if not _create(api, lock):
            holder = _holder(api, lock)
            if not _is_dead(holder) or not (_delete(api, lock) and _create(api, lock)):
                raise TrackingError(
                    f"another promotion or rollback of {name} is running ({holder.get('host')}, process "
                    f"{holder.get('pid')}); 'dav2 models' shows the outcome"
                )
    try:
        yield
    finally:
        _delete(api, lock)


def _create(api: MlflowClient, lock: str) -> bool:
    """Create the lock's entry; false when it is there already."""
    from mlflow.exceptions import MlflowException

    mine = {"host": socket.gethostname(), "pid": str(os.getpid()), "since": f"{time.time():.0f}"}
    try:
        api.create_registered_model(lock, tags=mine, description="A promotion is running; this entry goes with it.")
    except MlflowException as error:
        # "Does not exist": it did when MLflow tried, and was released before MLflow looked for it.
        if error.error_code not in ("RESOURCE_ALREADY_EXISTS", "RESOURCE_DOES_NOT_EXIST"):
            raise
        return False
    return True


def _holder(api: MlflowClient, lock: str) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        return dict(api.get_registered_model(lock).tags)
    except MlflowException:
        return {}  # It was released in this moment.


def _is_dead(holder: dict[str, str]) -> bool:
    if not holder:
        return True
    if holder["host"] != socket.gethostname():
        return time.time() - float(holder["since"]) > LOCK_SECONDS
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _delete(api: MlflowClient, lock: str) -> bool:
    """Remove the lock's entry; true, also when somebody else has done so."""
    from mlflow.exceptions import MlflowException

    try:
        api.delete_registered_model(lock)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    return True
