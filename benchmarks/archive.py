"""Archives: images/s of `semgan segment --archive` at steps 0, and the peak of memory for 1k, 10k and 100k images.

    python benchmarks/archive.py                           # writes benchmarks/archive.csv, archive.md and archive.png
    python benchmarks/archive.py --images 500 -o FOLDER    # a short try, written elsewhere
    python benchmarks/archive.py --model RUN --side 256    # another model, larger images

A model that `semgan trust fit --steps 0` was run on has its columns in the tables, so images/s are those with trust.

The images are procedural pictures as PNG, ``--kinds`` different ones, each of which stands in the tar shards many
times over: what is measured is reading, decoding, the network, and writing, and not the drawing. Each size runs in a
process of its own, whose largest resident memory the kernel tells. Where the time goes is measured beside it, stage by
stage on one thread.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tables import write_tables

import semgan  # before torch: sets how its threads wait
from semgan.artifacts import git_commit, versions

HERE = Path(__file__).parent
SIZES = (1_000, 10_000, 100_000)
SHARD = 1000  # images
SMALL_MODEL = Path(semgan.__file__).parent / "weights" / "phantoms-faces"


def pictures(model: Any, kinds: int, side_px: int) -> list[bytes]:
    """Images that the model draws, as PNG files of ``side_px``."""
    from PIL import Image

    files = []
    for image in model.sample(range(kinds)).images:
        file = io.BytesIO()
        Image.fromarray(image).resize((side_px, side_px)).save(file, "PNG")
        files.append(file.getvalue())
    return files


def write_shards(folder: Path, files: list[bytes], images: int) -> str:
    """Tar shards of ``images`` images; the pattern that names them."""
    folder.mkdir()
    count = -(-images // SHARD)
    for shard in range(count):
        with tarfile.open(folder / f"{shard:04d}.tar", "w") as tar:
            for number in range(shard * SHARD, min(images, (shard + 1) * SHARD)):
                info = tarfile.TarInfo(f"{number:08d}.png")
                info.size = len(files[number % len(files)])
                tar.addfile(info, io.BytesIO(files[number % len(files)]))
    return str(folder / f"{{0000..{count - 1:04d}}}.tar")


def worker(model: str, pattern: str, out: str, device: str, batch: int) -> None:
    """Segment one archive and print what it took; runs in a process of its own."""
    from semgan.archive.inputs import Source
    from semgan.archive.run import segment_archive

    cpu = time.process_time()
    done = segment_archive(model, Source(pattern), Path(out), steps=0, device=device, batch=batch)
    used = time.process_time() - cpu
    row = {
        "images": done.images,
        "seconds": done.seconds,
        "images_per_second": done.images_per_second,
        "cpu_ms_per_image": round(1000 * used / done.images, 3),
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    print(json.dumps(row))


def peak_rss_mb() -> float:
    """The largest resident memory of this program. ru_maxrss, where /proc is not at hand, begins at the parent's."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(model: Path, files: list[bytes], images: int, device: str, batch: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        pattern = write_shards(Path(folder) / "in", files, images)
        words = [sys.executable, __file__, "--worker", str(model), pattern, f"{folder}/out", device, str(batch)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        size = sum(path.stat().st_size for path in (Path(folder) / "out").rglob("*") if path.is_file())
        read = sum(path.stat().st_size for path in (Path(folder) / "in").iterdir())
    return {**row, "bytes_read_per_image": read // images, "bytes_written_per_image": size // images}


def stages(model: Any, files: list[bytes]) -> list[tuple[str, float]]:
    """CPU milliseconds per image of each stage, one after another."""
    import torch
    from PIL import Image

    from semgan.data.readers import read_image_bytes
    from semgan.data.whole_images import label_map, to_own_size
    from semgan.trust.signals import measure

    times: list[tuple[str, float]] = []

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        times.append((name, 1000 * (time.process_time() - began) / len(files)))
        return result

    def png(mask: Any) -> None:
        Image.fromarray(mask).save(io.BytesIO(), "PNG")

    pixels = timed("decoding", lambda: [read_image_bytes(file, "x.png") for file in files])
    inputs = timed("preprocessing", lambda: torch.stack([model.preprocess(each) for each in pixels]))
    model.segment_batch(inputs[:8], steps=0)  # warms up
    answer = timed("network", lambda: model.segment_batch(inputs, steps=0, snapshot_steps=(0,)))
    signals = timed("signals of trust, where it was fitted", lambda: measure(model, inputs, answer))
    side = pixels[0].shape[:2]
    own = timed("to the own size", lambda: [to_own_size(each, side) for each in answer.probabilities.cpu()])
    maps = timed("most probable class", lambda: [label_map(each) for each in own])
    timed("PNG", lambda: [png(mask) for mask in maps])
    judged, images = judging(model, signals), judged_images(answer, signals, side)
    timed("columns of trust, where it was fitted", lambda: [judged.columns(image) for image in images])
    return times


def judging(model: Any, signals: Any) -> Any:
    """A model with a fit of trust that is made up: what it says is wrong, what it costs is right."""
    from semgan.trust.answering import Answering
    from semgan.trust.domain import fit_domain
    from semgan.trust.fit import Trust
    from semgan.trust.ridge import fit_ridge

    ridge = fit_ridge(signals, signals["entropy"], 1.0)
    return Answering(model, None, {}, Trust("dice", 0, ridge, 0.5, 0.5, fit_domain(signals), 1.5))


def judged_images(answer: Any, signals: Any, side: tuple[int, int]) -> list[Any]:
    """The images of a batch at their own size, with their signals."""
    from dataclasses import replace

    from semgan.data.whole_images import own_answer

    lean = replace(answer, signals=signals, snapshots={}, reconstruction=None)
    return [own_answer(lean, row, side, 0.0) for row in range(len(lean.confidence))]


def write(folder: Path, rows: list[dict[str, Any]], times: list[tuple[str, float]], note: str) -> None:
    more = ["", "| stage | CPU ms per image |", "|---|---|", *(f"| {name} | {value:.3f} |" for name, value in times)]
    write_tables(folder / "archive", "Archives", rows, note, more)
    plot(folder, rows, times)


def plot(folder: Path, rows: list[dict[str, Any]], times: list[tuple[str, float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
    names = [f"{row['images']:,}" for row in rows]
    for axes, column, label in ((left, "images_per_second", "images/s"), (middle, "peak_rss_mb", "peak memory, MB")):
        bars = axes.bar(names, [row[column] for row in rows], color="#0072b2")
        axes.bar_label(bars, fmt="%.0f")
        axes.margins(y=0.15)
        axes.set_xlabel("images")
        axes.set_ylabel(label)
    right.barh([name for name, _ in times][::-1], [value for _, value in times][::-1], color="#e69f00")
    right.set_xlabel("CPU ms per image")
    figure.savefig(folder / "archive.png", dpi=130)


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        model, pattern, out, device, batch = sys.argv[2:]
        worker(model, pattern, out, device, int(batch))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=list(SIZES), help="sizes of the archives")
    parser.add_argument("--model", type=Path, default=SMALL_MODEL, help="run or model folder; default: shipped weights")
    parser.add_argument("--kinds", type=int, default=256, help="different pictures")
    parser.add_argument("--side", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    model = semgan.load(args.model, device=args.device)
    files = pictures(model, args.kinds, args.side)
    times = stages(model, files)
    rows = []
    for images in args.images:
        rows.append(measured(args.model, files, images, args.device, args.batch))
        print(rows[-1], flush=True)
    note = (
        f"Model `{args.model.name}`, images of {args.side} px in tar shards of {SHARD}, steps 0, batch {args.batch}, "
        f"{len(semgan.CORES)} cores, threads: {os.environ.get('OMP_NUM_THREADS', 'all')}, device {args.device}, torch "
        f"{versions()['torch']}, commit {git_commit()}. "
        f"Command: `{' '.join(['python benchmarks/archive.py', *sys.argv[1:]])}`."
    )
    write(args.out, rows, times, note)
    for name, value in times:
        print(f"{name}: {value:.3f} ms")


if __name__ == "__main__":
    main()
