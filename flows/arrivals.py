"""New data start the rebuild, once: a look at the listings of all data sets, on a schedule (``infra/prefect.yaml``).

A look that finds another listing than the last rebuild saw waits for the next one: only what stays the same from one
look to the next is there as a whole. What a listing says is kept in :data:`SEEN`, written when the rebuild has ended,
well or not: a gate that fails is told once and not tried again on the same data, and a rebuild that was killed goes on
with the next look. Also: ``python -m flows.arrivals`` from a cron table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from prefect import flow
from prefect.logging import get_run_logger

from dav2.data import storage
from dav2.files import write_whole
from dav2.walk import walk
from flows import processes
from flows.processes import STATE
from flows.rebuild import rebuild
from flows.runtime import StageError, read_params, run_stage

SEEN = STATE / "arrivals.json"
Listings = dict[str, str]


def listing(path: str) -> str:
    """A digest of the names, sizes and times of all that lies at ``path``, local or ``s3://``; of nothing, ``""``.

    Raises:
        StorageError: the store does not answer.
        StageError: there is no such bucket, or it may not be read.
    """
    lines = sorted(_remote(path) if storage.is_remote(path) else _local(Path(path)))
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest() if lines else ""


def _local(path: Path) -> Iterator[str]:
    found = [path / each.name for each in walk(path) if not each.problem] if path.is_dir() else [path]
    for file in found:
        try:
            status = file.stat()
        except OSError:
            continue  # It went away meanwhile, and the next look will see another listing.
        yield f"{file} {status.st_size} {status.st_mtime_ns}"


def _remote(path: str) -> Iterator[str]:
    system = storage.filesystem(path)
    try:
        found = storage.retried(lambda: system.find(path, detail=True), f"listing {path}")
    except (FileNotFoundError, PermissionError) as error:
        raise StageError(f"{path} cannot be listed: {error}") from error
    for name, info in found.items():
        yield f"{name} {info['size']} {info.get('ETag') or info.get('LastModified') or ''}"


def look(now: Listings) -> list[str]:
    """Data sets that are new since the last rebuild and stayed the same since the last look; what was seen is kept."""
    seen = _seen()
    write_whole(SEEN, json.dumps({**seen, "looked": now}))
    if now != seen["looked"]:
        return []
    return [name for name, digest in now.items() if digest and digest != seen["built"].get(name)]


def built(now: Listings) -> None:
    """Keep that the rebuild for these listings has ended."""
    write_whole(SEEN, json.dumps({"looked": now, "built": now}))


def _seen() -> dict[str, Listings]:
    try:
        kept = json.loads(SEEN.read_text(encoding="utf-8"))
        return {"looked": dict(kept["looked"]), "built": dict(kept["built"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"looked": {}, "built": {}}  # Then all is new, and DVC says what of it is stale.


@flow(name="arrivals")
def arrivals(targets: list[str] | None = None, params_path: str = "params.yaml") -> list[str]:
    """Rebuild if there are new data; returns the data sets that were new.

    Args:
        targets: stages to rebuild with all they need; everything when left out.
        params_path: settings that name the data sets.
    """
    with processes.lock("arrivals"):
        now = {name: listing(each.path) for name, each in read_params(params_path).data_sets.items()}
        new = look(now)
        if not new:
            get_run_logger().info("nothing new, or not whole yet")
            return []
        get_run_logger().info(f"new data: {', '.join(new)}")
        try:
            rebuild(targets)
        except StageError as error:
            built(now)
            raise StageError(f"the rebuild for new data of {', '.join(new)} stopped: {error}") from error
        built(now)
        return new


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="stages to rebuild with all they need; everything when left out")
    run_stage(arrivals, targets=parser.parse_args().targets or None)
