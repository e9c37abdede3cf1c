import io
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from semgan.data.png16 import write_deep_colour_png
from semgan.data.readers import read_image, read_image_files, read_label

FOLDER = tempfile.TemporaryDirectory()  # one for all examples that Hypothesis draws
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, kind, **options)
    return memory.getvalue()


def written(content: bytes, suffix: str) -> Path:
    file = Path(FOLDER.name) / f"picture{suffix}"
    file.write_bytes(content)
    return file


@settings(deadline=None, max_examples=30)
@given(data=st.data(), suffix=st.sampled_from([".png", ".bmp", ".tif"]), colour=st.booleans())
def test_8_bit_pictures_come_back_as_written(data, suffix, colour):
    height, width = data.draw(shapes)
    pixels = data.draw(arrays.arrays(np.uint8, (height, width, 3) if colour else (height, width)))
    file = written(encoded(pixels, {".tif": "TIFF"}.get(suffix, suffix[1:])), suffix)
    assert np.array_equal(read_image(file), pixels)


@settings(deadline=None, max_examples=30)
@given(data=st.data(), suffix=st.sampled_from([".png", ".tif"]))
def test_16_bit_grey_stays_16_bit(data, suffix):
    pixels = data.draw(arrays.arrays(np.uint16, data.draw(shapes)))
    file = written(encoded(pixels, {".tif": "TIFF"}.get(suffix, "PNG")), suffix)
    result = read_image(file)
    assert result.dtype == np.uint16 and np.array_equal(result, pixels)


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_16_bit_colour_png_stays_16_bit(data):
    pixels = data.draw(arrays.arrays(np.uint16, (*data.draw(shapes), 3)))
    file = written(b"", ".png")
    write_deep_colour_png(file, pixels)
    assert np.array_equal(read_image(file), pixels)
    with Image.open(file) as other_decoder:  # which drops the lower eight bits
        assert np.abs(np.asarray(other_decoder).astype(int) - (pixels >> 8)).max() <= 1


@pytest.mark.parametrize("row_filter", range(5))
def test_every_row_filter_of_16_bit_colour_png_is_undone(row_filter, tmp_path):
    """Each filter is applied here byte by byte, as the specification words it."""
    pixels = np.random.default_rng(row_filter).integers(0, 65536, (5, 4, 3), dtype=np.uint16)
    rows = pixels.astype(">u2").reshape(5, -1).view(np.uint8).astype(int)
    coded = b""
    for y in range(5):
        line = bytearray([row_filter])
        for x in range(rows.shape[1]):
            a = rows[y, x - 6] if x >= 6 else 0
            b = rows[y - 1, x] if y else 0
            c = rows[y - 1, x - 6] if y and x >= 6 else 0
            nearest = min((a, b, c), key=lambda value: abs(a + b - c - value))  # the first of equals, as specified
            line.append((rows[y, x] - (0, a, b, (a + b) // 2, nearest)[row_filter]) % 256)
        coded += bytes(line)
    file = tmp_path / "filtered.png"
    write_deep_colour_png(file, pixels)
    content = file.read_bytes()
    body = b"IDAT" + zlib.compress(coded)
    data = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    file.write_bytes(content[:33] + data + content[-12:])
    assert np.array_equal(read_image(file), pixels)


@settings(deadline=None, max_examples=60)
@given(kind=st.sampled_from(["PNG", "TIFF", "BMP", "deep"]), share=st.floats(0, 0.999, allow_subnormal=False))
def test_a_truncated_file_is_refused_or_complete(kind, share):
    pixels = np.random.default_rng(5).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    if kind == "deep":
        pixels = pixels.astype(np.uint16) * 257
        file = written(b"", ".png")
        write_deep_colour_png(file, pixels)
    else:
        file = written(encoded(pixels, kind), {"TIFF": ".tif"}.get(kind, f".{kind.lower()}"))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    try:
        result = read_image(file)
    except ValueError as error:
        assert str(file) in str(error)
    else:
        assert np.array_equal(result, pixels)


def test_a_truncated_jpeg_is_refused(tmp_path):
    content = encoded(np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8), "JPEG")
    file = tmp_path / "cut.jpg"
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cut.jpg.*truncated"):
        read_image(file)


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x00" * 500], ids=["empty", "text", "zeros"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp"])
@pytest.mark.parametrize("read", [read_image, read_label])
def test_what_is_no_image_is_refused_by_name(content, suffix, read, tmp_path):
    file = tmp_path / f"fake{suffix}"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"fake{suffix}"):
        read(file)


