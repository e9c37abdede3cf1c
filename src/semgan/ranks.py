"""One training in several processes: which this one is, which rows of a batch are its own, and sums over all of them.

Every process holds the same weights and takes its share of the rows of every batch. The step's loss is the mean, over
the processes, of what each computes: means over its own rows, and terms of the whole batch, which are made with `total`
or `gathered`. The derivative of a sum over processes is such a sum again, so the gradients of all processes, averaged
(`semgan.runtime.distributed.average_gradients`), are those of one process with the whole batch.

With one process all of this gives back what it gets. The only module that knows `torch.distributed`; layer 1, because
objectives, models and the clerk need it and do not import one another.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

MEETING_S = 600.0  # programs start late where they are read from a slow disk
COLLECTIVE_S = 60.0  # a process that is waited for longer is lost
ALONE_S = 12 * 3600.0  # and where one works while the others wait: decoding, inversion, reports

_patient: dist.ProcessGroup | None = None
_alone = False


class ProcessLost(ValueError):
    """Another process of this training is gone, or failed."""


# ---------------------------------------------------------------- who


def count() -> int:
    """Processes that train together."""
    return 1 if _patient is None or _alone else dist.get_world_size()


def rank() -> int:
    """This process' number, from 0."""
    return 0 if _patient is None or _alone else dist.get_rank()


def is_first() -> bool:
    """Whether this process writes the files."""
    return rank() == 0


def started_with_others() -> bool:
    """Whether torchrun, or somebody like it, has started this process as one of several."""
    told = all(name in os.environ for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"))
    return told and int(os.environ.get("WORLD_SIZE", "1")) > 1


def refuse_several(what: str) -> None:
    """Raises ValueError for work that one process does, where several were started."""
    if started_with_others():
        raise ValueError(f"{what} runs in one process, and this is one of several; start it without torchrun.")


@contextmanager
def joined() -> Iterator[None]:
    """Among the processes that torchrun has started with this one, inside the block; alone where there is none.

    Gloo for tensors in memory, NCCL for those on GPUs. Raises ProcessLost where the others do not come.
    """
    global _patient
    if _patient is not None or not started_with_others():
        yield
        return
    from torch.distributed.rendezvous import rendezvous  # not in every torch

    has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        store, number, size = next(rendezvous("env://", timeout=timedelta(seconds=MEETING_S)))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if has_nccl else "gloo",
            store=_of_this_start(store, number, size),
            rank=number,
            world_size=size,
            timeout=timedelta(seconds=COLLECTIVE_S),
        )
        patient = dist.new_group(backend="gloo", timeout=timedelta(seconds=ALONE_S))
    except (RuntimeError, ValueError) as error:
        found = f"The {os.environ['WORLD_SIZE']} processes of this training have not found one another"
        raise ProcessLost(f"{found} ({_first_line(error)}); all must be started, with one address.") from None
    assert isinstance(patient, dist.ProcessGroup)
    _patient = patient
    try:
        yield
        wait()  # the first process may host the address at which the others meet
        dist.destroy_process_group()  # not after an error: it would wait for the lost
    finally:
        _patient = None


def _of_this_start(store: Store, number: int, size: int) -> Store:
    """A part of the store that all processes of this start share, and none of an earlier start has written to.

    torchrun's own store outlives a restart, and the addresses in it are then those of the dead. So the first process
    answers questions, which have new names at every start, until each of the others has said that it heard; what is
    asked by the dead is answered too, and does no harm. Raises RuntimeError where one does not come.
    """
    from torch.distributed.distributed_c10d import PrefixStore

    if number:
        asked = uuid.uuid4().hex
        store.set(f"semgan/asks/{number}", asked)
        name = store.get(asked).decode()
        store.set(f"{name}/heard/{number}", "1")
        return PrefixStore(name, store)
    name, ends = uuid.uuid4().hex, time.monotonic() + MEETING_S
    missing = set(range(1, size))
    while missing:
        for other in tuple(missing):
            if store.check([f"{name}/heard/{other}"]):
                missing.remove(other)
            elif store.check([f"semgan/asks/{other}"]):
                store.set(store.get(f"semgan/asks/{other}").decode(), name)
        if missing and time.monotonic() > ends:
            raise RuntimeError(f"process {min(missing)} did not come within {MEETING_S:g} s")
        time.sleep(0.02)
    return PrefixStore(name, store)


