"""A model is loaded without PyTorch's compiler, and the compiler is whole when somebody needs it afterwards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory

PROGRAM = """
import sys, torch
from dav2.families.depth_anything.weights import load_directory
for folder in sys.argv[1:]:
    model = load_directory(folder).eval()
assert not [name for name in sys.modules if name.startswith("torch._dynamo")], "the compiler was imported"
image = torch.zeros(1, 3, 32, 32)
with torch.no_grad():
    plain = model(image)
    compiled = torch.compile(model, backend="eager")(image)
assert "torch._dynamo.convert_frame" in sys.modules and torch.equal(plain, compiled)
from torchvision.ops import roi_align
assert roi_align(torch.ones(1, 1, 8, 8), [torch.tensor([[0.0, 0.0, 4.0, 4.0]])], 2).eq(1).all()
"""


def test_a_model_needs_no_compiler_and_can_be_compiled_afterwards(tmp_path: Path) -> None:
    folders = [tmp_path / size for size in ("vitn", "vits", "vitt3")]
    for folder in folders:
        save_directory(build(folder.name, None), folder)
    done = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, folders)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
