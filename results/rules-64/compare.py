"""What a stopping rule is worth under other shifts, learned from validation images alone or with shifted copies.

    python results/rules-64/compare.py RUN DATASET --learn 60 -o results/rules-64/lungs-9.csv --masks work/lungs-9.npz

All validation images are optimised, as they are, under the mixed shifts of `semgan.data.shifts` (those that
`semgan train` learns from) and at the three severities of `semgan.trust.severities` (which no rule has seen). Then, 40
times: a rule is learned from some of the images (``--learn``), and judged on the others, under every shift. Test images
play no part. --masks keeps the masks, which take most of the time.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

import semgan
from semgan import artifacts, seeding
from semgan.data.folder import Dataset
from semgan.data.shifts import MIXED
from semgan.metrics import overlap
from semgan.stages.stopping import MOST_LOSS, agreement, learn_rule
from semgan.trust.severities import SEVERITIES, shifted

sys.path.insert(0, str(Path(__file__).parents[1]))
from shifted_cases import NONE, pictures

STEPS = (0, 5, 10, 25, 50)
DRAWS = 40
PARTS = (NONE, MIXED, *(f"s{place}" for place in range(len(SEVERITIES))))
WAYS = {"as they are": (NONE,), "with a mixed copy": (NONE, MIXED), "with three severities": (NONE, *PARTS[2:])}


def main() -> None:
    given = _arguments()
    model, data = semgan.load(given.run, device="cpu"), Dataset.open(given.dataset)
    if not given.masks.is_file():
        _keep_masks(model, data, given.run, given.masks)
    with np.load(given.masks) as kept:
        table = _Table(dict(kept), model.settings.metric, model.labels.classes)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for draw in range(DRAWS):
        order = seeding.generator(0, "rules/draw", draw).permutation(table.images)
        learned, judged = np.sort(order[: given.learn]), order[given.learn :]
        for way, parts in WAYS.items():
            rule = table.learn(parts, learned)
            for part in PARTS:
                found[way, part].append(table.gain(rule, part, judged))
            found[way, "acts"].append(rule.steps > 0)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["learned_from", "draws", "optimises", "judged_under", "gain", "worst", "draws_that_lose"])
    for way in WAYS:
        for part in PARTS:
            gains = np.array(found[way, part])
            numbers = gains.mean(), gains.min(), (gains < -MOST_LOSS).mean()
            acts = f"{np.mean(found[way, 'acts']):.3f}"
            writer.writerow([way, DRAWS, acts, part, *(f"{number:.4f}" for number in numbers)])
    artifacts.write_text_atomic(given.out, text.getvalue())
    print(text.getvalue())


def _keep_masks(model, data: Dataset, run: Path, file: Path) -> None:
    torch.set_num_threads(1)
    cases = data.validation_for(model, None, name=str(run))
    kept = {}
    for part in PARTS:
        images, truths = pictures(data, cases, MIXED if part == MIXED else NONE, model)
        if part not in (NONE, MIXED):
            place, maps = int(part[1:]), torch.from_numpy(truths)
            numbers = range(len(images))
            images, maps = shifted(images, maps, SEVERITIES[place], seed=0, name=str(place), numbers=numbers)
            truths = maps.numpy()
        found = model.segment_batch(images, steps=max(STEPS), snapshot_steps=STEPS)
        kept |= {f"{part}/{step}": found.snapshots[step].argmax(1).byte().numpy() for step in STEPS}
        kept[f"{part}/truth"] = truths
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **kept)


class _Table:
    """Masks of all validation images after every step, under every shift, with scores and agreements."""

    def __init__(self, masks: dict[str, np.ndarray], metric: str, classes: int) -> None:
        self.masks, self.metric, self.classes = masks, metric, classes
        self.images = len(masks[f"{NONE}/truth"])
        self.scores = {part: np.stack([self._scores(part, step) for step in STEPS]) for part in PARTS}
        self.agreements = {part: np.stack([self._agreements(part, step) for step in STEPS]) for part in PARTS}

    def learn(self, parts, rows: np.ndarray):
        masks = {step: np.concatenate([self.masks[f"{part}/{step}"][rows] for part in parts]) for step in STEPS}
        learned = learn_rule(
            {0.0: masks},
            np.concatenate([self.masks[f"{part}/truth"][rows] for part in parts]),
            self.metric,
            classes=self.classes,
            groups=[str(row) for row in rows] * len(parts),
            copies=np.repeat(np.arange(len(parts)), len(rows)),
        )
        assert learned is not None
        return learned.rule

    def gain(self, rule, part: str, rows: np.ndarray) -> float:
        """Mean gain over step 0 of some images."""
        scores, places = self.scores[part], rule.answers(self.agreements[part])
        return float((scores[places, np.arange(self.images)] - scores[0])[rows].mean())

    def _pairs(self, part: str, step: int, other: str):
        return zip(self.masks[f"{part}/{step}"], self.masks[f"{part}/{other}"], strict=True)

    def _scores(self, part: str, step: int) -> np.ndarray:
        counts = overlap.concatenate(overlap.count(*pair, self.classes) for pair in self._pairs(part, step, "truth"))
        return np.nan_to_num(overlap.case_means(counts, self.metric), nan=1.0)

    def _agreements(self, part: str, step: int) -> np.ndarray:
        return np.array([agreement(*pair, self.classes) for pair in self._pairs(part, step, "0")])


def _arguments() -> argparse.Namespace:
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("run", type=Path, help="run of method semgan")
    told.add_argument("dataset", type=Path)
    told.add_argument("--learn", type=int, required=True, help="images a rule is learned from; the others judge it")
    told.add_argument("-o", "--out", type=Path, required=True)
    told.add_argument("--masks", type=Path, required=True, help="file for the masks; used again where it is there")
    return told.parse_args()


if __name__ == "__main__":
    main()