@contextmanager
def alone() -> Iterator[None]:
    """As one process of one, inside the block: for what a process does while the others wait or do the same."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


# ---------------------------------------------------------------- rows of a batch


def share_of(images: int, setting: str) -> int:
    """Images of each process, of a batch. Raises ValueError naming the setting where they do not come out even."""
    if images % count():
        raise ValueError(
            f"{setting} is {images}, which {count()} processes cannot share evenly; choose a multiple of {count()} "
            "with --set, or another number of processes."
        )
    return images // count()


def own(index: range) -> range:
    """This process' part of the numbers of a batch's images: shares lie one after the other, in the order of ranks."""
    share = share_of(len(index), "A part of a batch")
    return index[rank() * share : (rank() + 1) * share]


def even_rows(rows: int) -> list[int]:
    """This process' part of any number of rows, as long as everybody's: what is over wraps around to the first rows.

    ``gathered(work(x[even_rows(n)]))[:n]`` is ``work(x)``.
    """
    share = -(-rows // count())
    return [place % rows for place in range(rank() * share, (rank() + 1) * share)]


def even_batches(
    rows: int, batch: int, progress: Callable[[int, int, str], Any] | None, what: str
) -> Iterator[list[int]]:
    """`even_rows`, a batch at a time; ``progress`` is told before each and after the last."""
    own = even_rows(rows)
    for first in range(0, len(own), batch):
        if progress is not None:
            progress(first, len(own), what)
        yield own[first : first + batch]
    if progress is not None:
        progress(len(own), len(own), what)


# ---------------------------------------------------------------- sums


class _Total(torch.autograd.Function):
    """A sum over processes, whose derivative is one too: it may be differentiated any number of times."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return _reduced(x.detach().clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return _Total.apply(gradient)  # type: ignore[return-value]


def total(x: Tensor) -> Tensor:
    """Sum over processes of tensors of one shape; differentiable. All processes must call it, in the same order."""
    return x if count() == 1 else _Total.apply(x)  # type: ignore[return-value]


def mean(x: Tensor) -> Tensor:
    """As `total`, divided by the number of processes."""
    return x if count() == 1 else total(x) / count()


def gathered(x: Tensor) -> Tensor:
    """The rows of all processes, ``[count * rows, ...]`` in the order of ranks; differentiable."""
    if count() == 1:
        return x
    return total(torch.cat([x if number == rank() else torch.zeros_like(x) for number in range(count())]))


def rolled(x: Tensor) -> Tensor:
    """Own rows of the whole batch's ``x.roll(1, 0)``: the row before each, and the last of all for the first."""
    if count() == 1:
        return x.roll(1, 0)
    return torch.cat([gathered(x[-1:])[rank() - 1][None], x[:-1]])


# ---------------------------------------------------------------- words between processes


def any_of(flag: bool) -> bool:
    """Whether it is so in any process."""
    return flag if count() == 1 else bool(total(torch.tensor(int(flag))))


def of_first(number: float) -> float:
    """The first process' number, in all; it may take as long as it likes to find it."""
    if count() == 1:
        return number
    return float(_reduced(torch.tensor(number if is_first() else 0.0, dtype=torch.float64), _patient))


def reduce_in_place(x: Tensor) -> None:
    """Sum a contiguous tensor over processes, without derivative."""
    if count() > 1:
        _reduced(x)


def wait(failed: bool = False) -> bool:
    """Until all processes are here, however long it takes; returns whether one of them failed."""
    if count() == 1:
        return failed
    return bool(_reduced(torch.tensor(int(failed)), _patient))


def _reduced(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    try:
        dist.all_reduce(x, group=group)
    except RuntimeError as error:  # what gloo and NCCL raise for closed connections and for time-outs
        raise ProcessLost(
            f"Process {dist.get_rank()} of {dist.get_world_size()} has lost another one, which was ended or failed "
            f"({_first_line(error)}). The last checkpoint is kept: the same command goes on from it, and so does "
            "torchrun with --max-restarts."
        ) from error
    return x


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
