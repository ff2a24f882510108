"""SNAP and quadratic SNAP (Thompson et al., J. Comput. Phys. 285, 316 (2015), doi:10.1016/j.jcp.2014.12.018; Wood and
Thompson, J. Chem. Phys. 148, 241721 (2018), doi:10.1063/1.5017641), as LAMMPS evaluates them.

A neighbour at r becomes a unit quaternion q = (cos t, sin t r/|r|), t = rfac0 pi (|r| - rmin0) / (cutoff - rmin0), and
the density of neighbours on the 3-sphere is expanded in Wigner functions D^j of spins j = 0, 1/2 .. twojmax / 2:

    U^j = 1 + sum_k fc(r_k) D^j(q_k),    fc(r) = (1 + cos(pi (r - rmin0) / (cutoff - rmin0))) / 2
    B_{j1 j2 j} = sum of Clebsch-Gordan products of U^j1, U^j2 and conj U^j,    j2 <= j1 <= j
    E = sum_i  c_0 + sum_k c_k B_k  [ + sum_k c_kk B_k B_k / 2 + sum_{k < l} c_kl B_k B_l  when quadratic ]

Differs from LAMMPS in the way, not in the result (tests hold both together): no Clebsch-Gordan sum is taken. With the
character chi_j(q, q') = sin((2j + 1) w) / sin w of SU(2), cos w = q . q',

    f_j(q) = tr(U^j D^j(q)^+) = chi_j(1, q) + sum_k fc(r_k) chi_j(q_k, q)    is real, and
    B_{j1 j2 j} = (2j + 1) <f_j1 f_j2 f_j>,    the mean over the group.

(Closer than rmin0, a case of no use, LAMMPS turns the sign of q, which makes its energy jump; here it does not.)

f_j is a harmonic polynomial of degree 2j in q, so its coefficients are moments of the neighbours' quaternions, and the
mean is exact with a product quadrature over Euler angles, of half the group because the integrand is even. What is
left is multiplication of dense matrices: moments -> harmonics -> points, and the same backwards for the gradient.
"""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from ase.data import atomic_numbers
from torch import Tensor, nn

from replimat.errors import DataError
from replimat.models.quaternions import differentiated, group_quadrature, harmonic_transform, raised

ATOMS = 32  # taken at once: what they need stays in the processor's cache
# of a coefficient in eV where forces weigh 1: lowers the cross-validation errors on mlearn's Cu and Ge, raises Ni's
RIDGE = 100.0
RADIUS = 0.5  # of the element in the files read here: the cutoff is twice this times rcutfac, in angstrom
FIXED = {"bzeroflag": 0, "chemflag": 0, "bnormflag": 0, "wselfallflag": 0, "switchflag": 1}  # settings of LAMMPS
KNOWN = {"rcutfac", "twojmax", "rfac0", "rmin0", *FIXED}


