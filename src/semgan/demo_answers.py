"""The demo's pictures, every method's answers to them, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from semgan.report import demo_files
from semgan.report.demo_files import VALIDATION, Answers, Inputs, Record
from semgan.results import MEAN, ScoreRow


def read_pairs(images: Path, labels: Path, stems: Sequence[str] | None = None) -> Inputs:
    """Pictures of a folder with their masks, as RGB, in order of their names."""
    from semgan.data.readers import read_image, read_label
    from semgan.report.colours import as_rgb

    names = sorted(path.stem for path in images.glob("*.png")) if stems is None else list(stems)
    pictures = [as_rgb(read_image(images / f"{name}.png")) for name in names]
    truths = [read_label(labels / f"{name}.png") for name in names]
    return Inputs(np.stack(pictures), np.stack(truths).astype(np.uint8))


def segment_pictures(segmenter: Any, pictures: np.ndarray, steps: Sequence[int], shown: int) -> Answers:
    """Masks after each number of steps at the pictures' size, and reconstructions of the first ``shown`` pictures."""
    import torch

    from semgan.data.whole_images import to_own_size, to_pixels
    from semgan.report.colours import as_rgb

    batch = torch.stack([segmenter.preprocess(picture) for picture in pictures])
    found = segmenter.segment_batch(batch, steps=max(steps), snapshot_steps=tuple(steps))
    size = pictures.shape[1:3]
    masks = [[to_own_size(one, size).argmax(0).byte().numpy() for one in found.snapshots[step]] for step in steps]
    recons = None
    if shown and found.reconstructions:
        recons = np.stack(
            [np.stack([as_rgb(to_pixels(one)) for one in found.reconstructions[s][:shown]]) for s in steps]
        )
    return Answers(tuple(steps), np.asarray(masks, np.uint8), recons)


def score(out: Path, record: Record) -> list[ScoreRow]:
    """Scores of every method, domain and step; sets each method's ``chosen_steps`` by the validation pictures."""
    from semgan.metrics import overlap

    rows: list[ScoreRow] = []
    for name, method in record.methods.items():
        table: dict[tuple[str, int], dict[str, float]] = {}
        for domain in [VALIDATION, *record.domains]:
            answers = demo_files.read_answers(out, name, domain)
            truths = demo_files.read_inputs(out, domain).truth[: answers.masks.shape[1]]
            for step, masks in zip(answers.steps, answers.masks, strict=True):
                pairs = zip(masks, truths, strict=True)
                counts = overlap.concatenate(overlap.count(mask, truth, len(record.classes)) for mask, truth in pairs)
                scores = overlap.class_scores(counts, record.metric)[1:]
                table[domain, step] = dict(zip(record.classes[1:], scores.tolist(), strict=True))
                table[domain, step][MEAN] = overlap.overall(counts, record.metric)
        method.chosen_steps = max(method.steps, key=lambda step: (table[VALIDATION, step][MEAN], -step))
        for (domain, step), values in table.items():
            n = len(demo_files.read_answers(out, name, domain).masks[0])
            named = {MEAN: values[MEAN]} | values  # the mean first
            rows += [_row(record, name, domain, part, step, n, value) for part, value in named.items()]
    return rows


def _row(record: Record, name: str, domain: str, part: str, step: int, n: int, value: float) -> ScoreRow:
    chosen = int(step == record.methods[name].chosen_steps)
    task, labels = f"phantoms-{record.family}", record.counts["labelled"]
    return ScoreRow(
        task,
        record.metric,
        record.size_px,
        labels,
        0,
        record.seed,
        name,
        domain,
        part,
        step,
        chosen,
        n,
        value,
        record.commit,
    )
