"""Cleaning rules are data: each with its source, applied in order, and wrong ones are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dav2.data.frame import FrameError
from dav2.data.raw.sources import READERS, SourceError, open_source
from dav2.data.raw.sources.cleaning import FOLDER, load_rules
from dav2.scenes.layouts import tartanair
from tests.scenes.analytic import capture

BASE = "title: T\nlicence: L\nhomepage: none\n"


def rules(tmp_path: Path, text: str) -> str:
    path = tmp_path / "rules.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    return str(path)


def test_every_reader_has_rules_and_every_rule_a_source() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(READERS)
    for name in READERS:
        loaded = load_rules(name)
        assert loaded.licence
        every = [*loaded.promised, *loaded.exclude, *loaded.depth, *loaded.frame, *loaded.stand_in]
        assert all(rule.source.strip() for rule in every)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skies: []\n", "skies"),
        ("depth: [{at_least: 3, becomes: sky}]\n", "depth.0.source"),
        ("depth: [{at_least: 3, becomes: far, source: x}]\n", "depth.0.becomes"),
        ("exclude: [{match: a, source: x}]\n", "exclude.0.reason"),
        ("exclude: [\n", "not valid YAML"),
    ],
)
def test_a_wrong_rule_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load_rules(rules(tmp_path, text))


def test_later_rules_overrule_earlier_ones_and_limits_are_inclusive(tmp_path: Path) -> None:
    loaded = load_rules(
        rules(
            tmp_path,
            "depth:\n"
            "- {at_least: 100, becomes: sky, source: x}\n"
            "- {match: office/*, at_least: 30, becomes: unknown, source: x}\n"
            "- {at_most: 0.5, becomes: unknown, source: x}\n",
        )
    )
    raw = np.array([[-1, 0, 0.5, 0.6, 30, 99, 100, np.inf, np.nan]])
    outdoors = [[np.nan, np.nan, np.nan, 0.6, 30, 99, np.inf, np.nan, np.nan]]
    indoors = [[np.nan, np.nan, np.nan, 0.6, np.nan, np.nan, np.nan, np.nan, np.nan]]
    np.testing.assert_array_equal(loaded.clean_depth(raw, "street/1"), np.float32(outdoors))
    np.testing.assert_array_equal(loaded.clean_depth(raw, "office/1"), np.float32(indoors))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frame: [{min_known: 0.99, source: here}]\n", r"is known, less than 99.0% \(here\)"),
        ("frame: [{min_depth_range: 5000, source: here}]\n", r"less than 5000.0 \(here\)"),
        ("frame: [{min_rgb_range: 256, source: here}]\n", r"less than 256.0 \(here\)"),
    ],
)
def test_ones_own_rules_replace_the_packaged_ones(tmp_path: Path, text: str, message: str) -> None:
    tartanair.write_frame(tmp_path / "set", "amusement", "Easy", "P000", 0, capture(fov=90))
    wide = "depth: [{at_least: 50, becomes: unknown, source: here}]\n"
    source = open_source("tartanair", tmp_path / "set", "t", {"rules": rules(tmp_path, wide + text)})
    (item,) = source.index()
    with pytest.raises(FrameError, match=message):
        source.read(item)
