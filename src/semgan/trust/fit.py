"""What trust learns from the validation list, kept in trust.json of the model folder.

score:       of every image, predicted from its signals; learned on validation images and on shifted copies of them
threshold:   predicted scores below it are looked at: the one that best parts failures from the rest, held out
domain:      how strange an image is, against the validation images as they are
temperature: of the probabilities
choice:      which of several answers an image gets (`semgan.trust.choice`), where that was asked for

A failure scores below ``limit``, a fifth of the validation images as they are unless another is given. What is told
(``report``) is held out by cross-validation over cases, thresholds included, but for two choices: the strength of the
ridge, and the domain's end, which is where 99 % of the held-out validation images end (so of new ones a little more
than 1 % are strange: 2 % in a simulation of 75).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semgan import artifacts
from semgan.metrics.selective import auroc, rank_correlation, risk_coverage
from semgan.trust.choice import Choice, learn_choice
from semgan.trust.domain import QUANTILE, STRANGEST, Domain, fit_domain
from semgan.trust.ridge import Ridge, cross_validated, fit_ridge, folds
from semgan.trust.samples import OWN, Samples
from semgan.trust.signals import doubts
from semgan.trust.temperature import fit_temperature
from semgan.types import Steps

FILE = "trust.json"
FORMAT = 1
WORST = 0.2  # share of the validation images that count as failures, where no limit is given
FEWEST_CASES = 8


@dataclass(frozen=True)
class Trust:
    """metric: of the predicted score, of single images; steps: of the answers that it is about."""

    metric: str
    steps: Steps
    score: Ridge
    limit: float
    threshold: float
    domain: Domain
    temperature: float
    choice: Choice | None = None
    report: dict[str, Any] = field(default_factory=dict)

    def columns(self, signals: Mapping[str, ArrayLike]) -> dict[str, NDArray]:
        """``predicted_score`` in [0, 1], ``out_of_domain`` (beyond the domain above 1), ``look_at``; ``[images]``."""
        score, strange = np.clip(self.score.predict(signals), 0, 1), self.domain.score(signals)
        look_at = (score < self.threshold) | (strange > 1)
        return {"predicted_score": score, "out_of_domain": strange, "look_at": look_at.astype(int)}

    def write(self, model: Path) -> None:
        """trust.json beside the weights."""
        artifacts.write_json(model / FILE, {"format": FORMAT, **asdict(self)})

    @classmethod
    def read(cls, model: Path) -> Trust | None:
        """What `write` left; None where nothing was fitted. Raises ValueError for a damaged file or another format."""
        path = model / FILE
        if not path.is_file():
            return None
        saved: dict[str, Any] = artifacts.read_json(path)
        try:
            if saved.pop("format") != FORMAT:
                raise ValueError("another format")
            saved["score"], saved["domain"] = Ridge.from_json(saved["score"]), Domain.from_json(saved["domain"])
            saved["choice"] = None if saved["choice"] is None else Choice.from_json(saved["choice"])
            return cls(**saved)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove it, or run `semgan trust fit` again.") from None


def fit(samples: Samples, *, limit: float | None = None, seed: int = 0) -> Trust:
    """Everything that trust learns from answered validation images. Raises ValueError for fewer than 8 cases."""
    check_cases(samples.groups)
    scores = samples.scores[OWN]
    strength, held_out = cross_validated(samples.signals, scores, samples.groups, seed)
    held_out = np.clip(held_out, 0, 1)
    intact = samples.intact
    limit = failure_limit(scores[intact]) if limit is None else limit
    threshold = best_threshold(held_out, scores < limit)
    domain, strange = domain_of(samples, seed)
    own_groups = np.array(samples.groups)[intact].tolist()
    warmth = fit_temperature(samples.probabilities, samples.truths, own_groups, seed=seed)
    learned = learn_choice(samples, seed=seed) if len(samples.scores) > 1 else None
    flagged = _flagged(held_out, scores < limit, strange, samples.groups, seed)
    report = {
        "images": int(intact.sum()),
        "copies": round(len(scores) / int(intact.sum())) - 1,
        "predicted score": prediction_report(samples.signals, scores, held_out, limit),
        "predicted score, unshifted": prediction_report(
            {name: np.asarray(values)[intact] for name, values in samples.signals.items()},
            scores[intact],
            held_out[intact],
            limit,
        ),
        "flagged": flag_report(flagged, scores, intact, limit),
        "calibration": asdict(warmth),
        **({} if learned is None else {"choice": learned.report}),
    }
    return Trust(
        samples.metric,
        samples.steps,
        fit_ridge(samples.signals, scores, strength),
        limit,
        threshold,
        domain,
        warmth.temperature,
        None if learned is None else learned.choice,
        report,
    )


def check_cases(groups: Sequence[str]) -> None:
    """Raises ValueError for fewer than 8 cases."""
    cases = len(set(groups))
    if cases < FEWEST_CASES:
        raise ValueError(
            f"Trust is learned from {FEWEST_CASES} validation cases or more; got {cases}. Add some with `semgan data "
            "split`, or take a dataset with a longer validation list."
        )


def failure_limit(scores: NDArray) -> float:
    """A score that a fifth of the images lie below, or, where so many share the lowest one, the next one above it.

    Where all are equal nothing lies below.
    """
    limit = float(np.quantile(scores, WORST))
    above = scores[scores > limit]
    return limit if (scores < limit).any() or not above.size else float(above.min())


def domain_of(samples: Samples, seed: int) -> tuple[Domain, NDArray]:
    """The domain of the validation images as they are, and how strange every image is to one fitted without its case.

    The domain ends where 99 % of the validation images end when others describe them: their own quantile would be too
    near with few images.
    """

    def fitted(rows: NDArray) -> Domain:
        return fit_domain({name: np.asarray(values)[rows & samples.intact] for name, values in samples.signals.items()})

    whole, raw = fitted(np.ones(len(samples.intact), bool)), np.empty(len(samples.intact))
    for inside in folds(samples.groups, seed):
        part = fitted(~inside)
        score = part.score({name: np.asarray(v)[inside] for name, v in samples.signals.items()})
        raw[inside] = np.where(score < STRANGEST, part.limit * score, np.inf)
    known = raw[samples.intact & np.isfinite(raw)]  # what is no number says nothing about where the domain ends
    limit = max(whole.limit, float(np.quantile(known, QUANTILE)) if known.size else 0.0)
    return replace(whole, limit=limit), raw / limit


def _flagged(
    held_out: NDArray, failed: NDArray, strange: NDArray, groups: Sequence[str], seed: int
) -> NDArray[np.bool_]:
    """Which images would be looked at by a threshold that was set without their case."""
    flagged = strange > 1
    for inside in folds(groups, seed):
        flagged[inside] |= held_out[inside] < best_threshold(held_out[~inside], failed[~inside])
    return flagged


def best_threshold(predicted: NDArray, failed: NDArray) -> float:
    """The predicted score below which most failures and fewest others lie: largest difference of shares (Youden 1950).

    Where none fails, or all do, nothing (everything) lies below.
    """
    if not failed.any():
        return 0.0
    if failed.all():
        return 1.0
    edges = np.append(np.unique(predicted), 1.0)
    gains = [(predicted[failed] < edge).mean() - (predicted[~failed] < edge).mean() for edge in edges]
    return float(edges[int(np.argmax(gains))])


def prediction_report(
    signals: Mapping[str, ArrayLike], scores: NDArray, held_out: NDArray, limit: float
) -> dict[str, Any]:
    """How good the held-out predictions are, beside the best single signal and the mean score for everybody."""
    failed = scores < limit
    turned = doubts({name: np.asarray(values) for name, values in signals.items()})  # type: ignore[arg-type]
    alone = {name: auroc(_most_doubtful_where_unknown(np.asarray(values)), failed) for name, values in turned.items()}
    return {
        "mean absolute error": float(np.abs(held_out - scores).mean()),
        "mean absolute error of the mean": float(np.abs(scores.mean() - scores).mean()),
        "rank correlation": _or_none(rank_correlation(held_out, scores)),
        "limit": limit,
        "failures": int(failed.sum()),
        "auroc of failures": _or_none(auroc(-held_out, failed)),
        "auroc of single signals": {name: _or_none(value) for name, value in alone.items()},
        "aurc": risk_coverage(held_out, 1 - scores).area,
        "aurc of the best order": risk_coverage(scores, 1 - scores).area,
    }


def _or_none(value: float) -> float | None:
    """JSON has no nan: None where all images are failures, or none."""
    return None if np.isnan(value) else value


def _most_doubtful_where_unknown(doubt: NDArray) -> NDArray:
    known = np.isfinite(doubt)
    return np.where(known, doubt, doubt[known].max() + 1 if known.any() else 0.0)


def flag_report(flagged: NDArray, scores: NDArray, intact: NDArray, limit: float) -> dict[str, float | None]:
    """Which share of the images would have been flagged, and which of the failures (None: there were none)."""
    failed = scores < limit

    def share(rows: NDArray) -> float | None:
        return float(flagged[rows].mean()) if rows.any() else None

    return {
        "of validation images": share(intact),
        "of shifted images": share(~intact),
        "of failures": share(failed),
        "of validation images that are no failures": share(intact & ~failed),
    }
