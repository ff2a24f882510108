"""The voxel autoencoder of Court et al.: its networks, its losses by hand, that they learn, and the experiment."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from replimat import cards
from replimat.cards import ScaleSettings
from replimat.datasets.base import Structures
from replimat.datasets.cubic_pool import FAMILIES, conventional, prototype
from replimat.evaluation.generation import generation
from replimat.experiments import cond_dfc_vae as experiment
from replimat.experiments.base import Learned, Made, Supervised
from replimat.experiments.bench import Bench
from replimat.experiments.cond_dfc_vae import (
    Crystals,
    Generator,
    compared,
    covered_and_new,
    given_back,
    position_distance,
    quantile_bins,
)
from replimat.models.cond_dfc_vae import CHANNELS, CLASSES, AtomUNet, Decoded, Segmented, VoxelVAE
from replimat.representations.voxels import VoxelSites, padded, voxelise
from replimat.training.segmentation import FeatureConsistentTask, SegmentationTask, SiteRows, segmentation_loss
from replimat.training.settings import Training

MODEL = {
    "grid": 8,
    "width": 2,
    "levels": 1,
    "filters": 4,
    "pools": 2,
    "latent": 16,
    "turns": True,
    "schedule": "constant",
    "unet_epochs": 1,
    "unet_lr": 0.01,
    "samples": 6,
}


def caesium_chlorides(n: int) -> Structures:
    """Crystals of two elements, edges of 3 to 4 angstrom."""
    places = np.array([[0.0, 0.0, 0.0], [0.5, 0.5, 0.5]])
    crystals = [
        (np.array([3 + s % 60, 8 + s % 9]), places * a, a * np.eye(3)) for s, a in enumerate(np.linspace(3, 4, n))
    ]
    return Structures.pack(crystals, periodic=True)


def bench_of(n: int, folder, monkeypatch) -> Bench:
    """n crystals, half of them to test; CGCNN's weights are not there, and an energy is the edge."""
    monkeypatch.setattr(experiment, "predicted_energy", lambda made, device: made.cells[:, 0, 0])
    structures = caesium_chlorides(n)
    arrays = VoxelSites()(structures) | {"condition": structures.cells[:, 0, 0]}
    arrays["part"] = np.resize([0, 2, 0, 1], n).astype(np.int8)
    return Bench(arrays, np.array([f"c{s}" for s in range(n)]), folder, 0, "identity", "test")


# ------------------------------------------------------------------ networks


def convolution(a: int, b: int, k: int = 27) -> int:
    return k * a * b + b


def test_parameters_of_the_paper_networks():
    """Counted by hand from the authors' layers; a normalisation has two per channel."""
    pairs = [(4, 32, 64), (64, 64, 128), (128, 128, 256), (256, 512, 512)]
    pairs += [(768, 512, 256), (384, 256, 128), (192, 128, 128)]
    wanted = sum(convolution(a, b) + convolution(b, c) + 2 * (b + c) for a, b, c in pairs)
    wanted += convolution(128, 95, 1) + convolution(128, 1, 1)
    assert sum(p.numel() for p in AtomUNet().parameters()) == wanted

    down = [(14, 16), (16, 32), (32, 64), (64, 128)]
    up = [(4, 128), (128, 64), (64, 32), (32, 16), (16, 4)]
    wanted = sum(convolution(a, b) + 2 * b for a, b in down + up) + convolution(128, 4)
    wanted += 32 * 256 + 256 + 2 * (256 * 256 + 256) + 266 * 256 + 256
    assert sum(p.numel() for p in VoxelVAE().parameters()) == wanted


@pytest.mark.parametrize("grid", [8, 12, 20])
def test_shapes(grid):
    vae, unet = VoxelVAE(grid, filters=(4, 8), latent=16), AtomUNet(2, levels=2)
    voxels, bins = torch.rand(2, CHANNELS, grid, grid, grid), torch.tensor([0, 9])
    decoded, found = vae(voxels, bins), unet(voxels)
    assert decoded.reconstruction.shape == voxels.shape and decoded.mean.shape == (2, 16)
    assert found.species.shape == (2, CLASSES, grid, grid, grid) and found.presence.shape == (2, grid, grid, grid)
    assert [one.shape[1] for one in unet.features(voxels)] == [4, 8, 16]


def test_another_grid_is_refused():
    with pytest.raises(ValueError, match="expected"):
        VoxelVAE(8, (4,), 4).encode(torch.zeros(1, 4, 12, 12, 12), torch.zeros(1, dtype=torch.long))
    with pytest.raises(ValueError, match="too small"):
        VoxelVAE(4, (4, 4, 4), 4)


