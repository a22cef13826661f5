"""Runs of this family in the one loop of the house: to the end, killed and resumed, on two ranks, into the registry."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dav2
from dav2 import families, layout
from dav2.evaluation.evaluate import evaluate_model
from dav2.families.marigold.ceiling import FILE, make_codec
from dav2.families.marigold.model import Marigold
from dav2.maps import Quantity
from dav2.params import ParamsError, load
from dav2.tracking import lineage, registry, runs
from dav2.training.recipes import build_recipe
from tests.training import processes
from tests.training.processes import read_lines
from tests.training.world import make_project, write_source

OPTIM = {"optimizer": "adamw", "decoder_lr": 1e-3, "clip_norm": 1.0, "ema": 0.9}
RUN: dict[str, Any] = {
    "size": "tiny", "start": "random", "codec": "patch", "sources": ["rooms"], "steps": 4, "batch": 4, "crop": 32,
    "input_size": 48, "optim": OPTIM, "checkpoint": {"every_steps": 1, "evaluate_every": 2, "evaluate_frames": 4},
}  # fmt: skip
CODEC = {"kind": "patch", "patch": 8, "channels": 4, "sources": ["rooms"], "crop": 32}


def project(root: Path, **changes: Any) -> Path:
    marigold = {"noise": RUN, "once": {**RUN, "objective": "one_step_decoded", "start": "models/marigold-noise"}}
    benchmarks = {"relative": {"source": "da2k", "protocol": "marigold-nyu"}}
    evaluate = {"da2k": "da2k", "models": ["teacher", "marigold-noise"], "benchmarks": benchmarks}
    path = make_project(root, codecs={"patch": CODEC}, marigold=marigold, evaluate=evaluate, **changes)
    make_codec(load(path), "patch", root)
    return path


def weights(root: Path, run: str = "marigold-noise") -> bytes:
    return layout.weights(root, run).read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    params = project(tmp_path_factory.mktemp("marigold"))
    processes.run_to_end(params, "marigold-noise")
    return params.parent


def test_a_codec_says_its_ceiling(whole: Path) -> None:
    document = json.loads((layout.codec(whole, "patch") / FILE).read_text())
    (row,) = document["rows"]
    assert row["source"] == "rooms" and row["frames"] == 4, "the held-out ones"
    assert 0 <= row["target_abs_rel"] < row["abs_rel"] < 0.5 and 0 < row["delta1"] <= 1 and row["psnr"] > 10


def test_a_run_killed_and_resumed_ends_with_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    params = project(tmp_path)
    ranks = processes.start(params, "marigold-noise")
    processes.wait_for_step(params, "marigold-noise", 2, ranks)
    processes.stop(ranks, signal.SIGKILL)
    processes.run_to_end(params, "marigold-noise")
    assert weights(tmp_path) == weights(whole)


def test_two_ranks_and_accumulation_see_the_loss_of_one(whole: Path, tmp_path: Path) -> None:
    losses = {}
    for name, world, accumulate, engine in (("ranks", 2, 1, "cpu"), ("parts", 1, 2, "cpu"), ("zero", 2, 1, "zero3")):
        ema = 0.9 if engine == "cpu" else 0.0
        changed = {"noise": {**RUN, "steps": 1, "optim": {**OPTIM, "accumulate": accumulate, "ema": ema}}}
        root = tmp_path / name
        params = make_project(
            root,
            codecs={"patch": CODEC},
            marigold=changed,
            compute={"world_size": world, "deepspeed": f"infra/deepspeed/{engine}.json"},
        )
        make_codec(load(params), "patch", root)
        processes.run_to_end(params, "marigold-noise", world)
        losses[name] = read_lines(layout.training(root, "marigold-noise") / "metrics.jsonl")[0]
    sharded = dav2.load(layout.model(tmp_path / "zero", "marigold-noise"), "cpu", "fp32")
    made = dav2.load(layout.model(whole, "marigold-noise"), "cpu", "fp32")
    assert all(
        (tensor == made.state_dict()[name]).all() for name, tensor in sharded.codec.state_dict(prefix="codec.").items()
    )
    first = read_lines(layout.training(whole, "marigold-noise") / "metrics.jsonl")[0]
    for line in losses.values():
        assert line["loss"] == pytest.approx(first["loss"], rel=1e-5)
        assert line["grad_norm"] == pytest.approx(first["grad_norm"], rel=1e-5)


def test_a_model_goes_on_as_another_objective_and_into_the_registry(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load(whole / "params.yaml")
    processes.run_to_end(whole / "params.yaml", "marigold-once")
    assert "starts from models/marigold-noise: all of its network" in (whole / "rank-0.log").read_text()
    once = dav2.load(layout.model(whole, "marigold-once"), "cpu", "fp32")
    assert isinstance(once, Marigold) and once.config.begins == "zeros" and once.quantity is Quantity.DEPTH
    scores = evaluate_model("marigold-noise", params, whole)
    assert scores.quantity == "depth" and scores.known_da2k is not None and scores.steps == 1
    (whole / "dvc.lock").write_text("stages: {}\n")
    subprocess.run(["git", "init", "-q", str(whole)], check=True)
    monkeypatch.chdir(whole)
    found = lineage.collect("marigold-noise", Path(), params)
    runs.log_training("marigold-noise", Path(), params, found)
    version = registry.register("marigold-noise", Path(), params, scores)
    assert version.name == "dav2-marigold-noise-tiny"
    loaded = dav2.load(f"models:/{version.name}@candidate", "cpu", "fp32")
    rgb = np.random.default_rng(0).integers(0, 255, (40, 52, 3), dtype=np.uint8)
    assert (
        loaded.infer_image(rgb) == dav2.load(layout.model(Path(), "marigold-noise"), "cpu", "fp32").infer_image(rgb)
    ).all()


def test_a_denoiser_of_photographs_is_widened_by_the_run_that_starts_from_it(tmp_path: Path) -> None:
    seen = {**RUN, "objective": "photographs", "steps": 1}
    depth = {**RUN, "start": "models/marigold-seen", "steps": 1}
    path = make_project(tmp_path, codecs={"patch": CODEC}, marigold={"seen": seen, "depth": depth})
    make_codec(load(path), "patch", tmp_path)
    processes.run_to_end(path, "marigold-seen")
    line = read_lines(layout.training(tmp_path, "marigold-seen") / "evaluations.jsonl")[0]
    assert line["val_loss"] > 0 and line.get("da2k") is None
    denoiser = dav2.load(layout.model(tmp_path, "marigold-seen"), "cpu", "fp32")
    with pytest.raises(ValueError, match="predicts nothing yet"):
        denoiser.infer_image(np.zeros((32, 32, 3), np.uint8))
    processes.run_to_end(path, "marigold-depth")
    assert "its first layer takes 8 channels instead of 4" in (tmp_path / "rank-0.log").read_text()
    evaluated = {"da2k": "da2k", "models": ["marigold-seen"]}
    wrong = make_project(tmp_path / "w", codecs={"patch": CODEC}, marigold={"seen": seen}, evaluate=evaluated)
    with pytest.raises(ParamsError, match="marigold-seen denoises photographs and predicts no depth"):
        load(wrong)


def test_a_run_mixes_its_sources_with_crops_of_their_own(tmp_path: Path) -> None:
    mixed = {**RUN, "sources": ["rooms", "halls"], "mix": {"halls": {"share": 1.0, "crop": [32, 64]},
             "rooms": {"share": 1.0}}, "optim": {**OPTIM, "accumulate": 2}}  # fmt: skip
    source = {"reader": "hypersim", "path": "data/halls", "group": "synthetic"}
    path = make_project(tmp_path, sources={"halls": source}, codecs={"patch": CODEC}, marigold={"mixed": mixed})
    write_source(tmp_path / "artifacts/shards/synthetic/halls", "halls", "synthetic", range(40, 50))
    make_codec(load(path), "patch", tmp_path)
    data = build_recipe(load(path), "marigold-mixed", tmp_path, families.get("marigold"), "fp32").data(0, 1, 0)
    shapes = {tuple(data.batch(index)["image"].shape) for index in range(8)}
    assert shapes == {(2, 3, 32, 32), (2, 3, 32, 64)}
    processes.run_to_end(path, "marigold-mixed")
    lines = read_lines(layout.training(tmp_path, "marigold-mixed") / "metrics.jsonl")
    assert len(lines) == 4 and all(line["loss"] > 0 for line in lines)


def test_another_codec_makes_another_recipe(whole: Path, tmp_path: Path) -> None:
    params = load(project(tmp_path))
    family = families.get("marigold")
    before = build_recipe(params, "marigold-noise", tmp_path, family, "fp32").fingerprint()
    other = load(make_project(tmp_path / "o", codecs={"patch": {**CODEC, "channels": 6}}, marigold={"noise": RUN}))
    make_codec(other, "patch", tmp_path / "o")
    assert (
        build_recipe(other, "marigold-noise", tmp_path / "o", families.get("marigold"), "fp32").fingerprint() != before
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codec": "none"}, "no codec 'none' in section 'codecs'; there are: patch"),
        ({"process": {"prediction": "epsilon"}}, "says nothing of the map where there is noise alone"),
        ({"objective": "one_step_x0", "infer_steps": 4}, "infer_steps must be 1"),
        ({"loss": {"trim": 0.1}}, "this family is told what to learn by"),
        ({"sources": ["snaps"]}, "this family learns from exact depth"),
        ({"infer_steps": 0}, "infer_steps"),
        ({"crop": 36}, "crop"),
        ({"input_size": 50}, "input_size"),
        ({"mix": {"snaps": {"share": 1.0}}}, "mix: rooms, snaps stands in only one of mix and sources"),
        ({"mix": {"rooms": {"share": 0.0}}}, "mix.rooms.share"),
        ({"mix": {"rooms": {"share": 1.0, "crop": [32, 36]}}}, "mix.rooms.crop"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = make_project(tmp_path, codecs={"patch": CODEC}, marigold={"noise": {**RUN, **change}})
    with pytest.raises(ParamsError, match=message):
        load(path)


def test_an_autoencoder_needs_its_folder(tmp_path: Path) -> None:
    path = make_project(tmp_path, codecs={"vae": {"kind": "diffusers", "sources": ["rooms"]}})
    with pytest.raises(ParamsError, match="kind 'diffusers' needs 'path'"):
        load(path)
