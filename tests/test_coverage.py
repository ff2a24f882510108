"""Coverage and its fingerprints: motifs by hand, symmetries, argument order, matminer and CDVAE's own code."""

import json
import warnings

import numpy as np
import pytest

from cdvae_author import author, crystals, joined, one, rock_salt
from graph_models import crystal, rotation, supercell
from replimat.datasets.base import Structures
from replimat.errors import DataError
from replimat.evaluation import coverage as module
from replimat.evaluation.coverage import (
    CUTOFFS,
    SYMAT_CUTOFFS,
    Cutoffs,
    Fingerprints,
    Scaler,
    composition_features,
    coverage,
    fingerprints,
    fit_scaler,
    inequivalent,
    structure_features,
)
from replimat.evaluation.local_order import LEGENDRE, Angles, coordination, fit, site_features, voronoi_faces
from replimat.experiments.judging import judge_crystals
from replimat.representations.conversion import as_pymatgen

NEAR = Cutoffs(1.0, 1.0)


def points(structure, composition=None) -> Fingerprints:
    """Fingerprints with one feature each."""
    structure = np.asarray(structure, dtype=float)[:, None]
    other = structure if composition is None else np.asarray(composition, dtype=float)[:, None]
    return Fingerprints(structure, other)


def rates(made, data, cutoffs=NEAR) -> tuple[float, float]:
    recalled, precise = coverage(made, data, cutoffs)
    return recalled.mean(), precise.mean()


# ---------------------------------------------------------------- coverage


def test_recall_is_of_the_data_and_precision_of_the_made():
    """A generator of one kind: all it makes is right, and it misses most of the data. Swapped, the numbers swap."""
    made, data = points([0, 0.1, 0.2, 0.3]), points([0, 10, 20, 30, 40])
    recalled, precise = coverage(made, data, NEAR)
    assert recalled.tolist() == [True, False, False, False, False] and precise.tolist() == [True] * 4
    assert rates(made, data) == (0.2, 1.0) and rates(data, made) == (1.0, 0.2)


def test_nearest_in_both_spaces_need_not_be_the_same_crystal():
    data = points([0.0], [0.0])
    assert rates(points([0, 50], [50, 0]), data) == (1.0, 0.0)
    assert rates(points([50, 50], [50, 0]), data) == (0.0, 0.0)
    assert rates(points([0], [0]), points([0, 50], [50, 0])) == (0.0, 1.0)


def test_a_distance_equal_to_the_cutoff_counts():
    assert rates(points([1.0]), points([0.0])) == (1.0, 1.0)
    assert rates(points([1.0]), points([0.0]), Cutoffs(0.9, 1.0)) == (0, 0)
    assert rates(points([1.0]), points([0.0]), Cutoffs(1.0, 0.9)) == (0, 0)


def test_precision_is_of_all_that_was_generated():
    made = Fingerprints(np.array([[0.0], [np.nan]]), np.array([[0.0], [0.0]]))
    recalled, precise = coverage(made, points([0.0, np.nan]), NEAR)
    assert recalled.tolist() == [True, False] and precise.tolist() == [True, False]
    assert coverage(points([0.0]), points([0.0]), NEAR, n_made=4)[1].tolist() == [True, False, False, False]
    nothing = coverage(points([np.nan]), points([0.0, 1.0]), NEAR)
    assert not nothing[0].any() and not nothing[1].any()
    with pytest.raises(DataError, match="2 fingerprints of 1"):
        coverage(made, points([0.0]), NEAR, n_made=1)
    with pytest.raises(DataError, match="no crystal of the data"):
        coverage(made, points([np.nan]), NEAR)


def test_cutoffs_of_two_papers_differ():
    assert CUTOFFS["mp20"] == Cutoffs(0.4, 10.0) and CUTOFFS["perov5"] == CUTOFFS["carbon24"] == Cutoffs(0.2, 4.0)
    assert all(SYMAT_CUTOFFS[name].structure > CUTOFFS[name].structure for name in CUTOFFS)


