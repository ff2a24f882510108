"""Garcia-Cardona et al. 2019: crystals of BaTiO3's phases, forms of a cell, the network, the ramp, one small run."""

import numpy as np
import pytest
import torch
from torch import nn

from replimat import cards, datasets
from replimat.datasets import batio3_phases as crystals
from replimat.datasets.batio3_phases import CELL, PHASES, SPACE_GROUPS
from replimat.datasets.loading import check
from replimat.experiments import neutron_net
from replimat.experiments.catalogue import plan_one
from replimat.experiments.learning import Learning
from replimat.experiments.prepare import prepare
from replimat.models.neutron_net import PatternNetwork
from replimat.reporting.ramp import draw
from replimat.representations.powder import PowderReflections
from replimat.representations.simulation import Powders
from replimat.training.patterns import FixedPatterns
from runs import run

NARROW = {  # cells like the real ones: lengths in angstrom, angles in degree
    "cubic": (4.0, 4.0, 4.0, 90, 90, 90),
    "tetragonal": (3.998, 3.998, 4.030, 90, 90, 90),
    "orthorhombic": (3.984, 4.018, 4.018, 89.82, 90, 90),
    "rhombohedral": (4.004, 4.004, 4.004, 89.85, 89.85, 89.85),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    card = cards.dataset("batio3_phases")
    found = crystals.read(tmp_path_factory.mktemp("unfinished"), card)
    check(found, card)
    return found


def of_phase(name: str, polar: float = 1.0):
    """One crystal of a phase."""
    return crystals.crystals(np.array([PHASES.index(name)]), np.array([NARROW[name]], dtype=float), np.array([polar]))


# ----------------------------------------------------------------- crystals


@pytest.mark.parametrize(("name", "group"), list(zip(PHASES, SPACE_GROUPS, strict=True)))
def test_the_phases_have_their_space_groups(name, group):
    spglib = pytest.importorskip("spglib")
    numbers, positions, cell = of_phase(name)[0]
    said = spglib.get_symmetry_dataset((cell, positions @ np.linalg.inv(cell), numbers), symprec=1e-4)
    assert said.number == group


def test_cell_vectors_have_the_lengths_and_angles_asked_for():
    cells = np.array([(3.9, 4.1, 4.3, 88.0, 91.0, 93.0), NARROW["rhombohedral"]])
    vectors = crystals.cell_vectors(cells)
    lengths = np.linalg.norm(vectors, axis=2)
    cosines = [
        np.sum(vectors[:, i] * vectors[:, j], axis=1) / lengths[:, i] / lengths[:, j]
        for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    assert np.allclose(lengths, cells[:, :3]) and np.allclose(np.degrees(np.arccos(cosines)).T, cells[:, 3:])


def test_titanium_is_as_far_from_oxygen_as_measured():
    """The shortest distance, by hand from the coordinates as published; those of Amm2 in its own axes."""
    amm2 = np.hypot(0.2439 * 5.6745, (0.7484 - 0.5170) * 5.6946)  # angstrom, 190 K
    r3m = 4.0036 * np.sqrt((0.4872 - 0.0193) ** 2 + 2 * (0.5109 - 0.4872) ** 2)  # 15 K, to within its 0.16 degrees
    p4mm = (0.9750 - 0.5135) * 4.030
    for name, shortest in zip(PHASES, (2.0, p4mm, amm2, r3m), strict=True):
        numbers, positions, cell = of_phase(name)[0]
        apart = (positions[numbers == 8] - positions[1]) @ np.linalg.inv(cell)
        distance = np.linalg.norm((apart - np.round(apart)) @ cell, axis=1).min()
        assert distance == pytest.approx(shortest, abs=0.003), name


def test_polar_order_changes_intensities_and_not_spacings():
    flat, polar = (PowderReflections("neutron", 0.9, keep=0.0)(of_phase("rhombohedral", p)) for p in (0.0, 1.0))
    assert np.allclose(flat["d"], polar["d"])
    assert np.abs(flat["intensity"] / polar["intensity"] - 1).max() > 0.05


def test_every_row_has_the_cell_of_its_phase(data):
    cell, phase = {name: data.targets[name] for name in CELL}, data.targets["phase"].astype(int)
    for number, name in enumerate(PHASES):
        rows = phase == number
        free = np.stack([cell[one][rows] for one in neutron_net.FREE[name]], axis=1)
        whole = np.stack([cell[one][rows] for one in CELL], axis=1)
        assert np.allclose(neutron_net.whole_cell(name, free), whole)
    made = data.structures.cells[[5, 20_005]]
    assert np.allclose(np.linalg.norm(made[:, 1], axis=1), data.targets["b"][[5, 20_005]])


def test_no_crystal_is_metrically_of_another_phase(data):
    cell, phase = data.targets, data.targets["phase"]
    assert np.abs(cell["c"] / cell["a"] - 1)[phase == 1].min() > 0.0019
    assert np.abs(cell["alpha"] - 90)[phase >= 2].min() > 0.059
    assert cell["alpha"][phase == 2].max() < 90  # above 90 is the same lattice
    assert (cell["alpha"][phase == 3] > 90).any()


def test_the_crystals_are_the_same_on_every_machine(data):
    assert data.targets["a"][0] == pytest.approx(4.043111899814613, abs=1e-12)
    assert len(np.unique(data.targets["a"].round(9))) > 31_900


def test_phases_and_cells_against_temperature():
    kelvin = np.array([150.0, 184.9, 185.0, 279.9, 280.0, 399.9, 400.0, 445.0])
    assert crystals.phase_at(kelvin).tolist() == [3, 3, 2, 2, 1, 1, 0, 0]
    a, b, _, alpha, beta, _ = crystals.cells_at(np.array([230.0])).T
    amm2 = 2 * b * np.sin(np.radians(alpha / 2)), 2 * b * np.cos(np.radians(alpha / 2))
    assert (a[0], amm2[0][0], amm2[1][0]) == pytest.approx((3.9851, 5.6748, 5.69235), abs=1e-6) and beta[0] == 90


# ------------------------------------------------------------------ the cell's forms


@pytest.mark.parametrize("name", PHASES)
def test_what_is_learned_turns_back_into_the_cell(name):
    free = np.array([[NARROW[name][CELL.index(one)] for one in neutron_net.FREE[name]]])
    learned = neutron_net.distorted(name, free)
    assert np.allclose(neutron_net.undistorted(name, learned), free)
    whole = neutron_net.whole_cell(name, free)[0]
    assert np.allclose(whole, NARROW[name])
    assert learned[0, 0] == pytest.approx(np.prod(whole[:3]) ** (1 / 3))


def test_only_free_parameters_are_counted():
    class Constant:
        def cells(self, pattern, phase):
            return np.zeros((len(phase), 6))

    class Simple:
        def cells(self, pattern, phase):
            return {"mean": np.ones((len(phase), 6))}

    cells, phase = np.array([NARROW[name] for name in PHASES], dtype=float), np.arange(4)
    ids = np.array(list(PHASES))
    lengths, angles = (
        neutron_net.parameters(names, ids, phase, cells, None, Constant(), Simple())
        for names in (neutron_net.LENGTHS, neutron_net.ANGLES)
    )
    assert lengths.ids.tolist() == [
        "cubic/a",
        "tetragonal/a",
        "tetragonal/c",
        "orthorhombic/a",
        "orthorhombic/b",
        "rhombohedral/a",
    ]
    assert lengths.target.tolist() == [4.0, 3.998, 4.030, 3.984, 4.018, 4.004]
    assert angles.ids.tolist() == ["orthorhombic/alpha", "rhombohedral/alpha"] and angles.target.tolist() == [
        89.82,
        89.85,
    ]


# ------------------------------------------------------------------ the network


def test_shapes_and_number_of_parameters_by_hand():
    model = PatternNetwork(2304, 4)
    lengths = (2304 - 16) // 4 + 1, ((573 - 7) // 2 + 1 - 5) // 2 + 1
    assert lengths == (573, 140)
    convolutions = 16 * 16 + 2 * 16 + 16 * 32 * 7 + 2 * 32 + 32 * 32 * 5 + 2 * 32
    head = 32 * 140 * 64 + 64 + 64 * 4 + 4
    assert sum(p.numel() for p in model.parameters()) == convolutions + head
    assert model(torch.rand(3, 2304)).shape == (3, 4)


def test_a_pattern_alone_gives_what_it_gives_in_a_batch():
    model, pattern = PatternNetwork(200, 2).eval(), torch.rand(5, 200)
    assert torch.allclose(model(pattern)[2:3], model(pattern[2:3]), atol=1e-6)


def test_patterns_that_are_too_short_are_refused():
    with pytest.raises(ValueError, match="too short"):
        PatternNetwork(40, 2)


def test_the_network_reads_a_length_from_patterns():
    measured = neutron_net.NEUTRONS
    lengths = np.linspace(3.9, 4.1, 64)
    cells = np.column_stack([lengths] * 3 + [np.full(64, 90.0)] * 3)
    powders = Powders(measured.representation(crystals.crystals(np.zeros(64, dtype=int), cells, np.ones(64))))
    data = FixedPatterns(measured.patterns(powders, np.arange(64), 0), torch.linspace(-1, 1, 64)[:, None])
    torch.manual_seed(0)
    model = PatternNetwork(2304, 1, channels=8, hidden=16)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(30):
        loss = nn.functional.mse_loss(model(data.pattern), data.target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1  # of a variance of 0.34


# ------------------------------------------------------------------ measurements


def test_neutron_peaks_lie_where_bragg_says():
    measured = neutron_net.NEUTRONS
    powders = Powders(measured.representation(of_phase("cubic")))
    pattern = measured.patterns(powders, np.zeros(1, dtype=int), 3)[0]
    time = torch.exp(measured.instrument.axis())
    strongest = float(time[pattern.argmax()] / measured.instrument.difc)
    spacings = 4.0 / np.sqrt([2, 3, 4, 5, 6, 8])
    assert np.abs(spacings / strongest - 1).min() < 1e-3


def test_patterns_stay_the_same_for_the_same_seed():
    measured = neutron_net.XRAYS
    powders = Powders(measured.representation(of_phase("tetragonal")))
    first, again, other = (measured.patterns(powders, np.zeros(2, dtype=int), seed) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (2, 1968)


def test_the_measured_ramp_is_cut_to_the_axis_that_is_simulated():
    intensity = np.tile(np.arange(3488.0), (2, 1))
    pattern = neutron_net.ramp_patterns({"ramp.pattern": intensity}, neutron_net.XRAYS)
    assert pattern.shape == (2, neutron_net.XRAYS.instrument.points) and pattern[0, -1] == 1
    assert pattern[0, 0] == pytest.approx(280 / 2247)
    axis = neutron_net.XRAYS.instrument.axis(dtype=torch.float64).numpy()
    assert np.allclose(axis, neutron_net.AXIS[neutron_net.WINDOW])


# ------------------------------------------------------------------ the experiment


def test_simple_methods_by_hand():
    pattern = torch.zeros(8, 16)
    pattern[torch.arange(8), torch.arange(8)] = 4.0
    phase, cells = (
        np.repeat(np.arange(4), 2),
        np.array([NARROW[name] for name in PHASES for _ in range(2)], dtype=float),
    )
    cells[:2, :3] = [[3.0] * 3, [5.0] * 3]
    assert neutron_net.binned(pattern)[0].tolist() == [0.25, 0.0]
    simple = neutron_net.Simple(pattern, phase, cells)
    assert simple.probabilities(pattern[:1])["majority"].tolist() == [[0.25] * 4]
    assert simple.cells(pattern[:1], phase[:1])["mean"][0].tolist() == [4.0, 4.0, 4.0, 90, 90, 90]


@pytest.fixture
def own_root(tmp_path, monkeypatch):
    """A project that shares the cards and writes elsewhere."""
    root = cards.project_root()
    for name in ("papers", "datasets"):
        (tmp_path / name).symlink_to(root / name)
    monkeypatch.setenv("REPLIMAT_ROOT", str(tmp_path))
    return tmp_path


def test_the_small_run_has_every_target_and_keeps_the_ramp(own_root, monkeypatch):
    few = {
        "n_train": 64,
        "n_val": 32,
        "n_test": 32,
        "epochs": 1,
        "model": {"channels": 4, "hidden": 8, "cell_epochs": 1},
    }
    card = cards.paper("neutron_net").experiments["structures"]
    smoke = card.smoke.model_copy(update=few)
    monkeypatch.setattr(type(card), "at", lambda self, scale: smoke)
    planned = plan_one("neutron_net", "structures", "smoke")
    prepare(planned.experiment)
    record = Learning(planned, "cpu").fit()
    assert record["status"] == "ok", record["reason"]
    assert set(record["parts"]) == {"ramp_phase", "lengths", "angles"} and record["n_test"] == 32
    assert record["parts"]["ramp_phase"]["n_test"] == 60
    assert {"nearest_pattern", "majority"} == set(record["baselines"])
    assert {"mean", "pattern_ridge"} == set(record["parts"]["lengths"]["baselines"])
    with np.load(own_root / planned.folder / "seed0" / "ramp.npz") as stored:
        arrays = dict(stored.items())
    assert arrays["probabilities"].shape == (60, 4) and arrays["cells"].shape == (60, 6) and not arrays["measured"]
    assert np.allclose(arrays["probabilities"].sum(axis=1), 1)
    draw(own_root / "ramp.png", run(paper="neutron_net", experiment="structures"), arrays)
    assert (own_root / "ramp.png").stat().st_size > 5_000
    again = Learning(planned, "cpu").evaluate()
    assert again["seeds"][0]["metrics"] == record["seeds"][0]["metrics"]


def test_the_measured_ramp_is_of_paper_data():
    planned = plan_one("neutron_net", "batio3-ramp", "laptop")
    assert planned.experiment.target == "measured_phase" and planned.datasets == ["batio3_phases", "batio3_ramp"]
    assert cards.dataset("batio3_ramp").data == "paper"


def test_the_dataset_is_computed_where_it_is_not_kept(own_root, data):
    assert datasets.load("batio3_phases").sha256 == data.content_sha256()
