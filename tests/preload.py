"""Imported once by the fork server: everything a rank needs, and everything that writes to the registry."""

from __future__ import annotations

import mlflow.store.tracking.sqlalchemy_store
import torch

import dav2.data.feed.loader
import dav2.families.depth_anything.family
import dav2.families.rank
import dav2.tracking.outbox
import dav2.tracking.promotion
import dav2.tracking.registry
import dav2.training.train
import dav2.training.trainer
import dav2.training.validation
from dav2.training.deepspeed_setup import import_deepspeed

torch.set_num_threads(1)
import_deepspeed()

__all__ = ["dav2", "mlflow"]
