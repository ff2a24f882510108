"""What generated points and elements are as molecules: bonds, topology, conformation and energy.

Bonds are perceived from the points alone by Open Babel (N. M. O'Boyle et al., J. Cheminf. 3, 33 (2011)): atoms are
joined by covalent radii, bonds beyond an atom's valence are dropped, bond orders follow from angles. Conformations are
compared as by M. Hoffmann and F. Noé (arXiv:1910.03131, section 4): atoms of an element are assigned to each other by
their mean squared distance to all atoms (eq. 14), the structures are superposed, and the largest distance of a heavy
atom counts. Energies are those of GFN2-xTB (C. Bannwarth et al., J. Chem. Theory Comput. 15, 1652 (2019)).
"""

from dataclasses import dataclass

import numpy as np

from replimat.datasets.base import Structures
from replimat.errors import DataError

VALENCES = {1: 1, 6: 4, 7: 3, 8: 2, 9: 1}  # of the neutral atoms of QM9
CONFORMER_CUTOFF = 0.6  # angstrom (Hoffmann and Noé): farther apart are two conformations
EUCLIDEAN_TOLERANCE = 1e-4  # of the largest eigenvalue: single precision leaves 1e-6
RELAXED, STEPS = 0.05, 200  # eV/angstrom, of the largest force, and the steps to get there


# ------------------------------------------------------------------- bonds


@dataclass(frozen=True)
class Perceived:
    """Bonds of n molecules. valid: one connected piece in which every atom has its valence [n]; satisfied: share of the
    atoms that have it [n]; smiles: canonical and without stereo, "" where not valid [n].
    """

    valid: np.ndarray
    satisfied: np.ndarray
    smiles: np.ndarray


def perceive(molecules: Structures) -> Perceived:
    """Bonds of molecules from their points. An atom with a charge, an unpaired electron or an element that VALENCES
    lacks has not its valence.
    """
    found = [_perceived(*molecules[s][:2]) for s in range(len(molecules))]
    smiles, satisfied = zip(*found, strict=True)
    return Perceived(np.array([one != "" for one in smiles]), np.array(satisfied), np.array(smiles))


def _perceived(numbers: np.ndarray, positions: np.ndarray) -> tuple[str, float]:
    """SMILES of a valid molecule, "" of any other; share of its atoms whose bonds add up to their valence."""
    from openbabel import openbabel as ob

    ob.obErrorLog.SetOutputLevel(ob.obError)
    molecule = ob.OBMol()
    molecule.BeginModify()
    for number, place in zip(numbers, positions, strict=True):
        atom = molecule.NewAtom()
        atom.SetAtomicNum(int(number))
        atom.SetVector(*map(float, place))
    molecule.EndModify()
    molecule.ConnectTheDots()
    molecule.PerceiveBondOrders()
    satisfied = [_satisfied(atom) for atom in ob.OBMolAtomIter(molecule)]
    share = float(np.mean(satisfied))
    if not all(satisfied) or len(molecule.Separate()) != 1:
        return "", share
    writer = ob.OBConversion()
    writer.SetOutFormat("can")
    writer.AddOption("i", writer.OUTOPTIONS)  # neither isotopes nor stereo
    writer.AddOption("n", writer.OUTOPTIONS)  # no title
    return writer.WriteString(molecule).split()[0], share


def _satisfied(atom) -> bool:
    neutral = not atom.GetFormalCharge() and not atom.GetSpinMultiplicity()
    return neutral and atom.GetExplicitValence() == VALENCES.get(atom.GetAtomicNum())


# --------------------------------------------------------------- distances


def is_euclidean(squared: np.ndarray, dimension: int = 3, tolerance: float = EUCLIDEAN_TOLERANCE) -> np.ndarray:
    """Which matrices [n, A, A] are squared distances of points in so many dimensions [n] (Schoenberg; Gower).

    They are symmetric, zero on the diagonal, and -J D J / 2 with J = 1 - 11^T / A has no negative and no more than
    `dimension` positive eigenvalues, within tolerance times the largest.
    """
    squared = np.asarray(squared, dtype=np.float64)
    n, atoms = squared.shape[:2]
    centring = np.eye(atoms) - 1 / atoms
    values = np.linalg.eigvalsh(-0.5 * centring @ squared @ centring)  # ascending
    limit = tolerance * np.abs(values).max(axis=1)
    flat = np.abs(values[:, : atoms - dimension]).max(axis=1, initial=0) <= limit
    symmetric = np.abs(squared - squared.transpose(0, 2, 1)).reshape(n, -1).max(axis=1) <= limit
    hollow = np.abs(np.diagonal(squared, axis1=1, axis2=2)).max(axis=1) <= limit
    return flat & (values[:, 0] >= -limit) & symmetric & hollow


