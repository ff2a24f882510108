"""Behler-Parrinello neural network potential of one element (Behler and Parrinello, Phys. Rev. Lett. 98, 146401 (2007),
doi:10.1103/PhysRevLett.98.146401; functions: Behler, J. Chem. Phys. 134, 074106 (2011), doi:10.1063/1.3553717).

    E = sum_i (e_0 + N(g_i)),    g = (G - min G) / (max G - min G)
    G2_i = sum_j exp(-eta (r_ij - r_s)^2) f(r_ij),    f(r) = (cos(pi r / r_c) + 1) / 2               (their eqs. 4, 6)
    G3_i = 2^(1 - zeta) sum_{j<k} (1 + lambda cos theta_ijk)^zeta exp(-eta (r_ij^2 + r_ik^2 + r_jk^2))
           f(r_ij) f(r_ik) f(r_jk)                                                                   (the paper's G4)

N has two tanh layers and a linear output. n2p2 calls G3 (narrow) what Behler's paper numbers G4. Units are angstrom and
eV; `read_n2p2` converts from n2p2's bohr and hartree.
"""

import math
import re
from itertools import pairwise
from pathlib import Path

import torch
from ase.data import atomic_numbers
from ase.units import Bohr, Hartree
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch_geometric.utils import scatter

from replimat.errors import DataError

PAIRS_AT_ONCE = 1 << 18  # pairs of neighbours whose terms are held for the gradient: 100 MB in double precision
EDGES_AT_ONCE = 256  # edges differentiated at once: their pairs stay in the cache


