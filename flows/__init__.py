"""Prefect flows, one file a stage. ``dvc.yaml`` says what each reads and writes; ``dav2`` holds what each does."""
