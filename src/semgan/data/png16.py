"""16-bit colour PNG: Pillow drops the lower eight bits, so it is coded here (PNG specification, 3rd ed.)."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEAD = 33  # bytes: signature and header chunk
_SAMPLES = {2: 3, 4: 2, 6: 4}  # colour type -> samples: RGB, grey + alpha, RGBA


def is_deep_colour_png(head: bytes) -> bool:
    """True for 16-bit PNGs with more than one sample per pixel; ``head`` is the file's first `HEAD` bytes or more."""
    head = head[:HEAD]
    return len(head) == HEAD and head[:8] == _SIGNATURE and head[24] == 16 and head[25] in _SAMPLES


def decode_deep_colour_png(content: bytes) -> np.ndarray:
    """A file's bytes -> uint16 ``[height, width, samples]``. Raises ValueError for damaged or interlaced files."""
    header, compressed = _chunks(content)
    width, height, _, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if interlaced:
        raise ValueError("it is an interlaced 16-bit colour PNG; save it without interlacing")
    pixel_bytes = 2 * _SAMPLES[colour]
    announced = height * (1 + width * pixel_bytes)
    raw = zlib.decompressobj().decompress(compressed, announced + 1)  # never more memory than the header says
    if len(raw) != announced:
        raise ValueError("the pixel data are truncated")
    rows = np.frombuffer(raw, np.uint8).reshape(height, 1 + width * pixel_bytes)
    filters, coded = rows[:, 0], rows[:, 1:].reshape(height, width, pixel_bytes)
    if filters.max(initial=0) > 4:
        raise ValueError("it names an unknown row filter")
    return _unfilter(filters, coded).reshape(height, -1).view(">u2").astype(np.uint16).reshape(height, width, -1)


def write_deep_colour_png(path: Path, pixels: np.ndarray) -> None:
    """uint16 ``[height, width, 3]`` as a 16-bit RGB PNG, each row stored as its difference from the one above."""
    height, width, _ = pixels.shape
    rows = pixels.astype(">u2").reshape(height, -1).view(np.uint8)
    above = np.vstack([np.zeros_like(rows[:1]), rows[:-1]])
    coded = np.hstack([np.full((height, 1), 2, np.uint8), rows - above])
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(_SIGNATURE)
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(coded.tobytes(), 3)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """Header and joined image data, checksums verified."""
    header, parts, position = b"", [], len(_SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind, body = data[position + 4 : position + 8], data[position + 8 : position + 8 + length]
        checksum = data[position + 8 + length : position + 12 + length]
        if int.from_bytes(checksum, "big") != zlib.crc32(kind + body) or len(checksum) != 4:
            raise ValueError("a chunk is truncated or its checksum is wrong")
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            parts.append(body)
        elif kind == b"IEND":
            return header, b"".join(parts)
        position += 12 + length
    raise ValueError("the file is truncated")


def _unfilter(filters: np.ndarray, coded: np.ndarray) -> np.ndarray:
    """Undo the five row filters ``[height, width, bytes]`` along anti-diagonals: all pixels of one are independent."""
    height, width, pixel_bytes = coded.shape
    # One row and one column of zeros before the picture stand for what lies outside it.
    full = np.zeros((height + 1, width + 1, pixel_bytes), np.uint8)
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        left, up, corner = (pixels.astype(np.int16) for pixels in (full[y + 1, x], full[y, x + 1], full[y, x]))
        kind = filters[y][:, None]
        prediction = np.select(
            [kind == 1, kind == 2, kind == 3, kind == 4], [left, up, (left + up) // 2, _paeth(left, up, corner)], 0
        )
        full[y + 1, x + 1] = coded[y, x] + prediction.astype(np.uint8)
    return np.ascontiguousarray(full[1:, 1:])


def _paeth(left: np.ndarray, up: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """Of the three neighbours, the one nearest to left + up - corner; ties in this order."""
    estimate = left + up - corner
    to_left, to_up, to_corner = abs(estimate - left), abs(estimate - up), abs(estimate - corner)
    nearest_is_left = (to_left <= to_up) & (to_left <= to_corner)
    return np.where(nearest_is_left, left, np.where(to_up <= to_corner, up, corner))
