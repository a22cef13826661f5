"""What the machine is taken for, and what follows: precision, device, threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dav2 import limits, machine
from dav2.machine import Gpu, Machine, MachineError, Rates

LAPTOP = Machine("a laptop", ("avx2",), "AVX2", 4, 8 << 30, None, "no NVIDIA GPU or driver found")
SERVER = replace(LAPTOP, processor="a server", features=machine.FEATURES, kernels="AVX512")
AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def pretend(monkeypatch: pytest.MonkeyPatch, seen: Machine, rates: Rates | None = None) -> None:
    monkeypatch.setattr(machine, "look", lambda: seen)
    monkeypatch.setattr(machine, "rates", lambda: rates or pytest.fail("nothing has to be timed here"))


def elsewhere(code: str, **environment: str) -> Any:
    """What ``code`` prints as JSON in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", f"import json\nfrom dav2 import machine\n{code}"],
        env={**os.environ, **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return json.loads(done.stdout)


def test_auto_is_float32_without_units_for_bfloat16_and_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, LAPTOP)
    chosen = machine.precision("auto", "cpu")
    assert (chosen.name, chosen.dtype, chosen.warning) == ("fp32", torch.float32, "")
    assert "no units" in chosen.why


def test_auto_is_bfloat16_where_units_are_there_and_a_product_is_faster_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, SERVER, Rates(fp32=150.0, bf16=900.0))
    chosen = machine.precision("auto", "cpu")
    assert (chosen.name, chosen.dtype) == ("bf16", torch.bfloat16)
    assert chosen.why == "AMX, 6.0 times float32's rate"


def test_units_that_the_libraries_do_not_use_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, SERVER, Rates(fp32=150.0, bf16=2.0))
    assert machine.precision("auto", "cpu").name == "fp32"


def test_naming_bfloat16_where_it_is_emulated_is_allowed_and_the_warning_gives_the_factor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, LAPTOP, Rates(fp32=120.0, bf16=2.0))
    chosen = machine.precision("bf16", "cpu")
    assert chosen.name == "bf16"
    assert "60 times as long as in float32" in chosen.warning
    assert machine.precision("fp32", "cpu").warning == ""


@pytest.mark.parametrize(("capability", "name"), [("7.5", "fp32"), ("8.0", "bf16"), ("9.0", "bf16"), ("12.1", "bf16")])
def test_a_gpu_computes_in_bfloat16_from_capability_8_on(
    monkeypatch: pytest.MonkeyPatch, capability: str, name: str
) -> None:
    pretend(monkeypatch, replace(LAPTOP, gpu=Gpu("a GPU", 24 << 30, capability, 2), no_gpu=""))
    assert machine.precision("auto").name == name
    assert bool(machine.precision("bf16").warning) == (name == "fp32")
    assert machine.device() == torch.device("cuda")
    assert machine.device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(MachineError, match=r"no device 'cuda:2' on this machine; there are: cpu, cuda:0, cuda:1"):
        machine.device("cuda:2")


@pytest.mark.parametrize("asked", ["cuda", "cuda:1", "mps", "foo", "cpu:x", "", "xpu"])
def test_a_device_that_is_not_here_is_refused_with_those_that_are(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    pretend(monkeypatch, LAPTOP)
    with pytest.raises(MachineError, match=rf"no device '{asked}'.*there are: cpu"):
        machine.device(asked)


def test_a_hidden_gpu_and_an_old_driver_are_named() -> None:
    hidden = elsewhere("print(json.dumps(machine.look().no_gpu))", CUDA_VISIBLE_DEVICES="")
    assert hidden == "CUDA_VISIBLE_DEVICES='' hides all GPUs"
    old = (
        "import torch, warnings\n"
        "def available():\n"
        "    warnings.warn('CUDA initialization: The NVIDIA driver on your system is too old. Please …')\n"
        "    return False\n"
        "torch.cuda.is_available = available\n"
        "print(json.dumps(machine.look().no_gpu))"
    )
    assert "driver on your system is too old" in elsewhere(old)


def test_the_imitation_of_a_processor_with_avx2_only_is_seen_as_one() -> None:
    code = (
        "import torch\n"
        "print(json.dumps([machine.look().kernels, machine.precision('auto', 'cpu').name, machine.rates().factor]))"
    )
    kernels, name, factor = elsewhere(code, **AVX2)
    assert kernels == "AVX2"
    assert name == "fp32"
    # Emulated products in bfloat16 are tens of times slower; half is far from both.
    assert factor < 0.5


def test_threads_are_no_more_than_cores_and_a_container_s_share_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(limits, "_CGROUP", tmp_path)
    available = len(os.sched_getaffinity(0))
    for text, expected in [
        ("max 100000", available),
        ("100000 100000", 1),
        ("50000 100000", 1),
        ("nonsense", available),
    ]:
        (tmp_path / "cpu.max").write_text(text + "\n")
        limits.cores.cache_clear()
        assert limits.cores() == expected
    (tmp_path / "cpu.max").unlink()
    (tmp_path / "cpu").mkdir()
    for quota, expected in [("-1", available), ("100000", 1)]:
        (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(quota)
        (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
        limits.cores.cache_clear()
        assert limits.cores() == expected
    assert machine.threads(64) == machine.threads(1, processes=64) == 1
    limits.cores.cache_clear()
    (tmp_path / "memory.max").write_text("4294967296\n")
    limits.memory.cache_clear()
    assert limits.memory() == 4 << 30
    limits.memory.cache_clear()


def test_the_record_of_a_machine_is_json() -> None:
    assert json.loads(json.dumps(machine.look().record()))["cores"] >= 1
