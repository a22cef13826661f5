"""What a newcomer does wrong: one line with the cure, and nothing made where it does not belong."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dav2.cli import COMMANDS, build, contents, summary_of
from tests.conftest import ROOT

HEAVY = ("numpy", "torch", "pandas", "yaml", "rich", "mlflow", "prefect", "dav2.params", "dav2.documents")
HELP = """
import json, os, sys
from io import StringIO
from typer.main import get_command
from dav2.cli import COMMANDS, build, contents

def words(command, path):
    yield path
    for name, below in getattr(command, "commands", {}).items():
        yield from words(below, [*path, name])

for name in ["", *COMMANDS]:
    reads, writes = os.pipe()
    if os.fork():
        os.close(writes)
        print(os.read(reads, 1 << 16).decode())
        os.wait()
        continue
    app = build(name) if name else contents()
    command = get_command(app)
    said = {}
    for path in words(command, []) if name else [[]]:
        sys.stdout = StringIO()
        try:
            command([*path, "--help"], standalone_mode=False)
        except SystemExit:
            pass
        said[" ".join(path)] = max(map(len, sys.stdout.getvalue().splitlines()), default=0)
    os.write(writes, json.dumps([name, said, [each for each in %r if each in sys.modules]]).encode())
    os._exit(0)
