"""The smallest tables, cameras, models and maps of strangers that were once taken wrongly or failed without a name."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from dav2 import families
from dav2.data.frame import FrameError
from dav2.data.raw.sources import SourceError, open_source
from dav2.data.raw.sources.cameras import read_camera
from dav2.evaluation.foreign import find_maps
from dav2.failures import foreseen, reason
from dav2.families.directory import WeightsError
from dav2.families.outside import take_in
from dav2.maps import Quantity
from dav2.params import OutsideParams
from tests.corpus.make import encoded

MAP = np.linspace(1, 9, 40 * 56, dtype=np.float32).reshape(40, 56)
NOT_UTF8 = b"caf\xe9.npy"


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def of_one_value(rows: int, image: str = "a.jpg") -> bytes:
    """A parquet table of a few kilobytes that has as many rows, or as long cells, as one likes."""
    codes = pa.array(np.zeros(rows, np.int8))
    return parquet(pa.table({n: pa.DictionaryArray.from_arrays(codes, [v]) for n, v in (("image", image), ("depth", "a.npy"))}))  # fmt: skip  # noqa: E501


TABLES: dict[str, tuple[bytes, str]] = {
    "twice": (b"image,depth,depth\na.jpg,a.npy,b.npy\n", "two columns 'depth'"),
    "twice but for case": (b"image,Depth,depth\na.jpg,a.npy,b.npy\n", "two columns 'depth'"),
    "without end": (of_one_value(6_000_000), "6000000 rows; a table may have 5000000"),
    "long cells": (of_one_value(2000, "x" * 100_000), "a cell of more than 4096 letters"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_could_mean_two_things_or_has_no_end_is_refused(tmp_path: Path, name: str) -> None:
    table, said = TABLES[name]
    for number in "ab":
        (tmp_path / f"{number}.jpg").write_bytes(encoded(0, "JPEG"))
        (tmp_path / f"{number}.npy").write_bytes(npy(MAP))
    (tmp_path / "list.csv").write_bytes(table)
    with pytest.raises(SourceError, match=re.escape(said)):
        open_source("pairs", tmp_path, "own", {"table": "list.csv"}).index()


@pytest.mark.parametrize("text", ['{"fx": 1%s, "fy": 1, "cx": 1, "cy": 1}' % ("0" * 400), "[1e999, 1, 1, 1]"])
def test_a_camera_of_numbers_beyond_all_is_named(text: str) -> None:
    with pytest.raises(FrameError, match=r"camera\.json"):
        read_camera(text.encode(), "camera.json")


def encoder(folder: Path, **tensors: torch.Tensor) -> OutsideParams:
    """A folder that says it is a DINOv3 encoder, with these tensors (``__`` stands for a dot)."""
    folder.mkdir()
    state = {"reg_token": torch.zeros(1, 4, 192)} | {k.replace("__", "."): v for k, v in tensors.items()}
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "dinov3_vit"}')
    return OutsideParams(encoder=str(folder))


@pytest.mark.parametrize(
    "tensors",
    [
        {"blocks__0__attn__qkv__weight": torch.tensor(1.0)},
        {"blocks__0__attn__qkv__bias": torch.tensor(1.0)},
        {f"layer__0__attention__{part}_proj__weight": torch.zeros(3, n) for n, part in enumerate("qkv", 3)},
        {"layer__0__mlp__gate_proj__weight": torch.zeros(3, 3), "layer__0__mlp__up_proj__weight": torch.zeros(4)},
        {"cls_token": torch.tensor(1.0), "mask_token": torch.zeros(5)},
        {"blocks__0__norm1__weight": torch.zeros(192), "layer__0__norm1__weight": torch.ones(192)},
    ],
    ids=["scalar", "scalar bias", "parts", "gate", "token", "two programs' names"],
)
def test_tensors_that_contradict_each_other_are_no_encoder(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"do not fit together|two tensors are"):
        take_in("stranger", encoder(tmp_path / "enc", **tensors), tmp_path)


def elsewhere() -> TensorProto:
    """A tensor whose values lie in the file ``secret`` of wherever the process runs."""
    tensor = TensorProto(name="c", data_type=TensorProto.UINT8, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="secret")
    return tensor


def network(path: Path, spare: list[onnx.NodeProto], shape: tuple[Any, ...] = ("b", 3, "h", "w")) -> OutsideParams:
    """A network that gives the mean colour, plus the scalar that the last of ``spare`` makes."""
    nodes = [*spare, helper.make_node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=1)]
    nodes.append(helper.make_node("Add", ["m", "s"] if spare else ["m", "m"], ["y"]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return OutsideParams(onnx=str(path), quantity="disparity", size=28 if "h" in shape else None)


def of_constant() -> list[onnx.NodeProto]:
    return [
        helper.make_node("Constant", [], ["c"], value=elsewhere()),
        helper.make_node("Cast", ["c"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["s"], keepdims=0),
    ]


def of_branch() -> list[onnx.NodeProto]:
    def branch(name: str, nodes: list[onnx.NodeProto], own: list[TensorProto]) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("s", TensorProto.FLOAT, [])], own)

    zero = helper.make_node("Constant", [], ["s"], value=numpy_helper.from_array(np.float32(0)))
    yes = numpy_helper.from_array(np.array(True))
    branches = {"then_branch": branch("a", of_constant()[1:], [elsewhere()]), "else_branch": branch("b", [zero], [])}
    return [helper.make_node("Constant", [], ["t"], value=yes), helper.make_node("If", ["t"], ["s"], **branches)]


@pytest.mark.parametrize("spare", [of_constant, of_branch])
def test_a_network_reads_no_file_of_this_machine_wherever_it_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spare: Callable[[], list[onnx.NodeProto]]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_bytes(b"abcd")
    with pytest.raises(WeightsError, match="keeps weights in other files"):
        take_in("stranger", network(tmp_path / "net.onnx", spare()), tmp_path)


def test_a_network_that_takes_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="in which nothing has room"):
        take_in("stranger", network(tmp_path / "net.onnx", [], (1, 3, 0, 0)), tmp_path)


@pytest.mark.parametrize("change", [{"size": float("inf")}, {"std": [float("nan")] * 3}, {"multiple": 10**400}])
def test_how_a_network_is_used_is_said_in_finite_numbers(tmp_path: Path, change: dict[str, Any]) -> None:
    take_in("stranger", network(tmp_path / "net.onnx", []), tmp_path)
    file = tmp_path / "artifacts/outside/stranger/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(WeightsError, match=r"config\.json"):
        families.get("onnx").load(file.parent)


def maps(folder: Path, quantity: str = "disparity") -> OutsideParams:
    folder.mkdir(exist_ok=True)
    (folder / "one.npy").write_bytes(npy(MAP))
    return OutsideParams.model_validate({"maps": str(folder), "quantity": quantity})


SPOILS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (lambda folder: os.mkfifo(folder / "two.npy"), "is a named pipe"),
    "link to nothing": (lambda folder: (folder / "two.npy").symlink_to("gone"), "link to something that is not there"),
    "endless": (lambda folder: (folder / "two.npy").symlink_to("/dev/zero"), "is a device"),
    "not UTF-8": (lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/" + NOT_UTF8)).touch(), "is not UTF-8"),
    "too large": (lambda folder: os.truncate(_touched(folder / "two.npy"), 2**30), "1073741824 bytes"),
}


def _touched(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.parametrize("name", SPOILS)
def test_what_is_named_like_a_map_and_is_none_is_told_and_not_dropped(tmp_path: Path, name: str) -> None:
    spoil, said = SPOILS[name]
    settings = maps(tmp_path / "maps")
    spoil(tmp_path / "maps")
    with pytest.raises(WeightsError, match=said) as caught:
        take_in("stranger", settings, tmp_path)
    assert str(caught.value).encode() and foreseen(caught.value)


def test_a_companion_of_a_file_manager_is_no_map(tmp_path: Path) -> None:
    settings = maps(tmp_path / "maps")
    (tmp_path / "maps/._one.npy").write_bytes(b"\0\5\x16\7")
    take_in("stranger", settings, tmp_path)
    assert set(families.get("maps").load(tmp_path / "artifacts/outside/stranger").files) == {"one"}


def test_a_listed_map_lies_in_its_folder(tmp_path: Path) -> None:
    take_in("stranger", maps(tmp_path / "maps"), tmp_path)
    (tmp_path / "secret.npy").write_bytes(npy(MAP))
    file = tmp_path / "artifacts/outside/stranger/config.json"
    document = json.loads(file.read_text())
    digest = hashlib.sha256((tmp_path / "secret.npy").read_bytes()).hexdigest()
    for path in ("../secret.npy", str(tmp_path / "secret.npy")):
        file.write_text(json.dumps({**document, "files": {"one": [path, digest]}}))
        with pytest.raises(WeightsError, match="cannot be a path below a folder"):
            families.get("maps").load(file.parent)


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_metres_that_are_none_are_gaps_and_not_the_nearest_of_all(tmp_path: Path, value: float) -> None:
    settings = maps(tmp_path / "maps", "metres")
    (tmp_path / "maps/one.npy").write_bytes(npy(np.full((4, 4), value, np.float32)))
    take_in("stranger", settings, tmp_path)
    with pytest.raises(FrameError, match="16 pixels without a number that a label could take"):
        families.get("maps").load(tmp_path / "artifacts/outside/stranger").read("photos/one")


def test_a_map_to_be_judged_whose_name_is_not_utf8_is_named_by_what_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "one.npy").write_bytes(npy(MAP))
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + NOT_UTF8)).write_bytes(b"x")
    keys = {"nyu": ["nyu/room/one", "nyu/room/caf_"]}
    folder = find_maps(tmp_path, Quantity.DISPARITY, keys)
    assert "".join([*folder.unreadable, *folder.surplus]).encode() and folder.digest()


def test_what_no_file_can_hold_is_no_part_of_a_reason() -> None:
    assert reason(ValueError("caf\udce9")).encode() == b"caf?"
