"""What is said of GPUs where none is at hand: their peaks, their errors, what a run reaches of them."""

from __future__ import annotations

import pytest
import torch

from dav2 import chips, gpu_errors
from dav2.failures import reason
from dav2.families.depth_anything.counting import count_gflops
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.tasks import RelativeTask
from dav2.params import LossParams, load
from dav2.planning import DEVICES
from dav2.runs import all_runs
from dav2.training.errors import explained
from dav2.training.speed import described, reached, told
from tests.documents import step_line


@pytest.mark.parametrize(
    ("driver", "name"),
    [("NVIDIA H200", "H200"), ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H100 PCIe", "H100 PCIe"),
     ("NVIDIA A100-SXM4-80GB", "A100"), ("Tesla V100-SXM2-16GB", "V100"), ("NVIDIA L4", "L4"), ("NVIDIA L40S", "L40S"),
     ("NVIDIA GeForce RTX 4090", "RTX 4090"), ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
     ("NVIDIA A10G", "A10G"), ("NVIDIA A10", "A10")],
)  # fmt: skip
def test_a_device_is_known_by_its_drivers_name(driver: str, name: str) -> None:
    assert chips.chip(driver) is chips.CHIPS[name]


def test_a_device_that_is_not_known_has_no_share() -> None:
    assert chips.chip("NVIDIA L400 Imaginary") is None
    assert chips.speed(100.0, 10.0, "Imaginary") == (1.0, None)
    assert chips.speed(1000.0, 98.9, "NVIDIA H200") == (98.9, pytest.approx(0.1))
    assert all(device.tflops == chips.CHIPS[name.upper()].tflops for name, device in DEVICES.items())


def test_a_runs_line_says_what_it_reaches_of_a_gpu_and_nothing_on_a_processor() -> None:
    with torch.device("meta"):
        task = RelativeTask(build("vits"), LossParams(), "bf16")
    settings = all_runs(load("infra/scales/workstation.yaml"))["student-vits"].settings
    found = described(task, settings, 561.0, "NVIDIA H200")
    # docs/gpu.md: S at 561 images/s is 19.5 % of an H200.
    assert found["peak_share"] == pytest.approx(0.195, abs=0.002)
    assert found["tflops"] == pytest.approx(3 * count_gflops("vits", 518, 518) * 561 / 1e3, abs=0.1)
    assert reached(task, settings, 561.0, torch.device("cpu")) == {}
    line = step_line(1, 0.5, **found, memory_mb=14336.0)
    tflops = f"{found['tflops']:.0f} TFLOP/s"
    assert told(line) == f"20.0 images/s  {tflops} (19% of the peak)  14.0 GiB  waiting for data 0%"
    assert "TFLOP" not in told(step_line(1, 0.5))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("CUDA error: uncorrectable ECC error encountered", "was lost"),
        ("CUDA error: unspecified launch failure\nCUDA kernel errors might be asynchronously reported", "was lost"),
        ("CUDA error: all CUDA-capable devices are busy or unavailable", "held by another program"),
        ("CUDA error: no kernel image is available for execution on the device", "no kernels"),
        ("The NVIDIA driver on your system is too old (found version 11040)", "driver is too old"),
    ],
)
def test_errors_of_a_gpu_are_named_with_a_cure(said: str, told: str) -> None:
    assert told in reason(RuntimeError(said)) and "unforeseen" not in reason(RuntimeError(said))
    run = all_runs(load("infra/scales/workstation.yaml"))["teacher"]
    cure = explained(RuntimeError(said), run)  # type: ignore[arg-type]
    assert cure is not None and told in str(cure) and str(cure).startswith("teacher: ")


def test_other_errors_are_not_taken_for_a_gpus() -> None:
    for error in (
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("CUDA error: busy or unavailable"),
    ):
        assert gpu_errors.told(error) is None
    run = all_runs(load("infra/scales/workstation.yaml"))["teacher"]
    assert explained(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), run) is None  # type: ignore[arg-type]


def test_a_batch_that_does_not_fit_says_what_to_set() -> None:
    run = all_runs(load("infra/scales/workstation.yaml"))["student-vitb"]
    cure = str(explained(torch.OutOfMemoryError("CUDA out of memory."), run))  # type: ignore[arg-type]
    assert "16 images of 518 pixels" in cure and "optim.accumulate: 4" in cure


def test_memory_that_others_hold_is_said() -> None:
    gib = 2**30
    assert "other programs hold 20.0 of its 80 GiB" in gpu_errors.others_hold(10 * gib, 80 * gib, 50 * gib)
    assert gpu_errors.others_hold(30 * gib, 80 * gib, 50 * gib - 1) == ""


def test_kernels_are_for_a_generation_from_its_revision_on() -> None:
    built = ["sm_75", "sm_80", "sm_90", "sm_90a", "compute_120"]
    assert not any(gpu_errors.lacks_kernels(each, built) for each in ((7, 5), (8, 0), (8, 9), (9, 0), (12, 0), (12, 1)))
    assert all(gpu_errors.lacks_kernels(each, built) for each in ((3, 7), (7, 0), (10, 0)))
    assert not gpu_errors.lacks_kernels((3, 7), [])
