"""Maps that any program made: which file is the map of which image, and what was found wrong on the way.

A map is named like its image: the frame's key, or the end of it as far as no other image shares it (below a folder
named as the data set, if need be), cleaned as keys are (:func:`dav2.data.frame.make_key`). A suffix of the image inside
the name is dropped (``0001.jpg.npy``), and so is an ending such as ``_depth`` where no image bears it.

A map of another size than its image is resized to it: bilinear, pixel centres lying over pixel centres, no
antialiasing. The sides may differ in proportion by 10 %, as they do when a program rounds them; beyond that a map is of
another shape.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dav2 import limits
from dav2.data import storage
from dav2.data.frame import Frame
from dav2.data.raw.members import is_noise, printable
from dav2.data.raw.sources.maps import ENDINGS, SUFFIXES, image_names, read_map
from dav2.data.store.shards import ShardError, read_frame
from dav2.evaluation import layer_maps
from dav2.evaluation.doubts import Seen, look
from dav2.evaluation.stream import Read, bottom_centre, read_ahead
from dav2.failures import reason
from dav2.files import open_regular, read_bounded, sha256_file
from dav2.maps import Quantity
from dav2.scores.scoring import NO_MAP, UNREADABLE_MAP
from dav2.walk import walk

PROPORTION = 1.1
MAX_BYTES = 2**31


class MapsError(ValueError):
    """A folder of maps that cannot be judged; the message names the folder or file and says what to do."""


@dataclass(slots=True)
class Folder:
    """Maps of one folder.

    Attributes:
        path: the folder.
        quantity: what the values are.
        scale: they are multiplied by this as they are read.
        dataset: which array of NPZ and HDF5 files with several is the map.
        gamma_coded: whether the values, of a layer of appearance or light, are x^(1/2.2) of linear ones.
        maps: frame key → file.
        surplus: files that are the map of no image.
        unreadable: file → why it cannot be read; known when it was tried.
        seen: frame key → what was noticed when its map was read, for frames of known depth.
        is_baseline: maps are somebody's; see :class:`dav2.evaluation.passes.Subject`.
    """

    path: Path
    quantity: Quantity
    scale: float = 1.0
    dataset: str | None = None
    gamma_coded: bool = False
    maps: dict[str, Path] = field(default_factory=dict)
    surplus: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    is_baseline: bool = False

    @property
    def layers(self) -> tuple[Quantity, ...]:
        """What the maps hold."""
        return (self.quantity,)

    def digest(self) -> str:
        """SHA-256 over names and digests of the maps that were matched, and how they are read."""
        files = {each.relative_to(self.path).as_posix(): each for each in self.maps.values()}
        # What cannot be read may not even be opened again: a link to nowhere, a file of somebody else's.
        listed = "".join(
            f"{'unreadable' if name in self.unreadable else sha256_file(files[name])}  {name}\n"
            for name in sorted(files)
        )
        read_as = f"{self.quantity} × {self.scale:g} {self.dataset or ''}{' gamma-coded' if self.gamma_coded else ''}"
        return hashlib.sha256(f"{read_as}\n{listed}".encode()).hexdigest()

    def predictions(
        self,
        directory: Path,
        rows: list[dict[str, object]],
        predictor: object,
        *,
        batch: int = 8,
        crop: Callable[[Frame], Frame] = lambda frame: frame,
        **_: object,
    ) -> Iterator[tuple[Read, Tensor | None]]:
        """The frames of a manifest with their maps, as :func:`dav2.evaluation.stream.predict_rows` has predictions.

        Input size, variants and batches are a model's matters; maps were made once.
        """

        def task(row: dict[str, object]) -> Callable[[], Read]:
            return lambda: self._read(directory, row, crop)

        for read in read_ahead([task(row) for row in rows], max(1, limits.cores() // 2), ahead=batch):
            yield read, read.tensor

    def _read(self, directory: Path, row: dict[str, object], crop: Callable[[Frame], Frame]) -> Read:
        key = str(row["key"])
        try:
            frame = read_frame(directory, row)
        except (ShardError, OSError) as error:
            if (failing := storage.outage(error)) is not None:
                raise failing from error
            return Read(key, None, None, str(error))
        file = self.maps.get(key)
        if file is None:
            return Read(key, frame, None, f"no map in {self.path}", NO_MAP)
        cut = crop(frame)
        try:
            image = (frame.rgb.shape[0], frame.rgb.shape[1])
            if self.quantity.is_depth:
                values = far_is_farthest(self._values(file), self.quantity)
                fitted = fit_to(values, image, (cut.rgb.shape[0], cut.rgb.shape[1]))
            else:
                fitted = self._layer(file, image)
        except Exception as error:
            # Whatever one map raises is that map's failure.
            self.unreadable[file.relative_to(self.path).as_posix()] = reason(error)
            return Read(key, frame, None, reason(error), UNREADABLE_MAP)
        if self.quantity.is_depth and cut.depth is not None and fitted.shape == cut.depth.shape:
            self.seen[key] = look(fitted, cut.depth, self.quantity, cut.metric)
        return Read(key, cut, torch.from_numpy(fitted))

    def _layer(self, file: Path, image: tuple[int, int]) -> NDArray[np.float32]:
        """A layer (C, H, W) at the size of its image; one of other proportions as it is, which counts as wrong."""
        stored = layer_maps.read_layer(_content(file), file.name, self.quantity, dataset=self.dataset)
        judged = layer_maps.sound(stored * np.float32(self.scale), file.name, self.quantity)
        values = layer_maps.linear(judged) if self.gamma_coded else judged
        height, width = values.shape[1:]
        return layer_maps.resized(values, image, self.quantity) if _alike((height, width), image) else values

    def _values(self, file: Path) -> NDArray[np.float32]:
        data = _content(file)
        with np.errstate(over="ignore"):  # What float32 cannot hold becomes infinite, and is judged as such.
            return read_map(data, file.name, dataset=self.dataset).astype(np.float32) * np.float32(self.scale)


def far_is_farthest(values: NDArray[np.float32], quantity: Quantity) -> NDArray[np.float32]:
    """Depth in which infinitely far pixels, as programs mark the sky, are as far as the farthest of the others."""
    infinite = np.isposinf(values)
    if quantity.sign > 0 or not infinite.any() or not np.isfinite(values).any():
        return values
    return np.where(infinite, values[np.isfinite(values)].max(), values)


def fit_to(values: NDArray[np.float32], image: tuple[int, int], region: tuple[int, int]) -> NDArray[np.float32]:
    """A map (h, w) at the size of its image, and of that the bottom-centre region that is judged.

    A map that already has the region's size is taken for one of the region alone. One whose proportions are others
    comes back as it is, which counts as wrong.
    """
    if values.shape == region:
        return values
    height, width = values.shape
    if not _alike((height, width), image):
        return values
    if values.shape != image:
        tensor = torch.from_numpy(values)[None, None]
        values = torch.nn.functional.interpolate(tensor, image, mode="bilinear", align_corners=False)[0, 0].numpy()
    return np.ascontiguousarray(values[bottom_centre(*image, *region)])


def _alike(shape: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether two sizes (height, width) have the same proportions, but for rounding."""
    return 1 / PROPORTION <= (shape[1] / shape[0]) / (image[1] / image[0]) <= PROPORTION


