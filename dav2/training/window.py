"""Updates since the last line of the journal: their terms stay where they were computed until a line is written."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Window:
    """Sums over updates.

    Attributes:
        updates: how many.
        terms: the loss and its terms, scalars on the device.
        timed: updates that this process did itself; ``waited`` and ``seconds`` are theirs, for data and in all.
    """

    updates: int = 0
    terms: dict[str, Tensor] = field(default_factory=dict)
    timed: int = 0
    waited: float = 0.0
    seconds: float = 0.0

    def add(self, terms: dict[str, Tensor], waited: float, seconds: float) -> None:
        """Take one more update in; nothing waits for the device."""
        self.updates += 1
        self.terms = {name: self.terms[name] + value if self.terms else value for name, value in terms.items()}
        self.timed += 1
        self.waited += waited
        self.seconds += seconds

    def means(self) -> dict[str, float]:
        """Mean of each term over the updates; waits for the device once."""
        values = torch.stack(list(self.terms.values())).double() / self.updates
        return dict(zip(self.terms, values.tolist(), strict=True))

    def sums(self) -> dict[str, float]:
        """For a checkpoint, without clocks: a run that goes on from it writes the line that it would have written."""
        if not self.updates:
            return {}
        return {"updates": self.updates, **{name: float(value) for name, value in self.terms.items()}}

    @classmethod
    def of_sums(cls, sums: dict[str, float], device: torch.device) -> Window:
        """What :meth:`sums` gave."""
        terms = {name: torch.tensor(value, device=device) for name, value in sums.items() if name != "updates"}
        return cls(int(sums.get("updates", 0)), terms)
