"""Stages ``select@<name>``: a budget of the most informative pseudo-labels, for students that name the selection."""

from __future__ import annotations

import argparse
import shutil
from functools import partial
from pathlib import Path

from prefect import flow, task

from dav2 import layout
from flows.runtime import TASK, StageError, read_params, run_stage, show_table

FOLDER = Path(layout.SELECTIONS)


@task(task_run_name="select-{name}", **TASK)
def choose(name: str, params_path: str) -> dict[str, int]:
    """Write the selection under a temporary name and rename it; returns the number of labels kept of each source."""
    from dav2.pseudo_label.select import Choice, select, write_selection

    params = read_params(params_path)
    if name not in params.selections:
        raise StageError(f"no selection named '{name}'; there are: {', '.join(params.selections) or 'none'}")
    wanted = params.selections[name]
    unfinished, out = FOLDER / f".{name}", FOLDER / name
    shutil.rmtree(unfinished, ignore_errors=True)
    folders = {source: params.labels(source) for source in wanted.sources}
    choice = Choice(wanted.budget, wanted.coverage, wanted.discard)
    kept = write_selection(folders, str(unfinished), partial(select, choice=choice))
    shutil.rmtree(out, ignore_errors=True)
    unfinished.rename(out)
    return kept


@flow(name="select")
def select_flow(name: str, params_path: str = "params.yaml") -> dict[str, int]:
    """Keep the labels of one selection of ``params.yaml``."""
    kept = choose(name, params_path)
    rows = [{"source": source, "labels kept": count} for source, count in kept.items()]
    show_table(f"selection-{name}", rows, f"Selection {name}: how many pseudo-labels of each source were kept")
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="a key of 'selections' in params.yaml")
    run_stage(select_flow, name=parser.parse_args().name)
