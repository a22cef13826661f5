"""Hypersim: HDF5 (float16, one data set named ``dataset``), Euclidean distance, tone-mapped previews, camera tables.

Format as in apple/ml-hypersim and read off a released file. The camera tables stand at the root of the data set: the
release keeps them in its code repository (``contrib/mikeroberts3000``, ``evermotion_dataset/analysis``).
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dav2.scenes.capture import Array, Camera, Capture
from dav2.scenes.layouts import files

METRES_PER_ASSET_UNIT = 0.0254
CAMERA_TABLE = "metadata_camera_parameters.csv"
SPLIT_TABLE = "metadata_images_split_scene_v1.csv"
# The release's cameras look along -z with y up; ours along +z with y down.
FLIP = np.diag([1.0, -1.0, -1.0])


class Row(NamedTuple):
    """A line of the split table."""

    scene: str
    camera: str
    frame: int
    split: str
    exclude_reason: str = ""


def camera_from_uv(camera: Camera) -> Array:
    """(3, 3) ``M_cam_from_uv``: (u, v, 1) → ray, u from -1 (left) to 1, v from 1 (top) to -1, camera along -z."""
    half_width, half_height = camera.width / 2, camera.height / 2
    pixel_from_uv = np.array([[half_width, 0, half_width], [0, -half_height, half_height], [0, 0, 1]])
    return np.asarray(FLIP @ camera.ray_matrix() @ pixel_from_uv, dtype=np.float64)


def write_frame(root: Path, scene: str, camera: str, frame: int, capture: Capture) -> None:
    """Write the preview, the distance and the entity map of one frame; ``radiance`` and ``layers`` where there are any.

    Radiance becomes ``color``, the layers ``normal_cam``, ``normal_world``, ``diffuse_reflectance``,
    ``diffuse_illumination`` and ``residual``: half floats, as in the release.
    """
    images = root / scene / "images"
    final, geometry = (images / f"scene_{camera}_{kind}_hdf5" for kind in ("final", "geometry"))
    distance = np.where(np.isfinite(capture.depth), capture.distance(), np.nan).astype(np.float16)
    write_hdf5(geometry / f"frame.{frame:04d}.depth_meters.hdf5", distance)
    write_hdf5(geometry / f"frame.{frame:04d}.render_entity_id.hdf5", capture.shape)
    if capture.radiance is not None:
        write_hdf5(final / f"frame.{frame:04d}.color.hdf5", capture.radiance.astype(np.float16))
    if capture.layers is not None:
        world = capture.layers.normals
        for name, normals in (("normal_cam", capture.camera_normals()), ("normal_world", world)):
            write_hdf5(geometry / f"frame.{frame:04d}.{name}.hdf5", normals.astype(np.float16))
        parts = {"diffuse_reflectance": "albedo", "diffuse_illumination": "shading", "residual": "residual"}
        for name, layer in parts.items():
            values = getattr(capture.layers, layer).astype(np.float16)
            write_hdf5(final / f"frame.{frame:04d}.{name}.hdf5", values)
    files.write_jpeg(images / f"scene_{camera}_final_preview" / f"frame.{frame:04d}.tonemap.jpg", capture.rgb)


def write_scene(root: Path, scene: str, trajectories: dict[str, list[Camera]]) -> None:
    """Write the ``_detail`` folder of a scene: its unit and each camera's poses, one per frame."""
    detail = root / scene / "_detail"
    files.write_lines(
        detail / "metadata_scene.csv",
        ["parameter_name,parameter_value", f"meters_per_asset_unit,{METRES_PER_ASSET_UNIT}"],
    )
    files.write_lines(detail / "metadata_cameras.csv", ["camera_name", *trajectories])
    for name, cameras in trajectories.items():
        poses = np.stack([camera.to_world for camera in cameras])
        positions, orientations = poses[:, :3, 3] / METRES_PER_ASSET_UNIT, poses[:, :3, :3] @ FLIP
        write_hdf5(detail / name / "camera_keyframe_positions.hdf5", positions)
        write_hdf5(detail / name / "camera_keyframe_orientations.hdf5", orientations)


def write_tables(root: Path, cameras: dict[str, Camera], rows: Iterable[Row]) -> None:
    """Write the table of cameras (one camera model per scene, as in the release) and the table of splits."""
    names = [f"M_cam_from_uv_{i}{j}" for i in range(3) for j in range(3)]
    header = ["scene_name", "settings_output_img_height", "settings_output_img_width", *names]
    lines = [",".join(header)]
    for scene, camera in sorted(cameras.items()):
        numbers = [repr(float(value)) for value in camera_from_uv(camera).ravel()]
        lines.append(",".join([scene, str(float(camera.height)), str(float(camera.width)), *numbers]))
    files.write_lines(root / CAMERA_TABLE, lines)

    columns = "scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"
    files.write_lines(
        root / SPLIT_TABLE,
        [
            columns,
            *(
                f"{row.scene},{row.camera},{row.frame},{not row.exclude_reason},{row.exclude_reason},{row.split}"
                for row in rows
            ),
        ],
    )


def write_hdf5(path: Path, array: NDArray[np.generic]) -> None:
    """Write ``array`` the way the release does: data set ``dataset``, images in gzip-9 chunks, no time stamps."""
    import h5py

    buffer = io.BytesIO()
    options: dict[str, object] = {}
    if array.ndim >= 2 and array.shape[1] > 3:
        chunks = (min(96, array.shape[0]), min(128, array.shape[1]), *array.shape[2:])
        options = {"chunks": chunks, "compression": "gzip", "compression_opts": 9}
    with h5py.File(buffer, "w") as file:
        file.create_dataset("dataset", data=array, track_times=False, **options)
    files.write(path, buffer.getvalue())
