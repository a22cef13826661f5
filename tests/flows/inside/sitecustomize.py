"""On the path of a test's shell: DVC runs the stages of a pipeline in its own interpreter.

Starting one for each stage would take most of the time of a walk. Everything else is DVC's own: what is stale, the
order, what is hashed and kept. Python imports this file by its name whenever it starts.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import shlex
import sys
from pathlib import Path

if "dvc" in (Path(sys.orig_argv[1]).name if len(sys.orig_argv) > 1 else "", *sys.orig_argv[2:3]):
    import dvc.stage.run
    from dvc.stage.exceptions import StageCmdFailedError

    def _run(executable: object, command: str, *, cwd: str, env: dict[str, str], **unused: object) -> None:
        _, _, module, *words = shlex.split(command)
        os.environ.update(env)
        before, sys.argv = sys.argv, [module, *words]
        try:
            with contextlib.chdir(cwd):
                runpy.run_module(module, run_name="__main__")
        except SystemExit as end:
            if end.code:
                print(end.code, file=sys.stderr)
                raise StageCmdFailedError(command, 1) from None
        finally:
            sys.argv = before

    dvc.stage.run._run = _run
