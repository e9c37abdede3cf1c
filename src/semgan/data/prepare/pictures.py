"""One source image and its mask: look at them, and write them as the dataset folder stores them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from semgan.data.folder import LABEL_FOLDERS
from semgan.data.picture_files import picture_files
from semgan.data.png16 import write_deep_colour_png
from semgan.data.prepare.inventory import Source
from semgan.data.readers import IMAGE_SUFFIXES, read_image, values_in
from semgan.data.transforms import scale_label, stretch

MOST_VALUES = 300  # a mask with more values is no mask; the rest need not be listed


@dataclass
class Found:
    """What a look at one source says. ``values``: the mask's values, empty without a mask."""

    problems: list[str] = field(default_factory=list)
    channels: int = 0
    is_grey: bool = False
    values: tuple[int, ...] = ()


@dataclass(frozen=True)
class Conversion:
    """How a source is stored. ``table``: mask value -> class index; ``file_ending``: .png, or .tif for any values.

    unlabelled_px: 8-bit images without masks are shrunk by the whole number that leaves their longer side at least this
                   long; None: never. No recipe sees more, and photographs of 24 megapixels would fill disks as PNG.
    """

    dataset: Path
    channels: int
    table: dict[int, int]
    file_ending: str
    unlabelled_px: int | None = None


@dataclass
class Written:
    """``sha256``: of stem, folder and pixels, independent of how PNG compressed them."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sha256: bytes = b""


def survey(source: Source) -> Found:
    """Decode image and mask completely; problems are collected."""
    found = Found()
    image = label = None
    try:
        image = source.read_image(source.image)
        found.channels = 1 if image.ndim == 2 else image.shape[2]
        found.is_grey = _is_grey(image)
        if image.dtype == np.float32 and not np.isfinite(image).all():
            found.problems.append(f"{source.image} holds values that are not finite (NaN or infinity); replace them.")
    except (ValueError, OSError) as error:
        found.problems.append(str(error))
    if source.label is None:
        return found
    try:
        label = _label(source, None if image is None else image.shape)
        found.values = tuple(values_in(label)[:MOST_VALUES])
    except (ValueError, OSError) as error:
        found.problems.append(str(error))
    if image is not None and label is not None and image.shape[:2] != label.shape:
        found.problems.append(
            f"{source.label} is {_size(label)} px and its image {source.image} is {_size(image)} px; they must be "
            "equal: export the mask again at the image's size."
        )
    return found


def failed_survey(problem: str) -> Found:
    return Found(problems=[problem])


def failed_conversion(problem: str) -> Written:
    return Written(problems=[problem])


def convert(job: Conversion, source: Source) -> Written:
    """Write the image, and its mask as class indices, into the dataset folder. Raises OSError for a full disk."""
    written = Written()
    try:
        image = _fitting(source.read_image(source.image), job.channels, source)
        label = None
        if source.label is not None:
            label = indices(_label(source, image.shape), job.table, source.label)
            if _may_be_turned(source.image, source.label, image.shape):
                written.warnings.append(
                    f"{source.image} is turned by its EXIF tag and {source.label} is not; the mask is taken as drawn "
                    "on the picture that viewers show. If it was drawn on the stored pixels, turn it and prepare again."
                )
    except ValueError as error:
        written.problems.append(str(error))
        return written
    if image.dtype == np.float32 and job.file_ending == ".png":
        image = _stretched(image)
        written.warnings.append(f"{source.image}: values beyond 16 bits; stored as 16 bits, minimum to maximum.")
    factor = max(image.shape[:2]) // job.unlabelled_px if job.unlabelled_px and source.folder == "imagesUn" else 1
    is_shrunk = factor > 1 and image.dtype == np.uint8 and image.shape[2:] in ((), (3,))
    if is_shrunk:
        image = np.asarray(Image.fromarray(image).reduce(factor))
    digest = hashlib.sha256(f"{source.folder}/{source.stem} {image.shape} {image.dtype}".encode())
    digest.update(np.ascontiguousarray(image).tobytes())
    _write_image(image, source, job.dataset / source.folder, job.file_ending, may_copy=not is_shrunk)
    if label is not None:
        digest.update(label.tobytes())
        _save(label, job.dataset / LABEL_FOLDERS[source.folder] / f"{source.stem}{job.file_ending}")
    written.sha256 = digest.digest()
    return written


def _label(source: Source, image_shape: tuple[int, ...] | None) -> np.ndarray:
    """The mask, at the image's size where masks of its kind are published at another one."""
    label = source.read_label(source.labels)
    if not source.label_scales or image_shape is None or label.shape == image_shape[:2]:
        return label
    height, width = image_shape[:2]
    if abs(label.shape[0] * width - label.shape[1] * height) > max(label.shape) * max(height, width) * 0.01:
        return label  # another picture's mask: not of this shape at any scale
    return scale_label(label, height, width)


