"""Perov-5: cubic perovskites of I. E. Castelli et al. (2012) with CDVAE's split, from one csv file."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset
from replimat.datasets.rows import Rows
from replimat.errors import DataError

PARTS = {"train": 0, "val": 1, "test": 2}


def read(folder: Path, card: DatasetCard) -> Dataset:
    """All crystals; `heat_ref` is missing for most training rows, `edge` is that of the cube. CDVAE's split is named
    `cdvae`.
    """
    rows, parts = Rows(card), []
    path = folder / card.source.members[0].save_as
    with open(path, newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            found = crystal(row)
            rows.add(row["material_id"], found, row | {"edge": found[2][0, 0]})
            parts.append(part_of(row["split"], path))
    if rows.left_out:
        raise DataError(f"{path}: {len(rows.left_out)} crystals cannot be used, first {next(iter(rows.left_out))}.")
    return replace(rows.dataset(), splits={"cdvae": np.array(parts, dtype=np.int8)})


def part_of(name: str, path: Path) -> int:
    if name not in PARTS:
        raise DataError(f"{path}: a row is of the part {name!r}, expected one of {', '.join(PARTS)}.")
    return PARTS[name]


def crystal(row: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers [A], positions [A, 3] and cell [3, 3] of a row."""
    from ase.data import atomic_numbers

    cell = np.array(json.loads(row["lattice"]))
    numbers = np.array([atomic_numbers[name] for name in row["species"].split()])
    return numbers, np.array(json.loads(row["frac"])) @ cell, cell
