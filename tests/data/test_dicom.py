"""A DICOM series becomes a volume with its slices in order and in place, or one clear message."""

import numpy as np
import pydicom
import pytest
from dicom_files import AXIAL, header, with_pixels, write_multi_frame, write_series
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless
from volume_files import rotation

from semgan.data.dicom import find_series, is_dicom, read_series
from semgan.data.dicom_pictures import Kind, dicom_kind


def body(slices=5, rows=6, columns=8):
    return np.random.default_rng(0).integers(-500, 500, (slices, rows, columns)) * 2


def at(heights):
    return np.array([[-50.0, -40.0, height] for height in heights])


def world(volume, i, j, k):
    return volume.affine @ (i, j, k, 1)


@settings(deadline=None, max_examples=15)
@given(order=st.permutations(range(5)), angles=st.tuples(*[st.floats(-60, 60, allow_subnormal=False)] * 3))
def test_slices_are_ordered_by_position_whatever_the_instance_numbers(tmp_path_factory, order, angles):
    hu, turn = body(), rotation(angles)
    direction = (*turn[:, 0], *turn[:, 1])
    files = write_series(tmp_path_factory.mktemp("d"), hu, order=order, direction=direction)
    volume = read_series(sorted(files))
    assert np.array_equal(volume.values, hu.transpose(2, 1, 0)) and volume.values.dtype == np.float32
    assert np.allclose(volume.spacing_mm, (0.7, 0.8, 2.5), atol=1e-5)
    # LPS to RAS; rows run along the second direction, columns along the first.
    expected = np.array([-50, -40, 100]) + 3 * 0.7 * turn[:, 0] + 2 * 0.8 * turn[:, 1] + 4 * 2.5 * turn[:, 2]
    assert np.allclose(world(volume, 3, 2, 4)[:3], expected * (-1, -1, 1), atol=1e-4)
    assert volume.modality == "ct" and not volume.warnings


def test_pictures_of_an_axial_series_are_its_slices(tmp_path):
    hu = body()
    assert np.array_equal(read_series(write_series(tmp_path, hu)).slices, hu)


def test_enhanced_multi_frame_is_the_same_volume(tmp_path):
    hu = body()
    one, many = read_series([write_multi_frame(tmp_path / "a.dcm", hu)]), read_series(write_series(tmp_path / "b", hu))
    assert np.array_equal(one.values, many.values) and np.allclose(one.affine, many.affine)


def test_uneven_spacing_keeps_the_order_and_says_so(tmp_path):
    hu = body()
    heights = [0, 2, 4, 7, 10.5]
    volume = read_series(write_series(tmp_path, hu[::-1], positions=at(heights[::-1])))
    assert np.array_equal(volume.slices, hu)
    assert "2 to 3.5 mm apart" in volume.warnings[0] and volume.spacing_mm[2] == pytest.approx(10.5 / 4)
    labels = np.zeros(volume.values.shape, np.uint8)
    labels[..., 4] = 1  # the last slice stands for the distance to its neighbour
    assert volume.volume_ml(labels, 2)[1] == pytest.approx(48 * 0.56 * 3.5 / 1000)


def test_a_tilted_gantry_becomes_a_sheared_affine(tmp_path):
    positions = at(range(5)) + np.arange(5)[:, None] * (0, 0.4, 0)
    volume = read_series(write_series(tmp_path, body(), positions=positions))
    assert "tilted gantry" in volume.warnings[0] and "21.8 degrees" in volume.warnings[0]
    assert np.allclose(world(volume, 0, 0, 4)[:3], positions[4] * (-1, -1, 1))
    labels = np.ones(volume.values.shape, np.uint8)
    assert volume.volume_ml(labels, 2)[1] == pytest.approx(labels.size * 0.56 / 1000)