def test_missing_files_and_other_kinds_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.png"):
        read_image(tmp_path / "absent.png")
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"text.txt.*\.png"):
        read_image(tmp_path / "text.txt")


def test_palettes_and_alpha_become_plain_colour(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    Image.fromarray(colours).convert("RGBA").save(tmp_path / "alpha.png")
    assert np.array_equal(read_image(tmp_path / "alpha.png"), colours)
    palette = Image.new("P", (5, 6))
    palette.putdata(list(range(3)) * 10)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    palette.save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png")[0, 1].tolist() == [0, 255, 0]
    assert read_label(tmp_path / "palette.png")[0].tolist() == [0, 1, 2, 0, 1]
    Image.fromarray(colours[..., 0]).convert("LA").save(tmp_path / "grey_alpha.png")
    assert np.array_equal(read_image(tmp_path / "grey_alpha.png"), colours[..., 0])


def test_one_bit_pictures_are_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "bit.png")
    assert read_image(tmp_path / "bit.png").tolist() == [[255, 0]]
    assert read_label(tmp_path / "bit.png").tolist() == [[1, 0]]


@pytest.mark.parametrize("planar", ["pages", "planes", "interleaved"])
def test_channels_of_a_tiff_are_the_last_axis_however_they_are_stored(planar, tmp_path):
    channels = np.random.default_rng(2).integers(0, 4096, (5, 8, 6), dtype=np.uint16)
    file = tmp_path / "stack.tif"
    if planar == "pages":
        tifffile.imwrite(file, channels, photometric="minisblack")
    elif planar == "planes":
        tifffile.imwrite(file, channels, photometric="minisblack", planarconfig="separate")
    else:
        tifffile.imwrite(file, np.moveaxis(channels, 0, -1), photometric="minisblack", planarconfig="contig")
    assert np.array_equal(read_image(file), np.moveaxis(channels, 0, -1))


def test_tiff_kinds_keep_their_values(tmp_path):
    grey = np.random.default_rng(3).random((4, 5)).astype(np.float32)
    tifffile.imwrite(tmp_path / "float.tif", grey)
    assert np.array_equal(read_image(tmp_path / "float.tif"), grey)
    tifffile.imwrite(tmp_path / "signed.tif", np.array([[-5, 7]], np.int16))
    assert read_image(tmp_path / "signed.tif").tolist() == [[-5.0, 7.0]]
    deep = np.random.default_rng(4).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "rgb.tif", deep, photometric="rgb")
    assert np.array_equal(read_image(tmp_path / "rgb.tif"), deep)
    Image.fromarray(deep[..., 0].astype(np.uint8)).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    assert np.array_equal(read_image(tmp_path / "lzw.tif"), deep[..., 0].astype(np.uint8))
    tifffile.imwrite(tmp_path / "inverted.tif", np.array([[0, 200]], np.uint8), photometric="miniswhite")
    assert read_image(tmp_path / "inverted.tif").tolist() == [[255, 55]]


@settings(deadline=None, max_examples=30)
@given(data=st.data(), suffix=st.sampled_from([".png", ".tif", ".bmp"]))
def test_masks_come_back_as_written(data, suffix):
    values = data.draw(arrays.arrays(np.uint8, data.draw(shapes)))
    file = written(encoded(values, {".tif": "TIFF"}.get(suffix, suffix[1:])), suffix)
    assert np.array_equal(read_label(file), values)


def test_a_grey_mask_saved_as_colour_is_read_and_a_coloured_one_refused(tmp_path):
    values = np.array([[0, 1], [2, 0]], np.uint8)
    Image.fromarray(np.dstack([values] * 3)).save(tmp_path / "grey.png")
    assert np.array_equal(read_label(tmp_path / "grey.png"), values)
    Image.fromarray(np.dstack([values, values * 2, values])).save(tmp_path / "red.png")
    with pytest.raises(ValueError, match="red.png.*palette"):
        read_label(tmp_path / "red.png")


def test_channel_files_are_stacked_and_must_be_equal_in_size(tmp_path):
    planes = np.random.default_rng(6).integers(0, 256, (4, 3, 5), dtype=np.uint8)
    for channel, plane in enumerate(planes):
        Image.fromarray(plane).save(tmp_path / f"scan_{channel:04d}.png")
    assert np.array_equal(read_image_files(tmp_path / "scan_0000.png"), np.moveaxis(planes, 0, -1))
    Image.fromarray(planes[0, :2]).save(tmp_path / "scan_0002.png")
    with pytest.raises(ValueError, match="scan_0000.*differ in size"):
        read_image_files(tmp_path / "scan_0000.png")
