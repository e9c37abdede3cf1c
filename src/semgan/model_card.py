"""The README.md of a model folder: what the model was trained on, how well it does, where it must not be used."""

from __future__ import annotations

from collections.abc import Mapping

from semgan.config import Settings

_TEMPLATE = """# {title}

Segments {channels} images into {count} classes: {classes}. Trained with the recipe `{recipe}` of semgan (method \
`{method}`), after Li, Yang, Kreis, Torralba, Fidler: Semantic Segmentation with Generative Models, CVPR 2021.

**Not a medical device.** For research; no output may be used to diagnose or treat anybody.

## Use

    semgan segment -m THIS_FOLDER -i IMAGES -o MASKS

    model = semgan.load("THIS_FOLDER")
    masks = [answer.label_map for answer in model.segment(["picture.png"])]

## Data

{data}

Images are squashed to {size} x {size} px; {preprocessing}. Images must be of the same kind: the same preprocessing is
applied to whatever comes.

## Training

{training}

## Scores

{scores}

## Limits

- A mask is returned for every image, also for one that shows nothing of what was learnt; look at the confidence.
- The labels come from {labels}; rare shapes and diseases missing there are missing here.
- Scores hold for the data named above; other devices, populations and image qualities have to be tested first.
{limits}"""


def model_card(
    settings: Settings,
    *,
    data: Mapping[str, object] | None = None,
    training: Mapping[str, object] | None = None,
    scores: Mapping[str, float] | None = None,
    limits: tuple[str, ...] = (),
) -> str:
    """The card's text. data, training: facts by name (data set, counts, images seen, ...); scores: values by name."""
    rule = settings.preprocessing
    steps = [
        *(f"values clipped to {bounds[0]:g} to {bounds[1]:g}" for bounds in [rule.clip] if bounds),
        *(f"values clipped to their percentiles {p[0]:g} to {p[1]:g}" for p in [rule.clip_percentiles] if p),
        "global histogram equalisation" if rule.equalise_histogram else "no histogram equalisation",
        f"gamma {rule.gamma:g}",
    ]
    return _TEMPLATE.format(
        title=f"semgan model: {', '.join(settings.classes[1:])}",
        channels={1: "grey", 3: "colour"}.get(rule.channels, f"{rule.channels}-channel"),
        count=len(settings.classes),
        classes=", ".join(settings.classes),
        recipe=settings.recipe,
        method=settings.method,
        data=_facts(data, "Not recorded."),
        size=rule.size_px,
        preprocessing=", ".join(steps),
        training=_facts(training, "See config.json for all settings."),
        scores=_scores(scores, settings.metric),
        labels=_labels(settings),
        limits="".join(f"- {limit}\n" for limit in limits),
    )


def _labels(settings: Settings) -> str:
    """By the list's name: its number may be one of volumes."""
    if settings.labels is None:
        return "all labelled training images"
    return f"the list labelled_{settings.labels}_seed{settings.split_seed} of the data set"


def _facts(facts: Mapping[str, object] | None, otherwise: str) -> str:
    if not facts:
        return otherwise
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def _scores(scores: Mapping[str, float] | None, metric: str) -> str:
    if not scores:
        return "Not scored yet; run `semgan segment` and `semgan evaluate` on images with true masks."
    rows = "\n".join(f"| {name} | {value:.4f} |" for name, value in scores.items())
    return f"| {metric} | value |\n|---|---|\n{rows}"
