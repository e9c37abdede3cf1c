"""DICOM files that are pictures: as a viewer shows them, told apart from slices, and refused with a reason."""

import numpy as np
import pydicom
import pytest
from dicom_files import header, with_pixels, write_multi_frame, write_picture, write_series
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from semgan.config import Preprocessing
from semgan.data.dicom_pictures import Kind, _windowed, dicom_kind
from semgan.data.readers import image_stem, is_image, read_image
from semgan.data.studies import holds_volumes
from semgan.data.transforms import preprocess

US, XC, SC = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.5.1.4.1.1.7"
CR, PDF, SEG = "1.2.840.10008.5.1.4.1.1.1", "1.2.840.10008.5.1.4.1.1.104.1", "1.2.840.10008.5.1.4.1.1.66.4"


def film(seed=0, top=4095, shape=(20, 16)):
    """A 12-bit film with both ends of its range."""
    pixels = np.random.default_rng(seed).integers(0, top + 1, shape).astype(np.uint16)
    pixels[0, :2] = 0, top
    return pixels


def colours(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (8, 6, 3)).astype(np.uint8)


def table(entries, first=0, bits=16):
    item = Dataset()
    item.LUTDescriptor = [len(entries), first, bits]
    item.LUTData = [int(entry) for entry in entries]
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    return Sequence([item])


# ---------------------------------------------------------------- grey


def test_a_film_of_12_bits_is_the_same_picture_as_a_png_of_16_bits(tmp_path):
    pixels = film()
    Image.fromarray(pixels).save(tmp_path / "a.png")
    dark_is_high = write_picture(tmp_path / "1.dcm", 4095 - pixels, "MONOCHROME1", bits=12)
    plain = write_picture(tmp_path / "2.dcm", pixels, bits=12, PixelSpacing=[0.1, 0.1])
    unit = write_picture(tmp_path / "3.dcm", pixels, bits=12, RescaleSlope=1, RescaleIntercept=0)
    turned = write_picture(tmp_path / "4.dcm", 4095 - pixels, bits=12, RescaleSlope=-1, RescaleIntercept=4095)
    for path in (dark_is_high, plain, unit, turned):
        shown = read_image(path)
        assert shown.dtype == np.uint16 and np.array_equal(shown, read_image(tmp_path / "a.png")), path.name


def test_values_below_zero_and_fractions_are_preprocessed_as_the_film_is(tmp_path):
    rule = Preprocessing(size_px=16, channels=1, equalise_histogram=True, gamma=0.5)
    expected = preprocess(film(), rule)
    signed = write_picture(tmp_path / "a.dcm", film().astype(np.int16) - 2000, bits=13)
    scaled = write_picture(tmp_path / "b.dcm", film(), bits=12, RescaleSlope=0.37, RescaleIntercept=-5)
    for path in (signed, scaled):
        assert read_image(path).dtype == np.uint16
        assert np.abs(preprocess(read_image(path), rule).astype(int) - expected).max() <= 1


def test_the_first_window_is_applied_and_fills_16_bits(tmp_path):
    path = write_picture(
        tmp_path / "a.dcm", film(), bits=12, WindowCenter=[1000, 9], WindowWidth=[500, 9], VOILUTFunction="LINEAR_EXACT"
    )
    expected = np.clip((film() - 750.0) / 500, 0, 1) * 65535
    assert np.array_equal(read_image(path), np.rint(expected).astype(np.uint16))
    negative = write_picture(
        tmp_path / "b.dcm",
        4095 - film(),
        "MONOCHROME1",
        bits=12,
        WindowCenter=3095,
        WindowWidth=500,
        VOILUTFunction="LINEAR_EXACT",
    )
    assert np.abs(read_image(negative).astype(int) - read_image(path)).max() <= 1


@given(
    st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]),
    st.integers(-500, 4500),
    st.integers(2, 5000),
)
def test_windows_are_those_of_pydicom(function, centre, width):
    data = Dataset()
    data.PhotometricInterpretation, data.BitsStored, data.PixelRepresentation = "MONOCHROME2", 12, 0
    data.WindowCenter, data.WindowWidth, data.VOILUTFunction = centre, width, function
    values = film().astype(np.float64)
    with np.errstate(over="ignore"):
        expected = apply_windowing(values, data) / 4095
    shares = _windowed(data, values)
    if shares is None:
        assert expected.min() == pytest.approx(expected.max(), abs=1e-12)
    else:
        assert np.allclose(shares, expected, atol=1e-9)


