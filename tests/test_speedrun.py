"""The speedrun's table: what the command adds, and what stands in the page."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/speedrun.md"
ROW = re.compile(
    r"\| \d{4}-\d\d-\d\d \| `[0-9a-f]{10}` \| (?P<minutes>\d+\.\d) \| (?P<score>\d+\.\d) \| \d+\.\d to \d+\.\d \| "
    r"\d+ \| [^|]*\S, load \d+\.\d at the start \| [^|]+ \|"
)


@pytest.fixture(scope="module")
def speedrun() -> ModuleType:
    spec = importlib.util.spec_from_file_location("speedrun", ROOT / "benchmarks/speedrun.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_row_of_the_page_is_one_that_the_command_writes_and_reached_the_target(speedrun: ModuleType) -> None:
    page = PAGE.read_text()
    rows = page.partition(speedrun.HEAD + "\n")[2].splitlines()
    for row in (each for each in rows if each.startswith("|")):
        found = ROW.fullmatch(row)
        assert found is not None, row
        assert float(found["score"]) >= speedrun.TARGET and float(found["minutes"]) > 0
    assert f"**{speedrun.TARGET:g} %**" in page


def test_a_row_has_the_means_and_becomes_the_last_of_its_table(speedrun: ModuleType) -> None:
    laps = [speedrun.Lap(8.0, 62.0, 57.0, 67.0, 517), speedrun.Lap(9.0, 65.0, 60.0, 70.0, 517)]
    row = speedrun.row(laps, "0123456789abcdef", "shorter | wider", 0.25, "A Processor (AVX2)")
    found = ROW.fullmatch(row)
    assert found is not None and (found["minutes"], found["score"]) == ("8.5", "63.5")
    assert row.endswith("| 57.0 to 67.0 | 2 | A Processor (AVX2), load 0.2 at the start | shorter / wider |")
    page = f"# Page\n\n{speedrun.HEAD}\n| old |\n\nafter\n"
    assert speedrun.added(page, row) == f"# Page\n\n{speedrun.HEAD}\n| old |\n{row}\n\nafter\n"
    with pytest.raises(ValueError, match="expected one table"):
        speedrun.added("# Page\n", row)


def test_no_row_comes_from_code_that_is_not_committed(tmp_path: Path) -> None:
    copy = tmp_path / "dav2"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(copy)], check=True)
    (copy / "README.md").write_text("changed")
    command = [sys.executable, "benchmarks/speedrun.py", "--record"]
    done = subprocess.run(
        command, cwd=copy, capture_output=True, text=True, env={"PYTHONPATH": str(copy), "PATH": "/usr/bin:/bin"}
    )
    assert done.returncode == 1 and "a row needs a commit without changes beside it: ['README.md']" in done.stderr
