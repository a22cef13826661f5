"""The tiny project of the evaluation tests, with its scores, for the page."""

from tests.evaluation.conftest import built, project, reports, scored

__all__ = ["built", "project", "reports", "scored"]
