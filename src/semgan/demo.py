"""``semgan demo``: the whole story on procedural pictures, told in a few minutes on a small machine.

Draw pictures, prepare the dataset, train all three stages, train a U-Net on the same labels for the same time, segment
pictures like those of the training and pictures from shifted domains with both (and with weights trained longer by the
same recipe, where they are installed), score, and write one page.

    OUT/input/      the pictures as plain folders      OUT/dataset/   prepared by `semgan data prepare folder`
    OUT/runs/       semgan/ and unet/, run folders     OUT/segmented/ masks and reconstructions by method and domain
    OUT/demo.json   what was asked and how far it came OUT/scores.csv OUT/demo.png OUT/report.html

Every chapter that is done is passed over when the same command runs again; training goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from semgan import artifacts
from semgan.demo_answers import read_pairs, score, segment_pictures
from semgan.report import demo_files
from semgan.report.demo_files import VALIDATION, Method, Record
from semgan.report.history import read_history
from semgan.results import append_rows
from semgan.types import MOST_SEED

Progress = Callable[[int, int, str], Any]

logger = logging.getLogger(__name__)

WHOLE = "whole demo, seconds"
WEIGHTS = Path(__file__).parent / "weights"
OURS = {"gan": "train semgan: generator", "encoder": "train semgan: encoder"}
RIVAL = "train U-Net"
RECIPES = {"chests": "phantoms-chests", "faces": "phantoms"}
TITLES = {"semgan": "semgan", "unet": "U-Net"}
# Shares of the time that is left once the pictures are there: the rest is segmenting, scoring and drawing.
TRAINING_SHARE = 0.82
ENCODER_SHARE = 0.36  # of our training; the generator takes the rest, and the U-Net as long as both together
REPORT_SECONDS = 12.0
FEWEST_IMAGES = 4
KEPT = 6  # images per domain whose reconstructions are kept, for the report and the sheet


@dataclass(frozen=True)
class DemoPlan:
    """How large the demo is. ``test``: most images per domain; fewer are taken where the machine is slow.

    recipe: None for the family's own, see `RECIPES`
    """

    recipe: str | None = None
    size_px: int = 32
    labelled: int = 30
    unlabelled: int = 2000
    validation: int = 16
    test: int = 24
    steps: tuple[int, ...] = (0, 10, 25, 50, 100)
    shown: int = 2
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DemoResult:
    """Where the results lie; ``scores``: method -> domain -> mean score at the chosen steps."""

    report: str
    sheet: str
    table: str
    seconds: float
    scores: dict[str, dict[str, float]]


def demo(
    out: Path | str,
    *,
    family: str = "chests",
    minutes: float = 9.0,
    seed: int = 0,
    progress: Progress | None = None,
    device: str = "auto",
    plan: DemoPlan = DemoPlan(),
) -> DemoResult:
    """Tell the whole story into ``out`` within about ``minutes``; the same call goes on after an interruption.

    progress(done, total, what) is called for every part and, as ``WHOLE``, for all of it.
    Raises ValueError for an unknown family or a demo of other settings in ``out``, FileExistsError for other content.
    """
    from semgan import ranks  # brings torch

    ranks.refuse_several("The demo")
    story = _Story(_opened(Path(out), family, minutes, seed, plan), Path(out), plan, device, progress)
    story.prepare()
    story.train_ours()
    story.train_rival()
    story.segment()
    story.tell()
    record, rows = story.record, demo_files.score_rows(story.out)
    means = {
        name: {d: v for d in record.domains if (v := demo_files.find_score(rows, name, d)) is not None}
        for name in record.methods
    }
    paths = [str(story.out / name) for name in ("report.html", "demo.png", "scores.csv")]
    return DemoResult(*paths, seconds=round(sum(record.chapters.values()), 1), scores=means)


def demo_dataset(
    folder: Path, family: str, *, seed: int = 0, plan: DemoPlan = DemoPlan(), progress: Progress | None = None
) -> Path:
    """Draw the pictures into FOLDER/input and prepare FOLDER/dataset; shipped weights are trained on the same."""
    from semgan.data.phantoms import write_phantom_dataset
    from semgan.data.prepare.folder import prepare_folder

    def drawn(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total, "draw pictures")

    source = write_phantom_dataset(
        folder / "input",
        family,
        size_px=plan.size_px,
        labelled=plan.labelled,
        unlabelled=plan.unlabelled,
        validation=plan.validation,
        test=plan.test,
        seed=seed,
        workers=max(1, min(4, os.cpu_count() or 1)),
        progress=drawn,
    )
    report = prepare_folder(
        source / "images",
        source / "labels",
        folder / "dataset",
        unlabelled=source / "unlabelled",
        manifest=source / "manifest.csv",
        classes=source / "classes.json",
        progress=progress,
    )
    return report.path


def _opened(out: Path, family: str, minutes: float, seed: int, plan: DemoPlan) -> Record:
    """The record of a demo begun before, or a new one."""
    from semgan.data.phantoms import DOMAINS, FAMILIES

    if family not in FAMILIES:
        raise ValueError(f"Unknown family '{family}'; choose one of {', '.join(FAMILIES)}.")
    if not 0 <= seed <= MOST_SEED:
        raise ValueError(f"The seed lies from 0 to {MOST_SEED}; got {seed}.")
    if not minutes > 0:
        raise ValueError(f"The demo needs some time; got {minutes} minutes.")
    if (out / "demo.json").is_file():
        return _continued(out, family, minutes, seed, plan)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and holds no demo; give another folder with -o, or empty this one.")
    record = Record(family, seed, minutes, plan.size_px, plan=asdict(plan), domains=list(DOMAINS[family]))
    record.counts = {"labelled": plan.labelled, "unlabelled": plan.unlabelled, "validation": plan.validation}
    record.commit = artifacts.git_commit()
    demo_files.write_record(out, record)
    return record


def _continued(out: Path, family: str, minutes: float, seed: int, plan: DemoPlan) -> Record:
    """A demo begun before keeps its own minutes, and says so: they may have been spent already."""
    record = demo_files.read_record(out)
    asked = asdict(plan)
    same_plan = all(
        record.plan.get(key) == (list(value) if isinstance(value, tuple) else value) for key, value in asked.items()
    )
    if (record.family, record.seed) != (family, seed) or not same_plan:
        raise ValueError(
            f"{out} holds the demo of family {record.family}, seed {record.seed}; "
            "give another folder with -o, or remove it."
        )
    if record.minutes != minutes:
        told = "%s holds a demo of %g minutes, which it keeps; give another folder with -o for one of %g."
        logger.warning(told, out, record.minutes, minutes)
    return record


class _Story:
    """The chapters in order; each leaves its files and its time in the record."""

    def __init__(self, record: Record, out: Path, plan: DemoPlan, device: str, progress: Progress | None) -> None:
        self.record, self.out, self.plan, self.device = record, out, plan, device
        self._progress = progress
        self._chapter_began: float | None = None

    # ------------------------------------------------------------ time

    @property
    def total_seconds(self) -> float:
        return self.record.minutes * 60

    def spent(self) -> float:
        """Seconds of the demo so far, those of earlier calls included."""
        running = 0.0 if self._chapter_began is None else monotonic() - self._chapter_began
        return sum(self.record.chapters.values()) + running

    def report(self, done: int, total: int, what: str) -> None:
        if self._progress is not None:
            self._progress(done, total, what)
            whole = int(max(self.total_seconds, self.spent() + 1))
            self._progress(min(int(self.spent()), whole - 1), whole, WHOLE)

    @contextmanager
    def chapter(self, name: str, *, earlier: float = 0.0) -> Iterator[None]:
        """Time a chapter and note it as done; ``earlier``: seconds it took before an interruption."""
        self._chapter_began = monotonic() - earlier
        try:
            yield
            self.record.chapters[name] = round(monotonic() - self._chapter_began, 2)
            self.save()
        finally:
            self._chapter_began = None

    def is_done(self, name: str) -> bool:
        return name in self.record.chapters

    def save(self) -> None:
        demo_files.write_record(self.out, self.record)

    # ------------------------------------------------------------ chapters

    def prepare(self) -> None:
        """Draw, prepare, read the test pictures, and share out the time that is left."""
        if self.is_done("pictures and dataset") and self.record.budget:
            return
        from semgan.data.folder import Dataset

        with self.chapter("pictures and dataset"):
            dataset = Dataset.open(
                demo_dataset(self.out, self.record.family, seed=self.record.seed, plan=self.plan, progress=self.report)
            )
            self.record.classes, self.record.metric = list(dataset.labels.names), dataset.metric
            for domain in self.record.domains:
                folder = self.out / "input" / "test" / domain
                demo_files.write_inputs(self.out, domain, read_pairs(folder / "images", folder / "labels"))
            stems = [case.stem for case in dataset.validation()]
            folder = self.out / "input"
            demo_files.write_inputs(self.out, VALIDATION, read_pairs(folder / "images", folder / "labels", stems))
        left = max(self.total_seconds - self.spent(), 0.25 * self.total_seconds)
        ours = 0.5 * TRAINING_SHARE * left
        self.record.budget = {"gan": (1 - ENCODER_SHARE) * ours, "encoder": ENCODER_SHARE * ours}
        self.save()

    def train_ours(self) -> None:
        for stage, chapter in OURS.items():
            self._train("semgan", stage, chapter, self.record.budget[stage])
        self._add_method("semgan-live", self._ours_seconds())

    def train_rival(self) -> None:
        self._train("unet", "all", RIVAL, self._ours_seconds())
        self._add_method("unet-live", self.record.chapters[RIVAL])

    def _ours_seconds(self) -> float:
        return sum(self.record.chapters[chapter] for chapter in OURS.values())

    def _run_seconds(self, run: str, stage: str | None = None) -> float:
        seconds = read_history(self.out / "runs" / run / "metrics.jsonl").seconds
        return sum(seconds.values()) if stage is None else seconds.get(stage, 0.0)

    def _train(self, method: str, stage: str, chapter: str, seconds: float) -> None:
        """One stage for the seconds it has left; a stage interrupted before has used some of them."""
        if self.is_done(chapter):
            return
        from semgan.train import train

        used = self._run_seconds(method, None if stage == "all" else stage)
        with self.chapter(chapter, earlier=used):
            train(
                self.out / "dataset",
                self.out / "runs" / method,
                recipe=self.plan.recipe or RECIPES[self.record.family],
                method=method,
                seed=self.record.seed,
                stage=stage,
                max_minutes=max(seconds - used, 1.0) / 60,
                changes=[f"preprocessing.size_px={self.plan.size_px}", *self.plan.changes],
                device=self.device,
                progress=self.report,
            )

    def _add_method(self, name: str, seconds: float | None = None) -> None:
        """Enter a method into the comparison; ``seconds`` of training where this demo did it."""
        if name in self.record.methods:
            return
        kind, _, weights = name.rpartition("-")
        steps = list(self.plan.steps) if kind == "semgan" else [0]
        trained = _training_text(self._model_folder(name), seconds)
        self.record.methods[name] = Method(TITLES[kind], weights, trained, steps, steps[-1])
        self.save()

    def segment(self) -> None:
        """Every method on every domain and on the validation pictures, then the scores."""
        self._find_shipped()
        folders = {name: self._model_folder(name) for name in self.record.methods}
        for name, folder in folders.items():
            chapter = f"segment: {self.record.methods[name].title} ({self.record.methods[name].weights})"
            if self.is_done(chapter):
                continue
            with self.chapter(chapter):
                self._segment_with(name, folder)

    def _find_shipped(self) -> None:
        """Note which longer-trained weights are installed; in the record, so that the report says which is which."""
        if self.record.notes or any(method.weights == "shipped" for method in self.record.methods.values()):
            return
        folder = self._model_folder("semgan-shipped")
        if (folder / "config.json").is_file():
            self._add_method("semgan-shipped")
            if (self._model_folder("unet-shipped") / "config.json").is_file():
                self._add_method("unet-shipped")
            note = (
                "Methods marked 'live' were trained by this demo in the time stated; 'shipped' weights come with the "
                "package, trained longer before by the same recipe."
            )
        else:
            note = (
                f"No longer-trained weights for {self.record.family} come with this installation: all methods shown "
                "were trained live, in the time stated."
            )
        self.record.notes.append(note)
        self.save()

    def _model_folder(self, name: str) -> Path:
        method, _, weights = name.rpartition("-")
        if weights == "live":
            return self.out / "runs" / method
        return WEIGHTS / (f"phantoms-{self.record.family}" + ("" if method == "semgan" else f"-{method}"))

    def _segment_with(self, name: str, folder: Path) -> None:
        import semgan
        from semgan.runtime.device import prepare_cpu

        prepare_cpu()
        segmenter, method = semgan.load(folder, device=self.device), self.record.methods[name]
        self._choose_image_count(segmenter, method)
        domains = [VALIDATION, *self.record.domains]
        what = f"segment with {method.title} ({method.weights})"
        began = monotonic()
        for done, domain in enumerate(domains):
            self.report(done, len(domains), what)
            inputs = demo_files.read_inputs(self.out, domain)
            pictures = inputs.image[: self.record.images_per_domain]
            demo_files.write_answers(self.out, name, domain, segment_pictures(segmenter, pictures, method.steps, KEPT))
        self.report(len(domains), len(domains), what)
        method.segment_seconds = round(monotonic() - began, 2)

    def _choose_image_count(self, segmenter: Any, method: Method) -> None:
        """As many images per domain as the time left allows, found by trying two steps; once for the whole demo."""
        if self.record.images_per_domain:
            return
        pictures = demo_files.read_inputs(self.out, self.record.domains[0]).image
        optimised = sum(len(each.steps) > 1 for each in self.record.methods.values())
        segment_pictures(segmenter, pictures, [0], 0)  # the first call is slow for reasons of its own
        began = monotonic()
        segment_pictures(segmenter, pictures, [0, 2] if len(method.steps) > 1 else [0], 0)
        per_image = (monotonic() - began) / 3 * (max(method.steps) + 1) / len(pictures)
        left = self.total_seconds - self.spent() - REPORT_SECONDS
        affordable = int(0.85 * left / max(optimised * (len(self.record.domains) + 1) * per_image, 1e-9))
        most = min(self.plan.test, len(pictures))
        self.record.images_per_domain = max(min(FEWEST_IMAGES, most), min(affordable, most))
        self.save()

    def tell(self) -> None:
        """Scores, the page and the sheet; written anew on every call, since that costs seconds."""
        from semgan.report.demo_report import write_demo_report

        with self.chapter("scores and report"):
            rows = score(self.out, self.record)
            (self.out / "scores.csv").unlink(missing_ok=True)
            append_rows(self.out / "scores.csv", rows)
            self.save()
        self.report(0, 1, "write report")
        write_demo_report(self.out)
        self.report(1, 1, "write report")
        if self._progress is not None:
            whole = int(max(self.total_seconds, self.spent() + 1))
            self._progress(whole, whole, WHOLE)


def _training_text(folder: Path, seconds: float | None) -> str:
    """How long and on how many images a method was trained, from the log of its run or the one beside its weights."""
    from semgan.report.run_report import duration

    history = read_history(folder / "metrics.jsonl")
    if seconds is None and not history.seconds:
        return "longer, by the same recipe"
    images = " + ".join(f"{count:,}" for count in history.images.values()) or "0"
    return f"{duration(sum(history.seconds.values()) if seconds is None else seconds)}, {images} images"
