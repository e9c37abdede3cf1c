"""Expected minutes of a recipe in bfloat16 and in float32, by `semgan train --dry-run`, and what `auto` takes here.

    python benchmarks/precision.py --data DATASET                    # writes precision.csv, precision.md
    python benchmarks/precision.py --data DATASET --method unimatch --recipe skin-64 --labels 40

One thread, processor time; each precision in turn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import semgan  # noqa: F401  # sets how torch's threads wait

# isort: split
from tables import write_tables

from semgan.artifacts import git_commit, versions
from semgan.config import PRECISION_SECTIONS
from semgan.rehearsal import DryRun
from semgan.runtime.device import faster_precision, prepare_cpu
from semgan.train import train

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a prepared dataset with a labelled list")
    parser.add_argument("--name", help="of the dataset, in the table's note")
    parser.add_argument("--recipe", default="lungs-64")
    parser.add_argument("--method", default="semgan-student")
    parser.add_argument("--labels", type=int, default=9)
    args = parser.parse_args()
    prepare_cpu(threads=1, training=True)
    rows: list[dict[str, object]] = []
    for precision in ("bfloat16", "float32"):
        changes = [*(f"{section}.precision={precision}" for section in PRECISION_SECTIONS), "threads=1"]
        asked = {"recipe": args.recipe, "method": args.method, "labels": args.labels, "changes": changes}
        found = train(args.data, Path("unused"), device="cpu", dry_run=True, **asked)
        assert isinstance(found, DryRun)
        minutes = {f"{stage}_min": round(value, 1) for stage, value in found.cpu_minutes.items()}
        rows.append({"precision": precision, **minutes, "memory_mb": round(found.memory_mb)})
        print(rows[-1], flush=True)
    words = f"--recipe {args.recipe} --method {args.method} --labels {args.labels}"
    note = (
        f"`semgan train --dry-run` on {args.name or args.data.name}, CPU, 1 thread, torch {versions()['torch']}, "
        f"commit {git_commit()}; `auto` is {faster_precision('cpu')} here. Processor time, beside other work; memory "
        f"is the peak so far. Command: `python benchmarks/precision.py --data DATASET {words}`."
    )
    write_tables(HERE / "precision", "Precision", rows, note)


if __name__ == "__main__":
    main()
