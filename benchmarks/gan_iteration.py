"""A GAN iteration at the authors' widths: ours against the straightforward formulation (plain_gan.py), side by side.

    python benchmarks/gan_iteration.py                          # 64 px, batch 4; writes gan_iteration-64.csv, .md, .png
    python benchmarks/gan_iteration.py --size-px 256 --batch 2 --rounds 1
    python benchmarks/gan_iteration.py --width-multiplier 0.25  # a slim network
    python benchmarks/gan_iteration.py --precision bfloat16     # instead of the faster one of this machine

RGB images, 8 classes, channel multiplier 2 (512 channels up to 64 px, 256 at 128, 128 at 256), the recipe's losses. An
iteration is priced as the mean over a whole period of the lazy regularisers, from three kinds of steps: none, path
length, and both. The peak is the best of torch's convolutions in float32 and bfloat16, forward and backward; operations
are those that were made (Winograd's convolutions make a quarter). Losses of the first step of both sides are compared.
Everything is measured in turn, round after round; medians and each round's ratios are given.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from fractions import Fraction

import semgan  # noqa: F401  # sets how torch's threads wait

# isort: split
import torch
from plain_gan import PlainGanStage
from speed import (
    HERE,
    Case,
    OperationCounter,
    RandomStream,
    convolution_case,
    place,
    synchronise,
)
from tables import write_tables
from torch import Tensor

from semgan import recipes
from semgan.artifacts import git_commit, versions
from semgan.config import Settings, override
from semgan.runtime.device import choose_device, faster_precision, prepare_cpu
from semgan.stages.stage1_gan import GanStage
from semgan.types import LabelSpace

PEAK_SHAPES = ((128, 32, 32), (256, 32, 16), (512, 32, 4), (512, 64, 4))  # channels, side, images


@dataclass
class Side:
    """One formulation. seconds, flops: by kind of step; losses: of the first step."""

    name: str
    stage: GanStage
    seconds: dict[str, list[float]] = field(default_factory=dict)
    flops: dict[str, float] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)

    def step(self, kind: str, number: int, device: torch.device, *, kept: bool) -> None:
        synchronise(device)
        began = time.perf_counter()
        self.stage.step(number * self.stage.batch)
        synchronise(device)
        if kept:
            self.seconds.setdefault(kind, []).append(time.perf_counter() - began)

    def iteration(self, shares: dict[str, Fraction], round_number: int) -> float:
        return sum(float(share) * self.seconds[kind][round_number] for kind, share in shares.items())

    def operations(self, shares: dict[str, Fraction]) -> float:
        return sum(float(share) * self.flops[kind] for kind, share in shares.items())


def kinds_of(settings: Settings) -> tuple[dict[str, int], dict[str, Fraction]]:
    """Kind of step -> number of a step of that kind, and its share of all steps."""
    gan = settings.gan
    if gan.path_length_weight == 0:
        return {"both": 0, "none": 1}, {"both": Fraction(1, gan.r1_every), "none": 1 - Fraction(1, gan.r1_every)}
    if gan.r1_every % gan.path_length_every:
        raise SystemExit("This program expects path_length_every to divide r1_every.")
    both, path = Fraction(1, gan.r1_every), Fraction(1, gan.path_length_every)
    numbers = {"both": 0, "none": 1, "path length": gan.path_length_every}
    return numbers, {"both": both, "none": 1 - path, "path length": path - both}


def settings_of(size_px: int, batch: int, width_multiplier: float, precision: str) -> Settings:
    changes = {
        "preprocessing": {"size_px": size_px},
        "generator": {"widths": None, "width_multiplier": width_multiplier},
        "critics": {"widths": None},
        "gan": {"batch": batch, "precision": precision},
    }
    return override(recipes.load("faces"), changes, "the benchmark")


def sides_of(settings: Settings, device: torch.device) -> list[Side]:
    rule, classes = settings.preprocessing, len(settings.classes)
    stream = RandomStream(rule.channels, rule.size_px, True, settings.gan.batch, classes)
    options = {"labelled": stream, "real_images": stream, "device": device}
    kinds = {"straightforward": PlainGanStage, "semgan": GanStage}
    return [Side(name, kind(settings, LabelSpace(settings.classes), **options)) for name, kind in kinds.items()]


def warm_up(sides: list[Side], numbers: dict[str, int]) -> None:
    """One step of every kind, with its operations counted; the losses of the first are kept."""
    for side in sides:
        for kind, number in numbers.items():
            with OperationCounter() as counter:
                losses = side.stage.step(number * side.stage.batch)
            side.flops[kind] = float(counter.total)
            side.losses = side.losses or losses


def measure(
    sides: list[Side], peaks: list[Case], numbers: dict[str, int], rounds: int, device: torch.device
) -> list[float]:
    """Times of all steps, into the sides; operations per second of the fastest convolution, by round."""
    tops = []
    for case in peaks:
        case.work()
    for _ in range(rounds):
        speeds = []
        for case in peaks:
            synchronise(device)
            began = time.perf_counter()
            case.work()
            synchronise(device)
            speeds.append(case.flops / (time.perf_counter() - began))
        tops.append(max(speeds))
        for kind, number in numbers.items():
            for side in sides:
                side.step(kind, number, device, kept=True)
    return tops


def table(sides: list[Side], shares: dict[str, Fraction], tops: list[float]) -> list[dict[str, object]]:
    plain, rows = sides[0], []
    for side in sides:
        times = [side.iteration(shares, number) for number in range(len(tops))]
        ratios = [plain.iteration(shares, number) / own for number, own in enumerate(times)]
        reached = [side.operations(shares) / own / top for own, top in zip(times, tops, strict=True)]
        rows.append(
            {
                "formulation": side.name,
                "seconds_per_iteration": round(statistics.median(times), 3),
                "times_faster": round(statistics.median(ratios), 2),
                "times_faster_min": round(min(ratios), 2),
                "times_faster_max": round(max(ratios), 2),
                "gflop_per_iteration": round(side.operations(shares) / 1e9, 1),
                "gflop_per_second": round(side.operations(shares) / statistics.median(times) / 1e9, 1),
                "share_of_peak": round(statistics.median(reached), 3),
                "peak_gflop_per_second": round(statistics.median(tops) / 1e9, 1),
                "rounds": len(tops),
            }
        )
    return rows


def difference(sides: list[Side]) -> str:
    """The largest difference of the first step's losses, relative to the larger of 1 and the loss."""
    plain, ours = (side.losses for side in sides)
    apart = {name: abs(float(ours[name]) - float(plain[name])) / max(1.0, abs(float(plain[name]))) for name in plain}
    worst = max(apart, key=lambda name: apart[name])
    return f"Losses of the first step differ by at most {apart[worst]:.1%} ({worst})"


