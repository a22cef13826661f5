"""A project in which stages are started, hurt and run again."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import psutil
import yaml

from benchmarks import chaos_state
from benchmarks.chaos_state import KEPT, State

ROOT = Path(__file__).parents[1]
Route = Literal["dvc", "command"]
ROUTES: tuple[Route, ...] = ("dvc", "command")
TROUBLES = ("all", "stage", "clock", "read-only", "removed")
CLOCK = Path(__file__).with_name("chaos_clock.c")
DAY = 86_400
# Root may write anywhere; without these two rights a folder that is read-only is so for it too.
HUMBLE = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-dac_override,-dac_read_search"]


def compiler() -> str | None:
    """What can make the library that moves a process's time of day, or ``None``."""
    return shutil.which("cc") or shutil.which("gcc")


def available(trouble: str) -> bool:
    """Whether this machine can make a trouble; says so where it cannot.

    Raises:
        SystemExit: there is no such trouble.
    """
    if trouble not in TROUBLES:
        sys.exit(f"no trouble '{trouble}'; there are: {', '.join(TROUBLES)}")
    if trouble == "clock" and compiler() is None:
        print("left out: clock (there is no C compiler to make it with)", file=sys.stderr)
        return False
    if trouble == "read-only" and os.geteuid() == 0 and shutil.which("setpriv") is None:
        print("left out: read-only (root writes anywhere, and setpriv is not installed)", file=sys.stderr)
        return False
    return True


