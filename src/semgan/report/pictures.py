"""Figures as PNG and PDF, animations as GIF and WebP, and images made fit for people's eyes."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semgan.data.transforms import scale_label
from semgan.report import plotting
from semgan.report.colours import as_rgb, colourise, hex_colour
from semgan.report.curves import write_bytes_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STILL, MOVING = ("png", "pdf"), ("gif", "webp")
FORMATS = (*STILL, *MOVING)
MOST_PX = 384  # longest side of a picture in a figure
CAPTION_PX, MARGIN_PX, LETTER_PX, MOST_WIDE_PX = 18, 6, 12, 1024  # of animations; the last: one picture
_PAPER, _INK = (255, 255, 255), (34, 38, 46)


def checked_formats(names: Sequence[str], known: Sequence[str] = FORMATS) -> tuple[str, ...]:
    """The formats without repetition. Raises ValueError for none and for those that are not among ``known``."""
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(f"--format takes {', '.join(known)}; got {', '.join(map(repr, unknown)) or 'none'}.")
    return tuple(dict.fromkeys(names))


def save_figure(
    path: Path, formats: Sequence[str], size_inch: tuple[float, float], paint: Callable[[Figure], None], dpi: int = 144
) -> list[Path]:
    """Write PATH.png and PATH.pdf, as far as the formats ask for them; returns what was written."""
    written = []
    for name in STILL:
        if name in formats:
            content = (
                plotting.draw(size_inch, paint, dpi=dpi, palette=False)
                if name == "png"
                else plotting.draw_pdf(size_inch, paint, dpi=dpi)
            )
            write_bytes_atomic(beside(path, name), content)
            written.append(beside(path, name))
    return written


def save_animation(path: Path, formats: Sequence[str], frames: Sequence[np.ndarray], frame_ms: int) -> list[Path]:
    """Write PATH.gif and PATH.webp (lossless), as far as asked for; frames: RGB uint8 of one size; endless loop."""
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    lasting = [frame_ms] * (len(pictures) - 1) + [4 * frame_ms]  # a rest before it starts again
    written = []
    for name in MOVING:
        if name in formats:
            buffer = io.BytesIO()
            options = {"lossless": True} if name == "webp" else {"disposal": 1}
            pictures[0].save(
                buffer, name, save_all=True, append_images=pictures[1:], duration=lasting, loop=0, **options
            )
            write_bytes_atomic(beside(path, name), buffer.getvalue())
            written.append(beside(path, name))
    return written


def beside(path: Path, suffix: str) -> Path:
    """PATH.suffix; unlike ``with_suffix`` it keeps dots in the name."""
    return path.with_name(f"{path.name}.{suffix}")


# ---------------------------------------------------------------- pictures


def for_eyes(image: np.ndarray) -> np.ndarray:
    """uint8 ``[height, width]`` or ``[height, width, channels]`` -> RGB; two, four or more channels as grey tiles."""
    if image.ndim == 2 or image.shape[2] in (1, 3):
        return as_rgb(image)
    channels = image.shape[2]
    columns = math.ceil(math.sqrt(channels))
    rows = math.ceil(channels / columns)
    height, width = image.shape[:2]
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for number in range(channels):
        row, column = divmod(number, columns)
        sheet[row * height : (row + 1) * height, column * width : (column + 1) * width] = image[..., number]
    return as_rgb(sheet)


def shown_size(height: int, width: int, most_px: int = MOST_PX) -> tuple[int, int]:
    """The size at which a picture is shown: its own, at most ``most_px`` on its longer side."""
    share = min(1.0, most_px / max(height, width))
    return max(1, round(height * share)), max(1, round(width * share))


def resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 ``[height, width]`` or ``[height, width, channels]`` at another (height, width): triangle filter."""
    from PIL import Image

    def plane(values: np.ndarray) -> np.ndarray:
        return np.asarray(Image.fromarray(values).resize((size[1], size[0]), Image.Resampling.BILINEAR))

    if image.shape[:2] == tuple(size):
        return image
    if image.ndim == 2:
        return plane(image)
    return np.stack([plane(np.ascontiguousarray(image[..., number])) for number in range(image.shape[2])], -1)


def text_px(texts: Iterable[str]) -> int:
    """The width in pixels of the longest text, as `frame` writes it."""
    from PIL import ImageFont

    font = ImageFont.load_default(LETTER_PX)
    return max(math.ceil(font.getlength(text)) for text in texts)


def frame(
    cells: Sequence[tuple[str, np.ndarray]], caption: str, height_px: int = 192, *, least_px: int = 0
) -> np.ndarray:
    """One frame of an animation: RGB pictures of one height side by side, each below its name, above a caption.

    height_px: of the pictures; very wide ones are lower, as WebP takes no more than 16383 px
    least_px:  room for the captions of all frames, which have one size
    """
    from PIL import Image, ImageDraw, ImageFont

    widest = max(picture.shape[1] / picture.shape[0] for _, picture in cells)
    height_px = max(1, min(height_px, round(MOST_WIDE_PX / widest)))
    pictures = [_at_height(picture, height_px) for _, picture in cells]
    widths = [max(picture.shape[1], text_px([name])) for (name, _), picture in zip(cells, pictures, strict=True)]
    width = max(sum(widths) + MARGIN_PX * len(widths), least_px + MARGIN_PX) + MARGIN_PX
    sheet = Image.new("RGB", (width, height_px + 2 * CAPTION_PX + MARGIN_PX), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LETTER_PX)
    left = MARGIN_PX
    for (name, _), picture, own_width in zip(cells, pictures, widths, strict=True):
        pen.text((left, 2), name, fill=_INK, font=font)
        sheet.paste(Image.fromarray(picture), (left, CAPTION_PX))
        left += own_width + MARGIN_PX
    pen.text((MARGIN_PX, CAPTION_PX + height_px + 3), caption, fill=_INK, font=font)
    return np.asarray(sheet)


def _at_height(picture: np.ndarray, height_px: int) -> np.ndarray:
    """Small pictures with hard pixels, so that nothing is invented."""
    height, width = picture.shape[:2]
    size = (height_px, max(1, round(width * height_px / height)))
    return scale_label(picture, *size) if height < height_px else resized(picture, size)


# ---------------------------------------------------------------- parts of figures


def show_picture(axes: Axes, picture: np.ndarray | None, title: str = "") -> None:
    """An RGB picture without axes; None leaves the place blank."""
    axes.set_axis_off()
    if picture is not None:
        axes.imshow(picture, interpolation="nearest")
        axes.set_title(title, fontsize=9, fontweight="normal", loc="center")


def show_mask(axes: Axes, label_map: np.ndarray | None, classes: int, title: str = "") -> None:
    """A label map in the colours of its classes, without axes."""
    show_picture(axes, None if label_map is None else colourise(label_map, classes), title)


def class_legend(figure: Figure, names: Sequence[str]) -> None:
    """One line below the figure with the colour of every class but the background."""
    from matplotlib.patches import Patch

    handles = [Patch(color=hex_colour(value, len(names)), label=name) for value, name in enumerate(names) if value]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 9), fontsize=8)
