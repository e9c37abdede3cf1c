"""The verb: take units until all are done, by this worker or by others, then join their tables."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from semgan import artifacts
from semgan.archive.inputs import Entry, Source
from semgan.archive.pipeline import Pipeline
from semgan.archive.plan import POLL_S, Plan, found_plan, joined_plan
from semgan.archive.tables import merged
from semgan.archive.unit import ABOUT, OpenUnit
from semgan.data import addresses
from semgan.data.parallel import available_workers, thread_pool
from semgan.data.whole_images import answered, preprocessing_of
from semgan.runtime.device import prepare_cpu
from semgan.segment import Progress, channels_of, load_identified
from semgan.types import Segmenter, Steps

if TYPE_CHECKING:
    from semgan.data.whole_images import Measure
    from semgan.trust.answering import Answering

UNIT_IMAGES = 1024  # about a minute of work each, lost by a kill; many enough that workers end together
REMOTE_THREADS = 32  # reading over a network waits, and does not compute
LOOK_S = 5.0  # between two looks at what the other workers have done
PROBE_S = 30.0  # for the speed that a dry run measures


@dataclass(frozen=True)
class Segmented:
    """What an archive holds at the end, and what this worker did of it.

    images, failed, units: of all workers
    flagged: images that should be looked at, of all workers; None where the model's trust was not fitted
    own_images, seconds, images_per_second: of this worker, from its first claim to its last result
    """

    images: int
    failed: int
    units: int
    own_images: int
    seconds: float
    images_per_second: float
    flagged: int | None = None


@dataclass(frozen=True)
class Forecast:
    """What a dry run says; None where it is not known before the shards are read."""

    units: int
    done_units: int
    images: int | None
    workers: int
    images_per_second: float
    expected_seconds: float | None


@dataclass(frozen=True)
class Work:
    """How images are segmented: the model and its options.

    found:   the model, and what its trust.json says of its answers
    measure: what is measured of every answer for that; None: nothing
    """

    found: Answering
    measure: Measure | None
    steps: Steps | None
    modality: str | None
    batch: int
    threads: int
    masks_only: bool

    @classmethod
    def of(
        cls,
        model: Path | str | Segmenter,
        source: Source,
        *,
        steps: Steps | None = None,
        modality: str | None = None,
        batch: int = 64,
        device: str = "auto",
        threads: int | None = None,
        masks_only: bool = False,
        signals: bool = False,
        choose: bool = False,
    ) -> Work:
        """Raises FileNotFoundError without a model, ValueError for an unknown modality, masks only with steps."""
        prepare_cpu()
        if masks_only:
            if signals or choose:
                raise ValueError("Masks only leaves out what signals and choices are made of; leave them out, or it.")
            found = _masks_only(model, steps, own_device(device))
        else:
            from semgan.trust.answering import answering

            found = answering(model, steps, own_device(device), signals=signals, choose=choose)
        segmenter = found.segmenter
        blank = np.zeros((16, 16, channels_of(segmenter)), np.uint8)
        preprocessing_of(segmenter, modality)(blank)  # an unknown modality is one error, not one per image
        remote = addresses.is_address(source.images or source.manifest or "")
        count = max(available_workers(threads), REMOTE_THREADS if remote and threads is None else 1)
        return cls(found, found.measure(modality), steps, modality, batch, count, masks_only)

    def request(self, source: Source, unit_images: int) -> dict[str, Any]:
        """All that the results depend on; the fit of trust among it, where there is one."""
        options: dict[str, Any] = {"steps": self.steps, "modality": self.modality, "masks_only": self.masks_only}
        per_unit = None if source.kind == "shards" else unit_images
        return {
            "format": 1,
            "model": self.found.identity,
            "inputs": source.describe(),
            "unit_images": per_unit,
            "options": options | self.found.options,
        }

    def pipeline(self, pool: Any, told: Callable[[int], Any]) -> Pipeline:
        rule = {} if self.modality is None else {"modality": self.modality}
        segmenter = self.found.segmenter
        segment = partial(answered, partial(segmenter.segment_batch, **rule), steps=self.steps, measure=self.measure)
        if self.masks_only:  # methods without losses have nothing to leave out
            segment = getattr(segmenter, "masks_only", segment)
        prepare = preprocessing_of(segmenter, self.modality)
        return Pipeline(prepare, segment, self.found.columns, self.batch, pool, told)


def _masks_only(model: Path | str | Segmenter, steps: Steps | None, device: str) -> Answering:
    """The model for masks alone, whose answers nothing is measured of."""
    from semgan.trust.answering import Answering

    if steps != 0:
        raise ValueError("Masks only means the encoder alone: give --steps 0 (steps=0) with it.")
    found = Answering(*load_identified(model, device), {})
    if getattr(found.segmenter, "encoder", found.segmenter) is None:
        from semgan.stages.semantic_gan import NO_ENCODER

        raise ValueError(NO_ENCODER)
    return found


def segment_archive(
    model: Path | str | Segmenter,
    source: Source,
    out: Path | str,
    *,
    unit_images: int = UNIT_IMAGES,
    progress: Progress | None = None,
    **options: Any,
) -> Segmented:
    """Segment an archive, alone or together with other processes that were given the same ``out``.

    model:       as for `semgan.segment.segment`; one that only lives in memory is taken for the same at every start
    unit_images: images per unit of work; shards are units as they are
    options:     steps, modality, batch, device, threads, signals, choose, as for `semgan.segment.segment`; masks_only:
                 at steps 0 leave out the losses, which are about half of the work, and what trust makes of them
    progress:    told (done, total, "images" or "shards") of all workers

    Returns when all units are done, whoever did them; images that cannot be segmented are in OUT/problems.csv.
    Raises FileExistsError where ``out`` has other content, FileNotFoundError and ValueError for bad inputs.
    """
    out = Path(out)
    _check_size(unit_images)
    work = Work.of(model, source, **options)
    per_unit = None if source.kind == "shards" else unit_images
    plan = joined_plan(out, work.request(source, unit_images), source.entries, unit_images=per_unit)
    worker = _Worker(plan, source, work, progress)
    worker.run()
    summary = merged(plan)
    del summary["state"]
    rate = worker.images / worker.seconds if worker.images else 0.0
    return Segmented(
        **summary, own_images=worker.images, seconds=round(worker.seconds, 2), images_per_second=round(rate, 2)
    )


def forecast(
    model: Path | str | Segmenter, source: Source, out: Path | str, *, unit_images: int = UNIT_IMAGES, **options: Any
) -> Forecast:
    """What `segment_archive` would do: counted, and timed on the first images; ``out`` is left as it is."""
    out = Path(out)
    _check_size(unit_images)
    work = Work.of(model, source, **options)
    plan = found_plan(out, work.request(source, unit_images))
    done, images = 0, None
    if plan is not None:
        done, images, units = len(plan.done_units()), plan.images, len(plan.units)
    else:
        units = sum(1 for _ in source.entries())
        if units == 0:
            raise FileNotFoundError("There is nothing to segment: no image, or no line in the manifest.")
        if source.kind != "shards":
            images, units = units, -(-units // unit_images)
    rate = _probed(work, source)
    workers = _workers()
    rest = None if images is None or rate == 0 else images * (1 - done / units) / rate / workers
    return Forecast(units, done, images, workers, round(rate, 2), None if rest is None else round(rest, 1))


def _check_size(unit_images: int) -> None:
    if unit_images < 1:
        raise ValueError(f"A unit has 1 image or more; got {unit_images}.")


def _probed(work: Work, source: Source) -> float:
    """Images per second of this process on the first images, reading and writing included; 0 where none works."""
    rate = 0.0
    for count in (4, 2 * work.batch):  # the first round warms up
        if rate and count / rate > PROBE_S:
            break
        with tempfile.TemporaryDirectory() as folder:
            probe = _Probe(source.images, source.manifest, source.members, count)
            plan = joined_plan(Path(folder), {}, probe.entries, unit_images=_unit_of(source, count))
            worker = _Worker(plan, probe, work, None)
            worker.run()
            good = artifacts.read_json(plan.done_folder(plan.units[0]) / ABOUT)["images"]
            rate = good / worker.seconds
    return rate


def _unit_of(source: Source, count: int) -> int | None:
    return None if source.kind == "shards" else count


@dataclass(frozen=True)
class _Probe(Source):
    """The first images of a source."""

    count: int = 0

    def entries(self) -> Iterator[Entry]:
        return islice(super().entries(), 1 if self.kind == "shards" else self.count)

    def members_of(self, shard: str) -> Iterator[Any]:
        return islice(super().members_of(shard), self.count)


def _workers() -> int:
    """Processes that torchrun started, or tasks of the Slurm array; 1 where there is nothing that tells."""
    return max(1, int(os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_ARRAY_TASK_COUNT") or 1))


def own_device(device: str) -> str:
    """``auto`` on a machine of several GPUs: the one of this process' number there, where torchrun gave it one."""
    import torch

    number, count = os.environ.get("LOCAL_RANK"), torch.cuda.device_count()
    return f"cuda:{int(number) % count}" if device == "auto" and number is not None and count else device


