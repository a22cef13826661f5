"""``dav2 doctor`` as a person runs it: what it says, how wide, and when it says that ``make repro`` cannot work."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dav2 import doctor, limits, machine
from dav2.doctor import examine

ROOT = Path(__file__).parents[1]


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dav2.cli", "doctor", *arguments], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip


def found(lines: list[Any], name: str) -> Any:
    return next(line for line in lines if line.name == name)


def test_one_screen_says_what_there_is_and_what_will_be_used() -> None:
    done = run(ROOT)
    assert done.returncode == 0, done.stdout
    shown = done.stdout.splitlines()
    assert max(map(len, shown)) <= 80
    assert len(shown) <= 40
    for word in ("processor", "rates", "cores", "memory", "disk", "GPU", "precision", "torch", "Prefect", "MLflow"):
        assert word in done.stdout
    assert shown[-1] == "make repro: nothing stands in its way"


def test_json_holds_the_same(tmp_path: Path) -> None:
    done = run(tmp_path, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1 and told["repro"] is False
    assert [line["name"] for line in told["lines"] if line["weight"] == "stop"] == ["folder"]


def test_settings_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("seed: [\n")
    done = run(tmp_path)
    assert done.returncode == 1
    assert "✗ params.yaml" in done.stdout and "not valid YAML" in done.stdout


def test_a_taken_port_and_a_server_that_does_not_answer_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr(doctor, "PORTS", {"Prefect": taken, "MLflow": taken})
        monkeypatch.setattr(doctor, "_running", lambda root: {})
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{taken}")
        lines = examine(ROOT)
        assert f"port {taken} is another program's" in found(lines, "Prefect").text
        assert "another program" not in found(lines, "MLflow").text
    mlflow = found(examine(ROOT), "MLflow")
    assert mlflow.weight == "stop" and "no MLflow server answers" in mlflow.text
    assert mlflow.mend == "start it or unset MLFLOW_TRACKING_URI"


def test_too_little_memory_or_disk_and_a_package_that_does_not_fit_stop_it(monkeypatch: pytest.MonkeyPatch) -> None:
    small = machine.Machine("a board", (), "DEFAULT", 1, 2 << 30, None, "no NVIDIA GPU or driver found")
    monkeypatch.setattr(machine, "look", lambda: small)
    monkeypatch.setattr(limits, "disk_free", lambda folder: 1 << 30)
    monkeypatch.setattr(doctor, "_version", lambda name: {"torch": "2.1.0", "dvc": "missing"}.get(name, "1000.0"))
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda name: ["torch==2.14.1", "dvc>=3", "rich>=13", "av>=15; extra == 'video'"]
    )
    lines = examine(ROOT)
    assert {line.name for line in lines if line.weight == "stop"} == {"memory", "disk", "do not fit"}
    assert "torch 2.1.0, needed ==2.14.1; dvc missing" in found(lines, "do not fit").text
    assert "no AVX2" in found(lines, "features").mend


def test_a_missing_extra_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    true = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: "missing" if name in ("av", "gradio") else true(name))
    lines = examine(ROOT)
    assert found(lines, "for dav2 predict VIDEO").mend == "pip install 'dav2[video]'"
    assert "gradio" in found(lines, "for dav2 demo").text


def test_a_check_that_fails_takes_no_other_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: Path) -> Any:
        raise RuntimeError("no /proc here")

    monkeypatch.setattr(doctor, "_packages", broken)
    lines = examine(ROOT)
    assert any("RuntimeError: no /proc here" in line.text for line in lines)
    assert {"Machine", "Used here", "Project", "Servers"} <= {line.part for line in lines}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CUDA_VISIBLE_DEVICES": ""}, "hides all GPUs"),
        ({"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}, "no AVX2"),
    ],
)
def test_a_machine_with_less_is_described_as_it_is(environment: dict[str, str], said: str) -> None:
    done = run(ROOT, **environment)
    assert done.returncode == 0, done.stdout
    assert said in " ".join(done.stdout.split())


def test_one_core_is_one_core() -> None:
    done = subprocess.run(
        ["taskset", "-c", str(min(os.sched_getaffinity(0))), sys.executable, "-m", "dav2.cli", "doctor"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert "1 that this process may use" in done.stdout
    assert "2 asked for, 1 cores: 1 are used" in done.stdout
