"""The crystal GAN of Kim et al.: its image and back, symmetries, losses by hand, and judging planted faults."""

from itertools import permutations

import numpy as np
import pytest
import torch
from ase.geometry import cell_to_cellpar, cellpar_to_cell

from replimat import cards, datasets
from replimat.datasets.base import Structures
from replimat.datasets.convex_hull import formation_energies
from replimat.errors import DataError, ReplimatError
from replimat.evaluation.generation import MADE, judged
from replimat.experiments import crystal_gan as experiment
from replimat.models.crystal_gan import Classifier, Critic, CrystalGAN, Generator, Widths
from replimat.representations import cell_points
from replimat.representations.cell_points import CellPoints, augmented, composition, crystals_of, doubled, image_of

SMALL = Widths.scaled(0.05)
ROUNDING = 1e-5  # of float32 images of numbers below one
CELL = cellpar_to_cell([4.0, 5.0, 6.5, 80, 95, 110])
FRACTIONS = np.array([[0, 0, 0], [0.5, 0.5, 0.25], [0.25, 0.75, 0], [0.1, 0.4, 0.6], [0.9, 0.2, 0.8]])
NUMBERS = np.array([12, 25, 8, 8, 8])


def crystal(cell=CELL, fractions=FRACTIONS, numbers=NUMBERS) -> Structures:
    return Structures.pack([(numbers, fractions @ cell, cell)], periodic=True)


def image() -> torch.Tensor:
    return torch.as_tensor(CellPoints()(crystal())["image"])


def distances(structures: Structures) -> np.ndarray:
    """All distances of a crystal up to 7 angstrom with the two elements of each, sorted: no axes, order or origin."""
    from ase.neighborlist import neighbor_list

    from replimat.representations.conversion import as_atoms

    (atoms,) = as_atoms(structures)
    i, j, d = neighbor_list("ijd", atoms, 7.0)
    order = np.lexsort([d.round(4), atoms.numbers[j], atoms.numbers[i]])
    return np.stack([atoms.numbers[i], atoms.numbers[j], d])[:, order]


# ------------------------------------------------------------------------------------------------------ image


def test_image_by_hand():
    found = image()[0]
    assert found[0] == pytest.approx(np.array([4, 5, 6.5]) / 30, rel=ROUNDING)
    assert found[1] == pytest.approx(np.array([80, 95, 110]) / 180, rel=ROUNDING)
    assert found[2] == pytest.approx([1 / 6] * 3, rel=ROUNDING)  # Mg at the origin: 2.5 of 15 angstrom
    assert found[10] == pytest.approx([0.5, 0.5, 1 / 6 + 0.25 * 2 / 3], rel=ROUNDING)
    assert composition(image()).tolist() == [[1, 1, 3]] and not found[3:10].any() and not found[21:].any()


def test_round_trip():
    back, failed = crystals_of(image().numpy())
    assert not failed and back.numbers.tolist() == NUMBERS.tolist()
    assert cell_to_cellpar(back.cells[0]) == pytest.approx(cell_to_cellpar(CELL), rel=ROUNDING)
    assert distances(back)[2] == pytest.approx(distances(crystal())[2], abs=1e-4)


