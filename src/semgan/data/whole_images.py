"""Images of any size through a model of one size: decode and preprocess, segment in batches, return to the own size."""

from __future__ import annotations

import os
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semgan.data.dicom import is_dicom
from semgan.data.parallel import thread_pool
from semgan.data.readers import IMAGE_SUFFIXES, image_stem, is_image, read_image, read_image_files
from semgan.data.transforms import to_levels
from semgan.data.tree import channel_files, files_of, stem_within
from semgan.types import Segmenter, Steps

if TYPE_CHECKING:
    from torch import Tensor

    from semgan.types import Segmentation

    # Preprocessed images and their answer -> signal -> ``[batch]``
    Measure = Callable[[Tensor, Segmentation], Mapping[str, Tensor]]

_CHANNEL_SUFFIX = re.compile(r"(.+)_(\d{4})")


@dataclass(frozen=True)
class Input:
    """An image to segment; ``in_channel_files`` where its channels lie in files STEM_0000, STEM_0001, ..."""

    stem: str
    path: Path
    in_channel_files: bool = False

    @property
    def files(self) -> list[Path]:
        """Everything that is read."""
        return channel_files(self.path) if self.in_channel_files else [self.path]

    def read(self) -> np.ndarray:
        return read_image_files(self.path) if self.in_channel_files else read_image(self.path)


def find_inputs(path: Path, channels: int) -> tuple[list[Input], list[Path]]:
    """The images of a folder (or one file), sorted by stem, and the files beside them that are no images.

    A folder that holds no image itself means its sub-folders: a/b.png has the stem a__b, as in `data prepare folder`.
    nnU-Net's names STEM_0000.png count as STEM where every image of the folder is named so with exactly the channels
    that the model takes (one file for grey and RGB); otherwise file names are taken as they are. Hidden files are
    passed over. Raises FileNotFoundError where there is no image, ValueError for two images of one stem.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; give an image or a folder of images.")
    files = [path] if path.is_file() else files_of(path, is_image)
    images = [file for file in files if is_image(file) or (path.is_file() and is_dicom(file))]
    if images and path.is_dir() and images[0].parent != path and (path / "dataset.json").is_file():
        raise ValueError(f"{path} is a dataset folder with images and masks; give one folder of it, such as imagesTs.")
    if not images:
        raise FileNotFoundError(
            f"{path} holds no image; expected files named {', '.join(IMAGE_SUFFIXES)}, or DICOM pictures."
        )
    root = path.parent if path.is_file() else path
    named = [(stem_within(root, file, image_stem(file)), file) for file in images]
    inputs = _by_its_folders_names(path, channels) if path.is_file() else _by_channel_names(named, channels)
    if inputs is None:
        inputs = [Input(stem, file) for stem, file in named]
    _refuse_equal_stems(inputs)
    taken = set(images)
    ignored = [file for file in files if file not in taken]
    return sorted(inputs, key=lambda item: item.stem), ignored


def folders_with_images(path: Path) -> list[Path]:
    """The folders directly in a folder that hold an image, by its ending."""
    inner = sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    readable = [folder for folder in inner if os.access(folder, os.R_OK | os.X_OK)]
    return [folder for folder in readable if any(file.suffix.lower() in IMAGE_SUFFIXES for file in folder.iterdir())]


def _by_its_folders_names(file: Path, channels: int) -> list[Input] | None:
    """One file as its folder would name it; of the first channel's file, which stands for all."""
    if _CHANNEL_SUFFIX.fullmatch(image_stem(file)) is None:
        return None
    beside = [(image_stem(other), other) for other in sorted(file.parent.iterdir()) if is_image(other)]
    return [item for item in _by_channel_names(beside, channels) or [] if item.path == file] or None


