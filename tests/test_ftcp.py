"""The matrix of Ren et al. and its way back, their autoencoder, its loss by hand, and the experiment around them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from replimat.cards import ScaleSettings
from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.evaluation.generation import generation
from replimat.experiments import ftcp as experiment
from replimat.experiments import ftcp_designs
from replimat.experiments.base import Selection, prepared_key
from replimat.experiments.ftcp import CASES, energy_window
from replimat.experiments.ftcp_designs import NEAREST, around, scores, starts
from replimat.experiments.ftcp_latent import Window
from replimat.models.ftcp import FTCPVAE, Decoded, SameConv, SameTransposed
from replimat.records import Run
from replimat.reporting import windows
from replimat.representations.ftcp import (
    COORDINATES,
    ELEMENTS,
    FTCP,
    LATTICE,
    POINTS,
    PROPERTIES,
    OrderedCrystals,
    RowScale,
    by_electronegativity,
    cell_of,
    cell_parameters,
    fractional,
    reciprocal_points,
)
from replimat.training.property_vae import PropertyVAETask
from replimat.training.settings import Training

TABLE = np.random.default_rng(0).random((101, PROPERTIES))
RECOVERED = 1e-5  # of a fractional coordinate and, relative, of a cell: the matrix is in single precision


def perovskite(a: float = 4.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ba, Ti, 3 O."""
    sites = np.array([[0.0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])
    return np.array([56, 22, 8, 8, 8]), sites * a, a * np.eye(3)


def crystals(n: int, seed: int = 0, most: int = 12) -> Structures:
    """Triclinic crystals of three elements, each element's sites together."""
    rng, made = np.random.default_rng(seed), []
    for _ in range(n):
        elements, sizes = rng.choice(np.arange(1, 90), 3, replace=False), rng.integers(1, most // 3 + 1, 3)
        numbers = np.repeat(elements, sizes)
        cell = cell_of(rng.uniform(4, 9, 3), rng.uniform(70, 110, 3)) @ rotation(rng)
        made.append((numbers, rng.random((len(numbers), 3)) @ cell, cell))
    return Structures.pack(made, periodic=True)


def rotation(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def same(one: Structures, other: Structures) -> bool:
    """Equal sites in order, equal metric tensors, equal fractional coordinates up to lattice vectors."""
    metric = [cells @ cells.swapaxes(1, 2) for cells in (one.cells, other.cells)]
    shift = fractional(one) - fractional(other)
    return (
        np.array_equal(one.numbers, other.numbers)
        and np.array_equal(one.offsets, other.offsets)
        and np.allclose(*metric, rtol=RECOVERED, atol=1e-3)
        and np.abs(shift - np.round(shift)).max() < RECOVERED
    )


# -------------------------------------------------------------------------------------------------- the matrix


def test_a_crystal_by_hand():
    found = FTCP(sites=20).encode(Structures.pack([perovskite()], periodic=True), TABLE)[0]
    assert found.shape == (240, 62)
    for column, z in enumerate((56, 22, 8)):
        assert found[:ELEMENTS, column].nonzero()[0].tolist() == [z - 1]
    assert found[LATTICE, :3].tolist() == [4, 4, 4]
    assert found[LATTICE + 1, :3] == pytest.approx([90, 90, 90])
    assert found[COORDINATES + 2, :3] == pytest.approx([0.5, 0.5, 0])
    assert found[COORDINATES + 20 : COORDINATES + 25, :3].tolist() == [[1, 0, 0], [0, 1, 0], *[[0, 0, 1]] * 3]
    assert found[145, :3].tolist() == [0, 0, 0]  # |g| has no entry in real space
    assert found[-2:].tolist() == np.zeros((2, 62)).tolist()
    first = 3  # hkl = (1, 0, 0)
    assert found[145, first] == pytest.approx(1 / 4)
    assert found[145, first + 5] == pytest.approx(1 / 4)  # (0, 0, -1), the last of the first shell
    by_hand = np.pi * (0.5 * TABLE[22] + 0.5 * TABLE[8] + 0.5 * TABLE[8])  # Ba and one O at x = 0
    assert found[146 : 146 + PROPERTIES, first] == pytest.approx(by_hand, rel=1e-5)


def test_points_are_in_the_authors_order():
    hkl, g = reciprocal_points(np.eye(3)[None] * 4.0)
    assert hkl[0, :8].tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, -1],
        [0, -1, 0],
        [-1, 0, 0],
        [2, 0, 0],
        [1, 1, 0],
    ]
    assert hkl.shape == (1, POINTS, 3)
    assert len({tuple(one) for one in hkl[0]}) == POINTS
    np.testing.assert_allclose(g[0], np.linalg.norm(hkl[0], axis=1) / 4.0)


def test_points_outside_the_sphere_are_passed_over():
    hkl, g = reciprocal_points(np.diag([2.0, 9.0, 9.0])[None])
    assert g.max() <= 1.297
    assert np.abs(hkl[0, :, 0]).max() == 2  # 2 / 2 A is inside, 3 / 2 A is not


def test_small_cells_take_the_wider_sphere():
    """An edge of 1.75 angstrom: 56 points with h^2 + k^2 + l^2 <= 5 within 1.297, 80 with <= 6 within 1.4."""
    hkl, g = reciprocal_points(np.stack([np.eye(3) * 1.75, np.eye(3) * 4.0]))
    assert (hkl[0] ** 2).sum(axis=1).max() == 6 and g[0].max() == pytest.approx(np.sqrt(6) / 1.75)
    assert g[1].max() <= 1.297


def test_a_cell_too_small_is_refused():
    with pytest.raises(DataError, match="fewer than 59 points"):
        reciprocal_points(np.eye(3)[None])


def test_neither_rotation_nor_supercells_of_coordinates_change_it():
    rng, (numbers, positions, cell) = np.random.default_rng(1), perovskite()
    turned = rotation(rng)
    moved = positions @ turned + rng.integers(-2, 3, (5, 3)) @ (cell @ turned)
    both = Structures.pack([perovskite(), (numbers, moved, cell @ turned)], periodic=True)
    one, other = FTCP().encode(both, TABLE)
    np.testing.assert_allclose(one, other, atol=1e-3)


def test_the_order_of_sites_matters_but_not_that_of_the_file():
    numbers, positions, cell = perovskite()
    both = Structures.pack([(numbers, positions, cell), (numbers[::-1], positions[::-1], cell)], periodic=True)
    assert not np.allclose(*FTCP().encode(both, TABLE))
    ordered = by_electronegativity(both)
    assert ordered.numbers.tolist() == [56, 22, 8, 8, 8] * 2  # 0.89, 1.54, 3.44


@pytest.mark.parametrize("sites, elements", [(20, 3), (40, 4)])
def test_it_leads_back_to_the_crystal(sites, elements):
    made, ftcp = crystals(200, most=sites), FTCP(sites, elements)
    matrices = ftcp.encode(made, TABLE)
    scale = RowScale.fit(matrices)
    scaled = scale.apply(matrices)
    assert scaled.min() >= 0 and scaled.max() <= 1 + 1e-6
    for there in (matrices, scale.undo(scaled)):
        back, failed = ftcp.decode(there)
        assert not failed
        assert same(made, back)


def test_an_independent_matcher_agrees():
    from pymatgen.analysis.structure_matcher import StructureMatcher

    from replimat.representations.conversion import as_pymatgen

    made = crystals(5)
    back, _ = FTCP().decode(FTCP().encode(made, TABLE))
    for one, other in zip(as_pymatgen(made), as_pymatgen(back), strict=True):
        assert StructureMatcher(ltol=1e-3, stol=1e-3, angle_tol=0.1).fit(one, other)


def test_a_planted_error_is_seen():
    made = crystals(3)
    matrices = FTCP().encode(made, TABLE)
    matrices[1, COORDINATES, 0] += 0.01
    assert not same(made, FTCP().decode(matrices)[0])


def test_empty_sites_are_left_out_and_hydrogen_is_kept():
    numbers = np.array([11, 11, 1])
    made = Structures.pack([(numbers, np.eye(3), 5 * np.eye(3))], periodic=True)
    matrices = FTCP().encode(made, TABLE)
    matrices[0, COORDINATES + 20 + 1] = 0.04  # below the threshold, and not the last one
    assert FTCP().decode(matrices)[0].numbers.tolist() == [11, 1]


def test_what_is_no_crystal_is_named():
    matrices = np.repeat(FTCP().encode(crystals(1), TABLE), 4, axis=0)
    matrices[0, LATTICE + 1, :3] = 170, 20, 20
    matrices[1, COORDINATES + 20 : COORDINATES + 40] = 0
    matrices[2, LATTICE, 0] = 0
    back, failed = FTCP().decode(matrices)
    assert len(back) == 1
    assert failed == {0: "no cell has these lengths and angles", 1: "no site is filled", 2: failed[0]}
    assert FTCP().decode(matrices[:3])[0] is None


def test_cells_by_their_parameters():
    rng = np.random.default_rng(2)
    lengths, angles = rng.uniform(3, 10, 3), rng.uniform(65, 115, 3)
    cell = cell_of(lengths, angles)
    np.testing.assert_allclose(np.concatenate(cell_parameters(cell[None])[0]), lengths)
    np.testing.assert_allclose(cell_parameters(cell[None])[1][0], angles)
    assert cell[0, 1:].tolist() == [0, 0] and cell[1, 2] == 0
    assert cell_of(lengths, np.array([10.0, 90, 90])) is not None
    assert cell_of(lengths, np.array([10.0, 90, 40])) is None


def test_crystals_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="room for 4"):
        FTCP(sites=4).encode(Structures.pack([perovskite()], periodic=True), TABLE)
    with pytest.raises(DataError, match="3 elements; the matrix has room for 2"):
        OrderedCrystals(20, 2)(Structures.pack([perovskite()], periodic=True))
    heavy = Structures.pack([(np.array([101, 8]), np.eye(3)[:2], 4 * np.eye(3))], periodic=True)
    with pytest.raises(DataError, match="Z = 1 to 100"):
        FTCP().encode(heavy, TABLE)


