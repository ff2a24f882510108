"""Per-atom targets and authors' splits of a dataset: packing, checks, content hash."""

from dataclasses import replace

import numpy as np
import pytest

from projects import Project
from replimat import cards
from replimat.datasets.base import Dataset, Structures
from replimat.datasets.loading import check
from replimat.errors import DataError


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


def hydrogens(forces: np.ndarray, split=(0, 2)) -> Dataset:
    """Two structures: one atom, two atoms."""
    triples = [(np.ones(n, dtype=int), np.arange(3.0 * n).reshape(n, 3), np.zeros((3, 3))) for n in (1, 2)]
    return Dataset(
        name="hydrogens",
        ids=np.array(["a", "b"]),
        structures=Structures.pack(triples, periodic=False),
        targets={"energy": np.array([-1.0, -2.0])},
        units={"energy": "eV", "forces": "eV/angstrom"},
        per_atom={"forces": forces},
        splits={"author": np.array(split, dtype=np.int8)},
    )


def hydrogen_card(project, count: int = 3):
    forces = {"unit": "eV/angstrom", "per": "atom", "description": "d", "count": count, "range": [-5, 5]}
    targets = {"energy": {"unit": "eV", "description": "d"}, "forces": forces}
    project.card("hydrogens", {"kind": "computed", "engine": "none"}, rows=2, periodic=False, targets=targets)
    return cards.dataset("hydrogens")


def test_forces_follow_their_atoms():
    data = hydrogens(np.array([[1.0, 0, 0], [2, 0, 0], [3, 0, 0]]))
    assert data.structures.atoms_of(np.array([1, 0, 1])).tolist() == [1, 2, 0, 1, 2]
    with pytest.raises(DataError, match=r"has no per-atom target 'stress'\. It has: forces"):
        data.atom_target("stress")


@pytest.mark.parametrize(
    ("forces", "count", "message"),
    [
        (np.zeros((2, 3)), 3, "'forces': 2 values for 3 atoms"),
        (np.array([[0.0, 0, 0], [0, np.nan, 0], [0, 0, 0]]), 3, "1 atoms without a finite value, first in b"),
        (np.array([[0.0, 0, 0], [0, 0, 0], [0, -500, 0]]), 3, r"1 values outside \[-5.0, 5.0\] eV/angstrom, first b"),
        (np.zeros((3, 3)), 4, "3 values, its card says 4"),
    ],
)
def test_forces_that_differ_from_the_card_are_named(project, forces, count, message):
    with pytest.raises(DataError, match=message):
        check(hydrogens(forces), hydrogen_card(project, count))


def test_a_split_with_an_unknown_part_is_refused(project):
    with pytest.raises(DataError, match="split 'author': expected one part in -1, 0, 1, 2"):
        check(hydrogens(np.zeros((3, 3)), split=(0, 3)), hydrogen_card(project))


def test_content_hash_sees_forces_and_splits_and_nothing_else_changed():
    data = hydrogens(np.zeros((3, 3)))
    plain = replace(data, per_atom={}, splits={})
    others = [hydrogens(np.full((3, 3), 1e-12)), hydrogens(np.zeros((3, 3)), split=(2, 0)), plain]
    assert len({data.content_sha256(), *(other.content_sha256() for other in others)}) == 4
    # Recorded before datasets had forces: what was hashed then has the same hash now.
    assert plain.content_sha256() == "e6209c0d45dd738cf9358f386951adbffb64e66b82cea0f0fffb08f0934cb166"
