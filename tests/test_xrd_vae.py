"""The autoencoder of Banko et al.: its loss by hand, its shapes, that it learns, and the experiment around it."""

import numpy as np
import pytest
import torch

from replimat.cards import ScaleSettings
from replimat.experiments import xrd_vae as experiment
from replimat.experiments.base import Predicted
from replimat.experiments.bench import Bench
from replimat.experiments.xrd_vae import PHASES, Phases, Shown, View, mixed, strengths
from replimat.models.variational import kl_divergence, reconstruction_errors
from replimat.models.xrd_vae import Decoded, PatternVAE
from replimat.records import Run
from replimat.reporting import latent, novelty
from replimat.representations.powder_pattern import ConstantWavelength
from replimat.representations.simulation import Powders
from replimat.training.settings import Training
from replimat.training.vae import VAETask

INSTRUMENT = ConstantWavelength(1.5418, 20.0, 89.94, 160)
WEIGHTS = {"reconstruction": 1.0, "kl": 0.5}
FLOAT32 = 1e-6  # relative


def cubic(*edges: float) -> dict[str, np.ndarray]:
    """Reflections of simple cubic crystals: (100), (110) and (111) with multiplicity apart, all of one intensity."""
    planes = np.array([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1)], dtype=np.int16)
    length = np.linalg.norm(planes, axis=1)
    return {
        "d": np.concatenate([a / length for a in edges]).astype(np.float32),
        "intensity": np.ones(len(planes) * len(edges), dtype=np.float32),
        "reflection_offsets": np.arange(len(edges) + 1) * len(planes),
        "hkl": np.tile(planes, (len(edges), 1)),
        "cells": np.stack([a * np.eye(3) for a in edges]),
    }


# ------------------------------------------------------------------------------------------------------ task


def test_divergence_by_hand():
    mean, log_variance = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, np.log(4.0)]])
    assert kl_divergence(mean, log_variance) == pytest.approx([0.0, 0.5 + 0.5 * (4 - 1 - np.log(4))], rel=FLOAT32)


