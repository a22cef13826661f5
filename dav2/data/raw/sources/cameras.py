"""Cameras in small files: four numbers, a 3 × 3 matrix, or JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from dav2.data.frame import FrameError, Intrinsics
from dav2.data.raw.sources.formats import positive, read_npy
from dav2.data.text import decode_json, decode_text

_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
_MATRICES = ("K", "k", "intrinsic_matrix", "camera_matrix", "intrinsics", "intrinsic")


def read_camera(data: bytes, name: str) -> Intrinsics:
    """A pinhole camera in pixels.

    Text with ``fx fy cx cy`` or the nine (or sixteen) numbers of a matrix, row by row; JSON with these names or a
    matrix under ``K``, ``intrinsic_matrix`` …, also column by column as Open3D writes it; ``.npy`` with a matrix.

    Raises:
        FrameError: it is none of these.
    """
    if data[:6] == b"\x93NUMPY":
        return camera_of(read_npy(data, name).ravel().tolist(), name)
    text = decode_text(data, name)
    if text.lstrip()[:1] in ("{", "["):
        return _from_json(decode_json(data, name), name)
    return camera_of([float(number) for number in _NUMBER.findall(text)], name)


def camera_of(numbers: Sequence[float], name: str) -> Intrinsics:
    """From 4 numbers (fx, fy, cx, cy), or 9 or 16 of a matrix.

    Raises:
        FrameError: they are no camera.
    """
    if len(numbers) in (9, 16):
        side = 3 if len(numbers) == 9 else 4
        matrix = np.asarray(numbers, float).reshape(side, side)
        # Written column by column, the principal point stands in the last row.
        if matrix[0, 2] == 0 and matrix[1, 2] == 0 and matrix[2, 0] > 1:
            matrix = matrix.T
        numbers = [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]]
    try:
        if len(numbers) != 4:
            raise ValueError(f"{len(numbers)} numbers; expected fx fy cx cy, or a matrix of 3 × 3 or 4 × 4")
        return Intrinsics(*positive(numbers))
    except ValueError as error:
        raise FrameError(f"{name}: {error}") from error


def _from_json(document: object, name: str) -> Intrinsics:
    if isinstance(document, dict):
        if all(key in document for key in ("fx", "fy", "cx", "cy")):
            return camera_of(_numbers([document[key] for key in ("fx", "fy", "cx", "cy")], name), name)
        found = next((document[key] for key in _MATRICES if key in document), None)
        if isinstance(found, dict):
            return _from_json(found, name)
        document = found
    return camera_of(_numbers(document, name), name)


def _numbers(value: object, name: str) -> list[float]:
    try:
        return [float(number) for number in np.asarray(value, float).ravel()]
    except (TypeError, ValueError):
        raise FrameError(f"{name}: names no camera; expected fx, fy, cx, cy, or a matrix called K") from None