def _by_channel_names(images: list[tuple[str, Path]], channels: int) -> list[Input] | None:
    """Inputs where all stems follow STEM_0000, ...; None where they do not."""
    expected = 1 if channels in (1, 3) else channels
    groups: dict[str, dict[int, Path]] = defaultdict(dict)
    for stem, file in images:
        match = _CHANNEL_SUFFIX.fullmatch(stem)
        if match is None or int(match[2]) in groups[match[1]]:
            return None
        groups[match[1]][int(match[2])] = file
    wanted = list(range(expected))
    if any(sorted(group) != wanted for group in groups.values()):
        return None
    return [Input(stem, group[0], in_channel_files=expected > 1) for stem, group in groups.items()]


def _refuse_equal_stems(inputs: list[Input]) -> None:
    seen: dict[str, Path] = {}
    for item in inputs:
        if item.stem in seen:
            raise ValueError(
                f"{_told(seen[item.stem], item.path)} would both be written as {item.stem}.png; rename one."
            )
        seen[item.stem] = item.path


def _told(first: Path, second: Path) -> str:
    """Two files by name, and where they lie in different folders by their whole paths."""
    return f"{first.name} and {second.name}" if first.parent == second.parent else f"{first} and {second}"


@dataclass(frozen=True)
class SegmentedImage:
    """One image's answer, at the image's own size.

    label_map:      uint8 ``[height, width]`` class indices
    probabilities:  float32 ``[classes, height, width]``
    confidence:     in [0, 1], mean over pixels of the winning class' probability (at the network's resolution)
    steps:          that gave this answer; of the image itself, where the model's stopping rule chose
    losses:         value of each loss term at that step; empty for methods without optimisation
    snapshots:      step -> label map at that step, own size, for the steps asked for
    reconstruction: uint8 ``[size_px, size_px]`` or ``[size_px, size_px, channels]``, or None
    seconds:        the batch's time divided by its images, decoding not counted
    signals:        of how far to trust the answer: the method's own, and what was measured where asked for
    """

    label_map: np.ndarray
    probabilities: np.ndarray
    confidence: float
    steps: int
    seconds: float
    losses: dict[str, float] = field(default_factory=dict)
    snapshots: dict[int, np.ndarray] = field(default_factory=dict)
    reconstruction: np.ndarray | None = None
    signals: dict[str, float] = field(default_factory=dict)


def segment_images(
    segmenter: Segmenter,
    images: Iterable[np.ndarray | Path | str | Input],
    *,
    steps: Steps | None = None,
    snapshot_steps: tuple[int, ...] = (),
    batch: int = 64,
    modality: str | None = None,
    threads: int | None = None,
    measure: Measure | None = None,
) -> Iterator[SegmentedImage]:
    """Segment decoded images or files with any method's model, in order.

    measure: what else is to be known of every answer, for ``signals``; it is given answers that hold step 0 too.
    modality names the preprocessing rule (and weights) of a model that has several.
    Files are decoded ahead in threads; at most two batches of preprocessed images wait in memory, and answers are
    brought to their own size one at a time. Raises what the readers, ``preprocess`` and the model raise.
    """
    prepare = preprocessing_of(segmenter, modality)
    segment_batch = segmenter.segment_batch
    if modality is not None:
        segment_batch = partial(segment_batch, modality=modality)  # type: ignore[call-arg]  # as for `preprocess`
    for block in _decoded_blocks(prepare, images, batch, threads):
        import torch

        began = time.perf_counter()
        pixels = torch.stack([pixels for pixels, _ in block])
        answer = answered(segment_batch, pixels, steps=steps, snapshot_steps=snapshot_steps, measure=measure)
        seconds = (time.perf_counter() - began) / len(block)
        for row, (_, size) in enumerate(block):
            yield own_answer(answer, row, size, seconds)


