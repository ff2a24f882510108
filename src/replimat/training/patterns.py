"""Patterns in memory, simulated once or for every batch anew, as training/fit.py takes them.

A batch is (model inputs, targets). `FixedPatterns` gives {"pattern": [B, P]} to a network; `PowderRows` gives {"rows":
[B]} to a `FromPowders`, which simulates them where the network is: other conditions in every step of a training, the
same ones in every validation and prediction.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset


class FixedPatterns(Dataset):
    """Patterns [n, P] with targets [n] or [n, K]."""

    def __init__(self, pattern: Tensor, target: Tensor):
        self.pattern, self.target = pattern, target

    def __len__(self) -> int:
        return len(self.target)

    def __getitems__(self, rows: list[int]) -> tuple[dict, Tensor]:
        rows = torch.as_tensor(rows)
        return {"pattern": self.pattern[rows]}, self.target[rows]


class PowderRows(Dataset):
    """Numbers of crystals, whose patterns are simulated in the model, with targets [n] or [n, K]."""

    def __init__(self, target: Tensor):
        self.target = target

    def __len__(self) -> int:
        return len(self.target)

    def __getitems__(self, rows: list[int]) -> tuple[dict, Tensor]:
        rows = torch.as_tensor(rows)
        return {"rows": rows}, self.target[rows]


class FromPowders(nn.Module):
    """A network behind a simulator of its patterns.

    measure: (rows [B], generator or None) -> patterns [B, P] on the rows' device. In training it draws from torch's own
    random numbers; in evaluation from a generator seeded by the batch's first row, so that the same batches see the
    same patterns.
    """

    def __init__(self, network: nn.Module, measure: Callable[[Tensor, torch.Generator | None], Tensor]):
        super().__init__()
        self.network, self.measure = network, measure

    def forward(self, rows: Tensor) -> Tensor:
        generator = None if self.training else torch.Generator(rows.device).manual_seed(int(rows[0]))
        return self.network(self.measure(rows, generator))
