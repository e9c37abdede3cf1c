"""What `semgan report` is given: run folders, tables of scores, evaluated predictions, told apart by their files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semgan.report.evaluations import Evaluation, read_evaluation, short_names
from semgan.report.run_report import RunRecord, read_run, score_files_in
from semgan.results import ScoreRow, read_rows

EXPECTED = (
    "expected a run folder (config.yaml), the output of `semgan benchmark` or a results folder (scores.csv), or "
    "predictions scored by `semgan evaluate` (scores.json)"
)


@dataclass(frozen=True)
class Sources:
    """Everything that was found, under short names of the folders.

    comparisons: rows of a benchmark's comparisons.csv
    """

    runs: dict[str, RunRecord] = field(default_factory=dict)
    tables: dict[str, list[ScoreRow]] = field(default_factory=dict)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    comparisons: dict[str, list[dict[str, str]]] = field(default_factory=dict)


def find_sources(paths: Sequence[Path]) -> Sources:
    """Read what the paths hold; scored predictions inside a run folder are found with it.

    Raises FileNotFoundError for a path that is missing or holds nothing of the kind, ValueError for damaged files.
    """
    if not paths:
        raise ValueError(f"Name at least one folder to report on: {EXPECTED}.")
    folders = [_folder(Path(path)) for path in dict.fromkeys(paths)]
    runs = [folder for folder in folders if (folder / "config.yaml").is_file()]
    tables = [folder for folder in folders if (folder / "scores.csv").is_file()]
    scored = [folder for folder in folders if (folder / "scores.json").is_file()]
    scored += [file.parent for run in runs for file in score_files_in(run)]
    scored = list(dict.fromkeys(scored))
    names = short_names([*runs, *tables, *scored])
    return Sources(
        runs={names[folder]: read_run(folder) for folder in runs},
        tables={names[folder]: read_rows(folder / "scores.csv") for folder in tables},
        evaluations={names[folder]: read_evaluation(folder) for folder in scored},
        comparisons={
            names[folder]: _comparisons(folder / "comparisons.csv")
            for folder in tables
            if (folder / "comparisons.csv").is_file()
        },
    )


def _folder(path: Path) -> Path:
    """The folder that is meant: a path to one of its files names it too."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {EXPECTED}.")
    folder = path.parent if path.is_file() else path
    if not any((folder / name).is_file() for name in ("config.yaml", "scores.csv", "scores.json")):
        raise FileNotFoundError(f"{path} holds nothing to report on; {EXPECTED}.")
    return folder


def _comparisons(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
