"""Decoding, network and writing at the same time: threads with short queues between them, so that memory stays flat.

claims, reading  ->  decoding (pool)  ->  network (the caller's thread)  ->  PNG (pool)  ->  masks.tar, tables
"""

from __future__ import annotations

import io
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice, repeat
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from PIL import Image

from semgan.archive.inputs import MOST_BYTES, Item
from semgan.archive.unit import OpenUnit
from semgan.claims import ClaimLost
from semgan.data import addresses
from semgan.data.parallel import use_all_cores
from semgan.data.readers import read_image_bytes
from semgan.segmentation_rows import Row, answer_row

if TYPE_CHECKING:
    from torch import Tensor

    from semgan.data.whole_images import SegmentedImage
    from semgan.types import Segmentation

WAITING = 2  # batches between two stages
Thing = TypeVar("Thing")
_END = object()


class Ahead(Generic[Thing]):
    """An iterator that a thread runs ahead, ``depth`` items at most. Its errors are raised where it is read."""

    def __init__(self, things: Iterator[Thing], depth: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(things,), daemon=True)
        self._thread.start()

    def _run(self, things: Iterator[Thing]) -> None:
        use_all_cores()
        try:
            for thing in things:
                if not self._put(thing):
                    return
        except BaseException as error:  # whatever it is, the reader shall have it
            self._error = error
        finally:
            self._put(_END)

    def _put(self, thing: Any) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(thing, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Thing]:
        while (thing := self._queue.get()) is not _END:
            yield thing
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Stop the thread, whose iterator is not asked again."""
        self._stop.set()
        self._thread.join()


class Behind(Generic[Thing]):
    """A thread that does ``work`` with what it is given, ``depth`` things waiting at most; errors at the next `put`."""

    def __init__(self, work: Callable[[Thing], None], depth: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        use_all_cores()
        while (thing := self._queue.get()) is not _END:
            if self._error is None:  # after an error the queue is only emptied
                try:
                    self._work(thing)
                except BaseException as error:
                    self._error = error

    def put(self, thing: Thing) -> None:
        self.check()
        self._queue.put(thing)

    def close(self) -> None:
        """Wait until all is done."""
        self._queue.put(_END)
        self._thread.join()
        self.check()

    def check(self) -> None:
        """Raise the error that the work has met, if any."""
        if self._error is not None:
            raise self._error


@dataclass
class Decoded:
    """An image on its way: network input and own size, or the problem."""

    item: Item
    pixels: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    problem: str | None = None


@dataclass
class Block:
    """A batch of one unit between the stages; ``is_last``: the unit ends here."""

    unit: OpenUnit
    decoding: list[Future[Decoded]] = field(default_factory=list)
    is_last: bool = False


@dataclass
class Answered:
    """A block with the network's answers: row i of each is the i-th image without problem."""

    block: Block
    images: list[Decoded]
    answers: list[Segmentation]
    seconds: float