def test_samples_that_are_not_valid_count_in_coverage():
    """CDVAE's coverage is of all samples; the third could not be decoded and covers nothing."""
    no_neutral = rock_salt("Na O O O O O O O")
    made, failed = joined(rock_salt(), no_neutral), {2: "no atoms"}
    table = judge_crystals(made, failed, known=rock_salt(), data=joined(no_neutral), cutoffs=NEAR)
    samples, data = table[table["of"] == "made"], table[table["of"] == "data"]
    assert samples["share.validity"].tolist() == [1, 0, 0]
    assert samples["share.cov_p"].tolist() == [0, 1, 0] and data["share.cov_r"].tolist() == [1]


# ------------------------------------------------------------- composition


def test_composition_features_are_those_of_matminer():
    from matminer.featurizers.composition.composite import ElementProperty

    made = joined(crystals("made"), one("Ne Ar Ar", np.zeros((3, 3)), np.eye(3)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ElementProperty.from_preset("magpie", impute_nan=False)
        expected = np.array([theirs.featurize(one.composition) for one in as_pymatgen(made)])
    assert np.allclose(composition_features(made), expected, equal_nan=True, rtol=1e-9)
    assert np.isnan(expected).any() and expected.shape[1] == module.COMPOSITION


def test_scaler_of_a_reference_set():
    true = crystals("true")
    scaled = fit_scaler(true)(composition_features(true))
    assert np.abs(scaled.mean(axis=0)).max() < 1e-9 and np.abs(scaled).max() < 20
    assert set(np.round(scaled.std(axis=0), 6)) <= {0.0, 1.0}
    assert Scaler(np.array([1.0, 1.0]), np.array([2.0, 2.0]))(np.array([[5.0, np.nan]])).tolist() == [[2.0, 0.0]]


def test_scaler_of_cdvae_is_read_from_its_card(tmp_path, monkeypatch):
    from replimat import sources

    path = tmp_path / "compscaler.json"
    path.write_text(json.dumps({"CompScalerMeans": [1.0] * 132, "CompScalerStds": [2.0] * 132}))
    monkeypatch.setattr(
        sources, "member_path", lambda card, name: {("cdvae_scaler", "compscaler.json"): path}[card, name]
    )
    made = fingerprints(rock_salt())
    assert made.composition[0] == pytest.approx((composition_features(rock_salt())[0] - 1) / 2)


# --------------------------------------------------------------- structure


def test_motifs_by_hand():
    octahedron = np.vstack([np.eye(3), -np.eye(3)]) * 2.1
    tetrahedron = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1.0]])
    settings = {"min_SPP": 3 * np.pi / 4, "IGW_SPP": 15, "IGW_EP": 18, "fac_AA": 2, "exp_cos_AA": 2}
    assert fit(Angles.of(octahedron), "oct_max", settings) == pytest.approx(1)
    assert fit(Angles.of(octahedron[:5] + 0.5), "oct_max", settings) < 0.7
    cone = {"IGW_TA": 18.5, "TA": np.arccos(-1 / 3) / np.pi, "fac_AA": 1.5, "exp_cos_AA": 2}
    assert fit(Angles.of(tetrahedron), "tet_max", cone) == pytest.approx(1)
    assert fit(Angles.of(np.eye(3)[:2]), "bent", {"TA": 0.5, "IGW_TA": 15}) == pytest.approx(1)
    assert fit(Angles.of(np.array([[0, 0, 1], [0, 0, -1.0]])), "bent", {"TA": 0.5, "IGW_TA": 15}) < 1e-6
    assert fit(Angles.of(octahedron), "q4", {}) == pytest.approx(np.sqrt(7 / 12))  # Steinhardt 1983
    assert fit(Angles.of(octahedron), "q2", {}) == pytest.approx(0, abs=1e-7) and set(LEGENDRE) == {"q2", "q4", "q6"}


def test_chances_of_coordination_numbers():
    assert coordination(np.ones(6)) == {6: pytest.approx(1)}
    left = (0.5 * np.sqrt(0.75) + np.arcsin(0.5)) / (np.pi / 2)  # of the quarter circle, below a weight of a half
    assert coordination(np.array([1, 1, 0.5])) == {2: pytest.approx(1 - left), 3: pytest.approx(left)}
    assert coordination(np.empty(0)) == {}


def test_voronoi_cell_closes_and_fills_the_crystal():
    z, x, cell = crystal(5)
    one_of = as_pymatgen(Structures.pack([(z, x, cell)], periodic=True))[0]
    volume = 0.0
    for site in range(len(z)):
        _, vectors, solid, area = voronoi_faces(one_of, site)
        assert solid.sum() == pytest.approx(4 * np.pi)
        volume += (area * np.linalg.norm(vectors, axis=1) / 6).sum()
    assert volume == pytest.approx(abs(np.linalg.det(cell)))