# ----------------------------------------------------------- conformations


def heavy_points(molecules: Structures) -> np.ndarray:
    """Heavy atoms of molecules that have the same atoms, centred [n, h, 3].

    In every molecule they stand in an order in which those at one place are assigned to each other at the least cost of
    eq. 14, which is that of points on a line: by element, then by mean squared distance to all atoms. Raises DataError
    for molecules of other atoms.
    """
    sizes = molecules.sizes
    if len(set(sizes.tolist())) > 1:
        raise DataError(
            "Conformations are compared between molecules of the same atoms; these have other numbers of them."
        )
    z = molecules.numbers.reshape(len(molecules), -1)
    x = molecules.positions.reshape(*z.shape, 3)
    if (np.sort(z, axis=1) != np.sort(z[0])).any():
        raise DataError("Conformations are compared between molecules of the same atoms; these differ in elements.")
    spread = x - x.mean(axis=1, keepdims=True)
    mean = (spread**2).sum(axis=2)  # the mean squared distance to all atoms, but for what all atoms share
    order = np.lexsort((mean, z))
    chosen = order[np.take_along_axis(z, order, axis=1) > 1].reshape(len(z), -1)
    heavy = np.take_along_axis(x, chosen[..., None], axis=1)
    return heavy - heavy.mean(axis=1, keepdims=True)


def farthest_atom(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Largest distance between atoms of the same place once superposed, angstrom [m]; one [h, 3], others [m, h, 3], all
    centred.

    Of a structure and its mirror image the nearer counts: distances do not tell them apart.
    """
    u, _, vt = np.linalg.svd(np.einsum("hi,mhj->mij", one, others))
    found = []
    for mirror in (1.0, -1.0):
        turn = np.ones((len(others), 1, 3))
        turn[:, 0, 2] = mirror * np.sign(np.linalg.det(u @ vt))
        found.append(np.linalg.norm(one @ (u * turn) @ vt - others, axis=2).max(axis=1))
    return np.minimum(*found)


def near(one: np.ndarray, others: np.ndarray, cutoff: float = CONFORMER_CUTOFF) -> bool:
    """Whether a structure [h, 3] is the conformation of any of the others [m, h, 3]."""
    reach = np.abs(np.linalg.norm(one, axis=1) - np.linalg.norm(others, axis=2)).max(axis=1)
    close = others[reach <= cutoff]  # no rotation brings an atom nearer than its distance to the centre allows
    return bool(len(close)) and bool((farthest_atom(one, close) <= cutoff).any())


def distinct(made: np.ndarray, cutoff: float = CONFORMER_CUTOFF) -> np.ndarray:
    """Which of made [n, h, 3] are not the conformation of one that stands before them and is kept [n]."""
    kept: list[int] = []
    for k in range(len(made)):
        if not near(made[k], made[kept], cutoff):
            kept.append(k)
    return np.isin(np.arange(len(made)), kept)


# ---------------------------------------------------------------- energies


def energies(molecules: Structures, relax: bool = True) -> np.ndarray:
    """Total energies by GFN2-xTB, of the points as given or relaxed, eV [n]; NaN where electrons or points do not
    converge.
    """
    from replimat.representations.conversion import as_atoms

    return np.array([_energy(atoms, relax) for atoms in as_atoms(molecules)])


def _energy(atoms, relax: bool) -> float:
    from ase.calculators.calculator import CalculationFailed
    from ase.optimize import LBFGS
    from tblite.ase import TBLite

    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    try:
        if relax and not LBFGS(atoms, logfile=None).run(fmax=RELAXED, steps=STEPS):
            return np.nan
        return float(atoms.get_potential_energy())
    except CalculationFailed:
        return np.nan
