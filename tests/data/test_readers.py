import io
import struct
import tempfile
import tracemalloc
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
from semgan.data.readers import read_foreground, read_image, read_image_files, read_label

FOLDER = tempfile.TemporaryDirectory()  # one for all examples that Hypothesis draws
shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    memory = io.BytesIO()
    Image.fromarray(pixels).save(memory, kind, **({"lossless": True} if kind == "webp" else {}), **options)
    return memory.getvalue()


def written(content: bytes, suffix: str) -> Path:
    file = Path(FOLDER.name) / f"picture{suffix}"
    file.write_bytes(content)
    return file


@settings(deadline=None, max_examples=30)
@given(data=st.data(), suffix=st.sampled_from([".png", ".bmp", ".tif", ".webp"]), colour=st.booleans())
def test_8_bit_pictures_come_back_as_written(data, suffix, colour):
    height, width = data.draw(shapes)
    pixels = data.draw(arrays.arrays(np.uint8, (height, width, 3) if colour else (height, width)))
    file = written(encoded(pixels, {".tif": "TIFF"}.get(suffix, suffix[1:])), suffix)
    expected = pixels if colour or suffix != ".webp" else np.stack([pixels] * 3, -1)  # WebP knows no grey
    assert np.array_equal(read_image(file), expected)


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
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".bmp", ".webp"])
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
@given(data=st.data(), suffix=st.sampled_from([".png", ".tif", ".bmp", ".webp"]))
def test_masks_come_back_as_written(data, suffix):
    values = data.draw(arrays.arrays(np.uint8, data.draw(shapes)))
    file = written(encoded(values, {".tif": "TIFF"}.get(suffix, suffix[1:])), suffix)
    assert np.array_equal(read_label(file), values)


def with_alpha(mode, colour, alpha):
    """A picture ``[6, 5]`` of one colour, or of two where the alpha has two values."""
    planes = np.zeros((6, 5, len(mode)), np.uint8)
    planes[..., :-1], planes[..., -1] = np.asarray(colour)[..., None], alpha
    return planes


SQUARE = np.zeros((6, 5), np.uint8)
SQUARE[2:4, 1:3] = 255


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("colour", [0, 255])
def test_a_mask_whose_shape_lies_in_its_transparency_is_refused(tmp_path, mode, suffix, colour):
    """It would be one class throughout; where the colours show something, or nothing is drawn, alpha is dropped."""
    file = tmp_path / f"mask{suffix}"

    def write(pixels):
        if suffix == ".tif":
            tifffile.imwrite(file, pixels, photometric="rgb" if mode == "RGBA" else "minisblack", extrasamples=[2])
        else:
            Image.fromarray(pixels, mode).save(file)

    write(with_alpha(mode, colour, SQUARE))
    for read in (read_label, read_foreground):
        with pytest.raises(ValueError, match=r"mask\.(png|tif).*transparency alone.*on black"):
            read(file)
    for seen, alpha in ((SQUARE, SQUARE), (SQUARE, 255), (np.full_like(SQUARE, colour), 0)):
        write(with_alpha(mode, seen, alpha))
        assert np.array_equal(read_label(file), seen)
        assert np.array_equal(read_foreground(file), seen > 0)


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


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{"suffix": ".png"}, {"suffix": ".tif"}, {"suffix": ".tif", "compression": "jpeg"}])
def test_pictures_and_masks_are_turned_as_their_tag_says(orientation, options):
    pixels = np.kron([[0, 80, 160], [240, 40, 120]], np.ones((16, 16))).astype(np.uint8)
    kind, compression = {".png": "PNG", ".tif": "TIFF"}[options["suffix"]], options.get("compression")
    exif = Image.Exif()
    exif[274] = orientation
    more = {"compression": compression, "quality": 100} if compression else {}
    file = written(encoded(pixels, kind, exif=exif, **more), options["suffix"])
    shown = {1: pixels, 2: pixels[:, ::-1], 3: pixels[::-1, ::-1], 4: pixels[::-1], 5: pixels.T}
    shown |= {6: np.rot90(pixels, -1), 7: pixels[::-1, ::-1].T, 8: np.rot90(pixels)}
    for read in (read_image, read_label):
        assert read(file).shape == shown[orientation].shape
        assert np.abs(read(file).astype(int) - shown[orientation]).max() <= (2 if compression else 0)


