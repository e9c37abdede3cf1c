"""What trust learns from the validation list, kept in trust.json of the model folder.

score:       of every image, predicted from its signals; learned on validation images and on shifted copies of them
threshold:   predicted scores below it are looked at: the one that best parts failures from the rest, held out
domain:      how strange an image is, against the validation images as they are
temperature: of the probabilities
choice:      which of several answers an image gets (`semgan.trust.choice`), where that was asked for

A failure scores below ``limit``, a fifth of the validation images as they are unless another is given. What is told
(``report``) is held out by cross-validation over cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semgan import artifacts
from semgan.metrics.selective import auroc, rank_correlation, risk_coverage
from semgan.trust.choice import Choice, learn_choice
from semgan.trust.domain import Domain, fit_domain
from semgan.trust.ridge import Ridge, cross_validated, fit_ridge
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
    cases = len(set(samples.groups))
    if cases < FEWEST_CASES:
        raise ValueError(
            f"Trust is learned from {FEWEST_CASES} validation cases or more; got {cases}. Add some with `semgan data "
            "split`, or take a dataset with a longer validation list."
        )
    scores = samples.scores[OWN]
    strength, held_out = cross_validated(samples.signals, scores, samples.groups, seed)
    held_out = np.clip(held_out, 0, 1)
    intact = samples.intact
    limit = float(np.quantile(scores[intact], WORST)) if limit is None else limit
    threshold = best_threshold(held_out, scores < limit)
    domain = fit_domain({name: np.asarray(values)[intact] for name, values in samples.signals.items()})
    own_groups = np.array(samples.groups)[intact].tolist()
    warmth = fit_temperature(samples.probabilities, samples.truths, own_groups, seed=seed)
    learned = learn_choice(samples, seed=seed) if len(samples.scores) > 1 else None
    report = {
        "images": int(intact.sum()),
        "copies": round(len(scores) / int(intact.sum())) - 1,
        "predicted score": prediction_report(samples.signals, scores, held_out, limit),
        "flagged": flag_report(held_out, scores, intact, domain.score(samples.signals), limit, threshold),
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
    alone = {name: auroc(np.nan_to_num(np.asarray(values)), failed) for name, values in turned.items()}
    return {
        "mean absolute error": float(np.abs(held_out - scores).mean()),
        "mean absolute error of the mean": float(np.abs(scores.mean() - scores).mean()),
        "rank correlation": rank_correlation(held_out, scores),
        "limit": limit,
        "failures": int(failed.sum()),
        "auroc of failures": auroc(-held_out, failed),
        "auroc of single signals": alone,
        "aurc": risk_coverage(held_out, 1 - scores).area,
        "aurc of the best order": risk_coverage(scores, 1 - scores).area,
    }


def flag_report(
    held_out: NDArray, scores: NDArray, intact: NDArray, strange: NDArray, limit: float, threshold: float
) -> dict[str, float]:
    """Which share of the images would have been flagged, and which of the failures (nan: there were none)."""
    flagged, failed = (held_out < threshold) | (strange > 1), scores < limit

    def share(rows: NDArray) -> float:
        return float(flagged[rows].mean()) if rows.any() else float("nan")

    return {
        "of validation images": share(intact),
        "of shifted images": share(~intact),
        "of failures": share(failed),
        "of validation images that are no failures": share(intact & ~failed),
    }
