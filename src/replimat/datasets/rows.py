"""What every reader does with its raw rows: usable ones are collected, the others are named, none is dropped unseen."""

import math
from dataclasses import dataclass, field

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import HEAVIEST, LARGEST, Dataset, Structures, are_elements

LOG10 = "log10("  # a target of unit log10(GPa) is the logarithm of a column in GPa
FULLEST = 1.05  # occupancy of a site; refined ones exceed 1 by their error


@dataclass
class Rows:
    """Collects rows of (id, structure, raw target values) for the dataset of a card."""

    card: DatasetCard
    ids: list[str] = field(default_factory=list)
    structures: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)
    occupancies: list[np.ndarray | None] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    missing: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(
        self,
        name: str,
        structure: tuple[np.ndarray, np.ndarray, np.ndarray],
        columns: dict,
        occupancies: np.ndarray | None = None,
    ) -> None:
        """One row: its id, (numbers [A], positions [A, 3], cell [3, 3]), its raw columns by name, occupancies [A]."""
        atoms = len(structure[0]) if occupancies is None else occupancies.sum()
        if fault := occupancy_fault(occupancies) or structure_fault(*structure, self.card.periodic, atoms):
            self.leave_out(name, fault)
            return
        self.ids.append(name)
        self.structures.append(structure)
        self.occupancies.append(occupancies)
        for target, spec in self.card.targets.items():
            value, reason = target_value(columns[spec.column or target], spec.unit)
            self.values.setdefault(target, []).append(value)
            if reason:
                self.missing.setdefault(target, {})[name] = reason

    def leave_out(self, name: str, reason: str) -> None:
        """Name a row that cannot be used; rows of one name are counted one by one."""
        name = str(name)
        while name in self.left_out:
            name += " again"
        self.left_out[name] = reason

    def dataset(self) -> Dataset:
        """The collected rows. Raises DataError when there is none."""
        structures = Structures.pack(self.structures, self.card.periodic, self.occupancies)
        return Dataset(
            name=self.card.name,
            ids=np.array(self.ids),
            structures=structures,
            targets={target: np.array(values, dtype=np.float64) for target, values in self.values.items()},
            units={target: spec.unit for target, spec in self.card.targets.items()},
            left_out=self.left_out,
            missing=self.missing,
        )


def require_listed(poscar: str) -> None:
    """Raise ValueError where a POSCAR speaks of more atoms than it has lines: its readers make room for them first."""
    lines = poscar.split("\n")
    said = sum(int(word) for line in lines[5:7] for word in line.split() if word.lstrip("+").isdecimal())
    if said > len(lines):
        raise ValueError(f"{said:,} atoms in {len(lines)} lines")


def structure_fault(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, periodic: bool, atoms: float) -> str:
    """What makes a structure with that many atoms (its filled sites) unusable; empty when nothing does."""
    if len(numbers) == 0:
        return "no atoms"
    if positions.shape != (len(numbers), 3) or cell.shape != (3, 3):
        return f"{len(numbers)} atoms with coordinates {positions.shape} and cell {cell.shape}"
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        return "a coordinate is not finite"
    if not are_elements(numbers):
        return f"an atomic number is not a whole number from 1 to {HEAVIEST}"
    if max(np.abs(positions).max(), np.abs(cell).max()) > LARGEST:
        return f"a length is above {LARGEST:g} angstrom"
    if periodic and abs(np.linalg.det(cell)) < atoms:  # the densest crystals have 5 cubic angstrom per atom
        return f"cell of {abs(np.linalg.det(cell)):.3g} cubic angstrom for {atoms:g} atoms"
    return ""


def occupancy_fault(occupancies: np.ndarray | None) -> str:
    """What makes occupancies [A] unusable; empty when nothing does."""
    if occupancies is None:
        return ""
    wrong = occupancies[~((occupancies > 0) & (occupancies <= FULLEST))]
    return f"a site of occupancy {wrong[0]:g}, expected above 0 and at most {FULLEST:g}" if len(wrong) else ""


def target_value(raw, unit: str) -> tuple[float, str]:
    """A raw column value in the target's unit, with the reason when there is none (then it is NaN)."""
    try:
        value = float(raw)
    except (TypeError, ValueError):
        return math.nan, f"{raw!r} is not a number" if raw not in ("", None) else "no value"
    if not math.isfinite(value):
        return math.nan, "not finite"
    if unit.startswith(LOG10):
        return (math.log10(value), "") if value > 0 else (math.nan, f"{value:g} has no logarithm")
    return value, ""
