"""A labelling process: tasks come in as JSON lines on standard input, receipts or errors go out on standard output.

Started by :func:`dav2.pseudo_label.workers.process_workers`. When its starter dies, by whatever means, standard input
ends and the process ends with it, also in the middle of a shard: an unfinished shard has no name yet.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from typing import IO, TYPE_CHECKING, Any

from dav2.memory import keep_freed_memory
from dav2.pseudo_label.receipts import LabelError, LabelOptions, ShardTask

if TYPE_CHECKING:
    from dav2.pseudo_label.labeller import Labeller


def task_from_json(tree: dict[str, Any]) -> ShardTask:
    """Inverse of ``asdict`` for a task."""
    return ShardTask(**{**tree, "options": LabelOptions(**tree["options"])})


def _read(lines: IO[str], inbox: queue.Queue[dict[str, object]]) -> None:
    for line in lines:
        inbox.put(json.loads(line))
    os._exit(0)


def open_labeller(setup: dict[str, Any]) -> Labeller:
    """A labeller as a ``WorkerSetup`` (as a mapping) describes it."""
    import torch

    from dav2.pseudo_label.labeller import Labeller
    from dav2.pseudo_label.teacher import Teacher

    torch.set_num_threads(setup["threads"])
    teacher = Teacher.open(setup["teacher"], LabelOptions(**setup["options"]), setup["device"])
    return Labeller(teacher, setup["threads"])


def answer(labeller: Labeller, task: dict[str, object]) -> dict[str, object]:
    """Label one task: ``{"receipt": …}``, or ``{"error": …}`` when it cannot be labelled."""
    try:
        return {"receipt": labeller.label(task_from_json(task)).model_dump()}
    except LabelError as error:
        return {"error": str(error)}


def serve(answers: IO[str]) -> None:
    """Label until standard input ends. The first line of input says how to open the teacher."""
    keep_freed_memory()
    inbox: queue.Queue[dict[str, object]] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, inbox), daemon=True).start()
    labeller = open_labeller(inbox.get())
    reply: dict[str, object] = {"ready": os.getpid()}
    while True:
        answers.write(json.dumps(reply) + "\n")
        answers.flush()
        reply = answer(labeller, inbox.get())


if __name__ == "__main__":
    # Whatever a library prints must not get between the answers.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(replies)
