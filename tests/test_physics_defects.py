"""Vacancies, surfaces, slip and polymorphs, against answers known by hand or from another way to the same number."""

import numpy as np
import pytest
from ase.calculators.emt import EMT
from ase.neighborlist import neighbor_list

from replimat.errors import ReplimatError
from replimat.physics.crystals import Crystal, of_volume
from replimat.physics.polymorphs import polymorphs
from replimat.physics.relaxation import relax, relaxed_crystal
from replimat.physics.stacking import stacking_fault
from replimat.physics.surfaces import JOULE_PER_M2, area, planes, slab, surfaces
from replimat.physics.vacancy import _ends, vacancy, vacancy_formation
from statics import BOND, COPPER, LENGTH, Springs, copper, tersoff


@pytest.fixture(scope="module")
def emt():
    return vacancy(EMT(), COPPER, repeats=2, images=5)


class TestVacancy:
    @pytest.mark.parametrize(("lattice", "repeats", "bonds"), [("fcc", 2, 12), ("bcc", 2, 8), ("diamond", 1, 4)])
    def test_breaking_bonds_by_hand(self, lattice, repeats, bonds):
        """z bonds break and z/2 form again where the atom goes: springs at their length do not relax."""
        found = vacancy_formation(
            Springs(), Crystal("Cu", lattice, {"bcc": 2.9, "fcc": 3.5}.get(lattice, 5.7)), repeats
        )
        assert found.values["vacancy_formation_energy"] == pytest.approx(bonds / 2 * BOND, abs=1e-5)

    def test_the_barrier_is_that_of_the_symmetric_saddle(self, emt):
        """Halfway, the jumping atom is a centre of inversion: relaxed without breaking that, it is the saddle."""
        perfect = copper().supercell(2)
        perfect.calc = EMT()
        start, end = _ends(perfect)
        jumper = int(np.argmax(np.linalg.norm(end.positions - start.positions, axis=1)))
        middle = start.copy()
        middle.positions[jumper] = (start.positions[jumper] + end.positions[jumper]) / 2
        for one in (start, middle):
            one.calc = EMT()
            relax(one, 1e-3, symmetric=True)
        barrier = middle.get_potential_energy() - start.get_potential_energy()
        assert emt.values["vacancy_migration_energy"] == pytest.approx(barrier, abs=1e-3)

    def test_the_path_is_symmetric(self, emt):
        energies = np.array(emt.curves["energies"])
        np.testing.assert_allclose(energies, energies[::-1], atol=2e-3)
        assert np.argmax(energies) == 2
        assert emt.curves["path"][-1] == pytest.approx(copper().nearest, rel=0.2)

    def test_the_parts_add_up(self, emt):
        values = emt.values
        assert values["vacancy_diffusion_barrier"] == pytest.approx(
            values["vacancy_formation_energy"] + values["vacancy_migration_energy"]
        )
        assert set(emt.units.values()) == {"eV"}
        formation = vacancy_formation(EMT(), COPPER, repeats=2)
        assert formation.values["vacancy_formation_energy"] == pytest.approx(
            values["vacancy_formation_energy"], abs=1e-6
        )

    def test_a_relaxed_cell_moves_the_barrier_a_little(self, emt):
        """The relaxed cell of 31 atoms shrinks by less than an atom: the barrier moves by a few 0.01 eV."""
        free = vacancy(EMT(), COPPER, repeats=2, images=3, relax_cell=True)
        assert free.values["vacancy_formation_energy"] == pytest.approx(emt.values["vacancy_formation_energy"])
        change = free.values["vacancy_migration_energy"] - emt.values["vacancy_migration_energy"]
        assert 1e-4 < abs(change) < 0.05

    def test_a_path_that_does_not_converge_is_an_error(self):
        with pytest.raises(ReplimatError, match="path"):
            vacancy(EMT(), COPPER, repeats=2, images=3, fmax_path=1e-4, max_steps=2)


