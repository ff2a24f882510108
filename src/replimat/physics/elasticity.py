"""Elastic constants from stresses of strained cells, and averages of a polycrystal.

C_IJ = d sigma_I / d eps_J at zero stress, in Voigt order xx, yy, zz, yz, xz, xy with engineering shears. Each strain is
applied both ways and the atoms are relaxed in it (diamond's c44 needs that: its two atoms move against each other).

Averages: Voigt for uniform strain, Reuss for uniform stress, Hill their mean (R. Hill, Proc. Phys. Soc. A 65, 349
(1952)).

Differs from the authors of mlearn, who strain by 1e-6 after moving atoms by 1e-5 at random: that strain is safe only
where forces are exact to 1e-10 eV/angstrom. Noise of a stress counts as 1/strain, what a central difference leaves of
the non-linear as its square. With the official SNAP of Mo, Cu and Si the constants at the default, 1e-3, are those at
1e-5 to 0.01 % (those at 1e-2 to 0.4 %); to keep noise below 0.1 % of c, stresses need 1e-6 c, some 1e-4 GPa.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.stress import voigt_6_to_full_3x3_strain

from replimat.errors import ReplimatError
from replimat.physics.crystals import Crystal
from replimat.physics.found import Found
from replimat.physics.relaxation import relax, relaxed_crystal

SHEARS = slice(3, 6)
CUBIC_GROUPS = {  # entries of the tensor that are equal in a cubic crystal along Cartesian axes
    "c11": ([0, 1, 2], [0, 1, 2]),
    "c12": ([0, 0, 1], [1, 2, 2]),
    "c44": ([3, 4, 5], [3, 4, 5]),
}
AXIAL_GROUPS = {
    "c11": ([0, 1], [0, 1]),
    "c12": ([0], [1]),
    "c13": ([0, 1], [2, 2]),
    "c33": ([2], [2]),
    "c44": ([3, 4], [3, 4]),
}


@dataclass(frozen=True)
class Averages:
    """Of a polycrystal: bulk, shear, young in GPa; poisson without unit. Voigt-Reuss-Hill."""

    bulk: float
    shear: float
    young: float
    poisson: float


def elastic_tensor(atoms: Atoms, strain: float = 1e-3, fmax: float = 1e-6) -> np.ndarray:
    """6x6 tensor in GPa of a crystal that is relaxed and has a calculator; made symmetric.

    strain: size of the strain, engineering for shears; fmax: eV/angstrom, to which atoms are relaxed in every strained
    cell (a remaining force f falsifies a stress by about f * d / V, for 1e-6 some 1e-4 of C * strain).
    """
    columns = []
    for voigt in np.eye(6) * strain:
        plus, minus = (_stress(atoms, sign * voigt, fmax) for sign in (1, -1))
        columns.append((plus - minus) / (2 * strain * units.GPa))
    tensor = np.stack(columns, axis=1)
    return (tensor + tensor.T) / 2


def averages(tensor: np.ndarray) -> Averages:
    """Voigt-Reuss-Hill averages of a 6x6 tensor (GPa) of any symmetry. Raises ReplimatError if it is not stable."""
    lowest = float(np.linalg.eigvalsh(tensor)[0])
    if lowest <= 0:
        raise ReplimatError(f"The crystal is not elastically stable: lowest eigenvalue {lowest:.3g} GPa (Born).")
    voigt, reuss = _moduli(tensor), _compliance_moduli(np.linalg.inv(tensor))
    bulk, shear = ((v + r) / 2 for v, r in zip(voigt, reuss, strict=True))
    young = 9 * bulk * shear / (3 * bulk + shear)
    return Averages(bulk, shear, young, (3 * bulk - 2 * shear) / (6 * bulk + 2 * shear))


def rotated(tensor: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """The 6x6 tensor of the crystal turned by the matrix `turn` (x' = turn x)."""
    index = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])  # Voigt's number of ij
    full = tensor[index[:, :, None, None], index[None, None]]  # C_ijkl
    full = np.einsum("ai,bj,ck,dl,ijkl->abcd", turn, turn, turn, turn, full)
    i, j = np.array([0, 1, 2, 1, 0, 0]), np.array([0, 1, 2, 2, 2, 1])
    return full[i[:, None], j[:, None], i, j]


def elasticity(calculator, crystal: Crystal, strain: float = 1e-3, fmax: float = 1e-6) -> Found:
    """c11, c12, c44 (hexagonal and tetragonal also c13, c33), bulk_modulus, shear_modulus, young_modulus [GPa],
    poisson_ratio [1] at zero pressure; curves: the whole tensor and its eigenvalues.

    A crystal that is not stable (Born: an eigenvalue is not positive) has its constants, but no averages.
    """
    atoms = relaxed_crystal(calculator, crystal).primitive()
    atoms.calc = calculator
    tensor = elastic_tensor(atoms, strain, fmax)
    eigenvalues = np.linalg.eigvalsh(tensor)
    groups = CUBIC_GROUPS if crystal.cubic else AXIAL_GROUPS
    values = {name: float(tensor[entries].mean()) for name, entries in groups.items()}
    stable = bool(eigenvalues[0] > 0)
    unitless = {"poisson_ratio": "1"} if stable else {}
    if stable:
        mean = averages(tensor)
        values |= {"bulk_modulus": mean.bulk, "shear_modulus": mean.shear, "young_modulus": mean.young}
        values["poisson_ratio"] = mean.poisson
    curves = {"elastic_tensor": tensor.tolist(), "eigenvalues": eigenvalues.tolist(), "born_stable": stable}
    return Found(values, dict.fromkeys(values, "GPa") | unitless, curves)


def _stress(atoms: Atoms, voigt: np.ndarray, fmax: float) -> np.ndarray:
    """Stress in eV/angstrom^3 (Voigt) under a symmetric strain, atoms relaxed."""
    deformation = voigt_6_to_full_3x3_strain(voigt)  # identity and strain together
    strained = atoms.copy()
    strained.calc = atoms.calc
    strained.set_cell(atoms.cell.array @ deformation, scale_atoms=True)
    if len(strained) > 1:  # a lone atom of a primitive cell is a centre of inversion: no force
        relax(strained, fmax)
    return strained.get_stress()


def _moduli(c: np.ndarray) -> tuple[float, float]:
    diagonal, beside = np.trace(c[:3, :3]), c[0, 1] + c[0, 2] + c[1, 2]
    return float((diagonal + 2 * beside) / 9), float((diagonal - beside + 3 * np.trace(c[SHEARS, SHEARS])) / 15)


def _compliance_moduli(s: np.ndarray) -> tuple[float, float]:
    diagonal, beside = np.trace(s[:3, :3]), s[0, 1] + s[0, 2] + s[1, 2]
    shear = 15 / (4 * diagonal - 4 * beside + 3 * np.trace(s[SHEARS, SHEARS]))
    return float(1 / (diagonal + 2 * beside)), float(shear)
