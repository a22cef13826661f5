"""What a file of settings may not hold: each mistake is one line with its place, in bounded time and memory."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest
from dvc.repo import Repo

from dav2.params import ParamsError, load
from dav2.params.text import check_words, parse
from tests.params.test_params import ROOT, SAMPLE, line_of, refused

DEEP = 3000
BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (f"{SAMPLE}seed: 1\n", len(SAMPLE.splitlines()) + 1, "key 'seed' stands in line 4 too"),
        ("a: 1\nb: {c: 1, c: 2}\n", 2, "key 'c' stands in line 2 too"),
        ("a: 1\nb: 2024-13-45\n", 2, "'2024-13-45' is no timestamp"),
        ("a: 1\nb: !!int abc\n", 2, "'abc' is no int"),
        ("a:\n  b: !!float x\n", 2, "'x' is no float"),
        ("a: !!timestamp x\n", 1, "'x' is no timestamp"),
        ("a: !!bool maybe\n", 1, "'maybe' is no bool"),
        ("a: 1\nb: " + "9" * 5000, 2, "is no int"),
        ("a: " + "9" * 4000, 1, "a number of more than 64 bits"),
        ("a: 0x" + "f" * 30_000, 1, "a number of more than 64 bits"),
        ("[" * DEEP, 1, "nested more than"),
        ("{a: " * DEEP, 1, "nested more than"),
        ("a: 1\n" + BOMB + "seed: *a9\n", 7, "more than 200000 values"),
        ("a: 1\nb: &b {c: *b}\n", 2, "'*b' stands inside of what it names"),
        ("a: 1\nb: &b [[*b]]\n", 2, "'*b' stands inside of what it names"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "could not determine a constructor"),
        ("? [a]\n: 1\n", 1, "a key must be a word"),
        ("a: 1\nb: \x01\n", 2, "a character that no text has"),
        ("- a\n", 1, "must be a mapping of sections, not list"),
        ("", 1, "must be a mapping of sections, and is empty"),
        ("a:\n\tb: 1\n", 2, "there is a tab in the line, and YAML is indented by spaces alone"),
        (f"{SAMPLE}---\na: 1\n", len(SAMPLE.splitlines()) + 1, "but found another document"),
    ],
    ids=str,
)
@pytest.mark.parametrize("scanner", ["libyaml", "python"])
def test_a_trap_is_refused_in_one_line_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scanner: str, text: str, line: int, says: str
) -> None:
    if scanner == "python":
        monkeypatch.delattr("yaml.CSafeLoader", raising=False)  # As where PyYAML was built without libyaml.
    message = refused(tmp_path, text)
    assert f"params.yaml:{line}: " in message
    assert says in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("data", [b"scale: x\nseed: \xff\n", "scale: x\n".encode("utf-16"), b"a: " + b"x" * 2_000_000])
def test_what_is_no_text_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(data)
    with pytest.raises(ParamsError, match=r"params\.yaml(:\d: byte 0xff is not UTF-8| is larger than 1 MiB)") as caught:
        load(tmp_path / "params.yaml")
    assert len(str(caught.value).splitlines()) == 1


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(SAMPLE, encoding="utf-8-sig")
    assert load(tmp_path / "params.yaml").scale == "sample"


def test_an_alias_bomb_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(BOMB + "seed: *a9\n")
    limit = 600 << 20
    done = subprocess.run(
        [sys.executable, "-c", "from dav2.params import load; load()"], cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)), env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert "more than 200000 values" in done.stderr.splitlines()[-1]


KEYS = {
    "sources": "  irs:  ",
    "benchmarks": "  nyu:  ",
    "students": "  vitn:",
    "metric": "  outdoor:",
    "evaluate.benchmarks": "    nyu-edges:",
}


@pytest.mark.parametrize(
    "key", ["../../../esc", "x; touch INJ", "$(id)", "a/b", "-rf", "a.b", "x" * 65, "é", "..", "a\\nb"]
)
@pytest.mark.parametrize("table", KEYS)
def test_a_key_that_is_more_than_a_name_is_refused_in_every_table(tmp_path: Path, table: str, key: str) -> None:
    row = KEYS[table]
    text = SAMPLE.replace(row, f'{row[: len(row) - len(row.lstrip())]}"{key}": ', 1)
    message = refused(tmp_path, text)
    line = line_of(text, f'"{key}":')
    assert f"params.yaml:{line}: {table}." in message
    assert "cannot be a name" in message


def test_keys_that_are_one_folder_on_many_systems_are_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, SAMPLE.replace("  irs:  ", "  Hypersim:  "))
    assert "'hypersim' and 'Hypersim' are one folder on many systems" in message


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan"])
def test_what_is_not_finite_is_refused(tmp_path: Path, value: str) -> None:
    text = SAMPLE.replace("max_depth: 20.0", f"max_depth: {value}")
    assert "metric.indoor.max_depth: Input should be a finite number" in refused(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    ["sources: {'x; touch INJ': {}}", "students: {'$(id)': {}}", "evaluate: {models: ['a; b']}", "selections: {7: {}}"],
)
def test_words_of_settings_from_elsewhere_are_names(text: str) -> None:
    with pytest.raises(ParamsError, match=r"fetched: .*cannot be a name"):
        check_words(parse(text, "fetched"), "fetched")


def test_words_of_our_own_settings_are_names() -> None:
    check_words(parse(SAMPLE, "sample"), "sample")


@pytest.mark.parametrize(
    "change",
    [
        ("  nyu: ", '  "x; touch INJ #": '),
        ("  irs: ", '  "$(touch INJ)": '),
        ("teacher, student-vitt", '"a; touch INJ #"'),
    ],
)
def test_dvc_runs_no_word_of_the_settings(tmp_path: Path, change: tuple[str, str]) -> None:
    """A stage of DVC's own: its shell sees the name only after the stage that checks it."""
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "params.yaml").write_text(SAMPLE.replace(*change, 1))
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        graph = repo.index.graph
        first = next(stage for stage in graph if getattr(stage, "name", None) == "settings")
        named = [stage for stage in graph if stage.cmd and "INJ" in stage.cmd]
        assert named
        for stage in named:
            assert first in nx.descendants(graph, stage)
    done = subprocess.run(
        [sys.executable, "-m", "flows.settings"], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert "INJ" in done.stderr
    assert not (tmp_path / "artifacts").exists()
