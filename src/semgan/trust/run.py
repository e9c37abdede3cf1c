"""``semgan trust fit``: a model's answers on the validation list, and what is learned of them, in trust.json."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semgan import artifacts
from semgan.data.folder import Dataset
from semgan.data.loading import load_labels
from semgan.data.readers import read_image_files
from semgan.posterior.latent import Method
from semgan.trust.answering import calibrated_posterior, posterior_fingerprint, posterior_means
from semgan.trust.fit import Trust, check_cases, fit
from semgan.trust.samples import answered
from semgan.types import Steps


def fit_trust(
    model: Path | str,
    dataset: Path | str,
    *,
    cases: int | None = None,
    steps: Steps | None = None,
    limit: float | None = None,
    choose: bool = False,
    method: Method = "laplace",
    batch: int = 16,
    seed: int = 0,
    device: str = "auto",
    progress: Any = None,
) -> Trust:
    """Learn from a dataset's validation list how far to trust the model's answers; kept beside the weights.

    cases:  of the validation list, the first; None: all; steps: of the answers, as in `semgan.segment.segment`
    limit:  scores below are failures; None: so that the worst fifth of the validation images are
    choose: learn which answer an image gets as well: step 0, the model's own, and the posterior's mean (by ``method``)
        where `semgan calibrate` has been run
    Raises ValueError for a dataset without validation list or of other classes, and where ``choose`` is asked of a
    model without code; FileNotFoundError where there is no model or dataset.
    """
    from semgan.runtime.device import prepare_cpu
    from semgan.segment import load_identified

    prepare_cpu()
    segmenter, _ = load_identified(model, device)
    folder = artifacts.find_model(Path(model))
    posterior = calibrated_posterior(segmenter, folder) if choose else None
    opened = Dataset.open(Path(dataset))
    chosen = opened.validation_for(segmenter, cases)
    groups = [case.group or opened.group(case.stem) or case.stem for case in chosen]
    check_cases(groups)
    images = torch.stack([segmenter.preprocess(read_image_files(case.image)) for case in chosen])
    samples = answered(
        segmenter,
        images,
        np.asarray(load_labels(chosen, images.shape[-1], opened.labels, opened.ignore)),
        groups,
        opened.metric,
        steps=steps,
        with_first=choose,
        posterior_mean=None if posterior is None else (lambda image: posterior_means(posterior, image, method)),
        batch=batch,
        seed=seed,
        progress=progress,
    )
    found = fit(samples, limit=limit, seed=seed)
    if found.choice is not None and posterior is not None:
        learned_with = {"method": method, "posterior": posterior_fingerprint(folder)}
        found = replace(found, choice=replace(found.choice, **learned_with))
    found.write(folder)
    return found
