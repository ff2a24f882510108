"""Moment tensor potentials (Shapeev, Multiscale Model. Simul. 14, 1153 (2016), doi:10.1137/15M1054183; Novikov et al.,
Mach. Learn.: Sci. Technol. 2, 025002 (2021), doi:10.1088/2632-2153/abc9fe), for one element.

    M_{mu,nu}(i) = sum_j f_mu(r_ij) u_ij (x) ... (x) u_ij   (nu times; u = r / |r|)
    f_mu(r) = sum_beta c_{mu,beta} T_beta(xi(r)) (r_cut - r)^2,    xi from -1 at min_dist to 1 at r_cut
    E = sum_i ( e_0 + sum_alpha xi_alpha B_alpha(i) ),    B_alpha: contractions of products of moments to a scalar

lev M_{mu,nu} = 2 + 4 mu + nu. Every B_alpha of up to four moments is used whose moments' levels add up to at most
`level`. The limit of four is inferred: with it there are 9 functions at level 8 and 92 at level 16, as in the template
files of the authors' program (MLIP); without it there are 9 and 116. The moments are made of unit vectors, as in MLIP;
the papers write r (x) ... (x) r, which moves a power of the distance between f_mu and the tensor.

Differs from MLIP: its common factor `scaling` of the radial functions is put into the coefficients here.
"""

import re
from collections import Counter
from functools import cache
from math import comb

import numpy as np
import torch
from torch import Tensor, nn

from replimat.models.contractions import Contraction, Plan, connected_contractions, exponents, products

LEVELS = range(2, 22, 2)  # those whose files can be read; higher ones can be made, slowly
SPREAD = 0.1  # random part of the radial functions that a fit starts from, relative to their leading term


