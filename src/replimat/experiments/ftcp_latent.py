"""FTCP's crystals as matrices and its latent space: what every design case of Ren et al. 2022 works with."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from replimat.experiments.bench import Bench
from replimat.representations.conversion import unpacked
from replimat.representations.ftcp import FTCP, RowScale

AT_ONCE = 256  # matrices that pass the network in one step


@dataclass(frozen=True)
class Window:
    """What a design shall have: property -> (lowest, highest); aim: the property that starting points are ranked by,
    and its wanted value; where: property -> (lowest, highest) that starting points must have.
    """

    wanted: dict[str, tuple[float, float]]
    aim: tuple[str, float]
    where: dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Case:
    """A design case. sites, elements: of its matrices; properties: known of every crystal; partial: of some; windows:
    the first is the one that the success rate is of, none where crystals are drawn at random; rows: (target, value)
    that the crystals must have; split: of the data's authors.
    """

    sites: int
    elements: int
    properties: tuple[str, ...]
    windows: tuple[Window, ...]
    partial: tuple[str, ...] = ()
    rows: tuple[tuple[str, float], ...] = ()
    split: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return self.properties + self.partial


class Matrices(Dataset):
    """Scaled matrices [n, rows, columns] with scaled properties [n, P], NaN where unknown."""

    def __init__(self, matrix: Tensor, properties: Tensor):
        self.matrix, self.properties = matrix, properties

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitems__(self, rows: list[int]) -> tuple[dict, dict]:
        matrix = self.matrix[torch.as_tensor(rows)]
        return {"matrix": matrix}, {"matrix": matrix, "properties": self.properties[torch.as_tensor(rows)]}


class Scaled:
    """What a case learns from: crystals, their matrices from 0 to 1 and their properties [n, P], likewise; the scales
    are those of the training rows.
    """

    def __init__(self, bench: Bench, case: Case):
        self.case, self.ftcp = case, FTCP(case.sites, case.elements)
        self.crystals = unpacked(bench.arrays)
        self.train, self.test = bench.rows("train"), bench.rows("test")
        matrices = self.ftcp.encode(self.crystals, bench.arrays["element_features"])
        self.rows = RowScale.fit(matrices[self.train])
        self.matrix = torch.as_tensor(self.rows.apply(matrices))
        known = [bench.target(name) for name in case.properties]
        self.properties = np.stack(known + [bench.arrays[f"also.{name}"] for name in case.partial], axis=1)
        self.low = np.nanmin(self.properties[self.train], axis=0)
        self.span = np.nanmax(self.properties[self.train], axis=0) - self.low

    def items(self) -> Matrices:
        scaled = (self.properties - self.low) / self.span
        return Matrices(self.matrix, torch.as_tensor(scaled, dtype=torch.float32))

    def values(self, name: str) -> np.ndarray:
        """A property of all crystals [n], NaN where unknown."""
        return self.properties[:, self.case.names.index(name)]


class Generator:
    """A network, trained or not, between crystals and the latent space."""

    def __init__(self, model: nn.Module, data: Scaled, device: str):
        self.model, self.data, self.device = model.to(device).eval(), data, device

    @torch.inference_mode()
    def encode(self, rows: np.ndarray) -> np.ndarray:
        """Means of z of crystals of the data [m, L]."""
        parts = torch.as_tensor(rows).split(AT_ONCE)
        return torch.cat([self.model.encode(self.data.matrix[p].to(self.device))[0].cpu() for p in parts]).numpy()

    @torch.inference_mode()
    def predict(self, z: np.ndarray) -> np.ndarray:
        """Properties of latent points [m, P], in their units."""
        found = self.model.predict(torch.as_tensor(z, device=self.device)).cpu().double().numpy()
        return found * self.data.span + self.data.low

    @torch.inference_mode()
    def matrices(self, z: np.ndarray) -> np.ndarray:
        """Matrices of latent points [m, rows, columns], scaled back."""
        parts = torch.as_tensor(z, dtype=torch.float32).split(AT_ONCE)
        found = torch.cat([self.model.decode(part.to(self.device)).cpu() for part in parts])
        return self.data.rows.undo(found.double().numpy())
