"""Stage ``settings``: makes sure of ``params.yaml`` before DVC puts any word of it into a command.

DVC lays names from ``params.yaml`` into commands that a shell runs, and knows nothing of which names are allowed. Every
first stage therefore depends on this one. What it writes never changes, so that a new setting makes nothing stale here.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from dav2.files import write_whole
from flows.runtime import read_params, run_stage

CHECKED = Path("artifacts/settings.txt")


@flow(name="settings")
def settings_flow(params_path: str = "params.yaml") -> None:
    """Read ``params.yaml`` and say that it can be used."""
    read_params(params_path)
    CHECKED.parent.mkdir(parents=True, exist_ok=True)
    write_whole(CHECKED, "params.yaml can be used\n")


if __name__ == "__main__":
    run_stage(settings_flow)