def test_rock_salt_is_octahedral():
    from matminer.featurizers.site.fingerprint import CrystalNNFingerprint

    labels = CrystalNNFingerprint.from_preset("ops").feature_labels()
    found = dict(zip(labels, structure_features(rock_salt())[0], strict=True))
    assert found["wt CN_6"] == pytest.approx(1, abs=0.01) and found["octahedral CN_6"] == pytest.approx(1, abs=0.01)


def test_features_do_not_change_with_the_description():
    z, x, cell = crystal(4)
    turn, order = rotation(3), np.array([3, 1, 4, 0, 2])
    same = [
        (z, x, cell),
        (z, x @ turn, cell @ turn),
        (z[order], x[order] + np.array([5.0, 1.0, 2.0]), cell),
        supercell(z, x, cell, (1, 1, 2)),
    ]
    found = structure_features(Structures.pack(same, periodic=True))
    assert found == pytest.approx(np.tile(found[0], (4, 1)), abs=1e-6)
    other = structure_features(Structures.pack([crystal(6)], periodic=True))
    assert np.linalg.norm(found[0] - other[0]) > 0.1


def test_equivalent_sites_are_looked_at_once():
    """The mean is that over all sites; planted: the mean over inequivalent sites alone is another one."""
    rutile = 0.305 * np.array([[1, 1, 0], [-1, -1, 0]]) * 4.594
    shifted = np.array([[0.195, 0.805, 0.5], [0.805, 0.195, 0.5]]) * [4.594, 4.594, 2.959]
    metals = np.array([[0, 0, 0], [2.297, 2.297, 1.4795]])
    titania = one("Ti Ti O O O O", np.vstack([metals, rutile, shifted]), np.diag([4.594, 4.594, 2.959]))
    whole = as_pymatgen(titania)[0]
    sites, counts = inequivalent(whole)
    assert counts.tolist() == [2, 4]
    each = np.array([site_features(whole, site) for site in range(6)])
    assert structure_features(titania)[0] == pytest.approx(each.mean(axis=0), abs=1e-6)
    assert np.abs(each[sites].mean(axis=0) - each.mean(axis=0)).max() > 0.05


def test_crystals_without_features():
    lost = joined(one("Na Cl", np.full((2, 3), np.nan), np.eye(3)), one("Na", [0, 0, 0], 0.1 * np.eye(3)), rock_salt())
    scaler = Scaler(np.zeros(132), np.ones(132))
    assert fingerprints(lost, scaler).known.tolist() == [False, False, True]
    assert not fingerprints(lost.take([0, 1]), scaler).known.any()
    same_place = one("Na Na Cl", [[0, 0, 0], [0, 0, 0], [2, 2, 2]], 4 * np.eye(3))
    assert len(fingerprints(same_place, scaler)) == 1  # known or not, it does not raise


# ------------------------------------------------------------- CDVAE's code


def test_author_fingerprints_agree():
    """Features of every crystal that has a cell, as matminer has them."""
    for name in ("true", "made"):
        some = crystals(name)
        rows = np.flatnonzero(module.has_cell(some))
        found, expected = structure_features(some.take(rows)), author()[f"{name}_features"][rows]
        assert len(rows) >= 48 and np.allclose(found, expected, atol=2e-6)


def test_author_coverage_agrees():
    theirs = author()
    scaler = Scaler(theirs["scaler_means"], theirs["scaler_stds"])
    made, data = (
        Fingerprints(theirs[f"{name}_features"].astype(float), scaler(composition_features(crystals(name))))
        for name in ("made", "true")
    )
    for name, cutoffs in (("mp20", CUTOFFS["mp20"]), ("narrow", Cutoffs(0.1, 3.0))):
        expected = theirs[f"coverage_{name}"]
        assert rates(made, data, cutoffs) == pytest.approx(tuple(expected))
        assert rates(data, made, cutoffs) != pytest.approx(tuple(expected))  # planted: swapped arguments
        assert 0 < expected[0] < 1 and expected[0] != pytest.approx(expected[1])
