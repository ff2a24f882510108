"""The GAN of Hoffmann and Noé: matrices Euclidean by construction, losses by hand, symmetries, the experiment."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from replimat.cards import ScaleSettings
from replimat.datasets.base import Structures
from replimat.evaluation.generation import generation
from replimat.evaluation.molecules import is_euclidean
from replimat.experiments import edm as experiment
from replimat.experiments.base import Made
from replimat.experiments.bench import Bench
from replimat.experiments.edm import Known, OrderedMolecules, Sampled, squared_distances
from replimat.models.edm import (
    DIMENSION,
    EDMGAN,
    SHORTEST,
    UNIT,
    Critic,
    Generator,
    LargestThree,
    could_be_molecules,
    distance_matrices,
    permuted,
    points,
)
from replimat.records import Run
from replimat.reporting import crystals, distances
from replimat.representations.conversion import packed, unpacked

COUNTS = (7, 2, 10)
SINGLE = 1e-4  # relative, of single precision after an eigendecomposition


def clouds(size: int, n: int = 19, seed: int = 0) -> torch.Tensor:
    """Squared distances of random points [size, n, n]."""
    x = torch.randn(size, n, 3, generator=torch.Generator().manual_seed(seed)) * 1.5
    return torch.cdist(x, x).square()


def small(**options) -> EDMGAN:
    torch.manual_seed(0)
    generator = {"latent": 6, "width": 24, "channels": 4}
    return EDMGAN(COUNTS, 0.96, generator, {"features": 8, "blocks": 2, "gaussians": 8} | options)


# ------------------------------------------------------------------------------------------- by construction


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_weights_are_every_matrix_is_euclidean(seed):
    """Schoenberg's test, by another route than the construction, for weights of any size."""
    torch.manual_seed(seed)
    generator = Generator(19, 3, latent=5, width=16, channels=2, scale=10 ** float(torch.empty(1).uniform_(-1, 2)))
    for weight in generator.parameters():
        nn.init.normal_(weight, std=float(torch.empty(1).uniform_(0.05, 1.0)))
    with torch.no_grad():
        squared, logits = generator(torch.randn(50, 5))
    assert is_euclidean(squared.numpy()).all()
    assert squared.shape == (50, 19, 19) and logits.shape == (50, 19, 3)


def test_any_matrix_gives_a_euclidean_one_of_three_dimensions():
    squared = distance_matrices(100 * torch.randn(200, 18, 18)).double().numpy()
    assert is_euclidean(squared).all() and not is_euclidean(squared, dimension=2).any()


def test_a_fourth_eigenvalue_would_be_seen():
    """Planted: with four eigenvalues kept the points need a fourth dimension."""
    values, vectors = torch.linalg.eigh(torch.randn(20, 18, 18).double() + torch.randn(20, 18, 18).double().mT)
    values[:, -4:], values[:, :-4] = values[:, -4:].abs() + 1, 0
    gram = functional.pad((vectors * values[:, None]) @ vectors.mT, (1, 0, 1, 0))
    diagonal = gram.diagonal(dim1=1, dim2=2)
    assert not is_euclidean((diagonal[:, :, None] + diagonal[:, None] - 2 * gram).numpy()).any()


def test_eigenvalues_by_hand():
    made = LargestThree.apply(torch.diag(torch.tensor([5.0, -1.0, 0.0, 2.0, -3.0]))[None])[0]
    wanted = functional.softplus(torch.tensor([5.0, 0.0, 2.0])).tolist()
    assert made.diagonal().tolist() == pytest.approx([wanted[0], 0, wanted[1], wanted[2], 0], abs=1e-6)


def test_the_gradient_is_that_of_differences():
    matrix = torch.randn(2, 6, 6, dtype=torch.float64)
    matrix = ((matrix + matrix.mT) / 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda m: LargestThree.apply((m + m.mT) / 2), matrix, atol=1e-6)


def test_the_gradient_is_finite_where_eigenvalues_meet():
    matrix = torch.eye(8)[None].clone().requires_grad_()
    distance_matrices(matrix)[:, 1:3].sum().backward()
    assert torch.isfinite(matrix.grad).all()


def test_points_have_the_distances_they_were_made_from():
    squared = clouds(30)
    found = points(squared)
    assert found.shape == (30, 19, DIMENSION) and found.mean(dim=1).abs().max() < 1e-6
    torch.testing.assert_close(torch.cdist(found, found).square().float(), squared, rtol=SINGLE, atol=1e-3)


def test_an_even_number_of_points_is_refused():
    with pytest.raises(ValueError, match="odd"):
        Generator(18, 3)


# ---------------------------------------------------------------------------------------------------- critic


