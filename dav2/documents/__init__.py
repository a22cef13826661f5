"""What one room leaves on disk for another to read: one model for the writer, the reader and the tests.

A file says which ``format`` it has. Lines of a journal have none: the run's record beside them does.
"""

from dav2.documents.base import Document, DocumentError, Number, Part
from dav2.documents.records import (
    Code,
    DataSet,
    EvaluationLine,
    LabelReceipt,
    Origin,
    Resumed,
    RunRecord,
    StepLine,
    Verdict,
)
from dav2.documents.registered import Evidence, Judgement, LicenceLine, RegisteredModel, RegisteredRecord
from dav2.documents.scores import (
    BenchmarkScores,
    Da2kScores,
    FrameScores,
    JudgedMaps,
    Pairs,
    ScoreFile,
    Share,
    Unscored,
)

__all__ = [
    "BenchmarkScores",
    "Code",
    "Da2kScores",
    "DataSet",
    "Document",
    "DocumentError",
    "EvaluationLine",
    "Evidence",
    "FrameScores",
    "JudgedMaps",
    "Judgement",
    "LabelReceipt",
    "LicenceLine",
    "Number",
    "Origin",
    "Pairs",
    "Part",
    "RegisteredModel",
    "RegisteredRecord",
    "Resumed",
    "RunRecord",
    "ScoreFile",
    "Share",
    "StepLine",
    "Unscored",
    "Verdict",
]
