"""What ``dav2 doctor`` says: this machine, what will be used of it, and what stands in the way of which command.

Every check looks at one thing and says so in a line. One that fails in a way nobody foresaw is a line of its own; the
others go on.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from dav2 import limits, machine
from dav2.extras import EXTRAS

MEMORY, DISK = 3 << 30, 3 << 30
"""Bytes that ``make repro`` needs with some room: it takes 2 GB of memory and leaves 1 GB of files."""
PORTS = {"Prefect": 4200, "MLflow": 5000}
SHOWN = ("torch", "deepspeed", "timm", "dvc", "prefect", "mlflow", "great-expectations", "ray")
REPRO = ("train", "pipeline")
"""Extras without which ``make repro`` cannot work."""
Weight = Literal["ok", "note", "stop"]


@dataclass(frozen=True)
class Line:
    """One finding.

    Attributes:
        part: heading it stands under.
        name: what was looked at.
        text: what was found.
        weight: ``stop`` where ``make repro`` cannot work, ``note`` where something is worth knowing.
        mend: the command or step that mends it.
    """

    part: str
    name: str
    text: str
    weight: Weight = "ok"
    mend: str = ""


def examine(root: Path) -> list[Line]:
    """Look at everything; ``root`` is the project's folder."""
    checks: list[tuple[str, Callable[[Path], Iterator[Line]]]] = [
        ("Machine", _machine),
        ("Used here", _used),
        ("Packages", _packages),
        ("Project", _project),
        ("Servers", _servers),
    ]
    lines: list[Line] = []
    for part, check in checks:
        try:
            lines += check(root)
        except Exception as error:
            # A check must not take the others down, whatever this machine is like.
            lines.append(Line(part, "check", f"failed: {type(error).__name__}: {error}", "note"))
    return lines


def _machine(root: Path) -> Iterator[Line]:
    seen, rates = machine.look(), machine.rates()
    features = ", ".join(seen.features) or "none of AVX2, AVX-512, AMX"
    slow = "" if "avx2" in seen.features and seen.kernels != "DEFAULT" else "no AVX2: several times slower"
    yield Line("Machine", "processor", seen.processor)
    yield Line("Machine", "features", f"{features}; PyTorch's kernels: {seen.kernels}", "note" if slow else "ok", slow)
    factor = f"{rates.factor:.1f} times" if rates.factor >= 1 else f"1/{1 / rates.factor:.0f} of"
    yield Line("Machine", "rates", f"float32 {rates.fp32:.0f}, bf16 {rates.bf16:.1f} GFLOP/s: {factor} float32's")
    yield Line("Machine", "cores", f"{seen.cores} that this process may use")
    yield _enough("memory", seen.memory, MEMORY, "close other programs, or use a larger machine")
    yield _enough("disk", limits.disk_free(root), DISK, "make room", " free here")
    if seen.gpu is None:
        yield Line("Machine", "GPU", f"none: {seen.no_gpu}")
    else:
        many = f"{seen.gpu.count} × " if seen.gpu.count > 1 else ""
        size = f"{seen.gpu.memory / 2**30:.0f} GiB, compute capability {seen.gpu.capability}"
        yield Line("Machine", "GPU", f"{many}{seen.gpu.name}, {size}")


def _enough(name: str, found: int, needed: int, mend: str, where: str = "") -> Line:
    text = f"{found / 2**30:.1f} GiB{where}"
    if found >= needed:
        return Line("Machine", name, text)
    return Line("Machine", name, f"{text}; make repro needs {needed / 2**30:.0f}", "stop", mend)


def _used(root: Path) -> Iterator[Line]:
    device = machine.device()
    yield Line("Used here", "device", str(device))
    yield Line("Used here", "precision", f"auto is {machine.precision('auto', device)}")
    path = root / "params.yaml"
    if not path.exists():
        return
    from dav2.params import ParamsError, load

    try:
        params = load(path)
    except ParamsError as error:
        first, *more = str(error).splitlines()
        yield Line("Used here", "params.yaml", first + (f" (and {len(more)} more)" if more else ""), "stop", "mend it")
        return
    compute = params.compute
    yield Line("Used here", "params.yaml", f"scale {params.scale}, {compute.world_size} rank(s), {compute.launcher}")
    warning = machine.precision(compute.precision, device).warning
    yield Line(
        "Used here", "training", f"precision {compute.precision}; {warning}" if warning
        else f"precision {compute.precision}", "note" if warning else "ok"
    )  # fmt: skip
    labels = params.pseudo_label
    workers = labels.workers if labels.runner == "process_pool" and labels.workers != "auto" else 1
    together = 0 if labels.threads == "auto" else labels.threads * workers
    asked = {"training": compute.threads * compute.world_size, "labelling": 0 if labels.runner == "ray" else together}
    for name, threads in asked.items():
        if (compute.launcher == "local" or name == "labelling") and threads > limits.cores():
            text = f"{threads} asked for, {limits.cores()} cores: {limits.cores()} are used"
            yield Line("Used here", f"{name} threads", text, "note")


