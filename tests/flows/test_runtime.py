"""What stages show on the Prefect page, whatever a person calls their data."""

from __future__ import annotations

import pytest
from prefect.client.schemas.actions import ArtifactCreate

from flows.runtime import artifact_key


@pytest.mark.parametrize("name", ["ingest-my_photos", "ingest-Kitchen", "da2k-models--x", "labels-_a.b c", "__", "é"])
def test_any_name_becomes_a_key_that_prefect_takes(name: str) -> None:
    assert ArtifactCreate(key=artifact_key(name)).key


def test_names_that_are_keys_stay() -> None:
    assert artifact_key("checkpoints-student-vitt") == "checkpoints-student-vitt"