def pair_distances(squared: torch.Tensor) -> torch.Tensor:
    one, two = torch.triu_indices(19, 19, 1)
    return squared[:, one, two].clamp_min(SHORTEST**2).sqrt()


def test_the_order_of_the_atoms_does_not_matter():
    critic, squared = Critic(19, 3, features=8), clouds(4)
    kinds = torch.rand(4, 19, 3)
    order = torch.stack([torch.randperm(19) for _ in range(4)])
    turned = torch.take_along_dim(kinds, order[..., None], dim=1)
    torch.testing.assert_close(
        critic(pair_distances(permuted(squared, order)), turned), critic(pair_distances(squared), kinds)
    )


def test_elements_and_distances_do_matter_and_a_batch_does_not():
    critic, squared, kinds = Critic(19, 3, features=8), clouds(4), torch.rand(4, 19, 3)
    together = critic(pair_distances(squared), kinds)
    torch.testing.assert_close(critic(pair_distances(squared[2:3]), kinds[2:3]), together[2:3])
    assert (critic(pair_distances(1.2 * squared), kinds) - together).abs().min() > 0
    assert (critic(pair_distances(squared), kinds.flip(2)) - together).abs().min() > 0


def test_parameters_of_a_small_critic():
    """F = 4, C = 2, G = 5: elements; C of an atom; from F + 3 G and F + C G numbers to 2 F to F; readout."""
    critic = Critic(19, 3, features=4, passed=2, blocks=2, gaussians=5)
    first, second, readout = 20 * 8 + 9 * 4, 15 * 8 + 9 * 4, 5 * 8 + 9
    assert sum(p.numel() for p in critic.parameters()) == 12 + 8 + first + second + readout


def test_the_slope_is_that_of_autograd():
    critic, distance, kinds = (
        Critic(19, 3, features=8).double(),
        pair_distances(clouds(3)).double(),
        torch.rand(3, 19, 3),
    )
    inverse, kinds = (UNIT / distance).requires_grad_(), kinds.double().requires_grad_()
    slopes = torch.autograd.grad(critic(UNIT / inverse, kinds).sum(), (inverse, kinds))
    wanted = sum(one.flatten(1).square().sum(dim=1) for one in slopes).sqrt()
    torch.testing.assert_close(critic.slope(distance, kinds), wanted)
    critic.slope(distance, kinds).sum().backward()
    assert all(weight.grad is not None for name, weight in critic.named_parameters() if "readout.2.bias" not in name)


