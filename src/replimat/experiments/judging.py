"""The judgement of generated crystals that all generators share: one table, as replimat.evaluation.generation reads it.

Validity, coverage and the distances of property distributions are those of CDVAE (Xie et al. 2022). Uniqueness is asked
of the valid crystals, novelty of the valid and unique ones, both with the matcher of the reconstruction task.
"""

from functools import lru_cache
from importlib import import_module

import numpy as np
import pandas as pd

from replimat.datasets.base import Structures
from replimat.errors import ExperimentError
from replimat.evaluation.generation import DATA, judged
from replimat.representations.conversion import packed, unpacked

UNITS = {"emd_density": "g/cm^3"}  # of metrics that are neither shares nor plain numbers


def judge_crystals(
    made: Structures | None,
    failed: dict[int, str],
    known: Structures,
    data: Structures | None = None,
    cutoffs=None,
    prefix: str = "made",
) -> pd.DataFrame:
    """A row for every sample, then one for every crystal of `data`.

    made: the samples that could be decoded, in order (None if none could); failed: number of a sample -> why it could
    not; known: crystals that are not new; data: crystals (of the test set) whose distributions are compared and, where
    cutoffs are given, covered; prefix: of the samples' ids. Raises ExperimentError where the libraries are missing.
    """
    require("Generated crystals are judged with pymatgen, matminer and smact", "pymatgen", "matminer", "smact")
    from replimat.evaluation.validity import compositionally_valid, structurally_valid

    n = len(failed) + (len(made) if made else 0)
    decoded = np.array([k for k in range(n) if k not in failed], dtype=int)
    columns = {f"share.{name}": np.zeros(n) for name in ("validity", "structure_validity", "composition_validity")}
    columns |= {f"share.{name}": np.full(n, np.nan) for name in ("uniqueness", "novelty")}
    valid = np.zeros(len(decoded), dtype=bool)
    if len(decoded):
        structure, composition = structurally_valid(made), compositionally_valid(made)
        valid = structure & composition
        columns["share.structure_validity"][decoded] = structure
        columns["share.composition_validity"][decoded] = composition
        columns["share.validity"][decoded] = valid
        _add_new(columns, made, decoded, valid, known)
    ids = [f"{prefix}-{k}" for k in range(n)]
    if data is None:
        return judged(ids, failed=failed, **columns)
    rows = decoded[valid]
    chosen = made.take(np.flatnonzero(valid)) if valid.any() else None
    spread, reference = _spreads(chosen, data, rows, n)
    if cutoffs is not None:
        covered, precise = _covered(made, data, cutoffs, decoded, n)  # CDVAE: of all samples, valid or not
        spread["share.cov_p"], reference["share.cov_r"] = precise, covered
    table = judged(ids, failed=failed, **columns, **spread)
    return pd.concat([table, judged([f"data-{k}" for k in range(len(data))], DATA, **reference)], ignore_index=True)


def valid_crystals(made: Structures | None, table: pd.DataFrame) -> Structures | None:
    """The samples that passed both checks, in order; None where none did."""
    rows = table[(table["of"] != DATA) & (table["failed"] == "")]
    valid = np.flatnonzero(rows["share.validity"].to_numpy() == 1)
    return made.take(valid) if len(valid) else None


def _add_new(columns: dict, made: Structures, decoded: np.ndarray, valid: np.ndarray, known: Structures) -> None:
    from replimat.evaluation.matching import novel, unique

    if not valid.any():
        return
    rows = np.flatnonzero(valid)
    first = unique(made.take(rows))
    columns["share.uniqueness"][decoded[rows]] = first
    rows = rows[first]
    columns["share.novelty"][decoded[rows]] = novel(made.take(rows), known)


def _spreads(chosen: Structures | None, data: Structures, rows: np.ndarray, n: int) -> tuple[dict, dict]:
    """Properties whose distributions are compared: of the valid samples [n] and of the data [m]."""
    from replimat.evaluation.distributions import density, n_elements

    made, reference = {}, {}
    for name, measure in (("emd.density", density), ("emd.n_elements", n_elements)):
        made[name], reference[name] = np.full(n, np.nan), measure(data)
        if chosen is not None:
            made[name][rows] = measure(chosen)
    return made, reference


def _covered(made: Structures | None, data: Structures, cutoffs, rows: np.ndarray, n: int) -> tuple:
    """Which crystals of the data are covered [m], and which samples cover one [n]."""
    from replimat.evaluation.coverage import coverage, fingerprints

    precise = np.zeros(n)
    if not made:
        return np.zeros(len(data)), precise
    scaler, there = _reference(*(values.tobytes() for values in packed(data).values()))
    covered, hits = coverage(fingerprints(made, scaler), there, cutoffs)
    precise[rows] = hits
    return covered, precise


@lru_cache(maxsize=4)
def _reference(numbers: bytes, positions: bytes, cells: bytes, offsets: bytes) -> tuple:
    """Scaler and fingerprints of the data: seconds, and the same for a generator and all its baselines."""
    from replimat.evaluation.coverage import fingerprints, fit_scaler

    kinds = {"numbers": np.int16, "positions": np.float64, "cells": np.float64, "offsets": np.int64}
    flat = zip(kinds.items(), (numbers, positions, cells, offsets), strict=True)
    arrays = {name: np.frombuffer(values, kind) for (name, kind), values in flat}
    shapes = {"positions": (-1, 3), "cells": (-1, 3, 3)}
    data = unpacked({name: values.reshape(shapes.get(name, -1)) for name, values in arrays.items()})
    scaler = fit_scaler(data)
    return scaler, fingerprints(data, scaler)


def require(said: str, *modules: str) -> None:
    """Training needs the lean stack alone; judging what came of it needs the whole suite. Raises ExperimentError."""
    try:
        for module in modules:
            import_module(module)
    except ImportError as error:
        raise ExperimentError(
            f"{said} ({error}). The trained weights are kept: run `replimat evaluate` where the whole suite is "
            "installed (pip install 'replimat[suite]')."
        ) from error
