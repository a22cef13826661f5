"""The expectation suites, as code.

Suites are built in code at every run and never loaded from a file: a stored suite opened where one of its classes is
not imported loads without that expectation and then passes.

Every expectation carries in its ``meta`` the keys of ``params.yaml`` that set its threshold, so that a failure can say
where to look. ``critical`` stops the pipeline, ``warning`` is reported and lets it go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dav2.data.frame import KEY_PATTERN
from dav2.maps import Quantity
from dav2.params import GateParams, NamedTeacherParams, Params
from dav2.quality.tables import GateGroup

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

# Depth that the 16-bit log code can hold, in metres (``data.depth_codec``).
NEAREST, FARTHEST = 1e-3, 1e4

SPLITS: dict[GateGroup, list[str]] = {
    "synthetic": ["train", "val", "test"],
    "real": ["train", "val", "test"],
    "unlabelled": ["train"],
    "benchmark": ["test"],
    "pseudo": ["train"],
}

# Median depth of a frame in metres that the scenes of each set can plausibly show. Outside it, the unit is likely to
# be wrong (centimetres, millimetres, disparity read as depth), so it is a warning and not a verdict.
PLAUSIBLE_MEDIAN: dict[str, tuple[float, float]] = {
    "hypersim": (0.2, 200.0),
    "vkitti2": (1.0, 656.0),
    "tartanair": (0.1, 5000.0),
    "tartanair_v2": (0.1, 5000.0),
    "irs": (0.1, 200.0),
    "nyu": (0.3, 10.0),
    "kitti": (1.0, 90.0),
    "eth3d": (0.3, 200.0),
    "diode": (0.3, 300.0),
    "scannet": (0.2, 10.0),
    "ibims": (0.3, 50.0),
}


class Suite:
    """Collects expectations; ``add`` notes the settings that each of them takes its thresholds from."""

    def __init__(self, group: GateGroup) -> None:
        self.group = group
        self.expectations: list[Expectation] = []

    def add(self, kind: str, *settings: str, severity: str = "critical", **arguments: object) -> None:
        """Add ``great_expectations.expectations.<kind>``; ``settings`` are dotted keys of ``params.yaml``."""
        import great_expectations.expectations as gxe

        meta = {"settings": list(settings)}
        self.expectations.append(getattr(gxe, kind)(**arguments, severity=severity, meta=meta))


def frames_suite(group: GateGroup, params: Params) -> list[Expectation]:
    """Expectations on the table of frames (or labels) of a group."""
    suite = Suite(group)
    limits: GateParams = getattr(params.quality, group)
    _identity(suite, limits)
    if group == "pseudo":
        _labels(suite, limits, params)
    else:
        _storage(suite)
        _images(suite, limits, params)
    if group == "unlabelled":
        suite.add("ExpectColumnValuesToBeInSet", column="size_depth", value_set=[0])
    if group in ("synthetic", "real", "benchmark"):
        _depth(suite, limits)
    if group in ("synthetic", "real"):
        suite.add("ExpectColumnValuesToBeBetween", column="size_depth", min_value=1)
    if group in ("synthetic", "real", "benchmark"):
        _plausible_ranges(suite, {source.reader for source in params.data_sets.values() if source.group == group})
    return suite.expectations


def sources_suite(group: GateGroup, params: Params) -> list[Expectation]:
    """Expectations on the table of sources of a group."""
    suite = Suite(group)
    limits: GateParams = getattr(params.quality, group)
    suite.add("ExpectColumnValuesToBeBetween", column="frames", min_value=1)
    suite.add(
        "ExpectColumnValuesToBeBetween",
        f"quality.{group}.max_quarantined",
        column="quarantined_share",
        max_value=limits.max_quarantined,
    )
    if group == "pseudo":
        suite.add("ExpectColumnValuesToBeBetween", column="unlabelled", max_value=0)
    else:
        suite.add("ExpectColumnValueLengthsToBeBetween", column="licence", min_value=1)
    return suite.expectations


def _identity(suite: Suite, limits: GateParams) -> None:
    suite.add("ExpectTableRowCountToBeBetween", f"quality.{suite.group}.min_frames", min_value=limits.min_frames)
    suite.add("ExpectColumnValuesToNotBeNull", column="key")
    suite.add("ExpectColumnValuesToBeUnique", column="key")
    suite.add("ExpectColumnValuesToMatchRegex", column="key", regex=f"^{KEY_PATTERN.pattern}$")


def _storage(suite: Suite) -> None:
    """Where the bytes lie, and under which terms they may be used."""
    suite.add("ExpectColumnValuesToBeInSet", column="group", value_set=[suite.group])
    suite.add("ExpectColumnValuesToBeInSet", column="split", value_set=SPLITS[suite.group])
    suite.add("ExpectColumnValuesToMatchRegex", column="sha256", regex="^[0-9a-f]{64}$")
    suite.add("ExpectColumnValuesToNotBeNull", column="shard")
    suite.add("ExpectColumnValuesToBeBetween", column="offset_image", min_value=0)
    suite.add("ExpectColumnValuesToBeBetween", column="size_image", min_value=1)
    suite.add("ExpectColumnValuesToNotBeNull", column="licence")


def _images(suite: Suite, limits: GateParams, params: Params) -> None:
    gate = f"quality.{suite.group}"
    between = "ExpectColumnValuesToBeBetween"
    suite.add(between, "ingest.min_side", column="side", min_value=params.ingest.min_side)
    suite.add(between, "ingest.max_pixels", column="pixels", max_value=params.ingest.max_pixels)
    suite.add(between, "ingest.max_aspect", column="aspect", max_value=params.ingest.max_aspect)
    suite.add(
        "ExpectColumnValuesToBeUnique",
        f"{gate}.max_duplicates",
        column="pixel_sha256",
        mostly=1.0 - limits.max_duplicates,
    )
    suite.add(
        between,
        f"{gate}.min_contrast",
        f"{gate}.mostly_slack",
        column="contrast",
        min_value=limits.min_contrast,
        mostly=1.0 - limits.mostly_slack,
    )
    suite.add(between, column="brightness", min_value=2.0, max_value=253.0, mostly=0.98, severity="warning")
    suite.add(between, column="sharpness", min_value=0.0, strict_min=True, mostly=0.98, severity="warning")


def _depth(suite: Suite, limits: GateParams) -> None:
    """Depth where a frame has it; frames without depth hold nulls, which these expectations pass over."""
    gate = f"quality.{suite.group}"
    between, ordered = "ExpectColumnValuesToBeBetween", "ExpectColumnPairValuesAToBeGreaterThanB"
    suite.add(between, column="valid", min_value=0.0, max_value=1.0)
    suite.add(
        between,
        f"{gate}.min_valid",
        f"{gate}.mostly_slack",
        column="valid",
        min_value=limits.min_valid,
        mostly=1.0 - limits.mostly_slack,
    )
    suite.add(
        between,
        f"{gate}.max_sky",
        f"{gate}.mostly_slack",
        column="sky",
        max_value=limits.max_sky,
        mostly=1.0 - limits.mostly_slack,
    )
    suite.add(between, column="depth_min", min_value=0.0, strict_min=True)
    pairs = "either_value_is_missing"
    suite.add(ordered, column_A="depth_median", column_B="depth_min", or_equal=True, ignore_row_if=pairs)
    suite.add(ordered, column_A="depth_max", column_B="depth_median", or_equal=True, ignore_row_if=pairs)
    suite.add(between, column="fx", min_value=0.0, strict_min=True)
    suite.add(between, column="fy", min_value=0.0, strict_min=True)


def _plausible_ranges(suite: Suite, readers: set[str]) -> None:
    from great_expectations.expectations.row_conditions import Column

    metric = Column("metric") == True  # noqa: E712 — builds a condition, compares nothing
    suite.add(
        "ExpectColumnValuesToBeBetween", column="depth_min", min_value=NEAREST, row_condition=metric, severity="warning"
    )
    suite.add(
        "ExpectColumnValuesToBeBetween",
        column="depth_max",
        max_value=FARTHEST,
        row_condition=metric,
        severity="warning",
    )
    for reader in sorted(readers & PLAUSIBLE_MEDIAN.keys()):
        nearest, farthest = PLAUSIBLE_MEDIAN[reader]
        suite.add(
            "ExpectColumnValuesToBeBetween",
            column="depth_median",
            min_value=nearest,
            max_value=farthest,
            mostly=0.95,
            row_condition=Column("reader") == reader,
            severity="warning",
        )


def _stored_as(params: Params) -> tuple[list[str], list[int]]:
    """Codecs and bits of labels; normals are stored in one way, and of a teacher made elsewhere nobody knows here."""
    own, normals = params.pseudo_label, (Quantity.NORMALS.value, 16)
    if isinstance(params.teacher, NamedTeacherParams):
        return [own.codec, normals[0]], sorted({own.bits, normals[1]})
    if params.teacher.loss.target == Quantity.NORMALS:
        return [normals[0]], [normals[1]]
    return [own.codec], [own.bits]


def _labels(suite: Suite, limits: GateParams, params: Params) -> None:
    """Pseudo-labels: one for each photograph, of the bytes that are there now, by one teacher, and not flat."""
    gate = "quality.pseudo"
    between = "ExpectColumnValuesToBeBetween"
    slack = 1.0 - limits.mostly_slack
    suite.add("ExpectColumnValuesToBeInSet", column="photograph", value_set=[True])
    suite.add("ExpectColumnValuesToBeInSet", column="same_image", value_set=[True])
    suite.add("ExpectColumnUniqueValueCountToBeBetween", column="teacher", min_value=1, max_value=1)
    codecs, bits = _stored_as(params)
    suite.add("ExpectColumnValuesToBeInSet", "pseudo_label.codec", column="codec", value_set=codecs)
    suite.add("ExpectColumnValuesToBeInSet", "pseudo_label.bits", column="bits", value_set=bits)
    suite.add(between, column="size_label", min_value=1)
    suite.add(between, column="vmin", min_value=0.0)
    suite.add("ExpectColumnPairValuesAToBeGreaterThanB", column_A="vmax", column_B="vmin", or_equal=True)
    suite.add(
        between, f"{gate}.min_range", f"{gate}.mostly_slack", column="range", min_value=limits.min_range, mostly=slack
    )
    suite.add(
        between,
        f"{gate}.max_saturated",
        f"{gate}.mostly_slack",
        column="saturated",
        max_value=limits.max_saturated,
        mostly=slack,
    )
    suite.add(between, column="flip_agreement", min_value=0.5, mostly=0.9, severity="warning")