def test_rows_are_scaled_by_the_training_crystals():
    scale = RowScale.fit(np.array([[[1.0, 3.0], [2.0, 2.0]]]))
    assert scale.apply(np.array([[[2.0, 5.0], [2.0, 3.0]]])).tolist() == [[[0.5, 2.0], [0.0, 1.0]]]


# --------------------------------------------------------------------------------------------------- the network


def test_parameters_of_the_published_network():
    """Counted by hand from the layers of the authors' code: kernels, biases, four numbers a channel of a norm of which
    two are learned.
    """
    conv = (5 * 62 * 32 + 32) + (3 * 32 * 64 + 64) + (3 * 64 * 128 + 128) + 2 * (32 + 64 + 128)
    dense = 60 * 128 * 1024 + 1024 + 2 * (1024 * 256 + 256)
    branch = (256 * 128 + 128) + (128 * 32 + 32) + (32 + 1)
    back = (256 * 128 * 60 + 128 * 60) + (3 * 128 * 64 + 64) + (3 * 64 * 32 + 32) + (5 * 32 * 62 + 62)
    wanted = conv + dense + branch + back + 2 * (128 + 64 + 32)
    assert sum(one.numel() for one in FTCPVAE(240, 62).parameters()) == wanted


def small(**others) -> FTCPVAE:
    return FTCPVAE(240, 62, filters=(4, 8, 16), dense=16, latent=6, **others)