def test_the_condition_reaches_both_halves():
    torch.manual_seed(0)
    vae, voxels = VoxelVAE(8, (4, 8), 16).eval(), torch.rand(1, 4, 8, 8, 8)
    one, other = torch.tensor([1]), torch.tensor([7])
    assert not torch.equal(vae.encode(voxels, one)[0], vae.encode(voxels, other)[0])
    z = torch.zeros(1, 16)
    assert not torch.equal(vae.decode(z, one), vae.decode(z, other))


def test_the_latent_point_is_drawn_in_training_alone():
    torch.manual_seed(0)
    vae, voxels, bins = VoxelVAE(8, (4, 8), 16), torch.rand(2, 4, 8, 8, 8), torch.tensor([0, 1])
    assert not torch.equal(vae(voxels, bins).reconstruction, vae(voxels, bins).reconstruction)
    vae.eval()
    torch.testing.assert_close(vae(voxels, bins).reconstruction, vae(voxels, bins).reconstruction)


# -------------------------------------------------------------------- losses


def test_segmentation_loss_by_hand():
    species = torch.zeros(1, 1, 1, 2, dtype=torch.long)
    species[0, 0, 0, 1] = 8
    logits = torch.zeros(1, CLASSES, 1, 1, 2)
    logits[0, 5, 0, 0, 0] = 100.0  # outside an atom: does not matter
    found = Segmented(logits, torch.zeros(1, 1, 1, 2))
    assert float(segmentation_loss(found, species)) == pytest.approx(np.log(CLASSES) + np.log(2), rel=1e-5)


def test_loss_weighs_its_three_parts():
    class Known(nn.Module):
        def forward(self, voxels, condition):
            return Decoded(voxels + 2.0, torch.ones(len(voxels), 3), torch.zeros(len(voxels), 3))

    class Doubled(nn.Module):
        def features(self, voxels):
            return [voxels, 2 * voxels]

    weights = {"reconstruction": 1.0, "perceptual": 0.5, "kl": 0.1}
    task = FeatureConsistentTask(Known(), Training(1, 1, 0.1, weights=weights), 1.0, Doubled(), grid=8)
    loss, parts = task._losses((padded(VoxelSites()(caesium_chlorides(2))), torch.tensor([0, 1])))
    assert {name: float(value) for name, value in parts.items()} == pytest.approx(
        {"reconstruction": 4.0, "perceptual": 4.0 + 16.0, "kl": 1.5}, rel=1e-5
    )
    assert float(loss) == pytest.approx(4.0 + 10.0 + 0.15, rel=1e-5)


def test_features_are_not_trained():
    unet = AtomUNet(2, 1)
    task = FeatureConsistentTask(VoxelVAE(8, (4,), 4), Training(1, 1, 0.1), 1.0, unet, grid=8)
    assert not any(p.requires_grad for p in unet.parameters()) and not unet.training
    assert not any(name.startswith("known") for name in task.state_dict())


def test_the_segmentation_network_learns():
    torch.manual_seed(0)
    sites = padded(VoxelSites()(caesium_chlorides(6)))
    voxels, species = voxelise(sites, 8)
    unet = AtomUNet(4, 1)
    optimiser = torch.optim.Adam(unet.parameters(), 0.02)
    losses = []
    for _ in range(60):
        loss = segmentation_loss(unet(voxels), species)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


# ---------------------------------------------------------------- experiment


def test_quantile_bins_hold_equal_shares_of_the_training_rows():
    train = np.random.default_rng(0).normal(size=1000)
    assert np.bincount(quantile_bins(train, train)).tolist() == [100] * 10
    assert quantile_bins(np.array([-99.0, 99.0]), train).tolist() == [0, 9]


def test_positions_are_compared_whatever_their_order():
    one = (np.array([11, 17]), np.array([[0.0, 0, 0], [1.5, 1.5, 1.8]]), 3 * np.eye(3))
    other = (np.array([17, 11]), np.array([[2.5, 2.5, 2.5], [1.0, 1.0, 1.0]]), 3 * np.eye(3))  # from the origin: 0, 1.5
    assert position_distance(one, other) == pytest.approx(0.15)


def test_comparison_by_hand():
    true = caesium_chlorides(2)
    z, x, cell = true[0]
    made = Structures.pack([(z, 1.1 * x, 1.1 * cell), (true[1][0][::-1], *true[1][1:])], periodic=True)
    found = compared(made, true)
    assert found["mean.edge_change"] == pytest.approx([10, 0]) and found["mean.bond_change"] == pytest.approx([10, 0])
    assert found["mean.edge_error"] == pytest.approx([0.3, 0]) and found["share.same_formula"].tolist() == [1, 1]
    assert found["mean.atoms_error"].tolist() == [0, 0]