def answered(
    segment_batch: Callable[..., Segmentation],
    pixels: Tensor,
    *,
    steps: Steps | None,
    snapshot_steps: tuple[int, ...] = (),
    measure: Measure | None,
) -> Segmentation:
    """The answer for a batch of network inputs; its signals are what ``measure`` finds, where there is one.

    Snapshots are those asked for; ``measure`` is given step 0 too. Raises what the model raises.
    """
    kept_steps = snapshot_steps if measure is None else tuple({0, *snapshot_steps})
    answer = segment_batch(pixels, steps=steps, snapshot_steps=kept_steps)
    signals = answer.signals if measure is None else measure(pixels, answer)
    snapshots = {step: kept for step, kept in answer.snapshots.items() if step in snapshot_steps}
    return replace(answer, signals=dict(signals), snapshots=snapshots)


def preprocessing_of(segmenter: Segmenter, modality: str | None) -> Callable[[np.ndarray], Tensor]:
    """The model's ``preprocess``, with the rule of a modality where one is named."""
    if modality is None:
        return segmenter.preprocess
    return partial(segmenter.preprocess, modality=modality)  # type: ignore[call-arg]  # models of several rules take it


def _decoded_blocks(
    prepare: Callable[[np.ndarray], Tensor],
    images: Iterable[np.ndarray | Path | str | Input],
    batch: int,
    threads: int | None,
) -> Iterator[list[tuple[Tensor, tuple[int, int]]]]:
    def decoded(item: np.ndarray | Path | str | Input) -> tuple[Tensor, tuple[int, int]]:
        pixels = _pixels(item)
        return prepare(pixels), (pixels.shape[0], pixels.shape[1])

    rest = iter(images)
    pool = thread_pool(threads)
    try:
        ahead: list[Future] = [pool.submit(decoded, item) for item in islice(rest, batch)]
        while ahead:
            ready, ahead = ahead, [pool.submit(decoded, item) for item in islice(rest, batch)]
            yield [future.result() for future in ready]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pixels(item: np.ndarray | Path | str | Input) -> np.ndarray:
    if isinstance(item, np.ndarray):
        return item
    return item.read() if isinstance(item, Input) else read_image(Path(item))


def own_answer(answer: Segmentation, row: int, size: tuple[int, int], seconds: float) -> SegmentedImage:
    """One image of a batch, brought to its own size (height, width)."""
    probabilities = to_own_size(answer.probabilities[row], size)
    return SegmentedImage(
        label_map=label_map(probabilities),
        probabilities=probabilities.numpy(),
        confidence=float(answer.confidence[row]),
        steps=answer.steps_of(row),
        seconds=seconds,
        losses=answer.losses_of(row),
        snapshots={step: label_map(to_own_size(kept[row], size)) for step, kept in answer.snapshots.items()},
        reconstruction=None if answer.reconstruction is None else to_pixels(answer.reconstruction[row]),
        signals={name: float(values[row]) for name, values in answer.signals.items()},
    )


def to_own_size(probabilities: Tensor, size: tuple[int, int]) -> Tensor:
    """``[classes, size_px, size_px]`` probabilities -> float32 ``[classes, height, width]``, bilinear, on the CPU."""
    from torch.nn.functional import interpolate

    probabilities = probabilities.detach().float().cpu()
    if tuple(probabilities.shape[1:]) == size:
        return probabilities
    return interpolate(probabilities[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]


def label_map(probabilities: Tensor) -> np.ndarray:
    """``[classes, height, width]`` on the CPU -> uint8 ``[height, width]``, the (first) most probable class.

    Class by class: torch's argmax over the outermost axis takes ten times as long on a CPU.
    """
    values = probabilities.numpy()
    best, winner = values[0].copy(), np.zeros(values.shape[1:], np.uint8)
    for number, plane in enumerate(values[1:], start=1):
        np.copyto(winner, np.uint8(number), where=plane > best)
        np.maximum(best, plane, out=best)
    return winner


def to_pixels(image: Tensor) -> np.ndarray:
    """``[channels, height, width]`` in [-1, 1] -> uint8 ``[height, width]`` or ``[height, width, channels]``."""
    pixels = to_levels(image).cpu().numpy()
    return pixels[0] if len(pixels) == 1 else np.ascontiguousarray(np.moveaxis(pixels, 0, -1))