def plot(rows: list[dict[str, object]], name: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 1.9), layout="constrained")
    values = [float(str(row["seconds_per_iteration"])) for row in rows][::-1]
    bars = axes.barh([str(row["formulation"]) for row in rows][::-1], values, color=["#0072b2", "#999999"])
    axes.bar_label(bars, [f"{row['times_faster']}x" for row in rows][::-1], padding=3)
    axes.set_xlim(0, 1.12 * max(values))
    axes.set_xlabel("seconds per iteration")
    figure.savefig(HERE / f"{name}.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--width-multiplier", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto", help="of ours")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = choose_device(args.device)
    prepare_cpu(training=True)
    precision = faster_precision(device.type) if args.precision == "auto" else args.precision
    settings = settings_of(args.size_px, args.batch, args.width_multiplier, precision)
    numbers, shares = kinds_of(settings)
    sides = sides_of(settings, device)
    warm_up(sides, numbers)
    kinds = (torch.float32, torch.bfloat16)
    peaks = [convolution_case(device, *shape, dtype) for shape in PEAK_SHAPES for dtype in kinds]
    rows = table(sides, shares, measure(sides, peaks, numbers, args.rounds, device))
    name = f"gan_iteration-{args.size_px}" + ("" if args.width_multiplier == 2 else f"-x{args.width_multiplier:g}")
    name += "" if args.precision == "auto" else f"-{args.precision}"
    note = (
        f"{args.size_px} px, batch {args.batch}, width multiplier {args.width_multiplier:g}, RGB, 8 classes, "
        f"ours in {precision}, {place(device)}, torch {versions()['torch']}, commit {git_commit()}. "
        f"{difference(sides)}. Command: `python benchmarks/gan_iteration.py --size-px {args.size_px} "
        f"--batch {args.batch} --width-multiplier {args.width_multiplier:g} --rounds {args.rounds} "
        f"--precision {args.precision}`."
    )
    write_tables(HERE / name, "GAN iteration", rows, note)
    plot(rows, name)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
