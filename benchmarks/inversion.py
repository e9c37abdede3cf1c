"""Seconds per image to the validation score that the plain protocol reaches: that protocol against ours, in one run.

    python benchmarks/inversion.py -m RUN --data DATASET               # writes benchmarks/inversion.csv, .md and .png
    python benchmarks/inversion.py -m RUN --data DATASET --images 8    # few images, on a busy machine

The plain protocol is written out here as the paper describes it: one image at a time, 200 steps of Adam, float32, the
input's features computed anew in every step, nothing kept. Both take the objective, the learning rate and the networks
of the model, and its validation images; scores are at the network's resolution. Ours is timed at rising numbers of
steps, and by the model's stopping rule where it has one; the first number of steps that reaches the plain score is
told. Step 0 is the encoder alone.
Protocols take turns, round after round, and the medians count. Times are wall time, so nothing else should run;
``--clock cpu`` takes processor time instead, for a busy machine (OMP_NUM_THREADS=1 makes the two comparable).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import write_tables
from torch import Tensor

import semgan  # noqa: F401  # before torch: sets how its threads wait
from semgan.artifacts import git_commit, versions
from semgan.config import override
from semgan.data.folder import Dataset
from semgan.data.loading import load_labels
from semgan.data.readers import read_image
from semgan.metrics import overlap
from semgan.objectives.reconstruction import pixel_distance
from semgan.objectives.segmentation import probabilities
from semgan.runtime.device import faster_precision, prepare_cpu
from semgan.runtime.modes import frozen
from semgan.stages.semantic_gan import SemanticGan

HERE = Path(__file__).parent
MARKS = (0, 10, 25, 50, 100, 200)  # steps of the plain protocol whose masks are scored
OURS = (0, 2, 5, 10, 15, 25, 50, 100)


@dataclass
class Task:
    """A model and the validation images it is measured on."""

    model: SemanticGan
    image: Tensor
    truths: np.ndarray
    clock: Callable[[], float]

    @classmethod
    def load(cls, run: Path, data: Path, count: int, device: str, clock: str, precision: str | None) -> Task:
        model, dataset = SemanticGan.load(run, device=device), Dataset.open(data)
        if precision is not None:
            model.settings = override(model.settings, {"inversion": {"precision": precision}})
        cases = dataset.validation()[:count]
        if len(cases) < 2:
            raise SystemExit(f"{data} has {len(cases)} validation images; at least 2 are needed.")
        size_px = model.settings.preprocessing.size_px
        image = torch.stack([model.preprocess(read_image(case.image)) for case in cases])
        truths = load_labels(cases, size_px, dataset.labels, dataset.ignore)
        seconds = time.perf_counter if clock == "wall" else time.process_time
        return cls(model, image.to(model.device), np.asarray(truths), seconds)

    def score(self, masks: Tensor) -> float:
        classes = self.model.labels.classes
        pairs = zip(masks.byte().cpu().numpy(), self.truths, strict=True)
        counts = overlap.concatenate(overlap.count(mask, truth, classes) for mask, truth in pairs)
        return overlap.overall(counts, self.model.settings.metric)


def plain_loss(model: SemanticGan, image: Tensor, code: Tensor) -> tuple[Tensor, Tensor]:
    """Eq. 7 of one image ``[1, channels, size_px, size_px]`` and its logits, all computed anew."""
    settings = model.settings.inversion
    whitened = settings.space == "whitened"
    joint = model.generator.synthesis(model.whitening.to_w(code) if whitened else code)
    loss = model.perceptual.distance(model.perceptual.features(joint.image), model.perceptual.features(image))
    loss = loss + settings.lambda_pixel * pixel_distance(joint.image, image, settings.reduction)
    if settings.lambda_encoder:
        assert model.encoder is not None
        back = model.encoder(joint.image)
        gap = (code - (back if whitened else model.whitening.to_w(back))).square()
        loss = loss + settings.lambda_encoder * (gap.sum() if settings.reduction == "sum" else gap.mean())
    if settings.lambda_prior:
        v = code if whitened else model.whitening.to_v(code)
        loss = loss + settings.lambda_prior * v.square().mean()
    return loss.sum(), joint.logits


def plain(task: Task, steps: int) -> dict[int, Tensor]:
    """The plain protocol; masks ``[images, size_px, size_px]`` at the marks."""
    model, kept = task.model, {mark: [] for mark in (*MARKS, steps) if mark <= steps}
    assert model.encoder is not None
    with frozen(model.generator, model.encoder, model.whitening, model.perceptual):
        for row in range(len(task.image)):
            image = task.image[row : row + 1]
            with torch.no_grad():
                v = model.encoder(image)
                code = v if model.settings.inversion.space == "whitened" else model.whitening.to_w(v)
            code = code.clone().requires_grad_()
            optimiser = torch.optim.Adam([code], lr=model.settings.inversion.learning_rate)
            for step in range(steps + 1):
                loss, logits = plain_loss(model, image, code)
                if step in kept:
                    kept[step].append(probabilities(logits.detach()).argmax(1)[0])
                if step < steps:
                    (code.grad,) = torch.autograd.grad(loss, code)
                    optimiser.step()
    return {mark: torch.stack(masks) for mark, masks in kept.items()}


def timed(task: Task, work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` gives, and its seconds per image."""
    _synchronise(task)
    began = task.clock()
    found = work()
    _synchronise(task)
    return found, (task.clock() - began) / len(task.image)