class Snap(nn.Module):
    """Total energies of structures of one element.

    cutoff: angstrom; twojmax: twice the largest spin, even; quadratic: products of components too; rfac0, rmin0
    (angstrom): how distance becomes an angle; atomic_number: of the element, or None: not checked. coefficients [K]:
    eV, as in a snapcoeff file: the constant, the components, then the upper triangle of their products row by row.

    Inputs of a batch: z [N]; pos: angstrom [N, 3]; edge_index: sender, receiver [2, E], sorted by receiver; offset:
    translation of the sender's image, angstrom [E, 3], or None; batch: structure of each atom [N]; n_graphs B. Returns
    energies in eV [B], which can be differentiated once. Raises ValueError for another element and unsorted edges.
    """

    def __init__(
        self,
        cutoff: float,
        twojmax: int,
        quadratic: bool = False,
        rfac0: float = 0.99363,
        rmin0: float = 0.0,
        atomic_number: int | None = None,
    ):
        super().__init__()
        if twojmax < 2 or twojmax % 2 or not 0 <= rmin0 < cutoff:
            raise ValueError(f"twojmax is even, not 0, and rmin0 in [0, cutoff); got {twojmax}, {rmin0}, {cutoff}.")
        self.cutoff, self.quadratic, self.rfac0, self.rmin0 = cutoff, quadratic, rfac0, rmin0
        self.atomic_number = atomic_number
        self.bispectrum = Bispectrum(twojmax)
        count = len(self.bispectrum.triples)
        k, m = torch.triu_indices(count, count)
        self.register_buffer("pairs", torch.stack([k, m]), persistent=False)
        self.register_buffer("halves", torch.where(k == m, 0.5, 1.0).double(), persistent=False)
        size = 1 + count + (len(k) if quadratic else 0)
        self.coefficients = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def forward(
        self, z: Tensor, pos: Tensor, edge_index: Tensor, batch: Tensor, n_graphs: int, offset: Tensor | None = None
    ) -> Tensor:
        vec, _, receiver = self._edges(z, pos, edge_index, offset)
        atoms = _AtomEnergies.apply(vec, self.coefficients, receiver, len(z), self)  # [N]
        return atoms.new_zeros(n_graphs).index_add(0, batch, atoms)

    @torch.no_grad()
    def components(self, inputs: dict) -> Tensor:
        """B of every atom [N, C], in the order of LAMMPS."""
        vec, _, receiver = self._edges(inputs["z"], inputs["pos"], inputs["edge_index"], inputs.get("offset"))
        return torch.cat([self.bispectrum(near)[0] for near in self.shells(vec, receiver, len(inputs["z"]))])

    @torch.no_grad()
    def design(self, inputs: dict) -> dict[str, Tensor]:
        """Derivatives by the coefficients: of the energies [B, K], and of the forces [N, 3, K]."""
        atoms, width = len(inputs["z"]), len(self.coefficients)
        vec, sender, receiver = self._edges(inputs["z"], inputs["pos"], inputs["edge_index"], inputs.get("offset"))
        energy, forces = vec.new_zeros(inputs["n_graphs"], width), vec.new_zeros(atoms, 3, width)
        for near in self.shells(vec, receiver, atoms):
            b, points = self.bispectrum(near)
            energy.index_add_(0, inputs["batch"][near.atoms], self.features(b))
            slopes = near.gradient(self.bispectrum.jacobian(points))  # [e, 3, C]
            slopes = self._feature_slopes(b[receiver[near.edges] - near.atoms.start], slopes)  # [e, 3, K - 1]
            forces[..., 1:].index_add_(0, sender[near.edges], slopes, alpha=-1)
            forces[..., 1:].index_add_(0, receiver[near.edges], slopes)
        return {"energy": energy, "forces": forces}

    def prior(self) -> Tensor | None:
        """Rows [K, K] that hold the coefficients of the quadratic one down (RIDGE), but for the constant."""
        if not self.quadratic:
            return None
        held = torch.full_like(self.coefficients.detach(), RIDGE)
        held[0] = 0.0
        return torch.diag(held)

    def features(self, b: Tensor) -> Tensor:
        """What the coefficients multiply [A, K], of components b [A, C]."""
        parts = [torch.ones_like(b[:, :1]), b]
        if self.quadratic:
            k, m = self.pairs
            parts.append(b[:, k] * b[:, m] * self.halves)
        return torch.cat(parts, dim=1)

    def _feature_slopes(self, b: Tensor, slopes: Tensor) -> Tensor:
        """Slopes of the features but the constant [e, 3, K - 1], from those of the components [e, 3, C]."""
        if not self.quadratic:
            return slopes
        k, m = self.pairs
        product = slopes[..., k].mul_((b[:, m] * self.halves)[:, None])
        product += slopes[..., m].mul_((b[:, k] * self.halves)[:, None])
        return torch.cat([slopes, product], dim=-1)

    def component_weights(self, b: Tensor, coefficients: Tensor) -> Tensor:
        """dE/dB [A, C]."""
        linear, count = coefficients[1 : 1 + b.shape[1]], b.shape[1]
        if not self.quadratic:
            return linear.expand(len(b), count)
        k, m = self.pairs
        square = b.new_zeros(count, count)
        square[k, m] = coefficients[1 + count :] * self.halves
        return torch.addmm(linear, b, square + square.T)

    def _edges(self, z, pos, edge_index, offset) -> tuple[Tensor, Tensor, Tensor]:
        """Vectors to the neighbours inside the cutoff [E, 3], their senders and receivers [E]."""
        if self.atomic_number is not None and not bool((z == self.atomic_number).all()):
            raise ValueError(f"This potential knows the element with atomic number {self.atomic_number} alone.")
        j, i = edge_index
        vec = (pos[j] - pos[i] if offset is None else pos[j] + offset - pos[i]).to(self.coefficients.dtype)
        inside = torch.nonzero(torch.linalg.vector_norm(vec.detach(), dim=-1) < self.cutoff)[:, 0]
        vec, j, i = vec[inside], j[inside], i[inside]
        if bool((i[1:] < i[:-1]).any()):
            raise ValueError("Edges must be sorted by receiver.")
        return vec, j, i

    def shells(self, vec: Tensor, receiver: Tensor, atoms: int) -> Iterator["Shells"]:
        """The neighbours of a few atoms after the other."""
        ends = torch.bincount(receiver, minlength=atoms).cumsum(0).tolist()
        for first in range(0, atoms, ATOMS):
            last = min(first + ATOMS, atoms)
            edges = slice(ends[first - 1] if first else 0, ends[last - 1])
            yield Shells(self, vec[edges], receiver[edges] - first, slice(first, last), edges)


