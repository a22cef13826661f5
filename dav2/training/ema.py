"""Exponential moving averages of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn


class Ema:
    """``average ← d · average + (1 - d) · weights`` after every update, with ``d = min(decay, (1 + n) / (10 + n))``.

    The ramp of ``d`` over the number of updates ``n`` keeps the random start from lingering in short runs. Only trained
    parameters are averaged; the average is float32 whatever the weights are.

    Args:
        model: whose weights are averaged.
        decay: the largest d.
        ramp: ``False`` keeps d at ``decay`` from the first update on.
        held: a module like ``model``, in float32, whose parameters become the average and are always it.
    """

    def __init__(self, model: nn.Module, decay: float, ramp: bool = True, held: nn.Module | None = None) -> None:
        self.decay, self.ramp = decay, ramp
        self.updates = 0
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if held is None:
            self.average = {name: p.detach().float().clone() for name, p in self.trained.items()}
            return
        places = dict(held.named_parameters())
        self.average = {name: places[name].detach().copy_(p.detach()) for name, p in self.trained.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights in after one update of the optimiser."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.ramp else self.decay
        self.updates += 1
        averages = list(self.average.values())
        weights = [p.detach().float() for p in self.trained.values()]
        torch._foreach_lerp_(averages, weights, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average inside the block, and its own weights again after it."""
        own = {name: p.detach().clone() for name, p in self.trained.items()}
        self._put(self.average)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self.trained.items():
            parameter.copy_(values[name])

    def save(self, path: Path) -> None:
        """Write the average as safetensors."""
        from safetensors.torch import save_file

        averages = {name: tensor.cpu().contiguous() for name, tensor in self.average.items()}
        save_file(averages, path, metadata={"updates": str(self.updates)})

    def load(self, path: Path) -> None:
        """Restore what :meth:`save` wrote for the same model."""
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            self.updates = int(file.metadata()["updates"])
            for name, average in self.average.items():
                average.copy_(file.get_tensor(name))


class Averages:
    """All moving averages of a run: of the weights that are measured and kept, and those that its loss needs.

    Args:
        model: in training, on its device.
        decay: of the average of it that is measured and kept in its place; 0 is none.
        own: those of the loss, by name.
    """

    def __init__(self, model: nn.Module, decay: float, own: Mapping[str, Ema]) -> None:
        self.main = Ema(model, decay) if decay > 0 else None
        self.all = {**({} if self.main is None else {"ema": self.main}), **own}

    def update(self) -> None:
        """See :meth:`Ema.update`."""
        for average in self.all.values():
            average.update()

    def applied(self) -> AbstractContextManager[None]:
        """See :meth:`Ema.applied`; nothing happens where weights are kept as they are."""
        return nullcontext() if self.main is None else self.main.applied()

    def save(self, folder: Path) -> None:
        """Write each as a file of ``folder``."""
        for name, average in self.all.items():
            average.save(folder / f"{name}.safetensors")

    def load(self, folder: Path) -> None:
        """Restore what :meth:`save` wrote."""
        for name, average in self.all.items():
            average.load(folder / f"{name}.safetensors")