def _may_be_turned(image: Path, label: Path, shape: tuple[int, ...]) -> bool:
    """Whether a mask may have been drawn on the picture as it is stored, and its size does not tell."""
    turned = _orientation(image)
    same_size = shape[0] == shape[1] or turned in (2, 3, 4)  # mirrored or upside down
    return turned != 1 and same_size and _orientation(label) != turned


def _orientation(file: Path) -> int:
    """EXIF's, or TIFF's own; 1, upright, where a file has none."""
    try:
        with Image.open(file) as picture:
            return picture.getexif().get(ExifTags.Base.Orientation, 1)
    except OSError:  # of another kind, such as a volume
        return 1


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"


def _is_grey(image: np.ndarray) -> bool:
    if image.ndim == 2:
        return True
    return image.shape[2] in (1, 3) and bool((image == image[..., :1]).all())


def _fitting(image: np.ndarray, channels: int, source: Source) -> np.ndarray:
    """``[height, width]`` for one channel, else ``[height, width, channels]``; equal colour channels are one."""
    if channels == 1 and _is_grey(image):
        return image if image.ndim == 2 else image[..., 0]
    found = 1 if image.ndim == 2 else image.shape[2]
    if found == channels:
        return image
    kind = "grey" if channels == 1 else f"of {channels} channels"
    raise ValueError(
        f"{source.image} has {found} channel(s){' that differ' if found == 3 else ''}, and the labelled images are "
        f"{kind}; convert it, or take it out of the folder."
    )


def indices(values: np.ndarray, table: Mapping[int, int], file: Path) -> np.ndarray:
    """Mask values as class indices, uint8. Raises ValueError for a value that the table lacks."""
    found = values_in(values)
    unknown = [value for value in found if value not in table]
    if unknown:
        raise ValueError(f"{file} holds the values {unknown[:10]}, which have no class; it changed while it was read.")
    targets = np.array([table[value] for value in found], np.uint8)
    return targets[np.searchsorted(found, values)]


def _stretched(image: np.ndarray) -> np.ndarray:
    planes = image[None] if image.ndim == 2 else np.moveaxis(image, -1, 0)
    stretched = stretch(planes)
    return stretched[0] if image.ndim == 2 else np.moveaxis(stretched, 0, -1)


def _write_image(image: np.ndarray, source: Source, folder: Path, ending: str, *, may_copy: bool) -> None:
    """One file for grey and RGB, else one grey file per channel; an 8-bit PNG of the right kind is copied."""
    first = folder / f"{source.stem}_0000{ending}"
    is_rgb = image.ndim == 3 and image.shape[2] == 3
    is_file_read = source.read_image is read_image and source.image.suffix.lower() in IMAGE_SUFFIXES
    is_as_stored = may_copy and image.dtype == np.uint8 and is_file_read
    if is_as_stored and _is_plain_png(source.image, "RGB" if is_rgb else "L"):
        shutil.copyfile(source.image, first)
    elif is_rgb and image.dtype == np.uint16 and ending == ".png":
        write_deep_colour_png(first, image)
    else:
        for name, pixels in picture_files(image, source.stem, ending).items():
            _save(pixels, folder / name)


def _save(pixels: np.ndarray, file: Path) -> None:
    if file.suffix == ".tif":
        import tifffile

        tifffile.imwrite(file, pixels, compression="zlib", compressionargs={"level": 1}, metadata=None)
        return
    # Level 3 takes half the time of Pillow's default and a tenth more space.
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, compress_level=3)


def _is_plain_png(file: Path, mode: str) -> bool:
    with Image.open(file) as picture:
        is_plain = picture.format == "PNG" and picture.mode == mode and "transparency" not in picture.info
    return is_plain and _orientation(file) == 1