def test_shapes_and_ranges():
    with torch.no_grad():
        found = small(properties=2, partial=1)(torch.rand(3, 240, 62))
    assert found.matrix.shape == (3, 240, 62) and found.properties.shape == (3, 3)
    assert found.mean.shape == found.log_variance.shape == (3, 6)
    assert 0 <= float(found.matrix.min()) and float(found.matrix.max()) <= 1


def test_it_draws_in_training_alone():
    model, x = small(), torch.rand(4, 240, 62)
    assert not torch.equal(model(x).matrix, model(x).matrix)
    model.eval()
    assert torch.equal(model(x).matrix, model(x).matrix)
    assert torch.equal(model(x).matrix, model.decode(model.encode(x)[0]))


@pytest.mark.parametrize("kernel, stride", [(5, 2), (3, 2), (3, 1)])
def test_convolutions_and_their_transposes_are_adjoint(kernel, stride):
    there, back = SameConv(2, 3, kernel, stride, bias=False), SameTransposed(3, 2, kernel, stride, bias=False)
    back.weight = there.weight
    x, y = torch.randn(1, 2, 12), torch.randn(1, 3, 12 // stride)
    assert there(x).shape == y.shape
    with torch.no_grad():
        assert float((there(x) * y).sum()) == pytest.approx(float((x * back(y)).sum()), rel=1e-4, abs=1e-5)


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        FTCPVAE(238, 62)
    with pytest.raises(ValueError, match="expected"):
        small()(torch.rand(2, 62, 240))


# ----------------------------------------------------------------------------------------------------- its loss


class Known(torch.nn.Module):
    """Every entry wrong by one half, mean 1 and variance 1 in both dimensions, properties wrong by 0.1 and 0.2."""

    def forward(self, matrix):
        n = len(matrix)
        properties = torch.tensor([[0.1, 0.2]]).repeat(n, 1)
        return Decoded(matrix + 0.5, torch.ones(n, 2), torch.zeros(n, 2), properties)


def loss_of(properties, weights, partial=0) -> float:
    task = PropertyVAETask(Known(), Training(1, 2, 1e-3, weights=weights), partial=partial)
    task.log = lambda *_, **__: None
    matrix = torch.zeros(2, 3, 4)
    return float(task.training_step(({"matrix": matrix}, {"matrix": matrix, "properties": properties}), 0))


def test_loss_by_hand():
    found = loss_of(torch.zeros(2, 2), {"kl": 2.0, "properties": 10.0})
    assert found == pytest.approx(24 * 0.25 + 2 * 0.5 + 10 * 2 * (0.01 + 0.04), rel=1e-6)


def test_unknown_properties_weigh_nothing():
    known = torch.tensor([[0.0, 0.0], [0.0, float("nan")]])
    found = loss_of(known, {"kl": 3.0, "properties": 20.0, "partial": 5.0}, partial=1)
    assert found == pytest.approx(24 * 0.25 + 3 * 0.5 + 20 * 2 * 0.01 + 5 * 0.04, rel=1e-6)


def test_gradients_stay_finite_with_unknown_properties():
    task = PropertyVAETask(
        small(partial=1), Training(1, 2, 1e-3, weights={"kl": 3, "properties": 20, "partial": 5}), partial=1
    )
    task.log = lambda *_, **__: None
    x = torch.rand(2, 240, 62)
    properties = torch.tensor([[0.5, float("nan")], [0.5, float("nan")]])
    task.training_step(({"matrix": x}, {"matrix": x, "properties": properties}), 0).backward()
    assert all(torch.isfinite(one.grad).all() for one in task.parameters())


def test_a_task_without_its_weights_is_refused():
    with pytest.raises(ValueError, match="kl, partial, properties"):
        PropertyVAETask(Known(), Training(1, 2, 1e-3, weights={"kl": 1, "properties": 1}), partial=1)


def test_learning_rates_of_the_authors_schedule():
    settings = Training(200, 2, 5e-4, weights={"kl": 1, "properties": 1})
    assert PropertyVAETask(Known(), settings, rates=((0.25, 0.2), (0.5, 0.1))).rates == {50: 0.2, 100: 0.1}


# ----------------------------------------------------------------------------------------------- the experiment


def data_of(energy: np.ndarray, **others) -> SimpleNamespace:
    """Rows with formation energies, all for training; others: case and further parts."""
    case = CASES["formation_energy_design"]
    values = lambda name: {"formation_energy": energy, **others}[name]  # noqa: E731
    return SimpleNamespace(case=case, train=np.arange(len(energy)), values=values)


class Still:
    """A generator whose latent points are the numbers of the rows."""

    def encode(self, rows):
        return np.asarray(rows, dtype=float)[:, None] * np.ones((1, 4))


def test_designs_start_from_the_training_crystals_nearest_to_the_target():
    energy = np.linspace(-3, 0, 301)
    found = starts(data_of(energy), Still(), energy_window(-0.5))
    assert len(found) == NEAREST and np.abs(energy[found] + 0.5).max() <= 0.05 + 1e-9


def test_steps_have_their_size():
    centres = np.arange(4000.0)[:, None] * np.ones((1, 4))
    assert (around(centres, 0.6, np.random.default_rng(0)) - centres).std() == pytest.approx(0.6, rel=0.02)


def test_starting_points_obey_the_other_properties():
    energy = np.where(np.arange(60) < 20, -2.0, 0.0)
    gap = Window({"band_gap": (1.2, 1.8)}, ("band_gap", 1.5), {"formation_energy": (-np.inf, -1.5)})
    found = starts(data_of(energy, band_gap=np.r_[np.full(5, np.nan), np.full(55, 1.5)]), Still(), gap)
    assert set(found) <= set(range(5, 20))
    with pytest.raises(ValueError, match="5 training crystals to start from"):
        starts(data_of(energy, band_gap=np.r_[np.full(15, np.nan), np.full(45, 1.5)]), Still(), gap)


def test_scores_by_hand():
    """Window 0 (-0.56 to -0.44): hit, hit with atoms too close, miss, hit of a known formula; window 1 (-0.36): hit."""
    properties = {"formation_energy": np.array([-0.5, -0.5, -0.9, -0.5, -0.3])}
    training = np.r_[np.full(1, -0.5), np.full(3, -2.0)]
    apart, new = np.array([True, False, True, True, True]), np.array([1.0, 1, 1, 0, 1])
    found = scores(data_of(training), properties, np.array([0, 0, 0, 0, 1]), apart, new)
    np.testing.assert_array_equal(found["share.success_rate"], [1, 0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(found["mean.improvement"], [4, 0, 0, np.nan, np.nan])
    np.testing.assert_array_equal(found["share.success_rate_all"], [1, 0, 0, np.nan, 1])
    np.testing.assert_array_equal(found["share.hit_rate"], [1, 0, 0, 1, np.nan])


def test_a_design_without_a_prediction_is_a_miss():
    nothing = {"formation_energy": np.array([np.nan])}
    for new in (1.0, np.nan):  # NaN: it is no crystal
        found = scores(data_of(np.array([-0.5])), nothing, np.zeros(1, dtype=int), np.array([True]), np.array([new]))
        assert found["share.success_rate"].tolist() == [0]


def test_formulas_are_compared_reduced():
    numbers, positions, cell = perovskite()
    double = np.r_[numbers, numbers], np.r_[positions, positions + np.array([4, 0, 0])], cell * [[2], [1], [1]]
    known = Structures.pack([perovskite()], periodic=True)
    other = (np.where(numbers == 22, 40, numbers), positions, cell)
    assert ftcp_designs.new_composition(Structures.pack([double, other], periodic=True), known).tolist() == [0, 1]


def test_files_of_rows_without_further_targets_keep_their_names():
    def key(**others) -> str:
        rows = Selection("qm9", ("gap",), 1, 1, 1, **others)
        return prepared_key(SimpleNamespace(data=rows, representation=OrderedCrystals(20, 3), extras_from=None))

    assert len({key(), key(also=()), key(also=("lumo",))}) == 2


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """The whole of the first case on 60 made-up crystals, the surrogate replaced by a constant."""
    from replimat.experiments.bench import Bench

    structures = crystals(60, most=9)
    arrays = OrderedCrystals(20, 3)(structures) | {"element_features": TABLE.astype(np.float32)}
    arrays |= {"part": np.repeat(np.arange(3, dtype=np.int8), [45, 5, 10])}
    arrays |= {"target.formation_energy": np.linspace(-2, 0, 60)}
    bench = Bench(arrays, np.arange(60).astype(str), tmp_path_factory.mktemp("ftcp"), 0, "x", "test")
    sizes = {
        "filters": 4,
        "dense": 16,
        "latent": 8,
        "second_rate": 0.2,
        "third_rate": 0.1,
        "perturbations": 1,
        "step": 0.6,
    }
    settings = ScaleSettings(epochs=1, batch_size=15, lr=1e-3, model=sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ftcp_designs, "surrogate", lambda name, made, device: np.full(len(made), -0.5))
        found = experiment.learn(bench, "formation_energy_design", CASES["formation_energy_design"], settings)
    return bench, found


def test_the_experiment_scores_designs_reconstruction_and_energy(learned):
    _, found = learned
    metrics = generation(found["formation_energy_design"].judged)
    assert metrics["evaluated"] + metrics["failed"] == 4 * NEAREST
    assert 0 <= metrics["success_rate"] <= 100
    assert set(found["formation_energy_design"].baselines) == {"untrained", "random_structure"}
    back = generation(found["reconstruction"].judged)
    assert back["evaluated"] + back["failed"] == 10
    assert np.isfinite(back["lengths_mape"]) and 0 <= back["element_accuracy"] <= 100
    assert len(found["formation_energy"].prediction) == 10


def test_figures_are_drawn(learned, tmp_path):
    bench, _ = learned
    with np.load(bench.folder / "windows.npz", allow_pickle=False) as stored:
        arrays = dict(stored.items())
    run = Run(
        paper="ftcp",
        experiment="formation-energy",
        scale="smoke",
        dataset="ftcp_crystals",
        data_origin="substitute",
        target="formation_energy_design",
        unit="1",
        task="generation",
        rung=6,
        status="ok",
        primary_metric="success_rate",
    )
    windows.draw(tmp_path / "windows.png", run, arrays)
    assert (tmp_path / "windows.png").stat().st_size > 5000
