"""3x3 convolutions of wide layers on a CPU, with a quarter of the multiplications: Winograd's F(4x4, 3x3).

Lavin and Gray 2016 (arXiv:1509.09308, section 4): the answer is cut into tiles of 4x4, the image into windows of 6x6
around them. With windows d and weights g a tile is A' [ (G g G') * (B' d B) ] A, where * multiplies elements: 36 matrix
products over the channels do the work of 144. The derivatives are of the same kind. The one to the image is the
transposed convolution; the one to the weight is G' [ (B' d B) * (A e A') ] G, e the tiles' own derivative, summed over
tiles. Each differentiates into the other two, so R1 and path length can differentiate twice.

Torch's own convolution is a direct one. This one pays in float32 and with many channels, since the transforms of a
tile cost the same however many channels share them (benchmarks/winograd.py: both side by side).
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TILE, WINDOW = 4, 6
LEAST_CHANNELS, LEAST_PIXELS = 128, 32**2  # below, the direct convolution of a single image is faster or as fast
TILES_AT_ONCE = 256  # so that windows and products stay in the cache
TRANSFORMS = {
    "image": [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
              [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]],
    "weight": [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
               [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]],
    "answer": [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]],
}  # B', G and A'  # fmt: skip
_workspace = threading.local()


def convolve_3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(x, weight, bias, padding=1)``, by Winograd's way where that is faster; differentiable twice.

    x ``[batch, in, h, w]``, weight ``[out, in, 3, 3]``, bias ``[out]`` -> ``[batch, out, h, w]``
    """
    if not is_worth_it(x, weight):
        return F.conv2d(x, weight, bias, padding=1)
    answer: Tensor = _Convolution.apply(x, weight, False)  # type: ignore[assignment]
    return answer if bias is None else answer + bias[:, None, None]


