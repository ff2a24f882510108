"""The reader of mlearn's frames, and twins among them."""

import json

import numpy as np
import pytest

from graph_models import rotation
from replimat import cards
from replimat.datasets.base import Structures
from replimat.datasets.mlearn import read
from replimat.datasets.splits import SAME_FRAME, has_twin
from replimat.errors import DataError

CELL = np.diag([4.0, 4.2, 4.4])


def frame(seed: int, cartesian: bool = False) -> dict:
    rng = np.random.default_rng(seed)
    coords = rng.random((3, 3))
    return {
        "jid": str(seed),
        "atoms": {
            "lattice_mat": CELL.tolist(),
            "coords": (coords @ CELL if cartesian else coords).tolist(),
            "elements": ["Ni"] * 3,
            "cartesian": cartesian,
        },
        "total_energy": -5.0 - 0.01 * seed,
        "forces": rng.normal(size=(3, 3)).tolist(),
        "stresses": [0.0] * 6,
    }


def written(folder, frames):
    (folder / "id_prop.json").write_text(json.dumps(frames))
    return folder


def test_validation_frames_that_repeat_the_test_frames_are_left_out(tmp_path):
    test = [frame(10), frame(11)]
    frames = [frame(1), frame(2), frame(1), *test, *test]  # a training frame that stands twice counts twice
    data = read(written(tmp_path, frames), cards.dataset("mlearn_ni"))
    assert data.splits["published"].tolist() == [0, 0, 0, 2, 2]
    assert data.ids.tolist() == ["train-1", "train-2", "train-3", "test-4", "test-5"]
    np.testing.assert_allclose(data.targets["energy_per_atom"], [-5.01, -5.02, -5.01, -5.10, -5.11])
    np.testing.assert_allclose(data.per_atom["forces"][9:12], test[0]["forces"])


def test_fractional_and_cartesian_coordinates_are_the_same_crystal(tmp_path):
    found = []
    for name, cartesian in (("a", False), ("b", True)):
        (tmp_path / name).mkdir()
        frames = [frame(1, cartesian), frame(10, cartesian), frame(10, cartesian)]
        found.append(read(written(tmp_path / name, frames), cards.dataset("mlearn_ni")).structures)
    np.testing.assert_allclose(found[0].positions, found[1].positions)
    assert set(found[0].numbers) == {28}


def test_another_layout_of_the_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="validation frames are not its test frames"):
        read(written(tmp_path, [frame(1), frame(2), frame(3), frame(4)]), cards.dataset("mlearn_ni"))
    with pytest.raises(DataError, match="not the expected list"):
        read(written(tmp_path, [{"energy": 1}, {"energy": 1}]), cards.dataset("mlearn_ni"))


def test_a_frame_turned_is_the_same_frame_and_one_a_little_moved_is_not():
    rng = np.random.default_rng(3)
    numbers, x = np.full(6, 28), rng.random((6, 3)) @ CELL
    turn = rotation(2)
    packed = lambda positions, cell: Structures.pack([(numbers, positions, cell)], periodic=True)  # noqa: E731
    turned = packed(x[::-1] @ turn.T + 0.7, CELL @ turn.T)
    moved = packed(x + rng.normal(scale=0.002, size=x.shape), CELL)
    assert has_twin(turned, packed(x, CELL), SAME_FRAME).tolist() == [True]
    assert has_twin(moved, packed(x, CELL), SAME_FRAME).tolist() == [False]
    assert has_twin(moved, packed(x, CELL)).tolist() == [True]  # the tolerant comparison takes them for one


@pytest.mark.parametrize("element", ["ni", "cu", "li", "mo", "si", "ge"])
def test_cards_say_the_published_sizes(element):
    sizes = {"ni": 294, "cu": 293, "li": 270, "mo": 217, "si": 239, "ge": 253}  # protocol: train + test
    assert cards.dataset(f"mlearn_{element}").rows == sizes[element]