@pytest.mark.parametrize("window", [(2000, 0), (1e6, 10), ("", "")])
def test_a_window_in_which_nothing_is_to_be_seen_is_passed_over(tmp_path, window):
    path = write_picture(tmp_path / "a.dcm", film(), bits=12, WindowCenter=window[0], WindowWidth=window[1])
    assert np.array_equal(read_image(path), film())


def test_tables_are_applied_one_after_the_other_also_tables_of_8_bits(tmp_path):
    curve = np.rint(255 * (np.arange(4096) / 4095) ** 2)
    path = write_picture(tmp_path / "a.dcm", film(), bits=12, VOILUTSequence=table(curve, bits=8))
    shown = read_image(path)
    assert shown.dtype == np.uint8 and np.array_equal(shown, curve[film()])
    both = {"ModalityLUTSequence": table(4095 - np.arange(4096), bits=12), "VOILUTSequence": table(curve, bits=8)}
    assert np.array_equal(read_image(write_picture(tmp_path / "b.dcm", film(), bits=12, **both)), curve[4095 - film()])
    short = write_picture(tmp_path / "c.dcm", film(), bits=12, VOILUTSequence=table([7, 9, 4000], first=2000, bits=12))
    expected = np.array([7, 9, 4000])[np.clip(film().astype(int) - 2000, 0, 2)]
    assert np.array_equal(read_image(short), expected)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_dark_and_does_not_count(tmp_path, photometric):
    pixels = film(top=3000)
    bare = read_image(write_picture(tmp_path / "a.dcm", pixels + 100, photometric, bits=12))
    padded = pixels + 100
    padded[10:, 10:], padded[12, 12] = 4095, 4090
    more = {"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4090}
    shown = read_image(write_picture(tmp_path / "b.dcm", padded, photometric, bits=12, **more))
    assert np.array_equal(shown[:10], bare[:10]) and (shown[10:, 10:] == shown[:, :10].min()).all()


def test_pictures_of_8_bits_and_less_stay_8_bits(tmp_path):
    pixels = film(top=255).astype(np.uint8)
    shown = read_image(write_picture(tmp_path / "a.dcm", pixels, SOPClassUID=US, Modality="US"))
    assert shown.dtype == np.uint8 and np.array_equal(shown, pixels)
    few = film(top=63).astype(np.uint8)
    shown = read_image(write_picture(tmp_path / "b.dcm", few, "MONOCHROME1", bits=6, SOPClassUID=SC, Modality="OT"))
    assert shown.dtype == np.uint8 and np.array_equal(shown, np.rint((63 - few) * (255 / 63)))


# ---------------------------------------------------------------- colour and compression


def test_colours_are_rgb_however_they_are_stored(tmp_path):
    kind = {"SOPClassUID": XC, "Modality": "XC"}
    rgb = colours()
    assert np.array_equal(read_image(write_picture(tmp_path / "a.dcm", rgb, "RGB", **kind)), rgb)
    ybr = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    shown = read_image(write_picture(tmp_path / "b.dcm", ybr, "YBR_FULL", **kind))
    assert shown.dtype == np.uint8 and np.abs(shown.astype(int) - rgb).max() <= 4
    planes = write_picture(tmp_path / "c.dcm", rgb, "RGB", **kind)
    data = pydicom.dcmread(planes)
    data.PlanarConfiguration, data.PixelData = 1, np.moveaxis(rgb, -1, 0).tobytes()
    data.save_as(planes)
    assert np.array_equal(read_image(planes), rgb)


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_become_rgb(tmp_path, bits):
    palette = np.random.default_rng(1).integers(0, 256, (3, 256))
    kind = np.uint8 if bits == 8 else "<u2"
    more = {"SOPClassUID": US, "Modality": "US"}
    for name, entries in zip(("Red", "Green", "Blue"), palette, strict=True):
        more[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        more[f"{name}PaletteColorLookupTableData"] = (entries << (bits - 8)).astype(kind).tobytes()
    pixels = film(top=255).astype(np.uint8)
    shown = read_image(write_picture(tmp_path / "a.dcm", pixels, "PALETTE COLOR", **more))
    assert shown.dtype == np.uint8 and np.array_equal(shown, np.moveaxis(palette[:, pixels], 0, -1))


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_compressed_films_are_the_same_films(tmp_path, syntax):
    if syntax != RLELossless:
        pytest.importorskip("jpeg_ls" if syntax == JPEGLSLossless else "openjpeg")
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        path = write_picture(tmp_path / "a.dcm", film(shape=(64, 80)), photometric, bits=12)
        expected = read_image(path)
        data = pydicom.dcmread(path)
        data.compress(syntax, generate_instance_uid=False)
        data.save_as(path)
        assert np.array_equal(read_image(path), expected)


# ---------------------------------------------------------------- what is a picture


def test_pictures_slices_and_others_are_told_apart(tmp_path):
    place = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1]}
    pictures = [
        write_picture(tmp_path / "dx.dcm", film()),
        write_picture(tmp_path / "placed.dcm", film(), **place),
        write_picture(tmp_path / "cr", film(), SOPClassUID=CR, Modality="CR"),
        write_picture(tmp_path / "1.2.840.5", colours(), "RGB", SOPClassUID=XC, Modality="XC"),
        write_picture(tmp_path / "us.DCM", film(), SOPClassUID=US, Modality="US"),
        write_picture(tmp_path / "private.dcm", film(), SOPClassUID="1.2.3.4", Modality="OT"),
    ]
    assert [dicom_kind(path) for path in pictures] == [Kind.picture] * 6 and all(map(is_image, pictures))
    assert [image_stem(path) for path in pictures] == ["dx", "placed", "cr", "1.2.840.5", "us", "private"]
    screen = write_picture(tmp_path / "sc.dcm", film(), SOPClassUID=SC, Modality="CT")
    assert dicom_kind(screen) is Kind.screen and is_image(screen)
    no_place = with_pixels(header(), film())
    no_place.save_as(tmp_path / "ct.dcm", enforce_file_format=True)
    slices = [*write_series(tmp_path / "s", np.zeros((1, 4, 4))), tmp_path / "ct.dcm"]
    slices.append(write_multi_frame(tmp_path / "m.dcm", np.zeros((2, 4, 4))))
    assert [dicom_kind(path) for path in slices] == [Kind.slice] * 3 and not any(map(is_image, slices))
    (tmp_path / "notes.txt").write_text("hello")
    assert dicom_kind(tmp_path / "notes.txt") is None


