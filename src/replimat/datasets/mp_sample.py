"""A sample of 1,000 current Materials Project documents, as shipped with matgraphdb 0.3.0 (one parquet table)."""

from pathlib import Path

from replimat.cards import DatasetCard
from replimat.datasets.base import Dataset
from replimat.datasets.rows import Rows
from replimat.errors import DataError

ID, NUMBERS, FRACTIONAL, LATTICE = "core.material_id", "core.atomic_numbers", "core.frac_coords", "core.lattice"


def read(folder: Path, card: DatasetCard) -> Dataset:
    """The dataset of the parquet table; target columns are those the card names."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet

    path = folder / card.source.members[0].save_as
    columns = [target.column or name for name, target in card.targets.items()]
    try:
        table = parquet.read_table(path, columns=[ID, NUMBERS, FRACTIONAL, LATTICE, *columns]).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not a readable parquet table ({error}).") from error
    rows = Rows(card)
    for row in table:
        try:
            cell = np.array(row[LATTICE], dtype=float).reshape(3, 3)
            structure = np.array(row[NUMBERS]), np.array(row[FRACTIONAL]) @ cell, cell
        except (TypeError, ValueError) as error:
            rows.leave_out(row[ID], f"structure not readable ({error})")
            continue
        rows.add(row[ID], structure, row)
    return rows.dataset()
