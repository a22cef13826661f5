"""Plans are arithmetic on numbers whose origin is stated."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dav2.cli import build
from dav2.families.depth_anything.counting import count_gflops, footprint
from dav2.families.depth_anything.sizes import SIZES
from dav2.params import load
from dav2.planning import (
    CONTEXT,
    DEVICES,
    SPARE,
    Known,
    LabelJob,
    TrainJob,
    derived_rate,
    fit_training,
    label_bytes,
    peak_bytes,
    plan_labelling,
    plan_training,
)
from dav2.runs import all_runs

HERE = "counted by hand"


def known(value: float) -> Known:
    return Known(value, HERE)


def test_a_labelling_plan_adds_up() -> None:
    job = LabelJob(known(1e6), known(1000), known(50), known(2e5), known(1e5), known(0.02), 4, known(2.0))
    plan = {line.name: line for line in plan_labelling(job)}
    assert plan["device hours"].value == pytest.approx(1e6 / 50 / 3600)
    assert plan["wall time"].value == pytest.approx(1e6 / 50 / 3600 / 4)
    assert plan["cores for each device"].value == pytest.approx(1.0)
    assert plan["shards"].value == 1000
    assert plan["bytes read"].value == pytest.approx(0.2)
    assert plan["bytes written"].value == pytest.approx(0.1)
    assert plan["cost of devices"].value == pytest.approx(1e6 / 50 / 3600 * 2)
    assert all(line.origin for line in plan.values())


def test_a_training_plan_adds_up() -> None:
    job = TrainJob(known(1000), known(64), known(10), 8, known(0.5), known(3.0))
    plan = {line.name: line.value for line in plan_training(job)}
    assert plan["images seen"] == 64_000
    assert plan["wall time"] == pytest.approx(64_000 / (10 * 8 * 0.5) / 3600)
    assert plan["device hours"] == pytest.approx(8 * plan["wall time"])


@pytest.mark.parametrize("name", ["vits", "vitg"])
def test_counted_operations_agree_with_the_transformer_formula(name: str) -> None:
    """Blocks alone, by hand: 2·(4·d² + 2·d·ffn or 3·d·ffn gated)·N + 4·N²·d multiply-adds; the decoder comes on top."""
    size, tokens = SIZES[name], (518 // 14) ** 2 + 1
    hidden = (3 if size.swiglu else 2) * size.dim * size.ffn
    blocks = size.depth * (2 * tokens * (4 * size.dim**2 + hidden) + 4 * tokens**2 * size.dim) / 1e9
    counted = count_gflops(name, 518, 518)
    assert blocks < counted < 2.5 * blocks


def test_a_derived_rate_is_the_peak_share_over_the_operations() -> None:
    rate = derived_rate(1000.0, "a100", Known(0.5, "x"))
    assert rate.value == pytest.approx(DEVICES["a100"].tflops * 0.5)
    assert "312" in rate.origin


def test_the_command_prints_every_figure_with_its_origin() -> None:
    arguments = ["plan", "label", "--size", "vits", "--rate", "100", "--images", "1000000", "--json"]
    done = CliRunner().invoke(build("plan"), arguments)
    assert done.exit_code == 0, done.output
    lines = {line["name"]: line for line in json.loads(done.output)}
    assert lines["device hours"]["value"] == pytest.approx(1e6 / 100 / 3600)
    assert lines["rate of a device"]["origin"] == "--rate"
    assert all(line["origin"] for line in lines.values())


def test_the_table_grows_with_the_model_and_shrinks_with_the_device() -> None:
    done = CliRunner().invoke(build("plan"), ["plan", "label", "--table", "--json"])
    rows = json.loads(done.output)
    assert [row["size"] for row in rows] == ["vits", "vitb", "vitl", "vitg"]
    hours = [row["h100"] for row in rows]
    assert hours == sorted(hours)
    assert all(row["h100"] < row["a100"] < row["v100"] for row in rows)
    assert all(math.isfinite(row["GFLOP"]) for row in rows)


def test_an_unknown_size_or_device_is_named() -> None:
    done = CliRunner().invoke(build("plan"), ["plan", "label", "--size", "vitz"])
    assert done.exit_code == 2
    assert "vitz" in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--images", "0"], "--images must be a number above 0, not 0"),
        (["--image-kib", "nan"], "--image-kib must be a number above 0, not nan"),
        (["--rate", "0"], "--rate must be a number above 0, not 0"),
        (["--efficiency", "5"], "--efficiency is a share of the peak, above 0 and at most 1, not 5"),
        (["--efficiency", "nan"], "--efficiency is a share of the peak"),
        (["--price", "nan"], "--price must be a number above 0"),
        (["--memory", "inf"], "--memory must be a number above 0"),
        (["--codec", "png17"], "no codec 'png17'; there are: png16, jpegls12, jxl12"),
        (["--devices", "0"], "--devices"),
        (["--bits", "40"], "--bits"),
        (["--shard-frames", "0"], "--shard-frames"),
        (["--source", "nosuch"], "nosuch/manifest.parquet is missing"),
    ],
)
def test_no_plan_is_made_of_what_cannot_be(words: list[str], says: str) -> None:
    done = CliRunner(env={"COLUMNS": "200"}).invoke(build("plan"), ["plan", "label", "--rate", "100", *words])
    assert done.exit_code == 2 and says in done.output


def test_a_label_of_more_bits_is_larger_except_as_png() -> None:
    assert label_bytes("jpegls12", 10) < label_bytes("jpegls12", 12) < label_bytes("jpegls12", 16)
    assert label_bytes("png16", 10) == label_bytes("png16", 16)
    assert label_bytes("jxl12", 8) > 0


@pytest.mark.parametrize(
    ("size", "batch", "low", "high"), [("vits", 32, 13, 15), ("vitb", 32, 26, 30), ("vitl", 16, 32, 35)]
)
def test_modelled_memory_is_that_which_an_h200_reported(size: str, batch: int, low: float, high: float) -> None:
    """Measured peaks in GB (docs/gpu.md): S 14, B about 28, L 32 to 35. The model may err by a tenth."""
    peak = peak_bytes(*footprint(size, 518), batch, stage=0, devices=1)
    counted = (peak - CONTEXT) / SPARE / 1e9
    assert 0.9 * low < counted < 1.1 * high


def test_a_fit_takes_what_is_plain_before_what_is_slow() -> None:
    def footprint_of(checkpointing: bool) -> tuple[int, int, int]:
        return 1_000_000_000, 2_000_000_000, 500_000_000 if checkpointing else 2_000_000_000

    roomy = fit_training(footprint_of, 80e9, 64, 8)
    assert (roomy.micro, roomy.stage, roomy.checkpointing, roomy.fits) == (8, 0, False, True)
    shared = fit_training(footprint_of, 36e9, 64, 8)
    assert (shared.micro, shared.stage, shared.checkpointing) == (8, 1, False)
    recomputed = fit_training(footprint_of, 12e9, 64, 8)
    assert (recomputed.micro, recomputed.stage, recomputed.checkpointing, recomputed.fits) == (8, 3, True, True)
    alone = fit_training(footprint_of, 30e9, 64, 1)
    assert alone.stage == 0 and alone.micro * alone.accumulate == 64 and alone.fits and alone.bytes <= 30e9
    assert not fit_training(footprint_of, 4e9, 64, 8).fits


def test_the_workstations_runs_fit_the_24_gigabytes_that_it_promises() -> None:
    params = load(Path("infra/scales/workstation.yaml"))
    for run in all_runs(params).values():
        settings = run.settings
        micro = settings.batch // settings.optim.accumulate
        peak = peak_bytes(*footprint(settings.size, settings.crop), micro, stage=0, devices=1)
        assert peak < 24e9, (run.name, peak / 1e9)


def test_a_training_plan_says_how_it_lies_in_memory() -> None:
    arguments = ["plan", "train", "--size", "vitb", "--batch", "32", "--devices", "1", "--memory", "24", "--json"]
    done = CliRunner().invoke(build("plan"), arguments)
    lines = {line["name"]: line for line in json.loads(done.output)}
    forward = lines["images of a forward pass"]
    assert forward["value"] == 16 and "accumulate: 2" in forward["origin"]
    assert 10 < lines["peak of a device"]["value"] <= 24
    wrong = CliRunner().invoke(build("plan"), ["plan", "train", "--batch", "30", "--devices", "8"])
    assert wrong.exit_code == 2 and "--devices" in wrong.output and "30" in wrong.output
