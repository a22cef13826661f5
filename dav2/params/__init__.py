"""``params.yaml`` as typed, validated objects: an unknown or wrong key is an error that names it."""

from dav2.params.base import Group, ParamsError, Section, Size
from dav2.params.files import DEFAULT_PATH, load, scale_names, scale_text
from dav2.params.marigold import CodecParams, LatentsParams, LcmParams, MarigoldParams, ProcessParams, RefineParams
from dav2.params.outside import OutsideParams
from dav2.params.recipes import (
    AugmentParams,
    CheckpointParams,
    LossParams,
    MetricParams,
    NamedTeacherParams,
    OptimParams,
    RecipeParams,
    StudentParams,
    TeacherParams,
)
from dav2.params.schema import (
    BenchmarkParams,
    ComputeParams,
    EvaluateParams,
    GateParams,
    IngestParams,
    Params,
    PseudoLabelParams,
    QualityParams,
    RegisterParams,
    SourceParams,
)

__all__ = [
    "DEFAULT_PATH",
    "AugmentParams",
    "BenchmarkParams",
    "CheckpointParams",
    "CodecParams",
    "ComputeParams",
    "EvaluateParams",
    "GateParams",
    "Group",
    "IngestParams",
    "LatentsParams",
    "LcmParams",
    "LossParams",
    "MarigoldParams",
    "MetricParams",
    "NamedTeacherParams",
    "OptimParams",
    "OutsideParams",
    "Params",
    "ParamsError",
    "ProcessParams",
    "PseudoLabelParams",
    "QualityParams",
    "RecipeParams",
    "RefineParams",
    "RegisterParams",
    "Section",
    "Size",
    "SourceParams",
    "StudentParams",
    "TeacherParams",
    "load",
    "scale_names",
    "scale_text",
]
