"""A model of normals, appearance or light passes its gates by its own scores, or is refused by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dav2 import layout
from dav2.documents import Evidence, ScoreFile
from dav2.evaluation import baselines
from dav2.params import Params, RegisterParams
from dav2.tracking import evidence, registry, store
from dav2.tracking.gates import run_gates
from tests.tracking import builders


def scored(half: float = 2.0, **metrics: float | None) -> dict[str, Any]:
    """A benchmark with intervals of ± ``half``."""
    known = {name: value for name, value in metrics.items() if value is not None}
    intervals = {name: [value - half, value + half] for name, value in known.items()}
    about = {"protocol": "rules", "protocol_hash": "p", "data": "d", "scored": 8}
    return {**about, "metrics": metrics, "intervals": intervals}


def version(quantity: str, benchmarks: dict[str, Any], trivial: dict[str, dict[str, Any]], **changes: Any) -> Evidence:
    plain: dict[str, Any] = {
        "kind": "marigold",
        "quantity": quantity,
        "validated": ["benchmark"],
        "quality": {"benchmark": {"passed": True}},
        "scores": {"model": "m", "quantity": quantity, "benchmarks": benchmarks, "latency_ms": 5.0},
        "layer_baselines": {name: {"rooms": each} for name, each in trivial.items()},
        "megabytes": 1.0,
    }
    return Evidence.model_validate({**plain, **changes})


def normals(angle: float | None, **changes: Any) -> Evidence:
    return version("normals", {"rooms": scored(mean=angle)}, {"baseline-facing": scored(mean=50.0)}, **changes)


def light(albedo: float, shading: float, residual: float = 60.0) -> Evidence:
    def of(*values: float) -> dict[str, Any]:
        return scored(**dict(zip(("albedo_psnr", "shading_psnr", "residual_psnr"), values, strict=True)))

    ours = {"rooms": of(albedo, shading, residual)}
    return version("albedo", ours, {"baseline-picture": of(11.0, 17.0, 90.0), "baseline-grey": of(15.0, 12.0, 90.0)})


def failed(candidate: Evidence, champion: Evidence | None = None, **limits: Any) -> dict[str, str]:
    found = run_gates(candidate, champion, RegisterParams(**limits))
    return {gate.gate: gate.detail for gate in found if not gate.passed}


def test_a_model_of_normals_is_asked_for_angles_and_not_for_depth() -> None:
    found = {gate.gate: gate for gate in run_gates(normals(40.0), None, RegisterParams())}
    assert list(found) == [
        "data docs", "over trivial baselines", "layers against champion", "latency", "size", "licence",
    ]  # fmt: skip
    assert all(gate.passed for gate in found.values())
    said = "mean angle 40.00° on rooms, baseline-facing 50.00°; at most 47.50° is allowed"
    assert found["over trivial baselines"].detail == said
    assert list(failed(normals(48.0))) == ["over trivial baselines"] and not failed(normals(48.0), min_angle_gain=0.0)


def test_angles_are_held_against_the_champions_interval() -> None:
    assert not failed(normals(32.0), normals(30.0), max_angle_rise=0.0)
    assert failed(normals(36.0), normals(30.0), max_angle_rise=0.05) == {
        "layers against champion": "mean angle 36.00° on rooms, champion 30.00°; at most 33.60° is allowed"
    }


def test_every_layer_must_beat_the_best_baseline_of_its_own() -> None:
    assert not failed(light(16.0, 18.0)), "a residual that is black everywhere tells nothing"
    assert failed(light(14.0, 18.0)) == {
        "over trivial baselines": "PSNR of albedo 14.00 dB on rooms, baseline-grey 15.00 dB; at least 15.50 dB is asked"
    }
    refused = failed(light(16.0, 18.0), light(20.0, 18.0), max_psnr_drop=0.5)["layers against champion"]
    assert refused == "PSNR of albedo 16.00 dB on rooms, champion 20.00 dB; at least 17.50 dB is asked"


def test_what_was_not_scored_alike_never_passes() -> None:
    assert "void: it failed on a frame" in failed(normals(None))["over trivial baselines"]
    nowhere = version("normals", {}, {})
    assert set(failed(nowhere)) == {"over trivial baselines", "layers against champion"}
    assert "no benchmark judged its normals" in failed(nowhere)["over trivial baselines"]
    assert "evaluate and register it again" in failed(normals(9.0, layer_baselines={}))["over trivial baselines"]
    other = version("normals", {"rooms": {**scored(mean=30.0), "data": "other"}}, {})
    assert "other data or by other rules" in failed(normals(9.0), other)["layers against champion"]
    assert not failed(normals(9.0), nowhere), "a champion forced without scores stands in nobody's way"
    assert "the champion predicts albedo" in failed(normals(9.0), light(16.0, 18.0))["layers against champion"]


def test_depth_is_not_promoted_over_normals() -> None:
    depth = Evidence.model_validate({"kind": "marigold", "scores": {"model": "m", "da2k": {"accuracy": 0.9}}})
    assert "the champion predicts normals" in failed(depth, normals(9.0))["DA-2K against champion"]


@pytest.mark.parametrize("wrong", [{"min_angle_gain": 1.5}, {"min_psnr_gain": -1}, {"max_psnr_drop": float("nan")}])
def test_thresholds_outside_their_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        RegisterParams.model_validate(wrong)


def test_evidence_card_and_tags_hold_the_layers(project: Path, params: Params) -> None:
    assert tuple(baselines.LAYER_BASELINES) == evidence.LAYER_BASELINES
    assert tuple(baselines.BASELINES) == evidence.BASELINES
    facing = ScoreFile.model_validate({"model": "baseline-facing", "benchmarks": {"rooms": scored(mean=50.0)}})
    facing.write(layout.scores(project, "baseline-facing"))
    ours = builders.scores(project, "teacher", 0.8, benchmarks={"rooms": scored(mean=40.0, median=30.0)})
    made = registry.register("teacher", project, params, ours)
    api = store.client(project)
    kept = api.get_model_version(made.name, made.version)
    assert kept.tags["rooms.mean"] == "40.0000" and "rooms.median" not in kept.tags
    row = "| rooms, 8 images, rules | mean angle 40.00° (baseline-facing 50.00°) | 38.00 to 42.00 |"
    assert row in kept.description
    found = registry.evidence_of(api, kept)
    assert found.quantity == "disparity" and found.layer_baselines["baseline-facing"]["rooms"].metrics["mean"] == 50.0
