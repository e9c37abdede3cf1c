"""``semgan interpolate``: walks between codes, with their masks and how smooth they are (the paper's Figures 7 to 10).

    OUT/strips.png, .pdf       per walk a row of images and a row of masks
    OUT/changes.png, .pdf      how far image and mask move at every step
    OUT/video.webp, .gif       the walks one after the other
    OUT/frames.csv             walk, frame, t, image_change, mask_change, probability_change
    OUT/smoothness.json        perceptual path length, evenness, detours (see `Smoothness`)
    OUT/codes.safetensors      the end points: z or w+
    OUT/interpolation.json     what was asked

In Z walks are great circles (spherical interpolation of directions: the mapping network normalises its input), in W+
straight lines. The noise maps are the model's fixed ones throughout, so that only the code changes; `semgan sample`
draws noise with every seed, so its image of a seed differs in texture. Seeds mean the codes of `semgan sample`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from semgan import artifacts, seeding
from semgan.data.whole_images import Input, to_pixels
from semgan.generative import distance_name, load_generative
from semgan.metrics.intervals import mean_interval
from semgan.report import pictures
from semgan.report.evaluations import short_names
from semgan.report.strips import Walk, write_walks
from semgan.result_folder import ResultFolder
from semgan.segment import check_inputs
from semgan.segment import pictures as find_pictures
from semgan.types import MOST_SEED

if TYPE_CHECKING:
    from torch import Tensor

    from semgan.stages.semantic_gan import SemanticGan

logger = logging.getLogger(__name__)

MARKER, TABLE, SMOOTHNESS, CODES = "interpolation.json", "frames.csv", "smoothness.json", "codes.safetensors"
STEPS = 200  # of the inversion that embeds images
SEEDS = (0, 1, 2)  # where neither seeds nor images are given
EPSILON = 1e-3
BATCH = 32
Space = Literal["z", "w+"]
Progress = Callable[[int, int, str], Any]


@dataclass(frozen=True)
class Smoothness:
    """How smooth the space is, and the walks shown.

    path_length:      mean of d(G(t), G(t + epsilon)) / epsilon^2 at random points [Karras et al. 2019, sec. 4.1], of
                      the whole picture (no crop); None where not asked for. Departure: epsilon is 1e-3, not
                      1e-4, as single precision does not resolve the distances of steps that short
    mask_path_length: mean of the share of probability that moves between classes, over epsilon
    of:               where the points lie: on great circles or lines between fresh random codes, or on the walks shown
    distance:         which perceptual distance; values of different distances do not compare
    evenness:         per walk: largest step of the image over the mean step; 1 is perfectly even
    detour:           per walk: pixels that change class, summed over steps, over those that differ between the ends;
                      1 is the direct way, None where the ends have the same mask
    """

    space: str
    path_length: float | None
    path_length_interval: tuple[float, float] | None
    mask_path_length: float | None
    points: int
    epsilon: float
    of: str
    distance: str
    evenness: dict[str, float | None]
    detour: dict[str, float | None]


def interpolate(
    model: Path | str | SemanticGan,
    out: Path | str,
    *,
    space: Space = "z",
    seeds: Sequence[int] = (),
    images: Sequence[Path | str] = (),
    frames: int = 16,
    steps: int = STEPS,
    truncation: float = 1.0,
    points: int = 128,
    seed: int = 0,
    formats: Sequence[str] = ("png", "webp"),
    overwrite: bool = False,
    device: str = "auto",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Walk from code to code: the seeds' in order, then (space w+) the images', embedded by encoder and optimisation.

    frames: steps per walk; points: where the path length is measured, 0: nowhere; seed: of these points
    Returns what smoothness.json holds. Raises ValueError for fewer than two codes, images in Z, models that cannot
    draw images and for unreadable images; FileExistsError where ``out`` has other content.
    """
    formats, out = pictures.checked_formats(formats), Path(out)
    seeds = tuple(seeds) if seeds or images else SEEDS
    _check(space, seeds, images, frames, truncation)
    gan, identity = load_generative(model, device, encoder=bool(images))
    inputs = [item for path in images for item in find_pictures(Path(path), gan.settings.preprocessing.channels)]
    if len(seeds) + len(inputs) < 2:
        raise ValueError(f"A walk needs two codes; got {len(seeds)} seeds and {len(inputs)} images.")
    request = {
        "format": 1,
        "model": identity,
        "space": space,
        "seeds": list(seeds),
        "images": [_digest(item) for item in inputs],
        "options": {"frames": frames, "steps": steps if inputs else None, "truncation": truncation},
        "measure": {"points": points, "seed": seed},
        "formats": list(formats),
    }
    folder = ResultFolder(out, MARKER, request)
    if identity is not None and folder.is_finished():
        logger.warning("%s already holds these results; nothing to do.", out)
        return artifacts.read_json(out / SMOOTHNESS)
    if inputs:
        check_inputs(gan, inputs, progress=progress)
    goes_on = folder.begin(overwrite=overwrite) and identity is not None
    walker = _Walker(gan, space, truncation, progress)
    with folder.filling((folder.partial / CODES).is_file):
        codes, ends = walker.end_points(folder.partial / CODES, seeds, inputs, steps, goes_on=goes_on)
    found = walker.walks(codes, _names(seeds, inputs), ends, frames)
    write_walks(folder.partial, [walk for walk, _ in found], gan.labels.names, formats)
    artifacts.write_text_atomic(folder.partial / TABLE, _table(found))
    measured = _smoothness(walker, codes if inputs else None, [walk for walk, _ in found], points, seed)
    artifacts.write_json(folder.partial / SMOOTHNESS, asdict(measured))
    folder.finish()
    return artifacts.read_json(out / SMOOTHNESS)


