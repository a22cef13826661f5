"""Muon: momentum, then the nearest orthogonal matrix as the update (K. Jordan et al. 2024).

``torch.optim.Muon`` multiplies in bfloat16 whatever the settings say, which is emulated on most processors and then 60
times slower than float32. This one takes the precision as an argument, and multiplies matrices of one shape together.
The update is the same.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration: steepest at 0 among those that keep singular values between about 0.7 and 1.2."""
STEPS = 5
SMALLEST_NORM = 1e-7


def orthogonalise(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Newton–Schulz iteration towards the nearest matrices with orthonormal rows or columns.

    ``X ← a X + (b A + c A²) X`` with ``A = X Xᵀ``, five times, from ``X = G / ‖G‖``. Singular values end between about
    0.7 and 1.2, which trains as well as 1. Every step multiplies X from the left by a polynomial of A, and all of these
    commute; so for matrices that are not square the product of the polynomials is formed first, on the shorter side,
    and meets X once: 50 instead of 90 units of work at sides of 1 : 4.

    Args:
        matrices: (N, rows, columns).
        dtype: precision of the products.

    Returns:
        The same shape, in ``dtype``.
    """
    a, b, c = COEFFICIENTS
    turned = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if turned else matrices).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp_min(SMALLEST_NORM)
    if x.shape[1] == x.shape[2] or dtype == torch.bfloat16:
        # In bfloat16 the shorter form would square what is already coarse.
        for _ in range(STEPS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    else:
        x = _polynomial(x @ x.mT) @ x
    return x.mT if turned else x


def _polynomial(gram: Tensor) -> Tensor:
    """What five steps multiply ``X`` by, from ``X Xᵀ`` (N, rows, rows)."""
    a, b, c = COEFFICIENTS
    whole: Tensor | None = None
    for step in range(STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        whole = factor if whole is None else factor @ whole
        if step < STEPS - 1:
            gram = factor @ gram @ factor
    assert whole is not None
    return whole


class Muon(torch.optim.Optimizer):
    """Muon for matrices, with Nesterov momentum and decoupled weight decay, as ``torch.optim.Muon`` has them.

    Args:
        params: groups of parameters with two dimensions.
        lr: step in units of spectral norm; a matrix with more rows than columns takes ``sqrt(rows / columns)`` of it.
        weight_decay: times ``lr``, subtracted from the weights at each step.
        momentum: of the gradient's moving average.
        dtype: precision of the products.

    Raises:
        ValueError: a parameter is no matrix.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.02,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype
        shapes = [tuple(p.shape) for group in self.param_groups for p in group["params"] if p.ndim != 2]
        if shapes:
            raise ValueError(f"Muon takes matrices only, not a parameter of shape {shapes[0]}")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every matrix that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike[parameter.shape].append(parameter)
            for members in alike.values():
                self._update(members, group)
        return loss

    def _update(self, members: list[Tensor], group: dict[str, Any]) -> None:
        """One update of matrices of one shape."""
        momentum, rate = group["momentum"], group["lr"]
        wanted = []
        for parameter in members:
            gradient = parameter.grad
            assert gradient is not None
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(gradient)
            state["momentum_buffer"].lerp_(gradient, 1 - momentum)
            wanted.append(gradient.lerp(state["momentum_buffer"], momentum))
        rows, columns = members[0].shape
        step = rate * math.sqrt(max(1.0, rows / columns))
        for parameter, direction in zip(members, orthogonalise(torch.stack(wanted), self.dtype), strict=True):
            parameter.mul_(1 - rate * group["weight_decay"]).add_(direction, alpha=-step)
