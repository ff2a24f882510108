"""Composition-conditioned crystal GAN (Kim, Noh, Gu, Aspuru-Guzik, Jung, ACS Cent. Sci. 6, 1412 (2020)).

    G(z, n) -> image [30, 3];   critic D(image);   classifier Q(image) -> which slots are filled, how many atoms
    critic + Q:  E D(G) - E D(x) + 10 (|grad D| - 1)^2 + CE(filled slots of x) + 0.3 CE(counts of x)
    G:          -E D(G) + 0.3 CE(counts asked for)

Images are those of replimat.representations.cell_points: 2 rows for the cell, 8 slots for Mg, 8 for Mn, 12 for O. The
critic averages over the slots of an element, hence does not see their order.

Differs from the authors' code: their classifier is also moved by the generator's step, towards the counts asked for;
here it learns from real images alone. They take the cross entropy of what already passed a softmax, which keeps it from
falling below 1.27 for eight classes; here it is taken of the logits. Their classifier has a head for the number of
atoms that no loss uses; it is left out.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from replimat.models.wasserstein import gradient_penalty
from replimat.representations.cell_points import FIRST, ROWS, SLOTS, augmented, composition, filled_slots

LEAK = 0.2
SPREAD = 0.8  # what the authors' normalisation layers add to the variance: the second argument, meant as a momentum
GAP, WIDTH = 1e-3, 10**-2.5  # mean and standard deviation of the noise on empty slots that the classifier sees
EMPTY = 0.01  # a value below it belongs to an empty slot


class Widths(NamedTuple):
    """Sizes of the layers; those of the authors by default, `Widths.scaled(0.25)` a quarter of each."""

    first: int = 128  # channels of a slot in the generator
    generator: tuple[int, int, int] = (256, 512, 256)
    critic: tuple[int, int, int] = (512, 512, 256)
    dense: tuple[int, int] = (1000, 200)
    classifier: tuple[int, int, int] = (512, 256, 256)
    counts: tuple[int, int] = (300, 100)

    @classmethod
    def scaled(cls, factor: float) -> "Widths":
        def times(size):
            return tuple(map(times, size)) if isinstance(size, tuple) else max(8, round(factor * size))

        return cls(*map(times, cls()))


class Generator(nn.Module):
    """Images [B, 30, 3] of noise [B, latent] and of the atoms of Mg, Mn and O asked for [B, 3], from 1 to the slots.

    The authors' transposed convolutions of kernels (1, 3) and (1, 1) are what these linear layers are, slot by slot and
    coordinate by coordinate.
    """

    def __init__(self, latent: int = 512, widths: Widths = Widths()):  # noqa: B008  a tuple of numbers
        super().__init__()
        slots, (a, b, c) = sum(SLOTS), widths.generator
        self.latent, self.first = latent, widths.first
        self.dense = nn.Sequential(nn.Linear(latent + slots + 1, widths.first * slots), nn.ReLU())
        self.coordinates = nn.Linear(widths.first, 3 * a)
        self.points = nn.Sequential(
            *_normed(a), nn.Linear(a, b), *_normed(b), nn.Linear(b, c), *_normed(c), nn.Linear(c, 1)
        )
        self.cell = nn.Sequential(
            nn.Linear(3 * slots, 30), nn.BatchNorm1d(30), nn.ReLU(), nn.Linear(30, 3 * FIRST), nn.Sigmoid()
        )

    def forward(self, noise: Tensor, counts: Tensor) -> Tensor:
        asked = [one_hot(n - 1, slots) for n, slots in zip(counts.unbind(dim=1), SLOTS, strict=True)]
        total = counts.sum(dim=1, keepdim=True) / sum(SLOTS)
        slots = self.dense(torch.cat([noise, total, *asked], dim=1)).view(len(noise), -1, self.first)  # [B, 28, C]
        hidden = self.coordinates(slots).view(len(noise) * sum(SLOTS) * 3, -1)  # [B 28 3, A]
        points = self.points(hidden).view(len(noise), -1)  # [B, 84]
        return torch.cat([self.cell(points), points.sigmoid()], dim=1).view(len(noise), ROWS, 3)


class Critic(nn.Module):
    """Scores [B] of images [B, 30, 3]: rows one by one, averaged over the slots of an element, then together."""

    def __init__(self, widths: Widths = Widths()):  # noqa: B008
        super().__init__()
        sizes, (wide, narrow) = (3, *widths.critic), widths.dense
        self.rows = nn.Sequential(
            *(layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.LeakyReLU(LEAK)))
        )
        parts = FIRST + len(SLOTS)
        self.output = nn.Sequential(
            nn.Linear(parts * sizes[-1], wide),
            nn.LeakyReLU(LEAK),
            nn.Linear(wide, narrow),
            nn.LeakyReLU(LEAK),
            nn.Linear(narrow, 10),
        )

    def forward(self, image: Tensor) -> Tensor:
        rows = self.rows(image)  # [B, 30, F]
        parts = [part.mean(dim=1) for part in rows[:, FIRST:].split(SLOTS, dim=1)]
        return self.output(torch.cat([rows[:, :FIRST].flatten(1), *parts], dim=1)).mean(dim=1)


class Classifier(nn.Module):
    """Of images [B, 30, 3]: logits of an empty and a filled slot [B, slots, 2], and of 1 to `slots` atoms [B, slots],
    both for Mg, Mn and O.
    """

    def __init__(self, widths: Widths = Widths()):  # noqa: B008
        super().__init__()
        sizes, (wide, narrow) = (3, *widths.classifier), widths.counts
        self.slots, self.counts = nn.ModuleList(), nn.ModuleList()
        for slots in SLOTS:
            rows = [layer for pair in pairwise(sizes) for layer in _dense(*pair)]
            self.slots.append(nn.Sequential(*rows, nn.Linear(sizes[-1], 2)))
            self.counts.append(nn.Sequential(*_dense(2 * slots, wide), *_dense(wide, narrow), nn.Linear(narrow, slots)))

    def forward(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        parts = image[:, FIRST:].split(SLOTS, dim=1)  # [B, slots, 3] each
        filled = [
            layers(part.flatten(0, 1)).view(*part.shape[:2], 2) for layers, part in zip(self.slots, parts, strict=True)
        ]
        return filled, [layers(one.flatten(1)) for layers, one in zip(self.counts, filled, strict=True)]


class CrystalGAN(nn.Module):
    """Generator, critic and classifier with their losses, as training.adversarial.AdversarialTask trains them.

    lr: of the critic; latent: size of the noise; width: of all layers, over that of the authors; penalty, of_counts:
    weights of the gradient penalty and of the classification of counts; classifier_lr: of the classifier, over that of
    the critic; compositions: those the generator is asked for [C, 3], where None every number of atoms up to the slots,
    as the authors do; move: augment by translations too. Its input is `image` [B, 30, 3], crystals as the data has
    them; they are augmented here.
    """

    def __init__(
        self,
        lr: float,
        latent: int = 512,
        width: float = 1.0,
        penalty: float = 10.0,
        of_counts: float = 0.3,
        classifier_lr: float = 0.5,
        compositions: Tensor | None = None,
        move: bool = True,
    ):
        super().__init__()
        widths = Widths() if width == 1 else Widths.scaled(width)
        self.generator, self.critic, self.classifier = Generator(latent, widths), Critic(widths), Classifier(widths)
        self.lr, self.classifier_lr, self.move = lr, classifier_lr, move
        self.penalty, self.of_counts = penalty, of_counts
        self.register_buffer("compositions", compositions, persistent=False)
        self.apply(_start)

    def critic_loss(self, image: Tensor) -> Tensor:
        real = augmented(image, self.move)
        with torch.no_grad():
            fake, _ = self.made(len(real), real.device)
        told = self.critic(fake).mean() - self.critic(real).mean()
        return told + self.penalty * gradient_penalty(self.critic, (real,), (fake,)) + self.classified(real)

    def classified(self, real: Tensor) -> Tensor:
        """Cross entropies of the filled slots and of the counts of real images."""
        noisy = real + (real < EMPTY) * (GAP + WIDTH * torch.randn_like(real)).abs()
        slots, counts = self.classifier(noisy)
        wanted = filled_slots(real).long().split(SLOTS, dim=1)
        of_slots = sum(cross_entropy(one.flatten(0, 1), n.flatten()) for one, n in zip(slots, wanted, strict=True))
        return of_slots + self.of_counts * _miscounted(counts, composition(real))

    def generator_loss(self, image: Tensor) -> Tensor:
        fake, asked = self.made(len(image), image.device)
        return self.of_counts * _miscounted(self.classifier(fake)[1], asked) - self.critic(fake).mean()

    def made(self, n: int, device) -> tuple[Tensor, Tensor]:
        """n new images [n, 30, 3], and the atoms that were asked for [n, 3]."""
        if self.compositions is None:
            asked = torch.stack([torch.randint(1, slots + 1, (n,), device=device) for slots in SLOTS], dim=1)
        else:
            asked = self.compositions[torch.randint(len(self.compositions), (n,), device=device)]
        return self.generator(torch.randn(n, self.generator.latent, device=device), asked), asked

    def critic_parameters(self) -> list[dict]:
        return [
            {"params": list(self.critic.parameters())},
            {"params": list(self.classifier.parameters()), "lr": self.lr * self.classifier_lr},
        ]

    def generator_parameters(self) -> list:
        return list(self.generator.parameters())


def _miscounted(logits: list[Tensor], counts: Tensor) -> Tensor:
    """Cross entropy of the atoms of every element, summed over the elements."""
    return sum(cross_entropy(one, n - 1) for one, n in zip(logits, counts.unbind(dim=1), strict=True))


def _normed(size: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm1d(size, SPREAD), nn.ReLU()


def _dense(size: int, wide: int) -> tuple[nn.Module, ...]:
    return nn.Linear(size, wide), nn.BatchNorm1d(wide, SPREAD), nn.LeakyReLU(LEAK)


def _start(layer: nn.Module) -> None:
    """Glorot's weights and no bias, as in the authors' code."""
    if isinstance(layer, nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
