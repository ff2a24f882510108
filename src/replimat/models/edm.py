"""Euclidean distance matrices from a Wasserstein GAN (Hoffmann, Noé, arXiv:1910.03131).

    L = U diag(softplus(l_1), softplus(l_2), softplus(l_3), 0, ...) U^T,   l_1 >= l_2 >= ... of (X + X^T) / 2   (eq. 5)
    M = 0 (+) L,    D_ij = M_ii + M_jj - 2 M_ij                                                        (eq. 4, eq. 3)

X [n - 1, n - 1] is what the generator makes of noise, D holds squared distances of n points in three dimensions by
construction. The critic is a SchNet on sqrt(D) and the elements t. Losses (eq. 7 to 13):

    critic     E_g[C] - E_r[C] + 10 (|slope of C| - 1)^2 + 0.001 E_r[C^2]
    generator  -E_g[C] + cross entropy of t + 10 sum_(i<j) min(sqrt(D_ij) - r, 0)^2 + sum_k relu(-mu_k)^2

Differs from the paper, which prints no sizes: the repulsion acts on distances below r alone, as the text has it (as
printed it would pull all others to r); the last term, of negative eigenvalues mu of -J D J / 2, is zero by construction
and left out. Differs from SchNet: filters are matrices, not vectors, linear in Gaussians of ln d, so narrow where bonds
are; every atom sees all others, in the first interaction their elements. Free choices: the slope of the critic is taken
with respect to 1 / d and t, so that an error of a bond costs more than the same error of a long distance; the points
between data and generated ones, where it is taken, lie between structures whose atoms are assigned to each other as the
authors' repository does it (eq. 14); the critic may score several structures as one, so that it sees whether the
generator always makes the same (PacGAN: Lin et al. 2018, arXiv:1712.04086).
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from replimat.models.schnet import ShiftedSoftplus

DIMENSION = 3
PENALTY, DRIFT, REPULSION = 10.0, 1e-3, 10.0  # lambda, epsilon and k of the paper
SHORTEST = 0.2  # angstrom: two points at one place have no finite slope, here and below the critic sees this distance
CLOSE = 1e-2  # angstrom^2: eigenvalues nearer than this count as equal in the gradient
LEAK = 0.2  # slope of LeakyReLU below zero
BOND, WATCHED = 0.45, 1000  # angstrom, Open Babel's slack of a bond; samples whose quality is watched
GAUSSIANS = (0.8, 7.0)  # angstrom, first and last centre
UNIT = 1.5  # angstrom: the slope of the critic is that with respect to UNIT / d


class LargestThree(torch.autograd.Function):
    """Softplus on the three largest eigenvalues of symmetric matrices [B, m, m], zero on the others.

    The gradient is that of a function of a matrix (Daleckii and Krein): with differences f(l_i) - f(l_j) over l_i - l_j
    in the place of the derivatives of eigenvectors, which are singular where two eigenvalues meet.
    """

    @staticmethod
    def forward(ctx, matrix: Tensor) -> Tensor:
        values, vectors = torch.linalg.eigh(matrix)  # ascending
        kept = torch.zeros_like(values)
        kept[:, -DIMENSION:] = 1
        ctx.save_for_backward(values, vectors, kept)
        return (vectors * (functional.softplus(values) * kept)[:, None]) @ vectors.mT

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        values, vectors, kept = ctx.saved_tensors
        made, slope = functional.softplus(values) * kept, torch.sigmoid(values) * kept
        gap, rise = values[:, :, None] - values[:, None], made[:, :, None] - made[:, None]  # [B, m, m]
        alike = kept[:, :, None] == kept[:, None]
        near = gap.abs() < CLOSE
        ratio = rise / torch.where(near, CLOSE * torch.where(gap < 0, -1.0, 1.0), gap)
        ratio = torch.where(near & alike, (slope[:, :, None] + slope[:, None]) / 2, ratio)
        return vectors @ (ratio * (vectors.mT @ gradient @ vectors)) @ vectors.mT


def distance_matrices(matrix: Tensor) -> Tensor:
    """Squared distances [B, n, n] of n points in three dimensions, from any square matrices [B, n - 1, n - 1]."""
    gram = functional.pad(LargestThree.apply((matrix + matrix.mT) / 2), (1, 0, 1, 0))  # the first point is the origin
    diagonal = gram.diagonal(dim1=1, dim2=2)
    return (diagonal[:, :, None] + diagonal[:, None] - 2 * gram).clamp_min(0)  # rounding


def points(squared: Tensor) -> Tensor:
    """Points [B, n, 3] of squared distances [B, n, n] by classical scaling, centred; which of two mirror images is left
    open.
    """
    centred = squared - squared.mean(dim=1, keepdim=True)
    gram = -0.5 * (centred - centred.mean(dim=2, keepdim=True))
    values, vectors = torch.linalg.eigh(gram.double())
    return vectors[..., -DIMENSION:] * values[:, None, -DIMENSION:].clamp_min(0).sqrt()


class Generator(nn.Module):
    """Noise [B, latent] -> squared distances in angstrom^2 [B, n, n] and logits of the elements [B, n, K].

    n: points, an odd number; kinds: K; width: of two dense layers; channels: of the 2 x 2 deconvolution that makes the
    matrix; scale: angstrom^2, of its entries before training. The first weights are He's, as in the authors' layers:
    the first structures are then as large and as different as those of the data. Raises ValueError for an even n.
    """

    def __init__(self, n: int, kinds: int, latent: int = 32, width: int = 256, channels: int = 8, scale: float = 10.0):
        super().__init__()
        if n % 2 == 0 or n <= DIMENSION:
            raise ValueError(f"The deconvolution doubles, so that the number of points is odd and above 3, got {n}.")
        self.n, self.kinds, self.latent, self.scale = n, kinds, latent, scale
        half, leaky = (n - 1) // 2, nn.LeakyReLU(LEAK)
        self.dense = nn.Sequential(nn.Linear(latent, width), leaky, nn.Linear(width, width), leaky)
        self.matrix = nn.Sequential(
            nn.Linear(width, channels * half**2),
            nn.Unflatten(1, (channels, half, half)),
            leaky,
            nn.ConvTranspose2d(channels, 1, 2, stride=2),
        )
        self.element = nn.Linear(width, n * kinds)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, a=LEAK)
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.matrix[-1].weight, std=channels**-0.5)  # every entry is the sum of so many products

    def forward(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.dense(noise)
        matrix = self.matrix(hidden)[:, 0]  # [B, n - 1, n - 1]
        return distance_matrices(self.scale * matrix), self.element(hidden).view(-1, self.n, self.kinds)


class Critic(nn.Module):
    """A score of distances in angstrom [B, P] of all P pairs of n atoms and of their elements [B, n, K].

    features: F; passed: C numbers of an atom that reach the others, in the first interaction these are its elements;
    blocks: interactions; gaussians: G of the filters; together: structures that are scored as one, [B / together]
    scores. The elements are shares, so that an atom may be half a carbon; a score does not depend on the order of the
    atoms.
    """

    def __init__(
        self,
        n: int,
        kinds: int,
        features: int = 32,
        passed: int = 12,
        blocks: int = 2,
        gaussians: int = 16,
        together: int = 1,
    ):
        super().__init__()
        one, two = torch.triu_indices(n, n, 1)
        pair = torch.full((n, n), len(one))  # the last pair is one of an atom with itself
        pair[one, two] = pair[two, one] = torch.arange(len(one))
        self.register_buffer("pair", pair.flatten(), persistent=False)  # [n n]
        centres = torch.linspace(math.log(GAUSSIANS[0]), math.log(GAUSSIANS[1]), gaussians)
        self.register_buffer("centres", centres[:, None], persistent=False)
        self.width, self.together = float(centres[1] - centres[0]), together
        seen = [kinds, *[passed] * (blocks - 1)]
        self.embedding = nn.Linear(kinds, features, bias=False)
        self.before = nn.ModuleList(nn.Linear(features, passed, bias=False) for _ in seen[1:])
        self.after = nn.ModuleList(_atomwise(features + one * gaussians, 2 * features, features) for one in seen)
        self.readout = _atomwise(features, 2 * features, 1)
        self.compare = _atomwise(together * features, 2 * features, 1) if together > 1 else None

    def forward(self, distance: Tensor, element: Tensor) -> Tensor:
        return self.score(self.basis(distance), element)

    def basis(self, distance: Tensor) -> Tensor:
        """Gaussians of ln d [B, G, P]."""
        return torch.exp(-0.5 * self._places(distance) ** 2)

    def score(self, basis: Tensor, element: Tensor) -> Tensor:
        size, n, gaussians = *element.shape[:2], basis.shape[1]
        filters = functional.pad(basis, (0, 1)).index_select(2, self.pair).view(size, gaussians * n, n)
        x = self.embedding(element)  # [B, n, F]
        for before, after in zip((None, *self.before), self.after, strict=True):
            message = filters @ (element if before is None else before(x))  # [B, G n, C]
            message = message.view(size, gaussians, n, -1).transpose(1, 2).flatten(2)  # [B, n, G C]
            x = x + after(torch.cat([x, message], dim=2))
        alone = self.readout(x).sum(dim=(1, 2)).view(-1, self.together).sum(dim=1) / self.together**0.5
        if self.compare is None:
            return alone
        return alone + self.compare(x.mean(dim=1).view(len(alone), -1))[:, 0]

    def slope(self, distance: Tensor, element: Tensor) -> Tensor:
        """|gradient| of the score with respect to UNIT / d and the elements [B / together], to be derived by weights.

        The Gaussians are differentiated by hand: weights do not act on them, and their second derivatives are not
        wanted.
        """
        place = self._places(distance)
        basis = torch.exp(-0.5 * place**2).requires_grad_()
        element = element.detach().requires_grad_()
        by_basis, by_element = torch.autograd.grad(
            self.score(basis, element).sum(), (basis, element), create_graph=True
        )
        by_logarithm = (by_basis * (-place * basis.detach() / self.width)).sum(dim=1)  # [B, P]
        by_inverse = by_logarithm * (distance / UNIT)
        square = by_inverse.square().sum(dim=1) + by_element.square().sum(dim=(1, 2))
        return (square.view(-1, self.together).sum(dim=1) + 1e-12).sqrt()

    def _places(self, distance: Tensor) -> Tensor:
        """ln d from each centre, in widths [B, G, P]."""
        return (distance.log()[:, None] - self.centres) / self.width


def _atomwise(seen: int, hidden: int, given: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(seen, hidden), ShiftedSoftplus(), nn.Linear(hidden, given))


class EDMGAN(nn.Module):
    """Generator and critic of molecules that all have the same atoms.

    counts: atoms of each element, in the order in which they stand in a molecule (seven carbons, two oxygens, ten
    hydrogens); shortest: r, the smallest distance of the data, angstrom; options: of the networks by name; radii:
    covalent, of each element, angstrom; valences: of each element. What it is given of the data are squared distances
    in angstrom^2 [B, n, n].
    """

    def __init__(
        self,
        counts: Sequence[int],
        shortest: float,
        generator: dict | None = None,
        critic: dict | None = None,
        radii: Sequence[float] = (0.76, 0.66, 0.31),
        valences: Sequence[int] = (4, 2, 1),
    ):
        super().__init__()
        self.counts, self.shortest = tuple(counts), shortest
        n, kinds = sum(counts), len(counts)
        self.generator = Generator(n, kinds, **(generator or {}))
        self.critic = Critic(n, kinds, **(critic or {}))
        reference = torch.repeat_interleave(torch.arange(kinds), torch.tensor(self.counts))
        self.register_buffer("reference", reference, persistent=False)  # element of each atom [n]
        self.register_buffer("radii", torch.tensor(radii), persistent=False)  # [K]
        self.register_buffer("valences", torch.tensor(valences), persistent=False)  # [K]
        self.register_buffer("pairs", torch.triu_indices(n, n, 1), persistent=False)  # [2, P]

    def sample(self, size: int) -> tuple[Tensor, Tensor]:
        """Squared distances [size, n, n] and logits of the elements [size, n, K] of new noise."""
        weight = self.generator.element.weight
        return self.generator(torch.randn(size, self.generator.latent, device=weight.device, dtype=weight.dtype))

    def critic_loss(self, squared: Tensor) -> Tensor:
        squared = self._filled(squared)
        size = len(squared)
        with torch.no_grad():
            made, logits = self.sample(size)
        element, kinds = self._reference(size), logits.softmax(dim=2)
        real, fake = self._distances(squared), self._distances(made)
        score_real, score_fake = self.critic(torch.cat([real, fake]), torch.cat([element, kinds])).chunk(2)
        penalty = (self._slope_between(squared, made, element, kinds) - 1).square().mean()
        wasserstein = score_fake.mean() - score_real.mean()
        return wasserstein + PENALTY * penalty + DRIFT * score_real.square().mean()

    def generator_loss(self, squared: Tensor) -> Tensor:
        made, logits = self.sample(len(self._filled(squared)))
        distance = self._distances(made)
        score = self.critic(distance, logits.softmax(dim=2)).mean()
        types = functional.cross_entropy(logits.flatten(0, 1), self.reference.repeat(len(made)))
        repulsion = (distance - self.shortest).clamp_max(0).square().sum(dim=1).mean()
        return -score + types + REPULSION * repulsion

    @torch.no_grad()
    def quality(self) -> Tensor:
        """Share of WATCHED samples whose bonds could be those of a molecule; judged without any data."""
        squared, logits = self.sample(WATCHED)
        kinds = logits.argmax(dim=2)
        return could_be_molecules(squared, self.radii[kinds], self.valences[kinds]).float().mean()

    def critic_parameters(self) -> Iterator[nn.Parameter]:
        return self.critic.parameters()

    def generator_parameters(self) -> Iterator[nn.Parameter]:
        return self.generator.parameters()

    def _slope_between(self, squared: Tensor, made: Tensor, element: Tensor, kinds: Tensor) -> Tensor:
        """Slopes of the critic on the lines between data and what was made [B / together]."""
        order = self.assigned(made)
        made, kinds = permuted(made, order), torch.take_along_dim(kinds, order[..., None], dim=1)
        squared = permuted(squared, self.assigned(squared))
        together = self.critic.together
        share = torch.rand(len(made) // together, 1, 1, device=made.device).repeat_interleave(together, dim=0)
        between = torch.lerp(made, squared, share)  # Euclidean matrices form a convex cone: it is one, too
        return self.critic.slope(self._distances(between), torch.lerp(kinds, element, share))

    def assigned(self, squared: Tensor) -> Tensor:
        """An order of the atoms [B, n], within each element by their mean squared distance to all atoms: what stands at
        one place in two structures is assigned to each other at the least cost of eq. 14.
        """
        mean, start, orders = squared.mean(dim=2), 0, []
        for count in self.counts:
            orders.append(mean[:, start : start + count].argsort(dim=1) + start)
            start += count
        return torch.cat(orders, dim=1)

    def _filled(self, squared: Tensor) -> Tensor:
        """A batch of which the critic can score all: filled up from its start."""
        size = -(-len(squared) // self.critic.together) * self.critic.together
        return squared[torch.arange(size, device=squared.device) % len(squared)]

    def _reference(self, size: int) -> Tensor:
        return functional.one_hot(self.reference, len(self.counts)).float().expand(size, -1, -1)  # [B, n, K]

    def _distances(self, squared: Tensor) -> Tensor:
        one, two = self.pairs
        return squared[:, one, two].clamp_min(SHORTEST**2).sqrt()  # [B, P]


def could_be_molecules(squared: Tensor, radii: Tensor, valences: Tensor) -> Tensor:
    """Whether bonds as Open Babel first draws them, between atoms nearer than the sum of their radii and BOND, connect
    all atoms and leave valences that double bonds can fill [B].

    squared: distances in angstrom^2 [B, n, n]; radii in angstrom, valences [B, n]. A molecule needs more than this.
    """
    near = squared < (radii[:, :, None] + radii[:, None] + BOND) ** 2
    bonds = (near & ~torch.eye(squared.shape[1], dtype=torch.bool, device=squared.device)).float()
    free = valences - bonds.sum(dim=2)  # [B, n]
    reach = bonds
    for _ in range((squared.shape[1] - 1).bit_length()):
        reach = (reach + reach @ reach).clamp_max(1)
    partner = (bonds @ (free > 0).float()[..., None])[..., 0] > 0
    fits = (free >= 0) & ((free == 0) | partner) & (bonds.sum(dim=2) > 0)
    return (reach[:, 0] > 0).all(dim=1) & fits.all(dim=1)


def permuted(squared: Tensor, order: Tensor) -> Tensor:
    """Rows and columns of matrices [B, n, n] in a new order [B, n]."""
    rows = torch.take_along_dim(squared, order[:, :, None], dim=1)
    return torch.take_along_dim(rows, order[:, None], dim=2)