def test_the_first_interaction_is_a_sum_over_the_other_atoms():
    """By hand: of Gaussians of ln d, each times what the other atom is."""
    critic, squared, kinds = Critic(19, 3, features=8, gaussians=4, blocks=1), clouds(1), torch.rand(1, 19, 3)
    seen = []
    critic.after[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    critic(pair_distances(squared), kinds)
    logarithm = (squared[0] + 1e9 * torch.eye(19)).sqrt().log()
    gaussian = torch.exp(-0.5 * ((logarithm[..., None] - critic.centres[:, 0]) / critic.width) ** 2)  # [n, n, G]
    message = torch.einsum("ijg,jk->igk", gaussian, kinds[0]).flatten(1)
    torch.testing.assert_close(seen[0][0, :, 8:], message)


def test_structures_scored_together_are_compared():
    """Pairs of two and of equal structures: their own scores add up, what is compared does not."""
    critic, distance, kinds = Critic(19, 3, features=8, together=2), pair_distances(clouds(4)), torch.rand(4, 19, 3)
    scores = critic(distance, kinds)
    assert scores.shape == critic.slope(distance, kinds).shape == (2,)
    torch.testing.assert_close(critic(distance[2:], kinds[2:]), scores[1:])
    mixed = critic(distance[[0, 0, 2, 2]], kinds[[0, 0, 2, 2]]) + critic(distance[[1, 1, 3, 3]], kinds[[1, 1, 3, 3]])
    assert (mixed / 2 - scores).abs().min() > 1e-6
    critic.compare = None
    mixed = critic(distance[[0, 0, 2, 2]], kinds[[0, 0, 2, 2]]) + critic(distance[[1, 1, 3, 3]], kinds[[1, 1, 3, 3]])
    torch.testing.assert_close(mixed / 2, critic(distance, kinds))


def test_a_batch_is_filled_up_to_be_scored_together():
    model, squared = small(together=4), clouds(6)
    assert torch.equal(model._filled(squared), squared[[0, 1, 2, 3, 4, 5, 0, 1]])
    assert torch.equal(model._filled(squared[:1]), squared[[0, 0, 0, 0]])
    assert torch.isfinite(model.critic_loss(squared)) and torch.isfinite(model.generator_loss(squared))


# ---------------------------------------------------------------------------------------------------- losses


class Flat(nn.Module):
    """A critic that always says the same."""

    together = 1

    def forward(self, distance, element):
        return torch.full((len(distance),), 2.0)

    def slope(self, distance, element):
        return torch.full((len(distance),), 3.0)


def test_critic_loss_by_hand():
    """Nothing tells data from what is made: 10 (3 - 1)^2 + 0.001 * 2^2."""
    model = small()
    model.critic = Flat()
    assert float(model.critic_loss(clouds(4))) == pytest.approx(10 * 4 + 0.001 * 4)


def test_generator_loss_by_hand(monkeypatch):
    """All points 0.5 angstrom apart (171 pairs), r = 0.96; elements all equally likely."""
    model = small()
    model.critic = Flat()
    made = 0.25 * (1 - torch.eye(19)).expand(4, -1, -1), torch.zeros(4, 19, 3)
    monkeypatch.setattr(model, "sample", lambda size: made)
    assert float(model.generator_loss(clouds(4))) == pytest.approx(-2 + np.log(3) + 10 * 171 * 0.46**2, rel=1e-5)


def test_distances_above_the_shortest_are_not_punished(monkeypatch):
    model = small()
    model.critic = Flat()
    right = 20.0 * functional.one_hot(model.reference, 3).float().expand(4, -1, -1)
    monkeypatch.setattr(model, "sample", lambda size: (4.0 * (1 - torch.eye(19)).expand(4, -1, -1), right))
    assert float(model.generator_loss(clouds(4))) == pytest.approx(-2, abs=1e-6)


def test_atoms_are_assigned_within_their_element():
    model, squared = small(), clouds(5)
    order = model.assigned(squared)
    assert (model.reference[order] == model.reference).all()
    mean = permuted(squared, order).mean(dim=2)
    starts = np.cumsum((0, *COUNTS))
    assert all((mean[:, a:b].diff(dim=1) >= 0).all() for a, b in pairwise(starts))


def test_both_train_and_only_their_own_weights():
    model, squared = small(), clouds(6)
    model.critic_loss(squared).backward()
    assert all(weight.grad is None for weight in model.generator_parameters())
    model.zero_grad()
    model.generator_loss(squared).backward()
    assert all(torch.isfinite(weight.grad).all() for weight in model.generator_parameters())
    assert sum(float(weight.grad.abs().sum()) for weight in model.generator_parameters()) > 0


# ------------------------------------------------------------------------------------------------ experiment


def isomers() -> Structures:
    """Three molecules C7H10O2, their hydrogens first, with the geometry of Open Babel's force field."""
    from openbabel import pybel

    made = []
    for smiles in ("OC1CCC2CC(=O)C12", "CC(C)(O)c1ccco1", "CC1CC(=O)OC2CC12"):
        molecule = pybel.readstring("smi", smiles)
        molecule.make3D(steps=20)
        atoms = [(atom.atomicnum, atom.coords) for atom in molecule.atoms][::-1]
        numbers, places = zip(*atoms, strict=True)
        made.append((np.array(numbers), np.array(places), np.zeros((3, 3))))
    return Structures.pack(made, periodic=False)


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    prepared = OrderedMolecules()(isomers())
    four = unpacked(prepared).take(np.array([0, 1, 0, 1, 2]))
    return packed(four) | {"part": np.array([0, 0, 0, 1, 2], dtype=np.int8)}


def test_atoms_stand_in_order_and_keep_their_places():
    before = isomers()
    after = unpacked(OrderedMolecules()(before))
    assert after.numbers.reshape(3, 19).tolist() == [[6] * 7 + [8] * 2 + [1] * 10] * 3
    for s in range(3):
        assert sorted(map(tuple, before[s][1])) == sorted(map(tuple, after[s][1]))
    carbons = after[0][1][:7]
    assert (carbons == before[0][1][before[0][0] == 6]).all()  # within an element in the order they had


def test_the_data_is_judged_as_valid_known_and_alike(arrays):
    molecules = unpacked(arrays)
    known = Known(molecules, arrays["part"], 1)
    found = generation(experiment.judge(Sampled(squared_distances(molecules), molecules), known))
    assert found["validity"] == found["euclidean"] == found["formula"] == found["known_topology"] == 100
    assert found["topologies"] == found["known_conformations"] == 3
    assert found["train_topologies"] == 2 and found["test_topologies"] == 1 and found["new_topologies"] == 0
    assert found["new_conformations_known_topology"] == found["new_conformations_new_topology"] == 0


def test_new_topologies_and_conformations_are_told_from_known_ones(arrays):
    """The third isomer is not in the data; the first stands there with another hand, and once more far too long."""
    molecules = unpacked(arrays)
    known = Known(molecules.take(np.array([0, 1])), np.array([0, 2]), 1)
    bent = molecules.positions.reshape(-1, 19, 3)[[4, 0]] * [-1, 1, 1]
    made = experiment.structures_of(molecules.numbers.reshape(-1, 19)[:2], bent)
    found = generation(experiment.judge(Sampled(squared_distances(made), made), known))
    assert found["validity"] == 100 and found["known_topology"] == 50
    assert found["new_topologies"] == found["new_conformations_new_topology"] == found["known_conformations"] == 1


def test_wrong_elements_are_no_molecules_of_the_formula(arrays):
    molecules = unpacked(arrays).take(np.array([0]))
    swapped = experiment.structures_of(np.array([[8, 6, *[6] * 5, *[8, 6], *[1] * 10]]), molecules.positions[None])
    assert experiment.right_atoms(swapped).tolist() == [True]
    swapped.numbers[0] = 1
    assert experiment.right_atoms(swapped).tolist() == [False]


def test_random_points_are_as_large_as_the_data(arrays):
    like = unpacked(arrays).take(np.array([0]))
    made = experiment.random_points(like, 20, seed=1)
    size = np.sqrt(((like.positions - like.positions.mean(axis=0)) ** 2).sum(axis=1).mean())
    for s in range(20):
        x = made.molecules[s][1]
        assert np.sqrt((x**2).sum(axis=1).mean()) == pytest.approx(size) and x.mean() == pytest.approx(0, abs=1e-12)
    assert is_euclidean(made.squared).all()


def test_distances_by_pair_by_hand():
    """Two carbons 1.5 and a hydrogen 1.1 and 2 angstrom away."""
    squared = np.array([[[0, 1.5, 1.1], [1.5, 0, 2.0], [1.1, 2.0, 0]]]) ** 2
    found = experiment.distances_by_pair(squared, np.array([[6, 6, 1]]))
    assert found[6, 6] == pytest.approx([1.5]) and found[6, 1] == pytest.approx([1.1, 2.0])
    assert not len(found[8, 8])


def test_the_experiment_runs_and_its_figures_are_drawn(arrays, tmp_path):
    bench = Bench(arrays, np.array(list("abcde")), tmp_path / "seed0", 0, "x", "test")
    free = {"latent": 4, "width": 16, "channels": 2, "scale": 10.0, "features": 6, "passed": 4, "blocks": 2}
    free |= {"gaussians": 6, "together": 2, "critic_steps": 1, "generator_lr": 0.2, "samples": 12, "relaxed": 1}
    settings = ScaleSettings(n_train=3, n_val=1, n_test=1, epochs=2, batch_size=3, lr=1e-3, model=free)
    torch.manual_seed(0)
    found = experiment.learn(bench, "molecules", settings, experiment.training(settings))["molecules"]
    assert isinstance(found, Made) and set(found.baselines) == {"untrained", "random_structure"}
    assert {name: generation(table)["euclidean"] for name, table in found.baselines.items()} == dict.fromkeys(
        found.baselines, 100.0
    )
    assert (found.judged["of"] == "made").sum() == 12
    run = Run(
        paper="edm", experiment="c7o2h10", scale="smoke", dataset="qm9", data_origin="paper", rung=6,
        target="molecules", unit="1", task="generation", status="ok", primary_metric="validity", n_test=12,
    )  # fmt: skip
    for name, module in {"distances": distances, "crystals": crystals}.items():
        with np.load(bench.folder / f"{name}.npz", allow_pickle=False) as stored:
            module.draw(tmp_path / f"{name}.png", run, dict(stored.items()))
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_bonds_of_formaldehyde_by_hand():
    """O=C(H)H could be a molecule; with a hydrogen far away, or on the oxygen, or with divalent carbon it could not."""
    radii, valences = torch.tensor([[0.66, 0.76, 0.31, 0.31]]), torch.tensor([[2, 4, 1, 1]])
    points = torch.tensor([[0.0, 0, 0], [0, 0, 1.21], [0.93, 0, 1.8], [-0.93, 0, 1.8]])

    def could(at, valences=valences):
        return could_be_molecules(torch.cdist(at, at)[None] ** 2, radii, valences).item()

    assert could(points) and could(points[[0, 1, 3, 2]])
    assert not could(points + torch.tensor([[0.0, 0, 0], [0, 0, 0], [0, 0, 0], [-3.0, 0, 0]]))
    assert not could(points + torch.tensor([[0.0, 0, 0], [0, 0, 0], [-0.6, 0, -1.2], [0, 0, 0]]))
    assert not could(points, torch.tensor([[2, 2, 1, 1]]))
