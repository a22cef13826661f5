"""Prefect flows, one file a stage. ``dvc.yaml`` says what each reads and writes; ``dav2`` holds what each does."""

import sys
from importlib.util import find_spec

from dav2.machine import share_cores

# A shell without the environment finds another Python, and a stage would say which package of many that one lacks.
if find_spec("prefect") is None:
    sys.exit(
        f"{sys.executable} is not this project's environment: '. .venv/bin/activate' and the same again, or "
        "'make repro', which also makes it"
    )

# Here, because it has to happen before anything imports torch.
share_cores()
