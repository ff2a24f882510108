"""A Wasserstein GAN on points of a plane: it learns, resumes exactly, and its penalty is what it says."""

from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from replimat.models.wasserstein import gradient_penalty
from replimat.training.adversarial import AdversarialTask
from replimat.training.fit import train
from replimat.training.settings import Training

SETTINGS = Training(epochs=12, batch_size=32, lr=0.003, keep="last")


class Points(Dataset):
    def __init__(self):
        self.real = 3.0 + 0.5 * torch.randn(256, 2, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.real)

    def __getitems__(self, rows):
        return {"real": self.real[rows]}, self.real[rows, 0]


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.generator = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2))
        self.critic = nn.Sequential(nn.Linear(2, 16), nn.LeakyReLU(), nn.Linear(16, 1))

    def score(self, x):
        return self.critic(x)[:, 0]

    def make(self, n):
        return self.generator(torch.randn(n, 2))

    def critic_loss(self, real):
        fake = self.make(len(real)).detach()
        penalty = gradient_penalty(self.score, (real,), (fake,))
        return self.score(fake).mean() - self.score(real).mean() + 10 * penalty

    def generator_loss(self, real):
        return -self.score(self.make(len(real))).mean()

    def critic_parameters(self):
        return self.critic.parameters()

    def generator_parameters(self):
        return self.generator.parameters()


def fit(folder, settings=SETTINGS, **task):
    rows = {"train": torch.arange(224), "val": torch.arange(224, 256)}
    made = partial(AdversarialTask, critic_steps=5, **task)
    return train(Pair(), Points(), rows, settings, folder, seed=1, identity="a", device="cpu", task=made)


def test_the_penalty_by_hand():
    real, fake = torch.randn(6, 4), torch.randn(6, 4)
    slope = torch.tensor([3.0, 0, 4, 0])
    assert gradient_penalty(lambda x: x @ slope, (real,), (fake,)) == pytest.approx(16.0)  # (|(3, 0, 4, 0)| - 1)^2
    both = gradient_penalty(lambda x, y: x @ slope + 12 * y[:, 0], (real, real), (fake, fake))
    assert both == pytest.approx(144.0)  # slopes of all inputs together: (13 - 1)^2


def test_it_learns_a_distribution(tmp_path):
    model = fit(tmp_path, replace(SETTINGS, epochs=60))
    torch.manual_seed(5)
    before, after = Pair().make(500), model.make(500)
    far = lambda points: (points.mean(dim=0) - 3).norm()  # noqa: E731
    assert far(after) < 1 < 3 < far(before)


def test_a_killed_run_ends_in_the_same_weights(tmp_path):
    whole = fit(tmp_path / "whole")

    class Killed(AdversarialTask):
        def on_train_epoch_start(self):
            if self.current_epoch == 7:
                raise KeyboardInterrupt

    rows = {"train": torch.arange(224), "val": torch.arange(224, 256)}
    common = {"seed": 1, "identity": "a", "device": "cpu"}
    with pytest.raises(BaseException):  # noqa: B017  Lightning turns an interrupt into an exit
        train(Pair(), Points(), rows, SETTINGS, tmp_path / "cut", task=partial(Killed, critic_steps=5), **common)
    resumed = fit(tmp_path / "cut")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_rates_fall_together_and_other_schedules_are_refused(tmp_path):
    falling = Training(epochs=2, batch_size=32, lr=0.01, keep="last", schedule="exponential", gamma=0.5, decay_steps=7)
    fit(tmp_path, falling, generator_lr=2.0)
    rates = pd.read_csv(tmp_path / "log.csv")["lr"]
    assert rates[1] == pytest.approx(0.01 * 0.5 ** (14 / 7), rel=1e-6)  # 7 steps an epoch
    with pytest.raises(ValueError, match="constant or exponential"):
        AdversarialTask(Pair(), Training(epochs=1, batch_size=1, lr=1.0, keep="last", schedule="onecycle"))
    with pytest.raises(ValueError, match="its own quality"):
        AdversarialTask(Pair(), Training(epochs=1, batch_size=1, lr=1.0))


def test_the_epoch_whose_own_quality_is_best_is_kept(tmp_path):
    """Of three epochs the second says it is the best; its weights come back, not the last."""
    seen = []

    class Judged(Pair):
        def quality(self):
            seen.append([weight.clone() for weight in self.generator.parameters()])
            return torch.tensor([0.1, 0.9, 0.2][len(seen) - 1])

    rows = {"train": torch.arange(224), "val": torch.arange(224, 256)}
    settings = replace(SETTINGS, epochs=3, keep="best")
    model = train(
        Judged(), Points(), rows, settings, tmp_path, seed=1, identity="a", device="cpu", task=AdversarialTask
    )
    for kept, second, last in zip(model.generator.parameters(), seen[1], seen[2], strict=True):
        assert torch.equal(kept, second) and not torch.equal(kept, last)
