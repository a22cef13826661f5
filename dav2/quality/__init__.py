"""Expectations on manifests, the gate that stops bad data, its Data Docs, and drift between two data versions."""

from dav2.quality.gate import GateResult, QualityError, validate

__all__ = ["GateResult", "QualityError", "validate"]
