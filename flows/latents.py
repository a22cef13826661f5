"""Stages ``latents@<name>``: photographs and maps of several views, encoded once."""

from __future__ import annotations

import argparse
from pathlib import Path

from prefect import flow, task

from dav2 import layout
from flows.runtime import TASK, StageError, read_params, run_stage, show_table


@task(task_run_name="latents-{name}", **TASK)
def encode(name: str, params_path: str) -> dict[str, object]:
    """Encode and keep; returns how much there is."""
    from dav2.data.store.manifest import ManifestError
    from dav2.families.directory import WeightsError
    from dav2.families.marigold.family import codec_digest
    from dav2.families.marigold.latents import make_latents

    params = read_params(params_path)
    try:
        digest = codec_digest(layout.codec(Path(), params.latents[name].codec))
        return make_latents(params, name, Path(), digest)
    except (WeightsError, ManifestError, ValueError) as error:
        raise StageError(f"latents.{name}: {error}") from error


@flow(name="latents")
def latents_flow(name: str, params_path: str = "params.yaml") -> dict[str, object]:
    """Make one set of latents and say how large it is."""
    made = encode(name, params_path)
    show_table(f"latents-{name}", [made], f"Latents {name}: pictures that were encoded once, so that training need not")
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    run_stage(latents_flow, name=parser.parse_args().name)
