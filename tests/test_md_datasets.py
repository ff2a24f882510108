"""Trajectories with energies and forces: computed with GFN2-xTB, and those of rMD17."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from projects import Project, member
from replimat import cards, datasets, sources
from replimat.cards import MolecularDynamics
from replimat.cli import app
from replimat.datasets import gfn2_md
from replimat.datasets.loading import content_key
from replimat.errors import CardError, DataError
from replimat.files import sha256

FORCE_TOLERANCE = 1e-3  # eV/angstrom; the energy converges to 1e-6 hartree, over a difference of 2 STEP
STEP = 5e-3  # angstrom
DRIFT_TOLERANCE = 2e-3  # eV per atom in 100 fs without thermostat, 0.03 kT

WATER = {
    "method": "GFN2-xTB",
    "start": {"molecule": "H2O"},
    "temperature": 500,
    "timestep": 0.5,
    "friction": 0.05,
    "equilibration": 40,
    "every": 2,
    "frames": 20,
    "seed": 0,
}
TARGETS = {
    "energy": {"unit": "eV", "description": "d", "count": 20, "range": [-138.1, -135]},
    "forces": {"unit": "eV/angstrom", "per": "atom", "description": "d", "count": 60, "range": [-30, 30]},
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


def settings(**changes) -> MolecularDynamics:
    return MolecularDynamics(**(WATER | changes))


def water_card(project, version: str | None = None, targets=TARGETS, **changes) -> None:
    """A project whose dataset `water` is a short trajectory."""
    tblite = pytest.importorskip("tblite.library")
    found = ".".join(map(str, tblite.get_version()))
    source = {"kind": "computed", "engine": "tblite", "version": version or found, "settings": WATER | changes}
    project.card("water", source, reader="gfn2_md", rows=20, periodic=False, targets=targets)


# -------------------------------------------------------------------------------------- trajectories: physics


@pytest.fixture(scope="module")
def long_trajectory(tmp_path_factory):
    """Atomic numbers, relaxed positions and frames of 3 ps of water."""
    pytest.importorskip("tblite")
    return gfn2_md.trajectory(settings(equilibration=500, every=20, frames=300), tmp_path_factory.mktemp("water"))


def test_forces_are_the_numeric_gradient_of_the_energy(long_trajectory):
    numbers, _, frames = long_trajectory
    positions, forces = frames["positions"][7], frames["forces"][7]
    assert np.abs(forces).max() > 0.3  # eV/angstrom: not at a minimum
    for atom, axis in np.ndindex(3, 3):
        moved = [positions.copy(), positions.copy()]
        moved[0][atom, axis] += STEP
        moved[1][atom, axis] -= STEP
        plus, minus = (gfn2_md._atoms(settings(), numbers, place).get_potential_energy() for place in moved)
        assert forces[atom, axis] == pytest.approx((minus - plus) / (2 * STEP), abs=FORCE_TOLERANCE)


def test_labels_belong_to_their_frame(long_trajectory):
    numbers, _, frames = long_trajectory
    atoms = gfn2_md._atoms(settings(), numbers, frames["positions"][-1])
    assert atoms.get_potential_energy() == pytest.approx(frames["energy"][-1], abs=1e-6)
    assert atoms.get_forces() == pytest.approx(frames["forces"][-1], abs=FORCE_TOLERANCE)


def test_energy_is_conserved_without_a_thermostat(long_trajectory):
    from ase import units
    from ase.md.verlet import VelocityVerlet

    numbers, relaxed, _ = long_trajectory
    atoms = gfn2_md._atoms(settings(), numbers, relaxed)
    momenta = np.random.default_rng(1).standard_normal((3, 3)) * np.sqrt(atoms.get_masses() * units.kB * 500)[:, None]
    atoms.set_momenta(momenta)
    dynamics, total, kinetic = VelocityVerlet(atoms, WATER["timestep"] * units.fs), [], []
    for _ in range(200):
        dynamics.run(1)
        total.append(atoms.get_total_energy())
        kinetic.append(atoms.get_kinetic_energy())
    first, last = np.mean(total[:50]), np.mean(total[-50:])
    assert abs(last - first) / 3 < DRIFT_TOLERANCE
    assert np.std(total) < 0.1 * np.std(kinetic)


def test_temperature_is_the_cards_within_its_statistical_error(long_trajectory):
    from ase import units

    _, _, frames = long_trajectory
    temperatures = frames["kinetic_energy"] / (9 / 2 * units.kB)
    parts = temperatures.reshape(20, -1).mean(axis=1)  # 150 fs each, 15 times the correlation time 1 / (2 friction)
    error = parts.std(ddof=1) / np.sqrt(len(parts))
    assert error < 30 and abs(temperatures.mean() - 500) < 4 * error
    assert temperatures.std() == pytest.approx(500 * np.sqrt(2 / 9), rel=0.25)  # canonical, not constant


def test_frames_are_centred_and_the_molecule_stays_whole(long_trajectory):
    numbers, relaxed, frames = long_trajectory
    masses = np.array([15.999, 1.008, 1.008])
    assert np.abs(np.einsum("a,nax->nx", masses, frames["positions"])).max() < 1e-6
    gfn2_md._require_intact("water", numbers, relaxed, frames["positions"])
    torn = frames["positions"].copy()
    torn[11, 1] *= 2
    with pytest.raises(DataError, match=r"in frame 11 the bond between atoms 0 and 1 has .* fell apart"):
        gfn2_md._require_intact("water", numbers, relaxed, torn)


# ---------------------------------------------------------------------------------- trajectories: computed once


def test_a_trajectory_is_computed_once_and_cached(project, monkeypatch):
    water_card(project)
    data = datasets.load("water")
    assert len(data) == 20 and data.per_atom["forces"].shape == (60, 3) and not data.structures.periodic
    assert data.units == {"energy": "eV", "forces": "eV/angstrom"} and data.ids[3] == "frame-3"
    monkeypatch.setattr(gfn2_md, "trajectory", None)  # the second load needs the cache alone
    again = datasets.load("water")
    assert again.sha256 == data.sha256 == again.content_sha256()
    assert (again.per_atom["forces"] == data.per_atom["forces"]).all()
    assert not list(project.root.glob("prepared/datasets/*.unfinished"))


def test_a_killed_computation_continues_and_ends_in_the_same_frames(project, monkeypatch):
    water_card(project)
    monkeypatch.setattr(gfn2_md, "BLOCK", 5)
    whole = datasets.load("water")
    shutil.rmtree(project.root / "prepared")
    compute, computed = gfn2_md._block, []

    def killed_once(settings, state, count):
        if len(computed) == 2:
            computed.append("killed")
            raise KeyboardInterrupt
        computed.append(count)
        return compute(settings, state, count)

    monkeypatch.setattr(gfn2_md, "_block", killed_once)
    with pytest.raises(KeyboardInterrupt):
        datasets.load("water")
    assert datasets.load("water").sha256 == whole.sha256
    assert computed == [5, 5, "killed", 5, 5]  # no block twice


def test_every_setting_decides_the_cache_and_the_frames(project):
    water_card(project)
    key, frames = content_key(cards.dataset("water")), datasets.load("water").structures.positions
    for change in ({"seed": 1}, {"temperature": 300}, {"friction": 0.02}, {"every": 3}):
        water_card(project, **change)
        assert content_key(cards.dataset("water")) != key
    water_card(project, seed=1)
    assert not np.allclose(datasets.load("water").structures.positions, frames, atol=1e-3)


def test_another_version_of_the_engine_is_refused(project):
    water_card(project, version="0.0.1")
    with pytest.raises(DataError, match=r"computed with tblite 0.0.1, found: .*pip install tblite==0.0.1"):
        datasets.load("water")


def test_a_trajectory_outside_its_range_is_refused_and_not_cached(project):
    water_card(project, targets=TARGETS | {"energy": TARGETS["energy"] | {"range": [-100, 0]}})
    with pytest.raises(DataError, match="'energy': 20 values outside"):
        datasets.load("water")
    assert not list(project.root.glob("prepared/datasets/*.npz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": {}}, "exactly one of molecule, dodecahedron, xyz"),
        ({"timestep": 50}, "timestep: Input should be less than or equal to 2"),
        ({"frames": 0}, "frames: Input should be greater than 0"),
        ({"steps": 1}, "steps: Extra inputs are not permitted"),
    ],
)
def test_bad_settings_are_named(project, change, message):
    project.card("water", {"kind": "computed", "engine": "tblite", "settings": WATER | change})
    with pytest.raises(CardError, match=message):
        cards.dataset("water")


def test_a_computed_dataset_has_nothing_to_fetch(project):
    project.card("water", {"kind": "computed", "engine": "tblite"})
    assert sources.fetch("water") is None and sources.manifest(["water"]) == {}
    sources.verify("water")
    said = CliRunner().invoke(app, ["fetch", "water"])
    assert said.exit_code == 0 and said.stdout == "water: nothing to fetch, it is computed when it is first used\n"


# ------------------------------------------------------------------------------------------- start geometries


def test_dodecahedron_has_thirty_edges():
    vertices = gfn2_md.dodecahedron(edge=1.45)
    distances = np.linalg.norm(vertices[:, None] - vertices, axis=-1)
    assert np.isclose(distances, 1.45).sum(axis=1).tolist() == [3] * 20
    assert np.sort(distances[np.triu_indices(20, 1)])[30] == pytest.approx(1.45 * 1.618, rel=1e-3)  # a face's diagonal


def test_the_cards_start_at_relaxed_geometries():
    pytest.importorskip("tblite")
    cards.dataset.cache_clear()
    for name in ("md_ethanol", "md_malonaldehyde", "md_benzene"):
        given = cards.dataset(name).source.settings
        _, energy = gfn2_md.relax(given, *gfn2_md.start_geometry(given.start))
        low, _ = cards.dataset(name).targets["energy"].range
        assert low < energy < low + 0.05, name


def test_c20_leaves_the_symmetric_saddle_point():
    pytest.importorskip("tblite")
    given = settings(start={"dodecahedron": "C"})
    numbers, vertices = gfn2_md.start_geometry(given.start)
    symmetric = gfn2_md._atoms(given, numbers, vertices).get_potential_energy()
    positions, energy = gfn2_md.relax(given, numbers, vertices)
    assert energy < symmetric - 0.2  # eV
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    assert ((distances > 0.1) & (distances < 1.6)).sum(axis=1).tolist() == [3] * 20


# ------------------------------------------------------------------------------------------------------ rMD17


def pack_rmd17(project, second_label: float = 1.0) -> None:
    """Two splits of H2: frame 0 is in training of 01 and test of 02."""
    path = project.data / "h2" / "h2.npz"
    path.parent.mkdir(parents=True)
    positions = np.array([[[0, 0, 0], [0, 0, d]] for d in (0.7, 0.8, 0.9, 0.7)], dtype=np.float32)
    np.savez(
        path,
        Z=np.array([1, 1], dtype=np.uint8),
        pos=positions,
        forces=positions * 2,
        energy=np.array([1.0, 2.0, 3.0, second_label]),
        split=np.array(["train_01", "test_01", "train_02", "test_02"]),
    )
    entry = {"path": "h2.npz", "save_as": "h2.npz", "sha256": sha256(path), "bytes": path.stat().st_size}
    targets = {"energy": TARGETS["energy"], "forces": TARGETS["forces"]}
    targets = {name: {**target, "count": None, "range": None} for name, target in targets.items()}
    source = {"kind": "url", "url": "http://127.0.0.1:9/", "members": [entry]}
    project.card("h2", source, reader="rmd17", periodic=False, targets=targets)


def test_rmd17_by_hand(project):
    pack_rmd17(project)
    for data in (datasets.load("h2"), datasets.load("h2")):  # read, then from the cache
        assert data.ids.tolist() == ["01-train-0", "01-test-0", "02-train-0"]
        assert data.target("energy").tolist() == [1, 2, 3]
        assert {name: parts.tolist() for name, parts in data.splits.items()} == {"01": [0, 2, -1], "02": [2, -1, 0]}
        assert data.per_atom["forces"][3] == pytest.approx([0, 0, 1.6], rel=1e-6)
        assert data.per_atom["forces"].dtype == data.structures.positions.dtype == np.float64


def test_rmd17_frame_with_two_labels_is_refused(project):
    pack_rmd17(project, second_label=1.1)
    with pytest.raises(DataError, match="a frame stands twice with different labels"):
        datasets.load("h2")


def test_rmd17_frame_in_both_parts_of_a_split_is_refused(project):
    pack_rmd17(project)
    path = project.data / "h2" / "h2.npz"
    arrays = dict(np.load(path)) | {"split": np.array(["train_01", "test_02", "train_02", "test_01"])}
    np.savez(path, **arrays)
    project.card(
        "h2",
        {"kind": "url", "url": "http://127.0.0.1:9/", "members": [member("h2.npz", path.read_bytes())]},
        reader="rmd17",
        periodic=False,
        targets={},
    )
    with pytest.raises(DataError, match="split 01: a frame is in its training and its test part"):
        datasets.load("h2")


# ----------------------------------------------------------------------------------------- the papers' own data


@pytest.fixture
def mirror(tmp_path, monkeypatch) -> Path:
    """The mirror's folder, with this project's cards and fetched files below tmp_path."""
    if not os.environ.get("REPLIMAT_MIRROR"):
        pytest.skip("REPLIMAT_MIRROR is not set: the papers' own data is not here")
    for folder in ("papers", "datasets"):
        os.symlink(cards.project_root() / folder, tmp_path / folder)
    monkeypatch.setenv("REPLIMAT_ROOT", str(tmp_path))
    cards.dataset.cache_clear()
    return Path(os.environ["REPLIMAT_MIRROR"])


@pytest.mark.mirror
@pytest.mark.parametrize("name", [name for name in cards.dataset_names() if name.startswith("rmd17_")])
def test_rmd17_has_the_authors_splits(mirror, name):
    sources.fetch(name)
    data = datasets.load(name)
    assert len(data) == 9_633 and list(data.splits) == ["01", "02", "03", "04", "05"]
    for parts in data.splits.values():
        assert [(parts == part).sum() for part in (0, 1, 2)] == [1000, 0, 1000]
    net = data.per_atom["forces"].reshape(9_633, -1, 3).sum(axis=1)
    assert np.abs(net).max() < 0.01  # eV/angstrom: no net force on a free molecule


def bonding(numbers: np.ndarray, positions: np.ndarray) -> list[tuple]:
    """Each atom's element and those of its neighbours, whatever the order of atoms."""
    from ase.data import covalent_radii

    radii = covalent_radii[numbers]
    bonded = np.linalg.norm(positions[:, None] - positions, axis=-1) < 1.25 * (radii[:, None] + radii)
    np.fill_diagonal(bonded, False)
    return sorted((int(z), *sorted(numbers[row].tolist())) for z, row in zip(numbers, bonded, strict=True))


@pytest.mark.mirror
@pytest.mark.parametrize("molecule", ["ethanol", "malonaldehyde", "benzene"])
def test_our_molecules_are_those_of_md17(mirror, molecule):
    sources.fetch(f"rmd17_{molecule}")
    theirs = datasets.load(f"rmd17_{molecule}").structures
    ours = gfn2_md.start_geometry(cards.dataset(f"md_{molecule}").source.settings.start)
    for row in range(0, len(theirs), 500):
        assert bonding(*theirs[row][:2]) == bonding(*ours)


@pytest.mark.mirror
def test_c20_of_the_authors_relaxes_to_our_minimum(mirror):
    pytest.importorskip("tblite")
    from ase.io import read

    authors = read(mirror / "atomistic-machine-learning+SchNet" / "C20.xyz", format="xyz")
    given = cards.dataset("md_c20").source.settings
    _, ours = gfn2_md.relax(given, *gfn2_md.start_geometry(given.start))
    _, theirs = gfn2_md.relax(given, authors.numbers, authors.positions)
    assert abs(ours - theirs) / 20 < 1e-3  # eV per atom
