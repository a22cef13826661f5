"""Models to predict with, and the S3 server of the tests of storage."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import save_directory
from tests.data.conftest import bucket, s3_server

__all__ = ["bucket", "s3_server"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A relative and a metric model of random weights, as model directories."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    save_directory(build("vitn"), folder / "relative")
    save_directory(build("vitn", 20.0), folder / "metric")
    return folder
