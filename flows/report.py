"""Stage ``report``: one self-contained page, the metrics of ``dvc metrics show`` and the data of ``dvc plots``."""

from __future__ import annotations

import json
from pathlib import Path

from prefect import flow, task
from prefect.artifacts import create_link_artifact
from prefect.logging import get_run_logger

from dav2 import layout
from dav2.documents import ScoreFile
from dav2.report.write import METRICS
from dav2.runs import all_runs
from flows.documents import address
from flows.page import access_in_use, shown
from flows.runtime import TASK, read_params, run_stage, show_table

OUT = Path(layout.REPORTS)


@task(**TASK)
def write(params_path: str) -> str:
    """Write ``reports/``, with what changed against the champion if there is one; returns the page's path."""
    from dav2.report import write_report
    from dav2.tracking.registry import champion_scores
    from dav2.tracking.store import TrackingError

    params = read_params(params_path)

    def champion(run: str) -> ScoreFile | None:
        if run not in all_runs(params):
            return None  # scored, but not trained here: somebody else's, or of other settings
        try:
            return champion_scores(run, Path(), params)
        except TrackingError as error:
            get_run_logger().warning(f"the report compares {run} with no champion: {error}")
            return None

    return str(write_report(params, Path(), OUT, champion=champion))


@flow(name="report")
def report_flow(params_path: str = "params.yaml") -> str:
    """Gather scores, curves, pictures and lineage into one page."""
    page = Path(write(params_path))
    scored = {path.stem: json.loads(path.read_text()).get("da2k") for path in sorted((OUT / METRICS).glob("*.json"))}
    rows = [
        {"model": model, **{name: round(100 * share, 1) for name, share in value.items()}}
        for model, value in scored.items()
        if value
    ]
    show_table("da2k", rows, "Every model on DA-2K: per cent of point pairs ordered rightly, with the 95 % interval")
    link = address(access_in_use(), str(page))
    if link is not None:
        what = "The report: scores, pictures, curves, data, lineage"
        shown(create_link_artifact, link, key="report", link_text=what, description=what)
    return str(page)


if __name__ == "__main__":
    run_stage(report_flow)
