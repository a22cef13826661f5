from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from dav2.data.store.manifest import ManifestError
from dav2.documents import Verdict
from dav2.params import LossParams, Params, TeacherParams
from dav2.quality import QualityError, checkpoint, validate
from dav2.quality.gate import GateResult
from tests.quality import builders

Row = dict[str, Any]


def gate(root: Path, params: Params, group: Any) -> GateResult:
    return validate(group, root, params, root / "artifacts/quality" / group)


def result_of(root: Path, group: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / "artifacts/quality" / group / "result.json").read_text())
    return content


@pytest.mark.parametrize("group", ["synthetic", "unlabelled", "benchmark"])
def test_sound_data_passes_without_a_warning(tmp_path: Path, params: Params, group: str) -> None:
    builders.write_group(tmp_path, params, group, frames=40)
    result = gate(tmp_path, params, group)
    assert (result.passed, result.failures, result.warnings) == (True, [], [])
    assert result_of(tmp_path, group)["frames"] == 40 * len(params.group(group))
    assert set(result_of(tmp_path, group)["sources"]) == set(params.group(group))


# What is done to one row in three, and what the failure must say.
FAULTS: dict[str, tuple[str, Row, str]] = {
    "little known depth": ("synthetic", {"valid": 0.3}, r"valid must be ≥ 0\.5; 50 of 150.*synthetic\.min_valid"),
    "only sky": ("synthetic", {"sky": 1.0}, r"sky must be ≤ 0\.98;.*quality\.synthetic\.max_sky"),
    "depths out of order": ("synthetic", {"depth_max": 0.5}, r"depth_max must be at least depth_median; 50 of 150"),
    "no depth at all": ("synthetic", {"size_depth": 0}, r"size_depth must be ≥ 1"),
    "depth not positive": ("synthetic", {"depth_min": 0.0}, r"depth_min must be > 0"),
    "a label where none belongs": ("unlabelled", {"size_depth": 9}, r"size_depth must be one of \[0\]"),
    "same picture twice": ("unlabelled", {"pixel_sha256": "0" * 64}, r"pixel_sha256 must be unique;.*max_duplicates"),
    "too small": ("unlabelled", {"width": 8}, r"side must be ≥ 32;.*set by ingest\.min_side in params\.yaml"),
    "too long": ("unlabelled", {"width": 4800}, r"aspect must be ≤ 5;.*ingest\.max_aspect"),
    "wrong split": ("benchmark", {"split": "train"}, r"split must be one of \['test'\]"),
    "no licence": ("benchmark", {"licence": None}, r"licence must be there"),
    "bad key": ("benchmark", {"key": "Upper.Case"}, r"key must match"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_told_with_column_setting_and_keys(tmp_path: Path, params: Params, fault: str) -> None:
    group, damage, message = FAULTS[fault]
    count = 0

    def change(row: Row) -> None:
        nonlocal count
        if count % 3 == 0:
            row.update(damage)
        count += 1

    builders.write_group(tmp_path, params, group, frames=30, change=change)
    result = gate(tmp_path, params, group)
    assert not result.passed
    found = [failure for failure in result.failures if re.search(message, failure)]
    assert len(found) == 1, result.failures
    first = f"{params.group(group)[0]}/scene_0/0000" if fault != "bad key" else "Upper.Case"
    assert first in found[0]
    assert result_of(tmp_path, group)["failures"] == result.failures


def test_the_front_page_sets_the_authors_count_beside_ours(tmp_path: Path, params: Params) -> None:
    builders.write_group(tmp_path, params, "synthetic")
    gate(tmp_path, params, "synthetic")
    (page,) = tmp_path.rglob("docs/index.html")
    assert "59,543 public train split" in page.read_text(encoding="utf-8")


def test_implausible_depths_warn_and_do_not_stop(tmp_path: Path, params: Params) -> None:
    def millimetres(row: Row) -> None:
        if row["source"] == "vkitti2":
            for column in ("depth_min", "depth_median", "depth_max"):
                row[column] *= 1000.0

    builders.write_group(tmp_path, params, "synthetic", change=millimetres)
    result = gate(tmp_path, params, "synthetic")
    assert result.passed
    assert any("depth_median must be ≥ 1 and ≤ 656 where reader == vkitti2" in warning for warning in result.warnings)


def test_too_much_quarantine_stops_and_says_why(tmp_path: Path, params: Params) -> None:
    builders.write_group(tmp_path, params, "benchmark")
    builders.write_source(tmp_path, params, "nyu", 30, quarantined=3)
    result = gate(tmp_path, params, "benchmark")
    (failure,) = result.failures
    assert "quality.benchmark.max_quarantined" in failure and failure.endswith("nyu (quarantine: nyu: 3 × truncated)")
    assert result_of(tmp_path, "benchmark")["sources"]["nyu"]["quarantined"] == 3


def write_pseudo(root: Path, params: Params, change: builders.Change | None = None, drop: int = 0) -> None:
    for name in params.pseudo_label.sources:
        rows = builders.write_source(root, params, name, 30)
        builders.write_labels(root, params, name, rows[drop:], change)


def test_sound_labels_pass(tmp_path: Path, params: Params) -> None:
    write_pseudo(tmp_path, params)
    result = gate(tmp_path, params, "pseudo")
    assert (result.passed, result.failures, result.warnings) == (True, [], [])


def test_labels_of_normals_have_a_codec_and_no_ends_of_a_range(tmp_path: Path, params: Params) -> None:
    assert isinstance(params.teacher, TeacherParams)
    teacher = params.teacher.model_copy(update={"loss": LossParams(target="normals")})
    params = params.model_copy(update={"teacher": teacher})
    row = {"codec": "normals", "bits": 16, **dict.fromkeys(("vmin", "vmax", "saturated"), float("nan"))}
    write_pseudo(tmp_path, params, lambda label: label.update(row))
    result = gate(tmp_path, params, "pseudo")
    assert (result.passed, result.failures, result.warnings) == (True, [], [])


LABEL_FAULTS: dict[str, tuple[Row, str]] = {
    "flat": ({"range": 0.0}, r"range must be ≥ 0\.02;.*quality\.pseudo\.min_range"),
    "saturated": ({"saturated": 1.0}, r"saturated must be ≤ 0\.98;.*quality\.pseudo\.max_saturated"),
    "of another photograph": ({"image_sha256": "0" * 64}, r"same_image must be one of \[True\]"),
    "of another codec": ({"codec": "jxl12"}, r"codec must be one of \['png16'\];.*pseudo_label\.codec"),
    "of two teachers": ({"teacher": "e" * 64}, r"number of different teachers must be ≥ 1 and ≤ 1; it is 2"),
    "upside down": ({"vmax": -1.0}, r"vmax must be at least vmin"),
}  # fmt: skip


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_each_fault_of_labels_is_told(tmp_path: Path, params: Params, fault: str) -> None:
    damage, message = LABEL_FAULTS[fault]
    write_pseudo(tmp_path, params, lambda label: label.update(damage) if label["key"].endswith("5") else None)
    result = gate(tmp_path, params, "pseudo")
    assert [failure for failure in result.failures if re.search(message, failure)], result.failures


def test_photographs_without_a_label_are_counted(tmp_path: Path, params: Params) -> None:
    write_pseudo(tmp_path, params, drop=2)
    result = gate(tmp_path, params, "pseudo")
    assert any(failure.startswith("unlabelled must be ≤ 0; 2 of 2 fail") for failure in result.failures)


def test_failing_frames_are_shown_beside_their_depth(tmp_path: Path, params: Params) -> None:
    def change(row: Row) -> None:
        row["valid"] = 0.1

    builders.write_group(tmp_path, params, "synthetic", frames=6, change=change)
    gate(tmp_path, params, "synthetic")
    with Image.open(tmp_path / "artifacts/quality/synthetic/docs/failing.jpg") as sheet:
        assert sheet.width > 900 and sheet.height > 800


def test_a_shard_that_is_gone_does_not_keep_the_gate_from_telling(tmp_path: Path, params: Params) -> None:
    builders.write_group(tmp_path, params, "synthetic", frames=6, change=lambda row: row.update(valid=0.1))
    (tmp_path / params.shards("irs") / "train-000000.tar").unlink()
    assert not gate(tmp_path, params, "synthetic").passed


def test_docs_need_nothing_from_elsewhere_and_links_lead_somewhere(tmp_path: Path, params: Params) -> None:
    builders.write_group(tmp_path, params, "unlabelled", change=lambda row: row.update(contrast=-1.0))
    gate(tmp_path, params, "unlabelled")
    docs = tmp_path / "artifacts/quality/unlabelled/docs"
    pages = list(docs.rglob("*.html"))
    assert len(pages) == 5
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:link|script|img|iframe)[^>]*(?:href|src)=[\"']([^\"']+)", text)
        loaded += (
            re.findall(r"<a[^>]*href=[\"']([^\"'#]+)", (docs / "index.html").read_text()) if page.parent == docs else []
        )
        for target in loaded:
            assert not target.startswith(("http", "//")), (page, target)
            assert (page.parent / target).resolve().exists(), (page, target)
        assert "url(http" not in text.replace('"', "").replace("'", "")


@pytest.mark.parametrize("group", ["unlabelled", "synthetic"])
def test_the_same_data_gives_the_same_bytes_pages_and_pictures_too(tmp_path: Path, params: Params, group: str) -> None:
    def change(row: Row) -> None:
        row.update(contrast=-1.0, valid=0.1 if group == "synthetic" else row["valid"])

    def written() -> dict[str, bytes]:
        out = tmp_path / "artifacts/quality" / group
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    builders.write_group(tmp_path, params, group, change=change)
    gate(tmp_path, params, group)
    first = written()
    gate(tmp_path, params, group)
    assert written() == first
    assert {"result.json", "docs/index.html", f"docs/validations/{group}-frames.html", "docs/failing.jpg"} <= set(first)


def test_missing_manifests_say_what_makes_them(tmp_path: Path, params: Params) -> None:
    with pytest.raises(ManifestError, match=r"manifest\.parquet is missing; run"):
        gate(tmp_path, params, "synthetic")
    for name in params.pseudo_label.sources:
        builders.write_source(tmp_path, params, name, 3)
    with pytest.raises(QualityError, match="run 'dvc repro pseudo_label'"):
        gate(tmp_path, params, "pseudo")
    with pytest.raises(QualityError, match="no group 'colour'; there are: synthetic"):
        gate(tmp_path, params, "colour")


def test_an_expectation_without_a_result_is_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gx = checkpoint.import_great_expectations()
    import great_expectations.expectations as gxe

    def table() -> checkpoint.Table:
        # A suite takes its expectations for good: each run needs new ones.
        checks = [gxe.ExpectColumnValuesToNotBeNull(column="key"), gxe.ExpectColumnValuesToBeUnique(column="key")]
        return checkpoint.Table("frames", pd.DataFrame({"key": ["a", "b"]}), "key", checks)

    assert len(checkpoint.run([table()], tmp_path / "docs", "run")["frames"]) == 2

    class Forgetful(gx.ExpectationSuite):  # type: ignore[name-defined, misc]
        """Loses an expectation, as a stored suite with an unknown class does."""

        def __init__(self, name: str, expectations: list[Any]) -> None:
            super().__init__(name=name, expectations=expectations[:1])

    monkeypatch.setattr(gx, "ExpectationSuite", Forgetful)
    with pytest.raises(QualityError, match="2 expectations but 1 results"):
        checkpoint.run([table()], tmp_path / "docs", "run")


def test_a_missing_column_is_a_failure_not_a_pass(tmp_path: Path, params: Params) -> None:
    import great_expectations.expectations as gxe

    from dav2.quality.messages import finding

    frames = pd.DataFrame({"key": ["a", "b"]})
    expectation = gxe.ExpectColumnValuesToBeBetween(column="valid", min_value=0.5)
    (result,) = checkpoint.run([checkpoint.Table("f", frames, "key", [expectation])], tmp_path / "docs", "r")["f"]
    assert not result.success
    assert "could not be computed" in finding(result, frames, "key").message


def test_a_project_without_data_of_a_group_passes_its_gate_and_says_so(tmp_path: Path, params: Params) -> None:
    sources = {name: source for name, source in params.sources.items() if source.group != "synthetic"}
    result = validate("synthetic", tmp_path, params.model_copy(update={"sources": sources}), tmp_path / "out")
    assert result.passed
    assert result.counts["frames"] == 0
    assert Verdict.read(tmp_path / "out" / "result.json").expectations == 0
    assert "no data set of group synthetic" in (tmp_path / "out" / "docs" / "index.html").read_text()
