"""Write the table of a results folder from its scores.csv into its README.md, between the two table marks.

python results/make_table.py results/lungs-64
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from semgan.artifacts import write_text_atomic
from semgan.results import MEAN, ScoreRow, read_rows

# In-domain before out-of-domain.
ORDER = "validation kermany hannover isic2017 ph2 celebamask fasseg phantom-ct phantom-mri-in phantom-mri-out".split()
MARKS = ("<!-- table -->", "<!-- end of table -->")


def table(rows: list[ScoreRow]) -> str:
    """Methods by test set, the chosen step first, then every step."""
    means = [row for row in rows if row.class_name == MEAN]
    sets = sorted({row.test_set for row in means}, key=ORDER.index)
    lines = ["| labels | method | steps | " + " | ".join(sets) + " |", "|---" * (3 + len(sets)) + "|"]
    for labels, method in sorted({(row.labels, row.method) for row in means}):
        own = [row for row in means if (row.labels, row.method) == (labels, method)]
        for steps in sorted({row.steps for row in own}):
            found = {row.test_set: row for row in own if row.steps == steps}
            chosen = any(row.chosen for row in found.values())
            cells = [f"{found[name].value:.4f}" if name in found else "" for name in sets]
            if chosen:
                cells = [f"**{cell}**" if cell else "" for cell in cells]
            mark = " (chosen)" if chosen else ""
            lines.append(f"| {labels} | {method} | {steps}{mark} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(folder: Path) -> None:
    page = folder / "README.md"
    text = f"{MARKS[0]}\n{table(read_rows(folder / 'scores.csv'))}\n{MARKS[1]}"
    write_text_atomic(page, re.sub(f"{MARKS[0]}.*{MARKS[1]}", lambda _: text, page.read_text(), flags=re.DOTALL))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
