"""What every rank runs: ``python -m dav2.families.rank --run teacher --params params.yaml --root .``

torchrun, Ray and Slurm start it once per rank; started by hand it trains alone. The same command starts a run, goes on
with an interrupted one, and only writes the model directory again when the run is finished and nothing changed.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dav2 import families, machine
from dav2.failures import foreseen, named
from dav2.params import Params, load
from dav2.runs import get_run
from dav2.training.death import stop_if_orphaned, stop_with_parent
from dav2.training.errors import Interrupted
from dav2.training.journal import announce
from dav2.training.train import ERROR, STOP_NOTE, STOPPED, train


def train_run(params: Params, name: str, root: Path) -> Path:
    """Train one run with the family that its settings name, in this process, as one of the announced ranks.

    Returns:
        The model directory.

    Raises:
        Interrupted: a signal asked to stop; a checkpoint has been written.
        TrainingError: the run cannot start or go on.
    """
    return train(params, name, root, families.get(get_run(params, name).family))


def _stop_with_agent() -> None:
    """Have the kernel ask this rank to stop when the torchrun that started it dies, however it dies.

    The rank then writes a checkpoint, as after any SIGTERM. Without this it would train on with nobody to watch it.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        stop_with_parent()
        stop_if_orphaned("torch")


def main() -> int:
    """Command line of one rank; the exit status is 0, 1 for an error, or ``STOPPED``."""
    _stop_with_agent()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="teacher, student-<key> or metric-<key>")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: %(default)s)")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the project (default: here)")
    options = parser.parse_args()
    machine.share_cores()
    try:
        train_run(load(options.params), options.run, options.root)
    except Interrupted as stop:
        announce(str(stop))
        if STOP_NOTE in os.environ:
            Path(os.environ[STOP_NOTE]).touch()
        return STOPPED
    except Exception as error:
        if not foreseen(error):
            raise
        print(f"{ERROR}{named(error)}", file=sys.stderr, flush=True)
        return 1
    return 0


def leave(status: int) -> None:
    """End this process at once: everything is on disk and the group of ranks is taken apart.

    The usual way out destroys objects of C++ libraries while threads of theirs still run, in an order that nobody
    decides; about one rank in five aborted there after its run was finished, which torchrun takes for a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    leave(main())
