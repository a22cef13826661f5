"""Promotion as a flow: the gates of a candidate are run and shown, and only a better model becomes champion."""

from __future__ import annotations

import argparse
from typing import Any

from prefect import flow, task

from flows.runtime import TASK, StageError, read_params, run_stage, show_table


@task(task_run_name="promote-{name}", **TASK)
def promote(name: str, force: bool, reason: str, params_path: str) -> dict[str, Any]:
    """Run the gates of ``name``'s candidate; returns the transcript."""
    from pathlib import Path

    from dav2.tracking import promotion
    from dav2.tracking.store import TrackingError

    try:
        return promotion.promote(name, Path(), read_params(params_path), force=force, reason=reason).as_dict()
    except TrackingError as error:
        raise StageError(str(error)) from error


@flow(name="promote")
def promote_flow(
    name: str, force: bool = False, reason: str = "", params_path: str = "params.yaml"
) -> dict[str, object]:
    """Promote the candidate of a registered model, or say gate by gate why not."""
    transcript = promote(name, force, reason, params_path)
    title = f"Whether {name} version {transcript['version']} may become champion: its gates one by one"
    show_table(f"promotion-{name}", transcript["gates"], title)
    if not transcript["promoted"]:
        failed = [f"{gate['gate']}: {gate['detail']}" for gate in transcript["gates"] if not gate["passed"]]
        raise StageError(f"{name} version {transcript['version']} was not promoted:\n  " + "\n  ".join(failed))
    return transcript


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--reason", default="")
    given = parser.parse_args()
    run_stage(promote_flow, name=given.name, force=given.force, reason=given.reason)
