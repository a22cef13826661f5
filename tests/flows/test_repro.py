"""``make repro`` with a real DVC and small stages: a line each, the error of one that fails, going on, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
import yaml

from dav2.durations import spoken
from flows.repro import Show
from tests.conftest import ROOT

NOISY = "12:00:00.000 | INFO    | Flow run 'x' - said by Prefect"
STAGES = {
    "first": "echo a > a",
    "each": {"foreach": {"one": 1, "two": 2}, "do": {"cmd": "cat a > ${key}", "deps": ["a"], "outs": ["${key}"]}},
    "fails": f'echo "{NOISY}"; echo "fails: the disk is full" >&2; test -e room && cat one > b',
    "last": "sleep 0; cat b > c",
}


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """A DVC project of five stages, of which one needs a file that is not there."""
    chain = {"first": ([], "a"), "fails": (["one"], "b"), "last": (["b"], "c")}
    stages = {
        name: made if isinstance(made, dict) else {"cmd": made, "deps": chain[name][0], "outs": [chain[name][1]]}
        for name, made in STAGES.items()
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    return tmp_path


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows.repro"], cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip


def test_a_line_for_each_stage_and_the_error_of_the_one_that_fails_alone(pipeline: Path) -> None:
    failed = start(pipeline)
    out, said = failed.communicate()
    assert failed.returncode not in (0, 130)
    lines = re.findall(r"^stage +(\d) of 5  (\S+) +\d+ s so far(?:, about \d+ s still)?  (failed|\d+ s)$", out, re.M)
    names = [name for _, name, _ in lines]
    assert [number for number, *_ in lines] == [str(at) for at in range(1, len(lines) + 1)], out
    assert len(out.splitlines()) == len(lines), out
    assert names[0] == "first" and lines[-1][1:] == ("fails", "failed")
    assert said.startswith("stage fails failed; it said:\nfails: the disk is full\n"), said
    assert NOISY not in out + said and NOISY in (pipeline / ".dav2/repro.log").read_text()
    (pipeline / "room").touch()
    out, said = start(pipeline).communicate()
    assert "fails" in out and "last" in out and "first" not in out, "what was done stays done"
    assert re.search(r"stages ran in \d+ s, \d were up to date$", out.strip()), out + said
    assert set(json.loads((pipeline / ".dav2/repro.json").read_text())) == {
        "first", "each@one", "each@two", "fails", "last",
    }  # fmt: skip
    assert start(pipeline).communicate()[0] == "nothing was stale, 5 were up to date\n"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_what_runs_and_says_how_to_go_on(pipeline: Path, signum: signal.Signals) -> None:
    text = (pipeline / "dvc.yaml").read_text()
    (pipeline / "dvc.yaml").write_text(text.replace("echo a > a", "touch begun; sleep 600; echo a > a"))
    running = start(pipeline)
    assert running.stdout is not None
    shown, deadline = "", time.monotonic() + 120
    # Not before both: the stage may run before its line is out.
    while "first" not in shown or not (pipeline / "begun").exists():
        assert time.monotonic() < deadline and running.poll() is None, shown
        shown += os.read(running.stdout.fileno(), 4096).decode() if "first" not in shown else ""
        time.sleep(0.05)
    # Ctrl-C reaches every process of the terminal, a polite kill the one alone.
    os.killpg(running.pid, signum) if signum == signal.SIGINT else running.send_signal(signum)
    out, said = running.communicate(timeout=60)
    out = shown + out
    assert running.returncode == 130 and out.rstrip().endswith("stopped"), out + said
    assert said.endswith("stopped; the same command goes on where it was\n") and "Traceback" not in said, said


def test_the_rest_is_guessed_from_the_last_time_and_from_stages_of_the_kind() -> None:
    show = Show(["a", "evaluate@x", "evaluate@y"], {"a": 3.0, "evaluate@x": 10.0}, StringIO())
    assert show.left() == pytest.approx(23.0)
    show.take("Stage 'a' didn't change, skipping")
    assert show.left() == pytest.approx(20.0)
    assert Show(["a"], {}, StringIO()).left() is None


def test_times_are_said_as_people_say_them() -> None:
    assert [spoken(seconds) for seconds in (0.4, 59.4, 75, 600, 7500)] == [
        *("0 s", "59 s", "1 min 15 s", "10 min 00 s", "2 h 05 min"),
    ]
