"""The Materials Project set of 2018 that MEGNet and ALIGNN used: its labels and split, on today's geometries.

One npz: cell parameters [n, 6] in angstrom and degrees, atomic numbers [N] and fractional coordinates [N, 3] packed by
`n_atoms` [n], and per crystal id, part and both targets.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset
from replimat.datasets.rows import Rows
from replimat.errors import DataError
from replimat.sources.archives import require_unpacked

PARTS = ("train", "val", "test")
SPLIT = "megnet_2018"
LARGEST = 1 << 28  # bytes of the file when unpacked; today's has a tenth


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The dataset of the npz file, with the authors' split."""
    from ase.geometry import cellpar_to_cell

    path = folder / card.source.members[0].save_as
    require_unpacked(path, LARGEST)
    try:
        with np.load(path, allow_pickle=False) as stored:
            content = dict(stored.items())
        columns = {spec.column: content[spec.column] for spec in card.targets.values()}
        ids, part, ends = content["ids"], content["split"], np.cumsum(content["n_atoms"])
        cells = [cellpar_to_cell(parameters) for parameters in content["cellpar"]]
        numbers, fractional = np.split(content["Z"], ends[:-1]), np.split(content["frac"], ends[:-1])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{path}: not the expected npz file ({error}).") from error
    rows = Rows(card)
    for row, name in enumerate(ids.tolist()):
        positions = fractional[row].astype(np.float64) @ cells[row]
        values = {column: array[row] for column, array in columns.items()}
        rows.add(name, (numbers[row], positions, cells[row]), values)
    number = dict(zip(ids.tolist(), (PARTS.index(name) for name in part.tolist()), strict=True))
    return replace(rows.dataset(), splits={SPLIT: np.array([number[name] for name in rows.ids], dtype=np.int8)})