def _content(file: Path) -> bytes:
    with open_regular(file) as opened:
        return read_bounded(opened, MAX_BYTES, file.name)


def find_maps(
    path: Path,
    quantity: Quantity,
    keys: Mapping[str, Iterable[str]],
    scale: float = 1.0,
    dataset: str | None = None,
    *,
    gamma_coded: bool = False,
) -> Folder:
    """The maps of a folder and the images they belong to.

    Args:
        path: the folder; folders below it are searched.
        quantity: what the values are.
        keys: data set → keys of its frames.
        scale: factor of the values, such as 0.001 for millimetres declared as metres.
        dataset: which array of files with several is the map.
        gamma_coded: whether the values are x^(1/2.2) of linear ones.

    Raises:
        MapsError: no folder, no map of any image, two maps of one image, a name that several images share, or a
            scale that is not above zero.
    """
    if not path.is_dir():
        raise MapsError(f"{path}: no such folder of maps")
    if not (0 < np.float32(scale) < np.inf):
        raise MapsError(f"--scale {scale:g}: must be a number above zero that float32 can hold")
    found, ends = Folder(path, quantity, scale, dataset, gamma_coded), _by_last_part(keys)
    endings = ENDINGS if quantity.is_depth else layer_maps.endings_of(quantity)
    names = [each for each in walk(path) if Path(each.name).suffix.lower() in SUFFIXES and not is_noise(each.name)]
    for each in names:
        meant = (_owners(parts, ends, keys) for parts in image_names(each.name, endings))
        owners = next((found_for for found_for in meant if found_for), [])
        if len(owners) > 1:
            raise MapsError(
                f"{path / each.name}: could be the map of {len(owners)} images ({', '.join(owners[:3])} …); "
                "put it into a folder named as the image's own"
            )
        if not owners:
            found.surplus.append(printable(each.name))
        elif each.problem or printable(each.name) != each.name:
            found.unreadable[printable(each.name)] = each.problem or "its name is not UTF-8; rename it"
        elif owners[0] in found.maps:
            raise MapsError(f"{path}: two maps of {owners[0]}: {found.maps[owners[0]].name} and {each.name}")
        else:
            found.maps[owners[0]] = path / each.name
    if not found.maps:
        example = next((key for each in keys.values() for key in each), "none")
        raise MapsError(
            f"{path}: none of its {len(names)} maps is named like an image of the benchmarks, such as {example}.png "
            f"(or .tif, .npy, .npz, .exr, .pfm); 'dav2 evaluate --images FOLDER' writes the images under their names"
        )
    return found


def _by_last_part(keys: Mapping[str, Iterable[str]]) -> dict[str, list[tuple[str, ...]]]:
    ends: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for each in keys.values():
        for key in each:
            parts = tuple(key.split("/"))
            ends[parts[-1]].append(parts)
    return ends


def _owners(
    name: tuple[str, ...], ends: dict[str, list[tuple[str, ...]]], sources: Mapping[str, Iterable[str]]
) -> list[str]:
    """Keys of the images whose map bears this name."""
    owners = []
    for key in ends.get(name[-1], ()):
        # A folder named as another data set says whose maps these are.
        if any(part in sources and part != key[0] for part in name[:-1]):
            continue
        bare, own = key[1:], name[1:] if name[0] == key[0] and len(name) > 1 else name
        if bare[-len(own) :] == own or own[-len(bare) :] == bare:
            owners.append("/".join(key))
    # "kitchen/0001" is that of "nyu/kitchen/0001" alone, even where another set has a "0001" without folders.
    longest = max((_shared(name, each) for each in owners), default=0)
    return [each for each in owners if _shared(name, each) == longest]


def _shared(name: tuple[str, ...], key: str) -> int:
    pairs = zip(reversed(name), reversed(key.split("/")), strict=False)
    count = 0
    for one, other in pairs:
        if one != other:
            break
        count += 1
    return count