def _packages(root: Path) -> Iterator[Line]:
    yield Line("Packages", "dav2", f"{_version('dav2')}{_commit(root)}, Python {sys.version.split()[0]}")
    listed = ", ".join(f"{name} {_version(name)}" for name in SHOWN)
    yield Line("Packages", "versions", listed)
    wrong, missing = _requirements()
    if wrong:
        yield Line("Packages", "do not fit", "; ".join(wrong), "stop", "make .venv/installed")
    for extra, names in missing.items():
        weight: Weight = "stop" if extra in REPRO else "note"
        text = f"missing: {', '.join(names)}"
        yield Line("Packages", f"for {EXTRAS[extra]}", text, weight, f"pip install 'dav2[{extra}]'")


def _requirements() -> tuple[list[str], dict[str, list[str]]]:
    """Required packages that are missing or of another version, and by extra the packages that are missing."""
    wrong: list[str] = []
    missing: dict[str, list[str]] = {}
    for text in metadata.requires("dav2") or []:
        need = Requirement(text)
        found = _version(need.name)
        if need.name == "dav2":
            continue  # An extra that holds others.
        extras = [each for each in EXTRAS if need.marker and need.marker.evaluate({"extra": each})]
        needed = need.marker is None or need.marker.evaluate({"extra": ""})
        if found == "missing" and not needed:
            for extra in extras:
                missing.setdefault(extra, []).append(need.name)
        elif found == "missing" or (
            (needed or set(extras) & set(REPRO)) and not need.specifier.contains(found, prereleases=True)
        ):
            wrong.append(f"{need.name} {found}, needed {need.specifier or 'any'}")
    return wrong, missing


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _commit(root: Path) -> str:
    from dav2.code_state import git_state

    state = git_state(root)
    return f" at {state['commit'][:12]}{', changed' if state['dirty'] else ''}" if "commit" in state else ""


def _project(root: Path) -> Iterator[Line]:
    for tool in ("git", "make"):
        if shutil.which(tool) is None:
            yield Line("Project", tool, "not installed", "stop", f"install {tool}")
    if not (root / "dvc.yaml").exists():
        yield Line("Project", "folder", "no dvc.yaml: this is no dav2 project", "stop", "cd into a clone of dav2")
        return
    inside = subprocess.run(["git", "rev-parse", "--git-dir"], cwd=root, capture_output=True).returncode == 0
    yield Line("Project", "git", "a repository" if inside else "no repository, and DVC needs one",
               "ok" if inside else "stop", "" if inside else "git init && git add . && git commit")  # fmt: skip
    there, whole = _files(root)
    if there and there >= whole:
        yield Line("Project", "data", f"pulled, {there} files")
    elif there:
        yield Line("Project", "data", f"{there} of {whole} files", "note", "dvc pull data.dvc (make repro does it)")
    elif (root / "infra/sample-remote").is_dir():
        yield Line("Project", "data", "not pulled yet", "note", "dvc pull data.dvc (make repro does it)")
    else:
        yield Line("Project", "data", "neither data/ nor infra/sample-remote/ is there", "stop", "clone dav2 again")
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        yield Line("Project", "browser", "none; the page tests of make test need one", "note", "install chromium")


def _files(root: Path) -> tuple[int, int]:
    """Files below ``data``, and how many ``data.dvc`` says there are."""
    there = sum(path.is_file() for path in (root / "data").rglob("*")) if (root / "data").is_dir() else 0
    found = re.search(r"nfiles: (\d+)", (root / "data.dvc").read_text()) if (root / "data.dvc").exists() else None
    return there, int(found[1]) if found else 0


def _servers(root: Path) -> Iterator[Line]:
    running = _running(root)
    for name, port in PORTS.items():
        here = running.get(name.lower(), "not running")
        variable = "PREFECT_API_URL" if name == "Prefect" else "MLFLOW_TRACKING_URI"
        given = os.environ.get(variable, "")
        if given.startswith(("http://", "https://")):
            answers = _answers(f"{given.rstrip('/')}/health")
            text = f"{variable} = {given}, {'which answers' if answers else f'where no {name} server answers'}"
            yield Line(
                "Servers", name, text, "ok" if answers else "stop", "" if answers else f"start it or unset {variable}"
            )
            continue
        if here == "not running" and _taken(port):
            here += f"; port {port} is another program's, so the next free one will be taken"
        elif here == "not running":
            here += f"; port {port} is free"
        yield Line("Servers", name, here)


def _running(root: Path) -> dict[str, str]:
    """Server → address, of those that this project's folder started."""
    if not (root / "flows" / "servers.py").exists():
        return {}
    done = subprocess.run([sys.executable, "-m", "flows.servers", "status"], cwd=root, capture_output=True, text=True)
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 2 and row[1] != "not running"}


def _answers(health: str) -> bool:
    """Whether a server answers at the address by which its kind says that it is well."""
    try:
        with urllib.request.urlopen(health, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, ValueError):
        return False


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