class Nnp(nn.Module):
    """Energy of structures of one element.

    cutoff: r_c, angstrom; radial: (eta in 1/angstrom^2, r_s in angstrom) of each G2; angular: (eta, lambda, zeta) of
    each G3, zeta a whole number; hidden: nodes of the tanh layers; energy_offset: e_0, eV per atom; number: atomic
    number of the element (None: any, all treated alike). Ranges of G are 0 to 1 until `set_ranges`.

    Inputs of a batch as in SchNet; edges of `cutoff` and longer are ignored. Returns total energies in eV [B]. Raises
    ValueError for atoms of another element.
    """

    def __init__(
        self,
        cutoff: float,
        radial: list[tuple[float, float]],
        angular: list[tuple[float, int, int]],
        hidden: tuple[int, ...] = (24, 24),
        energy_offset: float = 0.0,
        number: int | None = None,
    ):
        super().__init__()
        if any(zeta != int(zeta) or zeta < 1 for _, _, zeta in angular):
            raise ValueError("zeta of an angular function is a positive whole number.")
        self.cutoff, self.number = cutoff, number
        self.shapes = list(dict.fromkeys((lam, int(zeta)) for _, lam, zeta in angular))
        self.widths = list(dict.fromkeys(eta for eta, _, _ in angular))
        column = [
            self.shapes.index((lam, int(zeta))) * len(self.widths) + self.widths.index(eta)
            for eta, lam, zeta in angular
        ]
        fixed = {"eta": [eta for eta, _ in radial], "shift": [shift for _, shift in radial]}
        for name, values in fixed.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float64), persistent=False)
        self.register_buffer("column", torch.tensor(column, dtype=torch.long), persistent=False)
        count = len(radial) + len(angular)
        self.register_buffer("lowest", torch.zeros(count, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(count, dtype=torch.float64))
        self.register_buffer("energy_offset", torch.tensor(energy_offset, dtype=torch.float64))
        sizes = [count, *hidden]
        layers = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.Tanh())]
        self.network = nn.Sequential(*layers, nn.Linear(sizes[-1], 1)).double()

    def forward(
        self, z: Tensor, pos: Tensor, edge_index: Tensor, batch: Tensor, n_graphs: int, offset: Tensor | None = None
    ) -> Tensor:
        functions = self.functions(*self.near(z, pos, edge_index, offset), len(z))
        return scatter(self.atom_energies(self.scaled(functions)), batch, dim_size=n_graphs)  # [B]

    def near(self, z: Tensor, pos: Tensor, edge_index: Tensor, offset: Tensor | None) -> tuple[Tensor, Tensor]:
        """Vectors to the neighbours inside the cutoff [E, 3], and sender and receiver of each [2, E]."""
        if self.number is not None and bool((z != self.number).any()):
            raise ValueError(f"This potential knows atomic number {self.number} alone.")
        j, i = edge_index
        vec = pos[j] - pos[i] if offset is None else pos[j] + offset - pos[i]  # [E, 3]
        inside = (vec.detach().square().sum(-1) < self.cutoff**2).nonzero()[:, 0]
        return vec[inside], edge_index[:, inside]

    def functions(self, vec: Tensor, edge_index: Tensor, n_atoms: int) -> Tensor:
        """Symmetry functions of every atom, not scaled [N, K]: radial ones first, each kind in the order given."""
        receiver = edge_index[1]
        radial = scatter(self._radial(torch.linalg.vector_norm(vec, dim=-1)), receiver, dim_size=n_atoms)  # [N, R]
        if not self.shapes:
            return radial
        first, second = self._pairs(vec, receiver, n_atoms)
        pairs = _padded(receiver[first], n_atoms, first, second, len(vec))  # [2, N, T]
        parts = pairs.split(max(1, PAIRS_AT_ONCE // max(1, pairs.shape[2])), dim=1)
        sums = [self._sum_of_pairs(*self._with_dummy(vec), part, len(parts) > 1) for part in parts]
        return torch.cat([radial, torch.cat(sums).flatten(1)[:, self.column]], dim=1)

    def derivatives(self, vec: Tensor, edge_index: Tensor, n_atoms: int) -> Tensor:
        """dG_k(receiver) / dvec of every edge [E, K, 3]: what forces need that does not depend on the weights.

        With u = |a|^2, p = a.b of a pair of neighbours a, b: dG3/da = sum_b 2 a dG3/du + b dG3/dp. A term of G3 is a
        product of one factor per (lambda, zeta) and one per eta, so the sums over b are matrix products.
        """
        distance = torch.linalg.vector_norm(vec, dim=-1)  # [E]
        pull = (
            2 * (self._smooth_slope(distance) * distance)[:, None]
            - 2 * self.eta * (distance[:, None] - self.shift) * self._smooth(distance)[:, None]
        )
        slope = torch.exp(-self.eta * (distance[:, None] - self.shift) ** 2) * pull  # [E, R]
        radial = slope[:, :, None] * (vec / distance[:, None])[:, None]  # [E, R, 3]
        if not self.shapes:
            return radial
        half = torch.stack(self._pairs(vec, edge_index[1], n_atoms))
        first, second = torch.cat([half, half.flip(0)], dim=1)  # every pair from both of its edges
        order = first.argsort(stable=True)
        pairs = _padded(first[order], len(vec), first[order], second[order], len(vec))  # [2, E, M]
        parts = zip(pairs.split(EDGES_AT_ONCE, dim=1), vec.split(EDGES_AT_ONCE), strict=True)
        angular = torch.cat([self._slopes_of_pairs(*self._with_dummy(vec), *part) for part in parts])
        return torch.cat([radial, angular[:, self.column]], dim=1)

    def scaled(self, functions: Tensor) -> Tensor:
        return (functions - self.lowest) / self.spread

    def atom_energies(self, scaled: Tensor) -> Tensor:
        """Energies of atoms in eV [N] from scaled symmetry functions [N, K]."""
        return self.energy_offset + self.network(scaled)[:, 0]

    def set_ranges(self, lowest: Tensor, highest: Tensor) -> None:
        """Ranges [K] of the symmetry functions over the training atoms; one that never changes keeps its scale."""
        spread = highest - lowest
        self.lowest.copy_(lowest)
        self.spread.copy_(torch.where(spread > 0, spread, torch.ones_like(spread)))

    def _radial(self, distance: Tensor) -> Tensor:
        """exp(-eta (r - r_s)^2) f(r) of distances inside the cutoff [E, R]."""
        return torch.exp(-self.eta * (distance[:, None] - self.shift) ** 2) * self._smooth(distance)[:, None]

    def _smooth(self, distance: Tensor) -> Tensor:
        return 0.5 * torch.cos(math.pi / self.cutoff * distance) + 0.5

    def _terms(self, u: Tensor, w: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Factors of G3 by (lambda, zeta) [n, A, m] and by eta [n, B, m], of pairs of neighbours [n, m].

        u, w: squared lengths of the two vectors; p: their scalar product.
        """
        cosine = p * torch.rsqrt(u * w)
        powers = {lam: _Powers(1.0 + lam * cosine) for lam in {lam for lam, _ in self.shapes}}
        shape = torch.stack([powers[lam][zeta] * 2.0 ** (1 - zeta) for lam, zeta in self.shapes], dim=1)
        smooth = self._smooth(u.sqrt()) * self._smooth(w.sqrt()) * self._smooth((u + w - 2.0 * p).sqrt())
        squares = 2.0 * (u + w - p)  # of the triangle's three sides
        return shape, torch.stack([torch.exp(-eta * squares) * smooth for eta in self.widths], dim=1)

    def _term_slopes(self, u: Tensor, w: Tensor, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """d shape / dp [n, A, m], u and w fixed; ds/du and ds/dp [n, m] of s = f f f, the smooth part of the widths."""
        norm = torch.rsqrt(u * w)
        powers = {lam: _Powers(1.0 + lam * p * norm) for lam in {lam for lam, _ in self.shapes}}
        turn = [powers[lam][zeta - 1] * (norm * (lam * zeta * 2.0 ** (1 - zeta))) for lam, zeta in self.shapes]
        r, apart = u.sqrt(), (u + w - 2.0 * p).sqrt()
        f, f_b, f_apart = self._smooth(r), self._smooth(w.sqrt()), self._smooth(apart)
        by_square, by_apart = self._smooth_slope(r), self._smooth_slope(apart)
        smooth_u = f_b * (by_square * f_apart + f * by_apart)
        return torch.stack(turn, dim=1), smooth_u, -2.0 * f_b * f * by_apart

    def _smooth_slope(self, distance: Tensor) -> Tensor:
        """df / d(r^2)."""
        return -0.25 * math.pi / self.cutoff * torch.sin(math.pi / self.cutoff * distance) / distance

    def _pairs(self, vec: Tensor, receiver: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
        """Pairs of edges into one atom whose senders are closer than the cutoff: first and second edge [T] each."""
        ends = torch.bincount(receiver, minlength=n_atoms).cumsum(0)
        edge = torch.arange(len(receiver), device=receiver.device)
        later = ends[receiver] - edge - 1  # edges of the same atom after this one  [E]
        first = torch.repeat_interleave(edge, later)
        start = later.cumsum(0) - later
        second = torch.arange(len(first), device=receiver.device) - start[first] + first + 1
        apart = (vec.detach()[first] - vec.detach()[second]).square().sum(-1)
        inside = (apart < self.cutoff**2).nonzero()[:, 0]
        return first[inside], second[inside]

    def _with_dummy(self, vec: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [E + 2, 3] and their squares [E + 2] with two more that end at the cutoff, where f is zero."""
        dummies = self.cutoff * torch.eye(3, dtype=vec.dtype, device=vec.device)[:2]
        vectors = torch.cat([vec, dummies])
        return vectors, vectors.square().sum(-1)

    def _sum_of_pairs(self, vectors: Tensor, squares: Tensor, pairs: Tensor, again: bool) -> Tensor:
        """G3 of atoms with the pairs of edges [2, n, T], all factors combined [n, A, B].

        again: forget the terms and compute them again for the gradient, so that memory stays bounded.
        """

        def total(vectors, squares):
            p = (vectors[pairs[0]] * vectors[pairs[1]]).sum(-1)  # [n, T]
            shape, width = self._terms(squares[pairs[0]], squares[pairs[1]], p)
            return shape @ width.mT

        return checkpoint(total, vectors, squares, use_reentrant=False) if again else total(vectors, squares)

    def _slopes_of_pairs(self, vectors: Tensor, squares: Tensor, pairs: Tensor, vec: Tensor) -> Tensor:
        """dG3/da of edges a, vec [n, 3], with their pairs [2, n, M]; all factors combined [n, A B, 3]."""
        b = vectors[pairs[1]]  # [n, M, 3]
        u, w, p = squares[pairs[0]], squares[pairs[1]], (vectors[pairs[0]] * b).sum(-1)  # [n, M]
        shape, width = self._terms(u, w, p)  # [n, A, M], [n, B, M]
        turn, smooth_u, smooth_p = self._term_slopes(u, w, p)
        shape_u, shape_p = turn * (-0.5 * p / u)[:, None], turn
        rate = 2.0 * torch.tensor(self.widths, dtype=u.dtype)[:, None]  # -d ln exp(-2 eta (u + w - p)) / du  [B, 1]
        bell = torch.exp(-rate * (u + w - p)[:, None])
        width_u, width_p = bell * smooth_u[:, None] - rate * width, bell * smooth_p[:, None] + rate * width
        by_u = shape_u @ width.mT + shape @ width_u.mT  # [n, A, B]
        along = [shape_p @ (width * x[:, None]).mT + shape @ (width_p * x[:, None]).mT for x in b.unbind(-1)]
        return (2 * by_u[..., None] * vec[:, None, None] + torch.stack(along, dim=-1)).flatten(1, 2)


class _Powers(dict):
    """Whole powers of a tensor by repeated squaring, each computed once: `pow` costs as much as ten products."""

    def __init__(self, base: Tensor):
        super().__init__({0: torch.ones_like(base), 1: base})

    def __missing__(self, n: int) -> Tensor:
        self[n] = self[n // 2] * self[n // 2] if n % 2 == 0 else self[n - 1] * self[1]
        return self[n]


def _padded(group: Tensor, n_groups: int, first: Tensor, second: Tensor, dummy: int) -> Tensor:
    """Pairs as a rectangle [2, n_groups, most]: group is sorted [T]; gaps hold the edges dummy, dummy + 1."""
    counts = torch.bincount(group, minlength=n_groups)
    slot = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group]
    pairs = group.new_full((2, n_groups, int(counts.max())), dummy)
    pairs[1] += 1
    pairs[:, group, slot] = torch.stack([first, second])
    return pairs


def read_n2p2(folder: Path | str) -> Nnp:
    """The potential in n2p2's files input.nn, scaling.data and weights.*.data, in hartree and bohr there.

    n2p2 sorts its functions (radial first; by eta and shift; by eta, zeta and lambda): scaling and weights are in that
    order. Raises DataError for files this model cannot represent.
    """
    folder = Path(folder)
    settings, functions = _read_settings(folder / "input.nn")
    radial = sorted((float(f[3]), float(f[4])) for f in functions if f[1] == "2")
    angular = sorted((float(f[4]), float(f[6]), int(f[5])) for f in functions if f[1] == "3")
    cutoffs = {float(f[-1]) for f in functions}
    if len(cutoffs) != 1 or len(radial) + len(angular) != len(functions) or settings["cutoff_type"] != ["1"]:
        raise DataError(f"{folder}: only G2 and G3 of one cosine cutoff are known.")
    symbol, energy = settings["atom_energy"]
    model = Nnp(
        cutoffs.pop() * Bohr,
        [(eta / Bohr**2, shift * Bohr) for eta, shift in radial],
        [(eta / Bohr**2, lam, int(zeta)) for eta, zeta, lam in angular],
        tuple(int(nodes) for nodes in settings["global_nodes_short"]),
        float(energy) * Hartree,
        atomic_numbers[symbol],
    )
    scaling = _numbers(folder / "scaling.data")
    model.set_ranges(*torch.tensor([row[2:4] for row in scaling], dtype=torch.float64).T)
    (weights,) = sorted(folder.glob("weights.*.data"))
    _set_weights(model, [(row[0], row[1]) for row in _lines(weights)])
    return model


def _set_weights(model: Nnp, rows: list[tuple[str, str]]) -> None:
    """Weights "a" by layer, sender, receiver, then the receiver's biases "b", as n2p2 numbers them; in hartree."""
    values = {kind: torch.tensor([float(v) for v, k in rows if k == kind], dtype=torch.float64) for kind in "ab"}
    layers = [layer for layer in model.network if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for layer in layers:
            inputs, outputs = layer.in_features, layer.out_features
            layer.weight.copy_(values["a"][: inputs * outputs].reshape(inputs, outputs).T)
            layer.bias.copy_(values["b"][:outputs])
            values = {"a": values["a"][inputs * outputs :], "b": values["b"][outputs:]}
        layers[-1].weight.mul_(Hartree)
        layers[-1].bias.mul_(Hartree)
    if len(values["a"]) or len(values["b"]):
        raise DataError("More weights than the network of input.nn has.")


def _read_settings(path: Path) -> tuple[dict[str, list[str]], list[list[str]]]:
    """Settings by keyword, and the words of each symmetry function."""
    settings, functions = {}, []
    for keyword, *words in _lines(path):
        if keyword == "symfunction_short":
            functions.append(words)
        else:
            settings[keyword] = words
    return settings, functions


def _lines(path: Path) -> list[list[str]]:
    """Words of every line that has any, comments left out."""
    return [words for line in path.read_text().splitlines() if (words := re.sub("#.*", "", line).split())]


def _numbers(path: Path) -> list[list[float]]:
    return [[float(word) for word in words] for words in _lines(path)]
