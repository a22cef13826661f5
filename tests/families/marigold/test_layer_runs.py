"""Normals and light from frames to files: a run, its scores, ``dav2 predict``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import dav2
from dav2 import layout
from dav2.cli import build as command_line
from dav2.data.images import encode_jpeg
from dav2.data.store.manifest import MANIFEST
from dav2.evaluation.evaluate import evaluate_model
from dav2.families.marigold.ceiling import FILE, make_codec
from dav2.maps import Quantity
from dav2.params import ParamsError, load
from dav2.predict.marks import made_here
from tests.data.test_layers import shards_of
from tests.evaluation.test_layers import room
from tests.families.marigold.builders import photograph
from tests.families.marigold.test_runs import CODEC, RUN
from tests.training import processes
from tests.training.world import make_project

TARGETS = ("normals", "lighting")


def project(root: Path, **changes: Any) -> Path:
    """The small project of diffusion runs, its frames with layers."""
    codecs = {target: {**CODEC, "channels": 8, "target": target} for target in TARGETS}
    run = {**RUN, "objective": "one_step_decoded", "augment": {"flip": 0.5}, **changes}
    marigold = {target: {**run, "codec": target, "target": target} for target in TARGETS}
    benchmarks = {target: {"source": "da2k", "protocol": f"{target}-plain"} for target in TARGETS}
    evaluate = {"da2k": "da2k", "models": ["teacher"], "benchmarks": benchmarks}
    return make_project(root, codecs=codecs, marigold=marigold, evaluate=evaluate)


def hold_out(shards: Path, count: int) -> None:
    """Make the last frames of a manifest its ``val`` split."""
    table = pq.read_table(shards / MANIFEST)
    splits = ["train"] * (len(table) - count) + ["val"] * count
    place, field = table.schema.get_field_index("split"), table.schema.field("split")
    pq.write_table(table.set_column(place, field, pa.array(splits).cast(field.type)), shards / MANIFEST)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = project(tmp_path_factory.mktemp("layers"))
    root, params = file.parent, load(file)
    hold_out(shards_of([room(number) for number in range(8)], root / params.shards("rooms")), 2)
    shards_of([room(number) for number in range(8, 10)], root / params.shards("da2k"))
    for target in TARGETS:
        make_codec(params, target, root)
        processes.run_to_end(file, f"marigold-{target}")
    return root


def test_a_codec_says_what_layers_lose(trained: Path) -> None:
    (row,) = json.loads((layout.codec(trained, "normals") / FILE).read_text())["rows"]
    assert row["frames"] == 2 and 0 < row["mean"] < 60 and row["psnr"] > 10 and "abs_rel" not in row
    (row,) = json.loads((layout.codec(trained, "lighting") / FILE).read_text())["rows"]
    assert row["albedo_psnr"] > 8 and row["recomposition_psnr"] > 8


def test_a_run_ends_as_a_model_that_is_scored(trained: Path) -> None:
    params = load(trained / "params.yaml")
    scores = evaluate_model("marigold-normals", params, trained)
    assert scores.quantity == "normals" and list(scores.benchmarks) == ["normals"] and scores.da2k is None
    assert scores.benchmarks["normals"].scored == 2 and 0 < (scores.benchmarks["normals"].metrics["mean"] or 0) < 90
    scores = evaluate_model("marigold-lighting", params, trained)
    assert list(scores.benchmarks) == ["lighting"] and scores.quantity == "albedo"
    found = scores.benchmarks["lighting"].metrics
    assert {"albedo_psnr", "shading_psnr", "residual_psnr", "recomposition_psnr"} <= found.keys()
    model = dav2.load(layout.model(trained, "marigold-normals"), "cpu", "fp32")
    values = model.infer_image(photograph(40, 52))
    assert values.shape == (3, 40, 52) and np.abs(np.linalg.norm(values, axis=0) - 1).max() < 1e-5
    pictures = sorted((layout.training(trained, "marigold-lighting")).rglob("*.png"))
    assert pictures and cv2.imread(str(pictures[0])).shape[1] == 7 * 32, "a photograph, three layers, three targets"


def test_the_loss_falls_on_what_can_be_learnt(trained: Path) -> None:
    """Sixteen steps more on one batch: the network reaches what the constant cannot."""
    from dav2.families.marigold.objectives import Sample
    from dav2.families.marigold.strategies import OBJECTIVES
    from dav2.families.marigold.task import MarigoldTask
    from dav2.params import ProcessParams

    model = dav2.load(layout.model(trained, "marigold-normals"), "cpu", "fp32")
    task = MarigoldTask(model.train(), OBJECTIVES["one_step_decoded"](ProcessParams(), 0), "fp32")
    image = torch.from_numpy(photograph(32, 32)).permute(2, 0, 1)[None] / 127.5 - 1
    target = torch.zeros(1, 3, 32, 32)
    target[:, 0, :, :16], target[:, 1, :, 16:] = -1, 1
    given = Sample(image, target, torch.ones(1, 1, 32, 32, dtype=torch.bool), torch.zeros(1, dtype=torch.int64))
    optimizer, losses = torch.optim.Adam(task.model.unet.parameters(), 3e-3), []
    for _ in range(16):
        loss = task(**{name: value for name, value in given._asdict().items() if value is not None})["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]


def predict(trained: Path, folder: Path, target: str, kinds: str, *more: str) -> Any:
    model = str(layout.model(trained, f"marigold-{target}"))
    arguments = ["predict", str(folder / "in"), "-m", model, "-o", str(folder / "out"), "--save", kinds]
    return CliRunner(env={"COLUMNS": "400"}).invoke(command_line("predict"), [*arguments, "--device", "cpu", *more])


def test_every_layer_has_files_of_its_own(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(encode_jpeg(photograph(40, 52), 95))
    assert predict(trained, tmp_path, "normals", "png16,npy,color,side-by-side").exit_code == 0
    out = tmp_path / "out"
    normals = np.load(out / "a_normals.npy")
    codes = cv2.imread(str(out / "a_normals.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert normals.shape == (40, 52, 3) and codes.dtype == np.uint16
    assert np.abs(codes / 32767.5 - 1 - normals).max() < 2e-5
    shown = cv2.imread(str(out / "a_normals_color.png"))[..., ::-1]
    assert np.abs(shown / 127.5 - 1 - normals).max() < 5e-3
    assert cv2.imread(str(out / "a_side.png")).shape == (40, 52 * 2 + 50, 3)
    assert predict(trained, tmp_path, "lighting", "png16,npy,color").exit_code == 0
    for layer in ("albedo", "shading", "residual"):
        values = np.load(out / f"a_{layer}.npy")
        assert values.shape == (40, 52, 3) and 0 <= values.min() <= values.max() <= 1
        assert b"dav2:colours\0linear" in (out / f"a_{layer}.png").read_bytes()[:400]
    assert all(made_here(path) for path in out.glob("*.png")), "predicting them again is refused"
    answer = dav2.infer(tmp_path / "in" / "a.jpg", layout.model(trained, "marigold-lighting"))
    assert list(answer.layers) == [Quantity.ALBEDO, Quantity.SHADING, Quantity.RESIDUAL]
    assert answer.picture().size == (52, 40) and "albedo, shading, residual of 52 × 40" in repr(answer)


@pytest.mark.parametrize(
    ("kinds", "message"), [("ply", "--save ply needs a metric model"), ("uncertainty", "no uncertainty of a single")]
)
def test_what_layers_have_not_is_said(trained: Path, tmp_path: Path, kinds: str, message: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(encode_jpeg(photograph(40, 52), 95))
    result = predict(trained, tmp_path, "normals", kinds)
    assert result.exit_code in (1, 2) and message in result.output + str(result.exception)


def test_settings_that_layers_do_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="target normals: latents are kept, and maps refined, of depth alone"):
        load(project(tmp_path, objective="refine", refines="models/teacher"))
