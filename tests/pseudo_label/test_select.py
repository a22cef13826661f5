"""Selection: a budget of photographs that are hard and different."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from dav2.pseudo_label import LabelError, Labeller, LabelOptions, finish, plan_shards
from dav2.pseudo_label.gallery import read_label
from dav2.pseudo_label.select import Choice, select, spread, write_selection
from dav2.pseudo_label.teacher import Teacher
from tests.pseudo_label.conftest import OPTIONS


def table(count: int = 60, groups: int = 6) -> pd.DataFrame:
    """Photographs of a few kinds, very unequally frequent, with random agreement."""
    random = np.random.default_rng(0)
    kind = np.minimum(random.geometric(0.5, count) - 1, groups - 1)
    centres = np.eye(32)[:groups]
    vectors = centres[kind] + 0.05 * random.standard_normal((count, 32))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return pd.DataFrame(
        {
            "key": [f"a/b/{i:03d}" for i in range(count)],
            "kind": kind,
            "flip_agreement": random.uniform(0.5, 1.0, count),
            "scale_agreement": np.nan,
            "embedding": list(vectors.astype(np.float32)),
        }
    )


def test_coverage_alone_takes_one_of_every_kind_before_a_second_of_any() -> None:
    frame = table()
    kinds = frame["kind"].nunique()
    chosen = select(frame, Choice(kinds, coverage=1.0, discard=0.0))
    assert chosen["kind"].nunique() == kinds


def test_disagreement_alone_takes_the_least_certain_but_for_the_discarded() -> None:
    frame = table()
    chosen = select(frame, Choice(10, coverage=0.0, discard=0.1))
    order = frame.sort_values("flip_agreement")["key"]
    assert set(chosen["key"]) == set(order[6:16])


def test_the_choice_equals_a_slow_version() -> None:
    random = np.random.default_rng(1)
    vectors = random.standard_normal((25, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = random.random(25)
    rank = [sum(other <= value for other in wrong) / 25 for value in wrong]
    expected: list[int] = []
    for _ in range(8):
        scores = []
        for i in range(25):
            distance = min([2.0] + [max(0.0, 1.0 - float(vectors[i] @ vectors[j])) for j in expected])
            scores.append(-1.0 if i in expected else rank[i] ** 0.4 * distance**0.6)
        expected.append(int(np.argmax(scores)))
    assert list(spread(vectors, wrong, 8, 0.6)) == expected


def test_rows_keep_their_order_and_the_budget_is_met(monkeypatch: pytest.MonkeyPatch) -> None:
    from dav2.pseudo_label import select as module

    monkeypatch.setattr(module, "BLOCK", 13)
    frame = table()
    chosen = select(frame, Choice(17))
    assert len(chosen) == 17
    assert list(chosen.index) == sorted(chosen.index)
    assert select(frame, Choice(1000)) is frame


def test_what_was_not_recorded_is_named() -> None:
    frame = table()
    with pytest.raises(LabelError, match="flip_agreement or scale_agreement"):
        select(frame.assign(flip_agreement=np.nan), Choice(5))
    with pytest.raises(LabelError, match="embeddings"):
        select(frame.assign(embedding=None), Choice(5))


def test_a_selection_is_a_label_folder_with_the_same_labels(
    source: Path, tmp_path: Path, open_teacher: Callable[[LabelOptions], Teacher]
) -> None:
    options = replace(OPTIONS, flip_agreement=True, embedding=True)
    teacher, out = open_teacher(options), str(tmp_path / "out")
    for task in plan_shards(str(source), out, teacher.digest, options):
        Labeller(teacher).label(task)
    finish(out)
    kept = str(tmp_path / "selection" / "views")
    assert write_selection({"views": out}, str(tmp_path / "selection"), partial(select, choice=Choice(9))) == {
        "views": 9
    }
    everything = pd.read_parquet(tmp_path / "out" / "manifest.parquet").set_index("key", drop=False)
    selected = pd.read_parquet(tmp_path / "selection" / "views" / "manifest.parquet")
    assert len(selected) == 9
    for _, row in selected.iterrows():
        np.testing.assert_array_equal(read_label(kept, row), read_label(out, everything.loc[row["key"]]))


def test_the_budget_is_shared_by_worth_not_by_source(
    source: Path, tmp_path: Path, open_teacher: Callable[[LabelOptions], Teacher]
) -> None:
    """A source whose labels never disagree gives way to one whose labels do; one left with nothing is named."""
    options = replace(OPTIONS, flip_agreement=True, embedding=True)
    teacher, sure = open_teacher(options), tmp_path / "sure"
    for task in plan_shards(str(source), str(sure), teacher.digest, options):
        Labeller(teacher).label(task)
    finish(str(sure))
    unsure = tmp_path / "unsure"
    shutil.copytree(sure, unsure)
    for folder, agreement in ((sure, 1.0), (unsure, 0.5)):
        rows = pd.read_parquet(folder / "manifest.parquet")
        rows.assign(flip_agreement=agreement - 0.001 * np.arange(len(rows))).to_parquet(folder / "manifest.parquet")
    folders = {"sure": str(sure), "unsure": str(unsure)}
    total = len(rows)

    def chooser(budget: int) -> Callable[[pd.DataFrame], pd.DataFrame]:
        return partial(select, choice=Choice(budget, coverage=0.0, discard=0.0))

    kept = write_selection(folders, str(tmp_path / "a"), chooser(total + 2))
    assert kept == {"sure": 2, "unsure": total}
    with pytest.raises(LabelError, match="keeps no photograph of sure"):
        write_selection(folders, str(tmp_path / "b"), chooser(total))
