"""QM9: 130,831 small molecules (Ramakrishnan et al., Sci. Data 1, 140022 (2014), doi:10.1038/sdata.2014.22).

The csv holds coordinates, elements and frequencies as printed Python lists. They are parsed for all molecules at once:
brackets and quotes are deleted and the numbers read in one go, ~100 times faster than evaluating each list.

Energies are total energies and are converted from hartree to eV. A molecule whose lists do not have the length its atom
count asks for is left out by name.
"""

from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset, Structures
from replimat.errors import DataError
from replimat.units import convert

SYMBOLS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
SOURCE_UNITS = {"eV": "hartree"}  # unit of a target -> unit of its column, where they differ
FREQUENCIES = "Harmonic_Freq_cmi"
LISTS = ["Elements", "XYZ_Ang", FREQUENCIES]


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The dataset of the three csv parts, in their order."""
    left_out: dict[str, str] = {}
    parts = [_part(folder / member.save_as, card, left_out) for member in card.source.members]
    ids, numbers, positions, sizes, targets = zip(*parts, strict=True)
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(sizes))]).astype(np.int64)
    structures = Structures(
        numbers=np.concatenate(numbers),
        positions=np.concatenate(positions),
        cells=np.zeros((len(offsets) - 1, 3, 3)),
        offsets=offsets,
        periodic=False,
    )
    return Dataset(
        name=card.name,
        ids=np.concatenate(ids),
        structures=structures,
        targets={name: np.concatenate([part[name] for part in targets]) for name in card.targets},
        units={name: target.unit for name, target in card.targets.items()},
        left_out=left_out,
    )


def _part(path: Path, card: DatasetCard, left_out: dict[str, str]):
    """ids [n], numbers [N], positions [N, 3], sizes [n], targets by name of one csv file; adds to `left_out`."""
    import pyarrow as pa
    from pyarrow import compute, csv

    columns = {target.column or name for name, target in card.targets.items()} - {FREQUENCIES}
    names = ["XYZ_file", "N_atoms", *LISTS, *sorted(columns)]
    options = csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(columns, pa.float64()))
    try:
        table = csv.read_csv(path, convert_options=options)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise DataError(f"{path}: not the expected csv ({' '.join(str(error).split())[:200]}).") from error

    sizes = table["N_atoms"].to_numpy()
    length = {name: compute.add(compute.count_substring(table[name], ","), 1).to_numpy() for name in LISTS}
    whole = (length["Elements"] == sizes) & (length["XYZ_Ang"] == 3 * sizes) & (length[FREQUENCIES] > 0)
    ids = np.char.replace(table["XYZ_file"].to_numpy().astype(str), ".xyz", "")
    left_out |= dict.fromkeys(ids[~whole].tolist(), "its lists do not have the length its atom count asks for")
    table, ids, sizes = table.filter(pa.array(whole)), ids[whole], sizes[whole]

    numbers = _elements(table["Elements"], path)
    positions = _floats(table["XYZ_Ang"], 3 * sizes.sum(), path).reshape(-1, 3)
    frequencies = _floats(table[FREQUENCIES], length[FREQUENCIES][whole].sum(), path)
    starts = np.concatenate([[0], np.cumsum(length[FREQUENCIES][whole])[:-1]])
    raw = {name: table[name].to_numpy() for name in columns} | {FREQUENCIES: np.maximum.reduceat(frequencies, starts)}
    targets = {name: _in_unit(raw[target.column or name], target.unit) for name, target in card.targets.items()}
    return ids, numbers, positions, sizes, targets


def _elements(column, path: Path) -> np.ndarray:
    """Atomic numbers [N] of a column of printed lists of one-letter element symbols."""
    letters = ",".join(column.to_pylist()).encode().translate(None, b"[]', ")
    table = np.zeros(256, dtype=np.int16)
    for symbol, number in SYMBOLS.items():
        table[ord(symbol)] = number
    numbers = table[np.frombuffer(letters, dtype=np.uint8)]
    if not numbers.all():
        raise DataError(f"{path}: an element is none of {', '.join(SYMBOLS)}.")
    return numbers


def _floats(column, count: int, path: Path) -> np.ndarray:
    """All numbers [count] of a column of printed lists."""
    text = ",".join(column.to_pylist()).encode().translate(None, b"[] ")
    try:
        numbers = np.fromstring(text, sep=",")
    except ValueError as error:
        raise DataError(f"{path}: a list holds something that is no number ({error}).") from error
    if len(numbers) != count:
        raise DataError(f"{path}: its lists hold {len(numbers):,} numbers, expected {count:,}: damaged text.")
    return numbers


def _in_unit(values: np.ndarray, unit: str) -> np.ndarray:
    return values * convert(1.0, SOURCE_UNITS[unit], unit) if unit in SOURCE_UNITS else values