def _check(space: str, seeds: Sequence[int], images: Sequence[Any], frames: int, truncation: float) -> None:
    if space not in ("z", "w+"):
        raise ValueError(f"--space takes z or w+; got '{space}'.")
    if images and space == "z":
        raise ValueError("Images are embedded into W+, not into Z: give --space w+, or --seeds without images.")
    if not images and len(seeds) < 2:
        raise ValueError(f"A walk needs two codes; got {len(seeds)}. Give --seeds 1,2 or, with --space w+, images.")
    if seeds and not 0 <= min(seeds) <= max(seeds) <= MOST_SEED:
        raise ValueError(f"Seeds are numbers from 0 to {MOST_SEED}; got {list(seeds)}.")
    if frames < 1 or not (math.isfinite(truncation) and truncation >= 0):
        raise ValueError(f"A walk has 1 step or more and a truncation of 0 or more; got {frames} and {truncation}.")


def _names(seeds: Sequence[int], inputs: Sequence[Input]) -> list[str]:
    """What the codes are called; images of one stem are told apart by the folders above them."""
    paths = [item.path.resolve().with_name(item.stem) for item in inputs]
    stems = [path.name for path in dict.fromkeys(paths)]
    short = short_names([path for path in paths if stems.count(path.name) > 1])
    return [*(f"seed {number}" for number in seeds), *(short.get(path, path.name) for path in paths)]


def _digest(item: Input) -> str:
    known = hashlib.sha256()
    for file in item.files:
        known.update(file.read_bytes())
    return f"{item.stem} {known.hexdigest()[:16]}"


# ---------------------------------------------------------------- codes


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points of the great circle through the directions of a and b, ``[..., n]``, of length sqrt(n); t ``[..., 1]``.

    Opposite or equal directions have no such circle of their own: there it is the straight line, normalised.
    """
    import torch

    length = a.shape[-1] ** 0.5
    a, b = (torch.nn.functional.normalize(x.double(), dim=-1) for x in (a, b))
    cosine = (a * b).sum(-1, keepdim=True).clamp(-1, 1)
    angle = torch.arccos(cosine)
    sine = torch.sin(angle)
    apart = sine > 1e-6
    safe = torch.where(apart, sine, 1.0)
    weight_a = torch.where(apart, torch.sin((1 - t) * angle) / safe, 1 - t)
    weight_b = torch.where(apart, torch.sin(t * angle) / safe, t)
    return length * torch.nn.functional.normalize(weight_a * a + weight_b * b, dim=-1)


def lerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points of the straight line from a to b, ``[..., n]``, in double precision; t ``[..., 1]``."""
    return (1 - t) * a.double() + t * b.double()


