"""Volumes in and out: whatever way a volume is stored, its slices are axial and its mask lies where it lay."""

import gzip

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from volume_files import ORIENTATIONS, oblique, save, stored_as

from semgan.config import Preprocessing
from semgan.data.nifti import common_grid, read_label_volume, read_volume, write_label_volume
from semgan.data.transforms import preprocess
from semgan.data.volumes import Volume, axial, stored_like

SHAPE = (5, 6, 7)


def voxels():
    return np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_axial_slices_are_the_same_however_the_volume_is_stored(codes):
    values, affine = voxels(), oblique()
    expected = axial(values, affine)
    assert expected.shape == (7, 6, 5)
    assert np.array_equal(axial(*stored_as(values, affine, codes)), expected)


def test_slices_go_up_rows_to_the_back_and_columns_to_the_left():
    marked = np.zeros((4, 5, 6), np.uint8)
    marked[0, -1, -1] = 1  # left, front, top: NIfTI's first axis runs to the right
    affine = np.diag([1.0, 1, 1, 1])
    assert axial(marked, affine)[-1, 0, -1] == 1


def test_what_is_written_into_the_slices_lands_in_stored_order(tmp_path):
    values, affine = stored_as(voxels(), oblique(), "SRA")
    labels = np.zeros(values.shape, np.uint8)
    slices = axial(labels, affine)
    for number, picture in enumerate(axial(values, affine)):
        slices[number] = picture > 0
    assert np.array_equal(labels, values > 0)


@settings(deadline=None, max_examples=25)
@given(
    codes=st.sampled_from(ORIENTATIONS),
    angles=st.tuples(*[st.floats(-35, 35, allow_subnormal=False)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 8, allow_subnormal=False)] * 3),
    ending=st.sampled_from([".nii", ".nii.gz"]),
)
def test_a_mask_has_exactly_the_geometry_of_its_volume(tmp_path_factory, codes, angles, spacing, ending):
    folder = tmp_path_factory.mktemp("nifti")
    values, affine = stored_as(voxels(), oblique(angles, spacing), codes)
    save(folder / f"ct{ending}", values, affine)
    volume = read_volume(folder / f"ct{ending}")
    assert np.array_equal(volume.values, values) and np.allclose(volume.affine, affine, atol=1e-4)
    write_label_volume(folder / "mask.nii.gz", (values > 0).astype(np.int64), volume)
    before, after = nibabel.load(folder / f"ct{ending}"), nibabel.load(folder / "mask.nii.gz")
    assert after.get_data_dtype() == np.uint8 and np.array_equal(after.dataobj, values > 0)
    assert np.array_equal(after.affine, before.affine)
    for name in ("pixdim", "dim", "qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_z", "xyzt_units"):
        assert np.array_equal(after.header[name], before.header[name]), name
    assert common_grid(folder / f"ct{ending}", folder / "mask.nii.gz") is not None


def test_header_codes_units_and_a_fourth_axis_of_one_are_kept_and_texts_are_not(tmp_path):
    image = nibabel.Nifti2Image(voxels()[..., None], None)
    image.set_qform(oblique() / [[1000], [1000], [1000], [1]], code=2)
    image.header.set_xyzt_units("meter", "sec")
    image.header["descrip"] = b"Jane Doe"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"Jane Doe, born 1970"))
    image.header.set_slope_inter(1, 0)
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    assert np.allclose(volume.spacing_mm, (0.7, 0.8, 2.5), atol=1e-4)
    write_label_volume(tmp_path / "b.nii.gz", np.ones(SHAPE, np.uint8), volume)
    mask = nibabel.load(tmp_path / "b.nii.gz")
    assert isinstance(mask, nibabel.Nifti2Image) and mask.shape == (*SHAPE, 1)
    assert mask.header["qform_code"] == 2 and mask.header["sform_code"] == 0
    assert mask.header.get_xyzt_units() == ("meter", "sec")
    import gzip

    assert b"Jane" not in gzip.decompress((tmp_path / "b.nii.gz").read_bytes())
    assert volume.volume_ml(np.ones(SHAPE, np.uint8), 2)[1] == pytest.approx(210 * 0.7 * 0.8 * 2.5 / 1000, rel=1e-4)


