"""The benchmark for rented minutes runs whole on a processor, so that no GPU minute goes to a typing error."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks.gpu import Bench

ROOT = Path(__file__).parent.parent


def test_every_part_of_the_gpu_benchmark_runs_on_a_processor(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--sizes", "vitn", "--side", "56"]
    command += ["--batch", "2", "--seconds", "0.02", "--photographs", "2", "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    assert {line["part"] for line in lines} == {"inference", "labelling", "loader", "training", "memory"}
    assert all(line["value"] > 0 and line["unit"] and line["card"] and line["torch"] for line in lines)
    said = " | ".join(line["what"] for line in lines)
    for compared in ("transformers", "plain PyTorch", "bare forward", "fed by the loader", "left to the device"):
        assert compared in said
    assert len([text for text in done.stdout.splitlines() if " s  " in text]) == len(lines)


def test_time_that_is_up_leaves_out_what_is_left_and_says_so(tmp_path: Path) -> None:
    out = tmp_path / "gpu.jsonl"
    bench = Bench(argparse.Namespace(device="cpu", limit=60.0, out=str(out)), tmp_path)
    assert not bench.late("training of vits") and not out.exists()
    bench.began -= 61
    assert bench.late("training of vits")
    line = json.loads(out.read_text())
    assert (line["part"], line["what"], line["unit"]) == ("left out", "training of vits", "after 61 s")
