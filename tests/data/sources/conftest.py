"""What the tests of readers share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scans of archives are kept beside the test's data."""
    monkeypatch.setenv("DAV2_CACHE", str(tmp_path / "cache"))