def test_monochrome1_is_turned_for_pictures_and_not_for_hounsfield_units(tmp_path):
    hu = body()
    options = {"PhotometricInterpretation": "MONOCHROME1"}
    ct = read_series(write_series(tmp_path / "ct", hu, **options))
    mri = read_series(write_series(tmp_path / "mri", hu, Modality="MR", **options))
    assert np.array_equal(ct.slices, hu) and mri.modality == "mri"
    assert np.array_equal(mri.slices, 2 * (65535 - (hu + 1024) // 2) - 1024)


def test_a_single_slice_is_as_thick_as_its_header_says(tmp_path):
    files = write_series(tmp_path, body(1))
    volume = read_series(files)
    assert volume.values.shape == (8, 6, 1) and "2.5 mm is from its header" in volume.warnings[0]
    assert np.allclose(volume.spacing_mm, (0.7, 0.8, 2.5))
    altered(files[0], lambda data: delattr(data, "SliceThickness"))
    volume = read_series(files)
    assert volume.spacing_mm[2] == 1 and "taken as 1 mm" in volume.warnings[0]


def test_slope_and_intercept_of_every_slice_are_its_own(tmp_path):
    hu = body()
    files = write_series(tmp_path, hu, Modality="MR")
    for number, path in enumerate(files, start=1):

        def rescale(data, number=number):
            data.RescaleSlope, data.RescaleIntercept = 0.5 * number, -number

        altered(path, rescale)
    expected = [(picture + 1024) // 2 * 0.5 * (k + 1) - (k + 1) for k, picture in enumerate(hu)]
    assert np.allclose(read_series(files).slices, expected)


def test_only_the_stored_bits_count_signed_or_not(tmp_path):
    files = write_series(tmp_path, body(2))
    stored = np.array([[-5, 7]] * 6, np.int16).repeat(4, axis=1)

    def signed(data):
        data.BitsStored, data.HighBit, data.PixelRepresentation = 12, 11, 1
        data.PixelData = (stored & 0x0FFF).astype(np.uint16).tobytes()

    def with_overlay_bits(data):
        data.BitsStored, data.HighBit = 12, 11
        data.PixelData = (np.full((6, 8), 300) | 0x3000).astype(np.uint16).tobytes()

    altered(files[0], signed)
    altered(files[1], with_overlay_bits)
    volume = read_series(files)
    assert np.array_equal(volume.slices[0], 2 * stored - 1024.0) and (volume.slices[1] == 2 * 300 - 1024).all()


def by_gdcm(path):
    """Rewrite a file as JPEG lossless, which pydicom itself cannot write."""
    import gdcm

    reader, writer, change = gdcm.ImageReader(), gdcm.ImageWriter(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(path))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("slices", ["single", "multi-frame"])
def test_losslessly_compressed_series_are_read_exactly(tmp_path, syntax, slices):
    hu = np.random.default_rng(0).integers(-500, 500, (3, 40, 36)) * 2
    files = write_series(tmp_path, hu) if slices == "single" else [write_multi_frame(tmp_path / "a.dcm", hu)]
    for path in files:
        if syntax == JPEGLosslessSV1:
            by_gdcm(path)
        else:
            altered(path, lambda data: data.compress(syntax))
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert np.array_equal(read_series(files).slices, hu)


def test_a_compression_without_decoder_names_the_extra(tmp_path, monkeypatch):
    from pydicom.pixels import get_decoder

    files = write_series(tmp_path, body(2))
    for path in files:
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = JPEG2000Lossless
        data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51" + bytes(40)])
        data["PixelData"].is_undefined_length = True
        data.save_as(path)
    with pytest.raises(ValueError, match="pixels cannot be read|semgan.dicom"):
        read_series(files)
    monkeypatch.setattr(type(get_decoder(JPEG2000Lossless)), "is_available", property(lambda _: False))
    with pytest.raises(ValueError, match=r"JPEG 2000.*pip install 'semgan\[dicom\]'"):
        read_series(files)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        ((0, 2.5, 5, 10, 12.5), r"1 of 6 slices are missing, for example between IM0002.dcm and IM0003.dcm, 5 mm"),
        ((0, 2.5, 2.5, 5, 7.5), r"IM0001.dcm and IM0002.dcm at 2.50 mm: several echoes"),
    ],
)
def test_missing_and_doubled_slices_are_refused(tmp_path, heights, message):
    with pytest.raises(ValueError, match=message):
        read_series(write_series(tmp_path, body(), positions=at(heights)))


def test_slices_that_jump_sideways_are_refused(tmp_path):
    positions = at(range(5))
    positions[2, 0] += 5
    with pytest.raises(ValueError, match="shifted sideways by up to 5 mm"):
        read_series(write_series(tmp_path, body(), positions=positions))


def test_mixed_series_are_refused(tmp_path):
    small = write_series(tmp_path / "a", body(2, 4, 4))
    files = write_series(tmp_path / "b", body(3))
    with pytest.raises(ValueError, match="5 slices differ in size .3 with 8 x 6; 2 with 4 x 4"):
        read_series([*small, *files])
    turned = write_series(tmp_path / "c", body(2), direction=(0, 1, 0, 0, 0, -1))
    with pytest.raises(ValueError, match="differ in direction"):
        read_series([*turned, *files])


def altered(path, change):
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: delattr(data, "PixelData"), "IM0001.dcm has no pixel data"),
        (lambda data: setattr(data, "PixelData", data.PixelData[:40]), "IM0001.dcm: its pixels cannot be read"),
        (lambda data: delattr(data, "ImagePositionPatient"), "IM0001.dcm has no ImagePositionPatient"),
        (lambda data: delattr(data, "PixelSpacing"), "has no PixelSpacing"),
        (lambda data: setattr(data, "SamplesPerPixel", 3), "in colour"),
        (lambda data: setattr(data, "NumberOfFrames", 4), "4 frames without a position"),
        (lambda data: setattr(data, "ModalityLUTSequence", []), "by a table .Modality LUT."),
        (lambda data: (delattr(data, "PixelSpacing"), setattr(data, "Modality", "DX")), "projection, so a picture"),
    ],
)
def test_a_slice_that_is_not_whole_is_one_clear_error(tmp_path, change, message):
    files = write_series(tmp_path, body(3))
    altered(files[1], change)
    with pytest.raises(ValueError, match=message):
        read_series(files)


