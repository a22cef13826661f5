"""What was decided about a registered model, and how a decision takes effect: whole or not at all, whoever dies when.

MLflow has no transactions, and an alias can be overwritten by anybody at any time. But a parameter of a run can be set
once only: of two who set it at the same time the database takes one and refuses the other. So the n-th decision about a
model is the parameter ``<name>/<n>`` of one run, the journal, and that single write decides. Aliases and tags follow
from it; each of them may be written any number of times. Whoever uses the registry next finishes what a killed process
left, so that no lock is needed, and none can be left behind.

Two who need the journal at the same time agree on its run in the same manner: an experiment's name is given once, and
the tags that it is made with say which run it is.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dav2.tracking import store
from dav2.tracking.store import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
JOURNAL, JOURNAL_TAG, PROPOSED = "dav2-decisions", "dav2.journal", "dav2.journal_proposed"
JOURNAL_NOTE = "Which run holds the decisions about registered models (promotions, rollbacks); dav2 writes it."
EARLIER_HISTORY = "dav2.history"
"""Tag in which decisions were kept before there was a journal; it is still read."""
LONGEST = 6000
"""Characters that MLflow takes as the value of a parameter."""


@dataclass(frozen=True)
class Decision:
    """One entry of the journal.

    Attributes:
        action: ``promoted``, ``forced``, ``refused`` or ``rolled back``.
        version: what it was about.
        champion, previous: versions with these aliases from now on; ``None``: no version has the alias.
        replaced: champion until now.
        tags: of ``version``, that go with the decision.
        place: project folder in which it was decided, see :func:`dav2.tracking.store.place`.
        gates: verdicts that it rests on.
        number: of the entry, from 1.
        done: whether aliases and tags are known to be set and the person who asked was told.
    """

    action: str
    version: str
    champion: str | None
    previous: str | None
    replaced: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    reason: str = ""
    failed: list[str] = field(default_factory=list)
    gates: list[dict[str, Any]] = field(default_factory=list)
    when: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    by: str = field(default_factory=store.person)
    place: str = ""
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    number: int = 0
    done: bool = False

    def as_entry(self) -> dict[str, object]:
        """For a person: version, action, when, by and, where there are any, reason, failed gates, what came back."""
        entry = {"version": self.version, "action": self.action, "when": self.when, "by": self.by}
        back = self.champion if self.action == "rolled back" else None
        more = {"reason": self.reason, "failed": self.failed, "to": back}
        return entry | {name: value for name, value in more.items() if value}


def read(api: MlflowClient, name: str) -> list[Decision]:
    """Decisions about the registered model ``name``, oldest first.

    Raises:
        TrackingError: the journal is gone or holds what dav2 did not write.
        MlflowException: it cannot be read now; that is never taken for "nothing was decided".
    """
    run_id = _journal(api)
    if run_id is None:
        return []
    params: dict[str, str] = _journal_run(api, run_id).data.params
    found = []
    for key, text in params.items():
        if re.fullmatch(rf"{re.escape(name)}/\d{{6}}", key):
            try:
                decision = Decision(**json.loads(text))
            except (ValueError, TypeError) as error:
                raise TrackingError(f"entry {key} of run {run_id} is not a decision of this dav2: {error}") from None
            found.append(replace(decision, number=int(key[-6:]), done=f"{key}/done" in params))
    return sorted(found, key=lambda decision: decision.number)


def last_number(api: MlflowClient, name: str) -> int:
    """Number of the last decision about ``name``; 0 if there was none."""
    found = read(api, name)
    return found[-1].number if found else 0


def settle(api: MlflowClient, name: str) -> Decision | None:
    """Let the last decision about ``name`` take effect; returns it.

    Its process may have been killed before it did, and one that was frozen and overtaken may have written, and died,
    long after.
    """
    found = read(api, name)
    return _carry_out(api, name, found[-1]) if found else None


def decide(api: MlflowClient, root: Path, name: str, decision: Decision, after: int) -> Decision:
    """Write ``decision`` into the journal as the one that follows number ``after``, and let it take effect.

    Raises:
        TrackingError: somebody else has decided something about this model meanwhile; nothing was changed.
    """
    from mlflow.exceptions import MlflowException

    run_id = _journal(api) or _make_journal(api, root)
    decision = replace(decision, place=store.place(root))
    content = {key: value for key, value in asdict(decision).items() if key not in ("number", "done")}
    text = json.dumps(content, ensure_ascii=False)
    if len(text) > LONGEST:
        raise TrackingError(f"the reason is too long: a decision takes {LONGEST} characters, this one {len(text)}")
    try:
        api.log_param(run_id, f"{name}/{after + 1:06d}", text)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":  # That code: the entry is there already, with another value.
            raise
    written = next((each for each in read(api, name) if each.number == after + 1), None)
    if written is None:
        raise TrackingError(f"MLflow did not take the decision (run {run_id}); nothing was changed, try again")
    if written.token != decision.token:
        raise overtaken(name, written)
    _carry_out(api, name, written)
    confirm(api, name, written)
    return replace(written, done=True)


def confirm(api: MlflowClient, name: str, decision: Decision) -> None:
    """Note that a decision took effect and that whoever asked for it is being told."""
    run_id = _journal(api)
    if run_id is not None:
        api.log_param(run_id, f"{name}/{decision.number:06d}/done", "yes")


def overtaken(name: str, other: Decision) -> TrackingError:
    """The error of somebody who was not the first."""
    return TrackingError(
        f"another promotion or rollback of {name} is running or came first (version {other.version} {other.action} by "
        f"{other.by}, {other.when}); nothing was changed, 'dav2 models' shows the outcome"
    )


def history(api: MlflowClient, name: str) -> list[dict[str, object]]:
    """What was decided about a registered model, oldest first: version, action, when, by, reason."""
    earlier: list[dict[str, object]] = json.loads(api.get_registered_model(name).tags.get(EARLIER_HISTORY, "[]"))
    return [*earlier, *(decision.as_entry() for decision in read(api, name))]


def existing(api: MlflowClient, name: str, version: str | None) -> ModelVersion | None:
    """The version, or ``None`` if it was deleted."""
    from mlflow.exceptions import MlflowException

    if version is None:
        return None
    try:
        return api.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _carry_out(api: MlflowClient, name: str, decision: Decision) -> Decision:
    """Set aliases and tags; again if a newer decision appeared meanwhile, which these writes may have overwritten."""
    while True:
        _apply(api, name, decision)
        newest = read(api, name)[-1]
        if newest.number == decision.number:
            return newest
        decision = newest


def _apply(api: MlflowClient, name: str, decision: Decision) -> None:
    """Write what is not yet as decided: first what to go back to, then the champion. Deleted versions are left out."""
    aliases = {alias: str(version) for alias, version in api.get_registered_model(name).aliases.items()}
    version = existing(api, name, decision.version)
    for tag, value in decision.tags.items() if version is not None else ():
        if version is not None and version.tags.get(tag) != value:
            api.set_model_version_tag(name, decision.version, tag, value)
    for alias, wanted in ((PREVIOUS, decision.previous), (CHAMPION, decision.champion)):
        if aliases.get(alias) == wanted:
            continue
        if wanted is None:
            api.delete_registered_model_alias(name, alias)
        elif existing(api, name, wanted) is not None:
            api.set_registered_model_alias(name, alias, wanted)


def _journal(api: MlflowClient) -> str | None:
    """Run that holds the decisions; ``None`` as long as nothing was ever decided."""
    found = api.get_experiment_by_name(JOURNAL)
    if found is None:
        return None
    if found.lifecycle_stage == "deleted":
        api.restore_experiment(found.experiment_id)
    return str(found.tags[JOURNAL_TAG])


def keep_journal_apart(api: MlflowClient) -> str:
    """Make the journal's run within an experiment of its own, where there is no journal yet; the experiment's identity.

    Who may write to that experiment may promote and roll back: a server with passwords gives others the right to read
    it alone. Whoever uses the registry next sets aliases by the journal, so that one set past it does not last.

    Raises:
        TrackingError: there is a journal already, in an experiment that others write to.
    """
    found = api.get_experiment_by_name(JOURNAL)
    if found is None:
        identity = api.create_experiment(JOURNAL, tags={"mlflow.note.content": JOURNAL_NOTE})
        run = api.create_run(identity, run_name="decisions")
        api.set_experiment_tag(identity, JOURNAL_TAG, run.info.run_id)
        return str(identity)
    if api.get_run(found.tags[JOURNAL_TAG]).info.experiment_id != found.experiment_id:
        raise TrackingError(
            f"decisions about models are in a run of an experiment that everybody writes to; whom the experiment "
            f"{JOURNAL} is closed to could still decide. Only a new MLflow can keep them apart"
        )
    return str(found.experiment_id)


def _make_journal(api: MlflowClient, root: Path) -> str:
    """Propose a run as the journal; whose proposal becomes the experiment's tag is decided by its unique name."""
    from mlflow.exceptions import MlflowException

    home = store.experiment(api, root)
    # One that was proposed by a process that died is as good as a new one.
    proposed = api.search_runs([home], f"tags.`{PROPOSED}` = 'yes'", max_results=1)
    run = proposed[0] if proposed else api.create_run(home, run_name="decisions", tags={PROPOSED: "yes"})
    tags = {JOURNAL_TAG: run.info.run_id, "mlflow.note.content": JOURNAL_NOTE}
    try:
        api.create_experiment(JOURNAL, artifact_location=store.artifact_location(root), tags=tags)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    chosen = _journal(api)
    if chosen is None:
        raise TrackingError(f"the experiment {JOURNAL} was removed from MLflow at this moment; try again")
    if chosen != run.info.run_id:
        api.delete_run(run.info.run_id)
    return chosen


def _journal_run(api: MlflowClient, run_id: str) -> Run:
    from mlflow.exceptions import MlflowException

    try:
        run = api.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise TrackingError(
            f"run {run_id}, which held the decisions about registered models, was removed from MLflow for good; "
            f"remove the experiment {JOURNAL} for good too ('mlflow gc'), and a new journal is begun"
        ) from None
    if run.info.lifecycle_stage == "deleted":
        api.restore_run(run_id)
    return run
