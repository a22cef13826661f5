"""Latents on disk give the loss that encoding gives, and refuse a run that would encode something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dav2 import families, layout
from dav2.data.store.manifest import ManifestError
from dav2.families.directory import WeightsError
from dav2.families.marigold.ceiling import make_codec
from dav2.families.marigold.family import codec_digest
from dav2.families.marigold.latents import INDEX, make_latents
from dav2.params import ParamsError, load
from dav2.training.recipes import Recipe, build_recipe
from tests.families.marigold.test_runs import CODEC, RUN
from tests.training import processes
from tests.training.processes import read_lines
from tests.training.world import make_project

AUGMENT = {"flip": 0.5, "jitter": 0.3, "scale": [1.0, 1.3]}
KEPT: dict[str, Any] = {"codec": "patch", "sources": ["rooms"], "crop": 32, "views": 3, "augment": AUGMENT}
READS = {**RUN, "views": 3, "augment": AUGMENT, "latents": "latents/three", "steps": 12}


def project(root: Path, latents: dict[str, Any] = KEPT, **changes: Any) -> Path:
    runs = {"kept": {**READS, **changes}, "fly": {**READS, **changes, "latents": "nothing"}}
    path = make_project(root, codecs={"patch": CODEC}, latents={"three": latents}, marigold=runs)
    params = load(path)
    make_codec(params, "patch", root)
    make_latents(params, "three", root, codec_digest(layout.codec(root, "patch")))
    return path


def recipe(path: Path, run: str) -> Recipe:
    return build_recipe(load(path), run, path.parent, families.get("marigold"), "fp32")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return project(tmp_path_factory.mktemp("latents"))


@pytest.mark.parametrize("objective", ["diffusion", "one_step_x0"])
def test_the_loss_is_that_of_encoding_at_every_step(objective: str, whole: Path, tmp_path: Path) -> None:
    path = whole if objective == "diffusion" else project(tmp_path, objective=objective)
    kept, fly = recipe(path, "marigold-kept"), recipe(path, "marigold-fly")
    task = kept.task()
    stored, encoded = kept.data(0, 1, 0), fly.data(0, 1, 0)
    assert len(stored) == len(encoded) == 12
    shown = set()
    with torch.no_grad():
        # Four batches are more than the epochs of all three views: the first view comes again.
        for index in range(11):
            ours, theirs = stored.batch(index), encoded.batch(index)
            assert ours["keys"] == theirs["keys"]
            tensors = [{n: each for n, each in b.items() if isinstance(each, torch.Tensor)} for b in (ours, theirs)]
            losses = [float(task(**each)["loss"]) for each in tensors]
            assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] > 0
            shown |= {(key, float(row.sum())) for key, row in zip(ours["keys"], ours["seen"], strict=True)}
    assert len(shown) == 12 * 3, "three views of every frame, and no more"


def test_ranks_share_what_is_kept(whole: Path) -> None:
    kept = recipe(whole, "marigold-kept")
    all_of_it = kept.data(0, 1, 0).batch(5)
    halves = [kept.data(rank, 2, 0).batch(5) for rank in range(2)]
    assert torch.equal(torch.cat([half["seen"] for half in halves]), all_of_it["seen"])
    assert torch.equal(torch.cat([half["position"] for half in halves]), all_of_it["position"])


def test_a_run_trains_from_latents(whole: Path) -> None:
    for run in ("marigold-kept", "marigold-fly"):
        processes.run_to_end(whole, run)
    ours, theirs = (
        read_lines(layout.training(whole.parent, run) / "metrics.jsonl") for run in ("marigold-kept", "marigold-fly")
    )
    assert len(ours) == 12
    for kept, fly in zip(ours, theirs, strict=True):
        assert kept["loss"] == pytest.approx(fly["loss"], rel=1e-3)


def test_latents_of_something_else_are_refused(tmp_path: Path) -> None:
    path = project(tmp_path)
    index = layout.latents(tmp_path, "three") / INDEX
    known = json.loads(index.read_text())
    index.write_text(json.dumps({**known, "key": "0" * 64}))
    with pytest.raises(WeightsError, match=r"another codec; 'dvc repro latents@three' makes them anew"):
        recipe(path, "marigold-kept").data(0, 1, 0)
    index.unlink()
    with pytest.raises(WeightsError, match="holds no latents"):
        recipe(path, "marigold-kept").data(0, 1, 0)
    params = load(make_project(tmp_path / "n", codecs={"patch": CODEC}, latents={"three": KEPT}))
    make_codec(params, "patch", tmp_path / "n")
    (tmp_path / "n" / "artifacts/shards/synthetic/rooms/manifest.parquet").unlink()
    with pytest.raises(ManifestError):
        make_latents(params, "three", tmp_path / "n", "codec")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": "latents/four"}, "no latents 'four' in section 'latents'; there are: three"),
        ({"views": 2}, r"marigold.kept and latents.three differ in views; set these alike"),
        ({"crop": 48}, r"differ in crop"),
        ({"objective": "one_step_decoded"}, "needs the pixels of photographs or maps"),
        ({"mix": {"rooms": {"share": 1.0}}}, "leave mix and augment.cutmix out"),
    ],
)
def test_settings_that_cannot_be_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = make_project(
        tmp_path, codecs={"patch": CODEC}, latents={"three": KEPT}, marigold={"kept": {**READS, **change}}
    )
    with pytest.raises(ParamsError, match=message):
        load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codec": "none"}, "latents.three.codec: no codec 'none'"),
        ({"sources": ["snaps"]}, "this family learns from exact depth"),
        ({"augment": {"cutmix": 0.5}}, "leave cutmix and crops out"),
        ({"views": 0}, "latents.three.views"),
    ],
)
def test_latents_that_cannot_be_are_named(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = make_project(tmp_path, codecs={"patch": CODEC}, latents={"three": {**KEPT, **change}})
    with pytest.raises(ParamsError, match=message):
        load(path)