def is_worth_it(x: Tensor, weight: Tensor) -> bool:
    """Whether the layer is wide and large enough, on a CPU and in float32, and its sides are whole tiles.

    Not by the number of images, so that an image's answer does not depend on how many are computed with it.
    """
    height, width = x.shape[2:]
    return (
        min(weight.shape[:2]) >= LEAST_CHANNELS
        and height * width >= LEAST_PIXELS
        and height % TILE == width % TILE == 0
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


class _Convolution(torch.autograd.Function):
    """x ``[batch, in, h, w]``, weight ``[out, in, 3, 3]``; transposed: x ``[batch, out, h, w]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.transposed = transposed
        return _convolved(x, weight, transposed)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        to_x = to_weight = None
        if ctx.needs_input_grad[0]:
            to_x = _Convolution.apply(gradient, weight, not ctx.transposed)
        if ctx.needs_input_grad[1]:
            to_weight = _Correlation.apply(*((gradient, x) if ctx.transposed else (x, gradient)))
        return to_x, to_weight, None


class _Correlation(torch.autograd.Function):
    """The derivative to the weight ``[out, in, 3, 3]``: x ``[batch, in, h, w]``, gradient ``[batch, out, h, w]``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(x, gradient)
        return _correlated(x, gradient)

    @staticmethod
    def backward(ctx: Any, to_weight: Tensor) -> tuple[Any, ...]:  # type: ignore[override]
        x, gradient = ctx.saved_tensors
        to_x = _Convolution.apply(gradient, to_weight, True) if ctx.needs_input_grad[0] else None
        to_gradient = _Convolution.apply(x, to_weight, False) if ctx.needs_input_grad[1] else None
        return to_x, to_gradient


def _convolved(x: Tensor, weight: Tensor, transposed: bool) -> Tensor:
    taps = weight.permute(2, 3, 0, 1).flip(0, 1) if transposed else weight.permute(2, 3, 0, 1)
    channels_out, channels_in = weight.shape[:2]
    weights = _buffer("weights", x, WINDOW**2, channels_out, channels_in)
    torch.mm(_transform("weight", x.dtype), taps.reshape(9, -1), out=weights.view(WINDOW**2, -1))
    weights = weights if transposed else weights.transpose(1, 2)
    rows = x.permute(0, 2, 3, 1)
    shape = (x.shape[0], weights.shape[2], *x.shape[2:])
    answer = torch.empty(shape, dtype=x.dtype, device="cpu", memory_format=torch.channels_last)
    answers = answer.permute(0, 2, 3, 1)
    for place, tiles in _pieces(rows):
        windows = _windows(rows, place)
        products = _buffer("products", x, WINDOW**2, tiles, answers.shape[3])
        torch.bmm(windows, weights, out=products)
        piece = _buffer("tiles", x, TILE**2, tiles, answers.shape[3])
        torch.mm(_transform("answer", x.dtype), products.view(WINDOW**2, -1), out=piece.view(TILE**2, -1))
        _tiles_of(answers, place).copy_(piece.view(TILE, TILE, *_tiles_of(answers, place).shape[2:]))
    return answer


def _correlated(x: Tensor, gradient: Tensor) -> Tensor:
    rows, answers = x.permute(0, 2, 3, 1), gradient.permute(0, 2, 3, 1)
    channels_in, channels_out = rows.shape[3], answers.shape[3]
    total = _buffer("weights", x, WINDOW**2, channels_out, channels_in).zero_()
    for place, tiles in _pieces(rows):
        windows = _windows(rows, place)
        piece = _buffer("tiles", x, TILE**2, tiles, channels_out)
        piece.view(TILE, TILE, *_tiles_of(answers, place).shape[2:]).copy_(_tiles_of(answers, place))
        products = _buffer("products", x, WINDOW**2, tiles, channels_out)
        torch.mm(_transform("answer", x.dtype).t(), piece.view(TILE**2, -1), out=products.view(WINDOW**2, -1))
        torch.baddbmm(total, products.transpose(1, 2), windows, out=total)
    taps = _transform("weight", x.dtype).t() @ total.view(WINDOW**2, -1)
    weight = torch.empty(
        channels_out, channels_in, 3, 3, dtype=x.dtype, device="cpu", memory_format=torch.channels_last
    )
    return weight.copy_(taps.view(3, 3, channels_out, channels_in).permute(2, 3, 0, 1))


def _pieces(rows: Tensor) -> Iterator[tuple[tuple[slice, slice], int]]:
    """Images and rows of pixels that are computed at once, and their number of tiles."""
    batch, height, width = rows.shape[:3]
    high, wide = height // TILE, width // TILE
    images = max(1, TILES_AT_ONCE // (high * wide))
    lines = min(high, max(1, TILES_AT_ONCE // wide))
    for first in range(0, batch, images):
        last = min(first + images, batch)
        for top in range(0, high, lines):
            bottom = min(top + lines, high)
            yield (slice(first, last), slice(top * TILE, bottom * TILE)), (last - first) * (bottom - top) * wide


def _windows(rows: Tensor, place: tuple[slice, slice]) -> Tensor:
    """B' d B of a piece's windows, zero beyond the border ``[36, tiles, channels]``."""
    (images, lines), (_, height, width, channels) = place, rows.shape
    count, tall = images.stop - images.start, lines.stop - lines.start
    padded = _buffer("padded", rows, count, tall + 2, width + 2, channels)
    padded[:, :, 0] = padded[:, :, -1] = 0
    top, bottom = max(lines.start - 1, 0), min(lines.stop + 1, height)
    padded[:, : top - lines.start + 1] = padded[:, bottom - lines.start + 1 :] = 0
    padded[:, top - lines.start + 1 : bottom - lines.start + 1, 1:-1] = rows[images, top:bottom]
    cut = padded.unfold(1, WINDOW, TILE).unfold(2, WINDOW, TILE).permute(4, 5, 0, 1, 2, 3)
    plain = _buffer("plain windows", rows, *cut.shape)
    plain.copy_(cut)
    windows = _buffer("windows", rows, WINDOW**2, math.prod(cut.shape[2:5]), channels)
    torch.mm(_transform("image", rows.dtype), plain.view(WINDOW**2, -1), out=windows.view(WINDOW**2, -1))
    return windows


def _tiles_of(rows: Tensor, place: tuple[slice, slice]) -> Tensor:
    """A view of a piece as ``[4, 4, images, tiles high, tiles wide, channels]``."""
    piece = rows[place]
    return piece.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE)).permute(2, 4, 0, 1, 3, 5)


@functools.cache
def _transform(name: str, dtype: torch.dtype) -> Tensor:
    """The matrix for rows and columns at once of a window, a kernel or a tile, which lies in one line."""
    with torch.inference_mode(False):
        one_way = torch.tensor(TRANSFORMS[name], dtype=dtype, device="cpu")
        return torch.kron(one_way, one_way)


def _buffer(name: str, like: Tensor, *shape: int) -> Tensor:
    """Memory that stays from call to call: fresh pages cost more than the sums."""
    kept = _workspace.__dict__.setdefault(name, {})
    length = math.prod(shape)
    if like.dtype not in kept or kept[like.dtype].numel() < length:
        with torch.inference_mode(False):  # what is made in that mode could not be written to outside it
            kept[like.dtype] = torch.empty(length, dtype=like.dtype, device="cpu")
    return kept[like.dtype][:length].view(shape)
