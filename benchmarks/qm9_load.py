"""QM9 from raw files to batches: time and peak memory of each stage, each in a process of its own.

    python benchmarks/qm9_load.py

There is no peer here: PyG and schnetpack download QM9 in other forms. Needs data/qm9 (`replimat fetch qm9`).
"""

import tempfile
from pathlib import Path

import numpy as np
from common import OURS, in_own_process, keep, rows

from replimat import cards
from replimat.datasets import load
from replimat.representations import prepared
from replimat.representations.composition import composition_features
from replimat.representations.cutoff_graph import CutoffGraph

CUTOFF = 5.0  # angstrom


def imports_alone() -> None:
    """What a process holds before it does anything."""


def read_raw() -> None:
    """Read the raw files again, past the cache of read datasets."""
    from replimat.datasets.loading import _reader
    from replimat.sources import folder_of

    card = cards.dataset("qm9")
    _reader(card).read(folder_of("qm9"), card)


def read_cached() -> None:
    load("qm9")


def build_graphs() -> None:
    CutoffGraph(CUTOFF)(load("qm9").structures)


def build_composition() -> None:
    composition_features(load("qm9").structures)


def save_prepared(path: Path) -> None:
    arrays = CutoffGraph(CUTOFF)(load("qm9").structures)
    prepared.save(path, arrays, {"key": "benchmark"})


def load_prepared(path: Path) -> None:
    prepared.load(path, "benchmark")


def main() -> None:
    in_own_process(read_cached)  # fills the cache; not here, for a child's peak memory starts from its parent's
    stages = {"raw files": (read_raw,), "cached dataset": (read_cached,)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "qm9.safetensors"
        stages |= {
            f"cached dataset, then graphs at {CUTOFF:g} A": (build_graphs,),
            "cached dataset, then composition features": (build_composition,),
            "cached dataset, graphs, prepared file written": (save_prepared, path),
            "prepared file loaded and verified": (load_prepared, path),
        }
        results = rows("QM9", "imports alone, peak memory", {OURS: in_own_process(imports_alone)[1]}, "MB")
        for stage, call in stages.items():
            runs = [in_own_process(*call) for _ in range(2)]
            time, memory = np.min(runs, axis=0)
            results += rows("QM9", stage, {OURS: time}, "s") + rows(
                "QM9", f"{stage}, peak memory", {OURS: memory}, "MB"
            )
        results += rows("QM9", "prepared file", {OURS: path.stat().st_size / 1e6}, "MB")
    keep(results)


if __name__ == "__main__":
    main()
