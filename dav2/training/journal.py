"""What a run leaves for people and other stages to read: ``run.json``, ``metrics.jsonl``, ``evaluations.jsonl``.

One JSON object a line, written by the first rank only. Lines also go to standard output, where the launcher picks them
up. When a run resumes, lines beyond the step it resumes from are cut off, so each step stands there once.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from dav2.files import write_whole

RUN = "run.json"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"


class Journal:
    """The files of one run.

    Args:
        folder: ``artifacts/training/<run>``.
        active: false on every rank but the first, where nothing is written.
    """

    def __init__(self, folder: Path, active: bool) -> None:
        self.folder = folder
        self.active = active

    def metrics(self, line: dict[str, Any]) -> None:
        """Note one update."""
        self._append(METRICS, line)

    def evaluation(self, line: dict[str, Any]) -> None:
        """Note one evaluation."""
        self._append(EVALUATIONS, line)

    def run(self, description: dict[str, Any]) -> None:
        """Replace the description of the run."""
        if self.active:
            write_whole(self.folder / RUN, json.dumps(description, indent=1) + "\n")

    def rewind(self, step: int) -> None:
        """Keep only lines up to ``step``, and none that was cut off in the middle."""
        if not self.active:
            return
        for name in (METRICS, EVALUATIONS):
            kept = [line for line in read_lines(self.folder / name) if line["step"] <= step]
            write_whole(self.folder / name, "".join(json.dumps(line) + "\n" for line in kept))

    def _append(self, name: str, line: dict[str, Any]) -> None:
        if not self.active:
            return
        text = json.dumps(line)
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        announce(text)


def announce(text: str) -> None:
    """Print a line; when nobody reads any more (the launcher was killed), this and all later output goes nowhere.

    A run without a reader still has its last checkpoint to write.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        os.close(nowhere)


def read_run(folder: Path) -> dict[str, Any]:
    """``run.json`` of a run's folder; empty when there is none yet."""
    try:
        description: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return description


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSONL file; a last line that a kill cut off is left out."""
    lines = []
    if path.exists():
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines


class Follower:
    """Reads a JSONL file that another process appends to, from its present end on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = path.stat().st_size if path.exists() else 0

    def new_lines(self) -> list[dict[str, Any]]:
        """Whole lines written since the last call. A file that was cut back is read from its new end."""
        if not self.path.exists():
            return []
        self.place = min(self.place, self.path.stat().st_size)
        with self.path.open("rb") as file:
            file.seek(self.place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.place += len(whole)
        return [json.loads(text) for text in whole.splitlines()]