def test_series_are_told_apart_and_other_objects_are_left_out(tmp_path):
    hu = body(3)
    files = write_series(tmp_path, hu, number=7, uid="1.2.7")
    files += [path.rename(path.with_name(f"x{path.name}")) for path in write_series(tmp_path / "n", hu, uid="1.2.8")]
    scout = header(SeriesInstanceUID="1.2.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    report = header("1.2.840.10008.5.1.4.1.1.88.11", "SR", SeriesInstanceUID="1.2.10")
    mask = header("1.2.840.10008.5.1.4.1.1.66.4", "SEG", SeriesInstanceUID="1.2.11")
    with_pixels(scout, np.zeros((4, 4), np.int16)).save_as(tmp_path / "scout.dcm", enforce_file_format=True)
    with_pixels(mask, np.zeros((4, 4), np.int16)).save_as(tmp_path / "mask.dcm", enforce_file_format=True)
    report.save_as(tmp_path / "report", enforce_file_format=True)
    screen = header("1.2.840.10008.5.1.4.1.1.7", "CT", SeriesInstanceUID="1.2.12")
    with_pixels(screen, np.zeros((9, 9), np.int16)).save_as(tmp_path / "dose.dcm", enforce_file_format=True)
    extra = [tmp_path / name for name in ("scout.dcm", "mask.dcm", "report", "dose.dcm")]
    found, others = find_series(tmp_path, [*files, *extra])
    assert [(one.number, len(one.files), one.uid) for one in found] == [(1, 3, "1.2.8"), (7, 3, "1.2.7")]
    assert others == extra and not found[0].broken and found[0].modality == "ct"
    shape, affine = found[0].geometry()
    assert shape == (8, 6, 3) and np.array_equal(affine, found[0].read().affine)
    assert np.array_equal(found[0].read().slices, hu)


def test_truncated_and_foreign_files_spoil_the_series_beside_them(tmp_path):
    files = write_series(tmp_path, body(4))
    whole = files[3].read_bytes()
    for cut in (100, 300, 700):
        files[3].write_bytes(whole[:cut])
        (series,), _ = find_series(tmp_path, files)
        with pytest.raises(ValueError, match="IM0003.dcm is no readable DICOM file.*take it out"):
            series.read()
    files[3].write_bytes(b"encrypted" * 100)
    (series,), _ = find_series(tmp_path, files[3:])
    with pytest.raises(ValueError, match="IM0003.dcm.*encrypted or foreign"):
        series.read()


def test_dicom_is_known_by_its_content_or_name(tmp_path):
    (path,) = write_series(tmp_path, body(1), direction=AXIAL)
    bare = path.rename(tmp_path / "IM1")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "x.DCM").write_text("hello")
    assert [is_dicom(tmp_path / name) for name in (bare.name, "notes.txt", "x.DCM")] == [True, False, True]


