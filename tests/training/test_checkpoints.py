"""A checkpoint is whole or absent, whenever the process dies and whatever the disk does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from dav2.params import CheckpointParams
from dav2.training import checkpoints
from dav2.training.checkpoints import CheckpointError


def write(directory: Path, step: int, content: bytes = b"weights") -> Path:
    temporary = checkpoints.begin(directory, step)
    for name in checkpoints.MODEL:
        (temporary / name).write_bytes(content + str(step).encode())
    (temporary / "engine").mkdir()
    (temporary / "engine" / "state.pt").write_bytes(os.urandom(4096))
    return checkpoints.commit(temporary, {"step": step})


def steps(directory: Path) -> list[int]:
    return [checkpoints.step_of(folder) for folder in checkpoints.list_checkpoints(directory)]


def test_a_written_checkpoint_verifies_and_is_the_newest(tmp_path: Path) -> None:
    write(tmp_path, 2)
    folder = write(tmp_path, 10)
    assert checkpoints.newest(tmp_path) == folder
    assert checkpoints.problem(folder) is None
    assert checkpoints.read_state(folder) == {"step": 10}
    assert (tmp_path / "latest").read_text() == "step-000010\n"


def test_steps_are_ordered_as_numbers(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 5):
        write(tmp_path, step)
    assert steps(tmp_path) == [5, 999_999, 1_000_000]


@pytest.mark.parametrize("damage", ["missing file", "changed byte", "cut off", "no manifest", "bad manifest"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    good, bad = write(tmp_path, 1), write(tmp_path, 2)
    state = bad / "engine" / "state.pt"
    match damage:
        case "missing file":
            state.unlink()
        case "changed byte":
            state.write_bytes(b"x" + state.read_bytes()[1:])
        case "cut off":
            state.write_bytes(state.read_bytes()[:-1])
        case "no manifest":
            (bad / "manifest.json").unlink()
        case "bad manifest":
            (bad / "manifest.json").write_text("{")
    assert checkpoints.problem(bad) is not None
    assert checkpoints.newest(tmp_path) == good


def test_a_kill_at_any_system_call_leaves_a_whole_newest_checkpoint(tmp_path: Path) -> None:
    """A child dies at its n-th sync, rename or removal, for every n until it gets through."""
    outcomes = []
    for n in range(200):
        directory = tmp_path / str(n)
        write(directory, 1)
        write(directory, 2)
        child = os.fork()
        if child == 0:
            _die_at_call(n)
            write(directory, 2, b"again")
            checkpoints.prune(directory, CheckpointParams(keep_last=1), best=None)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        newest = checkpoints.newest(directory)
        assert newest is not None, f"nothing whole is left after a kill at call {n}"
        outcomes.append(checkpoints.step_of(newest))
        checkpoints.clean(directory)
        assert not list(directory.glob("*.tmp"))
        shutil.rmtree(directory)
        if os.waitstatus_to_exitcode(status) == 0:
            break
    assert len(outcomes) > 15 and outcomes[-1] == 2


def _die_at_call(n: int) -> None:
    left = n

    def counted(function):  # type: ignore[no-untyped-def]
        def wrapper(*args, **kwargs):  # type: ignore[no-untyped-def]
            nonlocal left
            if left == 0:
                os._exit(9)
            left -= 1
            return function(*args, **kwargs)

        return wrapper

    for name in ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir"):
        setattr(os, name, counted(getattr(os, name)))


def test_the_newest_the_best_and_every_nth_are_kept(tmp_path: Path) -> None:
    for step in range(1, 9):
        write(tmp_path, step)
        checkpoints.prune(tmp_path, CheckpointParams(keep_last=2, keep_every=4), best=3 if step >= 3 else step)
    assert steps(tmp_path) == [3, 4, 7, 8]


def test_a_failed_write_leaves_nothing_behind_and_says_why(tmp_path: Path) -> None:
    good = write(tmp_path, 1)
    temporary = checkpoints.begin(tmp_path, 2)

    def overflow(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"the other half")

    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoints.write_with(temporary, [overflow])
    assert steps(tmp_path) == [1] and not temporary.exists()
    assert checkpoints.newest(tmp_path) == good


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(checkpoints.NoSpaceError, match=r"needs 1000000000000000 MB .*keep_last"):
        checkpoints.require_space(tmp_path, 10**21)


def test_an_exported_model_is_the_checkpoints_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, 7)
    checkpoints.export_model(folder, tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted(checkpoints.MODEL)
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not match"):
        checkpoints.export_model(folder, tmp_path / "second")
    with pytest.raises(CheckpointError, match="step-000100"):
        checkpoints.export_model(tmp_path / "model", tmp_path / "third")


def test_the_manifest_covers_every_file(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    listed = set(json.loads((folder / "manifest.json").read_text())["files"])
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there - listed == {"manifest.json"}
