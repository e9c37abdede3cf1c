"""Decoded image -> network input: the one preprocessing for training, segmentation and everything later.

The order is fixed: channels, clipping, values to grey levels, histogram equalisation, gamma, resize to a square, uint8.
Only numpy and Pillow are needed here, so that worker processes start fast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

    from semgan.config import Preprocessing, Settings

GREY_WEIGHTS = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as Pillow and JPEG use
_LEVELS_8_BIT = 256
_LEVELS_DEEP = 65536
_OF_MODALITY: dict[str, dict[str, tuple[float, float] | None]] = {  # [S sec. 4]
    "ct": {"clip": (-200.0, 400.0), "clip_percentiles": None},
    "mri": {"clip": None, "clip_percentiles": (0.1, 99.9)},
}


def rules_by_modality(settings: Settings) -> dict[str, Preprocessing]:
    """The rules of a model: the one it was trained with as "default", and those of ``settings.modalities``."""
    own = settings.preprocessing
    return {"default": own} | {name: own.model_copy(update=_OF_MODALITY[name]) for name in settings.modalities}


def preprocess(image: np.ndarray, rule: Preprocessing) -> np.ndarray:
    """A decoded image ``[height, width]`` or ``[height, width, channels]`` -> uint8 ``[channels, size_px, size_px]``.

    8-bit images keep their scale (0 is black, 255 is white). Images of more than 8 bits have no agreed white
    (12 bits in 16, detector counts, floats), so each is stretched from its own minimum to its own maximum; colour
    channels together, any other number of channels one by one; so is every clipped image. Histogram equalisation is
    the classical one, ``(cdf - cdf_min) / (pixels - cdf_min)`` per channel, then ``value ** gamma`` on [0, 1]; the
    resize is a triangle filter that widens when shrinking (antialias).

    Raises ValueError where the number of channels cannot be turned into ``rule.channels``, or values are not finite.
    """
    return np.stack([_square(plane, rule.size_px) for plane in _toned(image, rule)])


def windowed(image: np.ndarray, rule: Preprocessing) -> np.ndarray:
    """The grey levels that `preprocess` gives, at the image's own size: uint8 ``[channels, height, width]``.

    Raises as `preprocess`.
    """
    return np.stack([_to_bytes(plane) for plane in _toned(image, rule)])


def _toned(image: np.ndarray, rule: Preprocessing) -> list[np.ndarray]:
    """Per channel float32 ``[height, width]`` in [0, 1], all of the rule but the resize."""
    planes, levels = _grey_levels(_clipped(_with_channels(image, rule.channels), rule))
    return [_curve(plane, levels, rule)[plane] for plane in planes]


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """``[channels, height, width]``: RGB to grey by luma, grey to RGB by repetition; other changes are refused."""
    if image.ndim not in (2, 3) or image.size == 0:
        raise ValueError(f"An image is [height, width] or [height, width, channels]; got the shape {image.shape}.")
    planes = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    found = planes.shape[0]
    if found == channels:
        return planes
    if found == 1 and channels == 3:
        return np.repeat(planes, 3, axis=0)
    if found == 3 and channels == 1:
        return _luma(planes)[None]
    raise ValueError(
        f"The image has {found} channels and the model or dataset expects {channels}. "
        "Only grey and RGB are turned into one another; give an image with the expected channels."
    )


def loses_or_lacks_colour(image: np.ndarray, channels: int) -> bool:
    """Whether an image ``[height, width]`` or ``[height, width, n]`` shows colours that a model of one channel does not
    see, or has one channel where the model learned from three; three equal channels are grey, too."""
    found = 1 if image.ndim == 2 else image.shape[-1]
    grey = found == 1 or (found == 3 and _are_equal(np.moveaxis(image, -1, 0)))
    return {found, channels} <= {1, 3} and grey != (channels == 1)


def _are_equal(planes: np.ndarray) -> bool:
    """Whether the channels of an RGB image ``[3, height, width]`` are the same, as of a grey one saved in colour."""
    return np.array_equal(planes[0], planes[1]) and np.array_equal(planes[0], planes[2])


def _luma(planes: np.ndarray) -> np.ndarray:
    """Grey of an RGB image, in its own type; equal channels are returned as they are."""
    if _are_equal(planes):
        return planes[0]
    grey = sum((weight * plane.astype(np.float64) for weight, plane in zip(GREY_WEIGHTS, planes, strict=True)), 0.0)
    assert isinstance(grey, np.ndarray)
    return np.rint(grey).astype(planes.dtype) if planes.dtype.kind in "ui" else grey.astype(planes.dtype)


def _clipped(planes: np.ndarray, rule: Preprocessing) -> np.ndarray:
    """The planes as they are, or float64 within the rule's bounds; percentiles are of each picture's own values."""
    if rule.clip is None and rule.clip_percentiles is None:
        return planes
    values = _finite(planes)
    if rule.clip is not None:
        values = np.clip(values, *rule.clip)
    if rule.clip_percentiles is not None:
        values = np.clip(values, *np.percentile(values, rule.clip_percentiles, _own_range(values), keepdims=True))
    return values


def _grey_levels(planes: np.ndarray) -> tuple[np.ndarray, int]:
    """Integer levels ``[channels, height, width]`` and their number: 256 for 8 bits, else 65536 after a stretch."""
    if planes.dtype == np.bool_:
        return planes.astype(np.uint8) * np.uint8(255), _LEVELS_8_BIT
    if planes.dtype == np.uint8:
        return planes, _LEVELS_8_BIT
    return stretch(planes), _LEVELS_DEEP


def stretch(planes: np.ndarray) -> np.ndarray:
    """``[channels, height, width]`` of any type -> uint16 over the full range, from minimum to maximum.

    Three channels share one range (colour), any other number has one each. Raises ValueError for NaN and infinity.
    """
    values = _finite(planes)
    axes = _own_range(planes)
    low, high = values.min(axes, keepdims=True), values.max(axes, keepdims=True)
    span = np.where(high > low, high - low, 1.0)
    return np.rint((values - low) / span * (_LEVELS_DEEP - 1)).astype(np.uint16)


def _finite(planes: np.ndarray) -> np.ndarray:
    values = planes.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("The image holds values that are not finite (NaN or infinity); replace them first.")
    return values


def _own_range(planes: np.ndarray) -> tuple[int, ...]:
    """The axes that share one range: colour as a whole, else each channel alone."""
    return (0, 1, 2) if planes.shape[0] == 3 else (1, 2)


def _curve(plane: np.ndarray, levels: int, rule: Preprocessing) -> np.ndarray:
    """Look-up table, level -> float32 in [0, 1], with equalisation and gamma."""
    curve = np.arange(levels, dtype=np.float64) / (levels - 1)
    if rule.equalise_histogram:
        below = np.cumsum(np.bincount(plane.ravel(), minlength=levels))
        darkest = below[plane.min()]
        if darkest < plane.size:  # a picture of one level has nothing to equalise
            curve = np.clip((below - darkest) / (plane.size - darkest), 0, 1)
    return (curve**rule.gamma).astype(np.float32)


def _square(plane: np.ndarray, size_px: int) -> np.ndarray:
    resized = Image.fromarray(plane).resize((size_px, size_px), Image.Resampling.BILINEAR)
    return _to_bytes(np.asarray(resized))


def _to_bytes(plane: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(plane, 0, 1) * 255).astype(np.uint8)


def to_unit(image: Any) -> Any:
    """uint8 tensor or array -> float32 of the same kind and shape in [-1, 1]."""
    if isinstance(image, np.ndarray):
        return image.astype(np.float32) / np.float32(127.5) - np.float32(1)
    return image.float() / 127.5 - 1


def to_levels(image: Tensor) -> Tensor:
    """Tensor in about [-1, 1] -> uint8 of the same shape: the way back from `to_unit`."""
    return ((image.detach().float() + 1) * 127.5).round().clamp(0, 255).byte()


def resize_label(label: np.ndarray, size_px: int) -> np.ndarray:
    """Nearest-neighbour resize ``[height, width]`` -> ``[size_px, size_px]``; pixel centres as in the image's."""
    return scale_label(label, size_px, size_px)


def scale_label(label: np.ndarray, height: int, width: int) -> np.ndarray:
    """Nearest-neighbour resize to ``[height, width]``, by pixel centres."""
    rows = ((np.arange(height) + 0.5) * label.shape[0] / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * label.shape[1] / width).astype(np.int64)
    return label[rows[:, None], columns[None, :]]


def enlarged(label_map: Tensor, times: int) -> Tensor:
    """Label maps ``[batch, height, width]`` at so many times their size: every pixel a square of its class."""
    return label_map.repeat_interleave(times, 1).repeat_interleave(times, 2)


def network_input(image: np.ndarray, rules: Mapping[str, Preprocessing], modality: str) -> Any:
    """One decoded image -> tensor ``[channels, size_px, size_px]`` in [-1, 1], by the rule of its modality.

    Raises ValueError for a modality without a rule.
    """
    import torch

    if modality not in rules:
        raise ValueError(f"No preprocessing for modality '{modality}'; the model has {', '.join(rules)}.")
    return to_unit(torch.from_numpy(preprocess(image, rules[modality])))
