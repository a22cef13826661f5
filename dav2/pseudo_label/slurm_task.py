"""One task of a labelling array: ``python -m dav2.pseudo_label.slurm_task PLAN NUMBER``.

The plan is the JSON that :mod:`dav2.pseudo_label.slurm_jobs` wrote: how to open the teacher, and the shards of each
task. A shard with a receipt is left alone, so a task that starts again does nothing twice.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from dav2.memory import keep_freed_memory
from dav2.pseudo_label import worker
from dav2.pseudo_label.receipts import is_done


def main(plan: Path, number: int) -> int:
    """Label the shards of one task, also when one before them fails; 1 if any could not be labelled."""
    keep_freed_memory()
    tree = json.loads(plan.read_text(encoding="utf-8"))
    todo = [task for task in tree["tasks"][number] if not is_done(worker.task_from_json(task))]
    labeller = worker.open_labeller(tree["setup"]) if todo else None
    failed = False
    for task in todo:
        assert labeller is not None
        answer = worker.answer(labeller, task)
        if "error" in answer:
            failed = True
            print(f"error: {answer['error']}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
