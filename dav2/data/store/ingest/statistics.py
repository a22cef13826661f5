"""What a frame looks like in numbers: the columns of the manifest by which the gate and a person judge it."""

from __future__ import annotations

import hashlib

import cv2
import numpy as np
from numpy.typing import NDArray

from dav2.data.store.depth_codec import SKY, UNKNOWN, metric_table

SHORT_SIDE = 256
"""Grey pictures are shrunk to this before sharpness is measured, so that it does not depend on resolution."""

DEPTH_COLUMNS = ("depth_min", "depth_median", "depth_max", "valid", "sky")


def image_statistics(rgb: NDArray[np.uint8]) -> dict[str, float]:
    """``brightness`` and ``contrast`` (mean and standard deviation of grey, 0–255) and ``sharpness``.

    Sharpness is the variance of the Laplacian of the grey picture at 256 px short side (smaller ones stay as they are).
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    mean, deviation = cv2.meanStdDev(grey)
    small = grey
    # Halves first: OpenCV averages four pixels twenty times as fast as a broken number of them.
    while min(small.shape) >= 2 * SHORT_SIDE:
        small = cv2.resize(small, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    shrink = SHORT_SIDE / min(small.shape)
    if shrink < 1:
        small = cv2.resize(small, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    edges = cv2.Laplacian(small, cv2.CV_32F)
    return {
        "brightness": float(mean[0, 0]),
        "contrast": float(deviation[0, 0]),
        "sharpness": float(cv2.meanStdDev(edges)[1][0, 0] ** 2),
    }


def depth_statistics(codes: NDArray[np.uint16] | None) -> dict[str, float]:
    """Least, median and greatest finite depth, and the shares of known (sky included) and of sky pixels.

    Taken from a histogram of the codes of stored depth (:func:`dav2.data.store.depth_codec.metric_codes`), so they
    hold to within 0.0125 %. All nan without depth; the first three nan where every pixel is sky or unknown.
    """
    if codes is None:
        return dict.fromkeys(DEPTH_COLUMNS, float("nan"))
    counts = cv2.calcHist([codes], [0], None, [65536], [0, 65536]).ravel().astype(np.int64)
    sky, unknown = counts[SKY] / codes.size, counts[UNKNOWN] / codes.size
    finite = counts[UNKNOWN + 1 : SKY].cumsum()
    table = metric_table()
    least, median, greatest = float("nan"), float("nan"), float("nan")
    if finite[-1]:
        # Number of the first, middle and last pixel in order of depth; codes of finite depth begin at 1.
        ranks = np.array([1, (finite[-1] + 1) // 2, finite[-1]])
        least, median, greatest = (float(table[i]) for i in np.searchsorted(finite, ranks) + UNKNOWN + 1)
    values = (least, median, greatest, float(1 - unknown), float(sky))
    return dict(zip(DEPTH_COLUMNS, values, strict=True))


def pixel_hash(rgb: NDArray[np.uint8]) -> str:
    """sha256 of size and pixels: equal for one picture in two lossless formats, or with other metadata."""
    digest = hashlib.sha256(np.array(rgb.shape[:2], "<u4").tobytes())
    digest.update(np.ascontiguousarray(rgb).data)
    return digest.hexdigest()
