"""What the property papers share: rows that all models are trained and tested on, and kinds of targets."""

from pathlib import Path

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.experiments.base import Selection

ENERGIES = ("formation_energy", "energy_per_atom")  # eV/atom: shares within a threshold are of interest
QM9_TARGETS = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u", "h", "g", "cv")
ROWS = {  # targets whose rows, and so whose split, are taken together
    "qm9": QM9_TARGETS,
    "mp_elastic": ("log10_bulk_modulus", "log10_shear_modulus", "poisson_ratio"),
    "mp_sample": ("fermi_energy", "is_metal"),
}
INTENSIVE = ("homo", "lumo", "gap", "formation_energy", "is_metal")  # do not grow with the number of atoms
WITHOUT_REFERENCES = ("mu", "r2")  # grow, but are no sums of atomic values


def selection(card: ExperimentCard, settings: ScaleSettings, rows: dict = ROWS, **others) -> Selection:
    """The rows of a card at a scale; rows: targets taken together, by dataset; others: fields of Selection."""
    together = rows.get(card.dataset, (card.target,))
    return Selection(card.dataset, together, settings.n_train, settings.n_val, settings.n_test, **others)


def element_features(folder: Path) -> dict:
    """CGCNN's initial element vectors, for the prepared file; folder: the raw files of `cgcnn_weights`."""
    from replimat.models.elements import read_element_features

    return {"element_features": read_element_features(folder / "atom_init.json").numpy()}
