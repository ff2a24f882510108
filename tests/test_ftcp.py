"""The autoencoder of Ren et al., its loss by hand, and the experiment around them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ftcp_crystals import TABLE, crystals, perovskite
from replimat.cards import ScaleSettings
from replimat.datasets.base import Structures
from replimat.evaluation.generation import generation
from replimat.experiments import ftcp as experiment
from replimat.experiments import ftcp_designs
from replimat.experiments.ftcp import CASES, energy_window
from replimat.experiments.ftcp_designs import NEAREST, around, scores, starts
from replimat.experiments.ftcp_latent import Window
from replimat.models.ftcp import FTCPVAE, Decoded, SameConv, SameTransposed
from replimat.records import Run
from replimat.reporting import windows
from replimat.representations.ftcp import (
    OrderedCrystals,
)
from replimat.training.property_vae import PropertyVAETask
from replimat.training.settings import Training

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
