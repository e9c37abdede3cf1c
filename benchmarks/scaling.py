"""Images/s of one and of two processes of one thread each, for a GAN iteration, an encoder step and a U-Net step.

    python benchmarks/scaling.py                # writes benchmarks/scaling.csv, scaling.md and scaling.png
    python benchmarks/scaling.py --rounds 9     # more rounds on a noisy machine

One process with a batch, two that share this batch, and two with twice the batch, in turn within one run, round after
round, because machines are shared: the table gives medians, and the speed-up is the median of each round's own ratio to
one process. Starts its processes itself, on one machine, with gloo.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch loads
import numpy as np
import torch
from tables import write_tables

import semgan  # noqa: F401  # before torch: sets how its threads wait
from semgan import ranks, recipes
from semgan.artifacts import git_commit, versions
from semgan.baselines.stage import BaselineStage, Streams
from semgan.config import Settings, override
from semgan.data.loading import ImageStream
from semgan.models.perceptual import DiscriminatorDistance
from semgan.models.whitening import fit_whitening
from semgan.runtime.device import prepare_cpu
from semgan.stages.stage1_gan import GanStage
from semgan.stages.stage2_encoder import EncoderStage, build_encoder
from semgan.types import LabelSpace

HERE = Path(__file__).parent
CPU = torch.device("cpu")
PROCESSES = 2
BATCH = 32
STEPS = {"GAN iteration": 16, "encoder step": 4, "U-Net step": 8}  # 16: a whole period of the lazy regularisers
MODES = {"one process": 1, "two processes": 1, "two processes, twice the batch": 2}  # and their batches


def stream(settings: Settings, name: str, labelled: bool) -> ImageStream:
    rule, random = settings.preprocessing, np.random.default_rng(0)
    images = random.integers(0, 256, (64, rule.channels, rule.size_px, rule.size_px), dtype=np.uint8)
    label_maps = images[:, 0] // 128 if labelled else None
    return ImageStream(images, label_maps, seed=0, stream_name=name, mirror=True)


def build_gan(settings: Settings) -> GanStage:
    streams = {"labelled": stream(settings, "labelled", True), "real_images": stream(settings, "images", False)}
    return GanStage(settings, LabelSpace(settings.classes), **streams, device=CPU)


def build_encoder_stage(settings: Settings) -> EncoderStage:
    gan = build_gan(settings)
    return EncoderStage(
        settings,
        generator=gan.average,
        whitening=fit_whitening(gan.average, samples=2000),
        perceptual=DiscriminatorDistance(gan.image_critic.requires_grad_(False)),
        encoder=build_encoder(settings, gan.average),
        labelled=stream(settings, "labelled", True),
        unlabelled=stream(settings, "images", False),
        device=CPU,
    )


def build_unet(settings: Settings) -> BaselineStage:
    return BaselineStage(settings, LabelSpace(settings.classes), Streams(stream(settings, "labelled", True)), CPU)


CASES: dict[str, Callable[[Settings], Any]] = {
    "GAN iteration": build_gan,
    "encoder step": build_encoder_stage,
    "U-Net step": build_unet,
}


def settings_of(recipe: str, batch: int) -> Settings:
    return override(recipes.load(recipe), {part: {"batch": batch} for part in ("gan", "encoder", "baseline")})


def seconds_of(stage: Any, steps: int) -> float:
    """Of some steps, until the slowest process has taken them."""
    began = time.perf_counter()
    for step in range(steps):
        stage.step(step * stage.batch)
    ranks.wait()
    return time.perf_counter() - began


def measure(recipe: str, batch: int, rounds: int, share_of_steps: float) -> list[dict[str, object]]:
    """Rows of the table; all processes take part, and while one is measured the others wait."""
    rows: list[dict[str, object]] = []
    for case, build in CASES.items():
        steps, stages = max(1, round(STEPS[case] * share_of_steps)), {}
        for mode, times in MODES.items():
            if mode != "one process":
                stages[mode] = build(settings_of(recipe, times * batch))
            elif ranks.is_first():
                with ranks.alone():
                    stages[mode] = build(settings_of(recipe, batch))
        paces: dict[str, list[float]] = {mode: [] for mode in MODES}
        for round_number in range(rounds + 1):  # the first one warms up
            for mode in MODES:
                seconds = 0.0
                if mode != "one process":
                    ranks.wait()
                    seconds = seconds_of(stages[mode], steps)
                elif ranks.is_first():
                    with ranks.alone():
                        seconds = seconds_of(stages[mode], steps)
                if round_number and ranks.is_first():
                    paces[mode].append(steps * MODES[mode] * batch / seconds)
        rows += table(case, batch, paces) if ranks.is_first() else []
    return rows


def table(case: str, batch: int, paces: dict[str, list[float]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for mode, found in paces.items():
        ratios = [pace / alone for pace, alone in zip(found, paces["one process"], strict=True)]
        rows.append(
            {
                "case": case,
                "processes": mode,
                "batch": MODES[mode] * batch,
                "images_per_second": round(statistics.median(found), 2),
                "speed_up": round(statistics.median(ratios), 2),
                "speed_up_min": round(min(ratios), 2),
                "speed_up_max": round(max(ratios), 2),
                "rounds": len(found),
            }
        )
    return rows


def plot(rows: list[dict[str, object]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    shown = [row for row in rows if row["processes"] != "one process"][::-1]
    names = [f"{row['case']}, {row['processes']}" for row in shown]
    bars = axes.barh(names, [float(str(row["speed_up"])) for row in shown], color="#0072b2")
    axes.bar_label(bars, [f"{row['speed_up']}" for row in shown], padding=3)
    axes.axvline(PROCESSES, color="0.5", linewidth=1, linestyle=":")
    axes.set_xlim(0, PROCESSES * 1.15)
    axes.set_xlabel("images per second, over those of one process")
    figure.savefig(out / "scaling.png", dpi=130)


def start_processes() -> int:
    """This program again, several times, as torchrun would start it; returns an exit code."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    told = {"WORLD_SIZE": PROCESSES, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = []
    for rank in range(PROCESSES):
        environment = {key: str(value) for key, value in (told | {"RANK": rank, "LOCAL_RANK": rank}).items()}
        started.append(subprocess.Popen([sys.executable, *sys.argv], env=os.environ | environment))
    return max(abs(process.wait()) for process in started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="lungs-64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--share-of-steps", type=float, default=1.0, help="fewer steps per round, for a quick look")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    if not ranks.started_with_others():
        sys.exit(start_processes())
    prepare_cpu(threads=1, training=True)
    with ranks.joined():
        rows = measure(args.recipe, args.batch, args.rounds, args.share_of_steps)
    if rows:
        note = (
            f"Recipe `{args.recipe}`, batch {args.batch}, CPU, {PROCESSES} processes of one thread on "
            f"{os.cpu_count()} cores, gloo, torch {versions()['torch']}, commit {git_commit()}. Command: `python "
            f"benchmarks/scaling.py --recipe {args.recipe} --batch {args.batch} --rounds {args.rounds} "
            f"--share-of-steps {args.share_of_steps:g}`. Medians over the rounds."
        )
        write_tables(args.out / "scaling", "Scaling", rows, note)
        plot(rows, args.out)
        for row in rows:
            print(row)


if __name__ == "__main__":
    main()
