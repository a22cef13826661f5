"""Runs the cells of ``docs/first-steps.ipynb`` and writes what they show into it.

    python docs/notebook.py [--project FOLDER]         # a project in which 'dvc repro' has run

No Jupyter is needed: a cell is executed like a script, and what its last line is shows itself as it would there
(``_repr_html_``, ``_repr_png_``, ``repr``). The sources of the cells are what stands in the file; edit them there.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

from dav2.files import write_whole

NOTEBOOK = Path(__file__).with_name("first-steps.ipynb")


def executed(notebook: dict[str, Any], namespace: dict[str, object] | None = None) -> dict[str, Any]:
    """The notebook with the outputs that its cells have here, in this folder; an error ends it."""
    names: dict[str, object] = {"__name__": "__main__"} if namespace is None else namespace
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            cell = {**cell, "execution_count": count, "outputs": _run("".join(cell["source"]), names, count)}
        cells.append(cell)
    return {**notebook, "cells": cells}


def _run(source: str, names: dict[str, object], count: int) -> list[dict[str, Any]]:
    """Outputs of one cell, in the order and form of the notebook format."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    said = io.StringIO()
    value: object = None
    with contextlib.redirect_stdout(said):
        exec(compile(ast.Module(body, []), f"cell {count}", "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {count}", "eval"), names)
    outputs: list[dict[str, Any]] = []
    if said.getvalue():
        outputs.append({"output_type": "stream", "name": "stdout", "text": said.getvalue().splitlines(keepends=True)})
    if value is not None:
        data = _shown(value)
        outputs.append({"output_type": "execute_result", "execution_count": count, "metadata": {}, "data": data})
    return outputs


def _shown(value: object) -> dict[str, Any]:
    """A value in every form it has, by media type."""
    data: dict[str, Any] = {"text/plain": repr(value).splitlines(keepends=True)}
    if (html := getattr(value, "_repr_html_", None)) is not None:
        data["text/html"] = html().splitlines(keepends=True)
    elif (png := getattr(value, "_repr_png_", None)) is not None:
        data["image/png"] = base64.b64encode(png()).decode()
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, default=Path(), help="a project that is built (default: here)")
    project = parser.parse_args().project
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    os.chdir(project)
    write_whole(NOTEBOOK, json.dumps(executed(notebook), indent=1, ensure_ascii=False) + "\n")
    print(f"{NOTEBOOK} is executed")


if __name__ == "__main__":
    main()
