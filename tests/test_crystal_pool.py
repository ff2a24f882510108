"""The pool of embedded crystals: one an id, targets from whoever knows them; datasets that are made from others."""

import numpy as np
import pytest

from projects import Project
from replimat import cards, datasets
from replimat.datasets.base import Dataset, Structures
from replimat.datasets.crystal_pool import described, joined
from replimat.errors import CardError
from replimat.experiments.catalogue import with_parents
from replimat.experiments.prepare import has_formula

SALT = (np.array([11, 17]), np.array([[0.0, 0, 0], [2.82, 2.82, 2.82]]), 2.82 * (np.ones((3, 3)) - np.eye(3)))
CAESIUM = (np.array([55, 17]), np.array([[0.0, 0, 0], [2.06, 2.06, 2.06]]), 4.12 * np.eye(3))


def test_targets_come_from_the_first_parent_that_knows_them():
    crystals = Structures.pack([SALT, CAESIUM], periodic=True)
    a = Dataset("a", np.array(["x", "y"]), crystals, {"gap": np.array([1.0, np.nan])}, {})
    b = Dataset("b", np.array(["y", "x"]), crystals, {"gap": np.array([2.0, 9.0])}, {})
    assert joined(["y", "x"], [a, b], "gap").tolist() == [2.0, 1.0]
    assert np.isnan(joined(["y", "z"], [a, b], "volume")).all()


def test_what_the_geometry_says():
    found = described(Structures.pack([SALT, CAESIUM], periodic=True))
    assert found["space_group"].tolist() == [225.0, 221.0] and found["n_elements"].tolist() == [2.0, 2.0]


def test_rows_of_a_formula():
    crystals = Structures.pack([SALT, CAESIUM, (np.array([17, 11, 17]), np.zeros((3, 3)), np.eye(3))], periodic=True)
    assert has_formula(crystals, "ClNa").tolist() == [True, False, False]
    assert has_formula(crystals, "NaCl2").tolist() == [False, False, True]


def test_a_derived_dataset_is_made_again_when_a_parent_changes(tmp_path, monkeypatch):
    project = Project(tmp_path, monkeypatch)
    project.card("made", {"kind": "derived", "parents": ["one"]}, reader="crystal_pool", targets={})

    def parent(text):
        source = {"kind": "url", "url": "u", "members": project.raw("one", x_csv=text)}
        project.card("one", source, reader="matminer_csv")

    parent("structure,material_id")
    first = datasets.loading.content_key(cards.dataset("made"))
    assert with_parents(["made"]) == {"made", "one"}
    parent("structure,id")
    assert datasets.loading.content_key(cards.dataset("made")) != first


def test_a_derived_card_has_parents_and_no_files(tmp_path, monkeypatch):
    project = Project(tmp_path, monkeypatch)
    project.card("made", {"kind": "derived", "parents": []})
    with pytest.raises(CardError, match="parents"):
        cards.dataset("made")


@pytest.mark.skipif(
    not datasets.loading.sources.folder_of("mp_flla").is_dir(), reason="the embedded data is not fetched"
)
def test_the_pool_has_no_crystal_twice_and_only_small_ones():
    pool = datasets.load("crystal_pool")
    assert len(set(pool.ids)) == len(pool) == 15791 and pool.structures.sizes.max() <= 40
    flla = datasets.load("mp_flla")
    row = {name: k for k, name in enumerate(pool.ids)}
    shared = [k for k, name in enumerate(flla.ids) if name in row]
    assert len(shared) == len(flla)
    ours = pool.targets["formation_energy"][[row[flla.ids[k]] for k in shared]]
    assert np.array_equal(ours, flla.targets["formation_energy"][shared])
