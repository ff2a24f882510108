"""Contractions of products of symmetric tensors to scalars, as moment tensor potentials need them (models/mtp.py).

A contraction is a multigraph: its vertices are moments, its edges are contracted pairs of indices, nu is a vertex's
degree. No edge joins a vertex with itself, because the trace of M_{mu,nu} is M_{mu,nu-2}. Connected multigraphs are
enumerated up to isomorphism; all others are products of them. Symmetric tensors keep one component per number of x,
y, z.

"""

from functools import cache
from itertools import combinations, combinations_with_replacement, permutations, product
from math import comb, factorial, prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

FACTORS = 4  # moments in a basis function: a potential of up to five bodies
_FACTORIALS = np.array([factorial(n) for n in range(20)], dtype=float)


class Contraction(NamedTuple):
    """A multigraph: mu of each vertex; edges between vertices i < j, in the order of combinations(); indices of each
    vertex that stay open (none in a scalar).
    """

    mu: tuple[int, ...]
    edges: tuple[int, ...]
    open: tuple[int, ...]


class Plan:
    """How to evaluate contractions: a list of products of components, in layers that need earlier layers only.

    share: nodes that several contractions need are evaluated once; otherwise every contraction has its own.
    Called with moments [A, N] it returns the basis functions [K - 1, N] and the connected contractions [C, N].
    """

    def __init__(self, connected: tuple[Contraction, ...], products: tuple[tuple[int, ...], ...], share: bool):
        self.share, self.cache = share, {}
        self.nodes: list[tuple] = []  # depth, components, owner, then (mu, nu) of a leaf or the terms of a product
        roots = [self._node(c, k) for k, c in enumerate(connected)]
        known = {(k,): root for k, root in enumerate(roots)}
        for p in products:
            known.setdefault(p, None)
            if known[p] is None:  # products are sorted by their number of factors: both halves are known
                known[p] = self._times(known[p[: len(p) // 2]], known[p[len(p) // 2 :]])
        order = sorted(range(len(self.nodes)), key=lambda n: self.nodes[n][0])
        first = dict(zip(order, np.cumsum([0] + [self.nodes[n][1] for n in order])[:-1], strict=True))
        self.leaves = [self.nodes[n] for n in order if self.nodes[n][0] == 0]
        self.leaf_mu, self.leaf_nu = zip(*[leaf[3] for leaf in self.leaves], strict=True)
        self.layers = [self._layer([n for n in order if self.nodes[n][0] == d], first) for d in range(1, self._depth())]
        self.roots = torch.tensor([first[n] for n in roots])
        self.scalars = torch.tensor([first[known[p]] for p in products], dtype=torch.long)

    def __call__(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        x = moments
        for size, left, right, target, times in self.layers:
            terms = x.index_select(0, left) * x.index_select(0, right) * times.to(x.dtype)
            x = torch.cat([x, x.new_zeros(size, x.shape[1]).index_add(0, target, terms)])
        return x.index_select(0, self.scalars), x.index_select(0, self.roots)

    def leaf_components(self, monomials: int) -> list[int]:
        """mu * monomials + monomial of every component of the leaves, in their order."""
        return [
            mu * monomials + comb(nu + 2, 3) + k
            for mu, nu in zip(self.leaf_mu, self.leaf_nu, strict=True)
            for k in range(comb(nu + 2, 2))
        ]

    def leaf_owners(self) -> list[int]:
        """The contraction that each component of the leaves belongs to, where they are not shared."""
        return [leaf[2] for leaf in self.leaves for _ in range(leaf[1])]

    def _depth(self) -> int:
        return 1 + max(node[0] for node in self.nodes)

    def _node(self, c: Contraction, owner: int) -> int:
        """Index of the node of a canonical contraction, made with all that it needs."""
        key = c if self.share else (c, owner)
        if key not in self.cache:
            if len(c.mu) == 1:
                made = (0, comb(c.open[0] + 2, 2), owner, (c.mu[0], c.open[0]))
            else:
                made = self._contract(c, owner)
            self.nodes.append(made)
            self.cache[key] = len(self.nodes) - 1
        return self.cache[key]

    def _contract(self, c: Contraction, owner: int) -> tuple:
        one, two = _best_split(c)
        (left, left_order), (right, right_order) = _canonical(_part(c, one)), _canonical(_part(c, two))
        a, b = self._node(left, owner), self._node(right, owner)
        ordered = [one[k] for k in left_order], [two[k] for k in right_order]
        left_rows, right_rows, rows, times = _terms(c, *ordered)
        if a == b:  # terms that differ by the order of two equal factors are one
            left_rows, right_rows = np.minimum(left_rows, right_rows), np.maximum(left_rows, right_rows)
        keys, place = np.unique(np.stack([rows, left_rows, right_rows]), axis=1, return_inverse=True)
        summed = np.bincount(place.ravel(), weights=times)
        size = prod(comb(o + 2, 2) for o in c.open)
        return (1 + max(self.nodes[a][0], self.nodes[b][0]), size, owner, (a, b, keys, summed))

    def _times(self, a: int, b: int) -> int:
        self.nodes.append((1 + max(self.nodes[a][0], self.nodes[b][0]), 1, -1, (a, b, np.zeros((3, 1), int), [1.0])))
        return len(self.nodes) - 1

    def _layer(self, nodes: list[int], first: dict[int, int]) -> tuple:
        base = first[nodes[0]]
        columns = [[], [], []]
        for n in nodes:
            a, b, (rows, left, right), _ = self.nodes[n][3]
            for column, values in zip(
                columns, (first[a] + left, first[b] + right, first[n] - base + rows), strict=True
            ):
                column.append(values)
        left, right, target = (torch.from_numpy(np.concatenate(column)).long() for column in columns)
        times = torch.from_numpy(np.concatenate([self.nodes[n][3][3] for n in nodes]))[:, None]
        return sum(self.nodes[n][1] for n in nodes), left, right, target, times


def connected_contractions(level: int) -> tuple[Contraction, ...]:
    """All connected multigraphs without loops up to the level, sorted by it, one of each class of isomorphic ones."""
    found = {Contraction((mu,), (), (0,)): 2 + 4 * mu for mu in range((level - 2) // 4 + 1)}
    for vertices in range(2, FACTORS + 1):
        pairs = comb(vertices, 2)
        for total in range(vertices - 1, level // 2 - vertices + 1):
            for chosen in combinations_with_replacement(range(pairs), total):
                edges = tuple(chosen.count(p) for p in range(pairs))
                if not _is_connected(vertices, edges):
                    continue
                spare = (level - 2 * vertices - 2 * total) // 4
                for mu in product(range(spare + 1), repeat=vertices):
                    if sum(mu) <= spare and list(mu) == sorted(mu):
                        one, _ = _canonical(Contraction(mu, edges, (0,) * vertices))
                        found[one] = 2 * vertices + 2 * total + 4 * sum(mu)
    return tuple(sorted(found, key=lambda c: (found[c], c)))


def products(connected: tuple[Contraction, ...], level: int) -> tuple[tuple[int, ...], ...]:
    """All multisets of connected contractions up to the level, those with fewer factors first."""
    sizes = [len(c.mu) for c in connected]
    levels = [sum(2 + 4 * mu for mu in c.mu) + 2 * sum(c.edges) for c in connected]
    found, grown = [], [((k,), own) for k, own in enumerate(levels)]
    while grown:
        found += [p for p, _ in grown]
        grown = [
            ((*p, k), total + levels[k])
            for p, total in grown
            for k in range(p[-1], len(levels))
            if total + levels[k] <= level and sum(sizes[s] for s in p) + sizes[k] <= FACTORS
        ]
    return tuple(found)


def exponents(nu: int) -> list[tuple[int, int, int]]:
    """Numbers of x, y, z of the components of a symmetric tensor of rank nu; the k-th is found by _row."""
    return [(nu - rest, rest - c, c) for rest in range(nu + 1) for c in range(rest + 1)]


def _row(counts: np.ndarray) -> np.ndarray:
    """Places in exponents() of rows of numbers of x, y, z [*, 3]."""
    rest = counts[:, 1] + counts[:, 2]
    return rest * (rest + 1) // 2 + counts[:, 2]


def _matrix(c: Contraction) -> np.ndarray:
    matrix = np.zeros((len(c.mu), len(c.mu)), int)
    for (i, j), count in zip(combinations(range(len(c.mu)), 2), c.edges, strict=True):
        matrix[i, j] = matrix[j, i] = count
    return matrix


def _is_connected(vertices: int, edges: tuple[int, ...]) -> bool:
    reached, joined = {0}, [pair for pair, n in zip(combinations(range(vertices), 2), edges, strict=True) if n]
    for _ in range(vertices):
        reached |= {v for pair in joined if reached & set(pair) for v in pair}
    return len(reached) == vertices


@cache
def _canonical(c: Contraction) -> tuple[Contraction, tuple[int, ...]]:
    """The first of all isomorphic multigraphs, and the order in which it takes the vertices of this one."""
    matrix = _matrix(c)
    return min((_ordered(c, matrix, order), order) for order in permutations(range(len(c.mu))))


def _ordered(c: Contraction, matrix: np.ndarray, order) -> Contraction:
    edges = tuple(int(matrix[i, j]) for i, j in combinations(order, 2))
    return Contraction(tuple(c.mu[v] for v in order), edges, tuple(c.open[v] for v in order))


def _part(c: Contraction, vertices: tuple[int, ...]) -> Contraction:
    """The multigraph of some vertices, whose edges to the others become open indices."""
    matrix = _matrix(c)
    others = [v for v in range(len(c.mu)) if v not in vertices]
    part = _ordered(c, matrix, vertices)
    return part._replace(open=tuple(c.open[v] + int(matrix[v, others].sum()) for v in vertices))


@cache
def _cost(c: Contraction) -> int:
    """Products of components needed for a contraction, all its parts counted."""
    if len(c.mu) == 1:
        return 0
    return min(_split_cost(c, one, two) for one, two in _splits(c))


def _best_split(c: Contraction) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return min(_splits(c), key=lambda split: _split_cost(c, *split))


def _splits(c: Contraction):
    """All ways to cut the vertices in two."""
    everything = range(len(c.mu))
    for size in range(1, len(c.mu)):
        for one in combinations(everything, size):
            if 0 in one:
                yield one, tuple(v for v in everything if v not in one)


def _split_cost(c: Contraction, one: tuple[int, ...], two: tuple[int, ...]) -> int:
    matrix = _matrix(c)
    here = prod(comb(int(matrix[i, j]) + 2, 2) for i in one for j in two) * prod(comb(o + 2, 2) for o in c.open)
    return here + _cost(_canonical(_part(c, one))[0]) + _cost(_canonical(_part(c, two))[0])


def _terms(c: Contraction, one: list[int], two: list[int]) -> tuple[np.ndarray, ...]:
    """Every product of a component of one part with one of the other: their rows, the row it adds to, how many times.

    The indices between two vertices are summed over numbers of x, y, z, each as often as it can be ordered.
    """
    matrix = _matrix(c)
    bundles = [(i, j) for i in one for j in two if matrix[i, j]]
    ranks = [matrix[i, j] for i, j in bundles] + list(c.open)
    choices = [np.array(exponents(rank)) for rank in ranks]
    grid = [g.ravel() for g in np.indices([len(choice) for choice in choices])]
    counts = [choice[g] for choice, g in zip(choices, grid, strict=True)]  # [terms, 3] each
    times = np.ones(len(grid[0]))
    for (i, j), at in zip(bundles, counts, strict=False):
        times *= factorial(matrix[i, j]) / _FACTORIALS[at].prod(axis=1)
    opened = counts[len(bundles) :]
    ends = list(opened)
    for (i, j), at in zip(bundles, counts, strict=False):
        ends[i], ends[j] = ends[i] + at, ends[j] + at
    return _flat(ends, one), _flat(ends, two), _flat(opened, range(len(c.mu))), times


def _flat(counts: list[np.ndarray], vertices) -> np.ndarray:
    """Row of a component of a tensor that is symmetric in the indices of each vertex."""
    row = np.zeros(len(counts[0]), int)
    for v in vertices:
        row = row * comb(int(counts[v][0].sum()) + 2, 2) + _row(counts[v])
    return row