class _AtomEnergies(torch.autograd.Function):
    """Energies of the atoms [N]; their gradient is made in the same pass, so that nothing large is kept for it."""

    @staticmethod
    def forward(ctx, vec, coefficients, receiver, atoms, model):
        energies, kept, gradient = vec.new_empty(atoms), [], torch.empty_like(vec)
        for near in model.shells(vec, receiver, atoms):
            b, points = model.bispectrum(near)
            energies[near.atoms] = model.features(b) @ coefficients
            if ctx.needs_input_grad[0]:
                adjoint = model.bispectrum.adjoint(points, model.component_weights(b, coefficients))
                gradient[near.edges] = near.gradient([each[:, None] for each in adjoint])[..., 0]
            kept.append(b)
        ctx.model = model
        ctx.save_for_backward(gradient, receiver, torch.cat(kept))
        return energies

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, outer):
        gradient, receiver, b = ctx.saved_tensors
        by_vec = gradient * outer[receiver, None] if ctx.needs_input_grad[0] else None
        by_coefficients = outer @ ctx.model.features(b) if ctx.needs_input_grad[1] else None
        return by_vec, by_coefficients, None, None, None


class Shells:
    """The neighbours of a few atoms as quaternions, n places for each atom, some of them empty (weight 0).

    vec: angstrom [e, 3]; receiver [e]: atom of each, counted from the first of `atoms`, sorted; atoms, edges: where
    these stand in the whole batch.
    """

    def __init__(self, model: Snap, vec: Tensor, receiver: Tensor, atoms: slice, edges: slice):
        self.atoms, self.edges, self.highest = atoms, edges, model.bispectrum.twojmax
        self.count = atoms.stop - atoms.start
        counts = torch.bincount(receiver, minlength=self.count)
        self.places = max(1, int(counts.max()))  # n
        first = counts.cumsum(0) - counts
        self.at = receiver * self.places + torch.arange(len(receiver)) - first[receiver]  # [e]
        distance = torch.linalg.vector_norm(vec, dim=1)  # [e]
        self.unit = vec / distance[:, None]
        self._angles(model, distance)
        q = torch.cat([self.cosine[:, None], self.sine[:, None] * self.unit], dim=1)  # [e, 4]
        self.q = vec.new_zeros(self.count * self.places, 4).index_copy_(0, self.at, q).T.contiguous()  # [4, A n]
        self.weight = vec.new_zeros(self.count * self.places).index_copy_(0, self.at, self.fc)  # [A n]
        self.powers = [torch.ones_like(self.weight)[None]]  # monomials of degree 0 .. 2J - 1, each [., A n]
        for _ in range(self.highest - 1):
            self.powers.append(raised(self.q, self.powers[-1]))

    def _angles(self, model: Snap, distance: Tensor) -> None:
        """cos t, sin t and fc of each neighbour [e] with what their derivatives need."""
        turn = math.pi / (model.cutoff - model.rmin0)
        phase = turn * (distance - model.rmin0)
        self.sine, self.cosine = torch.sin(model.rfac0 * phase), torch.cos(model.rfac0 * phase)
        self.angle_slope, self.sine_over_r = model.rfac0 * turn, self.sine / distance
        whole = distance <= model.rmin0
        self.fc = torch.where(whole, 1.0, 0.5 + 0.5 * torch.cos(phase))
        self.fc_slope = torch.where(whole, 0.0, -0.5 * turn * torch.sin(phase))

    def moments(self) -> list[Tensor]:
        """Weighted sums of the monomials of degree 2J and 2J - 1, each [A, .]; the atom itself is at q = 1."""
        q, found = self.q * self.weight, []
        for lower in (self.powers[-1], self.powers[-2]):
            total = raised(q, lower).view(-1, self.count, self.places).sum(dim=-1)  # [., A]
            total[0] += 1.0
            found.append(total.T)
        return found

    def gradient(self, adjoint: list[Tensor]) -> Tensor:
        """Derivatives [e, 3, M] by the neighbours' vectors of M functions, from those by the moments, each [A, M, .].

        By q: a monomial's derivative is a monomial; by fc: from the same, as a polynomial of degree d is q . (its
        gradient) / d (Euler).
        """
        by_q, by_fc = 0.0, 0.0
        q = self.q.T[self.at]  # [e, 4]
        for degree, lower, of in zip((self.highest, self.highest - 1), (-1, -2), adjoint, strict=True):
            lower = self.powers[lower].view(-1, self.count, self.places).transpose(0, 1)  # [A, ., n]
            part = differentiated(of, degree) @ lower  # [A, M 4, n]
            part = part.transpose(1, 2).flatten(0, 1)[self.at].unflatten(1, (of.shape[1], 4))  # [e, M, 4]
            by_q, by_fc = by_q + part, by_fc + (part @ q[:, :, None])[..., 0] / degree  # [e, M, 4], [e, M]
        return self._to_vectors(by_q, by_fc)

    def _to_vectors(self, by_q: Tensor, by_fc: Tensor) -> Tensor:
        """Chain rule to the vectors [e, 3, M]."""
        across = by_q[..., 1:].transpose(1, 2)  # [e, 3, M]
        radial = (self.unit[:, None] @ across)[:, 0]  # [e, M]
        stretch = self.cosine[:, None] * self.angle_slope - self.sine_over_r[:, None]
        along = stretch * radial - (self.sine * self.angle_slope)[:, None] * by_q[..., 0]
        along = self.fc[:, None] * along + self.fc_slope[:, None] * by_fc  # [e, M]
        return self.unit[:, :, None] * along[:, None] + (self.fc * self.sine_over_r)[:, None, None] * across


