"""Readers of other packages: found by their entry point, ingested, and held to what all readers keep, as ours are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dav2.cli import build
from dav2.data.raw.sources import READERS, SourceError, open_source, reader_class, reader_names
from dav2.data.raw.sources.cleaning import load_rules
from dav2.data.raw.testing import check_reader
from dav2.data.store.ingest import ingest
from dav2.params import IngestParams, SourceParams

DATA = Path(__file__).parents[3] / "data"
CODE = '''
from pathlib import Path
import numpy as np
from dav2.data.frame import Frame, make_key
from dav2.data.raw.sources.base import Reader
from dav2.data.raw.sources.item import Item

class Cabin(Reader):
    """One picture a folder, its depth in a text file of one number."""
    rules_name = str(Path(__file__).with_name("cabin.yaml"))

    def items(self, names):
        return [Item(make_key(self.name, n.split("/")[0], "0"), n.split("/")[0], "", (n, n.replace(".png", ".txt")))
                for n in names if n.endswith(".png")]

    def load(self, item):
        image = self.image(item.paths[0])
        height, width = image.rgb.shape[:2]
        depth = np.linspace(1, float(self.text(item.paths[1])), height)[:, None] * np.ones(width)
        return self.labelled(item, image, depth)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package that brings the reader ``cabin``."""
    site = tmp_path / "site"
    (site / "cabins-1.dist-info").mkdir(parents=True)
    (site / "cabins.py").write_text(CODE)
    (site / "cabin.yaml").write_text("title: cabins\nlicence: MIT\nhomepage: none\nsize: small\nget: |\n  build one\n")
    (site / "cabins-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: cabins\nVersion: 1\n")
    (site / "cabins-1.dist-info" / "entry_points.txt").write_text("[dav2.readers]\ncabin = cabins:Cabin\n")
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", f"{site}:{Path(__file__).parents[3]}")
    yield
    sys.modules.pop("cabins", None)


def write(root: Path, count: int = 3) -> Path:
    for number in range(count):
        folder = root / f"c{number}"
        folder.mkdir(parents=True)
        picture = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(picture).save(folder / "0.png")
        (folder / "0.txt").write_text(f"{5 + number}")
    return root


@pytest.mark.usefixtures("package")
def test_a_reader_of_another_package_is_one_of_ours(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    assert "cabin" in reader_names()
    frames = check_reader(lambda: open_source("cabin", root, "mine"))
    assert [frame.key for frame in frames] == ["mine/c0/0", "mine/c1/0", "mine/c2/0"]
    source = SourceParams.model_validate({"reader": "cabin", "path": str(root), "group": "synthetic"})
    assert ingest("mine", source, IngestParams(), tmp_path / "out").frames == 3
    shown = CliRunner().invoke(build("data"), ["data", "how", "cabin"])
    assert shown.exit_code == 0 and "build one" in shown.stdout and "MIT" in shown.stdout
    with pytest.raises(SourceError, match=r"no reader named 'hut'; there are: hypersim, .*, cabin"):
        open_source("hut", root, "mine")


@pytest.mark.parametrize(
    "name", ["hypersim", "vkitti2", "tartanair", "irs", "blendedmvs", "photos", "nyu", "kitti", "da2k"]
)
def test_our_readers_are_held_to_the_same(name: str) -> None:
    assert check_reader(lambda: open_source(name, DATA / name, name), frames=2)


class Broken:
    """A reader that keeps all promises but one."""

    name, group, licence = "broken", "synthetic", "MIT"

    def __init__(self, fault: str, real: Any) -> None:
        self.fault, self.real = fault, real
        self.name = real.name

    def index(self) -> Any:
        items = self.real.index()
        return items + items[:1] if self.fault == "key twice" else items

    def read(self, item: Any) -> Any:
        frame = self.real.read(item)
        if self.fault == "depth of another type":
            object.__setattr__(frame, "depth", frame.depth.astype(np.float64))
        if self.fault == "other key":
            object.__setattr__(frame, "key", "other/a/b")
        return frame

    def notes(self) -> list[str]:
        return []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("key twice", "keys are not unique"),
        ("depth of another type", "depth must be float32, not float64"),
        ("other key", "the frame is called other/a/b"),
    ],
)
def test_the_kit_names_what_a_reader_does_not_keep(fault: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_reader(lambda: Broken(fault, open_source("irs", DATA / "irs", "irs")))  # type: ignore[arg-type,return-value]


def test_every_data_set_says_how_to_get_it() -> None:
    for name in READERS:
        rules = load_rules(reader_class(name).rules_name)
        assert rules.size and rules.layout and rules.get, name
        shown = CliRunner().invoke(build("data"), ["data", "how", name])
        assert shown.exit_code == 0, shown.output
        assert rules.title in shown.stdout and f"dav2 data check {name} data/{name}" in shown.stdout
    table = CliRunner().invoke(build("data"), ["data", "how"])
    assert table.exit_code == 0 and all(name in table.stdout for name in READERS)
    unknown = CliRunner().invoke(build("data"), ["data", "how", "imagenet"])
    assert unknown.exit_code != 0
