"""What an ablation says in numbers and words: the best setting, how sure that is, whether distance tells the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semgan.metrics import overlap
from semgan.metrics.intervals import paired_overlap_difference


@dataclass(frozen=True)
class Variant:
    """One setting of the inversion on the validation cases.

    changes: flat, ``{"inversion.lambda_pixel": 0.1}``; none: the model as saved
    counts: step -> counts of every case; distances: step -> ``[cases]`` reconstruction distances
    problem: why there are no scores; empty where there are
    """

    name: str
    changes: Mapping[str, Any]
    counts: Mapping[int, overlap.Counts]
    distances: Mapping[int, NDArray[np.float64]]
    seconds: float = 0.0
    problem: str = ""

    def score(self, step: int, metric: str) -> float:
        return overlap.overall(self.counts[step], metric)

    def best_step(self, metric: str) -> int:
        """The step with the best score to four digits; of equals the first."""
        return max(self.counts, key=lambda step: (round(self.score(step, metric), 4), -step))

    def pooled_by(self, groups: Sequence[str]) -> Variant:
        """Images of one patient as one case: counts added up, distances averaged."""
        names = list(dict.fromkeys(groups))
        rows = [[place for place, group in enumerate(groups) if group == name] for name in names]
        return replace(
            self,
            counts={step: counts.pooled_by(groups)[1] for step, counts in self.counts.items()},
            distances={
                step: np.array([values[members].mean() for members in rows]) for step, values in self.distances.items()
            },
        )


@dataclass(frozen=True)
class Suggestion:
    """The best (variant, steps) against the model as saved; None where there is nothing to compare.

    interval: 95 % bootstrap interval of the paired difference; tried: combinations of setting and steps looked at, the
    encoder's answer, which no setting of the inversion changes, once
    beyond_chance: whether the interval leaves 0 out on the better side
    pearson, spearman: mean reconstruction distance and score over settings and steps
    spearman_cases: the same over the cases, of the model as saved at its steps
    """

    words: str
    variant: str | None
    steps: int | None
    score: float | None
    saved_score: float | None
    difference: float | None
    interval: tuple[float, float] | None
    beyond_chance: bool
    tried: int
    cases: int
    pearson: float | None
    spearman: float | None
    spearman_cases: float | None


def suggestion(
    variants: Sequence[Variant], metric: str, saved_steps: int, *, by_rule: bool = False, seed: int = 0
) -> Suggestion:
    """The best combination in words; ``variants[0]`` is the model as saved. Fewer changes and steps win ties.

    by_rule: whether the model answers by a stopping rule, so that the steps it was saved with are not its answer
    """
    scored = [variant for variant in variants if not variant.problem]
    pairs = _answers([(variant, step) for variant in scored for step in variant.counts])
    cases = scored[0].counts[pairs[0][1]].cases if scored else 0
    pearson, spearman = _correlations(
        [float(variant.distances[step].mean()) for variant, step in pairs],
        [variant.score(step, metric) for variant, step in pairs],
    )
    saved = None if variants[0].problem else variants[0]
    found: dict[str, Any] = {"variant": None, "steps": None, "score": None, "difference": None, "interval": None}
    found |= {"saved_score": saved and saved.score(saved_steps, metric), "beyond_chance": False}
    if pairs:
        best, step = max(
            pairs,
            key=lambda pair: (
                round(pair[0].score(pair[1], metric), 4),
                pair == (saved, saved_steps),
                not pair[0].changes,
                -pair[1],
            ),
        )
        found |= {"variant": best.name, "steps": step, "score": best.score(step, metric)}
        if saved is not None and cases > 1 and (best, step) != (saved, saved_steps):
            found |= _against(best.counts[step], saved.counts[saved_steps], metric, seed)
    found |= {"tried": len(pairs), "cases": cases, "pearson": pearson, "spearman": spearman}
    found["spearman_cases"] = _over_cases(saved, saved_steps, metric)
    return Suggestion(words=_words(found, saved_steps, by_rule), **found)


def _answers(pairs: Sequence[tuple[Variant, int]]) -> list[tuple[Variant, int]]:
    """Without repetitions of step 0, which is the encoder's answer under many settings: one point, not one each."""
    found, known = [], set()
    for variant, step in pairs:
        answer = (variant.distances[step].tobytes(), variant.counts[step].intersection.tobytes())
        if step != 0 or answer not in known:
            found.append((variant, step))
        known.add(answer)
    return found


def _against(best: overlap.Counts, saved: overlap.Counts, metric: str, seed: int) -> dict[str, Any]:
    """The paired difference; nothing where fewer than two cases have a score."""
    try:
        found = paired_overlap_difference(best, saved, metric, seed=seed)
    except ValueError:
        return {}
    return {"difference": found.difference, "interval": found.interval, "beyond_chance": found.interval[0] > 0}


def _over_cases(saved: Variant | None, step: int, metric: str) -> float | None:
    if saved is None:
        return None
    scores = overlap.case_means(saved.counts[step], "miou-per-case" if metric == "miou" else metric)
    known = ~np.isnan(scores)
    return _correlations(saved.distances[step][known], scores[known])[1]


def _correlations(distances: Any, scores: Any) -> tuple[float | None, float | None]:
    """Pearson's and Spearman's; None for fewer than three points and where one of the two does not vary."""
    from scipy.stats import rankdata

    first, second = np.asarray(distances, float), np.asarray(scores, float)
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None, None
    return _pearson(first, second), _pearson(rankdata(first), rankdata(second))


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.corrcoef(first, second)[0, 1])


def _words(found: Mapping[str, Any], saved_steps: int, by_rule: bool) -> str:
    if found["variant"] is None:
        return "No setting gave a score; see the column 'problem'."
    best = f"{found['variant']}, {found['steps']} steps: {found['score']:.4f}"
    looked_at = f"{found['tried']} combinations of settings and steps on {found['cases']} validation cases"
    lines = [f"Best of {looked_at}: {best}."]
    if found["saved_score"] is None:
        lines.append("The model's own settings gave no score to compare with; see the column 'problem'.")
    elif found["difference"] is None and (found["variant"], found["steps"]) == ("as saved", saved_steps):
        already = "is the model as saved, at its fixed steps" if by_rule else "is what the model does already"
        lines.append(f"That {already}: nothing tried is better, keep it.")
    elif found["difference"] is None:
        lines.append("One case cannot tell chance from a difference: give a data set with more validation cases.")
    else:
        low, high = found["interval"]
        lines.append(
            f"The model as saved, {saved_steps} steps: {found['saved_score']:.4f}; "
            f"difference {found['difference']:+.4f} (95 % bootstrap interval {low:+.4f} to {high:+.4f})."
        )
        lines.append(
            "The interval leaves 0 out: a change is worth trying. It was picked after looking at these cases, so "
            "expect less on others."
            if found["beyond_chance"]
            else "The interval holds 0: chance among the cases explains the difference, which is no reason to change."
        )
    if by_rule:
        lines.append(
            "The model answers by its stopping rule, which gives every image its own steps and was not run here."
        )
    if found["spearman"] is not None:
        lines.append(
            f"Reconstruction distance against score, over settings and steps: Spearman {found['spearman']:+.2f}, "
            f"Pearson {found['pearson']:+.2f}."
        )
    return " ".join(lines)