def _synchronise(task: Task) -> None:
    if task.model.device.type == "cuda":
        torch.cuda.synchronize(task.model.device)


def row(protocol: str, steps: object, score: float, seconds: Sequence[float], plain_seconds: Sequence[float]) -> dict:
    ratios = [theirs / ours for theirs, ours in zip(plain_seconds, seconds, strict=True)]
    return {
        "protocol": protocol,
        "steps": steps,
        "score": round(score, 4),
        "seconds_per_image": round(statistics.median(seconds), 4),
        "times_faster": round(statistics.median(ratios), 1),
        "ratio_min": round(min(ratios), 1),
        "ratio_max": round(max(ratios), 1),
        "rounds": len(seconds),
    }


def measure(task: Task, rounds: int, plain_steps: int) -> tuple[list[dict], dict[int, float]]:
    """The table's rows, and the plain protocol's score at its marks."""
    model, image = task.model, task.image
    snapshots = model.segment_batch(image, steps=max(OURS), snapshot_steps=OURS).snapshots
    scores = {step: task.score(found.argmax(1)) for step, found in snapshots.items()}
    marks: dict[int, float] = {}
    seconds: dict[object, list[float]] = {}
    for _ in range(rounds):
        masks, spent = timed(task, lambda: plain(task, plain_steps))
        seconds.setdefault("plain", []).append(spent)
        if not marks:
            marks = {mark: task.score(found) for mark, found in masks.items()}
        for step in OURS:
            seconds.setdefault(step, []).append(timed(task, lambda at=step: model.segment_batch(image, steps=at))[1])
        if model.rule is not None:
            answer, spent = timed(task, lambda: model.segment_batch(image, steps="auto"))
            seconds.setdefault("auto", []).append(spent)
            scores["auto"] = task.score(answer.label_map)  # type: ignore[index]
    base = seconds.pop("plain")
    rows = [row("plain", plain_steps, marks[plain_steps], base, base)]
    return rows + [row("ours", steps, scores[steps], spent, base) for steps, spent in seconds.items()], marks  # type: ignore[index]


def note_on(rows: list[dict], task: Task, args: argparse.Namespace) -> str:
    goal = rows[0]["score"]
    reached = [each for each in rows[1:] if each["score"] >= goal and each["steps"] not in (0, "auto")]
    found = (
        f"Ours reaches the plain score with {reached[0]['steps']} steps, {reached[0]['times_faster']} times faster"
        if reached
        else "Ours reaches the plain score at no number of optimisation steps tried"
    )
    alone = (
        "; the encoder alone (step 0) reaches it too"
        if any(each["steps"] == 0 and each["score"] >= goal for each in rows[1:])
        else ""
    )
    device = task.model.device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    chosen = "" if args.precision is None else f" --precision {args.precision}"
    precision = task.model.settings.inversion.precision
    precision = faster_precision(device.type) if precision == "auto" else precision
    words = (
        f"--images {args.images} --rounds {args.rounds} --plain-steps {args.plain_steps} --clock {args.clock}{chosen}"
    )
    return (
        f"{found}{alone}. {len(task.image)} validation images of {args.name or args.data.name}, metric "
        f"{task.model.settings.metric}, model `{args.model.name}`, ours in {precision}, {where}, torch "
        f"{versions()['torch']}, commit {git_commit()}. Command: `python benchmarks/inversion.py -m RUN --data DATASET "
        f"{words}`. Medians over the rounds; {'wall' if args.clock == 'wall' else 'processor'} time."
    )


def plot(rows: list[dict], marks: dict[int, float], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    steps, per_image = rows[0]["steps"], rows[0]["seconds_per_image"]
    times = [per_image * (mark + 1) / (steps + 1) for mark in marks]
    axes.plot(times, list(marks.values()), "o-", color="#d55e00", label="plain protocol")
    for each in rows[1:]:
        axes.plot(each["seconds_per_image"], each["score"], "o", color="#0072b2")
        at = (each["seconds_per_image"], each["score"])
        axes.annotate(str(each["steps"]), at, (4, 4), textcoords="offset points")
    axes.plot([], [], "o", color="#0072b2", label="ours, by steps")
    axes.axhline(rows[0]["score"], color="#999999", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("seconds per image")
    axes.set_ylabel("validation score")
    axes.legend()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-m", "--model", type=Path, required=True, help="run folder or model folder")
    parser.add_argument("--data", type=Path, required=True, help="the prepared dataset it was trained on")
    parser.add_argument("--name", help="of the dataset, in the table's note")
    parser.add_argument("--images", type=int, default=32, help="validation images, the first of the list")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--plain-steps", type=int, default=200)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), help="of ours; else the model's own")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=HERE / "inversion", help="name of the files, without ending")
    args = parser.parse_args()
    prepare_cpu()
    task = Task.load(args.model, args.data, args.images, args.device, args.clock, args.precision)
    rows, marks = measure(task, args.rounds, args.plain_steps)
    write_tables(args.out, "Inversion", rows, note_on(rows, task, args))
    plot(rows, marks, args.out.with_suffix(".png"))
    for each in rows:
        print(each)


if __name__ == "__main__":
    main()