@pytest.mark.parametrize(
    ("structures", "said"),
    [
        (crystal(numbers=np.array([12, 25, 8, 8, 9])), "Z = 9"),
        (crystal(numbers=np.array([12, 12, 8, 8, 8])), "0 atoms of Z = 25"),
        (crystal(np.eye(3) * 31), "does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(structures, said):
    with pytest.raises(DataError, match=said):
        CellPoints()(structures)


def test_images_of_no_crystal_are_named():
    flat, empty = image()[0].clone(), image()[0].clone()
    flat[1] = torch.tensor([30.0, 30, 120]) / 180
    empty[2:] = 0.1
    made, failed = crystals_of(torch.stack([flat, image()[0], empty]).numpy())
    assert len(made) == 1 and set(failed) == {0, 2}
    assert "close to a cell" in failed[0] and "empty" in failed[2]


def test_augmented_images_are_the_same_crystal():
    torch.manual_seed(0)
    made, failed = crystals_of(augmented(image().expand(8, -1, -1)).numpy())
    assert not failed and len(np.unique(made.cells.round(4), axis=0)) > 1
    still = augmented(image().expand(8, -1, -1), move=False)[:, 2:].flatten(1).sort(dim=1).values
    torch.testing.assert_close(still, image()[:, 2:].flatten(1).sort(dim=1).values.expand(8, -1))
    for k in range(8):
        assert distances(made.take([k]))[2] == pytest.approx(distances(crystal())[2], abs=2e-4)


def test_doubled_cells_are_supercells_with_their_elements():
    made, _ = crystals_of(doubled(image()).numpy())
    assert [len(made[k][0]) for k in range(3)] == [10, 10, 10]
    for axis in range(3):
        twice = np.concatenate([FRACTIONS, FRACTIONS + np.eye(3)[axis]])
        cell = CELL * np.where(np.arange(3) == axis, 2, 1)[:, None]
        wanted = crystal(cell, (twice @ CELL) @ np.linalg.inv(cell), np.tile(NUMBERS, 2))
        np.testing.assert_allclose(distances(made.take([axis])), distances(wanted), atol=2e-4)


def test_full_cells_are_not_doubled():
    many = crystal(np.eye(3) * 9, np.random.default_rng(0).random((7, 3)), np.array([12] * 5 + [25, 8]))
    assert len(doubled(torch.as_tensor(CellPoints()(many)["image"]))) == 0


# ------------------------------------------------------------------------------------------------------ model


def test_sizes_are_those_of_the_authors():
    """Counted in their code. Ours of the generator: a bias for each of three coordinates, 2 x 256 more; of the
    classifier: without its head for the number of atoms.
    """
    generator, critic, classifier = (
        sum(p.numel() for p in part().parameters()) for part in (Generator, Critic, Classifier)
    )
    rows = (512 + 29 - 0) * 3584 + 3584
    slots = 128 * 256 * 3 + 256 * 3 + (256 * 512 + 512) + (512 * 256 + 256) + 257 + 2 * (256 + 512 + 256)
    cell = (84 * 30 + 30) + 60 + (30 * 6 + 6)
    assert generator == rows + slots + cell
    dense = 1280 * 1000 + 1000 + 1000 * 200 + 200 + 2010
    assert critic == (3 * 512 + 512) + (512 * 512 + 512) + (512 * 256 + 256) + dense
    one = (3 * 512 + 512) + (512 * 256 + 256) + (256 * 256 + 256) + (256 * 2 + 2) + 2 * (512 + 256 + 256)

    def counts(n: int) -> int:
        return (2 * n * 300 + 300) + 600 + (300 * 100 + 100) + 200 + (100 * n + n)

    assert classifier == 3 * one + 2 * counts(8) + counts(12)


def test_generator_gives_images():
    made = Generator(7, SMALL)(torch.randn(4, 7), torch.tensor([[1, 1, 1], [8, 8, 12], [2, 4, 8], [4, 2, 8]]))
    assert made.shape == (4, 30, 3) and 0 < made.min() and made.max() < 1


def test_critic_does_not_see_the_order_of_atoms():
    critic, one = Critic(SMALL), torch.rand(1, 30, 3)
    order = torch.cat([torch.arange(2), 2 + torch.randperm(8), 10 + torch.randperm(8), 18 + torch.randperm(12)])
    torch.testing.assert_close(critic(one[:, order]), critic(one))
    other = one[:, [0, 1, 10, *range(3, 10), 2, *range(11, 30)]]  # a Mg and a Mn change places
    assert not torch.allclose(critic(other), critic(one))


def test_classifier_learns_what_the_image_holds():
    torch.manual_seed(0)
    model, real = (
        CrystalGAN(1e-3, latent=4, width=0.05),
        torch.cat([image(), doubled(image())]).repeat(8, 1, 1),
    )
    before = float(model.classified(real))
    optimiser = torch.optim.Adam(model.classifier.parameters(), 0.01)
    for _ in range(60):
        optimiser.zero_grad()
        model.classified(real).backward()
        optimiser.step()
    assert float(model.classified(real)) < 0.2 * before


def test_losses_are_those_of_their_parts(monkeypatch):
    """Without the penalty: critic of what is made, minus that of what is real, plus the classification."""

    class Bright(torch.nn.Module):
        def forward(self, images):
            return torch.where(images[:, 0, 0] > 0.9, 5.0, 1.0) + 0 * images.sum(dim=(1, 2))

    model = CrystalGAN(1e-3, latent=4, width=0.05, penalty=0.0)
    model.critic = Bright()
    monkeypatch.setattr(model, "classified", lambda real: torch.tensor(3.0))
    monkeypatch.setattr(model, "made", lambda n, device: (torch.full((n, 30, 3), 0.99), torch.ones(n, 3).long()))
    assert float(model.critic_loss(image())) == pytest.approx(5 - 1 + 3)
    counts = torch.zeros(1, 8), torch.zeros(1, 8), torch.zeros(1, 12)
    model.classifier = torch.nn.Module()
    model.classifier.forward = lambda made: (None, counts)
    guess = 2 * np.log(8) + np.log(12)
    assert float(model.generator_loss(image())) == pytest.approx(0.3 * guess - 5, rel=ROUNDING)


def test_only_known_compositions_are_asked_for():
    known = torch.tensor([[1, 1, 3], [2, 4, 8]])
    asked = CrystalGAN(1e-3, latent=4, width=0.05, compositions=known).made(50, "cpu")[1]
    assert {tuple(row) for row in asked.tolist()} == {(1, 1, 3), (2, 4, 8)}
    free = CrystalGAN(1e-3, latent=4, width=0.05).made(500, "cpu")[1]
    assert free.min() == 1 and free.max(dim=0).values.tolist() == [8, 8, 12]


def test_classifier_has_its_own_rate():
    critic, classifier = CrystalGAN(1e-3, latent=4, width=0.05).critic_parameters()
    assert "lr" not in critic and classifier["lr"] == pytest.approx(5e-4)


# -------------------------------------------------------------------------------------------------- judgement


def test_covalent_radii_are_those_of_ase():
    from ase.data import covalent_radii

    assert experiment.RADII.tolist() == covalent_radii[experiment.NUMBERS].tolist()


def test_every_composition_is_shown_equally_often():
    counts = np.array([[1, 1, 3], [2, 4, 8], [1, 1, 3], [1, 1, 3]])
    rows = experiment.evenly(counts, 6)
    assert sorted(np.bincount(rows, minlength=4).tolist()) == [2, 2, 2, 6]


def test_close_atoms_are_not_reasonable():
    fine = crystal(np.eye(3) * 4.2, np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]))
    near = crystal(np.eye(3) * 4.2, np.array([[0, 0, 0], [0.5, 0.5, 0.5], [0.3, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]))
    image_near = crystal(np.diag([1.2, 9.0, 9.0]))  # an atom and its own image
    assert [experiment.reasonable(one)[0] for one in (fine, near, image_near)] == [True, False, False]


def test_random_crystals_have_what_was_asked_for():
    asked = np.array([[1, 1, 3], [4, 4, 12]])
    made = experiment.random_of(asked, crystal())
    assert experiment._counts(made).tolist() == asked.tolist()
    assert abs(np.linalg.det(made.cells)) / made.sizes == pytest.approx(abs(np.linalg.det(CELL)) / 5)


def test_formation_energies_count_from_the_lowest_crystal():
    known = np.array([[2, 0, 0], [0, 1, 0], [0, 4, 0], [0, 0, 2], [1, 0, 1]])
    energy = np.array([-1.5, -9.0, -9.1, -5.0, -6.3])
    asked = np.array([[1, 0, 1], [1, 1, 2]]), np.array([-6.3, -7.0])
    found = formation_energies(*asked, known, energy, experiment.SYMBOLS)
    assert found == pytest.approx([-6.3 + 3.25, -7.0 + (1.5 + 9.1 + 10) / 4])


class Told(experiment.Judge):
    """A judge that relaxes nothing."""

    def _screen(self, chosen):
        return {"count.count": np.ones(len(chosen))}, None, ()


@pytest.fixture
def fake_checks(monkeypatch):
    """CDVAE's checks pass everything: what is tested is what is added to them."""
    from replimat.experiments import judging

    def judge(made, failed, known, data, prefix):
        n = len(failed) + (len(made) if made else 0)
        valid = np.array([0.0 if k in failed else 1.0 for k in range(n)])
        return judged([f"{prefix}-{k}" for k in range(n)], failed=failed, **{"share.validity": valid})

    monkeypatch.setattr(judging, "judge_crystals", judge)


def test_planted_faults_are_seen(fake_checks):
    good = (NUMBERS, np.array([[0, 0, 0], [2.1, 2.1, 2.1], [2.1, 0, 0], [0, 2.1, 0], [0, 0, 2.1]]), np.eye(3) * 4.2)
    close = (NUMBERS, good[1] * [0.2, 1, 1], good[2])
    made = Structures.pack([good, close, good], periodic=True)
    asked = np.array([[1, 1, 3], [9, 9, 9], [1, 1, 3], [2, 1, 3]])  # the second could not be decoded
    found = Told(crystal(), crystal(), None, "cpu", 5)(made, {1: "flat"}, asked, "made")
    rows = found.table[found.table["of"] == MADE]
    assert rows["share.plausibility"].tolist() == [1, 0, 0, 0]
    assert rows["share.reasonable_distances"].tolist() == [1, 0, 0, 1]
    assert rows["share.composition_match"].tolist() == [1, 0, 1, 0]
    assert rows["count.count"].tolist()[0] == 1 and rows["count.count"].isna().sum() == 3
    assert found.numbers.tolist() == [0] and len(found.plausible) == 1


def test_nothing_made_is_no_crash(fake_checks):
    found = Told(crystal(), crystal(), None, "cpu", 5)(None, {0: "flat", 1: "flat"}, np.ones((2, 3), dtype=int), "made")
    assert found.plausible is None and found.table["share.plausibility"].tolist() == [0, 0]


# ------------------------------------------------------------------------------------------ the authors' images


@pytest.fixture(scope="module")
def authors() -> tuple[np.ndarray, np.ndarray]:
    """Their images [2627, 30, 3] and the names of them."""
    from replimat.sources import folder_of, verify
    from replimat.sources.pickles import load_pickle

    try:
        verify("mg_mn_o_images")
    except ReplimatError as error:
        pytest.skip(f"paper data: {error}")
    folder = folder_of("mg_mn_o_images")
    images = np.load(folder / "unique_sc_mgmno.npy", allow_pickle=False)
    return images, np.array(load_pickle(folder / "unique_sc_mgmno_name_list", {}))


def points(one: np.ndarray, elements: bool) -> tuple:
    """Cell and points of an image, rounded and sorted."""
    filled = one[2:].sum(axis=1) > 0.4
    where = ((one[2:][filled] - 1 / 6) * 1.5 % 1.0).round(3) % 1.0
    kinds = np.repeat([0, 1, 2], [8, 8, 12])[filled] * elements
    return (*one[:2].ravel().round(4), *sorted(map(tuple, np.column_stack([kinds, where]).tolist())))


def test_our_images_are_those_of_the_authors(authors):
    theirs = authors[0][:1253]
    crystals = datasets.load("mg_mn_o_images")
    ours = CellPoints()(crystals.structures)["image"]
    apart = np.abs(ours - theirs)[:, 2:]
    apart = np.minimum(apart, np.abs(apart - cell_points.BOX))  # 0 and 1 are one point
    assert apart.max() < 1e-5 and np.abs(ours - theirs)[:, :2].max() < 1e-6
    assert len(np.unique(composition(torch.as_tensor(authors[0])).numpy(), axis=0)) == 112


def test_the_authors_doubled_cells_have_their_elements_mixed_up(authors):
    ours = doubled(torch.as_tensor(authors[0][:1253])).numpy()
    for elements, agree in ((False, 1368), (True, 0)):
        theirs = [points(one, elements) for one in authors[0][1253:]]
        same = set(points(one, elements) for one in ours)
        assert sum(one in same for one in theirs) >= agree if agree else not any(one in same for one in theirs)


# -------------------------------------------------------------------------------------------------- experiment


def test_all_settings_build():
    for name, card in cards.paper("crystal_gan").experiments.items():
        for scale in ("smoke", "laptop", "paper"):
            if settings := card.at(scale):
                built = experiment.build(card, settings, scale)
                assert built.target == "crystals", name
                recipe = experiment.training(settings, steps=10)
                assert recipe.keep == "last" and recipe.decay_steps >= 1


def test_axes_can_be_swapped_three_ways():
    torch.manual_seed(0)
    seen = {
        tuple(cell_to_cellpar(crystals_of(one[None].numpy())[0].cells[0])[:3].round(2))
        for one in cell_points._swapped(image().expand(64, -1, -1))
    }
    assert seen == {(4.0, 5.0, 6.5), (5.0, 4.0, 6.5), (6.5, 5.0, 4.0), (4.0, 6.5, 5.0)}
    assert len(seen) < len(list(permutations((4.0, 5.0, 6.5))))


def test_image_needs_a_cell():
    with pytest.raises(DataError, match="does not fit"):
        image_of(NUMBERS, FRACTIONS * 40, np.eye(3) * 40)
