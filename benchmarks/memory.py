"""Memory by the number of unlabelled images: preparing a dataset, making its cache and training, at 1k, 10k and 108k.

    python benchmarks/memory.py                    # writes benchmarks/memory.csv, memory.md; 1 GB of disk
    python benchmarks/memory.py --images 1000 5000 # a short try

The images are made up (blocks of noise, no two alike) and labelled for the first 20. Every command is the user's own,
in a process of its own, preparing with one worker. What counts is memory that cannot be given back: pages that are not
of a file (Pss_Anon: each is counted once, however many of the command's processes share it), looked at every 50 ms. A
cache's pages are of a file, which the kernel drops when memory is short.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tables import write_tables

from semgan.artifacts import git_commit, versions

HERE = Path(__file__).parent
SIZES = (1_000, 10_000, 108_000)
LABELLED, SIDE, BLOCK = 20, 64, 8
PAUSE = 0.05  # seconds between looks at a command's memory


def write_images(folder: Path, count: int) -> None:
    for name in ("labelled", "masks", "more"):
        (folder / name).mkdir()
    random = np.random.default_rng(0)
    for number in range(count + LABELLED):
        coarse = random.integers(0, 256, (SIDE // BLOCK, SIDE // BLOCK), dtype=np.uint8)
        picture = Image.fromarray(coarse.repeat(BLOCK, 0).repeat(BLOCK, 1))
        picture.save(folder / ("labelled" if number < LABELLED else "more") / f"{number:06d}.png")
        if number < LABELLED:
            Image.fromarray((np.asarray(picture) > 127).astype(np.uint8)).save(folder / "masks" / f"{number:06d}.png")


def anonymous_mb(pid: int) -> float:
    """Of a process and its children, in MB; 0 for one that has ended."""
    total, open_pids = 0.0, [pid]
    while open_pids:
        one = Path(f"/proc/{open_pids.pop()}")
        try:
            lines = (one / "smaps_rollup").read_text().splitlines()
            children = [path.read_text() for path in one.glob("task/*/children")]
            open_pids += [int(word) for word in " ".join(children).split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss_Anon"))
    return total


def peak_mb(*words: str) -> tuple[float, float]:
    """Largest memory and seconds of a command; raises where it fails."""
    began, most = time.perf_counter(), 0.0
    with subprocess.Popen([sys.executable, "-m", "semgan", *words], stdout=subprocess.DEVNULL) as running:
        while running.poll() is None:
            most = max(most, anonymous_mb(running.pid))
            time.sleep(PAUSE)
    if running.returncode:
        raise SystemExit(f"semgan {' '.join(words)} ended with {running.returncode}.")
    return most, time.perf_counter() - began


def row_of(count: int, work: Path) -> dict[str, object]:
    write_images(work, count)
    data, run = str(work / "dataset"), str(work / "run")
    prepared = peak_mb(
        *("data", "prepare", "folder", "--images", f"{work}/labelled", "--labels", f"{work}/masks"),
        *("--unlabelled", f"{work}/more", "--workers", "1", "-o", data),
    )
    changes = ("gan.images=160", "run.preview_every_images=null", "run.checkpoint_every_images=160")
    words = [word for change in changes for word in ("--set", change)]
    start = ("--recipe", "lungs-64", "--stage", "gan", "--device", "cpu", *words)
    trained, again = (peak_mb("train", data, "-o", f"{run}-{number}", *start) for number in range(2))
    return {
        "images": count,
        "prepare_mb": round(prepared[0]),
        "cache_and_train_mb": round(trained[0]),
        "train_mb": round(again[0]),
        "prepare_s": round(prepared[1]),
        "cache_and_train_s": round(trained[1]),
        "train_s": round(again[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=list(SIZES))
    args = parser.parse_args()
    rows = []
    for count in args.images:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(row_of(count, Path(folder)))
        print(rows[-1], flush=True)
    note = (
        f"Training of 160 images by lungs-64, batch 8, on a CPU; train: with the cache at hand. torch "
        f"{versions()['torch']}, commit {git_commit()}. Seconds are beside other work. Command: `python "
        f"benchmarks/memory.py --images {' '.join(map(str, args.images))}`."
    )
    write_tables(HERE / "memory", "Memory by the number of images", rows, note)


if __name__ == "__main__":
    main()