class TestSurfaces:
    @pytest.mark.parametrize(
        ("lattice", "broken"),
        [
            # bonds broken per cell of the surface, and that cell's area in units of a^2
            ("fcc", {"100": (4, 1 / 2), "110": (6, 1 / np.sqrt(2)), "111": (3, np.sqrt(3) / 4)}),
            ("bcc", {"100": (4, 1), "110": (2, 1 / np.sqrt(2)), "111": (6, np.sqrt(3))}),
            ("diamond", {"100": (2, 1 / 2), "110": (2, 1 / np.sqrt(2)), "111": (1, np.sqrt(3) / 4)}),
        ],
    )
    def test_counting_bonds(self, lattice, broken):
        a = LENGTH / Crystal("Cu", lattice, 1.0).nearest
        values = surfaces(Springs(), Crystal("Cu", lattice, a)).values
        for plane, (bonds, size) in broken.items():
            known = bonds * BOND / (2 * size * a**2) / JOULE_PER_M2
            assert values[f"surface_energy_{plane}_unrelaxed"] == pytest.approx(known, rel=1e-6)
            assert values[f"surface_energy_{plane}"] == pytest.approx(known, rel=1e-6)  # springs at their length

    def test_a_joule_per_square_metre(self):
        assert 1 / JOULE_PER_M2 == pytest.approx(16.0218, rel=1e-5)

    def test_neither_thickness_nor_vacuum_matters(self):
        usual, thick = (surfaces(EMT(), COPPER, **more).values for more in ({}, {"thickness": 30.0, "vacuum": 22.0}))
        for name, value in usual.items():
            assert thick[name] == pytest.approx(value, rel=1e-5 if name.endswith("unrelaxed") else 1e-3)

    def test_relaxation_lowers_the_energy_and_closed_planes_are_cheapest(self):
        values = surfaces(EMT(), COPPER).values
        for plane in ("100", "110", "111"):
            assert values[f"surface_energy_{plane}"] < values[f"surface_energy_{plane}_unrelaxed"]
        assert values["surface_energy_111"] < values["surface_energy_100"] < values["surface_energy_110"]

    @pytest.mark.parametrize("lattice", ["sc", "fcc", "bcc", "diamond"])
    @pytest.mark.parametrize("indices", [(1, 0, 0), (1, 1, 0), (1, 1, 1), (2, 1, 0)])
    def test_a_slab_is_a_piece_of_the_crystal(self, lattice, indices):
        crystal = Crystal("Si", lattice, 4.0)
        one = slab(crystal, indices, 15.0, 12.0)
        density = len(crystal.primitive()) / crystal.primitive().get_volume()
        spacing = np.diff(planes(one)).mean()
        height = np.ptp(one.positions[:, 2])
        assert len(one) / (area(one) * (height + spacing)) == pytest.approx(density, rel=0.06)
        assert one.cell[2, 2] - height == pytest.approx(12.0)
        middle = np.argmin(np.abs(one.positions[:, 2] - one.cell[2, 2] / 2))
        i, d = neighbor_list("id", one, 1.5 * crystal.nearest)
        inner = np.sort(d[i == middle])
        np.testing.assert_allclose(inner, np.sort(_shells(crystal, 1.5 * crystal.nearest)), rtol=1e-9)

    def test_the_narrow_cut_breaks_three_bonds(self):
        crystal = Crystal("Si", "diamond", 4.0)
        for cut, bonds in (("widest", 1), ("narrowest", 3)):
            one = slab(crystal, (1, 1, 1), 15.0, 12.0, cut)
            lowest = np.argmin(one.positions[:, 2])
            assert np.bincount(neighbor_list("i", one, crystal.nearest * 1.05))[lowest] == 4 - bonds


def _shells(crystal, cutoff):
    i, d = neighbor_list("id", crystal.primitive(), cutoff)
    return d[i == 0]


class TestStacking:
    @pytest.mark.parametrize("lattice", ["sc", "hcp"])
    def test_a_lattice_without_a_slip_system_is_an_error(self, lattice):
        with pytest.raises(ValueError, match="slip system"):
            stacking_fault(EMT(), of_volume("Cu", lattice, 12.0))

    def test_nearest_neighbours_do_not_see_the_fault(self):
        """Stacking ABCABC or ABCBCA: twelve neighbours either way, and in between fewer."""
        found = stacking_fault(Springs(), Crystal("Cu", "fcc", LENGTH * np.sqrt(2)), points=3)
        assert found.values["stacking_fault_energy"] == pytest.approx(0, abs=1e-3)
        assert found.values["unstable_stacking_energy"] > 10

    def test_the_intrinsic_fault_is_two_layers_of_hcp(self):
        found = stacking_fault(EMT(), COPPER, points=5)
        hexagonal = polymorphs(EMT(), COPPER, lattices=("hcp",)).values["polymorph_hcp"]
        layer = copper().a ** 2 * np.sqrt(3) / 4
        known = 1000 * 2 * hexagonal / layer / JOULE_PER_M2
        # 5 %: neighbours beyond the second layer, and c/a, differ a little
        assert found.values["stacking_fault_energy"] == pytest.approx(known, rel=0.05)
        assert found.curves["slip"][-1] == pytest.approx(copper().a / np.sqrt(6), rel=1e-9)

    @pytest.mark.parametrize(
        ("calculator", "crystal", "burgers"),
        [
            (EMT(), Crystal("Cu", "bcc", 2.85), np.sqrt(3) / 2),
            (tersoff(), Crystal("Si", "diamond", 5.43), 1 / np.sqrt(2)),
        ],
        ids=["bcc", "diamond"],
    )
    def test_a_lattice_vector_leads_back_and_the_middle_is_the_top(self, calculator, crystal, burgers):
        found = stacking_fault(calculator, crystal, points=3, thickness=15.0)
        unrelaxed = np.array(found.curves["unrelaxed"])
        np.testing.assert_allclose(unrelaxed, unrelaxed[::-1], atol=1e-4 * np.abs(unrelaxed).max())
        assert found.curves["slip"][-1] == pytest.approx(burgers * relaxed_crystal(calculator, crystal).a, rel=1e-6)
        assert np.argmax(unrelaxed) == 1
        assert set(found.values) == {"unstable_stacking_energy"}


class TestPolymorphs:
    def test_counting_bonds(self):
        values = polymorphs(Springs(), Crystal("Cu", "fcc", 3.5), ("fcc", "bcc", "hcp", "sc", "diamond")).values
        bonds = {"bcc": 8, "hcp": 12, "sc": 6, "diamond": 4}
        assert values == pytest.approx(
            {f"polymorph_{name}": (12 - n) / 2 * BOND for name, n in bonds.items()}, abs=1e-4
        )

    def test_the_difference_changes_its_sign_with_the_reference(self):
        one = polymorphs(EMT(), COPPER, ("bcc",)).values["polymorph_bcc"]
        other = polymorphs(EMT(), Crystal("Cu", "bcc", 2.86), ("fcc",)).values["polymorph_fcc"]
        assert one == pytest.approx(-other, abs=1e-5)
        assert one > 0.01

    def test_silicon_is_diamond(self):
        """Tersoff (1988) has diamond lowest; a lattice that is not found is named."""
        found = polymorphs(tersoff(), Crystal("Si", "diamond", 5.43))
        assert min(found.values.values()) > 0.1
        assert len(found.values) + len(found.curves["not_found"]) == 5
