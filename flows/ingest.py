"""Stages ``ingest@<source>`` and ``benchmark@<name>``: one raw data set becomes shards and a manifest."""

from __future__ import annotations

import argparse
from pathlib import Path

from prefect import flow, task

from flows.runtime import TASK, Progress, StageError, read_params, run_stage, show_table


@task(task_run_name="ingest-{source}", **TASK)
def ingest_source(source: str, params_path: str) -> dict[str, object]:
    """Shards, manifest and quarantine of ``source``; returns the counts."""
    from dav2.data.frame import FrameError
    from dav2.data.raw.sources import SourceError
    from dav2.data.store.ingest import IngestError, ingest_into

    params = read_params(params_path)
    forbidden = [] if source in params.benchmarks else [Path(params.shards(name)) for name in params.benchmarks]
    try:
        summary = ingest_into(
            Path(params.shards(source)),
            params.ingest.store,
            source,
            params.data_sets[source],
            params.ingest,
            seed=params.seed,
            progress=Progress(f"ingest-{source}", "frames"),
            forbidden=forbidden,
        )
    except (SourceError, FrameError, IngestError) as error:
        raise StageError(str(error)) from error
    return summary.as_dict()


@flow(name="ingest")
def ingest_flow(source: str, params_path: str = "params.yaml") -> dict[str, object]:
    """Read one data set in its public layout, keep what is sound, set aside what is not."""
    summary = ingest_source(source, params_path)
    title = f"Data set {source}: frames kept, set aside or left out, and their shards"
    show_table(f"ingest-{source}", [summary], title)
    return summary


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True)
    run_stage(ingest_flow, source=parser.parse_args().source)
