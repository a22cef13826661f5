"""Stage ``settings``: makes sure of ``params.yaml`` before DVC puts any word of it into a command.

DVC lays names from ``params.yaml`` into commands that a shell runs, and knows nothing of which names are allowed. Every
first stage therefore depends on this one. What it writes never changes, so that a new setting makes nothing stale here.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from dav2 import layout
from dav2.files import write_whole
from flows.runtime import read_params, run_stage

CHECKED = Path(layout.ARTIFACTS) / "settings.txt"
NOTES = {
    Path(layout.ARTIFACTS) / "random": "Weights that start from here are drawn from the seed of params.yaml.\n",
    Path(layout.ARTIFACTS) / "nothing": "Diffusion models that name this refine no other model's map.\n",
    Path(layout.OUTSIDE) / "note.txt": "Models made elsewhere, of section 'outside' in params.yaml.\n",
    **{
        Path(layout.SHARDS) / group / "note.txt": f"Data sets of group '{group}', of 'sources' in params.yaml.\n"
        for group in ("synthetic", "real", "unlabelled")
    },
    Path(layout.CODECS) / "note.txt": "Codecs, of section 'codecs' in params.yaml.\n",
}
"""What the later stages name though a project may have none of it."""


@flow(name="settings")
def settings_flow(params_path: str = "params.yaml") -> None:
    """Read ``params.yaml`` and say that it can be used."""
    read_params(params_path)
    for path, text in {CHECKED: "params.yaml can be used\n", **NOTES}.items():
        write_whole(path, text)


if __name__ == "__main__":
    run_stage(settings_flow)