class Running:
    """A stage that was started, and the process that does its work."""

    def __init__(self, stage: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.stage, self.process, self._log = stage, process, log
        self.own = self._find()
        self.began = self.own.create_time() if self.own else time.time()
        self._command = self.own.cmdline() if self.own else []

    def _find(self) -> psutil.Process | None:
        """The process of ``python -m flows.…`` below the one that was started."""
        while self.process.poll() is None:
            with contextlib.suppress(psutil.Error):
                top = psutil.Process(self.process.pid)
                for each in (top, *top.children(recursive=True)):
                    words = each.cmdline()
                    if words[1:2] == ["-m"] and words[2].startswith("flows."):
                        return each
            time.sleep(0.01)
        return None

    def own_command(self) -> list[str]:
        """What DVC, or the caller, runs for the stage."""
        return self._command

    def sleep_until(self, moment: float) -> bool:
        """Wait for a moment, in seconds since the stage began; whether it is still at work."""
        while self.own is not None and self.own.is_running() and self.own.status() != psutil.STATUS_ZOMBIE:
            left = self.began + moment - time.time()
            if left <= 0:
                return True
            time.sleep(min(left, 0.05))
        return False

    def wait(self) -> int:
        """Exit status, and the time it was known."""
        status = self.process.wait()
        self._ended = time.time()
        return status

    def seconds(self) -> float:
        """What the stage took, once it has ended."""
        return self._ended - self.began

    def output(self) -> str:
        """Everything it printed."""
        return self._log.read_text(errors="replace")


class Arena:
    """A clone at the tiny scale, cut down to a stage of each kind.

    Args:
        folder: where it is made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept = folder.parent / "kept"
        self.clock = folder.parent / "clock"
        self._number = 0
        binaries = str(Path(sys.executable).parent)
        own = {"PATH": f"{binaries}:{os.environ['PATH']}", "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"}
        self.environment = {**os.environ, **own, "OMP_NUM_THREADS": "1"}
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self._run("dvc", "pull", "--quiet", "data.dvc")
        self._run("dav2.cli", "scale", "tiny")
        self._cut_down()
        self.outputs = self._outputs()
        if (library := self._library()) is not None:
            self.environment |= {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self.clock)}
        # The first stage would otherwise be measured with the server's start, and most moments come too late.
        self._python("from flows.servers import prefect_access; prefect_access()")

    def _run(self, *module: str) -> str:
        command = [sys.executable, "-m", *module]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(module)} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
        return done.stdout

    def _library(self) -> Path | None:
        made, found = self.folder.parent / "clock.so", compiler()
        if found is not None:
            subprocess.run([found, "-shared", "-fPIC", "-O2", "-o", str(made), str(CLOCK)], check=True)
        return made if found is not None else None

    def _cut_down(self) -> None:
        path = self.folder / "params.yaml"
        tree = yaml.safe_load(path.read_text())
        tree["sources"] = {name: tree["sources"][name] for name in ("hypersim", "photos")}
        tree["benchmarks"] = {name: tree["benchmarks"][name] for name in ("da2k", "nyu")}
        tree["teacher"]["sources"] = ["hypersim"]
        tree["pseudo_label"]["sources"] = ["photos"]
        tree["selections"] = {"few": {"sources": ["photos"], "budget": 8}}
        tree["students"] = {"vitn": {**tree["students"]["vitn"], "sources": ["photos"]}}
        tree["metric"]["indoor"] |= {"start": "models/student-vitn", "size": "vitn"}
        tree["latents"] = {"views": {"codec": "patch", "sources": ["hypersim"], "crop": 32, "views": 2}}
        tree["evaluate"]["models"] = ["teacher", "student-vitn", "metric-indoor", "marigold-diffusion"]
        tree["licences"] = {"hypersim": "Apache-2.0"}
        path.write_text(yaml.safe_dump(tree, sort_keys=False))

    def _python(self, program: str) -> str:
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, check=True)
        return done.stdout.decode()

    def _outputs(self) -> dict[str, list[str]]:
        program = "import json; from dvc.repo import Repo; r = Repo(); print(json.dumps({s.addressing: "
        program += "[str(o) for o in s.outs] for s in r.index.stages if s.cmd}))"
        found: dict[str, list[str]] = json.loads(self._python(program).splitlines()[-1])
        return found

    def stages(self) -> list[str]:
        """All stages, parents first."""
        return self._python("from flows.rebuild import stages; print(*stages(), sep='\\n')").split()

    def once(self, stage: str) -> None:
        """Run a stage that is not to be hurt."""
        running = self.start(stage, "dvc", [])
        if running.wait():
            sys.exit(f"{stage} failed undisturbed:\n{running.output()[-3000:]}")

    def start(self, stage: str, route: Route, command: list[str]) -> Running:
        """Start a stage through DVC, or by its own command, in a session of its own."""
        self._number += 1
        log = self.folder.parent / f"log-{self._number}"
        environment = {**self.environment, "DVC_STAGE": stage}
        self.clock.write_text("0")
        if route == "dvc":
            command = [sys.executable, "-m", "dvc", "repro", "--single-item", "--no-run-cache", stage]
        humble = HUMBLE if os.geteuid() == 0 and shutil.which("setpriv") else []
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*humble, *command],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Running(stage, process, log)

    def hurt(self, running: Running, trouble: str, draw: random.Random) -> None:
        """Do to a running stage what ``trouble`` says."""
        if trouble == "all":
            self._kill(self._family())
        elif trouble == "stage" and running.own is not None:
            self._kill([running.own])
        elif trouble == "clock":
            self.clock.write_text(f"{draw.choice([-1, 1]) * DAY}")
        elif trouble == "read-only":
            self._writable(False)
        elif trouble == "removed":
            for output in self.outputs[running.stage]:
                with contextlib.suppress(OSError):  # Something may have been written there meanwhile.
                    chaos_state.removed(self.folder / output)

    def lacks(self, stage: str) -> bool:
        """Whether an output of the stage is not there."""
        return not all((self.folder / output).exists() for output in self.outputs[stage])

    def heal(self) -> None:
        """Undo what outlasts a trouble."""
        self._writable(True)

    def _writable(self, allowed: bool) -> None:
        for path in [self.folder / "artifacts", *(self.folder / "artifacts").rglob("*")]:
            if path.is_dir():
                mode = path.stat().st_mode
                path.chmod(mode | stat.S_IWUSR if allowed else mode & ~0o222)

    @staticmethod
    def _kill(processes: list[psutil.Process]) -> None:
        for each in processes:
            with contextlib.suppress(psutil.Error):
                each.kill()

    def _family(self) -> list[psutil.Process]:
        """Every process that works in the folder, but for the servers."""
        servers: set[int] = set()
        for record in (self.folder / ".dav2").glob("*.json"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                servers.add(json.loads(record.read_text())["pid"])
        found = []
        for each in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                inside = Path(each.cwd()).is_relative_to(self.folder) and each.status() != psutil.STATUS_ZOMBIE
                if inside and os.getpgid(each.pid) not in servers:
                    found.append(each)
        return found

    def stragglers(self, patience: float) -> str:
        """Names of processes that are still there after ``patience`` seconds; empty where none is."""
        end = time.monotonic() + patience
        while (left := self._family()) and time.monotonic() < end:
            time.sleep(0.2)
        names: list[str] = []
        for each in left:
            with contextlib.suppress(psutil.Error):
                names.append(" ".join(each.cmdline())[-80:])
        self._kill(left)
        return ", ".join(names)

    def state(self, stage: str) -> State:
        """What lies there now, copied aside."""
        self._number += 1
        aside = self.kept / str(self._number)

        def copies(names: Any) -> dict[str, Path]:
            there = [name for name in names if (self.folder / name).exists()]
            return {name: chaos_state.copied(self.folder / name, aside / name) for name in there}

        outputs = self.outputs[stage]
        return State(copies(outputs), copies(KEPT), chaos_state.facts(self.folder, outputs))

    def restore(self, stage: str, state: State) -> None:
        """Put outputs, registry and ``dvc.lock`` back to what they were."""
        for names, copies in ((self.outputs[stage], state.outputs), (KEPT, state.kept)):
            for name in names:
                chaos_state.removed(self.folder / name)
                if name in copies:
                    chaos_state.copied(copies[name], self.folder / name)

    def close(self) -> None:
        """Stop the servers and whatever is left."""
        self._kill(self._family())
        self._run("flows.servers", "down")
