"""One model folder of several runs of method unimatch: the committee that `baseline.members` trains side by side.

    python results/members-64/merged.py RUN... -o OUT

The runs must be of one recipe, labelled list and length; OUT/model answers with the mean of their probabilities.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from semgan import artifacts
from semgan.baselines.segmenter import WEIGHTS

FREE = ("seed",)  # what members may differ in


def main() -> None:
    """Write the folder. Raises SystemExit where settings differ."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("runs", type=Path, nargs="+")
    told.add_argument("-o", "--out", type=Path, required=True)
    given = told.parse_args()
    found = [artifacts.read_model(artifacts.find_model(run)) for run in given.runs]
    settings = [{k: v for k, v in one["settings"].items() if k not in FREE} for one, _ in found]
    if any(one != settings[0] for one in settings):
        raise SystemExit("The runs were not trained with the same settings.")
    description = dict(found[0][0])
    description["scores"] = {}
    description["settings"]["baseline"]["members"] = len(found)
    weights = {
        f"{number}.{name}": value
        for number, (_, networks) in enumerate(found)
        for name, value in networks[WEIGHTS].items()
    }
    given.out.mkdir(parents=True, exist_ok=True)
    shutil.copy(given.runs[0] / "environment.json", given.out)  # which commit trained them
    artifacts.save_model(
        given.out / "model", description, {WEIGHTS: weights}, "# Several runs of unimatch as one model\n"
    )


if __name__ == "__main__":
    main()