def rewritten(files, **changes):
    """The files with other values; a list has one for each file in turn."""
    for place, file in enumerate(files):
        data = pydicom.dcmread(file)
        for name, values in changes.items():
            setattr(data, name, values[place % len(values)])
        data.save_as(file)
    return files


def test_directions_that_differ_by_rounding_are_one_direction(tmp_path):
    hu, straight, rounded = body(), [1, 0, 0, 0, 1, 0], [0.9999998, 0, 0, 0, 1, 0]
    files = write_series(tmp_path, hu, spacing=(0.9375, 0.9375, 2.5))
    volume = read_series(rewritten(files, ImageOrientationPatient=[straight, rounded]))
    assert np.array_equal(volume.slices, hu) and not volume.warnings


def test_thin_slices_far_from_the_origin_keep_their_order_though_directions_are_rounded(tmp_path):
    hu, tilt = body(), 0.0009  # times 400 mm: more than a slice
    files = write_series(tmp_path, hu, positions=at(np.arange(5) * 0.25) + [0, -400, 0])
    volume = read_series(rewritten(files, ImageOrientationPatient=[list(AXIAL), [1, 0, 0, 0, 1, tilt]]))
    assert np.array_equal(volume.slices, hu)


@pytest.mark.parametrize(
    "change",
    [
        {"ImageOrientationPatient": [2, 0, 0, 0, 2, 0]},
        {"ImageOrientationPatient": [1, 0, 0, 1, 0.2, 0]},
        {"ImageOrientationPatient": [0] * 6},
        {"PixelSpacing": [-0.8, 0.7]},
        {"PixelSpacing": [0, 0.7]},
        {"RescaleSlope": 0},
        {"RescaleSlope": [1, 2]},
        {"SliceThickness": [1, 2]},
        {"SamplesPerPixel": None},
        {"Columns": None},
        {"Rows": 60000, "Columns": 60000},
    ],
)
def test_headers_that_make_no_sense_are_one_message(tmp_path, change):
    files = write_series(tmp_path, body())
    rewritten(files, **{name: [value] for name, value in change.items()})
    with pytest.raises(ValueError, match=tmp_path.name):
        read_series(files)


def test_a_series_of_two_numbers_has_none(tmp_path):
    rewritten(write_series(tmp_path, body()), SeriesNumber=[[1, 2]])
    (series,), _ = find_series(tmp_path, sorted(tmp_path.iterdir()))
    assert series.number is None


def test_ct_that_cannot_be_in_hu_is_told(tmp_path):
    files = write_series(tmp_path, body())
    for file in files:
        data = pydicom.dcmread(file)
        del data.RescaleSlope, data.RescaleIntercept
        data.save_as(file)
    assert "no HU" in read_series(files).warnings[0]
    assert not read_series(rewritten(files, Modality=["MR"])).warnings
    assert not read_series(write_series(tmp_path / "hu", body())).warnings


def test_damaged_values_deep_in_a_header_are_one_message_too(tmp_path):
    file = write_multi_frame(tmp_path / "a.dcm", body())
    content = file.read_bytes()
    for tag in (b"\x20\x00\x32\x00", b"\x20\x00\x37\x00", b"\x28\x00\x53\x10"):  # position, direction, slope
        file.write_bytes(content.replace(tag + b"DS", tag + b"DG"))
        with pytest.raises(ValueError, match="a.dcm"):
            read_series([file])
    file.write_bytes(content.replace(b"1.2.840.10008.5.1.4.1.1.2.1", b"1.2.840.10008\\5.1.4.1.1.2.1"))
    (series,), _ = find_series(tmp_path, [file])
    assert series.files == (file,)
    assert dicom_kind(file) is Kind.slice
