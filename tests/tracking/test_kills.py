"""Promotion, rollback and registration either happen or do not, whoever is killed before whichever write."""

from __future__ import annotations

import itertools
import json
import secrets
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dav2.params import Params
from dav2.tracking import decisions, promotion, registry, store
from dav2.tracking.store import TrackingError
from tests.forkserver import crowd
from tests.tracking import builders
from tests.tracking.killing import frozen, killed, wake

NAME = "dav2-teacher"


@pytest.fixture(scope="module")
def three(template: Path, tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    """A project with version 1 replaced by version 2, the champion, and version 3, a candidate that will pass."""
    root = tmp_path_factory.mktemp("three") / "project"
    shutil.copytree(template, root)
    builders.register_three(root, params)
    return root


def copy_of(project: Path, parent: Path) -> Path:
    """Another project folder with the registry as it is; the files of its models stay where they are."""
    where = parent / secrets.token_hex(8)  # Never one that was: MLflow keeps its databases open.
    (where / ".dav2").mkdir(parents=True)
    for name in ("mlflow.db", "place"):
        if (project / ".dav2" / name).exists():
            shutil.copy(project / ".dav2" / name, where / ".dav2")
    return where


def aliases(root: Path) -> dict[str, str]:
    found = store.client(root).get_registered_model(NAME).aliases
    return {alias: str(version) for alias, version in found.items()}


def state(root: Path) -> tuple[dict[str, str], list[str], list[str]]:
    """Aliases, versions tagged as rolled back, and actions, after whatever was begun is finished."""
    api = store.client(root)
    decisions.settle(api, NAME)
    rolled_back = [v for v in "123" if promotion.ROLLED_BACK in api.get_model_version(NAME, v).tags]
    return aliases(root), rolled_back, [entry["action"] for entry in promotion.history(api, NAME)]


def attempt(root: Path, params: Params, action: str) -> Any:
    with suppress(TrackingError):
        return promotion.rollback(NAME, root) if action == "rollback" else promotion.promote(NAME, root, params)
    return None


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_killed_before_any_write_and_asked_again_is_as_if_done_once(
    three: Path, tmp_path: Path, params: Params, action: str
) -> None:
    once = copy_of(three, tmp_path)
    told = attempt(once, params, action)
    wanted = state(once)
    for write in itertools.count():
        root = copy_of(three, tmp_path)
        if not killed(partial(attempt, root, params, action), write):
            break
        assert attempt(root, params, action) == told
        assert state(root) == wanted
        assert aliases(root) == wanted[0]
    assert write >= 4


@pytest.mark.parametrize("action", ["promote", "rollback"])
def test_killed_before_any_write_the_next_reader_sees_all_of_it_or_nothing(
    three: Path, tmp_path: Path, params: Params, action: str
) -> None:
    before = state(copy_of(three, tmp_path))
    once = copy_of(three, tmp_path)
    attempt(once, params, action)
    after, seen = state(once), []
    for write in itertools.count():
        root = copy_of(three, tmp_path)
        if not killed(partial(attempt, root, params, action), write):
            break
        seen.append(state(root))
    assert seen == [before] + [after] * (len(seen) - 1)


STEPS = st.lists(st.tuples(st.sampled_from(["promote", "rollback"]), st.none() | st.integers(0, 7)), max_size=4)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_any_order_of_actions_and_kills_loses_no_version_and_blames_the_right_one(
    three: Path, tmp_path: Path, params: Params, steps: list[tuple[str, int | None]]
) -> None:
    root = copy_of(three, tmp_path)
    expected = state(root)
    for action, write in steps:
        model = copy_of(root, tmp_path)  # What the same action does to the same registry without a kill.
        attempt(model, params, action)
        happened = state(model)
        if write is None or not killed(partial(attempt, root, params, action), write):
            if write is None:
                attempt(root, params, action)
            expected = happened
            assert state(root) == happened
        else:
            found = state(root)
            assert found in (expected, happened)
            expected = found
            if found == happened:
                # Nobody was told: asked for again, it is this one that is told.
                attempt(root, params, action)
                assert state(root)[0] == happened[0]
                expected = state(root)
        rolled_back = expected[1]
        assert expected[0]["champion"] not in rolled_back and expected[0]["candidate"] == "3"


def _race(root: Path, params: Params, action: str) -> tuple[str, Any]:
    try:
        return action, (
            promotion.rollback(NAME, root) if action == "rollback" else promotion.promote(NAME, root, params).version
        )
    except TrackingError as error:
        return "told", str(error)


@pytest.mark.parametrize("actions", [["promote"] * 3, ["rollback"] * 2, ["promote", "rollback", "promote", "rollback"]])
def test_a_crowd_on_one_database_from_folders_of_their_own(
    three: Path, tmp_path: Path, params: Params, actions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = copy_of(three, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri(shared))
    entries = len(promotion.history(store.client(shared), NAME))
    found = crowd([partial(_race, tmp_path / f"actor-{i}", params, action) for i, action in enumerate(actions)])
    made = promotion.history(store.client(shared), NAME)[entries:]
    done = [outcome for outcome in found if outcome[0] != "told"]
    # One who came while a rollback was being carried out is told of that one, and makes no other.
    few = len(made) < len(done) and len({str(each) for each in done}) == len(made)
    assert len(made) == len(done) or few, found
    assert len({entry["version"] + entry["action"] for entry in made}) == len(made)
    final = aliases(shared)
    assert final["champion"] == {"promoted": "3", "rolled back": "1"}.get(made[-1]["action"], final["champion"])
    assert state(shared)[0] == final


def _noted(root: Path, params: Params, action: str, told: Path) -> None:
    told.write_text(json.dumps(_race(root, params, action)))


@pytest.mark.parametrize("write", [0, 2], ids=["before it decided", "before all of it took effect"])
@pytest.mark.parametrize(
    ("sleeper", "other"),
    [("promote", "rollback"), ("rollback", "promote"), ("rollback", "rollback"), ("promote", "promote")],
)
def test_a_process_that_was_frozen_and_overtaken_changes_nothing_when_it_wakes(
    three: Path, tmp_path: Path, params: Params, sleeper: str, other: str, write: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, told = copy_of(three, tmp_path), tmp_path / "told"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri(shared))
    entries = len(promotion.history(store.client(shared), NAME))
    process = frozen(partial(_noted, tmp_path / "sleeper", params, sleeper, told), write)
    assert process is not None
    overtaking = _race(tmp_path / "other", params, other)
    before_it_woke = state(shared)
    wake(process)
    outcomes = [overtaking, tuple(json.loads(told.read_text()))]
    made = promotion.history(store.client(shared), NAME)[entries:]
    after = state(shared)
    # Frozen before it decided, it is told so; frozen when its decision stood, the other saw that carried out.
    assert after == before_it_woke, outcomes
    done = {{"promote": "promoted", "rollback": "rolled back"}.get(action) for action, _ in outcomes} - {None}
    assert made and {entry["action"] for entry in made} <= done, (outcomes, made)
    assert after[0]["champion"] not in after[1]


def _register(root: Path, params: Params, accuracy: float = 0.9) -> registry.Registered:
    return registry.register("teacher", root, params, builders.scores(root, "teacher", accuracy))


def test_a_registration_killed_before_any_write_is_finished_by_the_next_and_leaves_nothing(
    project: Path, params: Params
) -> None:
    once: list[str] = []
    for write in itertools.count():
        builders.write_run(project, params, "teacher", 100 + write)
        if not killed(partial(_register, project, params), write):
            break
        found = _register(project, params)
        api = store.client(project)
        assert aliases(project)["candidate"] == found.version == str(write + 1)
        logged = api.search_logged_models([store.experiment(api, project)])
        assert [str(model.status) for model in logged] == ["READY"] * (write + 1)
        assert not list((project / ".dav2/register").iterdir())
        assert registry.evidence_of(api, api.get_model_version(NAME, found.version)).da2k
        once.append(found.model_id)
    assert len(set(once)) == write >= 8


def test_weights_that_a_killed_registration_left_half_written_are_removed_when_others_follow(
    project: Path, params: Params
) -> None:
    assert killed(partial(_register, project, params), 3)
    (left,) = [path.parent for path in (project / ".dav2/mlflow").rglob("model.safetensors")]
    builders.write_run(project, params, "teacher", 9)
    found = _register(project, params)
    api = store.client(project)
    (logged,) = api.search_logged_models([store.experiment(api, project)])
    assert (logged.model_id, found.version) == (found.model_id, "1")
    assert not left.exists()


def test_an_older_version_registered_again_does_not_become_the_candidate(project: Path, params: Params) -> None:
    for seed in (5, 6, 5):
        builders.write_run(project, params, "teacher", seed)
        found = _register(project, params)
    assert (found.version, found.new, aliases(project)) == ("1", False, {"candidate": "2"})


def _version(root: Path, params: Params) -> str:
    return _register(root, params).version


@pytest.mark.parametrize("seeds", [[1, 1, 1], [1, 2, 3, 3]])
def test_a_crowd_that_registers_makes_one_version_of_the_same_weights(
    template: Path, tmp_path: Path, params: Params, seeds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = copy_of(template, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.tracking_uri(shared))
    store.experiment(store.client(shared), shared)
    actions = []
    for index, seed in enumerate(seeds):
        root = tmp_path / f"actor-{index}"
        shutil.copytree(template, root)
        builders.write_run(root, params, "teacher", seed)
        actions.append(partial(_version, root, params))
    told = crowd(actions)
    versions = store.client(shared).search_model_versions(f"name = '{NAME}'")
    assert len(versions) == len({version.tags["dav2.weights_sha256"] for version in versions}) == len(set(seeds))
    assert set(told) == {str(version.version) for version in versions}
    assert aliases(shared) == {"candidate": str(max(int(version.version) for version in versions))}
