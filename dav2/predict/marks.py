"""How ``dav2 predict`` knows its own files, so that predicting into the folder of the images does not feed on them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from dav2.files import open_regular
from dav2.maps import LAYERS

MARK = "dav2:kind"
"""Name of a text in every PNG that is written, and the comment of every video, both in plain bytes of the file."""
OURS = "written by dav2 predict"
_NAMES = re.compile(rf".+_(?:depth|color|side|{'|'.join(LAYERS)})\.(?:png|mp4)", re.DOTALL)
_ENDS = 64 * 2**10


def made_here(path: Path) -> bool:
    """Whether a file is an earlier output: named like one, and marked."""
    if not _NAMES.fullmatch(path.name):
        return False
    try:
        with open_regular(path) as file:
            if MARK.encode() in file.read(_ENDS):
                return True
            # The index of a video, and with it the comment, stands at its end.
            file.seek(max(0, os.fstat(file.fileno()).st_size - _ENDS))
            return path.suffix == ".mp4" and MARK.encode() in file.read(_ENDS)
    except OSError:
        return False
