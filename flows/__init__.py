"""Prefect flows, one file a stage. ``dvc.yaml`` says what each reads and writes; ``dav2`` holds what each does."""

from dav2.machine import share_cores

# Here, because it has to happen before anything imports torch.
share_cores()
