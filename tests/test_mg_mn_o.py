"""Substituted and relaxed crystals of Mg, Mn and O, and the hull they make."""

import numpy as np
import pytest

from replimat.datasets import mg_mn_o
from replimat.datasets.base import Dataset, Structures
from replimat.datasets.chgnet_relaxation import Relaxed
from replimat.datasets.convex_hull import above_hull
from replimat.errors import DataError

ROCKSALT = np.array([[0, 0, 0], [0.5, 0.5, 0.5]])
PEROVSKITE = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def perovskite(a=56, b=22, edge=4.0):
    return np.array([a, b, 8, 8, 8]), PEROVSKITE * edge, np.eye(3) * edge


def pool(*crystals) -> Dataset:
    structures = Structures.pack(list(crystals), periodic=True)
    return Dataset("pool", np.array([f"mp-{k}" for k in range(len(crystals))]), structures,
                   {"space_group": np.full(len(crystals), 221.0)}, {})  # fmt: skip


def test_hull_by_hand():
    """A at 0, B at 0, AB at -1 eV/atom: A3B lies on the line from A to AB at -0.5."""
    known, energy = np.array([[1, 0], [0, 1], [1, 1]]), np.array([0.0, 0.0, -1.0])
    found = above_hull(np.array([[3, 1], [2, 2], [1, 1]]), np.array([-0.3, -1.0, -1.2]), known, energy, ["Mg", "O"])
    assert found == pytest.approx([0.2, 0.0, -0.2])


def test_hull_needs_its_elements():
    with pytest.raises(DataError, match="missing: Mg"):
        above_hull(np.array([[1, 1]]), np.zeros(1), np.array([[1, 1], [0, 1]]), np.zeros(2), ["Mg", "O"])


def test_unknown_energies_stay_unknown():
    known, energy = np.array([[1, 0], [0, 1], [1, 1]]), np.array([0.0, 0.0, np.nan])
    found = above_hull(np.array([[1, 1], [1, 1]]), np.array([np.nan, -0.4]), known, energy, ["Mg", "O"])
    assert np.isnan(found[0]) and found[1] == pytest.approx(-0.4)


def test_either_metal_becomes_magnesium():
    numbers, positions, _ = mg_mn_o.substitute(perovskite(), 22)
    assert numbers.tolist() == [12, 25, 8, 8, 8]
    assert positions[0] == pytest.approx([2, 2, 2]) and positions[1] == pytest.approx([0, 0, 0])


def test_valence_of_manganese_decides():
    """MgMnO3 has Mn +4; with seven O for MgMn (+12) or one (0) there is no such oxide."""
    made = mg_mn_o.substitute(perovskite(), 56)
    assert mg_mn_o.fits(made)
    for oxygen in (1, 7):
        numbers = np.array([12, 25] + [8] * oxygen)
        assert not mg_mn_o.fits((numbers, np.zeros((len(numbers), 3)), np.eye(3)))
    assert not mg_mn_o.fits((np.array([12, 8]), ROCKSALT, np.eye(3)))  # no manganese: a phase of the hull alone


def test_scaled_to_a_bond_length():
    numbers, positions, cell = mg_mn_o.scaled(mg_mn_o.substitute(perovskite(edge=5.0), 56))
    bonds = np.linalg.norm(positions[numbers == 8] - positions[1], axis=1).min(), cell[0, 0] / 2**0.5
    assert np.median(bonds) == pytest.approx(mg_mn_o.BOND) and positions[1] == pytest.approx(cell.sum(axis=0) / 2)


def test_prototypes_are_taken_once():
    found = mg_mn_o.starts(pool(perovskite(), perovskite(38, 40), (np.array([12, 8]), ROCKSALT * 4.2, np.eye(3) * 4.2)))
    assert list(found) == ["mp-2", "mp-0-22-mg", "mp-0-56-mg"] or len(found) == 2
    assert "mp-2" in found and all(not name.startswith("mp-1-") for name in found)


def test_crystals_of_no_metals_are_no_prototypes():
    assert not mg_mn_o.starts(pool(perovskite(56, 16)))  # a sulphate is no pair of metals


def test_energies_and_hull_of_a_set():
    def crystal(*numbers):
        return np.array(numbers), np.random.default_rng(0).random((len(numbers), 3)), np.eye(3) * 5

    structures = Structures.pack([crystal(12), crystal(25), crystal(8, 8), crystal(12, 8), crystal(12, 25, 8, 8)], True)
    found = mg_mn_o.energies(structures, np.array([-1.5, -9.0, -5.0, -6.25, -7.0]))
    assert found["formation_energy"] == pytest.approx([0, 0, 0, -3.0, -7 + 20.5 / 4])
    assert found["e_above_hull"] == pytest.approx([0, 0, 0, 0, 0])  # -1.875 lies below what MgO, Mn and O give, -1.5
    with pytest.raises(DataError, match="No crystal of Mn"):
        mg_mn_o.energies(structures.take([0, 2, 3]), np.array([-1.5, -5.0, -6.25]))


def test_twins_are_named():
    one = Relaxed(perovskite(12, 25), -7.0, 0.05, 3)
    again = Relaxed(perovskite(12, 25, edge=4.001), -7.0005, 0.05, 3)
    other = Relaxed(perovskite(12, 25), -7.1, 0.05, 3)
    kept, twins = mg_mn_o.without_twins({"a": one, "b": again, "c": other})
    assert list(kept) == ["a", "c"] and twins == {"b": "relaxes to the same as a"}


def test_finished_blocks_are_kept(tmp_path, monkeypatch):
    done = []

    def relax(crystal, fmax, steps):
        done.append(1)
        return Relaxed(crystal, -7.0, 0.1, 2, "" if len(done) > 1 else "its volume runs away")

    monkeypatch.setattr(mg_mn_o, "relaxed", relax)
    started = {f"x{k}": perovskite(12, 25, edge=4 + k / 10) for k in range(13)}
    first = mg_mn_o.relax_all(started, tmp_path, "test")
    (tmp_path / "relaxed-10.npz").unlink()  # killed in the second block
    again = mg_mn_o.relax_all(started, tmp_path, "test")
    assert len(done) == 16 and list(again) == list(started) and again["x0"].failed == "its volume runs away"
    assert again["x12"].crystal[2] == pytest.approx(first["x12"].crystal[2])


def test_chgnet_gives_measured_formation_energies():
    """MgO: measured -3.12 eV/atom; the corrections of the training energies are in it."""
    pytest.importorskip("chgnet")
    from ase.build import bulk

    from replimat.datasets.chgnet_relaxation import relaxed

    def energy(atoms):
        found = relaxed((atoms.numbers, atoms.positions, atoms.cell.array), 0.1, 10)
        assert not found.failed and found.force < 0.1
        return found.energy

    oxide, metal = energy(bulk("MgO", "rocksalt", 4.25)), energy(bulk("Mg"))
    assert oxide - (metal - 4.95) / 2 == pytest.approx(-3.12, abs=0.1)  # O2 of the Materials Project: -4.95 eV/atom


def test_a_crystal_that_falls_apart_is_named():
    pytest.importorskip("chgnet")
    from replimat.datasets.chgnet_relaxation import relaxed

    alone = relaxed((np.array([12]), np.zeros((1, 3)), np.eye(3) * 12), 0.1, 3)
    assert alone.failed and np.isnan(alone.energy)
