"""Tables as LaTeX, for booktabs: tabulars only, so that caption and float are the paper's own."""

from __future__ import annotations

from collections.abc import Sequence

from semgan.report.html import Table

HEAD = "% \\usepackage{booktabs}"
SPECIAL = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
}


def tabular(title: str, columns: int, heads: Sequence[str], rows: Sequence[str]) -> str:
    """A tabular of lines that are LaTeX already; columns: those beside the first, which is on the left."""
    ends = [f"{line} \\\\" for line in heads], [f"{line} \\\\" for line in rows]
    lines = [f"% {title}", f"\\begin{{tabular}}{{l{'c' * columns}}}", "\\toprule", *ends[0], "\\midrule", *ends[1]]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}"])


def table(block: Table) -> str:
    """A table of a page, its strong cells in bold."""
    rows = [
        " & ".join(
            f"\\textbf{{{escaped(cell)}}}" if (row, column) in block.strong else escaped(cell)
            for column, cell in enumerate(line)
        )
        for row, line in enumerate(block.rows)
    ]
    heads = [" & ".join(escaped(name) for name in block.header)]
    return tabular(" ".join(block.caption.split()), len(block.header) - 1, heads, rows)


def escaped(text: str) -> str:
    """Any text as LaTeX that shows it."""
    return "".join(SPECIAL.get(sign, f"\\{sign}" if sign in "&%$#_{}" else sign) for sign in text)
