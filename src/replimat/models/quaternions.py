"""Polynomials of unit quaternions, the points of the 3-sphere: monomials, harmonics and exact means over rotations.

A harmonic of degree n is an element of the Wigner matrix of spin n / 2; "spins" here are the doubled ones, n. Products
of two quaternions' harmonics add up to the character chi(q, p) = sin((n + 1) w) / sin w, cos w = q . p.
"""

import functools
import itertools
import math

import numpy as np
import torch
from torch import Tensor


def raised(q: Tensor, lower: Tensor) -> Tensor:
    """Monomials of the next degree in q [4, X], from those of one degree [M, X].

    Ordered by the leading variable, then as the lower ones are: those without the first variables are the last.
    """
    return torch.cat([q[a] * lower[len(lower) - count :] for a, count in enumerate(_tails(len(lower)))])


def _tails(size: int) -> list[int]:
    """Of all monomials of one degree in four variables (`size`), how many use only the last 4, 3, 2, 1 of them."""
    degree = next(d for d in itertools.count() if math.comb(d + 3, 3) >= size)
    return [math.comb(degree + 3 - a, 3 - a) for a in range(4)]


def exponents(degree: int) -> np.ndarray:
    """Of every monomial of a degree, in the order of `raised` [M, 4]."""
    found = np.zeros((1, 4), dtype=int)
    for _ in range(degree):
        tails = _tails(len(found))
        found = np.concatenate([found[len(found) - count :] + np.eye(4, dtype=int)[a] for a, count in enumerate(tails)])
    return found


def differentiated(polynomials: Tensor, degree: int) -> Tensor:
    """Gradients of polynomials [A, M, .] as polynomials of one degree less [A, M 4, .]."""
    column, factor = _derivative(degree)
    return (polynomials[..., column] * factor).flatten(1, 2)


@functools.lru_cache
def _derivative(degree: int) -> tuple[Tensor, Tensor]:
    """For each variable and monomial of one degree less: the monomial of `degree` it comes from, and the exponent."""
    above, below = exponents(degree), exponents(degree - 1)
    where = {tuple(powers): row for row, powers in enumerate(above.tolist())}
    column = [[where[tuple(powers)] for powers in (below + np.eye(4, dtype=int)[a]).tolist()] for a in range(4)]
    return torch.tensor(column), torch.from_numpy(below.T + 1.0)


def harmonic_transform(degree: int) -> tuple[Tensor, list[int]]:
    """Monomials of a degree [., M] @ transform [M, M] = harmonics of spins degree, degree - 2 .. (doubled), in blocks
    h_j of (spin + 1)^2 columns with h_j(q) . h_j(p) = chi_j(q, p) for unit quaternions.

    With monomials scaled by the square roots of their multinomial coefficients rotations are orthogonal, and the
    spins are the eigenspaces of R R^T, R being multiplication by q . q from two degrees below.
    """
    above, below = exponents(degree), exponents(max(degree - 2, 0))
    scale, lower = (np.sqrt([_multinomial(powers) for powers in each]) for each in (above, below))
    where = {tuple(powers): row for row, powers in enumerate(above.tolist())}
    square = np.zeros((len(above), len(below)))
    for column, powers in enumerate(below if degree >= 2 else []):
        for a in range(4):
            row = where[tuple((powers + 2 * np.eye(4, dtype=int)[a]).tolist())]
            square[row, column] = lower[column] / scale[row]
    _, vectors = np.linalg.eigh(square @ square.T)  # the highest spin has the smallest eigenvalue, 0
    spins, start = list(range(degree, -1, -2)), 0
    for spin in spins:
        block = slice(start, start + (spin + 1) ** 2)
        vectors[:, block] *= math.sqrt(spin + 1) / np.linalg.norm(vectors[0, block])  # chi_j(1, 1) = 2j + 1
        start = block.stop
    return torch.from_numpy(vectors * scale[:, None]), spins


def _multinomial(powers: np.ndarray) -> int:
    return math.factorial(int(powers.sum())) // math.prod(math.factorial(int(power)) for power in powers)


def group_quadrature(highest: int) -> tuple[Tensor, Tensor]:
    """Unit quaternions [4, G] and weights [G] that give the mean over rotations of spins up to `highest` exactly.

    Euler angles: evenly spaced about the axis before and after, Gauss-Legendre in the cosine between.
    """
    cosines, weights = np.polynomial.legendre.leggauss(highest // 2 + 1)
    turns = 2 * np.pi * np.arange(highest + 1) / (highest + 1)
    alpha, beta, gamma = (x.ravel() for x in np.meshgrid(turns, np.arccos(cosines), turns, indexing="ij"))
    plus, minus = (alpha + gamma) / 2, (alpha - gamma) / 2
    upper, under = np.cos(beta / 2), np.sin(beta / 2)
    quaternions = np.stack([upper * np.cos(plus), upper * np.sin(plus), under * np.cos(minus), under * np.sin(minus)])
    return torch.from_numpy(quaternions), torch.from_numpy(
        np.tile(np.repeat(weights, len(turns)), len(turns)) / (2 * len(turns) ** 2)
    )