def test_scaled_values_are_scaled_and_labels_are_whole(tmp_path):
    image = nibabel.Nifti1Image(voxels(), np.eye(4))
    image.header.set_slope_inter(0.5, -10)
    nibabel.save(image, tmp_path / "a.nii.gz")
    raw = nibabel.load(tmp_path / "a.nii.gz")
    assert np.allclose(read_volume(tmp_path / "a.nii.gz").values, raw.get_fdata(), atol=1e-3)
    save(tmp_path / "l.nii.gz", (voxels() > 0).astype(np.float32), np.eye(4))
    assert read_label_volume(tmp_path / "l.nii.gz").values.dtype == np.int32
    save(tmp_path / "f.nii.gz", voxels().astype(np.float32) / 3, np.eye(4))
    with pytest.raises(ValueError, match="fractions"):
        read_label_volume(tmp_path / "f.nii.gz")


def test_a_header_without_orientation_is_read_with_a_warning(tmp_path):
    image = nibabel.Nifti1Image(voxels(), None)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert "does not say" in read_volume(tmp_path / "a.nii.gz").warnings[0]


def test_damaged_and_foreign_files_are_one_clear_error(tmp_path):
    save(tmp_path / "whole.nii.gz", voxels(), np.eye(4))
    save(tmp_path / "whole.nii", voxels(), np.eye(4))
    for name in ("whole.nii.gz", "whole.nii"):
        content = (tmp_path / name).read_bytes()
        for share, cut in ((0.7, "cut-"), (0.1, "stub-"), (0, "empty-")):
            (tmp_path / f"{cut}{name}").write_bytes(content[: int(len(content) * share)])
    (tmp_path / "text.nii").write_text("hello" * 200)
    save(tmp_path / "series.nii", np.zeros((4, 4, 4, 3), np.int16), np.eye(4))
    save(tmp_path / "flat.nii", np.zeros((4, 4), np.int16), np.eye(4))
    save(tmp_path / "nan.nii", np.full((4, 4, 4), np.nan, np.float32), np.eye(4))
    colour = np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, np.eye(4)), tmp_path / "colour.nii")
    for path in tmp_path.iterdir():
        if not path.name.startswith("whole"):
            with pytest.raises(ValueError, match="Replace the file"):
                read_volume(path)
    with pytest.raises(FileNotFoundError):
        read_volume(tmp_path / "nowhere.nii")


def test_nothing_is_left_half_written(tmp_path, monkeypatch):
    volume = Volume(voxels(), np.eye(4))
    with pytest.raises(ValueError, match="must be equal"):
        write_label_volume(tmp_path / "m.nii.gz", np.zeros((2, 2, 2), np.uint8), volume)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_label_volume(tmp_path / "m.nii.gz", np.zeros(SHAPE, np.uint8), volume)
    assert not list(tmp_path.iterdir())


def test_a_sheared_volume_without_header_keeps_its_affine(tmp_path):
    affine = oblique()
    affine[:3, 2] += (0, 0.6, 0)
    volume = Volume(voxels(), affine)
    write_label_volume(tmp_path / "m.nii.gz", np.zeros(SHAPE, np.uint8), volume)
    mask = nibabel.load(tmp_path / "m.nii.gz")
    assert np.allclose(mask.affine, affine, atol=1e-4) and mask.header["qform_code"] == 0
    assert np.allclose(mask.header.get_zooms(), volume.spacing_mm, atol=1e-4)


