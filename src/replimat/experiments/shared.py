"""What the property papers share: rows that all models are trained and tested on, and kinds of targets."""

from pathlib import Path

ENERGIES = ("formation_energy", "energy_per_atom")  # eV/atom: shares within a threshold are of interest
QM9_TARGETS = ("mu", "alpha", "homo", "lumo", "gap", "r2", "zpve", "u0", "u", "h", "g", "cv")
ROWS = {  # targets whose rows, and so whose split, are taken together
    "qm9": QM9_TARGETS,
    "mp_elastic": ("log10_bulk_modulus", "log10_shear_modulus", "poisson_ratio"),
    "mp_sample": ("fermi_energy", "is_metal"),
}
INTENSIVE = ("homo", "lumo", "gap", "formation_energy", "is_metal")  # do not grow with the number of atoms
WITHOUT_REFERENCES = ("mu", "r2")  # grow, but are no sums of atomic values


def element_features(folder: Path) -> dict:
    """CGCNN's initial element vectors, for the prepared file; folder: the raw files of `cgcnn_weights`."""
    from replimat.models.elements import read_element_features

    return {"element_features": read_element_features(folder / "atom_init.json").numpy()}
