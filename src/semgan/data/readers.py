"""Image files -> arrays: the only decoder.

Every failure becomes one ValueError that names the file and the cure.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps

from semgan.data.dicom import DICOM_SUFFIXES, MAGIC_OFFSET, is_dicom
from semgan.data.dicom_pictures import Kind, dicom_kind, read_picture
from semgan.data.png16 import decode_deep_colour_png, is_deep_colour_png
from semgan.data.tree import channel_files

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
Answer = TypeVar("Answer")
MASK_SUFFIXES = (*IMAGE_SUFFIXES, ".gif")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "PPM", "JPEG2000")  # as Pillow names them
_IN_MEMORY = re.compile(r"<_io\.BytesIO object at \w+>")
_MOST_SAMPLES = 8 * 89_478_485  # of a TIFF: RGBA of the most pixels that Pillow decodes
_FEW = 1 << 16  # values of a mask that a table may list
_MOST_BETWEEN = 0.05  # share of pixels between dark and bright above which a picture is no binary mask


def read_image(path: Path) -> np.ndarray:
    """Decode one file: ``[height, width]`` or ``[height, width, channels]``, uint8, uint16 or float32 as stored.

    Palettes become RGB, alpha is dropped, 1-bit pictures are 0 and 255, CMYK becomes RGB, and a camera's note to turn
    the picture (EXIF, or TIFF's own tag) is followed, as viewers do. A TIFF's pages or planes of equal size are its
    channels. Signed and 32-bit integers are uint16 where they fit, else float32. DICOM pictures (X-rays, photographs,
    ultrasound), whatever their file's name, come as `semgan.data.dicom_pictures.read_picture` shows them.

    Raises FileNotFoundError, or ValueError for files that are damaged, truncated or no image.
    """
    path = Path(path)
    if _may_be_dicom(path) and is_dicom(path):
        return read_picture(path)
    return _guarded(path, _decode_image)


def read_image_bytes(content: bytes, name: str) -> np.ndarray:
    """Decode a file that is in memory, as `read_image`; ``name`` tells its kind by its ending, and is named in errors.

    DICOM passes through a temporary file. Raises ValueError for what is damaged, truncated or no image.
    """
    suffix = "." + name.rpartition(".")[2].lower()  # pathlib would keep every name: here pass millions
    if suffix in DICOM_SUFFIXES or content[MAGIC_OFFSET : MAGIC_OFFSET + 4] == b"DICM":
        with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
            file.write(content)
            file.flush()
            return _named(lambda: read_picture(Path(file.name)), name, file.name)
    if suffix not in IMAGE_SUFFIXES:
        raise ValueError(f"{name} is not an image of a known kind; expected {', '.join(IMAGE_SUFFIXES)}.")
    return _named(lambda: _decode_content(content, suffix), name)


def is_image(path: Path) -> bool:
    """Whether a file is for `read_image`: by its ending, or DICOM that is a picture, or too damaged to tell."""
    if not _may_be_dicom(path):
        return path.suffix.lower() in IMAGE_SUFFIXES
    return dicom_kind(path) in (Kind.picture, Kind.screen, Kind.broken)


def is_mask(path: Path) -> bool:
    """Whether a file is for `read_label`: by its ending, or a DICOM SEG."""
    return path.suffix.lower() in IMAGE_SUFFIXES or dicom_kind(path) is Kind.mask


def image_stem(path: Path) -> str:
    """A file's name without its ending; the whole name of DICOM without one, such as 1.2.840.113619."""
    return path.stem if path.suffix.lower() in (*IMAGE_SUFFIXES, *DICOM_SUFFIXES) else path.name


def _may_be_dicom(path: Path) -> bool:
    return path.suffix.lower() not in MASK_SUFFIXES and path.is_file()


def read_image_files(first: Path) -> np.ndarray:
    """An image of a dataset folder: ``STEM_0000.png`` alone, or stacked with ``STEM_0001.png`` ... where they exist.

    A name without ``_0000`` is read alone. Raises as `read_image`, and ValueError for channels of unequal size.
    """
    planes = [read_image(path) for path in channel_files(first)]
    if len(planes) == 1:
        return planes[0]
    shapes = {plane.shape for plane in planes}
    if len(shapes) > 1 or planes[0].ndim != 2:
        name = first.stem.removesuffix("_0000")
        raise ValueError(f"{first}: the channel files {name}_0000, _0001, ... differ in size: {sorted(shapes)}.")
    return np.stack(planes, axis=-1)


def read_label(path: Path) -> np.ndarray:
    """Decode one mask: int32 ``[height, width]`` of the stored values; a palette's indices, not its colours.

    It is turned as `read_image` turns it, and 0 is black there too: TIFF that stores white as 0 is inverted.
    A DICOM SEG drawn on one picture gives its segment numbers, 0 where there is none.
    Raises FileNotFoundError, or ValueError for damaged files, for colour masks and for shapes that only transparency
    shows.
    """
    path = Path(path)
    if _may_be_dicom(path) and is_dicom(path):
        from semgan.data.dicom_seg import read_picture_seg  # which needs `decoded`

        return read_picture_seg(path)
    return _guarded(path, _decode_label, MASK_SUFFIXES)


def read_foreground(path: Path) -> np.ndarray:
    """Decode a mask of two brightnesses: bool ``[height, width]``, True above half of its brightest value.

    Grey, colour, palette and 1-bit files, with alpha or without, mean the same here: what they look like.
    Raises FileNotFoundError, or ValueError for damaged files, for pictures with many values in between and for shapes
    that only transparency shows.
    """
    pixels = _guarded(path, _decode_image, MASK_SUFFIXES)
    bright = pixels if pixels.ndim == 2 else pixels.max(axis=-1)
    if bright.min() == bright.max():
        _guarded(path, _stored_values, MASK_SUFFIXES)  # which refuses what only transparency shows
    brightest = bright.max()
    between = (bright > 0.1 * brightest) & (bright < 0.9 * brightest)
    if between.mean() > _MOST_BETWEEN:
        raise ValueError(
            f"{path} should be a mask of two values, and {between.mean():.0%} of it lies in between: it looks like a "
            "picture. Replace the file, or take it out of the folder."
        )
    return bright > 0.5 * brightest


def values_in(labels: np.ndarray) -> list[int]:
    """The different values of an array of whole numbers, in order; without sorting all of it, as volumes are large."""
    if labels.size == 0:
        return []
    low, high = int(labels.min()), int(labels.max())
    if high - low > _FEW:
        return np.unique(labels).tolist()
    seen = np.zeros(high - low + 1, bool)
    seen[labels.ravel(order="K") - low] = True
    return (np.flatnonzero(seen) + low).tolist()


def class_values(values: np.ndarray) -> np.ndarray:
    """A mask's numbers as int32. Raises ValueError for fractions, and for what int32 cannot hold."""
    if values.dtype.kind == "f" and not np.array_equal(values, np.rint(values)):
        raise ValueError("a mask holds whole numbers, and this one has fractions")
    limits = np.iinfo(np.int32)
    if values.size and (values.min().item() < limits.min or values.max().item() > limits.max):
        raise ValueError(
            f"its values go from {values.min()} to {values.max()}; those of a mask are {limits.min} to {limits.max}"
        )
    return values.astype(np.int32)


def _guarded(path: Path, decode, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> np.ndarray:  # noqa: ANN001
    path = Path(path)
    if path.is_file() and path.suffix.lower() not in suffixes:
        raise ValueError(f"{path} is not an image of a known kind; expected {', '.join(suffixes)}.")
    return decoded(path, decode)


def decoded(path: Path, decode: Callable[[Path], Answer]) -> Answer:
    """What ``decode`` makes of a file. Raises FileNotFoundError; ValueError naming the file where that fails."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist or is not a file.")
    return _named(lambda: decode(path), str(path))


def _named(decode: Callable[[], Answer], name: str, inner: str | None = None) -> Answer:
    """What ``decode`` gives, its errors as one ValueError that names the file; ``inner``: its name in those errors."""
    try:
        return decode()
    except MemoryError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged files
        reason = _IN_MEMORY.sub("the file", str(error)).replace(inner or name, "the file").strip()
        reason = reason.replace("image file the file", "an image in the file")
        reason = reason or type(error).__name__
        raise ValueError(f"{name} cannot be read ({reason}). Replace the file, or take it out of the folder.") from None


def _decode_image(path: Path) -> np.ndarray:
    return _decode_content(path.read_bytes(), path.suffix.lower())


def _decode_content(content: bytes, suffix: str) -> np.ndarray:
    if suffix in (".tif", ".tiff"):
        return _plain(_decode_tiff(BytesIO(content)))
    if is_deep_colour_png(content):
        return _plain(_deep_colour(content, _without_alpha))
    with _opened(BytesIO(content)) as picture:
        picture.load()
        return _plain(_pixels(ImageOps.exif_transpose(picture)))


def _opened(content: BytesIO) -> Image.Image:
    """By content, whatever the name says; but no kind for which Pillow starts other programs (EPS)."""
    return Image.open(content, formats=_FORMATS)


def _pixels(picture: Image.Image) -> np.ndarray:
    """A loaded Pillow picture as an array without palette or alpha."""
    mode = picture.mode
    if mode == "1":
        picture = picture.convert("L")
    elif mode in ("P", "PA", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV"):
        picture = picture.convert("RGB")
    elif mode in ("LA", "La"):
        picture = picture.getchannel("L")
    return np.array(picture)


def _without_alpha(pixels: np.ndarray) -> np.ndarray:
    samples = pixels.shape[-1]
    return pixels[..., 0] if samples == 2 else pixels[..., :3]


def _shown(values: np.ndarray) -> np.ndarray:
    """A mask without its alpha, if it has any. Raises ValueError where everything that is drawn lies in the alpha."""
    if values.ndim == 2 or values.shape[-1] not in (2, 4):
        return values
    seen, alpha = _without_alpha(values), values[..., -1]
    if (seen == seen[0, 0]).all() and (alpha != alpha[0, 0]).any():
        raise ValueError(
            "it has one colour throughout, and its shape lies in its transparency alone; save what it shows on black "
            "(in most programs: flatten), or the transparency itself as a grey picture"
        )
    return seen


def _decode_tiff(content: BytesIO) -> np.ndarray:
    import tifffile

    colours = tifffile.PHOTOMETRIC
    of_pillow = (colours.PALETTE, colours.YCBCR, colours.SEPARATED, colours.CIELAB, colours.ICCLAB, colours.ITULAB)
    try:
        return _tiff_values(content, of_pillow, _without_alpha)
    except (ValueError, RuntimeError) as error:
        if "imagecodecs" not in str(error):  # compressed in a way that Pillow's libtiff may know
            raise
    return _decode_tiff_with_pillow(content)


def _tiff_values(
    content: BytesIO, of_pillow: tuple[int, ...], without_alpha: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Values as shown, alpha left out, upright. of_pillow: kinds of colour that Pillow turns into RGB."""
    import tifffile

    with tifffile.TiffFile(content) as file:
        if len(file.series) != 1:
            raise ValueError(f"it holds {len(file.series)} pictures of unequal size; split it")
        series, page = file.series[0], file.series[0].keyframe
        if series.size > _MOST_SAMPLES:  # as Pillow refuses other kinds, before that much memory is asked for
            raise ValueError(f"it announces {series.size:,} values; over {_MOST_SAMPLES:,} are no picture")
        if page.photometric in of_pillow:
            return _decode_tiff_with_pillow(content)
        pixels = _channels_last(series.asarray(), series.axes)
        has_alpha = bool(page.extrasamples) and page.extrasamples[0] in (1, 2)
        if has_alpha and pixels.ndim == 3 and pixels.shape[-1] in (2, 4):
            pixels = without_alpha(pixels)
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "ub":
            pixels = ~pixels
        return _upright(pixels, page.tags.valueof(ExifTags.Base.Orientation, 1))


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """``[height, width(, channels)]`` turned as the TIFF tag says, which is EXIF's."""
    if orientation in (5, 6, 7, 8):
        pixels = np.swapaxes(pixels, 0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _channels_last(pixels: np.ndarray, axes: str) -> np.ndarray:
    """``[height, width(, channels)]`` from an array whose axes are named as tifffile does."""
    keep = [size > 1 or axis in "YX" for axis, size in zip(axes, pixels.shape, strict=True)]
    pixels = pixels.reshape([size for size, kept in zip(pixels.shape, keep, strict=True) if kept])
    axes = "".join(axis for axis, kept in zip(axes, keep, strict=True) if kept)
    others = axes.replace("Y", "").replace("X", "")
    if "Y" not in axes or "X" not in axes or len(others) > 1:
        raise ValueError(f"its axes are {axes} {pixels.shape}; expected height, width and at most one of channels")
    return np.transpose(pixels, [axes.index("Y"), axes.index("X"), *(axes.index(axis) for axis in others)])


def _decode_tiff_with_pillow(content: BytesIO) -> np.ndarray:
    content.seek(0)
    with _opened(content) as picture:
        pages = []
        for page in range(getattr(picture, "n_frames", 1)):
            picture.seek(page)
            picture.load()
            pages.append(_pixels(ImageOps.exif_transpose(picture)))
    return pages[0] if len(pages) == 1 else np.dstack(pages)


def _plain(pixels: np.ndarray) -> np.ndarray:
    """One of the three kinds of array that `read_image` promises."""
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind in "ui":
        fits = pixels.size == 0 or (pixels.min() >= 0 and pixels.max() <= 65535)
        return pixels.astype(np.uint16 if fits else np.float32)
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32)
    raise ValueError(f"it holds values of type {pixels.dtype}")


def _stored_values(path: Path) -> np.ndarray:
    """A mask's numbers without alpha, ``[height, width(, channels)]``. Raises as `_shown`."""
    content = path.read_bytes()
    if path.suffix.lower() in (".tif", ".tiff"):
        return _tiff_indices(BytesIO(content))
    if is_deep_colour_png(content):
        return _deep_colour(content, _shown)
    with _opened(BytesIO(content)) as picture:
        picture.load()
        values, spread = _indices(ImageOps.exif_transpose(picture)), _spread_by(content)
        return values if spread == 1 else values // spread


def _spread_by(content: bytes) -> int:
    """What Pillow multiplies the samples of a grey PNG of 2 or 4 bits with, so that the brightest is 255."""
    is_grey_png = content.startswith(b"\x89PNG\r\n\x1a\n") and content[25] == 0
    return {2: 85, 4: 17}.get(content[24], 1) if is_grey_png else 1


def _deep_colour(content: bytes, without_alpha: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A PNG of 16 bits a channel, upright."""
    with _opened(BytesIO(content)) as picture:
        orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return _upright(without_alpha(decode_deep_colour_png(content)), orientation)


def _decode_label(path: Path) -> np.ndarray:
    values = _stored_values(path)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    if values.ndim == 3:
        values = _one_plane(values)
    return class_values(values)


def _indices(picture: Image.Image) -> np.ndarray:
    """A loaded Pillow picture as an array; of a palette its indices."""
    if picture.mode in ("LA", "RGBA", "PA"):
        return _shown(np.array(picture))
    return np.array(picture) if picture.mode in ("1", "P") else _pixels(picture)


def _tiff_indices(content: BytesIO) -> np.ndarray:
    try:
        return _tiff_values(content, (), _shown)
    except (ValueError, RuntimeError) as error:
        if "imagecodecs" not in str(error):
            raise
    content.seek(0)
    with _opened(content) as picture:
        if getattr(picture, "n_frames", 1) > 1:
            raise ValueError("a mask is one picture, and this file holds several pages")
        picture.load()
        return _indices(ImageOps.exif_transpose(picture))


def _one_plane(values: np.ndarray) -> np.ndarray:
    """Grey of a mask saved with equal colour channels."""
    if not (values == values[..., :1]).all():
        raise ValueError(
            "a mask holds one index per pixel, and this one is in colour, or has several pages; save it as grey or "
            "palette PNG"
        )
    return values[..., 0]