def test_pictures_of_16_bits_and_three_channels_are_turned_too():
    pixels = np.arange(2 * 3 * 3, dtype=np.uint16).reshape(2, 3, 3) * 500
    file = written(b"", ".png")
    write_deep_colour_png(file, pixels)
    content, exif = file.read_bytes(), Image.Exif()
    exif[274] = 6
    body = b"eXIf" + exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    file.write_bytes(content[:33] + chunk + content[33:])  # after the header
    assert np.array_equal(read_image(file), np.rot90(pixels, -1))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_hold_their_stored_values(bits):
    """Written by hand, as Pillow has no writer for grey of 2 or 4 bits."""
    values = np.arange(8).reshape(2, 4) % 2**bits
    packed = np.packbits(((values[..., None] >> np.arange(bits)[::-1]) & 1).astype(np.uint8).reshape(2, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, bits, 0, 0, 0, 0))
    file = written(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""), ".png")
    assert np.array_equal(read_label(file), values)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_mask_means_the_same_in_tiff_that_stores_white_as_0(compression):
    mask = np.zeros((6, 9), bool)
    mask[:2] = True
    for stored, expected in ((~mask, mask), (np.uint8(255) - mask.astype(np.uint8) * 3, mask * 3)):
        memory = io.BytesIO()
        tifffile.imwrite(memory, stored, photometric="miniswhite", compression=compression)
        assert np.array_equal(read_label(written(memory.getvalue(), ".tif")), expected)
    fax = written(encoded(mask, "TIFF", compression="group4"), ".tif")  # white is 0 in it
    assert np.array_equal(read_label(fax), mask)


def test_masks_of_16_bits_and_three_channels_keep_small_values():
    mask = np.arange(12, dtype=np.uint16).reshape(3, 4)
    file = written(b"", ".png")
    write_deep_colour_png(file, np.dstack([mask] * 3))
    assert np.array_equal(read_label(file), mask)


@pytest.mark.parametrize("shapes", [[(2, 6, 9)], [(5, 6, 9)], [(6, 9), (4, 4)]])
def test_a_mask_of_several_pages_is_refused(shapes):
    memory = io.BytesIO()
    with tifffile.TiffWriter(memory) as file:
        for shape in shapes:
            pages = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
            file.write(pages, photometric="minisblack")
    with pytest.raises(ValueError, match="pages|unequal size"):
        read_label(written(memory.getvalue(), ".tif"))


def test_cmyk_is_rgb_in_every_kind_of_file():
    picture = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    for kind, suffix in (("TIFF", ".tif"), ("JPEG", ".jpg")):
        memory = io.BytesIO()
        picture.save(memory, kind)
        shown = read_image(written(memory.getvalue(), suffix))
        assert shown.shape == (8, 8, 3) and shown[0, 0, 0] < 10 and shown[0, 0, 1:].min() > 245


@pytest.mark.parametrize("value", [np.int64(2**32), np.uint32(2**32 - 1), np.float64(5e9), np.float32(np.inf)])
def test_values_of_a_mask_never_wrap_around(value):
    memory = io.BytesIO()
    tifffile.imwrite(memory, np.full((4, 4), value))
    with pytest.raises(ValueError, match="those of a mask are"):
        read_label(written(memory.getvalue(), ".tif"))


def test_files_that_announce_or_unpack_to_far_too_much_ask_for_no_memory():
    memory = io.BytesIO()
    tifffile.imwrite(memory, np.zeros((100, 100), np.uint8), metadata=None, compression="zlib")
    content = bytearray(memory.getvalue())
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        places = [file.pages[0].tags[tag].valueoffset for tag in ("ImageWidth", "ImageLength", "RowsPerStrip")]
    for place in places:
        content[place : place + 4] = struct.pack("<I", 200_000)
    with pytest.raises(ValueError, match="40,000,000,000 values"):
        read_image(written(bytes(content), ".tif"))
    squeeze = zlib.compressobj(9)
    packed = b"".join(squeeze.compress(bytes(2**22)) for _ in range(16)) + squeeze.flush()
    file = written(b"", ".png")
    write_deep_colour_png(file, np.zeros((2, 2, 3), np.uint16))
    body = b"IDAT" + packed
    chunk = struct.pack(">I", len(packed)) + body + struct.pack(">I", zlib.crc32(body))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    file.write_bytes(file.read_bytes()[:33] + chunk + end)
    tracemalloc.start()
    with pytest.raises(ValueError, match="truncated"):
        read_image(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


@pytest.mark.parametrize("read", [read_image, read_label])
def test_a_misnamed_file_starts_no_other_program(read):
    file = written(encoded(np.zeros((8, 8), np.uint8), "EPS"), ".png")
    with pytest.raises(ValueError, match="cannot identify"):
        read(file)
    assert read(written(encoded(np.eye(8, dtype=np.uint8), "GIF"), ".png")).shape[:2] == (8, 8)
