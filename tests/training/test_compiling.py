"""What of a network is compiled, that it changes nothing but speed, and that the result outlives the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.tasks import RelativeTask
from dav2.params import LossParams
from dav2.training.compiling import choose, kept


def test_auto_takes_what_suits_the_network_on_a_gpu_and_nothing_elsewhere() -> None:
    assert choose("auto", "whole", "cuda", 0).how == "whole"
    assert choose("auto", "blocks", "cuda", 2).how == "blocks"
    assert choose("auto", "blocks", "cuda", 3).how == "none"
    assert choose("auto", "whole", "cpu", 0).how == "none"
    assert choose("whole", "blocks", "cpu", 3) == ("whole", "asked for")


@pytest.mark.parametrize(("size", "suits"), [("vits", "whole"), ("vitb", "whole"), ("vitl", "blocks")])
def test_large_networks_are_compiled_by_blocks(size: str, suits: str) -> None:
    with torch.device("meta"):
        assert RelativeTask(build(size), LossParams(), "bf16").suits == suits


def test_compiled_blocks_compute_the_same_share_one_graph_and_leave_evaluation_alone() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    task = RelativeTask(build("vitn").train(), LossParams(), "fp32")
    target = torch.rand(2, 56, 56)
    batch = {
        "image": torch.randn(2, 3, 56, 56),
        "target": target,
        "mask": target > 0.1,
        "region": torch.zeros(2, 56, 56, dtype=torch.uint8),
    }
    counter = CompileCounterWithBackend("aot_eager")
    results = []
    for compiled in (False, True):
        if compiled:
            task.model.encoder.compile_blocks(False, backend=counter)
        task.zero_grad()
        loss = task(**batch)["loss"]
        loss.backward()
        gradients = [p.grad.flatten() for p in task.parameters() if p.grad is not None]
        results.append((loss.detach(), torch.cat(gradients)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1
    task.eval()
    with torch.no_grad():
        task(**{name: value.repeat_interleave(2, 0) for name, value in batch.items()})
        task.model(torch.randn(1, 3, 70, 84))
    assert counter.frame_count == 1
    assert not any("_orig_mod" in name for name in task.state_dict())


def test_what_is_compiled_outlives_the_process(tmp_path: Path) -> None:
    assert kept({"TORCHINDUCTOR_CACHE_DIR": "/elsewhere"}) == {"TORCHINDUCTOR_CACHE_DIR": "/elsewhere"}
    own = kept({"XDG_CACHE_HOME": str(tmp_path)})
    program = "from torch._inductor.runtime.cache_dir_utils import cache_dir; print(cache_dir())"
    said = subprocess.run([sys.executable, "-c", program], env={**os.environ, **own}, capture_output=True, text=True)
    assert said.stdout.strip() == str(tmp_path / "dav2/compiled")
