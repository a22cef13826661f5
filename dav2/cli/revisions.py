"""Score files by name: of this folder, or as they were at a commit, branch, tag or experiment of DVC."""

from __future__ import annotations

from pathlib import Path

from dav2 import layout
from dav2.documents import DocumentError, ScoreFile
from dav2.extras import require

AT = "@"


def score_file(name: str, root: Path) -> ScoreFile:
    """Scores that a person names: a run, a ``.json`` file, or ``RUN@REVISION``.

    Args:
        name: e.g. ``student-vitt``, ``old/scores.json``, ``student-vitt@HEAD``, ``student-vitt@slow-start``.
        root: project folder.

    Raises:
        FileNotFoundError: there is no such file here.
        ValueError: there is no such revision, or the run was not scored there.
        DocumentError: the file is damaged.
        MissingExtraError: a revision is asked for and DVC is not installed.
    """
    run, at, revision = name.partition(AT)
    if name.endswith(".json") or not at:
        return ScoreFile.read(Path(name) if name.endswith(".json") else layout.scores(root, name))
    if not run or not revision:
        raise ValueError(f"'{name}': expected RUN@REVISION, a commit, branch, tag or experiment after the @")
    return _read_at(run, revision, root)


def _read_at(run: str, revision: str, root: Path) -> ScoreFile:
    require("dvc")
    import dvc.api
    from dvc.exceptions import DvcException, FileMissingError, PathMissingError
    from dvc.repo import NotDvcRepoError
    from dvc.scm import RevError, SCMError

    path = layout.scores(Path(), run)
    try:
        text = dvc.api.read(path.as_posix(), repo=str(root.resolve()), rev=revision)
    except RevError:
        raise ValueError(
            f"no commit, branch, tag or experiment '{revision}'; 'dvc exp list --all-commits' and 'git log' name them"
        ) from None
    except (NotDvcRepoError, SCMError):
        raise ValueError(
            f"{root.resolve()} is no project of git and DVC, so there is no {AT}{revision} in it"
        ) from None
    except (FileMissingError, PathMissingError, FileNotFoundError):
        raise ValueError(f"{run} has no scores at {revision}, or they are not in DVC's cache ('dvc pull')") from None
    except DvcException as error:
        raise ValueError(f"{run}{AT}{revision} cannot be read: {error}") from None
    try:
        return ScoreFile.model_validate_json(text)
    except ValueError as error:
        raise DocumentError(f"{path} at {revision} is damaged: {error}") from None
