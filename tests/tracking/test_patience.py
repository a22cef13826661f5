from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from dav2.tracking.patience import patiently


def test_a_busy_database_is_asked_again_and_any_other_error_is_told_at_once() -> None:
    asked: list[int] = []

    def answer(failures: int, error: Exception) -> str:
        asked.append(1)
        if len(asked) <= failures:
            raise error
        return "answer"

    assert patiently(answer)(3, MlflowException("(sqlite3.OperationalError) database is locked")) == "answer"
    assert len(asked) == 4
    asked.clear()
    with pytest.raises(MlflowException, match="no such table"):
        patiently(answer)(3, MlflowException("(sqlite3.OperationalError) no such table: runs"))
    assert len(asked) == 1
