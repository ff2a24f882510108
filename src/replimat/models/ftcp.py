"""Variational autoencoder with a property branch (Ren et al., Matter 5, 314 (2022), doi:10.1016/j.matt.2021.11.032).

    z = mu(X) + exp(log_variance(X) / 2) * e,   e ~ N(0, 1)        X' = decoder(z)        y' = branch(mu(X))

X: crystals as matrices, rows as positions and columns as channels of one-dimensional convolutions. Layers, widths and
activations are those of the authors' code, Keras' rules included: "same" padding, batch norms that forget 1 % a step,
weights from Glorot's uniform distribution.

Differs from that code: its encoder gives out a drawn z also where the latent space is looked at; here that is the mean.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

KERNELS, STRIDES = (5, 3, 3), (2, 2, 1)
SLOPE = 0.2  # of LeakyReLU
BRANCH = (128, 32)  # widths of the property branch
NORM = {"eps": 1e-3, "momentum": 0.01}


class Decoded(NamedTuple):
    """Matrices as given back [B, rows, columns]; mean and log_variance of z [B, L]; properties [B, P], 0 to 1."""

    matrix: Tensor
    mean: Tensor
    log_variance: Tensor
    properties: Tensor


class FTCPVAE(nn.Module):
    """Matrices [B, rows, columns] to L dimensions and back, and properties from there.

    properties: how many every crystal has; partial: further ones that some lack, with a branch of their own; filters:
    of the three convolutions; dense: width between them and the latent space. Raises ValueError when the strides do not
    divide the rows.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        properties: int = 1,
        partial: int = 0,
        filters: Sequence[int] = (32, 64, 128),
        dense: int = 1024,
        latent: int = 256,
    ):
        super().__init__()
        if rows % 4:
            raise ValueError(f"Matrices of {rows} rows: two strides of 2 need a multiple of 4.")
        self.rows, self.columns, self.latent = rows, columns, latent
        channels = [columns, *filters]
        self.encoder = nn.Sequential(
            *(
                layer
                for a, b, kernel, stride in zip(channels, filters, KERNELS, STRIDES, strict=False)
                for layer in (SameConv(a, b, kernel, stride), nn.BatchNorm1d(b, **NORM), nn.LeakyReLU(SLOPE))
            ),
            nn.Flatten(),
            nn.Linear(filters[-1] * rows // 4, dense),
            nn.Sigmoid(),
        )
        self.mean, self.log_variance = nn.Linear(dense, latent), nn.Linear(dense, latent)
        self.branches = nn.ModuleList(branch(latent, n) for n in (properties, partial) if n)
        first, second, third = filters
        self.decoder = nn.Sequential(
            nn.Linear(latent, third * rows // 4),
            nn.ReLU(),
            nn.Unflatten(1, (third, rows // 4)),
            nn.BatchNorm1d(third, **NORM),
            SameTransposed(third, second, KERNELS[2], STRIDES[2]),
            nn.BatchNorm1d(second, **NORM),
            nn.ReLU(),
            SameTransposed(second, first, KERNELS[1], STRIDES[1]),
            nn.BatchNorm1d(first, **NORM),
            nn.ReLU(),
            SameTransposed(first, columns, KERNELS[0], STRIDES[0]),
            nn.Sigmoid(),
        )
        self.apply(glorot)

    def forward(self, matrix: Tensor) -> Decoded:
        """In training z is drawn anew, in evaluation it is the mean."""
        mean, log_variance = self.encode(matrix)
        spread = torch.exp(log_variance / 2) * torch.randn_like(mean) if self.training else 0.0
        return Decoded(self.decode(mean + spread), mean, log_variance, self.predict(mean))

    def encode(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of z [B, L]. Raises ValueError for matrices of another shape."""
        if matrix.ndim != 3 or matrix.shape[1:] != (self.rows, self.columns):
            raise ValueError(f"Matrices {tuple(matrix.shape)}, expected [B, {self.rows}, {self.columns}].")
        found = self.encoder(matrix.transpose(1, 2))
        return self.mean(found), self.log_variance(found)

    def decode(self, z: Tensor) -> Tensor:
        """Matrices [B, rows, columns] of latent points [B, L], entries 0 to 1."""
        return self.decoder(z).transpose(1, 2)

    def predict(self, mean: Tensor) -> Tensor:
        """Properties [B, P], those of all crystals first."""
        return torch.cat([one(mean) for one in self.branches], dim=1)


def branch(latent: int, properties: int) -> nn.Sequential:
    first, second = BRANCH
    layers = nn.ReLU(), nn.Linear(latent, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU()
    return nn.Sequential(*layers, nn.Linear(second, properties), nn.Sigmoid())


class SameConv(nn.Conv1d):
    """Convolution of even lengths with zeros around them, so that `stride` divides the length; the odd zero at the end
    as in Keras.
    """

    def forward(self, x: Tensor) -> Tensor:
        (kernel,), (stride,) = self.kernel_size, self.stride
        zeros = kernel - stride
        return super().forward(nn.functional.pad(x, (zeros // 2, zeros - zeros // 2)))


class SameTransposed(nn.ConvTranspose1d):
    """The transposed operation of SameConv: it multiplies the length by `stride`."""

    def forward(self, x: Tensor) -> Tensor:
        (kernel,), (stride,) = self.kernel_size, self.stride
        start = (kernel - stride) // 2
        return super().forward(x)[..., start : start + x.shape[-1] * stride]


def glorot(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear | nn.Conv1d | nn.ConvTranspose1d):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
