"""Weighed mixtures of clay minerals and the reference patterns of RockJock (D. D. Eberl, USGS OFR 03-78 (2003)).

The files are R data of the package powdR (B. M. Butler, S. Hillier, Comput. Geosci. 147, 104662 (2021)). The
reference intensity ratio (RIR) scales the references to equal weights; that of corundum is 1.
"""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from replimat.cards import DatasetCard
from replimat.datasets.patterns import TWO_THETA, MeasuredPatterns
from replimat.errors import DataError

WAVELENGTH = 1.5418  # angstrom, copper K alpha
BACKGROUND = "Background"  # phase of the two constant curves among the references
# Columns of the weighed truth -> phase names among the references. Smectites of either kind are named there.
PHASES = {
    "Quartz": "Quartz",
    "K_feldspar": "K-feldspar",
    "Plagioclase": "Plagioclase",
    "Kaolinite": "Kaolinite",
    "Dioctahedral_smectite": "Smectite (Di)",
    "Illite": "Illite",
    "Corundum": "Corundum",
}


@dataclass(frozen=True)
class References:
    """R reference patterns on one axis, two theta in degree [P]: names, phases [R], intensities [R, P], RIR [R]."""

    names: np.ndarray
    phases: np.ndarray
    axis: np.ndarray
    intensities: np.ndarray
    rir: np.ndarray


def read_patterns(folder: Path, card: DatasetCard) -> MeasuredPatterns:
    """The mixtures; label weights [n, 7] in % of the phases of PHASES, in that order."""
    mixtures = _object(folder / "rockjock_mixtures.rda", "rockjock_mixtures")
    truth = _object(folder / "rockjock_weights.rda", "rockjock_weights")
    try:
        truth = truth.set_index("sample_id")
        ids = [str(name) for name in mixtures]
        weights = truth.loc[ids, list(PHASES)].to_numpy(dtype=np.float64)
        curves = [mixtures[name][["tth", "counts"]].to_numpy(dtype=np.float64) for name in mixtures]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder}: not the expected mixtures and weights ({error}).") from error
    return MeasuredPatterns(
        name=card.name,
        ids=np.array(ids),
        axis=[curve[:, 0] for curve in curves],
        intensity=[curve[:, 1] for curve in curves],
        labels={"weights": weights},
        axis_name=TWO_THETA,
        wavelengths=np.full(len(ids), WAVELENGTH),
    )


def read_references(folder: Path, card: DatasetCard) -> References:
    """The reference patterns; those of phase BACKGROUND are two constant curves. Raises DataError."""
    content = _object(folder / "rockjock.rda", "rockjock")
    try:
        curves, phases = content["xrd"], content["phases"].set_index("phase_id")
        names = [str(name) for name in curves.columns]
        references = References(
            names=np.array(names),
            phases=phases.loc[names, "phase_name"].to_numpy(dtype=str),
            axis=np.asarray(content["tth"], dtype=np.float64),
            intensities=curves.to_numpy(dtype=np.float64).T,
            rir=phases.loc[names, "rir"].to_numpy(dtype=np.float64),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{folder}: not the expected reference patterns ({error}).") from error
    if not (np.isfinite(references.intensities).all() and (references.rir > 0).all()):
        raise DataError(f"Dataset {card.name!r}: a reference intensity or its RIR is not usable.")
    return references


def _object(path: Path, name: str):
    """The object `name` of a file of R data, data frames as pandas has them. Raises DataError."""
    import rdata

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # powdR's own classes are lists and data frames by another name
            return rdata.read_rda(path)[name]
    except Exception as error:  # the parser raises whatever a damaged byte leads it to
        raise DataError(f"{path}: not readable as R data with {name!r} ({type(error).__name__}: {error}).") from error
