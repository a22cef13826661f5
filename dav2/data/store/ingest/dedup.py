"""Exact duplicates: pictures with equal decoded pixels, whatever file format or metadata they came with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from dav2.data import storage
from dav2.data.store.manifest import read_table

Hashes = NDArray[np.bytes_]

REPEATED = "equal to an earlier frame of this source"
ELSEWHERE = "held by another data set, such as a benchmark"


def as_array(hashes: Iterable[str]) -> Hashes:
    """Hexadecimal sha256 digests as 32 bytes each."""
    return np.frombuffer(b"".join(bytes.fromhex(h) for h in hashes), dtype="S32")


def hashes_of(directories: Sequence[storage.Location]) -> Hashes:
    """Pixel hashes of all frames of the given manifests."""
    found = [as_array(read_table(d, ["pixel_sha256"])["pixel_sha256"].to_pylist()) for d in directories]
    return np.unique(np.concatenate(found)) if found else as_array([])


def reasons(hashes: Hashes, elsewhere: Hashes) -> list[str]:
    """Why each frame is to be left out: "" (it is not), held by another data set, or equal to an earlier frame.

    32 bytes a frame, and a sort.
    """
    repeated = np.ones(len(hashes), np.bool_)
    repeated[np.unique(hashes, return_index=True)[1]] = False
    banned = np.isin(hashes, elsewhere)
    return [ELSEWHERE if b else REPEATED if r else "" for b, r in zip(banned, repeated, strict=True)]
