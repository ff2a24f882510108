"""Periodic neighbour lists: ours against pymatgen, vesin, matscipy and ase.

    python benchmarks/neighbour_list.py

Ours is pymatgen's C routine plus a reproducible order of the edges; "pymatgen" is that routine alone, whose order is
unspecified, as is that of the others. All give receivers, senders, images and distances of all pairs within the cutoff.
"""

import numpy as np
from common import OURS, Missing, keep, peer, rows, seconds

from replimat.datasets import load
from replimat.representations.neighbours import neighbours

CUTOFFS = (5.0, 6.0, 8.0)  # angstrom
DIAMOND = (1, 4, 8)  # cells along each edge: 8, 512 and 4096 atoms
SLOW_ABOVE = 600  # atoms: one round is enough there
CRYSTALS = 200  # of mp_flla, evenly taken


def diamond(cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cell of a cubic supercell of diamond, 8 atoms per cube of 3.567 angstrom."""
    corner = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]]) / 4
    basis = np.concatenate([corner, corner + 0.25])
    grid = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    return 3.567 * (grid + basis).reshape(-1, 3), 3.567 * cells * np.eye(3)


def implementations() -> dict:
    """Name -> function of (positions, cell, cutoff) that returns the distances of all pairs."""
    found = {OURS: lambda x, cell, cutoff: neighbours(x, cell, cutoff).distance}
    for name, make in {"vesin": _vesin, "pymatgen": _pymatgen, "matscipy": _matscipy, "ase": _ase}.items():
        try:
            found[name] = make()
        except Missing as reason:
            print(f"left out: {reason}")
    return found


def _vesin():
    NeighborList = peer("vesin").NeighborList
    return lambda x, cell, cutoff: NeighborList(cutoff=cutoff, full_list=True, n_threads=1).compute(
        x, cell, True, "ijSd"
    )[3]


def _pymatgen():
    find = peer("pymatgen.optimization.neighbors").find_points_in_spheres
    periodic = np.ones(3, dtype=np.int64)

    def distances(
        x, cell, cutoff
    ):  # the C routine beneath Structure.get_neighbor_list; it counts an atom as its own neighbour
        found = find(x, x, r=cutoff, pbc=periodic, lattice=cell, tol=1e-8)[3]
        return found[found > 1e-8]

    return distances


def _matscipy():
    neighbour_list = peer("matscipy.neighbours").neighbour_list
    return lambda x, cell, cutoff: neighbour_list("ijSd", positions=x, cell=cell, pbc=[True] * 3, cutoff=cutoff)[3]


def _ase():
    neighbour_list = peer("ase.neighborlist").primitive_neighbor_list
    return lambda x, cell, cutoff: neighbour_list("ijSd", [True] * 3, cell, x, cutoff)[3]


def measure(found: dict, case: str, crystals: list, cutoff: float) -> list[dict]:
    """Milliseconds per crystal of each implementation; refuses to compare unequal answers."""
    calls = {name: lambda f=f: [f(x, cell, cutoff) for x, cell in crystals] for name, f in found.items()}
    answers = {name: np.sort(np.concatenate(call())) for name, call in calls.items()}
    for name, answer in answers.items():
        if not (len(answer) == len(answers[OURS]) and np.allclose(answer, answers[OURS], atol=1e-6)):
            raise SystemExit(
                f"{name} finds {len(answer)} pairs, we find {len(answers[OURS])}: {case}, {cutoff} angstrom"
            )
    repeats = 1 if max(len(x) for x, _ in crystals) > SLOW_ABOVE else 3
    times = {name: 1000 * t / len(crystals) for name, t in seconds(calls, repeats).items()}
    return rows("neighbour list", f"{case}, {cutoff:g} A", times, "ms/crystal")


def main() -> None:
    found = implementations()
    structures = load("mp_flla").structures
    chosen = np.linspace(0, len(structures) - 1, CRYSTALS).astype(int)
    crystals = [(structures[s][1], structures[s][2]) for s in chosen]
    results = []
    for cutoff in CUTOFFS:
        results += measure(found, f"{CRYSTALS} crystals of mp_flla", crystals, cutoff)
        for cells in DIAMOND:
            few = {name: f for name, f in found.items() if name != "ase" or cells < max(DIAMOND)}  # half a minute each
            results += measure(few, f"diamond, {8 * cells**3} atoms", [diamond(cells)], cutoff)
    keep(results)


if __name__ == "__main__":
    main()
