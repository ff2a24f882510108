"""What the arrays of a prepared file are called, and the test values in them.

`part` [n]: 0 train, 1 validation, 2 test; `fold` [n]: in cross-validation the fold that tests the row, all being test
rows; `target.<name>` [n]: one value per structure; `atoms.<name>` [N, ...]: values of every atom, forces [N, 3] for
example; `offsets` [n + 1]: where the atoms of each structure begin.
"""

import numpy as np

from replimat.datasets.base import atoms_of

TEST = 2


def test_values(arrays: dict[str, np.ndarray], ids: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Test ids and true values by target: of structures [n], of the components of atoms' values one by one.

    ids: of all structures [n]. A component is called <id>:<atom>:<component>, both counted from 0.
    """
    test = arrays["part"] == TEST
    found = {}
    for name, values in arrays.items():
        kind, _, target = name.partition(".")
        if kind == "target":
            found[target] = ids[test], values[test]
        elif kind == "atoms":
            found[target] = _components(values, np.asarray(ids), arrays["offsets"], np.flatnonzero(test))
    return found


def _components(values, ids, offsets, rows) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.diff(offsets)[rows]
    atoms = atoms_of(offsets, rows)
    flat = values[atoms].reshape(len(atoms), -1)  # [atoms, K]
    atom = atoms - np.repeat(offsets[rows], sizes)  # number inside its structure
    names = np.array(
        [f"{s}:{a}:{k}" for s, a in zip(np.repeat(ids[rows], sizes), atom, strict=True) for k in range(flat.shape[1])]
    )
    return names, flat.ravel()
