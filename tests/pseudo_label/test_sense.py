"""Labels that grow the wrong way are told, right ones are left in peace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dav2.maps import Quantity
from dav2.pseudo_label import Labeller, finish, plan_shards
from dav2.pseudo_label.sense import correlation_with_rows, warning
from dav2.pseudo_label.teacher import Teacher
from tests.pseudo_label.conftest import OPTIONS


class Floor:
    """Predicts a floor: nearer the lower, in whatever quantity it says that it gives."""

    features, multiple, sees, device = 0, 14, True, torch.device("cpu")

    def __init__(self, said: Quantity, real: Quantity, flat: bool = False) -> None:
        self.quantity, self.real, self.flat = said, real, flat

    def shape(self, height: int, width: int, input_size: int) -> tuple[int, int]:
        return 56, 70

    def prepare(self, rgb: Any, input_size: int) -> Any:
        return torch.zeros(3, 56, 70).numpy()

    def predict(self, batch: Tensor, keys: Any) -> tuple[Tensor, None]:
        near = torch.linspace(0.1, 1, 56)[None, :, None].expand(len(batch), 56, 70)
        near = torch.ones_like(near) if self.flat else near
        return (near if self.real.sign > 0 else 1 / near), None


def labels(source: Path, out: Path, said: Quantity, real: Quantity, flat: bool = False) -> str:
    teacher = Teacher(Floor(said, real, flat), "0" * 64, OPTIONS)  # type: ignore[arg-type]
    for task in plan_shards(str(source), str(out), teacher.digest, OPTIONS):
        Labeller(teacher).label(task)
    finish(str(out))
    return str(out)


@pytest.mark.parametrize("quantity", ["disparity", "metres", "depth", "log_depth"])
def test_labels_that_grow_towards_the_viewer_are_left_in_peace(source: Path, tmp_path: Path, quantity: str) -> None:
    out = labels(source, tmp_path / "out", Quantity(quantity), Quantity(quantity))
    assert correlation_with_rows(out) == pytest.approx(1)
    assert warning(out, quantity) is None


@pytest.mark.parametrize(("said", "real"), [("disparity", "metres"), ("depth", "disparity"), ("metres", "disparity")])
def test_a_quantity_that_is_declared_wrongly_is_told(source: Path, tmp_path: Path, said: str, real: str) -> None:
    out = labels(source, tmp_path / "out", Quantity(said), Quantity(real))
    assert correlation_with_rows(out) == pytest.approx(-1)
    assert f"its quantity is not {said}" in str(warning(out, said))


def test_flat_labels_say_nothing(source: Path, tmp_path: Path) -> None:
    out = labels(source, tmp_path / "out", Quantity.DISPARITY, Quantity.DISPARITY, flat=True)
    assert correlation_with_rows(out) is None
    assert warning(out, "disparity") is None