@pytest.mark.parametrize("codes", ORIENTATIONS[::7])
def test_the_same_voxels_stored_in_another_order_are_one_grid(tmp_path, codes):
    values, affine = stored_as(voxels(), oblique(), codes)
    save(tmp_path / "a.nii.gz", values, affine)
    save(tmp_path / "b.nii.gz", voxels(), oblique())
    change, like = common_grid(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    assert np.array_equal(stored_like(values, change), voxels()) and np.allclose(like, oblique(), atol=1e-4)


def test_two_places_in_one_header_are_told(tmp_path):
    image = nibabel.Nifti1Image(voxels(), oblique())
    image.set_qform(oblique(), code=1)
    image.set_sform(oblique((0, 0, 0)), code=2)
    nibabel.save(image, tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert "two places in space" in volume.warnings[0] and np.allclose(volume.affine, oblique((0, 0, 0)), atol=1e-4)
    image.set_sform(oblique(), code=2)
    nibabel.save(image, tmp_path / "b.nii.gz")
    assert not read_volume(tmp_path / "b.nii.gz").warnings


def test_big_endian_files_are_read_and_written(tmp_path):
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels().astype(">i2"), oblique(), header), tmp_path / "a.nii.gz")
    volume = read_volume(tmp_path / "a.nii.gz")
    assert np.array_equal(volume.values, voxels())
    rule = Preprocessing(size_px=16)
    assert np.array_equal(preprocess(volume.slices[2], rule), preprocess(axial(voxels(), oblique())[2], rule))
    write_label_volume(tmp_path / "b.nii.gz", voxels() > 0, volume)
    assert np.array_equal(nibabel.load(tmp_path / "b.nii.gz").dataobj, voxels() > 0)


def test_masks_in_other_places_are_told_apart(tmp_path):
    save(tmp_path / "a.nii.gz", voxels(), oblique())
    shifted = oblique()
    shifted[2, 3] += 1
    save(tmp_path / "b.nii.gz", voxels(), shifted)
    save(tmp_path / "c.nii.gz", voxels()[:-1], oblique())
    with pytest.raises(ValueError, match="different places: up to 1 mm"):
        common_grid(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")
    with pytest.raises(ValueError, match="5 x 6 x 7 voxels.*4 x 6 x 7"):
        common_grid(tmp_path / "a.nii.gz", tmp_path / "c.nii.gz")
    with pytest.raises(ValueError, match="one is a volume, the other a picture"):
        common_grid(tmp_path / "a.nii.gz", tmp_path / "b.png")


def test_a_damaged_bit_of_a_packed_volume_is_told_by_its_checksum(tmp_path):
    noise = np.random.default_rng(0).integers(0, 3, (20, 20, 20)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(noise, np.eye(4)), tmp_path / "whole.nii.gz")
    content = (tmp_path / "whole.nii.gz").read_bytes()
    for place in range(600, len(content), 97):
        damaged = bytearray(content)
        damaged[place] ^= 8
        (tmp_path / "v.nii.gz").write_bytes(damaged)
        with pytest.raises(ValueError, match="cannot be read"):
            read_volume(tmp_path / "v.nii.gz")
    (tmp_path / "v.nii.gz").write_bytes(content[:-4])
    with pytest.raises(ValueError, match="cannot be read"):
        read_volume(tmp_path / "v.nii.gz")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_header_that_announces_more_than_the_file_holds_asks_for_no_memory(tmp_path, ending):
    header = nibabel.Nifti1Header()
    header.set_data_shape((32000, 32000, 32000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    content = header.binaryblock + bytes(2000)
    (tmp_path / f"v{ending}").write_bytes(gzip.compress(content) if ending.endswith(".gz") else content)
    with pytest.raises(ValueError, match="131,072,000,000,000 bytes of voxels"):
        read_volume(tmp_path / f"v{ending}")


@pytest.mark.parametrize(("unit", "mm"), [("meter", 1000), ("mm", 1), ("micron", 0.001)])
def test_voxels_may_be_of_any_size(tmp_path, unit, mm):
    image = nibabel.Nifti1Image(voxels(), np.diag([0.5 / mm, 0.25 / mm, 0.002 / mm, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "v.nii")
    assert read_volume(tmp_path / "v.nii").spacing_mm == pytest.approx((0.5, 0.25, 0.002))


@pytest.mark.parametrize("value", [np.int64(2**32), np.uint32(2**32 - 1), np.float32(5e9)])
def test_values_of_a_mask_never_wrap_around(tmp_path, value):
    image = nibabel.Nifti1Image(np.full(SHAPE, value), np.eye(4), dtype=value.dtype)
    nibabel.save(image, tmp_path / "m.nii")
    with pytest.raises(ValueError, match="those of a mask are"):
        read_label_volume(tmp_path / "m.nii")
