"""Datasets: bytes of data/<name>/ -> one uniform Dataset (structures, targets, units, what was left out).

    load(name)    the Dataset of a card, checked against it; cached under prepared/datasets/
    split(...)    deterministic train, validation and test rows; see replimat.datasets.splits

A reader is a module of this package with `read(folder, card) -> Dataset`; the card names it.
"""

from replimat.datasets.base import Dataset, Structures
from replimat.datasets.loading import load

__all__ = ["Dataset", "Structures", "load"]