@dataclass(frozen=True)
class Pipeline:
    """How images go through a model.

    decode:     a file's bytes and name -> pixels ``[height, width(, channels)]``
    prepare:    pixels -> network input ``[channels, size_px, size_px]``
    segment:    batch of network inputs -> `Segmentation`, with the signals that ``columns`` needs
    columns:    one answer -> what its row says beside steps, confidence and losses
    told:       called with the number of images of every written block
    """

    prepare: Callable[[np.ndarray], Tensor]
    segment: Callable[[Tensor], Segmentation]
    columns: Callable[[SegmentedImage], Row]
    batch: int
    pool: ThreadPoolExecutor
    told: Callable[[int], Any]

    def run(self, units: Iterable[OpenUnit | None]) -> None:
        """Segment units until there are no more; each is finished, or abandoned where its claim was lost.

        None among them: nothing to do at the moment; so that the thread that asks for units can be stopped.
        """
        blocks = Ahead(self._blocks(units), WAITING)
        writer = Behind(self._write, WAITING)
        try:
            for block in blocks:
                writer.check()  # also while there is nothing to do: its unit stays claimed, and nobody else would end
                if block is not None:
                    writer.put(self._answered(block))
        finally:
            blocks.close()
            writer.close()

    # ------------------------------------------------------------ the thread that reads

    def _blocks(self, units: Iterable[OpenUnit | None]) -> Iterator[Block | None]:
        for unit in units:
            if unit is None:
                yield None
                continue
            items = unit.items()
            while chunk := list(islice(items, self.batch)):
                yield Block(unit, [self.pool.submit(self._decoded, item) for item in chunk])
            yield Block(unit, is_last=True)

    def _decoded(self, item: Item) -> Decoded:
        if item.problem is not None:
            return Decoded(item, problem=item.problem)
        try:
            content = addresses.read_bytes(item.address, MOST_BYTES) if item.content is None else item.content
            pixels = read_image_bytes(content, item.address)
            height, width = pixels.shape[:2]
            bare = Item(item.name, item.address)  # without the bytes, which may go
            return Decoded(bare, self.prepare(pixels), (height, width))
        except (ValueError, OSError, MemoryError) as error:  # damaged files may claim any size
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            return Decoded(Item(item.name, item.address), problem=reason)

    # ------------------------------------------------------------ the caller's thread

    def _answered(self, block: Block) -> Answered:
        images = [future.result() for future in block.decoding]
        good = [image for image in images if image.problem is None]
        began = time.perf_counter()
        answers = self._answers(good) if good and not block.unit.given_up else []
        return Answered(block, images, answers, (time.perf_counter() - began) / max(len(good), 1))

    def _answers(self, images: list[Decoded]) -> list[Segmentation]:
        """The answer for all, or one each where the model refuses the batch for the sake of some."""
        import torch

        batch = torch.stack([image.pixels for image in images if image.pixels is not None])
        try:
            return [_lean(self.segment(batch))]
        except ValueError:
            pass
        answers = []
        for number, image in enumerate(images):
            try:
                answers.append(_lean(self.segment(batch[number : number + 1])))
            except ValueError as error:
                image.problem = str(error)
        return answers

    # ------------------------------------------------------------ the thread that writes

    def _write(self, answered: Answered) -> None:
        unit = answered.block.unit
        if unit.given_up:
            return
        try:
            unit.check()
            self._write_block(unit, answered)
            if answered.block.is_last:
                unit.finish()
        except ClaimLost:
            unit.abandon()
        except FileNotFoundError:  # the one who took the unit over has removed our files
            unit.abandon()
        self.told(len(answered.images))

    def _write_block(self, unit: OpenUnit, answered: Answered) -> None:
        good = [image for image in answered.images if image.problem is None]
        answers = [(answer, row) for answer in map(_on_cpu, answered.answers) for row in range(len(answer.confidence))]
        assert len(answers) == len(good), "an answer for every image"
        sizes = [image.size for image in good]
        results = iter(list(self.pool.map(self._result, answers, sizes, repeat(answered.seconds))))
        for image in answered.images:
            if image.problem is not None:
                unit.add_problem(image.item, image.problem)
                continue
            row, mask = next(results)
            unit.add(image.item, row, mask)

    def _result(self, place: tuple[Segmentation, int], size: tuple[int, int], seconds: float) -> tuple[Row, bytes]:
        """The row of an answer of a batch, and its mask at the image's own size, as a PNG of 8-bit class indices."""
        from semgan.data.whole_images import own_answer

        answer, content = own_answer(*place, size, seconds), io.BytesIO()
        Image.fromarray(answer.label_map).save(content, "PNG")
        return answer_row(answer, self.columns), content.getvalue()


def _lean(answer: Segmentation) -> Segmentation:
    """Without the images and codes that no row needs, which would wait with it."""
    return replace(answer, reconstruction=None, w_plus=None, snapshots={}, reconstructions={})


def _on_cpu(answer: Segmentation) -> Segmentation:
    """Copied at once, for threads that take one image each."""
    return replace(
        answer,
        probabilities=answer.probabilities.detach().cpu(),
        confidence=answer.confidence.detach().cpu(),
        trace={name: values.detach().cpu() for name, values in answer.trace.items()},
    )
