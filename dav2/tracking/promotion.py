"""Promotion and rollback: which version of a registered model is the champion, and how it came to be so.

Each is one decision in the journal of :mod:`dav2.tracking.decisions`: of two at once one goes on, and the other is
told. Asked for again after a kill, a decision that was made is carried out and told, not made a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dav2.params import Params
from dav2.tracking import decisions, registry, store
from dav2.tracking.decisions import CANDIDATE, CHAMPION, PREVIOUS, Decision, existing, history
from dav2.tracking.gates import run_gates
from dav2.tracking.store import TrackingError
from dav2.tracking.verdicts import Gate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["Promotion", "history", "promote", "rollback"]

REPLACED, ROLLED_BACK, FORCED, STATUS = "dav2.replaced", "dav2.rolled_back", "dav2.forced", "validation_status"
LONGEST_DETAIL, LONGEST_REASON = 200, 1500


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

    def as_dict(self) -> dict[str, object]:
        """The outcome as plain values."""
        return {**self.__dict__, "gates": [gate.as_dict() for gate in self.gates]}


def promote(name: str, root: Path, params: Params, *, force: bool = False, reason: str = "") -> Promotion:
    """Run the gates of ``name``'s candidate and make it the champion if it passes.

    Args:
        force: make it the champion even if a gate fails; needs ``reason``, which is recorded.

    Raises:
        TrackingError: no such model or candidate, the candidate is champion already, another promotion or rollback
            of this model came first, or force without a reason or with one that is too long.
    """
    if force and not reason.strip():
        raise TrackingError("--force needs --reason: it is recorded with the version")
    if len(reason) > LONGEST_REASON:
        raise TrackingError(f"--reason has {len(reason)} characters; at most {LONGEST_REASON} are kept")
    api = store.client(root)
    with store.told(root):
        seen = decisions.last_number(api, name)
        with store.exclusive(root, f"decide-{name}"):
            head = _settled(api, name, seen)
            candidate, champion = _alias(api, name, CANDIDATE), _alias(api, name, CHAMPION)
            if candidate is None:
                raise TrackingError(f"{name} has no candidate; 'dvc repro register' makes one")
            if champion is not None and champion.version == candidate.version:
                cut_off = _cut_off(head, root, str(candidate.version))
                if cut_off is None:
                    raise TrackingError(f"{name} version {candidate.version} is the champion already")
                decisions.confirm(api, name, cut_off)
                return _transcript(name, cut_off, [Gate(**gate) for gate in cut_off.gates])
            gates = _judge(api, candidate, champion, params)
            decision = _verdict(api, name, candidate, champion, gates, reason if force else "")
            return _transcript(name, decisions.decide(api, root, name, decision, seen), gates)


def rollback(name: str, root: Path) -> tuple[str, str]:
    """Make the version that the champion replaced champion again; returns (new, old) version.

    The version that is rolled back can be promoted again by force only. After a rollback that was cut off, this
    carries that one out and makes no other.

    Raises:
        TrackingError: there is no previous version, or another promotion or rollback of this model came first.
    """
    api = store.client(root)
    with store.told(root):
        seen = decisions.last_number(api, name)
        with store.exclusive(root, f"decide-{name}"):
            head = _settled(api, name, seen)
            if head is not None and head.action == "rolled back" and not head.done:
                decisions.confirm(api, name, head)
                return str(head.champion), head.version
            champion, previous = _alias(api, name, CHAMPION), _alias(api, name, PREVIOUS)
            if champion is None or previous is None:
                raise TrackingError(f"{name} has no previous champion to go back to; 'dav2 models' shows its versions")
            now, old = str(previous.version), str(champion.version)
            earlier = existing(api, name, previous.tags.get(REPLACED))
            decision = Decision(
                action="rolled back",
                version=old,
                champion=now,
                previous=str(earlier.version) if earlier is not None else None,
                replaced=old,
            )
            decision.tags[ROLLED_BACK] = decision.when
            decisions.decide(api, root, name, decision, seen)
    return now, old


def _settled(api: MlflowClient, name: str, seen: int) -> Decision | None:
    """The last decision, carried out; an error if it is not the one that was the last when this command began."""
    _alias(api, name, CHAMPION)  # Says so if there is no such model.
    head = decisions.settle(api, name)
    if head is not None and head.number != seen:
        raise decisions.overtaken(name, head)
    return head


def _cut_off(head: Decision | None, root: Path, version: str) -> Decision | None:
    """The last decision if it is a promotion of ``version`` from this folder whose process died before it said so."""
    if head is None or head.done or head.action not in ("promoted", "forced") or head.version != version:
        return None
    # The lock of this folder is held, so that the process which decided it is not at work any more.
    return head if head.place == store.place(root) else None


def _verdict(
    api: MlflowClient,
    name: str,
    candidate: ModelVersion,
    champion: ModelVersion | None,
    gates: list[Gate],
    forced_because: str,
) -> Decision:
    passed = all(gate.passed for gate in gates)
    before = str(champion.version) if champion is not None else None
    tags = {STATUS: "passed" if passed else "failed"}
    told = [{**gate.as_dict(), "detail": gate.detail[:LONGEST_DETAIL]} for gate in gates]
    failed = [gate.gate for gate in gates if not gate.passed]
    version = str(candidate.version)
    if not passed and not forced_because:
        previous = _alias(api, name, PREVIOUS)
        kept = str(previous.version) if previous is not None else None
        return Decision("refused", version, before, kept, before, tags, failed=failed, gates=told)
    reason = "" if passed else forced_because
    tags |= {FORCED: reason} if reason else {}
    tags |= {REPLACED: before} if before else {}
    action = "promoted" if passed else "forced"
    return Decision(action, version, version, before, before, tags, reason, failed, told)


def _transcript(name: str, decision: Decision, gates: list[Gate]) -> Promotion:
    return Promotion(
        name=name,
        version=decision.version,
        champion=decision.replaced,
        gates=gates,
        promoted=decision.action in ("promoted", "forced"),
        forced=decision.action == "forced",
        reason=decision.reason,
    )


def _judge(api: MlflowClient, candidate: ModelVersion, champion: ModelVersion | None, params: Params) -> list[Gate]:
    gates = run_gates(
        registry.evidence_of(api, candidate),
        registry.evidence_of(api, champion) if champion is not None else None,
        params.register_,
    )
    if ROLLED_BACK in candidate.tags:
        gates.append(Gate("not rolled back", False, f"it was rolled back on {candidate.tags[ROLLED_BACK]}"))
    return gates


def _alias(api: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        aliases = api.get_registered_model(name).aliases
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise TrackingError(f"there is no registered model '{name}'; 'dav2 models' lists them") from None
        raise
    return existing(api, name, str(aliases[alias])) if alias in aliases else None
