"""Zuo et al.: GAP, MTP, NNP, SNAP and qSNAP for six elements, fitted to the same frames, and the physics of each; the
SNAP, qSNAP and networks that the authors released besides.
"""

from functools import partial

from replimat.cards import ExperimentCard, ScaleSettings
from replimat.datasets.mlearn import SPLIT
from replimat.experiments.base import AuthorWeights, Potential, Studies
from replimat.experiments.shared import selection
from replimat.representations.cutoff_graph import CutoffGraph
from replimat.training.settings import Scaling

REACH = 5.61  # angstrom: the longest cutoff of all, so that the potentials of an element share one prepared file
CRYSTALS = {  # lattice, lattice constant in angstrom where relaxations start
    "ni": ("fcc", 3.51),
    "cu": ("fcc", 3.62),
    "li": ("bcc", 3.43),
    "mo": ("bcc", 3.17),
    "si": ("diamond", 5.47),
    "ge": ("diamond", 5.76),
}
SNAP = {"ni": (4.1, 8), "cu": (4.1, 8), "li": (5.1, 8), "mo": (4.6, 6), "si": (4.9, 8), "ge": (5.5, 8)}
QSNAP = {"ni": (3.8, 6), "cu": (3.9, 6), "li": (5.1, 6), "mo": (5.2, 6), "si": (4.8, 8), "ge": (4.9, 6)}
GAP = {  # cutoff in angstrom, energy of an atom in eV
    "ni": (3.9, -0.97),
    "cu": (4.1, -0.65),
    "li": (4.8, -0.21),
    "mo": (5.2, -4.04),
    "si": (5.4, -0.79),
    "ge": (5.4, -0.79),
}
MTP = {"ni": 4.1, "cu": 4.1, "li": 5.1, "mo": 5.0, "si": 5.0, "ge": 5.4}  # not found in the paper
SHORT, LONG = (0.01, 0.02, 0.05), (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # eta, 1/bohr^2
NNP = {  # cutoff in angstrom, eta of both kinds of functions, shifts in angstrom, zeta, hidden nodes
    "ni": (3.9, SHORT, (0,), (1, 2, 4, 16), (24, 24)),
    "cu": (4.1, SHORT, (3,), (1, 2, 4, 16), (8, 8)),
    "li": (5.2, LONG, (0, 1, 2, 3, 4), (1, 2, 4, 16), (24, 24)),
    "mo": (5.2, SHORT, (0, 1, 2, 3, 4), (1, 2, 4, 16), (16, 16)),
    "si": (5.5, SHORT, (4,), (1, 2, 4, 16), (24, 24)),
    "ge": (5.6, LONG, (4,), (1,), (24, 24)),
}


def build(card: ExperimentCard, settings: ScaleSettings, scale: str) -> Potential | AuthorWeights:
    element, kind = card.dataset.removeprefix("mlearn_"), settings.model["potential"]
    shared = {
        "data": selection(card, settings, per_atom=("forces",), split=SPLIT),
        "representation": CutoffGraph(cutoff=REACH),
        "double": True,
        "studies": studies(element, scale),
    }
    if card.weights:
        load = partial(official, element=element, kind=kind)
        return AuthorWeights(target=card.target, load=load, weights=card.weights, **shared)
    model, solve = POTENTIALS[kind](element, settings)
    return Potential(target=card.target, model=model, solve=solve, scaling=Scaling(references="none"), **shared)


def official(folder, arrays, element: str, kind: str):
    """The authors' SNAP, qSNAP or network; their energies are whole, so nothing is scaled."""
    from replimat.models.nnp import read_n2p2
    from replimat.models.snap import read_snap
    from replimat.training.scaling import standardised

    symbol = element.capitalize()
    model = read_n2p2(folder / symbol / "nnp") if kind == "nnp" else read_snap(folder, symbol, kind == "qsnap")
    return model, standardised(0.0, 1.0)


# ------------------------------------------------------------- potentials: (element, settings) -> (model, solve)


def snap(element: str, settings: ScaleSettings, table: dict = SNAP, quadratic: bool = False):
    def model(arrays):
        from replimat.models.snap import Snap

        return Snap(*table[element], quadratic=quadratic, atomic_number=int(arrays["numbers"][0]))

    def solve(model, graphs, rows, seed):
        from replimat.training.least_squares import least_squares

        least_squares(model, graphs, rows, {"energy": settings.model["energy_weight"], "forces": 1.0})

    return model, solve


def gap(element: str, settings: ScaleSettings):
    def model(arrays):
        from replimat.models.gap import Gap

        cutoff, e0 = GAP[element]
        return Gap(int(arrays["numbers"][0]), cutoff, settings.model["n_sparse"], e0=e0)

    def solve(model, graphs, rows, seed):
        from replimat.training import gap

        gap.solve(model, graphs, rows, seed)

    return model, solve


def mtp(element: str, settings: ScaleSettings):
    def model(arrays):
        from replimat.models.mtp import Mtp

        return Mtp(MTP[element], settings.model["level"], element=int(arrays["numbers"][0]))

    def solve(model, graphs, rows, seed):
        from replimat.training import lbfgs

        lbfgs.solve(model, graphs, rows, seed, settings.model["iterations"], search=settings.model["search_frames"])

    return model, solve


def nnp(element: str, settings: ScaleSettings):
    def model(arrays):
        from ase.units import Bohr

        from replimat.models.nnp import Nnp

        cutoff, etas, shifts, zetas, hidden = NNP[element]
        etas = [eta / Bohr**2 for eta in etas]
        radial = [(eta, shift) for eta in etas for shift in shifts]
        angular = [(eta, sign, zeta) for eta in etas for sign in (-1, 1) for zeta in zetas]
        return Nnp(cutoff, radial, angular, hidden, number=int(arrays["numbers"][0]))

    def solve(model, graphs, rows, seed):
        from replimat.training.from_functions import fit_network

        weights = {"energy": settings.model["energy_weight"], "forces": 1.0}
        fit_network(model, graphs, rows, seed, epochs=settings.epochs, weights=weights, lr=settings.lr)

    return model, solve


POTENTIALS = {
    "snap": snap,
    "qsnap": partial(snap, table=QSNAP, quadratic=True),
    "gap": gap,
    "mtp": mtp,
    "nnp": nnp,
}


# ---------------------------------------------------------------- physics


def studies(element: str, scale: str) -> Studies:
    """The paper's property calculators, and what else a potential is good for; smaller below paper scale."""
    return {name: _study(name, element, settings) for name, settings in PHYSICS[scale].items()}


SMALL = {"fcc": 2, "bcc": 3, "diamond": 2}  # conventional cells along each axis below paper scale
PHYSICS = {  # study -> its settings, or a setting by lattice
    "smoke": {"cost": {"times": 1}, "lattice": {}},
    "laptop": {
        "cost": {},
        "lattice": {},
        "elasticity": {},
        "equation_of_state": {},
        "polymorphs": {},
        "phonons": {"minimum_edge": 8.0},
        "vacancy": {"repeats": SMALL, "images": 5, "fmax": 0.02, "fmax_path": 0.05},
        "surfaces": {"thickness": 12.0, "fmax": 0.02},
        "stacking_fault": {"points": 5, "thickness": 14.0, "fmax": 0.02},
        "solid": {"repeats": SMALL, "equilibration_ps": 0.4, "sampling_ps": 0.4, "conservation_ps": 0.2},
    },
    "paper": {
        "cost": {},
        "lattice": {},
        "elasticity": {},
        "equation_of_state": {},
        "polymorphs": {},
        "phonons": {},
        "vacancy": {},
        "surfaces": {},
        "stacking_fault": {},
        "solid": {"equilibration_ps": 0.4, "sampling_ps": 0.8, "conservation_ps": 0.3},
    },
}


def _study(name: str, element: str, settings: dict):
    """ASE calculator -> Found; ase and the study are imported when it is called."""

    def study(calculator):
        from replimat.physics import (
            cost,
            dynamics,
            elasticity,
            equation_of_state,
            phonons,
            polymorphs,
            relaxation,
            stacking,
            surfaces,
            vacancy,
        )
        from replimat.physics.crystals import Crystal

        lattice, a = CRYSTALS[element]
        functions = {
            "cost": cost.cost,
            "lattice": relaxation.lattice_constant,
            "elasticity": elasticity.elasticity,
            "equation_of_state": equation_of_state.equation_of_state,
            "polymorphs": polymorphs.polymorphs,
            "phonons": phonons.phonons,
            "vacancy": vacancy.vacancy,
            "surfaces": surfaces.surfaces,
            "stacking_fault": stacking.stacking_fault,
            "solid": dynamics.solid,
        }
        own = {key: value[lattice] if isinstance(value, dict) else value for key, value in settings.items()}
        return functions[name](calculator, Crystal(element.capitalize(), lattice, a), **own)

    return study
