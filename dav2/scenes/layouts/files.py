"""How files reach the disk: encoded in memory, written under a temporary name, synced, renamed."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image


def write(path: Path, data: bytes) -> None:
    """Write ``data`` so that ``path`` either does not exist or is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write ``lines`` as UTF-8, each ended by a line feed."""
    write(path, "".join(f"{line}\n" for line in lines).encode())


def write_jpeg(path: Path, rgb: NDArray[np.uint8], quality: int = 88) -> None:
    """Write uint8 (H, W, 3) as a JPEG of ``quality`` 1 to 100."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    write(path, buffer.getvalue())


def write_exr(path: Path, channels: Mapping[str, NDArray[np.float32] | NDArray[np.float16]]) -> None:
    """Write (H, W) channels, float32 or half, as a ZIP-compressed scan-line EXR."""
    import OpenEXR

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.exr")
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    stored = {name: OpenEXR.Channel(name, np.ascontiguousarray(values)) for name, values in channels.items()}
    with OpenEXR.File(header, stored) as file:
        file.write(str(temporary))
    data = temporary.read_bytes()
    temporary.unlink()
    write(path, data)


def write_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    """uint8 (H, W, 3) RGB or uint16 (H, W)."""
    ordered = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    done, encoded = cv2.imencode(".png", np.ascontiguousarray(ordered), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    if not done:
        raise ValueError(f"{path}: OpenCV cannot encode {pixels.dtype} {pixels.shape} as PNG")
    write(path, encoded.tobytes())
