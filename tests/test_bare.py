"""The wheel alone, in an empty environment: it predicts, and everything else says what it needs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
from packaging.requirements import Requirement

from dav2.extras import EXTRAS, MODULES
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory

ROOT = Path(__file__).parents[1]
LOCKED = re.compile(r"^([\w.-]+==.*) \\$", re.MULTILINE)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with an environment that holds the wheel and what it asks for, at the locked versions, and a model."""
    folder = tmp_path_factory.mktemp("bare")
    wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(wheel, cwd=ROOT, check=True, capture_output=True)
    (folder / "pins.txt").write_text("\n".join(LOCKED.findall((ROOT / "requirements.lock").read_text())))
    uv = str(Path(sys.executable).parent / "uv")
    python = folder / "environment" / "bin" / "python"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "environment"], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", python, "--constraint", folder / "pins.txt"]
    subprocess.run([*install, *folder.glob("*.whl")], check=True)
    save_directory(build("vitn"), folder / "model")
    cv2.imwrite(str(folder / "photo.png"), np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8))
    return folder


def run(bare: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [bare / "environment" / "bin" / program, *arguments], cwd=bare, env=environment, capture_output=True, text=True
    )


def test_the_wheel_predicts_loads_and_brings_nothing_of_the_pipeline(bare: Path) -> None:
    done = run(bare, "dav2", "predict", "photo.png", "--model", "model", "--out", "out")
    assert done.returncode == 0 and "1 found = 1 predicted" in done.stderr, done.stderr
    assert list((bare / "out").glob("photo*"))
    code = "import cv2, dav2; print(dav2.load('model', 'cpu').infer_image(cv2.imread('photo.png')).shape)"
    assert run(bare, "python", "-c", code).stdout == "(60, 80)\n"
    there = {path.name for path in (bare / "environment").glob("lib/*/site-packages/*")}
    assert not there & {"deepspeed", "dvc", "great_expectations", "mlflow", "prefect", "ray", "scipy", "s3fs"}


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        ("export model --to onnx --out exported", "export"),
        ("models", "serve"),
        ("up", "pipeline"),
        ("scenes render --out made --scale tiny --only irs --workers 1", "scenes"),
    ],
)
def test_a_command_says_which_extra_it_needs(bare: Path, command: str, extra: str) -> None:
    # Commands that work on a project ask for one first; its settings are enough.
    shutil.copy(ROOT / "params.yaml", bare / "params.yaml")
    done = run(bare, "dav2", *command.split())
    (bare / "params.yaml").unlink()
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.strip().endswith(f"pip install 'dav2[{extra}]'")
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_doctor_of_a_bare_installation_says_what_the_pipeline_needs(bare: Path) -> None:
    done = run(bare, "dav2", "doctor")
    assert done.returncode == 1
    for extra in EXTRAS:
        assert f"pip install 'dav2[{extra}]'" in " ".join(done.stdout.split())


def _closure(extra: str) -> set[str]:
    """Distributions that an extra brings, all the way down, by name as the index writes it."""
    found: set[str] = set()
    waiting = [Requirement(f"dav2[{extra}]")]
    while waiting:
        need = waiting.pop()
        name = re.sub(r"[-_.]+", "-", need.name.lower())
        if (mark := f"{name}[{','.join(sorted(need.extras))}]") in found:
            continue
        found |= {name, mark}
        try:
            below = metadata.requires(need.name) or []
        except metadata.PackageNotFoundError:
            continue
        for each in map(Requirement, below):
            chosen = [{"extra": extra} for extra in (*need.extras, "")]
            if each.marker is None or any(each.marker.evaluate(context) for context in chosen):
                waiting.append(each)
    return found


def _imports() -> Iterator[tuple[str, str]]:
    for path in [*(ROOT / "dav2").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            yield from ((name.partition(".")[0], str(path)) for name in names)


def test_every_package_that_is_imported_comes_with_the_installation_or_with_the_extra_that_is_told() -> None:
    distributions = metadata.packages_distributions()
    brought = {extra: _closure(extra) for extra in ("", *EXTRAS)}
    wrong = set()
    for module, path in _imports():
        if module in sys.stdlib_module_names or module in ("dav2", "flows", "__future__"):
            continue
        owners = {re.sub(r"[-_.]+", "-", name.lower()) for name in distributions.get(module, [module])}
        if not owners & brought[MODULES.get(module, "")]:
            wrong.add(f"{path} imports {module} ({', '.join(owners)}), told as of '{MODULES.get(module, '')}'")
    assert not wrong, "\n".join(sorted(wrong))
