from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dav2.documents import Evidence
from dav2.params import Params, RegisterParams
from dav2.tracking import gates, promotion, registry, store
from dav2.tracking.store import TrackingError
from tests.forkserver import crowd
from tests.tracking import builders

NAME = "dav2-teacher"


def register(project: Path, params: Params, accuracy: float, seed: int | None = None, **changes: Any) -> str:
    if seed is not None:
        builders.write_run(project, params, "teacher", seed)
    scores = builders.scores(project, "teacher", accuracy, **changes)
    return registry.register("teacher", project, params, scores).version


def aliases(project: Path) -> dict[str, str]:
    found = store.client(project).get_registered_model(NAME).aliases
    return {alias: str(version) for alias, version in found.items()}


def test_the_first_version_that_passes_becomes_champion(project: Path, params: Params) -> None:
    register(project, params, 0.8)
    transcript = promotion.promote(NAME, project, params)
    assert transcript.promoted and not transcript.forced
    assert [gate.gate for gate in transcript.gates] == [
        "data docs", "DA-2K against champion", "kinds of scenes", "over trivial baselines", "depth error",
        "boundary quality", "latency", "size", "licence",
    ]  # fmt: skip
    assert aliases(project) == {"candidate": "1", "champion": "1"}
    version = store.client(project).get_model_version(NAME, "1")
    assert version.tags["validation_status"] == "passed"


def test_better_is_promoted_worse_is_refused_and_rollback_goes_back(project: Path, params: Params) -> None:
    register(project, params, 0.8)
    promotion.promote(NAME, project, params)
    register(project, params, 0.85, seed=11)
    assert promotion.promote(NAME, project, params).champion == "1"
    assert aliases(project) == {"candidate": "2", "champion": "2", "previous": "1"}
    register(project, params, 0.7, seed=12)
    refused = promotion.promote(NAME, project, params)
    assert not refused.promoted
    (failed,) = [gate for gate in refused.gates if not gate.passed]
    assert failed.gate == "DA-2K against champion"
    assert failed.detail == "0.700, champion 0.850 [0.800, 0.900]; at least 0.800 is asked"
    assert aliases(project)["champion"] == "2"
    assert promotion.rollback(NAME, project) == ("1", "2")
    assert aliases(project) == {"candidate": "3", "champion": "1"}
    with pytest.raises(TrackingError, match="no previous champion"):
        promotion.rollback(NAME, project)
    actions = [entry["action"] for entry in promotion.history(store.client(project), NAME)]
    assert actions == ["promoted", "promoted", "refused", "rolled back"]


def test_force_needs_a_reason_and_is_recorded(project: Path, params: Params) -> None:
    register(project, params, 0.1)
    with pytest.raises(TrackingError, match="--force needs --reason"):
        promotion.promote(NAME, project, params, force=True, reason=" ")
    transcript = promotion.promote(NAME, project, params, force=True, reason="demo for the board")
    assert transcript.promoted and transcript.forced
    api = store.client(project)
    assert api.get_model_version(NAME, "1").tags["dav2.forced"] == "demo for the board"
    entry = promotion.history(api, NAME)[-1]
    assert entry["action"] == "forced" and entry["reason"] == "demo for the board"
    assert entry["failed"] == ["over trivial baselines"]


def test_a_version_that_was_rolled_back_is_not_promoted_again_by_accident(project: Path, params: Params) -> None:
    register(project, params, 0.8)
    promotion.promote(NAME, project, params)
    register(project, params, 0.85, seed=11)
    promotion.promote(NAME, project, params)
    promotion.rollback(NAME, project)
    transcript = promotion.promote(NAME, project, params)
    assert not transcript.promoted and transcript.gates[-1].gate == "not rolled back"


def test_promoting_the_champion_or_an_unknown_model_is_an_error(project: Path, params: Params) -> None:
    with pytest.raises(TrackingError, match="no registered model 'dav2-teacher'"):
        promotion.promote(NAME, project, params)
    register(project, params, 0.8)
    promotion.promote(NAME, project, params)
    with pytest.raises(TrackingError, match="version 1 is the champion already"):
        promotion.promote(NAME, project, params)


def _promote(root: Path, params: Params) -> tuple[str, Any]:
    try:
        return "done", promotion.promote(NAME, root, params).promoted
    except TrackingError as error:
        return "told", str(error)


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(project: Path, params: Params) -> None:
    register(project, params, 0.8)
    found = dict(crowd([partial(_promote, project, params)] * 2))
    assert found["done"] is True
    assert "is running" in found["told"] or "is the champion already" in found["told"]


def evidence(
    accuracy: float = 0.8,
    of_da2k: dict[str, Any] | None = None,
    of_scores: dict[str, Any] | None = None,
    **changes: Any,
) -> Evidence:
    kinds = {"indoor": {"accuracy": accuracy}, "aerial": {"accuracy": accuracy}}
    da2k = {"accuracy": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.1, "kinds": kinds}
    plain: dict[str, Any] = {
        "kind": "teacher",
        "validated": ["synthetic", "benchmark"],
        "scores": {"model": "teacher", "da2k": {**da2k, **(of_da2k or {})}, "latency_ms": 30.0, **(of_scores or {})},
        "baselines": {"baseline-row": 0.6, "baseline-constant": None},
        "quality": {group: {"passed": True} for group in ("synthetic", "unlabelled", "benchmark", "pseudo")},
        "megabytes": 10.0,
    }
    return Evidence(**{**plain, **changes})