class _Walker:
    """The generator along lines between codes, z ``[n, w_dim]`` or w+ ``[n, layers, w_dim]``."""

    def __init__(self, gan: SemanticGan, space: Space, truncation: float, progress: Progress | None) -> None:
        self.gan, self.space, self.truncation, self.progress = gan, space, truncation, progress

    def random(self, numbers: Sequence[int], *, seed: int = 0, stream: str = "sample") -> Tensor:
        """Code i is a function of (seed, stream, ``numbers[i]``) alone; the default is that of `semgan sample`."""
        z = seeding.normal(seed, f"{stream}/z", numbers, (self.gan.generator.w_dim,))
        return z if self.space == "z" else self._w_plus(z).cpu()

    def _w_plus(self, z: Tensor) -> Tensor:
        import torch

        with torch.no_grad():
            mean = self.gan.whitening.mean
            w = mean + self.truncation * (self.gan.generator.mapping(z.float().to(self.gan.device)) - mean)
            return self.gan.generator.broadcast(w)

    def between(self, a: Tensor, b: Tensor, t: Tensor) -> Tensor:
        """Codes at shares ``t`` ``[n]`` of the ways from a to b ``[n, ...]``, float64."""
        share = t.double().reshape(-1, *[1] * (a.dim() - 1))
        return slerp(a, b, share) if self.space == "z" else lerp(a, b, share)

    def draw(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Images and class probabilities of codes, in float32, with the model's fixed noise."""
        import torch

        from semgan.objectives.segmentation import probabilities

        with torch.no_grad():
            w_plus = self._w_plus(codes) if self.space == "z" else codes.float().to(self.gan.device)
            joint = self.gan.generator.synthesis(w_plus)
            return joint.image, probabilities(joint.logits)

    def end_points(
        self, file: Path, seeds: Sequence[int], inputs: Sequence[Input], steps: int, *, goes_on: bool
    ) -> tuple[Tensor, list[np.ndarray | None]]:
        """The codes, from ``file`` where an earlier start left them, and the pictures that were embedded."""
        import torch

        prepared = [self.gan.preprocess(item.read()) for item in inputs]
        ends = [None] * len(seeds) + [pictures.for_eyes(to_pixels(image)) for image in prepared]
        if goes_on and file.is_file():
            return artifacts.load_tensors(file)[0]["codes"], ends
        parts = [self.random(seeds)] if seeds else []
        for start in range(0, len(prepared), 4):
            answer = self.gan.segment_batch(torch.stack(prepared[start : start + 4]), steps=steps)
            assert answer.w_plus is not None
            parts.append(answer.w_plus.cpu())
            if self.progress is not None:
                self.progress(min(start + 4, len(prepared)), len(prepared), "embed images")
        codes = torch.cat(parts)
        artifacts.save_tensors(file, {"codes": codes}, {"space": self.space})
        return codes, ends

    def walks(
        self, codes: Tensor, names: Sequence[str], ends: Sequence[np.ndarray | None], frames: int
    ) -> list[tuple[Walk, np.ndarray]]:
        """Every walk, with its change of probability per step ``[frames + 1]``."""
        import torch

        found = []
        for number in range(len(codes) - 1):
            t = torch.linspace(0, 1, frames + 1, dtype=torch.float64)
            a, b = (codes[i : i + 1].expand(len(t), *codes.shape[1:]) for i in (number, number + 1))
            blocks = [self.draw(block) for block in self.between(a, b, t).split(BATCH)]
            image, chances = (torch.cat([block[part] for block in blocks]) for part in (0, 1))
            label_maps = chances.argmax(1)
            pixels = [pictures.for_eyes(to_pixels(picture)) for picture in image]
            moved = _before(self.distance(image[:-1], image[1:]))
            changed = _before((label_maps[1:] != label_maps[:-1]).float().mean((1, 2)))
            walk = Walk(
                (names[number], names[number + 1]),
                (ends[number], ends[number + 1]),
                t.numpy(),
                pixels,
                label_maps.byte().cpu().numpy(),
                moved,
                changed,
            )
            found.append((walk, _before(probability_moved(chances[:-1], chances[1:]))))
            if self.progress is not None:
                self.progress(number + 1, len(codes) - 1, "walk")
        return found

    def distance(self, image_a: Tensor, image_b: Tensor) -> Tensor:
        """The model's perceptual distance, ``[batch]`` float32."""
        import torch

        with torch.no_grad():
            parts = zip(image_a.split(BATCH), image_b.split(BATCH), strict=True)
            return torch.cat([self.gan.perceptual(a, b) for a, b in parts])


def probability_moved(before: Tensor, after: Tensor) -> Tensor:
    """Share of probability that moves between classes, mean of pixels: ``[batch, classes, h, w]`` -> ``[batch]``."""
    return 0.5 * (after - before).abs().sum(1).mean((1, 2))


def _before(values: Tensor) -> np.ndarray:
    """Changes against the frame before, with nan for the first frame."""
    return np.concatenate([[np.nan], values.double().cpu().numpy()])


# ---------------------------------------------------------------- numbers


def _smoothness(walker: _Walker, shown: Tensor | None, walks: Sequence[Walk], points: int, seed: int) -> Smoothness:
    lengths, mask_lengths = _path_lengths(walker, shown, points, seed) if points else (np.zeros(0), np.zeros(0))
    names = [f"{walk.names[0]} to {walk.names[1]}" for walk in walks]
    ways = {"z": "great circles", "w+": "lines"}[walker.space]
    return Smoothness(
        space=walker.space,
        path_length=float(lengths.mean()) if points else None,
        path_length_interval=mean_interval(lengths, seed=seed) if points else None,
        mask_path_length=float(mask_lengths.mean()) if points else None,
        points=points,
        epsilon=EPSILON,
        of=f"{ways} between fresh random codes" if shown is None else "the walks shown",
        distance=distance_name(walker.gan),
        evenness=dict(zip(names, map(_evenness, walks), strict=True)),
        detour=dict(zip(names, map(_detour, walks), strict=True)),
    )


def _path_lengths(walker: _Walker, shown: Tensor | None, points: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Path length of the image and of the mask at random points; between shown codes, the walks take turns."""
    import torch

    lengths, mask_lengths = [], []
    for start in range(0, points, BATCH):
        numbers = range(start, min(start + BATCH, points))
        if shown is None:
            a = walker.random(numbers, seed=seed, stream="path_length/from")
            b = walker.random(numbers, seed=seed, stream="path_length/to")
        else:
            places = torch.tensor([number % (len(shown) - 1) for number in numbers])
            a, b = shown[places], shown[places + 1]
        t = seeding.uniform(seed, "path_length/t", numbers, ()).double() * (1 - EPSILON)
        (image_a, chances_a), (image_b, chances_b) = (
            walker.draw(walker.between(a, b, share)) for share in (t, t + EPSILON)
        )
        lengths.append(walker.distance(image_a, image_b).double().cpu().numpy() / EPSILON**2)
        mask_lengths.append(probability_moved(chances_a, chances_b).double().cpu().numpy() / EPSILON)
        if walker.progress is not None:
            walker.progress(numbers[-1] + 1, points, "path length")
    return np.concatenate(lengths), np.concatenate(mask_lengths)


def _evenness(walk: Walk) -> float | None:
    steps = walk.image_change[1:]
    return float(steps.max() / steps.mean()) if steps.mean() > 0 else None


def _detour(walk: Walk) -> float | None:
    apart = float((walk.label_maps[0] != walk.label_maps[-1]).mean())
    return float(walk.mask_change[1:].sum() / apart) if apart else None


def _table(found: Sequence[tuple[Walk, np.ndarray]]) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["walk", "frame", "t", "image_change", "mask_change", "probability_change"])
    for walk, moved in found:
        name = f"{walk.names[0]} to {walk.names[1]}"
        for place, t in enumerate(walk.t):
            changes = (walk.image_change[place], walk.mask_change[place], moved[place])
            table.writerow([name, place, f"{t:.6f}", *("" if np.isnan(each) else f"{each:.6g}" for each in changes)])
    return text.getvalue()
