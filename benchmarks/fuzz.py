"""Damaged and invented input for readers, archives, settings and model directories, for as long as one likes.

``python -m benchmarks.fuzz --seconds 60 [--least 1000] [--only images,exr]`` draws examples with Hypothesis: sound
files that are cut, overwritten, repeated and spliced, and documents of the right shape with wrong values. Each must be
taken, or refused by an error that explains itself. What raises another error, or takes longer than ``PATIENCE``
seconds, is written to ``--out`` and named; the exit code is then 1.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import h5py
import numpy as np
import torch
import typer
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from safetensors.torch import save as packed_tensors

from benchmarks import fuzz_targets
from dav2.data.images import decode
from dav2.data.raw.sources import formats
from dav2.data.raw.sources.da2k import DA2K
from dav2.data.raw.tree import Tree
from dav2.failures import foreseen
from dav2.families.depth_anything.foreign import load_official
from dav2.families.depth_anything.model import build
from dav2.families.depth_anything.weights import load_directory, save_directory
from dav2.params import load as load_params

PATIENCE = 20
"""Seconds after which an example counts as one that never ends."""
ROUND = 100
"""Examples between two looks at the clock."""
NOISE = np.random.default_rng(0).integers(0, 255, (24, 40, 3), dtype=np.uint8)


class TooLong(BaseException):
    """An example that was given up."""


@dataclass
class Result:
    """What one target did: examples, how many were taken, and what went wrong, by error."""

    examples: int = 0
    taken: int = 0
    faults: dict[str, bytes] = field(default_factory=dict)


def image_files() -> list[bytes]:
    """A sound file of each format."""
    kinds = ["JPEG", "PNG", "GIF", "TIFF", "BMP", "PPM", "WEBP", "AVIF", "JPEG2000"]
    found = []
    for kind in kinds:
        buffer = io.BytesIO()
        Image.fromarray(NOISE).save(buffer, kind)
        found.append(buffer.getvalue())
    return found


def depth_files() -> list[tuple[str, bytes]]:
    """(suffix, content) of a sound depth file of each encoding."""
    depth = np.linspace(1, 9, 24 * 40, dtype=np.float32).reshape(24, 40)
    npy, png, hdf = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(npy, depth)
    Image.fromarray((depth * 1000).astype(np.uint16)).save(png, "PNG")
    with h5py.File(hdf, "w") as file:
        file.create_dataset("dataset", data=depth, chunks=(8, 8), compression="gzip")
    return [
        (".npy", npy.getvalue()),
        (".png", png.getvalue()),
        (".hdf5", hdf.getvalue()),
        (".pfm", b"Pf\n40 24\n-1.0\n" + depth.tobytes()),
        (".dpt", np.float32(202021.25).tobytes() + np.array([40, 24], np.int32).tobytes() + depth.tobytes()),
    ]


def read_depth(suffix: str, data: bytes) -> None:
    """Read a depth file by its suffix."""
    readers: dict[str, Callable[[bytes, str], Any]] = {
        ".npy": formats.read_npy,
        ".png": formats.read_png16,
        ".hdf5": formats.read_hdf5,
        ".pfm": formats.read_pfm,
        ".dpt": formats.read_dpt,
    }
    readers[suffix](data, f"x{suffix}")


def archive_files() -> list[tuple[str, bytes]]:
    """(suffix, content) of sound archives."""
    found = []
    for suffix, mode in ((".tar", "w"), (".tar.gz", "w:gz"), (".tar.bz2", "w:bz2"), (".tar.xz", "w:xz")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            for name in ("a/1.jpg", "a/" + "long" * 40 + ".jpg"):
                info = tarfile.TarInfo(name)
                info.size, info.pax_headers = 600, {"comment": "x"}
                archive.addfile(info, io.BytesIO(bytes(600)))
        found.append((suffix, buffer.getvalue()))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/1.jpg", bytes(600))
    return [*found, (".zip", packed.getvalue())]


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """``sound`` after a few cuts, overwritten places and repeated pieces."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        at = draw(st.integers(0, len(data) - 1))
        kind = draw(st.sampled_from(["byte", "word", "cut", "repeat", "insert"]))
        if kind == "byte":
            data[at] = draw(st.integers(0, 255))
        elif kind == "word":
            word = draw(st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0"]))
            data[at : at + 4] = word
        elif kind == "cut":
            del data[at : at + draw(st.integers(1, len(data)))]
        elif kind == "repeat":
            data[at:at] = data[at : at + 64]
        else:
            data[at:at] = draw(st.binary(max_size=32))
    return bytes(data)


def wild_values() -> st.SearchStrategy[Any]:
    """JSON values of every kind and extent."""
    numbers = st.one_of(st.integers(), st.floats(), st.just(10**400), st.booleans(), st.none())
    words = st.one_of(
        st.text(max_size=12), st.sampled_from(["../x", "a; b", "${x}", "vitn", "/etc/hostname", "a" * 300])
    )
    return st.recursive(
        st.one_of(numbers, words),
        lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
        max_leaves=6,
    )


def changed(document: Any) -> st.SearchStrategy[Any]:
    """``document`` with one value replaced, anywhere in it."""

    wild = wild_values()

    @st.composite
    def change(draw: st.DrawFn) -> Any:
        copy = json.loads(json.dumps(document))
        place = copy
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys))
            deeper = isinstance(place[key], dict | list) and len(place[key]) > 0
            if not deeper or draw(st.booleans()):
                place[key] = draw(wild)
                return copy
            place = place[key]

    return change()


