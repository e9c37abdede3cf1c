"""Start-up: processor time of `semgan --help`, of importing the package, and of loading the small shipped model.

    python benchmarks/startup.py                # writes benchmarks/startup.csv and startup.md
    python benchmarks/startup.py --rounds 9 -o FOLDER

Every round is a process of its own. Processor time (user and system, all threads) rather than wall time, since machines
are shared; the smallest round is closest to what the work takes. ``python -X importtime -m semgan --help`` says where.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from tables import write_tables

import semgan
from semgan.artifacts import git_commit, versions

HERE = Path(__file__).parent
MODEL = Path(semgan.__file__).parent / "weights" / "phantoms-faces"
PARTS = {  # name: (what runs before the clock, what is timed, the goal in seconds)
    "python -c pass": ("", "pass", None),
    "semgan --help": ("", "from semgan.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass", 0.5),
    "import semgan": ("", "import semgan", 2.0),
    "import torch": ("import semgan", "import torch", None),
    "load the small model": ("import torch, semgan", f"semgan.load({str(MODEL)!r}, device='cpu')", 1.0),
    "load it again": (
        f"import torch, semgan; semgan.load({str(MODEL)!r}, device='cpu')",
        f"semgan.load({str(MODEL)!r}, device='cpu')",
        None,
    ),
    "ready to segment": ("", f"import semgan.segment; semgan.load({str(MODEL)!r}, device='cpu')", None),
}


def seconds(before: str, work: str) -> float:
    """Processor seconds of ``work`` in a fresh process."""
    clock = "time.process_time()"
    program = f"import sys, time\n{before}\nbegan = {clock}\n{work}\nprint({clock} - began, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stderr.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--out", type=Path, default=HERE)
    args = parser.parse_args()
    rows = []
    for name, (before, work, goal) in PARTS.items():
        times = [seconds(before, work) for _ in range(args.rounds)]
        low, middle = min(times), statistics.median(times)
        rows.append({"what": name, "smallest_s": round(low, 3), "median_s": round(middle, 3), "goal_s": goal or ""})
        print(json.dumps(rows[-1]), flush=True)
    note = (
        f"Processor time, {args.rounds} rounds, threads: {os.environ.get('OMP_NUM_THREADS', 'all')}, Python "
        f"{versions()['python']}, torch {versions()['torch']}, commit {git_commit()}. "
        f"Command: `{' '.join(['python benchmarks/startup.py', *sys.argv[1:]])}`."
    )
    write_tables(args.out / "startup", "Start-up", rows, note)


if __name__ == "__main__":
    main()
