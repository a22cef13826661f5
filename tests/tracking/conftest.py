from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from dav2.params import Params, load
from dav2.tracking import store
from tests.tracking import builders

PARAMS_FILE = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="session")
def params() -> Params:
    return load(PARAMS_FILE)


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    """A trained project with an empty MLflow database: making either takes seconds, copying them does not."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("template")
    shutil.copy(PARAMS_FILE, root)
    builders.write_project(root, params)
    store.client(root).search_experiments()
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    root = tmp_path / "project"
    shutil.copytree(template, root)
    return root
