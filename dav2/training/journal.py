"""What a run leaves for people and other stages to read: ``run.json``, ``metrics.jsonl``, ``evaluations.jsonl``.

One JSON object a line, written by the first rank only. Lines also go to standard output, where the launcher picks them
up. When a run resumes, lines beyond the step it resumes from are cut off, so each step stands there once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NotRequired, TypedDict, TypeVar

from pydantic import ValidationError

from dav2.documents import Code, EvaluationLine, Resumed, RunRecord, StepLine
from dav2.files import write_whole

Line = StepLine | EvaluationLine
AnyLine = TypeVar("AnyLine", StepLine, EvaluationLine)

RUN = "run.json"
METRICS = "metrics.jsonl"
EVALUATIONS = "evaluations.jsonl"


class Began(TypedDict):
    """The part of a run's record that says by which code and on which machine it began, and was taken up again."""

    code: Code
    machine: dict[str, object]
    resumed: NotRequired[list[Resumed]]


class Journal:
    """The files of one run.

    Args:
        folder: ``artifacts/training/<run>``.
        active: false on every rank but the first, where nothing is written.
    """

    def __init__(self, folder: Path, active: bool) -> None:
        self.folder = folder
        self.active = active

    def metrics(self, line: StepLine) -> None:
        """Note one update."""
        self._append(METRICS, line)

    def evaluation(self, line: EvaluationLine) -> None:
        """Note one evaluation."""
        self._append(EVALUATIONS, line)

    def run(self, record: RunRecord) -> None:
        """Replace the record of the run."""
        if self.active:
            record.write(self.folder / RUN)

    def rewind(self, step: int) -> None:
        """Keep only lines up to ``step``, and none that was cut off in the middle."""
        if not self.active:
            return
        lines: dict[str, list[StepLine] | list[EvaluationLine]] = {
            METRICS: read_steps(self.folder),
            EVALUATIONS: read_evaluations(self.folder),
        }
        for name, found in lines.items():
            write_whole(self.folder / name, "".join(f"{_text(line)}\n" for line in found if line.step <= step))

    def _append(self, name: str, line: Line) -> None:
        if not self.active:
            return
        text = _text(line)
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


def read_run(folder: Path) -> RunRecord | None:
    """The record of a run; ``None`` when there is none yet.

    Raises:
        DocumentError: it is damaged.
    """
    try:
        return RunRecord.read(folder / RUN)
    except FileNotFoundError:
        return None


def read_steps(folder: Path) -> list[StepLine]:
    """Updates of a run, without a last line that a kill cut off."""
    return _read(folder / METRICS, StepLine)


def read_evaluations(folder: Path) -> list[EvaluationLine]:
    """Evaluations of a run, without a last line that a kill cut off."""
    return _read(folder / EVALUATIONS, EvaluationLine)


def parse_line(text: str) -> Line | None:
    """A line of a journal that was printed; ``None`` for any other text."""
    if not text.startswith('{"step":'):
        return None
    for kind in (StepLine, EvaluationLine):
        try:
            return kind.model_validate_json(text)
        except ValidationError:
            continue
    return None


def _read(path: Path, kind: type[AnyLine]) -> list[AnyLine]:
    lines: list[AnyLine] = []
    if path.exists():
        for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                lines.append(kind.model_validate_json(text))
            except ValidationError:
                break
    return lines


def _text(line: Line) -> str:
    return line.model_dump_json(exclude_defaults=True)


class Follower:
    """Reads a journal that another process appends to, from its present end on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.place = path.stat().st_size if path.exists() else 0

    def new_lines(self) -> list[Line]:
        """Whole lines written since the last call. A file that was cut back is read from its new end."""
        if not self.path.exists():
            return []
        self.place = min(self.place, self.path.stat().st_size)
        with self.path.open("rb") as file:
            file.seek(self.place)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        self.place += len(whole)
        found = (parse_line(text) for text in whole.decode("utf-8", "replace").splitlines())
        return [line for line in found if line is not None]
