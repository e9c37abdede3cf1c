"""What the clerk and the stages do when a training has several processes (`semgan.ranks`).

No wrapper around modules (DistributedDataParallel): a GAN step goes backward through several networks several times,
with second derivatives in between (R1, path length), and needs the gradients of one network at a time. They are
averaged where they are used, between backward and the optimiser, as StyleGAN2-ADA does.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from semgan import ranks
from semgan.runtime.device import choose_device

BUCKET = 2**23  # gradients sent at once, in numbers: few messages, and no second copy of a whole network


def device_of_this_process(name: str) -> torch.device:
    """As `choose_device`; of several processes on a machine each takes the GPU of its local rank.

    Raises ValueError where one GPU is named for all of them, and where there are more processes than GPUs.
    """
    if ranks.count() == 1:
        return choose_device(name)
    device = choose_device(name)
    if device.type != "cuda":
        return device
    if device.index is not None:
        raise ValueError(
            f"Device '{name}' is one GPU, and {ranks.count()} processes were started; use --device auto, or choose "
            "GPUs with CUDA_VISIBLE_DEVICES."
        )
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise ValueError(
            f"LOCAL_RANK is {local}, and this process sees {torch.cuda.device_count()} GPUs; start no more processes "
            "than GPUs (--nproc-per-node), or set LOCAL_RANK=0 where each process is given a GPU of its own."
        )
    device = choose_device(f"cuda:{local}")
    torch.cuda.set_device(device)
    return device


def average_gradients(weights: Iterable[Tensor]) -> None:
    """The gradients of the whole batch from those of every process' rows; weights without gradient have none anywhere.

    Bit-equal in all processes, because each sum is made once and handed out.
    """
    if ranks.count() == 1:
        return
    for bucket in _buckets([weight.grad for weight in weights if weight.grad is not None]):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        ranks.reduce_in_place(flat)
        flat /= ranks.count()
        for gradient, part in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(part.view_as(gradient))


def weights_of(optimiser: torch.optim.Optimizer) -> Iterator[Tensor]:
    """All that an optimiser changes."""
    for group in optimiser.param_groups:
        yield from group["params"]


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        is_full = sum(one.numel() for one in bucket) + gradient.numel() > BUCKET
        if bucket and (is_full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def by_first(work: Callable[[], Any]) -> None:
    """Let the first process work, alone, when all have come here; the others go on when it is done.

    So whatever was read from disk before, and is after, is the same for all. Raises ProcessLost in the others where the
    first one fails.
    """
    ranks.wait()
    try:
        if ranks.is_first():
            with ranks.alone():
                work()
    except BaseException:
        with suppress(ranks.ProcessLost):  # what is told is what came first
            ranks.wait(failed=True)
        raise
    if ranks.wait():
        raise ranks.ProcessLost(f"Process {ranks.rank()}: the first process failed; its message says why.")


class WholeBatchDropout(nn.Dropout):
    """`nn.Dropout` that draws for the rows of all processes, as one process does, and takes this one's.

    All must draw from the same random state, for a batch whose shares lie one after the other.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or ranks.count() == 1:
            return super().forward(input)
        rows = len(input)
        whole = torch.ones((ranks.count() * rows, *input.shape[1:]), dtype=input.dtype, device=input.device)
        factor = super().forward(whole.contiguous(memory_format=_layout(input)))  # drawn in memory's order
        return input * factor[ranks.rank() * rows : (ranks.rank() + 1) * rows]


def _layout(x: Tensor) -> torch.memory_format:
    is_channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if is_channels_last else torch.contiguous_format


def with_whole_batch_dropout(network: nn.Module) -> nn.Module:
    """The network, its dropout replaced where several processes train it; with one it stays as it is, as layers do
    that leave nothing out."""
    if ranks.count() == 1:
        return network
    for parent in list(network.modules()):
        for name, part in parent.named_children():
            if type(part) is nn.Dropout and part.p > 0:
                setattr(parent, name, WholeBatchDropout(part.p, part.inplace))
    return network


def copy_first(module: nn.Module) -> None:
    """Give all processes the tensors of the first one's module: what each has computed may differ in the last bits."""
    for value in module.state_dict().values():
        value.copy_(ranks.total(value if ranks.is_first() else torch.zeros_like(value)))


def average(numbers: Mapping[str, float]) -> dict[str, float]:
    """Every number's mean over the processes; names and their order are the same in all."""
    if ranks.count() == 1 or not numbers:
        return dict(numbers)
    means = ranks.mean(torch.tensor(list(numbers.values()), dtype=torch.float64))
    return dict(zip(numbers, means.tolist(), strict=True))


def check_equal(state: Any, what: str) -> None:
    """Raises ValueError unless a nested state is the same, bit for bit, in all processes."""
    if ranks.count() == 1:
        return
    found = ranks.gathered(torch.tensor([fingerprint(state)]))
    if bool((found != found[0]).any()):
        raise ValueError(
            f"The processes of this training differ in {what}. All of them must see the same run folder and dataset, "
            "and run on machines of one kind."
        )


def fingerprint(state: Any, so_far: int = 0) -> int:
    """A checksum of nested dictionaries and lists of tensors, numbers and strings."""
    if isinstance(state, Tensor):
        plain = state.detach().cpu().contiguous().reshape(-1)
        return zlib.crc32(plain.view(torch.uint8).numpy().data, so_far)
    if isinstance(state, Mapping):
        state = [part for item in state.items() for part in item]
    if isinstance(state, list | tuple):
        for part in state:
            so_far = fingerprint(part, so_far)
        return so_far
    return zlib.crc32(repr(state).encode(), so_far)
