from __future__ import annotations

from pathlib import Path

import pytest

from dav2.params import Params, load


@pytest.fixture(scope="session")
def params() -> Params:
    return load(Path(__file__).parents[2] / "params.yaml")
