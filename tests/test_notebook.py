"""The notebook of the documents: its cells run, and what it shows is what they show."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dav2 import layout
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from tests.documents import evaluation_line, step_line, write_journal

DOCS = Path(__file__).parents[1] / "docs"
KINDS = {"stream", "execute_result"}


@pytest.fixture(scope="module")
def runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebook", DOCS / "notebook.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def forms(notebook: dict[str, Any]) -> list[list[tuple[str, list[str]]]]:
    """Of every code cell, which outputs it has and in which forms."""
    cells = [cell["outputs"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [[(out["output_type"], sorted(out.get("data", {}))) for out in outputs] for outputs in cells]


def test_the_notebook_is_executed_and_its_cells_still_do_what_it_shows(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = json.loads(runner.NOTEBOOK.read_text(encoding="utf-8"))
    code = [cell for cell in kept["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "python docs/notebook.py"
    assert all(cell["outputs"] for cell in code)
    save_directory(build("vitn"), tmp_path / "artifacts/models/teacher")
    write_journal(
        layout.training(tmp_path, "teacher"), [step_line(1, 0.5)], [evaluation_line(1, val_loss=1.0, da2k=0.6)]
    )
    monkeypatch.chdir(tmp_path)
    again = runner.executed(kept)
    assert forms(again) == forms(kept)
    assert {kind for outputs in forms(kept) for kind, _ in outputs} == KINDS
    assert (tmp_path / "coffee.ply").is_file() and (tmp_path / "coffee_depth.npy").is_file()
    pictures = [
        out["data"]["text/html"] for cell in code for out in cell["outputs"] if "text/html" in out.get("data", {})
    ]
    assert len(pictures) == 1 and all("data:image/jpeg;base64," in "".join(each) for each in pictures)


def test_an_error_in_a_cell_is_not_written_down(runner: ModuleType) -> None:
    cell = {"cell_type": "code", "source": ["1 / 0"], "outputs": []}
    with pytest.raises(ZeroDivisionError):
        runner.executed({"cells": [cell]})


def test_help_says_what_goes_in_and_what_comes_out() -> None:
    import dav2

    for function in (dav2.load, dav2.infer):
        text = str(function.__doc__)
        assert ">>>" in text and "Args:" in text and "Raises:" in text
    assert "Returns:" in str(dav2.load.__doc__) and "artifacts/models/" in str(dav2.load.__doc__)