class Bispectrum(nn.Module):
    """Components from moments of quaternions: C triples (j1, j2, j) of doubled spins, j2 <= j1 <= j <= twojmax."""

    def __init__(self, twojmax: int):
        super().__init__()
        self.twojmax = twojmax
        self.triples = [
            (j1, j2, j)
            for j1 in range(twojmax + 1)
            for j2 in range(j1 + 1)
            for j in range(j1 - j2, min(twojmax, j1 + j2) + 1, 2)
            if j >= j1
        ]
        quaternions, weights = group_quadrature(3 * twojmax // 2)
        self.columns: list[tuple[int, int, slice]] = []  # spin, 0 or 1 (degree 2J or 2J - 1), where in its harmonics
        for odd in (0, 1):
            harmonics, spins = harmonic_transform(twojmax - odd)
            self.register_buffer(f"harmonics{odd}", harmonics, persistent=False)
            power = torch.ones(1, len(weights), dtype=torch.float64)
            for _ in range(twojmax - odd):
                power = raised(quaternions, power)
            at_points = harmonics.T @ power  # [H, G]
            start = 0
            for spin in spins:
                block = slice(start, start + (spin + 1) ** 2)
                self.register_buffer(f"points{spin}", at_points[block].contiguous(), persistent=False)
                self.columns.append((spin, odd, block))
                start = block.stop
        norm = torch.tensor([j + 1.0 for _, _, j in self.triples], dtype=torch.float64)
        self.register_buffer("norm", norm, persistent=False)
        self.register_buffer("weights", weights, persistent=False)
        self._couplings()

    def _couplings(self) -> None:
        """Which products of two functions, times a third, make each component, and which make the derivatives."""
        spins = range(self.twojmax + 1)
        self.even, self.odd = [j for j in spins if j % 2 == 0], [j for j in spins if j % 2]
        cwr = itertools.combinations_with_replacement
        self.same = [*cwr(self.even, 2), *cwr(self.odd, 2)]  # their product meets a function of integer spin
        self.mixed = list(itertools.product(self.even, self.odd))  # of half-integer spin
        value, slope = [], {0: [], 1: []}
        for k, triple in enumerate(self.triples):
            for third in set(triple):
                rest = list(triple)
                rest.remove(third)
                pair = tuple(sorted(rest, key=lambda j: (j % 2, j)))
                table = self.mixed if third % 2 else self.same
                slope[third % 2].append((k, third // 2, table.index(pair), triple.count(third)))
            value.append(next(entry for entry in slope[0][::-1] if entry[0] == k))
        self.register_buffer("value_at", torch.tensor([entry[1:3] for entry in value]).T, persistent=False)
        for odd in (0, 1):
            self.register_buffer(f"slope{odd}", torch.tensor(slope[odd]).T, persistent=False)

    def forward(self, near: Shells) -> tuple[Tensor, dict[str, Tensor]]:
        """Components [A, C], and what their derivatives are made of."""
        harmonics = [moments @ getattr(self, f"harmonics{odd}") for odd, moments in enumerate(near.moments())]
        f = self.weights.new_empty(self.twojmax + 1, near.count, len(self.weights))  # [J, A, G]
        for spin, odd, block in self.columns:
            torch.mm(harmonics[odd][:, block], getattr(self, f"points{spin}"), out=f[spin])
        same = self._products(f, self.same)  # [A, P, G]
        means = same @ (f[self.even] * self.weights).permute(1, 2, 0)  # [A, P, even]
        third, pair = self.value_at
        return means[:, pair, third] * self.norm, {"f": f, "same": same}

    def adjoint(self, points: dict[str, Tensor], by_component: Tensor) -> list[Tensor]:
        """Derivatives by the moments [A, .] of functions whose derivatives by the components [A, C] are given."""
        tables = (points["same"], self._products(points["f"], self.mixed))  # [A, P, G]
        found = [self.weights.new_empty(len(by_component), len(getattr(self, f"harmonics{odd}"))) for odd in (0, 1)]
        slopes = []
        for odd, table in enumerate(tables):
            k, third, pair, times = getattr(self, f"slope{odd}")
            mix = table.new_zeros(len(table), len(self.odd if odd else self.even), table.shape[1])
            mix.index_put_((torch.arange(len(table))[:, None], third, pair), by_component[:, k] * self.norm[k] * times)
            slopes.append((mix @ table).mul_(self.weights))  # [A, even or odd, G]
        for spin, odd, block in self.columns:
            found[odd][:, block] = slopes[odd][:, spin // 2] @ getattr(self, f"points{spin}").T
        return [found[odd] @ getattr(self, f"harmonics{odd}").T for odd in (0, 1)]

    def jacobian(self, points: dict[str, Tensor]) -> list[Tensor]:
        """Derivatives of all components by the moments, each [A, C, .]."""
        tables = (points["same"] * self.weights, self._products(points["f"], self.mixed) * self.weights)
        blocks = {spin: (odd, block) for spin, odd, block in self.columns}
        found = []
        for odd, table in enumerate(tables):
            harmonics = getattr(self, f"harmonics{odd}")
            by_harmonic = table.new_zeros(len(table), len(self.triples), len(harmonics))
            for spin in self.odd if odd else self.even:
                k, third, pair, times = getattr(self, f"slope{odd}")
                k, pair, times = (each[third == spin // 2] for each in (k, pair, times))
                part = table[:, pair] @ getattr(self, f"points{spin}").T  # [A, entries, (spin + 1)^2]
                by_harmonic[:, k, blocks[spin][1]] = part * (self.norm[k] * times)[:, None]
            found.append(by_harmonic @ harmonics.T)
        return found

    @staticmethod
    def _products(f: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
        """Products of two functions at the points [A, P, G] (stored pair by pair)."""
        table = f.new_empty(len(pairs), *f.shape[1:])
        for row, (a, b) in enumerate(pairs):
            torch.mul(f[a], f[b], out=table[row])
        return table.transpose(0, 1)


def read_snap(folder: Path, symbol: str, quadratic: bool = False) -> Snap:
    """The potential in `<symbol>[.quadratic].snapcoeff` and `.snapparam` of a folder, files as LAMMPS reads them.

    Raises DataError for a missing file, another element or number of coefficients, or a setting that Snap has not.
    """
    stem = Path(folder) / (f"{symbol}.quadratic" if quadratic else symbol)
    given = {name: float(value) for name, value in _lines(Path(f"{stem}.snapparam"))}
    if given.pop("quadraticflag", 0) != quadratic:
        raise DataError(f"{stem}.snapparam: quadraticflag says otherwise.")
    if other := [name for name, value in given.items() if FIXED.get(name, value) != value or name not in KNOWN]:
        raise DataError(f"{stem}.snapparam: not a setting that can be had here: {', '.join(other)}.")
    (elements, count), (name, radius, weight), *rest = _lines(Path(f"{stem}.snapcoeff"))
    if (elements, name, float(radius), float(weight)) != ("1", symbol, RADIUS, 1.0):
        raise DataError(f"{stem}.snapcoeff: not of {symbol} alone with radius {RADIUS} and weight 1.")
    angles = {name: given[name] for name in ("rfac0", "rmin0") if name in given}
    cutoff, twojmax = 2 * RADIUS * given["rcutfac"], int(given["twojmax"])
    model = Snap(cutoff, twojmax, quadratic, atomic_number=atomic_numbers[symbol], **angles)
    if not len(rest) == int(count) == len(model.coefficients):
        raise DataError(f"{stem}.snapcoeff: {len(rest)} coefficients, expected {len(model.coefficients)}.")
    with torch.no_grad():
        model.coefficients.copy_(torch.tensor([float(value) for (value,) in rest], dtype=torch.float64))
    return model


def _lines(path: Path) -> list[list[str]]:
    """Words of the lines of a file that are not comments."""
    if not path.is_file():
        raise DataError(f"{path} is missing.")
    lines = (line.split("#")[0].split() for line in path.read_text(encoding="utf-8").splitlines())
    return [words for words in lines if words]
