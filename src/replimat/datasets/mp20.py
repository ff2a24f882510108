"""MP-20 of CDVAE (Xie et al. 2022): Materials Project crystals of at most 20 atoms, as csv files of CIF texts."""

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets import cifs
from replimat.datasets.base import Dataset
from replimat.datasets.cifs import parsed_cif
from replimat.datasets.rows import Rows
from replimat.errors import DataError, IntegrityError
from replimat.sources.archives import gunzipped

CODE = (cifs.__file__,)  # decides what is read too
SPLIT = "mp_20"
LARGEST = 1 << 28  # bytes of a file when unpacked; all of MP-20 has a third
PARTS = {"train": 0, "val": 1, "test": 2}  # by the beginning of a file's name


def read(folder: Path, card: DatasetCard) -> Dataset:
    """All crystals of the card's files in their order. Where there is no file of training crystals, those of the
    validation part are for training.
    """
    rows, parts = Rows(card), []
    numbers = {member.save_as: PARTS[member.save_as.partition(".")[0]] for member in card.source.members}
    lowest = min(numbers.values())
    for name, part in numbers.items():
        for line in _lines(folder / name):
            rows.add(line["material_id"], _structure(line), line | {"n_elements": line["elements"].count(",") + 1})
            parts.append(0 if part == lowest else part)
    if rows.left_out:
        raise DataError(f"{folder}: crystals that cannot be used: {', '.join(rows.left_out)}.")
    return replace(rows.dataset(), splits={SPLIT: np.array(parts, dtype=np.int8)})


def _lines(path: Path) -> list[dict[str, str]]:
    try:
        text = gunzipped(path, LARGEST).decode("utf-8")
        return list(csv.DictReader(io.StringIO(text, newline="")))
    except (IntegrityError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not the expected gzipped csv file ({error}).") from error


def _structure(line: dict[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    crystal, _ = parsed_cif(line["cif"])
    return np.array(crystal.atomic_numbers), crystal.cart_coords, crystal.lattice.matrix
