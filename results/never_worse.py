"""Is the chosen answer never worse than step 0, and how much of what optimisation could gain does it keep?

    python results/never_worse.py results/benchmark-64     # writes never_worse.csv, never_worse.md there

Reads the cells of `semgan benchmark`: every model with a choice of steps, on every test set. Step 0 is the encoder's
answer, of `semgan-student` mixed with the student's. The difference is the chosen answer's score minus that of step 0,
with the 95 % interval of a paired bootstrap over cases; ``never_worse``: its lower bound is at least -0.002. gain_kept:
that difference as a share of the gain of the best number of steps that was scored on this set (known only afterwards);
empty where no number of steps gains .001.
"""

from __future__ import annotations

import csv
import io
import sys
from pathlib import Path

from semgan.artifacts import read_json, write_text_atomic
from semgan.benchmark.cells import Cases, read_cases
from semgan.metrics.intervals import paired_overlap_difference
from semgan.results import MEAN, ScoreRow, read_rows
from semgan.types import Steps

BOUND = -0.002
LEAST_GAIN = 0.001


def row_of(scores: dict[Steps, float], chosen: Steps, cases: dict[Steps, Cases], metric: str) -> dict[str, object]:
    fixed = {step: value for step, value in scores.items() if isinstance(step, int)}
    best = max(fixed, key=lambda step: fixed[step])
    row: dict[str, object] = {"chosen": chosen, "score_0": f"{scores[0]:.4f}", "score": f"{scores[chosen]:.4f}"}
    if chosen == 0:
        difference, low, high = 0.0, 0.0, 0.0
    else:
        found = paired_overlap_difference(cases[chosen].counts, cases[0].counts, metric, cases[0].over)
        difference, (low, high) = found.difference, found.interval
    possible = fixed[best] - fixed[0]
    return row | {
        "difference": f"{difference:+.4f}",
        "low": f"{low:+.4f}",
        "high": f"{high:+.4f}",
        "never_worse": "yes" if low >= BOUND else "no",
        "best_fixed": best,
        "best_gain": f"{possible:+.4f}",
        "gain_kept": f"{difference / possible:.3f}" if possible >= LEAST_GAIN else "",
    }


def rows_of(cell: Path) -> list[dict[str, object]]:
    """One per test set, of a cell with a choice of steps."""
    found, cases = [], read_cases(cell / "cases.csv")
    means = [each for each in read_rows(cell / "scores.csv") if each.class_name == MEAN and each.test_set in cases]
    for name, by_step in cases.items():
        own: list[ScoreRow] = [each for each in means if each.test_set == name]
        scores: dict[Steps, float] = {each.steps: each.value for each in own}
        if len(scores) < 2:  # a network without optimisation
            continue
        chosen: Steps = next(each.steps for each in own if each.chosen)  # type: ignore[assignment]
        first = own[0]
        place = {"task": first.task, "labels": first.labels, "method": first.method, "seed": first.seed}
        found.append({**place, "test_set": name} | row_of(scores, chosen, by_step, first.metric))
    return found


def main(folder: Path) -> None:
    cells = [cell for cell in sorted((folder / "cells").iterdir()) if (cell / "cases.csv").is_file()]
    rows = [row for cell in cells if read_json(cell / "state.json")["status"] == "done" for row in rows_of(cell)]
    if not rows:
        raise SystemExit(f"{folder} has no finished cells of a method with a choice of steps.")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomic(folder / "never_worse.csv", text.getvalue())
    kept = [float(str(row["gain_kept"])) for row in rows if row["gain_kept"]]
    moved = [row for row in rows if float(str(row["difference"])) != 0]
    never_worse, of_moved = (sum(row["never_worse"] == "yes" for row in some) for some in (rows, moved))
    told = (
        f"Never worse in {never_worse} of {len(rows)} pairs of a model and a test set, {of_moved} of the {len(moved)} "
        f"whose answers moved at all; where a fixed number of steps gains {LEAST_GAIN} or more ({len(kept)} times), "
        f"80 % of the gain or more is kept in {sum(share >= 0.8 for share in kept)}. Made by `python "
        f"results/never_worse.py {folder}`."
    )
    lines = ["| " + " | ".join(rows[0]) + " |", "|" + "---|" * len(rows[0])]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    write_text_atomic(folder / "never_worse.md", f"# Never worse\n\n{told}\n\n" + "\n".join(lines) + "\n")
    print(told)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
