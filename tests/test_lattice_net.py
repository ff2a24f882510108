"""DeepLPnet: what measuring does to a pattern, cells by hand, the network's size, and the experiment in small."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from replimat import cards
from replimat.audit import rescore
from replimat.cards import ScaleSettings
from replimat.datasets.patterns import SYSTEMS
from replimat.errors import DataError
from replimat.evaluation.search_volume import search_volume, searched_share
from replimat.experiments import lattice_net as experiment
from replimat.experiments.bench import Bench
from replimat.experiments.catalogue import plan_one
from replimat.models.lattice_net import LatticeNet, by_symmetry, free_lengths
from replimat.reporting import cells
from replimat.representations.modifications import (
    NONE,
    Modifications,
    broadened,
    modify,
    rescaled,
    shifted,
)
from replimat.training.relative import RelativeTask
from replimat.training.settings import Training
from runs import run

CALCITE = {"a": 6.375, "alpha": 46.08, "hexagonal": (4.990, 17.06)}  # angstrom, degree: both settings, as tabulated
FLOAT32 = 1e-5


def peaks(*places: int, points: int = 900) -> torch.Tensor:
    """One pattern for each place, with one peak of one point there."""
    pattern = torch.zeros(len(places), points)
    pattern[torch.arange(len(places)), torch.tensor(places)] = 1.0
    return pattern


# -------------------------------------------------------------------------------------------------- modifications


def test_a_shift_moves_peaks_and_lets_nothing_in_from_the_other_end():
    moved = shifted(peaks(10, 10, 899), torch.tensor([3, -4, 5]))
    assert moved[0].argmax() == 13 and moved[1].argmax() == 6 and moved[2].sum() == 0


def test_blocks_are_rescaled_each_by_its_own_factor():
    scaled = rescaled(torch.ones(1, 6), torch.tensor([[1.0, 2.0, 0.5]]))
    assert scaled.tolist() == [[1, 1, 2, 2, 0.5, 0.5]]
    with pytest.raises(ValueError, match="equal blocks"):
        rescaled(torch.ones(1, 7), torch.ones(1, 3))


def test_broadening_is_a_gaussian_convolution():
    pattern, sigma = peaks(300, 500), torch.tensor([1.0, 5.0])
    wanted = [gaussian_filter1d(one, s, truncate=8) for one, s in zip(pattern.numpy(), sigma.tolist(), strict=True)]
    assert broadened(pattern, sigma).numpy() == pytest.approx(np.stack(wanted), abs=FLOAT32)
    assert broadened(peaks(899), torch.tensor([5.0]))[0, :400].abs().max() < FLOAT32  # no way round to the other end


def test_modified_patterns_reach_from_0_to_1_and_come_again_from_the_same_seed():
    pattern, others = torch.rand(4, 900) ** 20, torch.rand(5, 900) ** 20
    one, again = (modify(pattern, others, Modifications(), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, again)
    assert one.amin(dim=1).tolist() == [0] * 4 and one.amax(dim=1).tolist() == [1] * 4
    torch.testing.assert_close(modify(peaks(5, 7), others, NONE), peaks(5, 7))


def test_each_modification_does_what_it_says_and_no_more():
    generator = torch.Generator().manual_seed(0)
    pattern, other = peaks(*[450] * 400), peaks(100)
    only_shift = Modifications(intensity=0, impurities=0, noise=0, broadening=0)
    places = modify(pattern, other, only_shift, generator).argmax(dim=1)
    assert places.min() == 443 and places.max() == 457
    only_impurities = Modifications(shift=0, intensity=0, noise=0, broadening=0)
    share = modify(pattern, other, only_impurities, generator)[:, 100]
    assert 0.05 <= share.min() < 0.07 and 0.2 < share.max() <= 0.3  # from one of 5 % to three of 10 %
    only_noise = Modifications(shift=0, intensity=0, impurities=0, broadening=0)
    noise = modify(pattern, other, only_noise, generator)[:, :400]
    assert noise.min() >= 0 and noise.mean() == pytest.approx(0.002 / 3 * np.sqrt(2 / np.pi), rel=0.02)
    only_intensity = Modifications(shift=0, impurities=0, noise=0, broadening=0)
    heights = modify(pattern + 0.5 * peaks(100), other, only_intensity, generator)[:, 100]
    assert 0.5 * 0.7 / 1.3 <= heights.min() < 0.35 and 0.75 < heights.max() <= 0.5 * 1.3 / 0.7


# ----------------------------------------------------------------------------------------------------------- cells


def test_symmetry_by_hand():
    assert by_symmetry(np.array([[4.0, 5.0, 6.0]]), "cubic").tolist() == [[5, 5, 5]]
    assert by_symmetry(np.array([[4.0, 4.2, 9.0]]), "hexagonal")[0] == pytest.approx([4.1, 4.1, 9.0])
    assert by_symmetry(np.array([[9.0, 3.0, 1.0]]), "monoclinic").tolist() == [[1, 3, 9]]
    # the first two are 2 apart, first and third 3.5, second and third 1.5: the authors' rule takes the first two
    assert by_symmetry(np.array([[1.0, 3.0, 4.5]]), "tetragonal")[0] == pytest.approx([1.0, 3.75, 3.75])


def test_free_lengths_by_hand():
    assert free_lengths(np.array([[5.0, 5.0, 5.0]]), "cubic").tolist() == [[5]]
    assert free_lengths(np.array([[4.0, 4.0, 9.0], [3.0, 7.0, 7.0]]), "trigonal").tolist() == [[9, 4], [3, 7]]
    assert free_lengths(np.array([[6.0, 4.0, 5.0]]), "orthorhombic").tolist() == [[4, 5, 6]]


def test_rhombohedral_axes_become_hexagonal_ones():
    a, c = CALCITE["hexagonal"]
    edges = experiment.hexagonal_axes(np.array([[CALCITE["a"]] * 3, [a, a, c]]), np.array([CALCITE["alpha"], 90.0]))
    assert edges == pytest.approx(np.array([[a, a, c]] * 2), rel=1e-3)


def test_a_measured_peak_keeps_its_spacing_on_the_copper_axis():
    d, wavelength = 3.0, 0.7295684
    axis = np.linspace(1.0, 60.0, 11801)
    peak = 2 * np.degrees(np.arcsin(wavelength / 2 / d))
    counts = 500 * np.exp(-(((axis - peak) / 0.02) ** 2)) + 0.2  # the background is below 0.001 of the highest point
    found = experiment.at_copper(axis, counts, wavelength)
    place = experiment.INSTRUMENT.axis()[found.argmax()]
    assert place == pytest.approx(2 * np.degrees(np.arcsin(1.54056 / 2 / d)), abs=experiment.INSTRUMENT.step)
    assert found.max() == 1 and found[0] == 0 and len(found) == 9000


# ------------------------------------------------------------------------------------------------- search volume


def test_search_volume_by_hand():
    true, low, high = np.array([[4.0, 10.0], [8.0, 10.0]]), np.array([0.0, 0.0]), np.array([10.0, 20.0])
    exact = searched_share(true, 1.25 * true, low, high)  # every prediction a quarter too long: 20 % off
    assert exact == pytest.approx([0.4 * 5 / 10 * 0.4 * 12.5 / 20, 0.4 * 10 / 10 * 0.4 * 12.5 / 20])
    assert search_volume(np.ones(2), exact)["reduction"] == pytest.approx((10 * 20) ** 0.5)


def test_cells_outside_their_box_are_counted_as_failed():
    share = searched_share(np.array([[4.0], [8.0]]), np.array([[4.0], [4.0]]), np.array([0.0]), np.array([16.0]))
    assert share[0] == pytest.approx(2 * 0.5 * 4 / 16) and np.isnan(share[1])  # errors 0 and 1, mean 0.5
    found = search_volume(np.ones(2), share)
    assert found == {"reduction": pytest.approx(4), "evaluated": 1, "failed": 1}
    assert rescore("search_volume", np.ones(1), share[:1])["reduction"] == pytest.approx(4)
    with pytest.raises(DataError, match="must be positive"):
        search_volume(np.ones(1), np.zeros(1))


# ------------------------------------------------------------------------------------------------------- network


def size(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_sizes_are_those_of_the_released_models():
    assert size(LatticeNet()) == 78_248  # counted in the authors' files, as the next
    assert size(LatticeNet(pool=1)) == 198_248


def test_shapes_and_units_of_the_network():
    network = LatticeNet(centre=torch.tensor([4.0, 5.0, 6.0]), spread=0.0)
    assert network(torch.rand(2, 9000)).tolist() == [[4, 5, 6]] * 2
    with pytest.raises(ValueError, match="too short"):
        LatticeNet(points=300)


def test_each_pattern_is_read_by_itself():
    network, pattern = LatticeNet(pool=9).eval(), torch.rand(3, 9000)
    torch.testing.assert_close(network(pattern)[1:2], network(pattern[1:2]), rtol=FLOAT32, atol=FLOAT32)


def test_the_loss_is_the_relative_error():
    class Known(torch.nn.Module):
        def forward(self, pattern):
            return pattern

    task = RelativeTask(Known(), Training(epochs=1, batch_size=2, lr=1e-3, loss="mae"), scale=1.0)
    ratio, loss = task._ratio(({"pattern": torch.tensor([[3.0, 9.0]])}, torch.tensor([[2.0, 10.0]])))
    assert ratio.tolist() == [[1.5, pytest.approx(0.9)]] and float(loss) == pytest.approx(0.3)


# ---------------------------------------------------------------------------------------------------- experiment


def simple_cubic(edges: np.ndarray) -> dict[str, np.ndarray]:
    """Prepared arrays of simple cubic crystals with lines from (100) to (222), a quarter of them to test on."""
    length = np.sqrt([1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12])
    n = len(edges)
    arrays = {
        "d": (edges[:, None] / length).ravel().astype(np.float32),
        "intensity": np.tile(1 / length**2, n).astype(np.float32),
        "reflection_offsets": np.arange(n + 1) * len(length),
        "part": np.repeat(np.arange(3, dtype=np.int8), [n // 2, n // 4, n - n // 2 - n // 4]),
    }
    targets = {"a": edges, "b": edges, "c": edges, "alpha": np.full(n, 90.0), "mineral": np.arange(n)}
    targets["crystal_system"] = np.full(n, SYSTEMS.index("cubic"))
    return arrays | {f"target.{name}": values for name, values in targets.items()}


@pytest.fixture
def bench(tmp_path) -> Bench:
    torch.manual_seed(0)
    edges = np.random.default_rng(0).uniform(3.0, 9.0, 96)
    return Bench(simple_cubic(edges), np.arange(96).astype(str), tmp_path, 0, "identity", "test")


def settings(**model) -> ScaleSettings:
    return ScaleSettings(n_train=48, epochs=24, batch_size=8, lr=3e-3, model={"pool": 9, "modified": True} | model)


def test_a_network_learns_the_edge_of_simple_cubic_crystals(bench):
    names = ("lengths", "plain_lengths", "search_volume")
    found = experiment.learn(bench, settings(system="cubic"), names)
    lengths, plain, search = (found[name] for name in names)
    assert lengths.target.shape == (72,) and lengths.ids[:2].tolist() == ["72:0", "72:1"]
    assert plain.ids[0] == "72:plain:0" and plain.target.tolist() == lengths.target.tolist()
    error, trivial = (
        np.abs(said / lengths.target - 1).mean() for said in (lengths.prediction, lengths.baselines["mean"])
    )
    assert error < 0.6 * trivial
    assert (search.target == 1).all() and np.nanmax(search.prediction) <= 1
    again = experiment.learn(bench, settings(system="cubic"), ("lengths",))["lengths"]  # from stored weights
    assert again.prediction.tolist() == lengths.prediction.tolist()


def test_measured_patterns_are_read_by_the_network_of_their_system(bench):
    known = experiment.crystals(bench, "cubic")
    name = np.array([b"one", b"three"]).view(np.uint8).reshape(2, -1)
    bench.arrays.update(
        {
            "measured.pattern": known.pattern[:2].numpy(),
            "measured.system": np.full(2, SYSTEMS.index("cubic")),
            "measured.lengths": known.lengths[:2],
            "measured.name": name,
        }
    )
    found = experiment.learn_measured(bench, settings(), ("measured_lengths",))["measured_lengths"]
    assert found.ids.tolist() == [f"{one}:{k}" for one in ("one", "three") for k in range(3)]
    kept = np.load(bench.folder / "cells.npz")
    assert kept["ours"].ravel().tolist() == found.prediction.tolist()
    assert (bench.folder / "cubic" / "model.safetensors").is_file()


def test_experiments_of_the_card_are_described():
    for name, system in (("cubic", "cubic"), ("cubic-plain", "cubic"), ("monoclinic", "monoclinic")):
        described = plan_one("lattice_net", name, "laptop").experiment
        assert described.data.where == (("crystal_system", SYSTEMS.index(system)),)
        assert described.target == cards.paper("lattice_net").experiments[name].target
    measured = plan_one("lattice_net", "ssrl-measured", "laptop")
    assert "ssrl_patterns" in measured.datasets and measured.experiment.data.where == ()


# -------------------------------------------------------------------------------------------------------- figure


def test_the_authors_predictions_stand_beside_ours(tmp_path):
    names = np.array(["BL21Robot_0106", "JK21_scraped", "BL21Robot_9999"])
    found, titles = cells.reported_lengths(cards.claims("lattice_net"), names)
    assert titles == ["In2O3", "2(CH6N)PbI3Cl", "BL21Robot_9999"]
    assert found[0].tolist() == [10.117811] * 3 and found[1, 2] == 23.162544 and np.isnan(found[2]).all()
    lengths = np.full((3, 3), 10.0)
    arrays = {"names": names, "system": np.array([6, 2, 6]), "refined": lengths, "ours": 1.1 * lengths}
    cells.draw(tmp_path / "cells.png", run(paper="lattice_net"), arrays)
    assert (tmp_path / "cells.png").stat().st_size > 5000