def verdicts(candidate: Evidence, champion: Evidence | None, **limits: Any) -> dict[str, str]:
    found = gates.run_gates(candidate, champion, RegisterParams(**limits))
    return {gate.gate: gate.detail for gate in found if not gate.passed}


def test_what_an_overtaken_process_wrote_late_does_not_last(project: Path, params: Params) -> None:
    for accuracy, seed in ((0.8, None), (0.85, 11)):
        register(project, params, accuracy, seed)
        promotion.promote(NAME, project, params)
    api = store.client(project)
    api.set_registered_model_alias(NAME, "champion", "1")
    api.delete_registered_model_alias(NAME, "previous")
    assert registry.resolve(api, NAME).version == 2
    assert aliases(project) == {"candidate": "2", "champion": "2", "previous": "1"}


def test_data_that_failed_its_gate_or_never_met_it_stops_a_model() -> None:
    student = {"kind": "student", "validated": ["unlabelled", "pseudo", "benchmark"]}
    candidate = evidence(quality={"unlabelled": {"passed": True}, "pseudo": {"passed": False}}, **student)
    assert verdicts(candidate, None) == {"data docs": "benchmark was not validated; pseudo failed"}


def test_one_bad_kind_of_scene_stops_a_model_that_is_better_on_average() -> None:
    candidate = evidence(0.85, {"kinds": {"indoor": {"accuracy": 0.85}, "aerial": {"accuracy": 0.5}}})
    assert verdicts(candidate, evidence(0.8), max_kind_drop=0.2) == {
        "kinds of scenes": "largest drop +0.300 on aerial; at most 0.200 is allowed"
    }


def test_a_relative_model_must_beat_the_baselines_and_a_metric_one_need_not() -> None:
    assert list(verdicts(evidence(0.62), None, min_over_baseline=0.05)) == ["over trivial baselines"]
    assert not verdicts(evidence(0.62, kind="metric"), None, min_over_baseline=0.05)


def test_budgets_hold_and_an_unmeasured_latency_is_no_pass() -> None:
    failed = verdicts(evidence(), None, max_latency_ms=20.0, max_megabytes=5.0)
    assert failed == {
        "latency": "30.0 ms; at most 20.0 ms is allowed",
        "size": "10.0 MB; at most 5.0 MB is allowed",
    }
    assert list(verdicts(evidence(of_scores={"latency_ms": None}), None, max_latency_ms=20.0)) == ["latency"]


def benchmark(**metrics: float) -> dict[str, Any]:
    intervals = {name: [0.9 * value, 1.1 * value] for name, value in metrics.items()}
    return {"protocol_hash": "p", "data": "d", "metrics": metrics, "intervals": intervals}


def test_depth_errors_and_boundaries_are_held_against_the_champions_interval() -> None:
    before = {"nyu": benchmark(abs_rel=0.1), "ibims": benchmark(boundary_f1=0.5)}
    now = {"nyu": benchmark(abs_rel=0.13), "ibims": benchmark(boundary_f1=0.3)}
    candidate, champion = (evidence(of_scores={"benchmarks": each}) for each in (now, before))
    assert verdicts(candidate, champion, max_error_rise=0.1, max_boundary_drop=0.05) == {
        "depth error": "AbsRel 0.1300, at most 0.1210 is allowed, on nyu",
        "boundary quality": "boundary F1 0.3000, at least 0.4000 is asked, on ibims",
    }
    assert not verdicts(candidate, champion, max_error_rise=0.5, max_boundary_drop=0.5)


def test_scores_by_another_protocol_or_on_other_data_are_not_compared() -> None:
    champion = evidence(of_scores={"benchmarks": {"nyu": benchmark(abs_rel=0.1)}})
    other = {"benchmarks": {"nyu": {**benchmark(abs_rel=0.9), "protocol_hash": "q"}}}
    candidate = evidence(0.5, {"data": "other"}, other)
    failed = verdicts(candidate.model_copy(update={"kind": "metric"}), champion, max_kind_drop=1.0)
    assert list(failed) == ["DA-2K against champion"] and "scored on other data" in failed["DA-2K against champion"]


def test_a_benchmark_of_one_image_has_no_interval_and_no_vote() -> None:
    def scored(error: float) -> Evidence:
        bench = {
            "protocol_hash": "p",
            "data": "d",
            "metrics": {"abs_rel": error},
            "intervals": {"abs_rel": [None, None]},
        }
        return evidence(of_scores={"benchmarks": {"middlebury": bench}})

    assert verdicts(scored(0.9), scored(0.1)) == {}
    alone = evidence(of_da2k={"low": None, "high": None})
    assert verdicts(evidence(0.8), alone) == {}
    assert "one image, no interval" in verdicts(evidence(0.79), alone)["DA-2K against champion"]


def test_missing_scores_never_pass() -> None:
    failed = verdicts(evidence(scores=None), evidence())
    assert set(failed) == {"DA-2K against champion", "kinds of scenes", "over trivial baselines"}
