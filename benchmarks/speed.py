"""Images/s of a GAN iteration and of an inversion step, and their share of the machine's measured convolution peak.

    python benchmarks/speed.py                # writes benchmarks/speed.csv, speed.md and speed.png
    python benchmarks/speed.py --rounds 9     # more rounds on a noisy machine

Networks and peak are in the precision that is faster here. Everything is measured in turn within one run, round after
round, because machines are shared: the table gives medians, and the share is the median of each round's own ratio.
Operations are counted by torch's own formulas (convolutions and matrix products, forward and backward).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import semgan  # noqa: F401  # sets how torch's threads wait

# isort: split
import torch
from tables import write_tables
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from semgan import recipes
from semgan.artifacts import git_commit, versions
from semgan.config import Settings, override
from semgan.models.perceptual import DiscriminatorDistance
from semgan.models.whitening import fit_whitening
from semgan.runtime.device import choose_device, faster_precision, prepare_cpu
from semgan.stages.stage1_gan import GanStage
from semgan.stages.stage2_encoder import build_encoder
from semgan.stages.stage3_inversion import invert
from semgan.types import Batch, LabelSpace

HERE = Path(__file__).parent
BATCH = 32
INVERSION_BATCH = 64
STEPS_PER_ROUND = 16  # a whole period of the lazy regularisers


class RandomStream:
    """Stands in for the data, which take no time worth counting."""

    def __init__(self, channels: int, size_px: int, labelled: bool, count: int = BATCH, classes: int = 2):
        self.image = torch.rand(count, channels, size_px, size_px) * 2 - 1
        self.label_map = torch.randint(classes, (count, size_px, size_px)) if labelled else None

    def batch(self, first_index: int, count: int) -> Batch:
        return Batch(torch.arange(first_index, first_index + count), self.image, self.label_map)


@dataclass
class Case:
    """Something to time: ``work`` is one repetition over ``images`` images and ``flops`` operations."""

    name: str
    work: Callable[[], object]
    images: int
    flops: float


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class OperationCounter(TorchDispatchMode):
    """Adds up torch's formulas for convolutions and matrix products. (Its own FlopCounterMode also follows modules,
    and fails on gradients of inputs.)"""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # noqa: ANN001, ANN204
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def counted(work: Callable[[], object]) -> float:
    with OperationCounter() as counter:
        work()
    return float(counter.total)


def convolution_case(
    device: torch.device,
    channels: int = 128,
    side: int = 32,
    count: int = BATCH,
    dtype: torch.dtype = torch.bfloat16,
) -> Case:
    """The peak: a convolution, forward and backward, channels last."""
    x = torch.randn(count, channels, side, side, dtype=dtype, device=device)
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, channels, 3, 3, dtype=dtype, device=device)
    weight = weight.contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.ones_like(x)

    def work() -> None:
        for _ in range(8):
            torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), gradient)

    name = f"convolution peak ({channels} channels, {side} px, {dtype})".replace("torch.", "")
    return Case(name, work, 8 * count, counted(work))


def gan_case(settings: Settings, device: torch.device) -> Case:
    rule = settings.preprocessing
    stage = GanStage(
        settings,
        LabelSpace(settings.classes),
        labelled=RandomStream(rule.channels, rule.size_px, True),  # type: ignore[arg-type]
        real_images=RandomStream(rule.channels, rule.size_px, False),  # type: ignore[arg-type]
        device=device,
    )

    def work() -> None:
        for step in range(STEPS_PER_ROUND):
            stage.step(step * BATCH)

    return Case(f"GAN iteration, {rule.size_px} px", work, STEPS_PER_ROUND * BATCH, counted(work))


def inversion_case(settings: Settings, device: torch.device, steps: int = 4) -> Case:
    rule = settings.preprocessing
    stub = RandomStream(rule.channels, rule.size_px, True)
    stage = GanStage(settings, LabelSpace(settings.classes), labelled=stub, real_images=stub, device=device)  # type: ignore[arg-type]
    generator, whitening = stage.average, fit_whitening(stage.average, samples=2000)
    encoder = build_encoder(settings, generator).to(device).to(memory_format=torch.channels_last).eval()
    perceptual = DiscriminatorDistance(stage.image_critic)
    image = torch.rand(INVERSION_BATCH, rule.channels, rule.size_px, rule.size_px, device=device) * 2 - 1

    def work() -> None:
        invert(generator, encoder, whitening, perceptual, image, settings.inversion, steps=steps)

    # The encoder's start and the last evaluation are part of the price; flops are counted the same way.
    return Case(
        f"inversion step, {rule.size_px} px, batch {INVERSION_BATCH}", work, INVERSION_BATCH * steps, counted(work)
    )


def measure(cases: list[Case], rounds: int, device: torch.device) -> list[list[float]]:
    seconds: list[list[float]] = [[] for _ in cases]
    for round_number in range(rounds + 1):  # the first one warms up
        for number, case in enumerate(cases):
            synchronise(device)
            began = time.perf_counter()
            case.work()
            synchronise(device)
            if round_number:
                seconds[number].append(time.perf_counter() - began)
    return seconds


def table(cases: list[Case], seconds: list[list[float]]) -> list[dict[str, object]]:
    peak = [cases[0].flops / each for each in seconds[0]]
    rows: list[dict[str, object]] = []
    for case, times in zip(cases, seconds, strict=True):
        shares = [case.flops / each / top for each, top in zip(times, peak, strict=True)]
        rows.append(
            {
                "case": case.name,
                "images_per_second": round(case.images / statistics.median(times), 1),
                "gflop_per_image": round(case.flops / case.images / 1e9, 3),
                "gflop_per_second": round(case.flops / statistics.median(times) / 1e9, 1),
                "share_of_peak": round(statistics.median(shares), 3),
                "share_min": round(min(shares), 3),
                "share_max": round(max(shares), 3),
                "rounds": len(times),
            }
        )
    return rows


def plot(rows: list[dict[str, object]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    names = [str(row["case"]) for row in rows][::-1]
    values = [float(str(row["share_of_peak"])) for row in rows][::-1]
    bars = axes.barh(names, values, color="#0072b2")
    axes.bar_label(bars, [f"{value:.0%}" for value in values], padding=3)
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("share of the measured convolution peak")
    figure.savefig(HERE / "speed.png", dpi=130)


def place(device: torch.device) -> str:
    """The machine in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="lungs-64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()
    device = choose_device(args.device)
    prepare_cpu(training=True)
    precision = faster_precision(device.type)
    changes = {
        "gan": {"batch": BATCH, "precision": precision},
        "inversion": {"batch": INVERSION_BATCH, "precision": precision},
    }
    settings = override(recipes.load(args.recipe), changes)
    peak = convolution_case(device, dtype=getattr(torch, precision))
    cases = [peak, gan_case(settings, device), inversion_case(settings, device)]
    rows = table(cases, measure(cases, args.rounds, device))
    note = (
        f"Recipe `{args.recipe}`, batch {BATCH}, {precision}, {place(device)}, torch {versions()['torch']}, commit "
        f"{git_commit()}. Command: `python benchmarks/speed.py --recipe {args.recipe} --rounds {args.rounds}`. "
        "Medians over the rounds."
    )
    write_tables(HERE / "speed", "Speed", rows, note)
    plot(rows)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
