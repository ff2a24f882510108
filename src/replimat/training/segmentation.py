"""Crystals as batches of sites, and the Lightning tasks that learn from their voxels: to name the atoms in them, and to
give them back.

The voxels of a batch are made where the network is, so that a set of any size needs the memory of its sites alone and
every step may see it turned.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from torch.utils.data import Dataset

from replimat.models.cond_dfc_vae import AtomUNet, Segmented
from replimat.representations.voxels import Sites, turned, voxelise
from replimat.training.settings import Training
from replimat.training.task import Task
from replimat.training.vae import kl_divergence


class SiteRows(Dataset):
    """Crystals with a condition (number of a bin) each [n]; a batch is (Sites, condition [B])."""

    def __init__(self, sites: Sites, condition: Tensor):
        self.sites, self.condition = sites, condition

    def __len__(self) -> int:
        return len(self.condition)

    def __getitems__(self, rows: list[int]) -> tuple[Sites, Tensor]:
        return self.sites.take(rows), self.condition[rows]


class VoxelTask(Task):
    """What both tasks share. grid: voxels along an edge; turns: whether training batches are turned at random."""

    def __init__(self, model: nn.Module, settings: Training, scale: float, grid: int, turns: bool = False):
        super().__init__(model, settings, scale)
        self.grid, self.turns = grid, turns

    def voxels(self, sites: Sites) -> tuple[Tensor, Tensor]:
        """Voxels [B, 4, G, G, G] and the atomic number each belongs to [B, G, G, G]."""
        voxels, species = voxelise(sites, self.grid)
        if self.turns and self.training:
            voxels, species = turned(voxels, species)
        return voxels.contiguous(memory_format=torch.channels_last_3d), species  # nearly twice as fast on CPUs


class SegmentationTask(VoxelTask):
    """Trains an AtomUNet. loss = cross entropy of the elements, over the voxels of atoms + binary cross entropy of
    being part of one. Monitors val_loss; val_accuracy is the share of the voxels of atoms whose element is right.
    """

    monitor, mode, logged = "val_loss", "min", ("val_loss", "val_accuracy")

    def training_step(self, batch, _):
        voxels, species = self.voxels(batch[0])
        loss = segmentation_loss(self.model(voxels), species)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(voxels))
        return loss

    def validation_step(self, batch, _):
        voxels, species = self.voxels(batch[0])
        found, atoms = self.model(voxels), species > 0
        self.log("val_loss", segmentation_loss(found, species), batch_size=len(voxels))
        right = (found.species.argmax(dim=1) == species)[atoms].float().mean()
        self.log("val_accuracy", right, batch_size=len(voxels))


def segmentation_loss(found: Segmented, species: Tensor) -> Tensor:
    """Of logits for the true atomic numbers [B, G, G, G]; voxels outside atoms do not count for the elements."""
    elements = cross_entropy(found.species, species, ignore_index=0)
    return elements + binary_cross_entropy_with_logits(found.presence, (species > 0).to(found.presence.dtype))


class FeatureConsistentTask(VoxelTask):
    """Trains a VoxelVAE. loss = w_reconstruction MSE + w_perceptual sum of the MSE of features + w_kl KL, weights those
    of the settings; features: of a trained AtomUNet, which stays as it is. Monitors val_loss; the mean of z is decoded
    in validation.
    """

    monitor, mode, logged = "val_loss", "min", ("val_loss", "val_reconstruction", "val_perceptual", "val_kl")

    def __init__(self, model: nn.Module, settings: Training, scale: float, features: AtomUNet, **voxels):
        super().__init__(model, settings, scale, **voxels)
        self.known = (features.eval().requires_grad_(False),)  # in a tuple: neither trained nor kept in checkpoints

    def on_fit_start(self):
        self.known[0].to(self.device)

    def training_step(self, batch, _):
        loss, _ = self._losses(batch)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[1]))
        return loss

    def validation_step(self, batch, _):
        loss, parts = self._losses(batch)
        self.log("val_loss", loss, batch_size=len(batch[1]))
        for name, value in parts.items():
            self.log(f"val_{name}", value, batch_size=len(batch[1]))

    def _losses(self, batch: tuple[Sites, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        voxels, _ = self.voxels(batch[0])
        decoded = self.model(voxels, batch[1])
        pairs = zip(self.known[0].features(decoded.reconstruction), self.known[0].features(voxels), strict=True)
        parts = {
            "reconstruction": mse_loss(decoded.reconstruction, voxels),
            "perceptual": sum(mse_loss(ours, true) for ours, true in pairs),
            "kl": kl_divergence(decoded.mean, decoded.log_variance).mean(),
        }
        return sum(self.settings.weights[name] * value for name, value in parts.items()), parts
