"""The look of every plot, and plots as PNG bytes; matplotlib is imported only when something is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#22262e"
FAINT = "#6b7280"
GRID = "#e3e6ea"
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#555B66", "#B8A800")
# Beside the colours, so that lines differ for eyes of every kind and in grey print.
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": "#b6bcc6",
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.frameon": True,
    "legend.framealpha": 0.75,
    "legend.edgecolor": "none",
    "legend.borderpad": 0.2,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
    "text.parse_math": False,  # names of files and classes may hold dollar signs
}


def draw(
    size_inch: tuple[float, float], paint: Callable[[Figure], None], *, dpi: int = 144, palette: bool = True
) -> bytes:
    """PNG bytes of a figure that ``paint`` fills.

    palette: reduce to 256 colours, for plots; False for figures that hold photographs.
    """
    pixels = draw_pixels(size_inch, paint, dpi=dpi)
    return small_png(pixels) if palette else png_bytes(pixels)


def draw_pixels(
    size_inch: tuple[float, float],
    paint: Callable[[Figure], None],
    *,
    dpi: int,
    layout: Literal["constrained"] | None = "constrained",
) -> np.ndarray:
    """uint8 ``[height, width, 3]`` of a figure that ``paint`` fills. Needs no display and no global state of pyplot.

    layout: None leaves the margins to ``paint``, in half of the time
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size_inch, dpi=dpi, layout=layout)
        canvas = FigureCanvasAgg(figure)
        paint(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def draw_pdf(size_inch: tuple[float, float], paint: Callable[[Figure], None], *, dpi: int = 144) -> bytes:
    """PDF bytes of a figure that ``paint`` fills; the same figure gives the same bytes.

    dpi: of pictures in the figure that are resampled; lines and letters have none
    """
    import matplotlib
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE | {"pdf.fonttype": 42}):
        figure = Figure(figsize=size_inch, dpi=dpi, layout="constrained")
        canvas = FigureCanvasPdf(figure)
        paint(figure)
        canvas.print_pdf(buffer, metadata={"CreationDate": None})
    return buffer.getvalue()


def small_png(pixels: np.ndarray) -> bytes:
    """RGB uint8 as a PNG with a palette of 256 colours: plots have few colours, and reports many plots."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture = picture.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours = np.asarray(picture.getpalette() or [], np.uint8).reshape(-1, 3)
    colours[(colours >= 250).all(1)] = 255  # quantising makes the paper a little grey
    picture.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def png_bytes(pixels: np.ndarray) -> bytes:
    """uint8 ``[height, width]`` or ``[height, width, 3]`` as PNG bytes, every value kept."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def thousands(axes: Axes) -> None:
    """Images seen on the x axis as 0, 20k, 1.5M."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.set_xlabel("images seen")


def short_count(value: float) -> str:
    """``38400`` -> ``38.4k``."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
