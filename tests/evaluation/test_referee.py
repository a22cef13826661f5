"""Maps made by any program are scored as a model that predicts them would be, and what is wrong with them is said."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from dav2.cli import build
from dav2.data.images import encode_png
from dav2.documents import ScoreFile
from dav2.evaluation.evaluate import EvaluationError, evaluate_model
from dav2.evaluation.foreign import fit_to
from dav2.evaluation.referee import Predictions, evaluate_maps, write_images
from dav2.families.loading import load
from dav2.report import write_report
from dav2.report.protocols import moved
from dav2.scenes.layouts.blendedmvs import encode_pfm
from dav2.scenes.layouts.files import write_exr
from dav2.scores.protocols import CONVENTIONS
from tests.evaluation.conftest import da2k_frames, depth_frames, tiny_params

Write = Callable[[Path, np.ndarray], None]


def _tiff(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.float32)).save(path.with_suffix(".tif"))


def _png(path: Path, values: np.ndarray) -> None:
    path.with_suffix(".png").write_bytes(encode_png(np.rint(values * 10000).astype(np.uint16)))


FORMATS: dict[str, Write] = {
    "npy": lambda path, values: np.save(path.with_suffix(".npy"), values),
    "half npz": lambda path, values: np.savez_compressed(path.with_suffix(".npz"), depth=values.astype(np.float16)),
    "pfm": lambda path, values: path.with_suffix(".pfm").write_bytes(encode_pfm(values.astype(np.float32))) and None,
    "exr": lambda path, values: write_exr(path.with_suffix(".exr"), {"G": values}),
    "tiff": _tiff,
    "png": _png,
}


def _truth(quantity: str = "disparity") -> dict[str, np.ndarray]:
    """Perfect maps of every image: 1/depth where depth is known, lower is nearer elsewhere and on DA-2K."""
    maps = {}
    for frame in [*da2k_frames(), *depth_frames("nyu", 3), *depth_frames("middlebury", 1, metric=False)]:
        height, width = frame.rgb.shape[:2]
        row = np.linspace(0.05, 0.5, height, dtype=np.float32)[:, None].repeat(width, 1)
        known = np.isfinite(frame.depth) if frame.depth is not None else np.zeros((height, width), bool)
        disparity = np.where(known, 1 / np.where(known, frame.depth if frame.depth is not None else 1, 1), row)
        maps[frame.key] = (disparity if quantity == "disparity" else 1 / disparity).astype(np.float32)
    return maps


def _write(folder: Path, maps: dict[str, np.ndarray], write: Write = FORMATS["npy"]) -> Path:
    for key, values in maps.items():
        path = folder / f"{key}.x"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, values)
    return folder


def _judge(folder: Path, root: Path, quantity: str = "disparity", **keywords: Any) -> dict[str, Any]:
    benchmarks, protocols = keywords.pop("benchmarks", None), keywords.pop("protocols", ())
    predictions = Predictions(folder, quantity, keywords.pop("name", "other"), **keywords)
    return evaluate_maps(predictions, tiny_params(), root, benchmarks=benchmarks, protocols=protocols).model_dump()


@pytest.mark.parametrize("kind", FORMATS)
def test_perfect_maps_are_perfect_whatever_program_wrote_them(project: Path, tmp_path: Path, kind: str) -> None:
    result = _judge(_write(tmp_path / "maps", _truth(), FORMATS[kind]), project)
    assert result["da2k"]["accuracy"] == 1.0
    for name in ("nyu", "edges", "middlebury"):
        assert result["benchmarks"][name]["metrics"]["abs_rel"] < (1e-4 if kind not in ("half npz", "png") else 2e-3)
    assert result["doubts"] == []
    assert result["maps"]["found"] == 10
    assert (result["maps"]["surplus"], result["maps"]["unreadable"]) == ([], {})


def test_maps_that_a_model_predicted_score_what_the_model_scores(project: Path, tmp_path: Path) -> None:
    model = load(project / "artifacts" / "models" / "student-vitn", "cpu", "fp32")
    write_images(tiny_params(), project, tmp_path / "images")
    pictures = sorted((tmp_path / "images").rglob("*.png"))
    assert len(pictures) == 10
    for picture in pictures:
        path = tmp_path / "maps" / picture.relative_to(tmp_path / "images")
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path.with_name(f"{picture.stem}_depth.npy"), model.infer_image(np.asarray(Image.open(picture))))
    theirs = _judge(tmp_path / "maps", project, protocols=["all"])
    ours = evaluate_model("student-vitn", tiny_params(), project, protocols=["all"]).model_dump()
    assert theirs["da2k"]["per_image"] == ours["da2k"]["per_image"]
    assert theirs["benchmarks"].keys() == ours["benchmarks"].keys()
    for name, entry in ours["benchmarks"].items():
        assert theirs["benchmarks"][name]["metrics"] == pytest.approx(entry["metrics"], rel=1e-4), name
        for protocol, other in entry["protocols"].items():
            assert theirs["benchmarks"][name]["protocols"][protocol]["metrics"] == pytest.approx(
                other["metrics"], rel=1e-3
            ), protocol


def test_relative_maps_are_judged_by_every_protocol_that_needs_no_metres(project: Path, tmp_path: Path) -> None:
    result = _judge(_write(tmp_path / "maps", _truth()), project, protocols=["all"])
    found = set(result["benchmarks"]["nyu"]["protocols"])
    relative = {f"da-v2-nyu+{each}" for each in CONVENTIONS if each not in ("median", "none")}
    assert found == {"marigold-nyu", "moge-nyu", *relative}
    assert set(result["benchmarks"]["edges"]["protocols"]) == {each.replace("nyu", "edges") for each in relative}
    assert {table.name for table in moved(ScoreFile.model_validate(result))} == {"nyu", "edges", "middlebury"}
    with pytest.raises(EvaluationError, match="they measure metres, and these are relative disparity"):
        _judge(tmp_path / "maps", project, protocols=["median"])
    with pytest.raises(EvaluationError, match="no protocol 'sloppy'; there are: all, ls-depth"):
        _judge(tmp_path / "maps", project, protocols=["sloppy"])
    with pytest.raises(EvaluationError, match="of none of these sets"):
        _judge(tmp_path / "maps", project, protocols=["moge-kitti"])


def test_maps_of_another_size_are_resized_to_their_image(project: Path, tmp_path: Path) -> None:
    smooth = {
        key: np.linspace(0.05, 0.5, values.shape[0] // 2, dtype=np.float32)[:, None].repeat(values.shape[1] // 2, 1)
        for key, values in _truth().items()
    }
    result = _judge(_write(tmp_path / "maps", smooth), project)
    rows = evaluate_model("baseline-row", tiny_params(), project).model_dump()
    assert result["da2k"]["accuracy"] == rows["da2k"]["accuracy"] == 1.0
    assert result["benchmarks"]["nyu"]["metrics"]["abs_rel"] == pytest.approx(
        rows["benchmarks"]["nyu"]["metrics"]["abs_rel"], rel=0.05
    )


def test_the_rule_of_resizing_is_bilinear_over_pixel_centres() -> None:
    values = np.random.default_rng(0).uniform(0, 1, (6, 8)).astype(np.float32)
    resized = fit_to(values, (9, 12), (9, 12))
    for row in range(9):
        for column in range(12):
            y, x = ((row + 0.5) * 6 / 9 - 0.5), ((column + 0.5) * 8 / 12 - 0.5)
            y, x = min(max(y, 0), 5), min(max(x, 0), 7)
            top, left = int(y), int(x)
            down, right = min(top + 1, 5), min(left + 1, 7)
            upper = values[top, left] * (1 - x + left) + values[top, right] * (x - left)
            lower = values[down, left] * (1 - x + left) + values[down, right] * (x - left)
            assert resized[row, column] == pytest.approx(upper * (1 - y + top) + lower * (y - top), abs=1e-6)


def test_a_map_of_the_judged_region_alone_is_taken_for_it() -> None:
    whole = np.arange(12 * 20, dtype=np.float32).reshape(12, 20)
    np.testing.assert_array_equal(fit_to(whole, (12, 20), (8, 10)), whole[4:, 5:15])
    np.testing.assert_array_equal(fit_to(whole[4:, 5:15], (12, 20), (8, 10)), whole[4:, 5:15])
    assert fit_to(whole.T, (12, 20), (12, 20)).shape == (20, 12)


def test_transposed_maps_void_the_means_and_score_nothing(project: Path, tmp_path: Path) -> None:
    turned = {key: values.T for key, values in _truth().items()}
    result = _judge(_write(tmp_path / "maps", turned), project)
    assert result["da2k"]["accuracy"] == 0.0
    assert result["benchmarks"]["nyu"]["metrics"]["abs_rel"] is None
    assert list(result["benchmarks"]["nyu"]["problems"]) == ["prediction has another size"]


@pytest.mark.parametrize(
    ("declared", "held"), [("disparity", "depth"), ("depth", "disparity"), ("metres", "disparity")]
)
def test_maps_of_the_wrong_sense_are_found_out(project: Path, tmp_path: Path, declared: str, held: str) -> None:
    result = _judge(_write(tmp_path / "maps", _truth(held)), project, declared)
    assert result["da2k"]["accuracy"] == 0.0
    first = result["doubts"][0]
    assert first.startswith("the maps look inverted")
    assert "of the DA-2K pairs it orders 0.0 % rightly" in first
    assert f"say --quantity {'depth or metres' if declared == 'disparity' else 'disparity'}" in first


@pytest.mark.parametrize(("factor", "unit"), [(1000, "millimetres"), (256, "metres times 256"), (100, "centimetres")])
def test_metres_of_the_wrong_unit_are_found_out_and_put_right(
    project: Path, tmp_path: Path, factor: int, unit: str
) -> None:
    maps = {key: factor * values for key, values in _truth("depth").items()}
    folder = _write(tmp_path / "maps", maps)
    wrong = _judge(folder, project, "metres")
    assert any(unit in each and f"--scale {1 / factor:.6g}" in each for each in wrong["doubts"])
    right = _judge(folder, project, "metres", scale=1 / factor)
    assert right["doubts"] == []
    assert right["benchmarks"]["nyu-metric"]["metrics"]["abs_rel"] < 1e-4
    assert right["maps"]["sha256"] != wrong["maps"]["sha256"]


def test_a_factor_that_no_unit_explains_is_told_and_a_small_one_is_not(project: Path, tmp_path: Path) -> None:
    for factor, expected in ((2.0, []), (0.02, ["another unit? kilometres would be 1e+03"])):
        maps = {key: factor * values for key, values in _truth("depth").items()}
        found = _judge(_write(tmp_path / str(factor), maps), project, "metres")["doubts"]
        assert len(found) == len(expected)
        assert all(text in each for text, each in zip(expected, found, strict=True))


def test_the_sky_of_others_is_infinite_and_counts_as_far(project: Path, tmp_path: Path) -> None:
    maps = _truth("depth")
    for values in maps.values():
        values[:2] = np.inf
    result = _judge(_write(tmp_path / "maps", maps), project, "metres")
    assert result["benchmarks"]["nyu-metric"]["metrics"]["abs_rel"] < 1e-4
    assert result["da2k"]["accuracy"] == 1.0


def test_a_hole_in_a_map_voids_the_mean(project: Path, tmp_path: Path) -> None:
    maps = _truth()
    maps["nyu/room/f1"][20, 20] = np.nan
    entry = _judge(_write(tmp_path / "maps", maps), project)["benchmarks"]["nyu"]
    assert entry["problems"] == {"prediction is not finite": ["nyu/room/f1"]}
    assert entry["metrics"]["abs_rel"] is None


def test_missing_maps_are_refused_beyond_a_share_and_counted_within_it(project: Path, tmp_path: Path) -> None:
    maps = _truth()
    del maps["nyu/room/f1"]
    folder = _write(tmp_path / "maps", maps)
    with pytest.raises(EvaluationError, match=r"1 of 3 images of nyu have no map \(nyu/room/f1\); at most 5 %"):
        _judge(folder, project)
    assert not (project / "artifacts" / "scores" / "other.json").exists()
    entry = _judge(folder, project, allow_missing=0.34)["benchmarks"]["nyu"]
    assert entry["problems"] == {"no map of that name": ["nyu/room/f1"]}
    assert (entry["scored"], entry["frames"]) == (2, 3)
    assert entry["metrics"]["abs_rel"] is not None


def test_unreadable_maps_are_named_with_their_reason_and_count_as_missing(project: Path, tmp_path: Path) -> None:
    folder = _write(tmp_path / "maps", _truth())
    (folder / "nyu/room/f1.npy").write_bytes((folder / "nyu/room/f1.npy").read_bytes()[:-40])
    with pytest.raises(
        EvaluationError, match=r"1 of 3 images of nyu have no map that can be read; nyu/room/f1.npy: f1"
    ):
        _judge(folder, project)
    result = _judge(folder, project, allow_missing=0.5)
    assert result["benchmarks"]["nyu"]["problems"] == {"map cannot be read": ["nyu/room/f1"]}
    assert "bytes where (48, 64) float32 needs" in result["maps"]["unreadable"]["nyu/room/f1.npy"]


def _coloured(path: Path) -> None:
    path.with_suffix(".png").write_bytes(encode_png(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3)))


def _pickled(path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.array([{"a": 1}], dtype=object), allow_pickle=True)


def _two_arrays(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), a=np.zeros((48, 64)), b=np.zeros((48, 64)))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_coloured, "picture in colours"),
        (_pickled, "pickled objects, which are never loaded"),
        (_two_arrays, "which array is the map"),
        (lambda path: path.with_suffix(".pfm").write_bytes(b"not a map"), "no map that can be read"),
        (
            lambda path: np.save(path.with_suffix(".npy"), np.zeros((2, 48, 64))),
            "has the shape",
        ),
    ],
)
def test_what_is_no_map_says_why(project: Path, tmp_path: Path, spoil: Callable[[Path], Any], reason: str) -> None:
    folder = _write(tmp_path / "maps", {k: v for k, v in _truth().items() if k != "nyu/room/f1"})
    spoil(folder / "nyu/room/f1.x")
    with pytest.raises(EvaluationError, match=reason):
        _judge(folder, project)


def test_a_pipe_and_a_link_to_nowhere_are_named_and_not_waited_for(project: Path, tmp_path: Path) -> None:
    folder = _write(tmp_path / "maps", {k: v for k, v in _truth().items() if k not in ("nyu/room/f1", "nyu/room/f2")})
    os.mkfifo(folder / "nyu/room/f1.npy")
    (folder / "nyu/room/f2.npy").symlink_to("nowhere.npy")
    result = _judge(folder, project, allow_missing=0.7)
    assert result["maps"]["unreadable"] == {
        "nyu/room/f1.npy": "is a named pipe, not a file",
        "nyu/room/f2.npy": "is a link to something that is not there",
    }
    assert result["benchmarks"]["nyu"]["scored"] == 1


def test_names_are_matched_from_the_end_and_never_guessed(project: Path, tmp_path: Path) -> None:
    flat = {key.split("/")[-1]: values for key, values in _truth().items() if key.startswith("da2k")}
    folder = _write(tmp_path / "flat", flat)
    (folder / "image0.npy").rename(folder / "IMAGE0.jpg.npy")
    np.save(folder / "somebody.npy", np.zeros((4, 4)))
    result = _judge(folder, project)
    assert result["da2k"]["accuracy"] == 1.0
    assert result["benchmarks"] == {}
    assert result["maps"]["surplus"] == ["somebody.npy"]
    # f0 is an image of nyu and of middlebury.
    np.save(folder / "f0.npy", np.zeros((48, 64)))
    with pytest.raises(EvaluationError, match=r"f0.npy: could be the map of 2 images \((nyu|middlebury)/room/f0"):
        _judge(folder, project)
    (folder / "nyu").mkdir()
    (folder / "f0.npy").rename(folder / "nyu" / "f0.npy")
    assert _judge(folder, project, benchmarks=["da2k"])["maps"]["found"] == 7
    np.save(folder / "nyu" / "f0_depth.npy", np.zeros((48, 64)))
    with pytest.raises(EvaluationError, match=r"two maps of nyu/room/f0: f0.npy and nyu/f0_depth.npy"):
        _judge(folder, project)


def test_a_folder_without_any_map_says_how_they_should_be_named(project: Path, tmp_path: Path) -> None:
    folder = _write(tmp_path / "maps", {"a": np.zeros((4, 4))})
    with pytest.raises(EvaluationError, match=r"none of its 1 maps is named like .* da2k/indoor/image0.png"):
        _judge(folder, project)
    with pytest.raises(EvaluationError, match="no such folder of maps"):
        _judge(tmp_path / "nowhere", project)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"name": "teacher"}, "is a model of this project"),
        ({"name": "baseline-mine"}, "is a model of this project"),
        ({"name": "../x"}, "cannot be a name"),
        ({"by": "a\nb"}, "--by: one line"),
        ({"scale": 0.0}, "--scale 0"),
        ({"allow_missing": 5.0}, "--allow-missing 5: is a share"),
        (
            {"quantity": "colour"},
            "--quantity colour: say what the values are: disparity, log_depth, depth, metres, normals",
        ),
        ({"quantity": "normals"}, "no benchmark judges normals; 'evaluate.benchmarks' needs one whose protocol does"),
        ({"quantity": ""}, r"--quantity \(missing\)"),
        ({"benchmarks": ["moon"]}, "no benchmark 'moon'"),
    ],
)
def test_a_wrong_option_is_named(project: Path, tmp_path: Path, keywords: dict[str, Any], message: str) -> None:
    folder = _write(tmp_path / "maps", _truth())
    with pytest.raises(EvaluationError, match=message):
        _judge(folder, project, **keywords)


def test_the_report_says_who_made_the_maps_and_which(scored: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(scored, tmp_path / "project"))
    maps = _write(tmp_path / "maps", _truth("depth"))
    result = _judge(maps, root, "depth", name="theirs", by="A. Nother")
    inverted = _judge(maps, root, "disparity", name="wrong-way")
    (maps / "nyu/room/f1.npy").write_bytes(b"no map")
    np.save(maps / "notes.npy", np.zeros((4, 4)))
    _judge(maps, root, "depth", name="lacking", allow_missing=0.5)
    page = write_report(tiny_params(), root, tmp_path / "out").read_text(encoding="utf-8")
    assert "by A. Nother" in page
    assert result["maps"]["sha256"][:8] in page
    assert inverted["doubts"][0].split(";")[0] in page
    assert "lacking: nyu/room/f1.npy cannot be read: f1.npy: no map that can be read" in page
    assert "lacking, nyu: 1 × map cannot be read" in page
    assert "lacking: 1 files are the map of no image" in page
    assert "<b>theirs</b> orders" not in page, "what a reader takes home is a model of this project"


def _run(root: Path, tmp_path: Path, *arguments: str | Path) -> tuple[int, str]:
    settings = tmp_path / "params.yaml"
    settings.write_text(yaml.safe_dump(tiny_params().model_dump(mode="json", by_alias=True)))
    command = ["evaluate", *map(str, arguments), "--params", str(settings), "--root", str(root)]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(build("evaluate"), command)
    return result.exit_code, result.output


def test_the_command_writes_scores_tables_and_the_page_of_protocols(project: Path, tmp_path: Path) -> None:
    folder = _write(tmp_path / "maps", _truth())
    code, output = _run(
        project, tmp_path, "--predictions", folder, "--quantity", "disparity", "--by", "me", "--protocol", "all"
    )
    assert code == 0, output
    assert "da-v2-nyu+ransac-log" in output
    assert "da-v2-nyu (own)" in output
    assert "10 maps, sha256" in output
    page = (project / "reports" / "protocols" / "maps.html").read_text(encoding="utf-8")
    assert "scale and shift fitted in the root of disparity by least squares" in page
    assert "by me" in page
    assert "http" not in page
    scores = json.loads((project / "artifacts" / "scores" / "maps.json").read_text())
    assert scores["by"] == "me"


def test_the_command_refuses_two_things_at_once_and_wrong_maps_in_a_line(project: Path, tmp_path: Path) -> None:
    assert _run(project, tmp_path)[0] == 2
    assert _run(project, tmp_path, "teacher", "--predictions", tmp_path)[0] == 2
    assert _run(project, tmp_path, "teacher", "--by", "me")[0] == 2
    code, output = _run(project, tmp_path, "--predictions", tmp_path / "no", "--quantity", "depth")
    assert (code, output.strip()) == (2, f"{tmp_path / 'no'}: no such folder of maps")
    code, output = _run(project, tmp_path, "--images", tmp_path / "images", "--benchmark", "nyu")
    assert (code, output.strip()) == (0, f"wrote 3 images below {tmp_path / 'images'}")
    assert (tmp_path / "images" / "nyu" / "room" / "f0.png").is_file()
