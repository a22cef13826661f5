"""Which code runs here: the commit of the project's folder, and whether its files differ from it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TypedDict


class GitState(TypedDict, total=False):
    """What :class:`dav2.documents.Code` keeps of it: the commit and what differs from it, or why that is unknown."""

    commit: str
    dirty: bool
    changed: list[str]
    unknown: str


def git_state(root: Path) -> GitState:
    """Commit and whether tracked files differ from it; says why where git cannot tell.

    ``dvc.lock`` does not count: a run of the pipeline writes it, and every version keeps its own.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!dvc.lock")
    except FileNotFoundError:
        return {"unknown": "git is not installed"}
    except subprocess.CalledProcessError as error:
        return {"unknown": (error.stderr.strip().splitlines() or ["git failed"])[-1]}
    return {"commit": commit, "dirty": bool(changed), "changed": [line[3:] for line in changed.splitlines()]}


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.rstrip("\n")
