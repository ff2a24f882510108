"""CrystalMELA: lines of a pattern, the network, measured patterns on another axis, and that systems are learned."""

import numpy as np
import pytest
import torch

from replimat import cards
from replimat.cards import ScaleSettings
from replimat.datasets.patterns import SYSTEMS
from replimat.experiments import crystalmela
from replimat.experiments.bench import Bench
from replimat.experiments.catalogue import plan_one
from replimat.models.crystalmela import LINES, PatternCNN, line_features, line_places, noise
from replimat.representations.powder_pattern import ConstantWavelength, pseudo_voigt
from replimat.representations.simulation import Powders

INSTRUMENT = ConstantWavelength(1.5418, 5.0, 90.0, 1701)
IDEAL = crystalmela.Diffraction(INSTRUMENT, crystalmela.IDEAL, crystalmela.STRAINED, 0.01)
HEXAGONAL, CUBIC = SYSTEMS.index("hexagonal"), SYSTEMS.index("cubic")
SQUARES = np.arange(1, 15)  # h^2 + k^2 + l^2 ...
SQUARES = SQUARES[SQUARES != 7]  # ... is never 7


def reflections(d: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Crystals of these spacings, each reflection as strong as leaves peaks of about one height."""
    sizes = [len(one) for one in d]
    packed = np.concatenate(d).astype(np.float32)
    strength = 1 / INSTRUMENT.geometry(torch.as_tensor(packed)).numpy()
    return {"d": packed, "intensity": strength, "reflection_offsets": np.concatenate([[0], np.cumsum(sizes)])}


def cubic(a: float) -> np.ndarray:
    return a / np.sqrt(SQUARES)


def hexagonal(a: float) -> np.ndarray:
    """Spacings of a cell whose c is 1.1 a."""
    h, k, l = np.mgrid[:3, :3, :3].reshape(3, -1)[:, 1:]  # noqa: E741
    return np.unique(np.round(a / np.sqrt(4 / 3 * (h * h + h * k + k * k) + (l / 1.1) ** 2), 4))[::-1]


# ------------------------------------------------------------------ lines


def test_lines_of_a_primitive_cubic_crystal():
    pattern = IDEAL.patterns(Powders(reflections([cubic(6.0)])), np.array([0]), 0)
    (found,) = IDEAL.lines(pattern)
    q, ratios, number = found[:LINES], found[LINES:-1], found[-1]
    assert q == pytest.approx(SQUARES[:LINES] / 6.0**2, rel=2e-3)  # a tenth of a step of the axis
    assert ratios == pytest.approx(SQUARES[1:LINES], rel=3e-3)
    assert number == len(SQUARES)


def test_ratios_do_not_change_with_the_size_of_the_cell():
    pattern = IDEAL.patterns(Powders(reflections([cubic(5.0), cubic(6.0)])), np.arange(2), 0)
    small, large = IDEAL.lines(pattern)[:, LINES:-1]
    assert small == pytest.approx(large, rel=4e-3)


def test_the_top_of_a_line_lies_between_points():
    x = torch.arange(60.0)
    pattern = pseudo_voigt(x - 30.3, torch.tensor(4.0), torch.tensor(0.0)).numpy()
    assert line_places(pattern, 0.01) == pytest.approx([30.3], abs=0.02)
    flat = np.array([0.0, 0, 1, 1, 1, 0, 0])
    assert line_places(flat, 0.1) == pytest.approx([3])


def test_noise_is_measured_and_gives_no_lines():
    rng = np.random.default_rng(0)
    pattern = 0.5 + 0.02 * rng.normal(size=(20, 1701))
    assert noise(pattern) == pytest.approx(np.full(20, 0.02), rel=0.15)
    pattern[:, 600:603] += [0.3, 0.5, 0.3]
    found = line_features(pattern, INSTRUMENT, 0.01)
    assert (found[:, -1] == 1).mean() > 0.7  # chance lines are rare
    at = np.radians(5 + 0.05 * 601) / 2
    assert np.median(found[:, 0]) == pytest.approx((2 * np.sin(at) / 1.5418) ** 2, rel=5e-3)
    assert (found[found[:, -1] == 1][:, 1:-1] == 0).all()


def test_patterns_of_another_axis_are_refused():
    with pytest.raises(ValueError, match="1700 points on an axis of 1701"):
        line_features(np.zeros((1, 1700)), INSTRUMENT, 0.01)


# ------------------------------------------------------------------ the network


def test_network_has_the_shape_and_size_it_says():
    model = PatternCNN(851, 7)
    assert model(torch.rand(3, 851)).shape == (3, 7)
    convolutions = 16 * 25 + 16 * 32 * 9 + 32 * 64 * 5 + 2 * (16 + 32 + 64)
    length = 27  # 851, 213, 107, 54, 27
    assert sum(p.numel() for p in model.parameters()) == convolutions + (64 * length + 1) * 128 + 129 * 7


def test_network_sees_neither_scale_nor_offset():
    model, pattern = PatternCNN(200, 7).eval(), torch.rand(2, 200)
    assert torch.allclose(model(pattern), model(500 * pattern + 20), atol=1e-4)


# ------------------------------------------------------------------ measured patterns


def test_resampling_keeps_areas_and_places():
    axis = 5 + 0.01 * np.arange(8500)
    peak = np.exp(-0.5 * ((axis - 31.02) / 0.1) ** 2)
    (found,) = crystalmela.resampled(axis, 700 * peak[None], INSTRUMENT).numpy()
    at = INSTRUMENT.axis(dtype=torch.float64).numpy()
    assert (found.min(), found.max()) == (0, 1)
    assert (at * found).sum() / found.sum() == pytest.approx(31.02, abs=1e-3)
    assert found.sum() * 0.05 == pytest.approx(0.1 * np.sqrt(2 * np.pi), rel=0.05)  # the top lies between two points


def test_resampling_averages_noise_and_meets_the_ends():
    axis = 5 + 0.01 * np.arange(8500)
    ramp = crystalmela.resampled(axis, axis[None], INSTRUMENT)[0]
    assert torch.isfinite(ramp).all() and (ramp.diff() > 0).all()
    noisy = 100 + np.random.default_rng(0).normal(size=(1, 8500))
    noisy[0, 4000:4010] = 1100
    assert noise(crystalmela.resampled(axis, noisy, INSTRUMENT).numpy())[0] < 0.6e-3


def test_systems_that_were_not_learned_have_no_chance():
    full = crystalmela.every_system(np.array([[0.25, 0.75]]), np.array([1, 6]))
    assert full.tolist() == [[0, 0.25, 0, 0, 0, 0, 0.75]]


# ------------------------------------------------------------------ learning


def arrays() -> dict[str, np.ndarray]:
    """Cubic and hexagonal crystals of many sizes by turns; the last 30 of 120 are for test."""
    rng = np.random.default_rng(0)
    sizes = rng.uniform(3.5, 7.0, 120)
    made = reflections([(hexagonal if row % 2 else cubic)(a) for row, a in enumerate(sizes)])
    made["target.crystal_system"] = np.where(np.arange(120) % 2, HEXAGONAL, CUBIC).astype(float)
    made["part"] = np.repeat([0, 1, 2], [80, 10, 30])
    return made


def bench(folder, made: dict[str, np.ndarray]) -> Bench:
    return Bench(made, np.array([f"r{k}" for k in range(120)]), folder, seed=0, identity="x", label="test")


def learned(folder, made: dict[str, np.ndarray], diffraction=IDEAL, epochs=1, **model):
    settings = ScaleSettings(epochs=epochs, batch_size=16, lr=0.005, model={"copies": 1, "trees": 10} | model)
    return crystalmela.learn(bench(folder, made), diffraction, settings)


@pytest.mark.parametrize("learner", ["random_forest", "extra_trees"])
def test_trees_learn_in_cross_validation(tmp_path, learner):
    made = arrays() | {"part": np.full(120, 2), "fold": np.arange(120) // 2 % 3}
    found = learned(tmp_path, made, learner=learner)["crystal_system"]
    assert sorted(found.ids) == sorted(f"r{k}" for k in range(120))  # each is tested once
    row = [int(name[1:]) for name in found.ids]
    assert (found.target == made["target.crystal_system"][row]).all()
    assert (found.prediction == found.target).mean() > 0.9
    assert found.probabilities.shape == (120, 7) and found.probabilities.sum(axis=1) == pytest.approx(np.ones(120))
    assert found.baselines["majority"][:, [HEXAGONAL, CUBIC]] == pytest.approx(0.5)
    assert (found.baselines["nearest_patterns"].argmax(axis=1) == found.target).mean() < 0.9


def test_network_learns_and_stays_when_killed(tmp_path):
    found = learned(tmp_path, arrays(), learner="cnn", epochs=12)["crystal_system"]
    assert len(found.ids) == 30 and (found.prediction == found.target).mean() > 0.8
    again = learned(tmp_path, arrays(), learner="cnn", epochs=12)["crystal_system"]  # from the stored weights
    assert np.array_equal(found.probabilities, again.probabilities)


def test_every_fold_has_its_own_network(tmp_path):
    made = arrays() | {"part": np.full(120, 2), "fold": np.arange(120) // 2 % 3}
    found = learned(tmp_path, made, learner="cnn")["crystal_system"]
    assert sorted(found.ids) == sorted(f"r{k}" for k in range(120))
    assert sorted(path.parent.name for path in tmp_path.glob("*/model.safetensors")) == ["fold0", "fold1", "fold2"]


def test_measured_patterns_are_tested_beside_simulated_ones(tmp_path):
    made = arrays()
    shown = IDEAL.patterns(Powders(made), np.arange(10), 5).numpy()
    axis = INSTRUMENT.axis(dtype=torch.float64).numpy()
    made |= {"measured.id": np.arange(10), "measured.axis": axis, "measured.intensity": 1000 * shown}
    made["measured.system"] = made["target.crystal_system"][:10].astype(int)
    found = learned(tmp_path, made, learner="random_forest")
    measured = found["measured_crystal_system"]
    assert measured.ids[3] == "rruff-3" and len(found["crystal_system"].ids) == 30
    assert (measured.prediction == measured.target).all()


def test_conditions_vary_in_training_alone():
    powders, rows = Powders(arrays()), torch.arange(4)
    seeded = [IDEAL.measure(powders, rows, torch.Generator().manual_seed(1)) for _ in range(2)]
    assert torch.equal(*seeded)
    torch.manual_seed(0)
    varied = [IDEAL.measure(powders, rows, None) for _ in range(2)]
    assert not torch.equal(*varied)


@pytest.mark.parametrize("scale", cards.SCALES)
def test_every_experiment_of_the_card_can_be_planned(scale):
    card = cards.paper("crystalmela")
    for name, experiment in card.experiments.items():
        if experiment.at(scale):
            planned = plan_one("crystalmela", name, scale)
            assert planned.experiment.target == experiment.target
            assert planned.settings.model["learner"] in crystalmela.LEARNERS
            assert ("rruff_patterns" in planned.datasets) == name.startswith("rruff")
            assert planned.experiment.data.apart == (name.startswith("rruff") or name.endswith("by-mineral"))
