"""Time of a data gate on a large manifest, in one process.

Protocol: a manifest of ROWS sound rows is written once, then the gate (expectations, Data Docs, result file) runs on
it REPEATS times after one import of Great Expectations; reading the manifest alone is timed in between, as the least
that any check of it must cost. Run: python benchmarks/quality.py [--rows 1000000]
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dav2.data.store.manifest import read_manifest, write_manifest, write_quarantine
from dav2.params import Params, load
from dav2.quality import checkpoint, validate

REPEATS = 2
BATCH = 50_000


def rows(count: int, source: str) -> Iterator[list[dict[str, Any]]]:
    """Manifest rows of a labelled source, all of them sound."""
    for start in range(0, count, BATCH):
        yield [row(index, source) for index in range(start, min(start + BATCH, count))]


def row(index: int, source: str) -> dict[str, Any]:
    digest = hashlib.sha256(f"{source}{index}".encode()).hexdigest()
    return {
        "key": f"{source}/scene_{index // 100}/{index:07d}", "source": source, "group": "synthetic",
        "scene": f"scene_{index // 100}", "split": "train", "shard": f"train-{index // 1000:06d}.tar",
        "offset_image": 512, "size_image": 1000, "ext_image": "jpg", "offset_depth": 2048, "size_depth": 1000,
        "offset_json": 4096, "size_json": 100, "width": 1024, "height": 768, "metric": True,
        "fx": 886.8, "fy": 886.8, "cx": 512.0, "cy": 384.0, "sha256": digest, "pixel_sha256": digest,
        "depth_min": 0.5, "depth_median": 3.0 + index % 7, "depth_max": 20.0, "valid": 0.99, "sky": 0.01,
        "brightness": 100.0 + index % 50, "contrast": 40.0, "sharpness": 100.0, "licence": "CC-BY-SA-3.0",
    }  # fmt: skip


def project(root: Path, count: int, params: Params) -> None:
    """Every synthetic source with its share of ``count`` rows."""
    names = params.group("synthetic")
    for name in names:
        write_manifest(root / params.shards(name), rows(count // len(names), name), {})
        write_quarantine(root / params.shards(name), [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    count = parser.parse_args().rows
    print(__doc__)
    params = load()
    started = time.perf_counter()
    checkpoint.import_great_expectations()
    print(f"import of Great Expectations   {time.perf_counter() - started:7.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        project(root, count, params)
        for _ in range(REPEATS):
            started = time.perf_counter()
            for name in params.group("synthetic"):
                read_manifest(root / params.shards(name))
            read = time.perf_counter() - started
            started = time.perf_counter()
            result = validate("synthetic", root, params, root / "quality")
            gate = time.perf_counter() - started
            verdict = "passed" if result.passed else "FAILED"
            print(
                f"{result.counts['frames']:,} rows, {result.counts['expectations']} expectations, {verdict}: "
                f"{gate:.1f} s; reading alone {read:.1f} s"
            )


if __name__ == "__main__":
    main()
