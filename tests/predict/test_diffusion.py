"""``dav2 predict`` with a model that draws: steps, ensembles, seeds, uncertainty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from dav2.cli import build as command_line
from dav2.data.images import encode_jpeg
from dav2.families.marigold.weights import save_directory
from tests.families.marigold.builders import model, patch_codec, photograph


def run(folder: Path, which: str, *more: str) -> Result:
    arguments = [
        "predict",
        str(folder / "in"),
        "-m",
        _model(folder, which),
        "-o",
        str(folder / "out"),
        "--device",
        "cpu",
    ]
    return CliRunner(env={"COLUMNS": "400"}).invoke(command_line("predict"), [*arguments, "--dtype", "fp32", *more])


def _model(folder: Path, which: str) -> str:
    return str(folder / which) if (folder / which).is_dir() else which


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_directory(model(patch_codec()), tmp_path / "noise")
    save_directory(model(patch_codec(), begins="zeros"), tmp_path / "zeros")
    (tmp_path / "in").mkdir()
    for name, shape in (("a", (60, 84)), ("b", (40, 50))):
        (tmp_path / "in" / f"{name}.jpg").write_bytes(encode_jpeg(photograph(*shape), 95))
    return tmp_path


def test_steps_ensemble_and_seed_decide_the_map(folder: Path) -> None:
    def maps(*more: str) -> dict[str, np.ndarray]:
        result = run(folder, "noise", "--save", "npy", *more)
        assert result.exit_code == 0, result.output
        return {path.name: np.load(path) for path in (folder / "out").glob("*_depth.npy")}

    first = maps("--seed", "1")
    assert {name: found.shape for name, found in first.items()} == {"a_depth.npy": (60, 84), "b_depth.npy": (40, 50)}
    again, other, more = maps("--seed", "1"), maps("--seed", "2"), maps("--seed", "1", "--steps", "3")
    assert all((again[name] == first[name]).all() for name in first)
    assert all(np.abs(other[name] - first[name]).max() > 1e-3 for name in first)
    assert all(np.abs(more[name] - first[name]).max() > 1e-3 for name in first)


def test_an_ensemble_says_how_sure_it_is(folder: Path) -> None:
    result = run(folder, "noise", "--save", "npy,uncertainty", "--ensemble", "3", "--size", "48")
    assert result.exit_code == 0, result.output
    values, sure = (np.load(folder / "out" / f"a_{kind}.npy") for kind in ("depth", "uncertainty"))
    assert values.shape == sure.shape == (60, 84) and values.dtype == sure.dtype == np.float32
    assert values.min() >= 0 and values.max() <= 1 and sure.min() >= 0 and sure.max() > 0
    result = run(folder, "noise", "--save", "uncertainty")
    assert result.exit_code == 1 and "no uncertainty of a single prediction" in result.output


@pytest.mark.parametrize(
    ("which", "more", "message"),
    [
        ("noise", ("--steps", "0"), "Invalid value for '--steps'"),
        ("noise", ("--ensemble", "0"), "Invalid value for '--ensemble'"),
        ("noise", ("--size", "-8"), "input size -8 must be 0"),
        ("zeros", ("--ensemble", "4"), "in one step and from no noise"),
        ("vitn", ("--steps", "2"), "models of the family depth_anything predict at once"),
        ("noise", ("--ensemble", "2", "--reduction", "closest"), "'closest' is for normals"),
    ],
)
def test_what_cannot_be_asked_for_is_said(folder: Path, which: str, more: tuple[str, ...], message: str) -> None:
    result = run(folder, which, *more)
    assert result.exit_code == 2 or isinstance(result.exception, ValueError)
    assert message in result.output + str(result.exception)
