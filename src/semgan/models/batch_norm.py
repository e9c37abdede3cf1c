"""Batch normalisation over the batch of all processes that train together; torch's own knows GPUs only."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from semgan import ranks

Network = TypeVar("Network", bound=nn.Module)
TINY = 1e-12  # variance that keeps the deviation of a constant channel above 0


class WholeBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d`, with the statistics of all processes' rows in training mode; parameters and names are the same.

    Statistics and normalisation are in float32. Means and variances of the processes are combined (Chan et al. 1979),
    not sums of squares, which cancel.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or ranks.count() == 1:
            return super().forward(input)
        x = input.float()
        mean, variance = _moments(x)
        self._remember(mean, variance, ranks.count() * x[:, 0].numel())
        found = _Normalised.apply(x, self.weight, self.bias, mean, variance, self.eps)
        return found.to(input.dtype)  # type: ignore[union-attr]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, pixels: int) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (pixels / (pixels - 1)), self.momentum)


@torch.no_grad()
def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance ``[channels]`` of the rows of all processes, which have as many each."""
    # by the kernel that normalises, which is nine times as fast as `torch.var_mean` on a CPU
    _, own_mean, per_std = torch.native_batch_norm(x, None, None, None, None, True, 0.0, TINY)
    own_variance = per_std.pow(-2) - TINY
    means, variances = ranks.gathered(torch.stack([own_mean, own_variance])[None]).unbind(1)
    mean = means.mean(0)
    return mean, (variances + (means - mean).square()).mean(0)


class _Normalised(torch.autograd.Function):
    """(x - mean) / std * weight + bias, of moments that are those of all processes' x: derivatives know that they
    follow x. By torch's own kernels, as composed of tensor operations it takes four times as long."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps))
        ctx.eps = eps
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, per_std = ctx.saved_tensors
        gradient = gradient.to(x.dtype)
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, None, None, mean, per_std, True, ctx.eps, [False, True, True]
        )  # sums over own rows of gradient * normalised x, and of the gradient
        along, whole = ranks.total(torch.stack([of_weight, of_bias])) / (ranks.count() * x[:, 0].numel())
        scale = weight * per_std
        slope = scale * per_std * along
        of_x = torch.addcmul((slope * mean - scale * whole)[:, None, None], gradient, scale[:, None, None])
        return of_x.addcmul_(x, slope[:, None, None], value=-1), of_weight, of_bias, None, None, None


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
