"""Crystals with the power factors that Ren et al. (2022) took from Ricci et al. (2017), joined by their ids."""

import csv
from pathlib import Path

import numpy as np

from replimat import cards, sources
from replimat.cards import DatasetCard, DerivedSource
from replimat.datasets.base import Dataset
from replimat.errors import DataError

ID, COLUMN = "mp_id", "Powerfactor"


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The crystals of the card's first parent, with the power factors of its second; NaN where it has none."""
    from replimat.datasets.loading import load

    if not isinstance(card.source, DerivedSource):
        raise DataError(f"Dataset {card.name!r} has no structures: load one that is derived from it.")
    crystals, properties = card.source.parents
    data = load(crystals)
    sources.verify(properties)
    known = power_factors(sources.folder_of(properties) / cards.dataset(properties).source.members[0].save_as)
    targets = data.targets | {"power_factor": np.array([known.get(str(name), np.nan) for name in data.ids])}
    return Dataset(
        name=card.name,
        ids=data.ids,
        structures=data.structures,
        targets={name: targets[name] for name in card.targets},
        units={name: spec.unit for name, spec in card.targets.items()},
        splits=data.splits,
    )


def power_factors(path: Path) -> dict[str, float]:
    """Power factor by id, where the line has every value, as the authors have it. Raises DataError for another file."""
    try:
        with open(path, newline="", encoding="utf-8") as stream:
            known = {line[ID]: float(line[COLUMN]) for line in csv.DictReader(stream) if all(line.values())}
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not the expected csv file ({error}).") from error
    if wrong := [name for name, value in known.items() if not np.isfinite(value)]:
        raise DataError(f"{path}: {len(wrong)} power factors are not finite, first that of {wrong[0]}.")
    return known