class Mtp(nn.Module):
    """Energies [B] in eV of crystals of one element.

    cutoff, min_dist: angstrom; level: even, from 2 (the cost doubles with every step of 2); radial_basis: number of
    Chebyshev polynomials per radial function; element: its atomic number, or 0 for any single one.
    Raises ValueError for an odd level, for min_dist beyond the cutoff, and for atoms of another element.
    """

    def __init__(self, cutoff: float, level: int, radial_basis: int = 8, min_dist: float = 2.0, element: int = 0):
        super().__init__()
        if level < 2 or level % 2:
            raise ValueError(f"the level is an even number from 2, got {level}.")
        if not 0 <= min_dist < cutoff:
            raise ValueError(f"min_dist is below the cutoff of {cutoff} angstrom, got {min_dist}.")
        self.cutoff, self.level, self.min_dist, self.element = cutoff, level, min_dist, element
        self.connected, self.products = basis_functions(level)
        self.shared = Plan(self.connected, self.products, share=True)
        self.separate = Plan(self.connected, (), share=False)  # for derivatives of each connected one
        self.rank = max(self.shared.leaf_nu)
        functions = 1 + max(self.shared.leaf_mu)
        self.radial = nn.Parameter(torch.eye(functions, radial_basis, dtype=torch.float64))  # c_{mu,beta}
        self.coefficients = nn.Parameter(torch.zeros(1 + len(self.products), dtype=torch.float64))  # e_0, xi_alpha
        self._tables()

    def start(self, seed: int) -> None:
        """Radial functions to start a fit from: f_mu is T_mu and a little of the others."""
        random = torch.randn(self.radial.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        with torch.no_grad():
            self.radial.copy_(torch.eye(*self.radial.shape) + SPREAD * random)

    def forward(
        self, z: Tensor, pos: Tensor, edge_index: Tensor, batch: Tensor, n_graphs: int, offset: Tensor | None = None
    ) -> Tensor:
        self._check(z)
        vec, _ = self._near(pos, edge_index, offset)
        unit, basis, _ = self._radial_basis(vec)
        f = self.radial @ basis.flatten(1)  # [mu, N * J]
        moments = self._moments(f.view(-1, *vec.shape[:2]), self._monomials(unit))
        atoms = self.coefficients[0] + self.coefficients[1:] @ self.shared(moments)[0]  # [N]
        return atoms.new_zeros(n_graphs).index_add(0, batch, atoms)

    def design(self, inputs: dict) -> dict[str, Tensor]:
        """Energies [B, K] and forces [N, 3, K] of unit coefficients, at the radial functions as they are.

        Of each connected contraction S the derivatives by all moments are needed: one backward pass gives them all,
        because `separate` gives each its own copy of the moments. The rest is matrix products: dB/dr = dB/dS dS/dM
        dM/dr. Radial functions are not differentiated.
        """
        self._check(inputs["z"])
        vec, (j, i, slot) = self._near(inputs["pos"].detach(), inputs["edge_index"], inputs.get("offset"))
        with torch.no_grad():
            unit, basis, slope = self._radial_basis(vec)
            radial = self.radial.detach()
            shape = (-1, *vec.shape[:2])
            f, df = (radial @ basis.flatten(1)).view(shape), (radial @ slope.flatten(1)).view(shape)
            mono = self._monomials(unit)
            moments = self._moments(f, mono)
            dm = self._moment_gradients(vec, unit, f, df, mono)  # [N, A, 3 J]
            scalars, connected = self.shared(moments)  # [K - 1, N], [C, N]
            per_moment = self._connected_gradients(moments)  # [N, C, A]
            per_connected = self._product_gradients(scalars, connected)  # [N, K - 1, C]
            gradient = per_connected @ (per_moment @ dm)  # [N, K - 1, 3 J]
            n, k = len(vec), len(self.coefficients)
            pull = gradient.view(n, k - 1, 3, -1).permute(0, 3, 2, 1)[i, slot]  # [E, 3, K - 1]: dB(i) / d vec
            forces = pull.new_zeros(n, 3, k)
            forces[..., 1:].index_add_(0, i, pull)  # F = -dE/dx; vec = x_j - x_i
            forces[..., 1:].index_add_(0, j, pull, alpha=-1)
            values = torch.cat([torch.ones_like(scalars[:1]), scalars]).T  # [N, K]
            energy = values.new_zeros(inputs["n_graphs"], k).index_add(0, inputs["batch"], values)
        return {"energy": energy, "forces": forces}

    def prior(self) -> None:
        """Nothing holds the coefficients down."""

    def _check(self, z: Tensor) -> None:
        element = self.element or int(z[0])
        if bool((z != element).any()):
            raise ValueError(f"this potential is for one element, Z = {element}, got {sorted(set(z.tolist()))}.")

    def _near(self, pos: Tensor, edge_index: Tensor, offset: Tensor | None):
        """Vectors to neighbours [N, J, 3], rows filled up with vectors as long as the cutoff, which contribute
        nothing; and of every edge the sender, receiver and place in the row.
        """
        j, i = edge_index
        vec = pos[j] - pos[i] if offset is None else pos[j] + offset - pos[i]
        kept = (vec.detach().square().sum(-1) < self.cutoff**2).nonzero()[:, 0]
        j, i, vec = j[kept], i[kept], vec[kept]
        counts = torch.bincount(i, minlength=len(pos))
        width = max(int(counts.max()), 1)
        slot = torch.arange(len(i)) - (counts.cumsum(0) - counts)[i]
        padded = vec.new_tensor([self.cutoff, 0.0, 0.0]).repeat(len(pos) * width, 1)
        return padded.index_copy(0, i * width + slot, vec).view(len(pos), width, 3), (j, i, slot)

    def _radial_basis(self, vec: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Unit vectors [3, N, J], T_beta(xi) (r_cut - r)^2 [beta, N, J] and, without autograd, its slope by r."""
        x = vec.permute(2, 0, 1).contiguous()
        r = x.square().sum(0).sqrt()
        xi = (2 * r - (self.cutoff + self.min_dist)) / (self.cutoff - self.min_dist)
        t = [torch.ones_like(r), xi]
        for _ in range(2, self.radial.shape[1]):
            t.append(2 * xi * t[-1] - t[-2])
        values, gap = torch.stack(t[: self.radial.shape[1]]), self.cutoff - r
        if torch.is_grad_enabled():
            return x / r, values * gap**2, None
        s = [torch.zeros_like(r), torch.ones_like(r)]
        for b in range(2, len(values)):
            s.append(2 * t[b - 1] + 2 * xi * s[-1] - s[-2])
        slopes = torch.stack(s[: len(values)]) * (2 / (self.cutoff - self.min_dist))
        return x / r, values * gap**2, slopes * gap**2 - 2 * values * gap

    def _monomials(self, unit: Tensor) -> Tensor:
        """u_x^a u_y^b u_z^c of all degrees up to the rank, [S, N, J], each from one of a degree less."""
        blocks = [torch.ones_like(unit[:1]), unit]
        for parent, axis in zip(self._parents, self._axes, strict=True):
            blocks.append(blocks[-1].index_select(0, parent) * unit.index_select(0, axis))
        return torch.cat(blocks[: self.rank + 1])

    def _moments(self, f: Tensor, mono: Tensor) -> Tensor:
        """Components of the moments in use [A, N] from f [mu, N, J] and monomials [S, N, J]."""
        found = f.permute(1, 0, 2) @ mono.permute(1, 2, 0)  # [N, mu, S]
        return found.flatten(1).T.index_select(0, self._used)

    def _moment_gradients(self, vec: Tensor, unit: Tensor, f: Tensor, df: Tensor, mono: Tensor) -> Tensor:
        """d M / d vec [N, A, 3 J]: along u the slope of f; across u, (du monomial - nu monomial u) f / r."""
        r = torch.linalg.vector_norm(vec, dim=-1)
        mu, s = self._used // len(mono), self._used % len(mono)
        across = f / r
        slopes = df[:, None] - torch.arange(self.rank + 1)[:, None, None] * across[:, None]  # [mu, nu, N, J]
        along = slopes.flatten(0, 1)[mu * (self.rank + 1) + self._degree[s]].mul_(mono[s])  # [A, N, J]
        across = across[mu]
        n, width = r.shape
        out = vec.new_empty(3, len(mu), n, width)
        for axis in range(3):
            lower = mono[self._lower[axis]] * self._power[axis][:, None, None].to(mono.dtype)  # [S, N, J]
            torch.mul(along, unit[axis], out=out[axis]).addcmul_(across, lower[s])
        return out.permute(2, 1, 0, 3).reshape(n, len(mu), 3 * width)

    def _connected_gradients(self, moments: Tensor) -> Tensor:
        """dS / dM of every connected contraction [N, C, A]."""
        with torch.enable_grad():
            copies = moments.index_select(0, self._copy_of).requires_grad_()
            _, connected = self.separate(copies)
            (gradient,) = torch.autograd.grad(connected.sum(), copies)
        dense = gradient.new_zeros(len(self.connected) * len(moments), moments.shape[1])
        dense[self._copy_for * len(moments) + self._copy_of] = gradient
        return dense.view(len(self.connected), len(moments), -1).permute(2, 0, 1)

    def _product_gradients(self, scalars: Tensor, connected: Tensor) -> Tensor:
        """dB / dS [N, K - 1, C]: n_S times the product that has one S less."""
        dense = scalars.new_zeros(len(self.products) * len(connected), scalars.shape[1])
        everything = torch.cat([scalars, torch.ones_like(scalars[:1])])  # the empty product comes last
        b, s, times, rest = self._factors.unbind(1)
        dense[b * len(connected) + s] = everything[rest] * times[:, None]
        return dense.view(len(self.products), len(connected), -1).permute(2, 0, 1)

    def _tables(self) -> None:
        """Index tables of monomials, of moments in use and of factors of products."""
        powers = [p for nu in range(self.rank + 1) for p in exponents(nu)]
        row = {p: k for k, p in enumerate(powers)}
        self._parents, self._axes = [], []
        for nu in range(2, self.rank + 1):
            axes = [next(a for a in range(3) if p[a]) for p in exponents(nu)]
            below = [_less(p, a) for p, a in zip(exponents(nu), axes, strict=True)]
            self._parents.append(torch.tensor([row[p] - comb(nu + 1, 3) for p in below]))
            self._axes.append(torch.tensor(axes))
        self._degree = torch.tensor([sum(p) for p in powers])
        self._power = torch.tensor(powers, dtype=torch.float64).T.contiguous()  # [3, S]
        self._lower = torch.tensor([[row.get(_less(p, a), 0) for p in powers] for a in range(3)])
        self._used = torch.tensor(self.shared.leaf_components(len(powers)))
        place = {int(u): k for k, u in enumerate(self._used)}
        self._copy_of = torch.tensor([place[u] for u in self.separate.leaf_components(len(powers))])
        self._copy_for = torch.tensor(self.separate.leaf_owners())
        index = {p: k for k, p in enumerate(self.products)} | {(): len(self.products)}
        self._factors = torch.tensor(
            [(index[p], s, n, index[_without(p, s)]) for p in self.products for s, n in Counter(p).items()]
        )


@cache
def basis_functions(level: int) -> tuple[tuple[Contraction, ...], tuple[tuple[int, ...], ...]]:
    """Connected contractions, and the basis functions as tuples of indices of connected ones."""
    connected = connected_contractions(level)
    return connected, products(connected, level)


def _less(powers: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(p - (a == axis) for a, p in enumerate(powers))


def _without(factors: tuple[int, ...], one: int) -> tuple[int, ...]:
    place = factors.index(one)
    return factors[:place] + factors[place + 1 :]


def read_mlip(text: str, element: int = 0) -> Mtp:
    """The potential of a fitted file of MLIP (.mtp, version 1.1.0, one species); element: its atomic number, or 0.

    Which contraction a number of the file belongs to is found by evaluating the file's own table of products, and ours,
    on the same random moments. Raises ValueError for a file that is not fitted, has several species or other
    contractions than a level has.
    """
    fields = dict(re.findall(r"^\s*(\w+) *= *(.*?)\s*$", text, re.M))
    if fields.get("species_count") != "1" or "species_coeffs" not in fields:
        raise ValueError("not a fitted moment tensor potential of one species.")
    basic, times, scalars, xi = (
        _numbers(fields[name])
        for name in ("alpha_index_basic", "alpha_index_times", "alpha_moment_mapping", "moment_coeffs")
    )
    level = next((lev for lev in LEVELS if len(basis_functions(lev)[1]) == len(scalars)), None)
    if level is None:
        raise ValueError(f"no level has {len(scalars)} basis functions.")
    found = Mtp(
        float(fields["max_dist"]), level, int(fields["radial_basis_size"]), float(fields["min_dist"]), element=element
    )
    place = _places(found, basic.reshape(-1, 4).astype(int), times.reshape(-1, 4).astype(int), scalars.astype(int))
    radial = [_numbers(row) for row in re.findall(r"^\s*\{(.*)\}\s*$", text, re.M)]
    with torch.no_grad():
        found.radial.copy_(torch.from_numpy(np.stack(radial)) * float(fields.get("scaling", 1.0)))
        found.coefficients[0] = float(_numbers(fields["species_coeffs"])[0])
        found.coefficients[1 + place] = torch.from_numpy(xi)
    return found


def _numbers(text: str) -> np.ndarray:
    return np.array(re.findall(r"[-+]?\d[\d.]*(?:[eE][-+]?\d+)?", text), dtype=float)


def _places(model: Mtp, basic: np.ndarray, times: np.ndarray, scalars: np.ndarray) -> Tensor:
    """The basis function of ours that each scalar of a file is. Raises ValueError when one is none of ours."""
    monomials = [p for nu in range(model.rank + 1) for p in exponents(nu)]
    ours = {(int(u) // len(monomials), *monomials[int(u) % len(monomials)]): k for k, u in enumerate(model._used)}
    moments = torch.randn(len(ours), 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)  # 4 atoms
    values = torch.zeros(1 + max(basic.shape[0] - 1, times[:, 3].max(initial=0)), 4, dtype=torch.float64)
    values[: len(basic)] = torch.stack([moments[ours[tuple(b)]] for b in basic.tolist()])
    for one, two, factor, target in times.tolist():
        values[target] += factor * values[one] * values[two]
    known = model.shared(moments)[0]
    away = (values[scalars][:, None] - known).abs().amax(dim=-1)  # [scalars, K - 1]
    if bool((away.amin(dim=1) > 1e-9).any()):
        raise ValueError("the file has a contraction that is none of its level.")
    return away.argmin(dim=1)
