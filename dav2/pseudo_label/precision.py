"""In which precision labels are made: what the settings mean where the labelling runs, or what was begun in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dav2 import machine
from dav2.data import storage
from dav2.params import PseudoLabelParams
from dav2.pseudo_label.receipts import RECEIPT, LabelOptions, read_receipt


def label_precision(
    settings: PseudoLabelParams, outs: Sequence[str], teacher: str, options: LabelOptions
) -> machine.Precision:
    """The precision of labels that are to be made or finished now.

    With ``auto``, labels that another machine began with the same teacher and options go on in its precision: else all
    of them would be stale.

    Args:
        settings: precision and runner; with ``ray`` or ``slurm`` a machine of the cluster says what it is fast in.
        outs: folders of label shards, local or ``s3://``.
        teacher: sha256 of its weights.
        options: all else that shapes a label.
    """
    setting = settings.precision
    if settings.runner == "ray":
        from dav2.pseudo_label import ray_workers

        chosen = ray_workers.precision_there(setting)
    elif settings.runner == "slurm":
        from dav2.pseudo_label import slurm_jobs

        chosen = slurm_jobs.precision_there(setting, settings.slurm)
    else:
        chosen = machine.precision(setting)
    if setting != "auto":
        return chosen
    for out in outs:
        began = _began(out, teacher, options)
        if began is not None and began != chosen.name:
            return machine.Precision(began, "these labels were begun in it", machine.precision(began).warning)
    return chosen


def _began(out: str, teacher: str, options: LabelOptions) -> machine.Name | None:
    """Precision of the labels in ``out``, if teacher and options are those."""
    name = next((name for name in storage.names(out) if name.endswith(RECEIPT)), None)
    receipt = read_receipt(out, f"{name.removesuffix(RECEIPT)}.tar") if name else None
    if receipt is None or receipt.teacher != teacher:
        return None
    for began in machine.NAMES:
        if receipt.options == replace(options, precision=began).fingerprinted():
            return began
    return None