"""


def dav2(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dav2.cli", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_help_imports_nothing_heavy_and_fits_eighty_columns() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80"}
    done = subprocess.run([sys.executable, "-c", HELP % (HEAVY,)], env=environment, capture_output=True, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line]
    assert [name for name, *_ in found] == ["", *COMMANDS], done.stderr
    assert {name: heavy for name, _, heavy in found if heavy} == {}
    widths = {f"{name} {path}": width for name, said, _ in found for path, width in said.items()}
    assert len(widths) > len(COMMANDS) and all(0 < width <= 80 for width in widths.values()), widths


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    shown = " ".join(CliRunner().invoke(contents(), ["--help"]).stdout.split())
    for name in COMMANDS:
        whole = " ".join(CliRunner().invoke(build(name), [name, "--help"]).stdout.split())
        assert f"{name} {summary_of(name)}" in shown
        assert summary_of(name) in whole


@pytest.mark.parametrize("words", [["up"], ["status"], ["summary"], ["models"], ["lineage", "x"], ["promote", "x"]])
def test_another_folder_is_named_and_left_as_it_is(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = CliRunner().invoke(build(words[0]), words)
    assert result.exit_code == 2
    assert result.stderr == (
        f"{tmp_path} is no project folder of dav2 (it has no params.yaml): go to yours, or write the file with "
        "'dav2 scale sample'\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "student-vitz"], "did you mean 'student-vitt'? there are: teacher, "),
        (["data", "ingest", "hypersm"], "did you mean 'hypersim'? there are: "),
        (["data", "how", "nyuu"], "did you mean 'nyu'? there are: "),
        (["scale", "smaple"], "did you mean 'sample'? there are: "),
        (["evaluate", "student-vitz", "--params", "prams.yaml"], "prams.yaml is missing"),
    ],
)
def test_a_typo_gets_the_name_that_was_meant(words: list[str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(build(words[0]), words)
    assert result.exit_code == 2 and says in result.stderr and len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["predict", "nosuch/", "-m", "vitn"], "nosuch/: no such file"),
        (["predict", "empty", "-m", "vitn"], "empty: the folder holds no image or video"),
        (["predict", "bad.jpg", "-m", "vitn", "--size", "28", "-o", "new/out"], "failed: bad.jpg: not an image"),
        (["predict", "bad.jpg", "-m", "vitn", "-o", "bad.jpg"], "bad.jpg: is no folder, and one is to be written to"),
        (["predict", "bad.jpg", "-m", "vitn", "-o", "bad.jpg/x"], "bad.jpg: is no folder, and one is to be written"),
        (["predict", "bad.jpg", "-m", "vitn", "-o", "/proc/x"], "/proc/x: no folder can be made there"),
        (["predict", "bad.jpg", "-m", ""], "the name of the model is empty"),
        (
            ["predict", "bad.jpg", "-m", "lfs.pth"],
            "lfs.pth is a pointer of Git LFS, not the weights; run 'git lfs pull'",
        ),
        (["predict", "bad.jpg", "-m", "page"], "page/model.safetensors is a web page, not weights; download the file"),
        (["predict", "bad.jpg", "-m", "models:/mine@champion"], "go to the project folder in which models were"),
        (["data", "check", "image_folder", "text.zip"], "not a readable zip: File is not a zip file"),
        (["scenes", "render", "--out", "bad.jpg"], "bad.jpg: is no folder, and one is to be written to there"),
        (["summary"], "reports/metrics/a.json holds no scores; 'dvc repro -f report' writes it again"),
        (["export", "vitn", "--to", "official", "-o", "empty"], "empty is a folder, and --to official writes a file"),
        (
            ["export", "vitn", "--to", "hugging-face", "-o", "bad.jpg"],
            "bad.jpg is a file, and --to hugging-face writes",
        ),
        (["export", "vitn", "--to", "onnx-int8", "-o", "new/x.onnx"], "name files or folders with --photographs"),
    ],
)
def test_what_fails_on_its_input_leaves_nothing(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "page").mkdir()
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "text.zip").write_bytes(b"no archive")
    (tmp_path / "params.yaml").write_text("scale: sample\n")
    (tmp_path / "reports" / "metrics").mkdir(parents=True)
    (tmp_path / "reports" / "metrics" / "a.json").write_text("[0.5]")
    (tmp_path / "lfs.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (tmp_path / "page" / "model.safetensors").write_bytes(b"\n<!DOCTYPE html><title>404</title>")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    result = CliRunner(env={"COLUMNS": "400"}).invoke(build(words[0]), words)
    assert result.exit_code in (1, 2) and says in result.stderr, result.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["data", "check", "image_folder", "photos"], "photos: no data there; run 'dvc pull data.dvc', or put"),
        (
            ["export", "models/mine", "--to", "torch", "--out", "x"],
            "no model at models/mine; expected a model directory",
        ),
        (["demo", "models/mine"], "models/mine is not a model directory: it has no model.safetensors"),
        (["demo", "--port", "99999"], "Invalid value for '--port'"),
        (["demo"], "there are no models in artifacts/models; run 'dvc repro', or name model directories"),
        (["licences", ""], "the name of the model is empty"),
        (["licences", "teacher", "--root", "nosuch"], "nosuch"),
        (["compare", "one", "two"], "artifacts/scores/one.json is missing; run 'dav2 evaluate one'"),
        (["report"], "params.yaml is missing; run from the project folder, or write it with 'dav2 scale sample'"),
    ],
)
def test_a_missing_folder_gets_the_command_that_fills_it(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(build(words[0]), words)
    assert result.exit_code == 2 and says in result.stderr.splitlines()[-1]


def test_one_s_own_settings_outlive_every_change_of_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "infra").symlink_to(ROOT / "infra")
    own = tmp_path / "params.yaml"
    own.write_bytes(mine := b"# tuned for weeks\n")
    monkeypatch.chdir(tmp_path)
    said = [CliRunner().invoke(build("scale"), ["scale", name]) for name in ("tiny", "rgbd", "rgbd", "tiny", "rgbd")]
    assert {each.exit_code for each in said} == {0} and "already" in said[2].stdout
    assert [re.findall(r"params\.yaml\.bak\d?", each.stdout) for each in said] == [
        ["params.yaml.bak"], ["params.yaml.bak2"], [], ["params.yaml.bak3"], ["params.yaml.bak2"]
    ]  # fmt: skip
    assert (tmp_path / "params.yaml.bak").read_bytes() == mine
    assert not (tmp_path / "params.yaml.bak4").exists()


def test_data_that_was_not_pulled_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(build("data"), ["data", "ingest", "photos"])
    assert result.exit_code == 2 and "data/photos" in result.stderr and "dvc pull" in result.stderr


def test_a_port_that_is_taken_is_named_before_anything_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = CliRunner().invoke(build("demo"), ["demo", "models/mine", "--port", str(port)])
    assert result.exit_code == 2
    assert result.stderr == f"port {port} of 127.0.0.1: Address already in use; take another one with --port\n"


def test_a_stage_without_the_environment_says_how_to_enter_it() -> None:
    other = {"PATH": os.defpath, "PYTHONPATH": str(ROOT)}
    # The same Python without what is installed beside it.
    bare = subprocess.run([sys.executable, "-S", "-m", "flows.settings"], env=other, capture_output=True, text=True)
    assert bare.returncode == 1 and "'. .venv/bin/activate' and the same again" in bare.stderr.splitlines()[-1]
    assert "Traceback" not in bare.stderr


def test_a_line_that_a_terminal_cannot_hold_goes_on_below_its_beginning() -> None:
    told, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "dav2.cli", "data", "how", "kitti"]
    with subprocess.Popen(command, stdout=other, env={**environment, "PYTHONPATH": str(ROOT)}):
        os.close(other)
        shown = b""
        with contextlib.suppress(OSError):  # The end of a terminal is an error here.
            while piece := os.read(told, 1 << 16):
                shown += piece
    os.close(told)
    facts = shown.decode().replace("\r", "").partition("to get it:")[0].splitlines()
    assert len(facts) > 6 and max(map(len, facts)) <= 80
    piped = subprocess.run(command, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True).stdout
    assert " ".join(piped.partition("to get it:")[0].split()) == " ".join(" ".join(facts).split())


def test_a_wrong_command_and_a_wrong_option_get_theirs(tmp_path: Path) -> None:
    command, option = dav2(tmp_path, "predct", "x.jpg"), dav2(tmp_path, "predict", "x.jpg", "--sav", "npy")
    assert "No such command 'predct'. Did you mean 'predict'?" in command.stderr and command.returncode == 2
    assert "--save" in option.stderr and option.returncode == 2


WORKS = """
import time, typer
from dav2.cli import Commands

app = typer.Typer(cls=Commands)
app.callback()(lambda: None)

@app.command()
def work() -> None:
    print("at work", flush=True)
    time.sleep(100)

app()
"""


def test_ctrl_c_is_one_line() -> None:
    working = subprocess.Popen(
        [sys.executable, "-c", WORKS, "work"], env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # Tests that run in the background of a script ignore Ctrl-C, and so would what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert working.stdout is not None and working.stdout.readline() == "at work\n"
    working.send_signal(signal.SIGINT)
    said = working.communicate(timeout=60)[1]
    assert working.returncode == 130 and said == "stopped; what was written whole stays\n"
