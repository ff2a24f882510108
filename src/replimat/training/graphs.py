"""Prepared graphs in memory, and batches of them.

A batch is cut out of the packed arrays with index arithmetic: no Python loop over graphs, so that small models are not
starved by collation. Every model input is named as in the model's `forward`.
"""

import math

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from replimat.errors import DataError
from replimat.training.shares import dealt


def ragged_rows(offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of the packed items of `rows`, in order, and how many each row has ([total], [rows])."""
    starts, sizes = offsets[rows], offsets[rows + 1] - offsets[rows]
    ends = sizes.cumsum(0)
    shift = torch.repeat_interleave(starts - (ends - sizes), sizes, output_size=int(ends[-1]))
    return torch.arange(len(shift)) + shift, sizes


class Graphs(Dataset):
    """Graphs of a prepared file with one target each.

    arrays: the prepared arrays; target [n], already scaled; forces [N, 3], scaled alike, where they are learned too.
    Inputs are given in the precision of the target.
    Indexing with a list of rows gives (model inputs, targets [B]), or with forces (model inputs, {"energy": [B],
    "forces": [atoms of the batch, 3]}).
    """

    def __init__(self, arrays: dict[str, Tensor], target: Tensor, forces: Tensor | None = None):
        self.arrays, self.target, self.forces = arrays, target, forces
        self.offsets = arrays["offsets"].long()

    def __len__(self) -> int:
        return len(self.target)

    def __getitems__(self, rows: list[int]) -> tuple[dict, Tensor]:
        rows = torch.as_tensor(rows)
        if self.forces is None:
            return self.inputs(rows), self.target[rows]
        atoms, _ = ragged_rows(self.offsets, rows)
        return self.inputs(rows), {"energy": self.target[rows], "forces": self.forces[atoms]}

    def inputs(self, rows: Tensor) -> dict:
        """Model inputs of the given graphs as one batch."""
        atoms, sizes = ragged_rows(self.offsets, rows)
        first = sizes.cumsum(0) - sizes  # index of each graph's first atom in the batch  [B]
        batch = torch.repeat_interleave(torch.arange(len(rows)), sizes, output_size=len(atoms))
        common = {"z": self.arrays["numbers"][atoms].long(), "batch": batch, "n_graphs": len(rows)}
        return common | self.edges(rows, atoms, batch, first)

    def edges(self, rows: Tensor, atoms: Tensor, batch: Tensor, first: Tensor) -> dict:
        """What the representation adds to atomic numbers; each kind of graph says it."""
        raise NotImplementedError


class CrystalGraphs(Graphs):
    """Fixed number M of neighbours per atom: indices [N, M] and distances [N, M]."""

    def edges(self, rows, atoms, batch, first):
        local = self.arrays["neighbour_index"][atoms].long()
        return {
            "neighbours": local + first[batch][:, None],
            "distance": self.arrays["distance"][atoms].to(self.target.dtype),
        }


class CutoffGraphs(Graphs):
    """All neighbours within a cutoff: positions [N, 3], edges [2, E] and, in crystals, the images' translations [E,
    3].
    """

    def __init__(self, arrays, target, forces=None):
        super().__init__(arrays, target, forces)
        self.edge_offsets = arrays["edge_offsets"].long()

    def edges(self, rows, atoms, batch, first):
        picked, counts = ragged_rows(self.edge_offsets, rows)
        graph = torch.repeat_interleave(
            torch.arange(len(rows)), counts, output_size=len(picked)
        )  # graph of each edge  [E]
        edges = {
            "pos": self.arrays["positions"][atoms].to(self.target.dtype),
            "edge_index": self.arrays["edge_index"][:, picked].long() + first[graph],
        }
        if "shift" in self.arrays:
            cells = self.arrays["cells"][rows].double()  # [B, 3, 3]
            shift = self.arrays["shift"][picked].double()
            edges["offset"] = torch.einsum("ei,eij->ej", shift, cells[graph]).to(self.target.dtype)  # [E, 3]
        return edges


class LineGraphs(CutoffGraphs):
    """Bonds as in CutoffGraphs, and the pairs of bonds that meet, `line_index` [2, T], made anew for every batch."""

    def edges(self, rows, atoms, batch, first):
        edges = super().edges(rows, atoms, batch, first)
        return edges | {"line_index": line_edges(edges["edge_index"], len(atoms))}


def line_edges(edge_index: Tensor, n_atoms: int) -> Tensor:
    """Edges of the line graph: bond k -> j sends to every bond j -> i but itself; sender, receiver bond [2, T].

    edge_index: sender, receiver [2, E], sorted by receiver, so that the bonds into one atom stand together.
    """
    j, i = edge_index
    ends = torch.bincount(i, minlength=n_atoms).cumsum(0)
    sender, counts = ragged_rows(torch.cat([ends.new_zeros(1), ends]), j)
    receiver = torch.repeat_interleave(torch.arange(len(j)), counts, output_size=len(sender))
    pairs = torch.stack([sender, receiver])
    return pairs[:, sender != receiver] if bool((i == j).any()) else pairs  # a bond to an own image begins at its end


KINDS = {
    "CrystalGraph": CrystalGraphs,
    "CutoffGraph": CutoffGraphs,
    "LineGraph": LineGraphs,
}  # by the class of the representation


def graphs_of(kind: str, arrays: dict[str, Tensor], target: Tensor, forces: Tensor | None = None) -> Graphs:
    """Graphs of one representation. Raises DataError for a kind that has no batches."""
    if kind not in KINDS:
        raise DataError(f"No batches for representation {kind!r}; known: {', '.join(KINDS)}.")
    return KINDS[kind](arrays, target, forces)


class EpochShuffle(Sampler):
    """Rows in an order that depends on the seed and the epoch alone, so that a resumed run sees what an unbroken one
    does.
    """

    def __init__(self, rows: Tensor, seed: int):
        self.rows, self.seed, self.epoch = rows, seed, 0

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self):
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(self.rows[torch.randperm(len(self.rows), generator=generator)].tolist())


class DealtBatches(Sampler):
    """Shuffled batches of rows; of each the part that this process has (replimat.training.shares).

    first: the batch with which the next epoch begins, where it was broken off before.
    """

    def __init__(self, order: EpochShuffle, batch_size: int):
        self.sampler, self.batch_size, self.first = order, batch_size, 0  # Lightning tells a `sampler` the epoch

    def __len__(self) -> int:
        return math.ceil(len(self.sampler) / self.batch_size)

    def __iter__(self):
        batches = _cut(list(self.sampler), self.batch_size)  # not before the first is asked for: now the epoch is set
        first, self.first = self.first, 0
        yield from map(dealt, batches[first:])

    def rows_of(self, number: int) -> int:
        """Rows of a whole batch."""
        return min(self.batch_size, len(self.sampler) - number * self.batch_size)


class WholeBatches(Sampler):
    """Batches of the given rows in their order, dealt out whole where several processes train."""

    def __init__(self, rows: Tensor, batch_size: int):
        self.batches = _cut(rows.tolist(), batch_size)

    def __len__(self) -> int:
        return len(dealt(self.batches))

    def __iter__(self):
        return iter(dealt(self.batches))


def train_loader(graphs: Graphs, rows: Tensor, batch_size: int, seed: int) -> DataLoader:
    """Shuffled batches of the given rows."""
    return DataLoader(graphs, batch_sampler=DealtBatches(EpochShuffle(rows, seed), batch_size), collate_fn=_whole)


def eval_loader(graphs: Graphs, rows: Tensor, batch_size: int) -> DataLoader:
    """Batches of the given rows in their order."""
    return DataLoader(graphs, batch_sampler=WholeBatches(rows, batch_size), collate_fn=_whole)


def _cut(rows: list[int], size: int) -> list[list[int]]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _whole(batch):
    return batch  # __getitems__ has already collated it