def test_folders_of_dicom_pictures_are_no_volumes_and_screens_among_slices_do_not_count(tmp_path):
    write_picture(tmp_path / "films" / "a.dcm", film())
    write_picture(tmp_path / "screens" / "a", film(), SOPClassUID=SC, Modality="OT")
    assert not holds_volumes(tmp_path / "films") and not holds_volumes(tmp_path / "films" / "a.dcm")
    assert not holds_volumes(tmp_path / "screens") and not holds_volumes(tmp_path)
    (tmp_path / "films" / "cut.dcm").write_bytes(b"cut")
    assert not holds_volumes(tmp_path / "films")
    write_series(tmp_path / "screens", np.zeros((2, 4, 4)))
    assert holds_volumes(tmp_path / "screens")
    write_series(tmp_path / "films", np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="pictures .a.dcm. and volumes .IM0000.dcm."):
        holds_volumes(tmp_path / "films")


def refused(path):
    with pytest.raises(ValueError) as error:
        read_image(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_what_cannot_be_shown_is_refused_with_the_reason(tmp_path):
    cine = write_picture(tmp_path / "cine.dcm", film(), SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1", Modality="US")
    data = pydicom.dcmread(cine)
    data.NumberOfFrames, data.PixelData = 3, data.PixelData * 3
    data.save_as(cine)
    assert "3 frames" in refused(cine) and "Export the frame" in refused(cine)
    document = header(PDF, "DOC", EncapsulatedDocument=b"%PDF-1.4 ")
    document.save_as(tmp_path / "pdf.dcm", enforce_file_format=True)
    assert "holds no image: it is Encapsulated PDF Storage" in refused(tmp_path / "pdf.dcm")
    empty = write_picture(tmp_path / "empty.dcm", film())
    data = pydicom.dcmread(empty)
    del data.PixelData
    data.save_as(empty)
    assert "has no pixel data" in refused(empty)
    cut = write_picture(tmp_path / "cut.dcm", film())
    cut.write_bytes(cut.read_bytes()[:-100])
    assert "pixels cannot be read" in refused(cut)
    (tmp_path / "secret.dcm").write_bytes(b"encrypted" * 99)
    assert "no readable DICOM file" in refused(tmp_path / "secret.dcm")
    (ct,) = write_series(tmp_path / "ct", np.zeros((1, 4, 4)))
    assert "slice of a volume (CT Image Storage)" in refused(ct)
    mask = with_pixels(header(SEG, "SEG"), film())
    mask.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    assert "DICOM SEG" in refused(tmp_path / "seg.dcm")
    bad = write_picture(tmp_path / "bad.dcm", film(), VOILUTSequence=table([]))
    assert "pixels cannot be shown" in refused(bad)
