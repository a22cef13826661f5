"""Our Muon against PyTorch's, and its iteration against the obvious one in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dav2.training.muon import COEFFICIENTS, STEPS, Muon, orthogonalise

SHAPES = [(24, 24), (72, 24), (24, 96), (96, 24), (1, 5), (5, 1)]


def slow(matrix: Tensor) -> Tensor:
    """The iteration as it is published, in float64."""
    a, b, c = COEFFICIENTS
    x = matrix.double()
    x = x / x.norm()
    if matrix.shape[0] > matrix.shape[1]:
        return slow(matrix.T).T
    for _ in range(STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decay", [0, 3])
def test_float32_gives_the_published_iteration_to_its_own_rounding(shape: tuple[int, int], decay: int) -> None:
    # With decay, singular values spread over three powers of ten, as those of gradients do.
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -decay, shape[1])
    matrices = torch.randn(3, *shape, generator=generator) * scale
    expected = torch.stack([slow(matrix) for matrix in matrices])
    found = orthogonalise(matrices, torch.float32)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-5)


def test_a_zero_gradient_gives_no_update() -> None:
    assert not orthogonalise(torch.zeros(2, 4, 8), torch.float32).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ten_updates_are_those_of_torch_within_bfloat16(dtype: torch.dtype) -> None:
    # PyTorch's own multiplies in bfloat16 whatever it is given, so that is how far the two can agree.
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=generator) for shape in [(24, 24), (72, 24), (24, 96), (24, 24)]]
    ours, theirs = ([torch.nn.Parameter(t.clone()) for t in start] for _ in range(2))
    own = Muon([{"params": ours, "lr": 0.02, "weight_decay": 0.05}], dtype=dtype)
    reference = torch.optim.Muon([{"params": theirs, "lr": 0.02, "weight_decay": 0.05}])
    for _ in range(10):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        own.step()
        reference.step()
    for one, other, first in zip(ours, theirs, start, strict=True):
        moved = float((other - first).detach().norm())
        assert float((one - other).detach().norm()) < 0.01 * moved
        assert moved > 0


def test_what_has_no_gradient_stays_and_what_is_no_matrix_is_refused() -> None:
    kept, moved = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2, 2))
    moved.grad = torch.eye(2)
    Muon([kept, moved]).step()
    assert torch.equal(kept, torch.ones(2, 2))
    assert not torch.equal(moved, torch.ones(2, 2))
    with pytest.raises(ValueError, match="matrices only, not a parameter of shape"):
        Muon([torch.nn.Parameter(torch.ones(3))])
