"""The corpus through predict, check and ingest: no crash, no wait, and every file accounted for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from dav2.cli import build as command_line
from dav2.data.raw.sources import open_source
from dav2.data.store.ingest import ingest
from dav2.data.store.manifest import read_quarantine
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from tests.corpus.make import FAILED, FATES, LEFT_OUT, SOUND, make_archives, make_photographs
from tests.data.builders import ingestion, photographs

COUNTS = Counter(FATES.values())
SOUND_FILES = {name for name, fate in FATES.items() if fate == SOUND}
FAILED_FILES = {name for name, fate in FATES.items() if fate == FAILED}
SUM = f"{len(FATES)} found = {{}} + {COUNTS[LEFT_OUT]} left out"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    make_photographs(folder / "photographs")
    make_archives(folder / "archives")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAV2_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "400")


@pytest.mark.timeout(120)
def test_predict(corpus: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_directory(build("vitn", 20.0), tmp_path / "model")
    arguments = ["predict", str(corpus / "photographs"), "-m", str(tmp_path / "model"), "-o", str(tmp_path / "out")]
    options = ["--size", "28", "--dtype", "fp32", "--save", "npy,ply", "--focal", "40"]
    result = CliRunner().invoke(command_line("predict"), [*arguments, *options])
    assert result.exit_code == 1, result.output
    assert SUM.format(f"{COUNTS[SOUND]} predicted") in result.output
    assert len(list((tmp_path / "out").glob("*_depth.npy"))) == COUNTS[SOUND]
    named = {
        line.split(": ")[1].rpartition("/")[2] for line in result.output.splitlines() if line.startswith("failed: ")
    }
    assert named == FAILED_FILES and "unforeseen" not in result.output


@pytest.mark.timeout(120)
def test_check(corpus: Path) -> None:
    arguments = ["data", "check", "image_folder", str(corpus / "photographs"), "--sample", "0"]
    result = CliRunner().invoke(command_line("data"), arguments)
    assert result.exit_code == 1, result.output
    failed = len(FAILED_FILES)
    assert f"frames: {failed + COUNTS[SOUND]} found = {COUNTS[SOUND]} sound + {failed} failed" in result.stdout
    assert f"{len(FATES)} found = " in result.stdout and "HEIC 1" in result.stdout
    assert all(name in result.stderr for name in FAILED_FILES) and "unforeseen" not in result.output


@pytest.mark.timeout(120)
def test_ingest(corpus: Path, tmp_path: Path) -> None:
    summary = ingest("corpus", photographs(corpus / "photographs"), ingestion(), tmp_path / "out")
    assert (summary.frames, summary.quarantined) == (COUNTS[SOUND], COUNTS[FAILED])
    assert summary.indexed == summary.frames + summary.quarantined + summary.duplicates + summary.forbidden
    quarantine = read_quarantine(tmp_path / "out").set_index("path")["reason"]
    assert set(quarantine.index) == FAILED_FILES and not quarantine.str.contains("unforeseen").any()
    assert any(f"files: {len(FATES)} found = " in note for note in summary.notes)


@pytest.mark.timeout(120)
def test_archives(corpus: Path, tmp_path: Path) -> None:
    summary = ingest("packed", photographs(corpus / "archives"), ingestion(), tmp_path / "out")
    refused = " ".join(read_quarantine(tmp_path / "out")["path"])
    assert summary.frames == 2
    for name in ("mixed.tar!/a/cut.jpg", "../out.jpg", "a/link.jpg", "/b/out.jpg", "garbage.tar.bz2", "garbage.zip"):
        assert name in refused
    source = open_source("image_folder", corpus / "archives", "packed", {})
    source.index()
    assert source.accounts.found == summary.indexed == summary.frames + summary.quarantined