def _place() -> int:
    """This worker's number among `_workers`; only where it begins, so any number is right."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_ARRAY_TASK_ID") or 0)


class _Worker:
    """One process at work on a plan."""

    def __init__(self, plan: Plan, source: Source, work: Work, progress: Progress | None) -> None:
        self.plan, self.source, self.work, self.progress = plan, source, work, progress
        self.images, self.seconds = 0, 0.0
        self._open: list[OpenUnit] = []
        self._looked, self._began = -LOOK_S, time.monotonic()

    def run(self) -> None:
        """Take units until all are done."""
        pool = thread_pool(self.work.threads)
        try:
            self.work.pipeline(pool, self._told).run(self._units())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            for unit in self._open:
                if not unit.is_closed:
                    unit.abandon()
        self._tell()

    def _units(self) -> Iterator[OpenUnit | None]:
        """Units that nobody else works on, from this worker's own place on, until all are done."""
        units = self.plan.units
        first = len(units) * (_place() % _workers()) // _workers()
        rest = [*units[first:], *units[:first]]
        while rest := [unit for unit in rest if not self.plan.is_done(unit)]:
            taken = 0
            for span in rest:
                unit = OpenUnit.open(self.plan, self.source, span)
                if unit is not None:
                    taken += 1
                    self._open = [other for other in self._open if not other.is_closed] + [unit]
                    yield unit
            if not taken:  # the others work on what is left; should one die, its unit will be free
                yield None
                time.sleep(POLL_S)

    def _told(self, images: int) -> None:
        """After every block of this worker."""
        self.images += images
        self.seconds = time.monotonic() - self._began
        if time.monotonic() - self._looked >= LOOK_S:
            self._tell()

    def _tell(self) -> None:
        if self.progress is None:
            return
        self._looked = time.monotonic()
        names = self.plan.done_units()
        if self.plan.images is None:
            self.progress(len(names), len(self.plan.units), "shards")
            return
        done = sum(unit.count for unit in self.plan.units if unit.name in names)
        done += sum(unit.images + unit.failed for unit in self._open if not unit.is_closed)
        self.progress(min(done, self.plan.images), self.plan.images, "images")


def as_rows(answer: Segmented | Forecast) -> dict[str, Any]:
    """Names and values for people."""
    told = asdict(answer)
    if told.get("flagged", 0) is None:  # nothing judges the answers
        del told["flagged"]
    return {name.replace("_", " "): "not known" if value is None else value for name, value in told.items()}
