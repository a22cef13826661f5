"""Where a project keeps what the pipeline makes: every path below ``artifacts`` and ``reports``.

``dvc.yaml`` names the same paths; a test holds both to one another.
"""

from __future__ import annotations

from pathlib import Path

ARTIFACTS = "artifacts"
SHARDS = f"{ARTIFACTS}/shards"
PSEUDO = f"{ARTIFACTS}/pseudo"
SELECTIONS = f"{ARTIFACTS}/selections"
MODELS = f"{ARTIFACTS}/models"
CODECS = f"{ARTIFACTS}/codecs"
LATENTS = f"{ARTIFACTS}/latents"
OUTSIDE = f"{ARTIFACTS}/outside"
TRAINING = f"{ARTIFACTS}/training"
SCORES = f"{ARTIFACTS}/scores"
QUALITY = f"{ARTIFACTS}/quality"
REGISTERED = f"{ARTIFACTS}/registered.json"
REPORTS = "reports"
STATE = ".dav2"
"""Servers, databases, caches: what belongs to this copy of the project and is never versioned."""

WEIGHTS = "model.safetensors"
WEIGHTS_TAG = "dav2.weights_sha256"
"""Tag of registered versions and logged models in which the digest of their weights stands."""
CONFIG = "config.json"
CARD = "card.md"
"""The three files of a model directory, whatever its family."""
ORIGIN = "origin.json"
"""Beside them where the model was made elsewhere: from where and under which licence it came."""


def shards(group: str, name: str) -> str:
    """Shards and manifest of a data set, relative to the project."""
    return f"{SHARDS}/{group}/{name}"


def labels(folder: str, name: str) -> str:
    """Pseudo-labels of a source, relative to the project; ``folder`` is ``pseudo`` or ``selections/<name>``."""
    return f"{ARTIFACTS}/{folder}/{name}"


def model(root: Path, run: str) -> Path:
    """Model directory of a finished run."""
    return root / MODELS / run


def outside(root: Path, name: str) -> Path:
    """Model directory of a model made elsewhere."""
    return root / OUTSIDE / name


def codec(root: Path, name: str) -> Path:
    """A codec of section ``codecs``, as diffusers keeps one."""
    return root / CODECS / name


def latents(root: Path, name: str) -> Path:
    """Latents of section ``latents``."""
    return root / LATENTS / name


def weights(root: Path, run: str) -> Path:
    """Weights file of a finished run."""
    return model(root, run) / WEIGHTS


def training(root: Path, run: str) -> Path:
    """Journal, previews and checkpoints of a run."""
    return root / TRAINING / run


def checkpoints(root: Path, run: str) -> Path:
    """Checkpoint folders of a run."""
    return training(root, run) / "checkpoints"


def scores(root: Path, name: str) -> Path:
    """Score file of a model or baseline."""
    return root / SCORES / f"{name}.json"


def quality(root: Path, group: str) -> Path:
    """Data Docs and verdict of a group of data sets."""
    return root / QUALITY / group


def verdict(root: Path, group: str) -> Path:
    """The verdict of a group's data gate."""
    return quality(root, group) / "result.json"
