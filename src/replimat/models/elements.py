"""CGCNN's table of initial element vectors, which GATGNN and ALIGNN start from too."""

import json
from pathlib import Path

import torch
from torch import Tensor

from replimat.errors import DataError

N_ELEMENTS = 101  # rows of the table: index 0 is unused, 1..100 are atomic numbers


def read_element_features(path: str | Path) -> Tensor:
    """The table of CGCNN's authors (atom_init.json) as [101, 92]; row 0 is zero."""
    rows = json.loads(Path(path).read_text())
    table = torch.zeros(N_ELEMENTS, len(next(iter(rows.values()))))
    for number, features in rows.items():
        table[int(number)] = torch.tensor(features, dtype=torch.float32)
    return table


def known(z: Tensor, table: Tensor) -> Tensor:
    """Atomic numbers z [N] as they are. Raises DataError for one that the table has no row for."""
    if z.numel() and (int(z.max()) >= len(table) or int(z.min()) < 1):
        raise DataError(f"The element table has rows for Z = 1 to {len(table) - 1}; got Z = {int(z.max())}.")
    return z
