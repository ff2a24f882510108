"""Gaussian approximation potential (Bartók, Payne, Kondor, Csányi, PRL 104, 136403 (2010)) on the smooth overlap of
atomic positions (SOAP: Bartók, Kondor, Csányi, PRB 87, 184115 (2013); Bartók and Csányi, IJQC 115, 1051 (2015)).

    E = sum_i [ e0 + delta^2 sum_s alpha_s (q_i . q_s)^zeta ]
    rho_i(x) = sum_j f_c(r_ij) exp(-|x - r_ij|^2 / 2 sigma^2),  the atom itself among the j       (PRB eq. 21)
             = sum_nlm c_nlm g_n(|x|) Y_lm(x)
    q_i = p / |p|,    p_nn'l = sum_m c_nlm c_n'lm / sqrt(2l + 1)                                    (PRB eq. 24, 36)

As in the authors' engine (QUIP) the radial functions are n_max Gaussians of width sigma on an equispaced grid, made
orthonormal; the density's analytic expansion at the grid points gives the coefficients, by interpolation rather than
projection. With the same n_max the descriptors equal QUIP's number by number (tests), so that released sparse points
and weights can be used.

Differs from QUIP: modified Bessel functions of small arguments come from their series, where QUIP's recursion loses
all digits (atoms closer than about 0.3 angstrom); one element only.

The hot path per atom is two products of matrices with the sparse points, 4 F M flops of F = n_max (n_max + 1) / 2
(l_max + 1) features and M points: 1.3 Mflop with 8, 8 and 1000.
"""

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch_geometric.utils import scatter

BASIS_ERROR = 1e-10  # the outermost Gaussian of the grid has this value at the cutoff
SERIES_BELOW = 1.0  # upward recursion of Bessel functions loses (2 l_max - 1)!! / x^(l_max + 1) of its digits
SERIES_TERMS = 10  # of the power series, exact to 1e-16 below SERIES_BELOW
CHUNK_BYTES = 1 << 26  # of the derivatives that are held at once while a design matrix is made
DUPLICATE = 1e-9  # descriptors closer than this along a random direction are one environment


