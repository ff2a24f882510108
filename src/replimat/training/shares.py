"""The part of every batch that one of several training processes has, such that together they do what one would.

The rows of a batch are dealt out; torch's DistributedDataParallel then takes the mean of the processes' gradients. A
loss that is a mean over items (rows, or atoms of forces) is weighted by the part of the items a process has:

    mean over all n items = 1/P sum_p (P n_p / n) (mean over the n_p items of process p)

and batch norm takes its mean and variance over the batch of all. What cannot be dealt out, because there are fewer
pieces than processes, every process does whole: the mean of equals. Results are those of one process up to rounding,
for sums are taken in another order; with dropout or noise only in distribution, for every process draws its own.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from lightning.pytorch.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def process() -> tuple[int, int]:
    """Number of this process and how many train together: (0, 1) for one alone."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def dealt(pieces: Sequence) -> Sequence:
    """This process's part of the pieces; all of them where there are fewer than processes."""
    rank, processes = process()
    return pieces[rank::processes] if len(pieces) >= processes else pieces


def share(count: int, device: torch.device) -> Tensor | float:
    """Weight of a mean over `count` items of this process, 1 on average over the processes."""
    _, processes = process()
    if processes == 1:
        return 1.0
    total = torch.tensor(float(count), device=device)
    dist.all_reduce(total)
    return processes * count / total


def average(value: Tensor) -> Tensor:
    """Mean over the processes, without a gradient."""
    value, (_, processes) = value.detach(), process()
    if processes > 1:
        value = value.clone()
        dist.all_reduce(value)
        value /= processes
    return value


class Summed(torch.autograd.Function):
    """The sum of what all processes give; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    backward = forward


class SharedBatchNorm(_BatchNorm):
    """Batch norm whose mean and variance in training are those of the batch of all processes.

    Input [n, C, ...], n of this process. As torch's SyncBatchNorm, which refuses to run on CPUs. Of a batch that every
    process does whole, the kept variance is that of n P items: its factor n / (n - 1) is a little smaller.
    """

    def _check_input_dim(self, input):
        pass  # the layer in whose place this stands knows

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
        sums = Summed.apply(torch.cat([x.sum(axes), x.new_tensor([x.numel() / x.shape[1]])]))  # [C + 1]
        mean, count = sums[:-1] / sums[-1], sums[-1].detach()
        centred = x - mean.view(shape)
        variance = Summed.apply(centred.square().sum(axes)) / count  # [C]
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        return centred * (self.weight * torch.rsqrt(variance + self.eps)).view(shape) + self.bias.view(shape)


class ShareBatchNorms(LayerSync):
    """Puts a SharedBatchNorm with the same weights in the place of every batch norm of a model."""

    def apply(self, model: nn.Module) -> nn.Module:
        for name, layer in model.named_children():
            if isinstance(layer, _BatchNorm):
                shared = SharedBatchNorm(layer.num_features, layer.eps, layer.momentum)
                for kept in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                    setattr(shared, kept, getattr(layer, kept))
                setattr(model, name, shared)
            else:
                self.apply(layer)
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        return model  # only weights leave the process