def targets(folder: Path) -> dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], object]]]:
    """Name → what is drawn, and what is done with it."""
    torch.manual_seed(0)
    model = save_directory(build("vitn"), folder / "model")
    config = json.loads((model / "config.json").read_text())
    weights = packed_tensors({"encoder.cls_token": torch.zeros(1, 1, 128)})
    buffer = io.BytesIO()
    torch.save({"pretrained.pos_embed": torch.zeros(1, 5, 128)}, buffer)
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    pairs = {"images/a/b.jpg": [{"point1": [1, 2], "point2": [3, 4], "closer_point": "point1"}]}

    def file(name: str, data: bytes) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def archive(drawn: tuple[str, bytes]) -> None:
        tree = Tree(file(f"archives/a{drawn[0]}", drawn[1]).parent)
        for name in tree.names()[:5]:
            tree.read(name)
        file(f"archives/a{drawn[0]}", b"").unlink()

    def annotations(document: Any) -> None:
        file("da2k/annotations.json", json.dumps(document).encode())
        DA2K(str(folder / "da2k"), "da2k", {}).index()

    def of(sounds: list[tuple[str, bytes]]) -> st.SearchStrategy[tuple[str, bytes]]:
        return st.sampled_from(sounds).flatmap(lambda pair: damaged(pair[1]).map(lambda data: (pair[0], data)))

    kinds, tried = fuzz_targets.sounds(folder, weights), fuzz_targets.actions(file)
    return {
        **{name: (st.sampled_from(kinds[name]).flatmap(damaged), action) for name, action in tried.items()},
        "images": (
            st.sampled_from(image_files()).flatmap(damaged),
            lambda d: decode(d, "x", max_pixels=10**6),
        ),
        "depth": (of(depth_files()), lambda d: read_depth(*d)),
        "archives": (of(archive_files()), archive),
        "annotations": (changed(pairs), annotations),
        "params": (
            changed(params),
            lambda d: load_params(file("params.yaml", yaml.dump(d, Dumper=dumper).encode())),
        ),
        "params-text": (
            damaged(Path("params.yaml").read_bytes()),
            lambda d: load_params(file("params.yaml", d)),
        ),
        "model-config": (
            changed(config),
            lambda d: load_directory(file("model/config.json", json.dumps(d).encode()).parent),
        ),
        "model-weights": (
            damaged(weights),
            lambda d: load_directory(file("broken/model.safetensors", d).parent),
        ),
        "pth": (damaged(buffer.getvalue()), lambda d: load_official(file("a.pth", d))),
    }


@contextmanager
def patience() -> Iterator[None]:
    """Give an example up after :data:`PATIENCE` seconds."""

    def stop(*_: object) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(strategy: st.SearchStrategy[Any], action: Callable[[Any], object], seconds: float, least: int) -> Result:
    """Draw and try until the time is over and ``least`` examples were tried."""
    result, end, number = Result(), time.monotonic() + seconds, 0

    def attempt(drawn: Any) -> None:
        result.examples += 1
        try:
            with patience():
                action(drawn)
            result.taken += 1
        except (Exception, TooLong) as error:
            if isinstance(error, TooLong) or not foreseen(error):
                text = f"{type(error).__name__} in {_place(error)}: {str(error)[:120]}"
                if any(known.split(": ")[0] == text.split(": ")[0] for known in result.faults):
                    return
                content = drawn[1] if isinstance(drawn, tuple) else drawn
                result.faults.setdefault(text, content if isinstance(content, bytes) else repr(content).encode())

    while time.monotonic() < end or result.examples < least:
        number += 1
        options = settings(
            max_examples=ROUND,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        seeded(number)(options(given(strategy)(attempt)))()
    return result


def _place(error: BaseException) -> str:
    """The innermost line of ours that an error came through; faults are told apart by it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/dav2/" in frame.filename] or list(frames)
    return f"{Path(ours[-1].filename).name}, line {ours[-1].lineno}"


def main(
    seconds: Annotated[float, typer.Option(help="Time for each kind of input.")] = 20.0,
    least: Annotated[int, typer.Option(help="Examples of each kind, however long they take.")] = 0,
    only: Annotated[str | None, typer.Option(help="Some kinds, with commas between.")] = None,
    out: Annotated[Path, typer.Option(help="Where inputs that showed a fault are kept.")] = Path("fuzz"),
) -> None:
    """Fuzz every kind of input in turn."""
    warnings.simplefilter("ignore")
    console, wrong = Console(), 0
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["DAV2_CACHE"] = f"{temporary}/cache"
        (Path(temporary) / "broken").mkdir()
        chosen = targets(Path(temporary))
        (Path(temporary) / "broken/config.json").write_bytes((Path(temporary) / "model/config.json").read_bytes())
        for name, (strategy, action) in chosen.items():
            if only is not None and name not in only.split(","):
                continue
            result = fuzz(strategy, action, seconds, least)
            wrong += len(result.faults)
            refused = result.examples - result.taken
            console.print(f"{name}: {result.examples} tried, {result.taken} taken, {refused} refused", highlight=False)
            for number, (text, data) in enumerate(result.faults.items()):
                out.mkdir(parents=True, exist_ok=True)
                (out / f"{name}-{number}").write_bytes(data)
                console.print(f"  fault: {text} ({out / f'{name}-{number}'})", markup=False, highlight=False)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