class Soap(nn.Module):
    """Normalised power spectrum [N, F] of the neighbours of each atom.

    cutoff and transition (width over which neighbours fade out): angstrom; sigma: width of an atom, angstrom.
    Features run over pairs n >= n', then l.
    """

    def __init__(self, cutoff: float, n_max: int, l_max: int, sigma: float, transition: float):
        super().__init__()
        if not 0 < transition <= cutoff:
            raise ValueError(f"transition lies between 0 and the cutoff, got {transition} and {cutoff}.")
        self.cutoff, self.transition, self.l_max, self.alpha = cutoff, transition, l_max, 0.5 / sigma**2
        reach = cutoff + sigma * math.sqrt(-2 * math.log(BASIS_ERROR))
        grid = torch.arange(n_max, dtype=torch.float64) * reach / n_max
        first, second = torch.tril_indices(n_max, n_max)
        self.features = len(first) * (l_max + 1)
        twice = 2.0 - (first == second).double()[:, None]  # a pair stands for n n' and n' n  [pairs, 1]
        scale = torch.sqrt(twice / (2.0 * torch.arange(l_max + 1, dtype=torch.float64) + 1))  # [pairs, L]
        self.register_buffer("grid", grid, persistent=False)
        self.register_buffer("orthonormal", _orthonormal(grid, self.alpha), persistent=False)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("first", first, persistent=False)
        self.register_buffer("second", second, persistent=False)

    def forward(self, vec: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised power spectrum [N, F] and its length before normalisation [N].

        vec: to the neighbours of each atom, angstrom [N, K, 3]; places beyond the cutoff are empty.
        """
        return self.spectrum(self.coefficients(*self.expansion(vec)))

    def expansion(self, vec: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of every neighbour and l: radial values at the grid points [N, G, K] and harmonics [N, 2l+1, K]."""
        x, y, z, r = _polar(vec)
        return _by_atom(self._radial(r), vec), _by_atom(harmonics(x, y, z, self.l_max), vec)

    def coefficients(self, radial: list[Tensor], angular: list[Tensor]) -> list[Tensor]:
        """c_nlm of the density, for each l [N, n, 2l+1]."""
        c = [torch.bmm(g, h.transpose(1, 2)) for g, h in zip(radial, angular, strict=True)]
        itself = torch.exp(-self.alpha * self.grid**2)[:, None] / math.sqrt(4 * math.pi)
        return [self.orthonormal @ part for part in [c[0] + itself, *c[1:]]]

    def spectrum(self, c: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Normalised power spectrum [N, F] and its length before normalisation [N]."""
        products = torch.stack([part @ part.transpose(1, 2) for part in c], dim=-1)  # [N, n, n, L]
        p = (products[:, self.first, self.second] * self.scale).flatten(1)  # [N, F]
        length = torch.linalg.vector_norm(p, dim=1)
        return p / length[:, None], length

    def gradient(self, vec: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised power spectrum [N, F], and its derivatives by every neighbour's place [N, K, 3, F]."""
        n, k = vec.shape[:2]
        x, y, z, r = _polar(vec)
        radial, angular = _by_atom(self._radial(r), vec), _by_atom(harmonics(x, y, z, self.l_max), vec)
        c = self.coefficients(radial, angular)
        q, length = self.spectrum(c)
        g, dg = (self._orthonormalised(part) for part in (radial, _by_atom(self._radial_slopes(r), vec)))
        outward = self._pairs(dg, self._projected(c, angular))  # along the bond  [N, pairs, L, K]
        dp = vec.new_empty(n, k, 3, self.features)
        slopes = harmonics_slopes(x, y, z, self.l_max)
        for axis, unit in enumerate((x, y, z)):
            sideways = _by_atom([part[axis] / r for part in slopes], vec)
            slope = outward * unit.view(n, 1, 1, k) + self._pairs(g, self._projected(c, sideways))
            dp[:, :, axis] = (slope * self.scale[..., None]).view(n, self.features, k).transpose(1, 2)
        along = dp.view(n, 3 * k, -1) @ q[:, :, None]  # change of length  [N, 3 K, 1]
        dp.view(n, 3 * k, -1).sub_(along * q[:, None])
        return q, dp.div_(length[:, None, None, None])

    def _orthonormalised(self, radial: list[Tensor]) -> Tensor:
        return torch.stack([self.orthonormal @ part for part in radial], dim=2)  # [N, n, L, K]

    def _projected(self, c: list[Tensor], angular: list[Tensor]) -> Tensor:
        """sum_m c_nlm Y_lm of every neighbour [N, n, L, K]."""
        return torch.stack([a @ b for a, b in zip(c, angular, strict=True)], dim=2)

    def _pairs(self, a: Tensor, b: Tensor) -> Tensor:
        """a_n b_n' + a_n' b_n of [N, n, L, K] over the pairs: [N, pairs, L, K]."""
        return a[:, self.first] * b[:, self.second] + a[:, self.second] * b[:, self.first]

    def _radial(self, r: Tensor) -> list[Tensor]:
        """f_c(r) exp(-alpha (r^2 + g^2)) i_l(2 alpha r g) at the grid points g, for each l [G, E]."""
        grid = self.grid[:, None]
        decay = torch.exp(-self.alpha * (r - grid) ** 2) * self._envelope(r)  # [G, E]
        return [decay * part for part in scaled_bessel(2 * self.alpha * r * grid, self.l_max)]

    def _radial_slopes(self, r: Tensor) -> list[Tensor]:
        """Derivatives of `_radial` by r, with (2l+1) i_l' = l i_(l-1) + (l+1) i_(l+1)."""
        grid = self.grid[:, None]
        decay = torch.exp(-self.alpha * (r - grid) ** 2)  # [G, E]
        envelope = self._envelope(r)
        share = ((r - self.cutoff) / self.transition + 1).clamp(0, 1)
        fading = -0.5 * math.pi / self.transition * torch.sin(math.pi * share)
        both = decay * (
            fading - 2 * self.alpha * r * envelope
        )  # of f_c exp(-alpha (r^2 + g^2)), times exp(2 alpha r g)
        inner = decay * envelope * 2 * self.alpha * grid
        i = scaled_bessel(2 * self.alpha * r * grid, self.l_max + 1)
        slopes = [both * i[0] + inner * i[1]]
        for order in range(1, self.l_max + 1):
            slope = (order * i[order - 1] + (order + 1) * i[order + 1]) / (2 * order + 1)
            slopes.append(both * i[order] + inner * slope)
        return slopes

    def _envelope(self, r: Tensor) -> Tensor:
        """1 up to cutoff - transition, then half a cosine to 0 at the cutoff."""
        share = ((r - self.cutoff) / self.transition + 1).clamp(0, 1)
        return 0.5 * (torch.cos(math.pi * share) + 1)


class Gap(nn.Module):
    """Sparse Gaussian process on SOAP, of one element: energies [B] in eV, with e0 for every atom.

    number: atomic number; cutoff, sigma, transition: angstrom; n_sparse: environments M that the energy is compared to;
    zeta: integer power of the kernel; delta: eV, scale of the atomic energy; e0: eV per atom; jitter: added to the
    diagonal of the kernel of the sparse points.
    Before it answers it needs its sparse points (`choose_sparse`, or a state) and coefficients [M] in eV over delta^2.

    Inputs as in SchNet; raises ValueError for an atom of another element.
    """

    def __init__(
        self,
        number: int,
        cutoff: float,
        n_sparse: int,
        n_max: int = 8,
        l_max: int = 8,
        sigma: float = 0.5,
        zeta: int = 4,
        delta: float = 1.0,
        e0: float = 0.0,
        transition: float = 0.5,
        jitter: float = 1e-8,
    ):
        super().__init__()
        if zeta < 1 or zeta != int(zeta):
            raise ValueError(f"zeta is a positive integer, got {zeta}.")
        self.number, self.cutoff, self.zeta, self.delta, self.e0 = number, cutoff, int(zeta), delta, e0
        self.jitter = jitter
        self.soap = Soap(cutoff, n_max, l_max, sigma, transition)
        self.register_buffer("sparse", torch.zeros(n_sparse, self.soap.features, dtype=torch.float64))  # [M, F]
        self.coefficients = nn.Parameter(torch.zeros(n_sparse, dtype=torch.float64))  # [M]

    def forward(
        self, z: Tensor, pos: Tensor, edge_index: Tensor, batch: Tensor, n_graphs: int, offset: Tensor | None = None
    ) -> Tensor:
        q = self.descriptors(z, pos, edge_index, offset)  # [N, F]
        kernel = power(q @ self.sparse.T, self.zeta)  # [N, M]
        atoms = self.e0 + self.delta**2 * (kernel @ self.coefficients)  # [N]
        return scatter(atoms, batch, dim_size=n_graphs)  # [B]

    def descriptors(self, z: Tensor, pos: Tensor, edge_index: Tensor, offset: Tensor | None = None) -> Tensor:
        """Normalised power spectrum of every atom [N, F]."""
        return self.soap(self._table(z, pos, edge_index, offset)[0])[0]

    def design(self, inputs: dict) -> dict[str, Tensor]:
        """{"energy": [B, M], "forces": [N, 3, M]} of each coefficient alone; e0 is not in it."""
        with torch.no_grad():
            vec, sender = self._table(*(inputs[name] for name in ("z", "pos", "edge_index")), inputs.get("offset"))
            n, points = len(vec), len(self.sparse)
            kernels = vec.new_empty(n, points)
            forces = vec.new_zeros(n + 1, 3 * points)  # the last row collects empty places
            for part in self._chunks(n, vec.shape[1]):
                kernels[part], slope = self._kernels(vec[part])
                itself = torch.arange(n)[part, None]  # pushed back by all its neighbours
                forces.index_add_(0, torch.cat([sender[part], itself], dim=1).flatten(), slope, alpha=-1)
            energy = scatter(kernels, inputs["batch"], dim_size=inputs["n_graphs"])
        return {"energy": energy, "forces": forces[:n].view(n, 3, points)}

    def prior(self) -> Tensor:
        """Transposed Cholesky factor of delta^2 (K_MM + jitter) [M, M]: the process's own measure of coefficients."""
        kernel = power(self.sparse @ self.sparse.T, self.zeta)
        kernel.diagonal().add_(self.jitter)
        return self.delta * torch.linalg.cholesky(kernel).T

    def choose_sparse(self, batches: Iterable[dict], seed: int) -> None:
        """Take the sparse points from all environments of the batches (inputs as `forward` has them), in place.

        Raises ValueError when there are fewer different environments than sparse points.
        """
        with torch.no_grad():
            found = [self.descriptors(b["z"], b["pos"], b["edge_index"], b.get("offset")) for b in batches]
            candidates = torch.cat(found)
            self.sparse.copy_(candidates[leverage_sample(candidates, len(self.sparse), seed)])

    def _table(self, z, pos, edge_index, offset) -> tuple[Tensor, Tensor]:
        """Vectors to the neighbours of each atom [N, K, 3] and who they are [N, K].

        Empty places hold a vector beyond the cutoff and N.
        """
        if bool((z != self.number).any()):
            raise ValueError(f"This potential knows atomic number {self.number} alone.")
        j, i = edge_index
        vec = pos[j] - pos[i] if offset is None else pos[j] + offset - pos[i]  # [E, 3]
        near = vec.detach().square().sum(dim=1) < self.cutoff**2
        vec, j, i = vec[near], j[near], i[near]
        counts = torch.bincount(i, minlength=len(z))
        width = max(int(counts.max()), 1)
        order = torch.arange(len(i)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)  # edges sorted by i
        place = i * width + order
        empty = vec.new_full((len(z) * width, 3), self.cutoff)  # along the diagonal: beyond the cutoff
        table = empty.index_copy(0, place, vec).view(len(z), width, 3)
        sender = j.new_full((len(z) * width,), len(z)).index_copy(0, place, j)
        return table, sender.view(len(z), width)

    def _kernels(self, vec: Tensor) -> tuple[Tensor, Tensor]:
        """Kernels [N, M], and their derivatives by the places of all neighbours and of the atom [N (K + 1), 3 M]."""
        q, dq = self.soap.gradient(vec)
        dq = torch.cat([dq, -dq.sum(dim=1, keepdim=True)], dim=1)  # [N, K + 1, 3, F]
        n, k, _, features = dq.shape
        product = q @ self.sparse.T  # [N, M]
        slope = (dq.reshape(-1, features) @ self.sparse.T).view(n, 3 * k, -1)  # [N, 3 (K + 1), M]
        slope.mul_((self.delta**2 * self.zeta * power(product, self.zeta - 1))[:, None])
        return self.delta**2 * power(product, self.zeta), slope.view(n * k, -1)

    def _chunks(self, atoms: int, width: int) -> Iterator[slice]:
        """Atoms few enough for their derivatives to fit into CHUNK_BYTES."""
        bytes_each = 8 * 3 * (width + 1) * max(len(self.sparse), 4 * self.soap.features)
        step = max(1, CHUNK_BYTES // bytes_each)
        return (slice(start, min(start + step, atoms)) for start in range(0, atoms, step))


def leverage_sample(candidates: Tensor, count: int, seed: int) -> Tensor:
    """Indices [count] of rows drawn by their leverage: the random column choice of a CUR decomposition (Mahoney and
    Drineas, PNAS 106, 697 (2009)), on the leading half of the singular vectors, as QUIP's `cur_points`.

    candidates: descriptors [N, F]; duplicates (all atoms of a perfect crystal) count once. Raises ValueError when
    fewer than `count` are different.
    """
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(candidates.shape[1], generator=generator, dtype=torch.float64).to(candidates.dtype)
    along, order = (candidates @ direction).sort()
    new = torch.cat([along.new_ones(1, dtype=torch.bool), along.diff() > DUPLICATE])
    different = order[new].sort().values
    if len(different) < count:
        raise ValueError(f"{count} sparse points asked of {len(different)} different environments.")
    left, strength, _ = torch.linalg.svd(candidates[different], full_matrices=False)
    rank = max(1, int((strength > 1e-10).sum()) // 2)
    leverage = (left[:, :rank].square().sum(dim=1) * count / rank).clamp(max=1)
    draw = torch.rand(len(different), generator=generator, dtype=torch.float64) - leverage
    return different[draw.argsort()[:count]]


def power(base: Tensor, exponent: int) -> Tensor:
    """base ** exponent for integers from 0, by multiplications (torch.pow takes logarithms)."""
    if exponent == 0:
        return torch.ones_like(base)
    if exponent == 1:
        return base
    half = power(base, exponent // 2)
    return half * half * base if exponent % 2 else half * half


def scaled_bessel(x: Tensor, l_max: int) -> list[Tensor]:
    """exp(-x) i_l(x) for l = 0 .. l_max, i_l the modified spherical Bessel function of the first kind.

    x: [G, E], not negative. Rows without small arguments are spared the series.
    """
    safe = x.clamp(min=SERIES_BELOW)
    inverse, decay = 1 / safe, torch.exp(-2 * safe)
    values = [0.5 * inverse * (1 - decay)]
    if l_max > 0:
        values.append(0.5 * inverse * (1 + decay) - inverse * values[0])
    for order in range(1, l_max):
        values.append(values[order - 1] - (2 * order + 1) * inverse * values[order])
    small = x < SERIES_BELOW
    rows = small.any(dim=1).nonzero()[:, 0]
    few = x[rows]
    series = _bessel_series(few.clamp(max=SERIES_BELOW), l_max)
    return [v.index_copy(0, rows, torch.where(small[rows], s, v[rows])) for s, v in zip(series, values, strict=True)]


def _bessel_series(x: Tensor, l_max: int) -> list[Tensor]:
    """exp(-x) i_l(x) = exp(-x) x^l / (2l+1)!! (1 + x^2/2 / (1 (2l+3)) + (x^2/2)^2 / (2! (2l+3)(2l+5)) + ...)."""
    values, leading, half_square = [], torch.exp(-x), 0.5 * x * x
    for order in range(l_max + 1):
        total = torch.ones_like(x)
        for k in range(SERIES_TERMS, 0, -1):
            total = 1 + total * half_square / (k * (2 * order + 2 * k + 1))
        values.append(leading * total)
        leading = leading * x / (2 * order + 3)
    return values


def harmonics(x: Tensor, y: Tensor, z: Tensor, l_max: int) -> list[Tensor]:
    """Real spherical harmonics, orthonormal, of unit vectors [E], for each l [2l+1, E]: cosines, then sines."""
    cosine, sine = _azimuthal(x, y, l_max)
    legendre = _legendre(z, l_max)
    return [torch.cat([p * cosine[: len(p)], p[1:] * sine[1 : len(p)]]) for p in legendre]


def harmonics_slopes(x: Tensor, y: Tensor, z: Tensor, l_max: int) -> list[Tensor]:
    """Derivatives of `harmonics` as a unit vector is moved sideways, for each l [3, 2l+1, E]."""
    cosine, sine = _azimuthal(x, y, l_max)
    values = []
    for order, p in enumerate(_legendre(z, l_max)):
        m = torch.arange(order + 1, dtype=z.dtype, device=z.device)[:, None]
        c, s, mp = cosine[: order + 1], sine[: order + 1], m[1:] * p[1:]
        c_below = torch.cat([torch.ones_like(c[:1]), c[1:]])[:order]  # without sqrt(1/2) at m = 0
        s_below, nothing = s[:order], torch.zeros_like(c[:1])
        dp = torch.sqrt((order - m) * (order + m + 1)) * torch.cat([p[1:], nothing])
        by_x = torch.cat([nothing, mp * c_below, mp * s_below])
        by_y = torch.cat([nothing, -mp * s_below, mp * c_below])
        by_z = torch.cat([dp * c, dp[1:] * s[1:]])
        outward = x * by_x + y * by_y + z * by_z
        values.append(torch.stack([by_x - x * outward, by_y - y * outward, by_z - z * outward]))
    return values


def _azimuthal(x: Tensor, y: Tensor, l_max: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of (x + iy)^m [l_max + 1, E], at m = 0 over sqrt(2)."""
    cosine, sine = [torch.ones_like(x)], [torch.zeros_like(x)]
    for _ in range(l_max):
        c, s = cosine[-1], sine[-1]
        cosine.append(x * c - y * s)
        sine.append(x * s + y * c)
    cosine[0] = cosine[0] * math.sqrt(0.5)
    return torch.stack(cosine), torch.stack(sine)


def _legendre(z: Tensor, l_max: int) -> list[Tensor]:
    """Normalised associated Legendre polynomials without their sin^m, times sqrt(2): for each l [l+1, E].

    Recursion over l for all m at once (Press et al., Numerical Recipes, 6.7).
    """
    top = math.sqrt(0.5 / math.pi)
    values = [torch.full_like(z, top)[None]]
    for order in range(1, l_max + 1):
        m = torch.arange(order, dtype=z.dtype, device=z.device)[:, None]
        lower = z * values[-1]
        if order > 1:
            ratio = torch.sqrt(((order - 1) ** 2 - m[:-1] ** 2) / (4 * (order - 1) ** 2 - 1))
            lower = torch.cat([lower[:-1] - ratio * values[-2], lower[-1:]])
        top *= math.sqrt((2 * order + 1) / (2 * order))
        values.append(
            torch.cat([torch.sqrt((4 * order**2 - 1) / (order**2 - m**2)) * lower, torch.full_like(z, top)[None]])
        )
    return values


def _polar(vec: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unit vectors x, y, z and lengths of vec [N, K, 3], each [N K]."""
    x, y, z = vec.reshape(-1, 3).T.contiguous()
    r = torch.sqrt(x * x + y * y + z * z)
    return x / r, y / r, z / r, r


def _by_atom(parts: list[Tensor], vec: Tensor) -> list[Tensor]:
    """Each [*, N K] as [N, *, K]."""
    return [part.view(len(part), *vec.shape[:2]).transpose(0, 1) for part in parts]


def _orthonormal(grid: Tensor, alpha: float) -> Tensor:
    """Matrix that turns values at the grid points into coefficients of orthonormal radial functions [n, n].

    Values are interpolated by Gaussians phi_a(r) = exp(-alpha (r - g_a)^2), whose overlap int phi_a phi_b r^2 dr over
    r > 0 has the Cholesky factor L: coefficients = L^T C^-1 values with C_ab = phi_b(g_a).
    """
    difference, middle = grid[:, None] - grid, (grid[:, None] + grid) / 2
    values = torch.exp(-alpha * difference**2)
    width = math.sqrt(2 * alpha)
    tail = torch.exp(-0.5 * alpha * difference**2)  # phi_a phi_b = tail exp(-2 alpha (r - middle)^2)
    gauss = math.sqrt(math.pi) / (2 * width) * (1 + torch.erf(width * middle))
    second = gauss * (middle**2 + 1 / (2 * width**2)) + middle * torch.exp(-((width * middle) ** 2)) / (2 * width**2)
    return torch.linalg.solve(values, torch.linalg.cholesky(tail * second)).T.contiguous()