def test_what_is_given_back_whole_matches_and_planted_errors_do_not(tmp_path, monkeypatch):
    bench = bench_of(8, tmp_path, monkeypatch)
    crystals = Crystals(bench)
    true = crystals.structures.take(crystals.test)
    perfect = generation(given_back(crystals, true, {}, bench))
    assert perfect["match_rate"] > 0 and perfect["same_formula"] == 100
    assert perfect["rmse"] == pytest.approx(0, abs=1e-6) and perfect["formation_energy_difference"] == 0
    swapped = generation(given_back(crystals, true.take(np.arange(len(true))[::-1]), {}, bench))
    assert swapped["match_rate"] < perfect["match_rate"] and swapped["same_formula"] < 100
    lost = generation(given_back(crystals, true.take(np.arange(1, len(true))), {0: "no atoms"}, bench))
    assert lost["failed"] == 1 and lost["match_rate"] < perfect["match_rate"]
    assert generation(given_back(crystals, None, dict.fromkeys(range(len(true)), "no atoms"), bench))["match_rate"] == 0


def test_learns_and_generates(tmp_path, monkeypatch):
    bench = bench_of(16, tmp_path, monkeypatch)
    settings = ScaleSettings(epochs=1, batch_size=4, lr=0.01, model=MODEL)
    found = experiment.learn(bench, settings=settings, cutoffs="mp20")
    assert list(found) == ["reconstruction", "random_generation", "generation_around"]
    for made in found.values():
        assert isinstance(made, Made) and set(made.baselines) == {"untrained", "random_structure"}
    metrics = generation(found["random_generation"].judged)
    assert metrics["evaluated"] + metrics["failed"] == 6 and {"validity", "cov_p", "cov_r"} <= set(metrics)
    assert (tmp_path / "unet" / "model.safetensors").exists() and (tmp_path / "vae" / "model.safetensors").exists()


def test_copies_are_near_the_data_but_not_new():
    rows = [("made", 1.0, 1.0), ("made", 0.0, 1.0), ("made", np.nan, 1.0), ("made", 1.0, 0.0), ("data", np.nan, np.nan)]
    table = pd.DataFrame(rows, columns=["of", "share.novelty", "share.cov_p"])
    found = covered_and_new(table)["share.covered_and_new"]
    assert found[:4].tolist() == [1.0, 0.0, 0.0, 0.0] and np.isnan(found[4])


def test_decoding_names_what_fails(tmp_path, monkeypatch):
    bench = bench_of(4, tmp_path, monkeypatch)
    crystals = Crystals(bench)
    unet, vae = experiment.networks(ScaleSettings(model=MODEL))
    with torch.no_grad():
        unet.presence.bias.fill_(-50.0)
        vae.out[1].bias.fill_(5.0)  # above zero, so that the coordinates have a range
    made, failed = Generator(unet, vae, crystals, bench).decode(torch.zeros(3, 16), torch.zeros(3, dtype=torch.long))
    assert made is None and failed == dict.fromkeys(range(3), "no atoms")


def test_card_builds_at_every_scale():
    card = cards.paper("cond_dfc_vae")
    for name, one in card.experiments.items():
        for scale in cards.SCALES:
            if settings := one.at(scale):
                built = experiment.build(one, settings, scale)
                kind = Learned if one.target == "reconstruction" else Supervised
                assert isinstance(built, kind), name


# ---------------------------------------------------------------------- data


def test_conventional_cell_of_a_heusler_compound():
    half = 3.0
    cell = half * np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=float)
    fractional = np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.25, 0.25, 0.25], [0.75, 0.75, 0.75]])
    numbers, positions, cube = conventional(np.array([25, 13, 29, 29]), fractional @ cell, cell)
    assert cube == pytest.approx(6.0 * np.eye(3)) and positions.shape == (16, 3)
    assert (225, *prototype(numbers)) == FAMILIES["heusler"]


def test_rotated_batches_are_of_training_alone():
    sites = padded(VoxelSites()(caesium_chlorides(2)))
    task = SegmentationTask(AtomUNet(2, 1), Training(1, 1, 0.1), 1.0, grid=8, turns=True)
    task.eval()
    torch.testing.assert_close(task.voxels(sites)[0], voxelise(sites, 8)[0])
    task.train()
    torch.manual_seed(1)
    assert not torch.equal(task.voxels(sites)[0], voxelise(sites, 8)[0])


def test_rows_of_sites():
    sites = padded(VoxelSites()(caesium_chlorides(5)))
    part, bins = SiteRows(sites, torch.arange(5)).__getitems__([3, 1])
    assert bins.tolist() == [3, 1] and part.edges[0, 0] == sites.edges[3, 0]