def test_divergence_is_that_of_torch():
    mean, log_variance = torch.randn(5, 3), torch.randn(5, 3)
    ours, standard = torch.distributions.Normal(mean, (log_variance / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    wanted = torch.distributions.kl_divergence(ours, standard).sum(dim=1)
    torch.testing.assert_close(kl_divergence(mean, log_variance), wanted)


def test_error_is_the_root_mean_square_of_each_pattern():
    assert reconstruction_errors(torch.tensor([[1.0, 0, 0, 0], [3.0, 3, 3, 3]]), torch.zeros(2, 4)).tolist() == [0.5, 3]


def test_loss_weighs_both_terms():
    class Known(torch.nn.Module):
        def forward(self, pattern):
            return Decoded(torch.zeros_like(pattern), torch.ones(len(pattern), 1), torch.zeros(len(pattern), 1))

    task = VAETask(Known(), Training(epochs=1, batch_size=2, lr=1e-3, weights=WEIGHTS))
    task.log = lambda *_, **__: None
    pattern = torch.full((2, 4), 2.0)
    assert float(task.training_step(({"pattern": pattern}, pattern), 0)) == pytest.approx(4.0 + 0.5 * 0.5)


def test_a_task_without_its_weights_is_refused():
    with pytest.raises(ValueError, match="reconstruction and kl"):
        VAETask(PatternVAE(64), Training(epochs=1, batch_size=2, lr=1e-3, weights={"kl": 1.0}))


# ----------------------------------------------------------------------------------------------------- model


@pytest.mark.parametrize("points", [64, 121, 350, 3498])
def test_patterns_come_back_in_their_length(points):
    found = PatternVAE(points)(torch.rand(3, points))
    assert found.reconstruction.shape == (3, points)
    assert found.mean.shape == found.log_variance.shape == (3, 2)


def test_parameters_of_a_small_network():
    """64 points: (64 - 4) / 2 = 30, (30 - 4) / 2 = 13; back 13 * 2 + 4 = 30, 30 * 2 = 60, last kernel 5."""
    model = PatternVAE(64, filters=(3, 2), dense=(7,))
    encoder = (3 * 5 + 3) + (2 * 3 * 5 + 2) + (26 * 7 + 7) + (7 * 4 + 4)
    decoder = (2 * 7 + 7) + (7 * 26 + 26) + (2 * 3 * 5 + 3) + (3 * 5 + 1)
    assert sum(p.numel() for p in model.parameters()) == encoder + decoder


def test_a_batch_does_not_matter():
    model, pattern = PatternVAE(64).eval(), torch.rand(4, 64)
    together = model(pattern).reconstruction
    torch.testing.assert_close(model(pattern[2:3]).reconstruction, together[2:3])


def test_in_training_the_spread_is_exp_of_half_the_log_variance():
    torch.manual_seed(0)
    model, pattern = PatternVAE(64, latent=1).train(), torch.rand(1, 64).repeat(4000, 1)
    seen = []
    model.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    found = model(pattern)
    spread, samples = float((found.log_variance[0].detach() / 2).exp()), 4000
    assert float(seen[0].std()) == pytest.approx(spread, rel=4 / (2 * samples) ** 0.5)  # four standard errors


def test_wrong_patterns_are_refused():
    with pytest.raises(ValueError, match="expected"):
        PatternVAE(64)(torch.rand(2, 63))
    with pytest.raises(ValueError, match="too short"):
        PatternVAE(15)


# -------------------------------------------------------------------------------------------------- mixtures


def test_mixtures_are_of_two_phases_and_their_share_is_of_what_is_recorded():
    powders = Powders(cubic(3.0, 3.6))
    found = mixed(powders, 2, INSTRUMENT, 40)
    assert found.pattern.shape == (40, 160) and (found.phase == -1).all()
    assert ((found.share > 0) & (found.share < 1)).all()
    strong = strengths(powders, INSTRUMENT)
    at = INSTRUMENT.positions(powders.d[:7])
    assert float(strong[0]) == pytest.approx(float(INSTRUMENT.geometry(powders.d[:7])[(at > 20) & (at < 89.94)].sum()))
    again = mixed(powders, 2, INSTRUMENT, 40)
    assert torch.equal(found.pattern, again.pattern)


def test_what_lies_off_the_axis_does_not_count():
    wide = Powders(cubic(8.0))  # its (100) at 11 degrees is not seen
    seen = INSTRUMENT.positions(wide.d) > 20
    assert float(strengths(wide, INSTRUMENT)[0]) == pytest.approx(float(INSTRUMENT.geometry(wide.d)[seen].sum()))


def test_a_score_of_one_half_is_the_threshold():
    view = [View(np.zeros((1, 2)), np.array([0.1])) for _ in range(5)]
    assert experiment.score(view, experiment.UNKNOWN) == pytest.approx([0.5, 0.5])


def test_novel_patterns_are_those_with_larger_errors():
    errors = [0.1, 0.1, 0.1, 0.4, 0.2]
    views = {"vae": [View(np.zeros((3, 2)), np.full(3, e)) for e in errors]}
    shown = [Shown(torch.zeros(3, 4), np.arange(3), np.ones(3)) for _ in errors]
    found = experiment.told_apart(shown, views, experiment.UNKNOWN)
    assert found.target.tolist() == [0, 0, 0, 1, 1, 1] and len(set(found.ids)) == 6
    assert (found.prediction[3:] == pytest.approx(0.8)) and (found.prediction[:3] == pytest.approx(0.5))


# ----------------------------------------------------------------------------------------------- experiment


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> tuple[dict[str, Predicted], Bench]:
    """Two cubic phases are learned, a third is unknown."""
    bench = Bench(cubic(2.9, 3.6, 3.25), np.array(list("abc")), tmp_path_factory.mktemp("seed0"), 0, "x", "test")
    phases = Phases({"first": "a", "second": "b"}, {"third": "c"}, "space_group")
    settings = ScaleSettings(
        n_train=200, n_val=40, n_test=80, epochs=15, batch_size=20, lr=0.003, model={"latent": 2, "kl": 1e-5}
    )
    torch.manual_seed(0)
    training = experiment.training(settings)
    found = experiment.learn(bench, phases=phases, instrument=INSTRUMENT, settings=settings, training=training)
    return found, bench


def test_it_learns_what_the_trivial_cannot(learned):
    pattern, phase, new = (learned[0][name] for name in ("pattern", "phase", "novelty"))
    assert pattern.prediction.mean() < pattern.baselines["mean"].mean()
    assert (phase.prediction == phase.target).mean() > 0.9
    assert np.median(new.prediction[new.target == 1]) > np.median(new.prediction[new.target == 0])


def test_ids_are_unique_and_rows_are_counted(learned):
    rows = {"pattern": 80, "unknown_pattern": 40, "phase": 80, "novelty": 120, "mixture": 160}
    assert {name: len(set(one.ids)) for name, one in learned[0].items()} == rows
    assert not learned[0]["unknown_pattern"].baselines  # neither a small nor a large error is good


def test_figures_are_drawn_from_what_is_kept(learned, tmp_path):
    run = Run(
        paper="xrd_vae", experiment="ni-co-al", scale="smoke", dataset="oc20_bulks", data_origin="simulated", rung=6,
        target="pattern", unit="1", task="reconstruction", status="ok", primary_metric="reconstruction_error",
    )  # fmt: skip
    for name, module in {"latent": latent, "novelty": novelty}.items():
        with np.load(learned[1].folder / f"{name}.npz", allow_pickle=False) as stored:
            module.draw(tmp_path / f"{name}.png", run, dict(stored.items()))
        assert (tmp_path / f"{name}.png").stat().st_size > 5000


def test_known_and_unknown_phases_are_apart():
    for phases in PHASES.values():
        assert len(set(phases.ids)) == len(phases.known) + len(phases.unknown) == 10
