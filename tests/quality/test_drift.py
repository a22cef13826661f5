from __future__ import annotations

from pathlib import Path

import pytest

from dav2.data.store.manifest import ManifestError
from dav2.params import Params
from dav2.quality.drift import COLUMNS, drift, plot
from tests.quality.builders import write_source


def test_equal_versions_do_not_drift(tmp_path: Path, params: Params) -> None:
    write_source(tmp_path, params, "irs", 20)
    folder = tmp_path / params.shards("irs")
    table = drift(folder, folder)
    assert set(table["column"]) == set(COLUMNS)
    assert (table["ks"] == 0).all() and (table["shift"] == 0).all()
    assert table.attrs == {"frames_old": 20, "frames_new": 20, "added": 0, "removed": 0, "changed": 0}


def test_what_changed_stands_first(tmp_path: Path, params: Params) -> None:
    def darker(row: dict[str, object]) -> None:
        row["brightness"] = 10.0
        row["sha256"] = "0" * 64

    write_source(tmp_path / "a", params, "irs", 20)
    write_source(tmp_path / "b", params, "irs", 25, change=darker)
    table = drift(tmp_path / "a" / params.shards("irs"), tmp_path / "b" / params.shards("irs"))
    first = table.iloc[0]
    assert (first["column"], first["ks"], first["new_mean"]) == ("brightness", 1.0, 10.0)
    assert first["shift"] < -10
    assert table.attrs == {"frames_old": 20, "frames_new": 25, "added": 5, "removed": 0, "changed": 20}


def test_unlabelled_sources_are_compared_by_their_looks_only(tmp_path: Path, params: Params) -> None:
    write_source(tmp_path, params, "views", 5)
    folder = tmp_path / params.shards("views")
    assert set(drift(folder, folder)["column"]) == {"width", "height", "brightness", "contrast", "sharpness"}


def test_the_plot_is_a_picture_and_a_missing_version_is_named(tmp_path: Path, params: Params) -> None:
    from PIL import Image

    write_source(tmp_path, params, "irs", 12)
    folder = tmp_path / params.shards("irs")
    plot(folder, folder, tmp_path / "drift.png")
    with Image.open(tmp_path / "drift.png") as picture:
        assert picture.format == "PNG" and picture.width > 1000
    with pytest.raises(ManifestError, match=r"nowhere.*manifest\.parquet is missing"):
        drift(tmp_path / "nowhere", folder)
