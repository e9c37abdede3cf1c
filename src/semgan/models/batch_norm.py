"""Batch normalisation over the batch of all processes that train together; torch's own knows GPUs only."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from semgan import ranks

Network = TypeVar("Network", bound=nn.Module)


class WholeBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, with the statistics of all processes' rows in training mode; parameters and names are the same.

    Statistics and normalisation are in float32. Means and variances of the processes are combined (Chan et al. 1979),
    not sums of squares, which cancel.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or ranks.count() == 1:
            return super().forward(input)
        x = input.float()
        own_variance, own_mean = torch.var_mean(x, dim=(0, 2, 3), unbiased=False)
        means, variances = ranks.gathered(torch.stack([own_mean, own_variance])[None]).unbind(1)
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        self._remember(mean.detach(), variance.detach(), ranks.count() * x[:, 0].numel())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return ((x - mean[:, None, None]) * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, pixels: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (pixels / (pixels - 1)), self.momentum)


def with_whole_batch_norm(network: Network) -> Network:
    """The network, its batch normalisation replaced where several processes train it; with one it stays as it is."""
    if ranks.count() == 1:
        return network
    for parent in list(network.modules()):
        for name, part in parent.named_children():
            if type(part) is nn.BatchNorm2d:
                setattr(parent, name, _converted(part))
    return network


def _converted(part: nn.BatchNorm2d) -> WholeBatchNorm2d:
    """With the very parameters and statistics of ``part``, and its options."""
    assert part.affine and part.track_running_stats
    own = WholeBatchNorm2d(part.num_features, part.eps, part.momentum)
    own.weight, own.bias = part.weight, part.bias
    own.running_mean, own.running_var = part.running_mean, part.running_var
    own.num_batches_tracked = part.num_batches_tracked
    return own.train(part.training)
