"""Loader: the share of the time of training that waits for data, for each stage and a U-Net; wanted: under 3 %.

    python benchmarks/loader.py                              # recipe lungs-64 on procedural chests of 64 px
    python benchmarks/loader.py --dataset data --recipe skin-64 --images 4096 -o FOLDER

Batches are taken where they are used, so what a step waits for data is the time inside `ImageStream.batch`: it is
measured there, and compared with the time inside the stages' ``step``. The first steps, which warm up, are left out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from tables import write_tables

import semgan
from semgan.artifacts import git_commit, versions
from semgan.baselines.stage import BaselineStage
from semgan.data.loading import ImageStream
from semgan.data.phantoms import write_phantom_dataset
from semgan.data.prepare.folder import prepare_folder
from semgan.stages.stage1_gan import GanStage
from semgan.stages.stage2_encoder import EncoderStage
from semgan.train import train

HERE = Path(__file__).parent
WARM_UP = 2  # steps


class Clock:
    """Seconds inside functions of classes, under a name; the first calls under each name are left out."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self.stage: str = ""

    def time_steps(self, owner: type, name: str) -> None:
        real, clock = owner.step, self  # type: ignore[attr-defined]

        def step(stage: Any, images_seen: int) -> Any:
            clock.stage = name if clock.calls[name] >= WARM_UP else ""
            clock.calls[name] += 1
            return clock.timed(clock.stage, lambda: real(stage, images_seen))

        owner.step = step  # type: ignore[attr-defined]

    def time_batches(self) -> None:
        real, clock = ImageStream.batch, self

        def batch(stream: ImageStream, first_index: int, count: int) -> Any:
            return clock.timed(clock.stage and f"{clock.stage}, data", lambda: real(stream, first_index, count))

        ImageStream.batch = batch  # type: ignore[method-assign]

    def timed(self, name: str, work: Any) -> Any:
        began = time.perf_counter()
        result = work()
        if name:
            self.seconds[name] += time.perf_counter() - began
        return result


def chests(folder: Path) -> Path:
    """A prepared dataset of procedural chests."""
    plain = write_phantom_dataset(
        folder / "plain", "chests", size_px=64, labelled=12, unlabelled=120, validation=4, test=0, seed=1
    )
    named = {"unlabelled": plain / "unlabelled", "manifest": plain / "manifest.csv", "classes": plain / "classes.json"}
    prepare_folder(plain / "images", plain / "labels", folder / "dataset", **named, workers=1)
    return folder / "dataset"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="prepared dataset; default: procedural chests")
    parser.add_argument("--recipe", default="lungs-64")
    parser.add_argument("--images", type=int, default=640, help="images seen by each stage")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    args = parser.parse_args()
    clock = Clock()
    stages = {"GAN": GanStage, "encoder": EncoderStage, "U-Net": BaselineStage}
    for name, owner in stages.items():
        clock.time_steps(owner, name)
    clock.time_batches()
    changes = [f"{part}.images={args.images}" for part in ("gan", "encoder", "baseline")]
    changes += ["inversion.steps=1", f"device={args.device}"]
    with tempfile.TemporaryDirectory() as folder:
        dataset = args.dataset or chests(Path(folder))
        for method in ("semgan", "unet"):
            train(dataset, Path(folder) / method, recipe=args.recipe, method=method, changes=changes)
    rows = []
    for name in stages:
        whole, data = clock.seconds[name], clock.seconds[f"{name}, data"]
        steps = clock.calls[name] - WARM_UP
        row = {"stage": name, "steps": steps, "ms_per_step": round(1000 * whole / steps, 1)}
        rows.append({**row, "ms_data": round(1000 * data / steps, 2), "share": f"{data / whole:.2%}"})
        print(rows[-1])
    note = (
        f"Recipe `{args.recipe}`, {len(semgan.CORES)} cores, threads: {os.environ.get('OMP_NUM_THREADS', 'all')}, "
        f"device {args.device}, torch {versions()['torch']}, commit {git_commit()}. "
        f"Command: `{' '.join(['python benchmarks/loader.py', *sys.argv[1:]])}`."
    )
    write_tables(args.out / "loader", "Waiting for data", rows, note)


if __name__ == "__main__":
    main()
