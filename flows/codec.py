"""Stages ``codec@<name>``: what Marigold's models stand on, and the ceiling that it sets them."""

from __future__ import annotations

import argparse
from pathlib import Path

from prefect import flow, task

from flows.runtime import TASK, StageError, read_params, run_stage, show_table


@task(task_run_name="codec-{name}", **TASK)
def make(name: str, params_path: str) -> list[dict[str, object]]:
    """Fit or read the codec and measure what it loses; returns the rows of its ceiling."""
    from dav2.data.store.manifest import ManifestError
    from dav2.families.directory import WeightsError
    from dav2.families.marigold.ceiling import make_codec

    try:
        return make_codec(read_params(params_path), name, Path())
    except (WeightsError, ManifestError, ValueError) as error:
        raise StageError(f"codecs.{name}: {error}") from error


@flow(name="codec")
def codec_flow(name: str, params_path: str = "params.yaml") -> list[dict[str, object]]:
    """Make one codec and show its ceiling."""
    rows = make(name, params_path)
    show_table(f"codec-{name}", rows, f"The best that a model on codec {name} can reach")
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    run_stage(codec_flow, name=parser.parse_args().name)
