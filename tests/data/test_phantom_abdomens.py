"""Phantom abdomens: one anatomy under CT and MRI, plausible values and sizes, and files that lie where they should."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_folders import files_below
from raw_replicas import put

from semgan.data.check import check_dataset
from semgan.data.dicom import read_series
from semgan.data.nifti import read_label_volume, read_volume
from semgan.data.phantoms import write_abdomens
from semgan.data.phantoms.abdomen_painting import Grid, paint
from semgan.data.phantoms.abdomen_scans import ANATOMY, CHAOS_GREY, FAMILY, Scan, scan_ct, scan_mri
from semgan.data.phantoms.abdomens import Tissue, choose_abdomen
from semgan.data.phantoms.chance import Chance
from semgan.data.phantoms.scan_files import stored_as
from semgan.data.phantoms.write_abdomens import write_chaos_ct, write_lits_volume
from semgan.data.prepare.tasks import prepare_task
from semgan.data.readers import read_label
from semgan.data.studies import find_studies
from semgan.data.volumes import Volume, axial

SIZE = 64
SEEDS = range(6)


@pytest.fixture(scope="module")
def cts() -> list[Scan]:
    return [scan_ct(seed, SIZE) for seed in SEEDS]


@pytest.fixture(scope="module")
def mris() -> list[Scan]:
    return [scan_mri(seed, SIZE) for seed in SEEDS]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_abdomens(
        tmp_path_factory.mktemp("abdomens") / "raw", volumes=3, mri=2, unlabelled=1, size_px=32, seed=3, workers=1
    )


def liver_ml(scan: Scan) -> float:
    return (scan.lits_labels > 0).sum() * float(np.prod(scan.grid.spacing_mm)) / 1000


def median(scan: Scan, name: str, tissue: Tissue) -> float:
    return float(np.median(scan.values[name][scan.tissue == tissue]))


def digest(*scans: Scan) -> str:
    return hashlib.sha256(b"".join(part.tobytes() for scan in scans for part in scan.values.values())).hexdigest()


def test_a_seed_is_a_patient_and_another_seed_another(cts, mris):
    again = digest(scan_ct(2, SIZE), scan_mri(2, SIZE))
    assert again == digest(cts[2], mris[2]) != digest(cts[3], mris[3])
    program = (
        "import hashlib; from semgan.data.phantoms.abdomen_scans import scan_ct, scan_mri;"
        f"parts = [part for scan in (scan_ct(2, {SIZE}), scan_mri(2, {SIZE})) for part in scan.values.values()];"
        "print(hashlib.sha256(b''.join(part.tobytes() for part in parts)).hexdigest())"
    )
    fresh = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == again


def test_tissues_have_the_hounsfield_units_of_real_ones(cts):
    livers = []
    for scan in cts:
        assert scan.values["ct"].dtype == np.int16
        livers.append(median(scan, "ct", Tissue.LIVER))
        assert 50 < livers[-1] < 80 or 85 < livers[-1] < 125  # native or portal venous phase
        assert -125 < median(scan, "ct", Tissue.FAT) < -75
        assert 20 < median(scan, "ct", Tissue.MUSCLE) < 80  # thin: its voxels hold fat too
        assert -1024 <= median(scan, "ct", Tissue.OUTSIDE) < -950
        assert -900 < median(scan, "ct", Tissue.LUNG) < -780
        assert 250 < median(scan, "ct", Tissue.BONE) < 1000
        in_portal_phase = livers[-1] > 83
        assert (median(scan, "ct", Tissue.KIDNEY) > 130) == in_portal_phase
        assert (scan.values["ct"][:, 0, 0] == -1024).all()  # outside the round field of view
        assert 10 < scan.values["ct"][scan.tissue == Tissue.LIVER].std() < 35
    assert min(livers) < 80 and max(livers) > 85


def test_mri_has_bright_fat_in_phase_and_outlines_out_of_phase(mris):
    for scan in mris:
        inside, outside = scan.values["in"].astype(float), scan.values["out"].astype(float)
        fat, liver = median(scan, "in", Tissue.FAT), median(scan, "in", Tissue.LIVER)
        assert fat > 1.3 * liver and median(scan, "out", Tissue.FAT) < fat
        assert median(scan, "in", Tissue.BONE) < liver and median(scan, "in", Tissue.SPLEEN) < liver
        assert 0 <= inside.min() and 600 < np.percentile(inside, 99.9) < 3000
        near_fat = np.zeros(scan.tissue.shape, bool)
        for axis in (1, 2):
            for step in (-1, 1):
                near_fat |= np.roll(scan.tissue, step, axis) == Tissue.FAT
        edge = near_fat & (scan.tissue == Tissue.KIDNEY)
        core = ~near_fat & (scan.tissue == Tissue.KIDNEY)
        share = outside / (inside + 1)
        assert np.median(share[edge]) < 0.8 * np.median(share[core])


def test_livers_are_as_large_as_real_ones_and_end_before_the_scan_does(cts):
    volumes = [liver_ml(scan) for scan in cts]
    assert all(800 < volume < 2500 for volume in volumes) and np.std(volumes) > 100
    for scan in cts:
        rows = (scan.lits_labels > 0).any((1, 2))
        assert not rows[0] and not rows[-1] and 0.3 < rows.mean() < 0.9
        assert (np.diff(np.flatnonzero(rows)) == 1).all()
        area = (scan.lits_labels > 0).sum((1, 2))
        assert np.abs(np.diff(area)).max() < 0.5 * area.max()  # its shape changes slowly from slice to slice


def test_ct_and_mri_show_one_anatomy_in_other_intensities(cts, mris):
    for ct, mri in zip(cts, mris, strict=True):
        assert liver_ml(ct) == pytest.approx(liver_ml(mri), rel=0.06)
        assert ct.grid != mri.grid
    ct = scan_ct(1, SIZE)
    pixels = ct.values["ct"].astype(float)
    order = {kind: median(ct, "ct", kind) for kind in (Tissue.FAT, Tissue.LIVER, Tissue.BONE)}
    assert order[Tissue.FAT] < order[Tissue.LIVER] < order[Tissue.BONE]
    mri = {kind: median(mris[1], "in", kind) for kind in order}
    assert mri[Tissue.BONE] < mri[Tissue.LIVER] < mri[Tissue.FAT]
    assert pixels.min() < -900 and mris[1].values["in"].min() >= 0


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**40), column=st.integers(0, 40), row=st.integers(0, 30), step=st.integers(1, 3))
def test_anatomy_is_a_function_of_space_alone(seed, column, row, step):
    abdomen = choose_abdomen(Chance(FAMILY, seed, ANATOMY))
    x, y, z = abdomen.position
    whole = Grid((3, 36, 48), (6.0 * step, 6.0, 7.0), (x - 160, y - 100, z - 90))
    part = Grid((2, 36 - row, 48 - column), (6.0 * step, 6.0, 7.0), (x - 160 + 7 * column, y - 100 + 6 * row, z - 90))
    same = paint(abdomen, whole)[:2, row:, column:] == paint(abdomen, part)
    assert same.mean() > 0.999  # but for rounding on an edge


def test_a_scan_without_tumours_is_of_the_same_patient():
    seed = next(seed for seed in range(50) if (scan_ct(seed, 32).lits_labels == 2).sum() > 20)
    ill, healthy = scan_ct(seed, 32), scan_ct(seed, 32, is_healthy=True)
    assert np.array_equal(ill.lits_labels > 0, healthy.lits_labels > 0) and healthy.lits_labels.max() == 1


def test_impossible_scans_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got -1 and 64 px"):
        scan_ct(-1, SIZE)
    with pytest.raises(ValueError, match="got 0 and 8 px"):
        scan_mri(0, 8)
    with pytest.raises(ValueError, match="not all 0; got 0, 0, 0"):
        write_abdomens(tmp_path / "raw", volumes=0, mri=0)
    with pytest.raises(ValueError, match="got 8 px and seed 0"):
        write_abdomens(tmp_path / "raw", volumes=1, mri=0, size_px=8)
    put(tmp_path / "full/picture.png", np.zeros((4, 4), np.uint8))
    with pytest.raises(FileExistsError, match="holds other files"):
        write_abdomens(tmp_path / "full", volumes=1, mri=0)
    assert files_below(tmp_path) == {"full", "full/picture.png"}


# ---------------------------------------------------------------- files


def test_files_have_the_names_and_numbers_of_the_published_sets(raw):
    names = {str(path.relative_to(raw)) for path in raw.rglob("*") if path.is_file()}
    kinds = ("volume", "segmentation")
    first = {f"LITS17/Training Batch 1/{kind}-{number}.nii" for kind in kinds for number in (0, 2)}
    assert first < names and "LITS17/LITS-Challenge-Test-Data/test-volume-0.nii" in names
    place = "CHAOS_Train_Sets/Train_Sets/MR/2/T1DUAL"
    assert {f"{place}/DICOM_anon/InPhase/IMG-0004-00002.dcm", f"{place}/DICOM_anon/OutPhase/IMG-0004-00001.dcm"} < names
    assert f"{place}/Ground/IMG-0004-00002.png" in names
    greys = set(np.unique([read_label(path) for path in (raw / place / "Ground").iterdir()]).tolist())
    assert greys == {0, *CHAOS_GREY.values()}
    again = {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    assert write_abdomens(raw, volumes=3, mri=2, unlabelled=1, size_px=32, seed=3) == raw
    assert again == {path: path.stat().st_mtime_ns for path in raw.rglob("*")}
    with pytest.raises(FileExistsError, match="another phantom data set"):
        write_abdomens(raw, volumes=4, mri=2, size_px=32, seed=3)


def test_nifti_and_dicom_lie_at_one_place_whatever_way_they_are_stored(tmp_path):
    scan = scan_ct(4, 32)
    write_chaos_ct(tmp_path / "ct", scan, 1)
    dicom = read_series(sorted((tmp_path / "ct/DICOM_anon").iterdir()))
    assert dicom.modality == "ct" and np.array_equal(dicom.slices, scan.values["ct"])
    for number, codes in enumerate(("LPS", "RAI", "SLP")):
        values, affine = stored_as(scan.values["ct"].transpose(2, 1, 0), scan.grid.affine, codes)
        labels = stored_as(scan.lits_labels.transpose(2, 1, 0), scan.grid.affine, codes)[0]
        write_lits_volume(tmp_path, number, values, labels, affine)
        nifti = read_volume(tmp_path / f"volume-{number}.nii")
        assert np.array_equal(nifti.slices, dicom.slices)
        for corner in ((0, 0, 0), (3, 5, 7), (1, 30, 9)):  # of an axial slice: slice, row, column
            assert np.allclose(place_of(nifti, corner), place_of(dicom, corner), atol=0.01)


def place_of(volume: Volume, voxel: tuple[int, int, int]) -> np.ndarray:
    """Millimetres of a voxel (slice, row, column) of the axial view."""
    numbers = np.arange(volume.values.size).reshape(volume.values.shape)
    index = np.unravel_index(axial(numbers, volume.affine)[voxel], volume.values.shape)
    return volume.affine @ [*index, 1]


def test_every_patient_becomes_a_volume_of_the_liver_task(raw, tmp_path):
    report = prepare_task("liver", [raw / "LITS17", raw / "CHAOS_Train_Sets"], tmp_path / "out", workers=1)
    assert not [problem for problem in check_dataset(tmp_path / "out", workers=1) if problem.level == "error"]
    assert {found.name: found.images for found in report.collections} == {
        "lits": 3, "lits-test": 1, "chaos-in": 2, "chaos-out": 2,
    }  # fmt: skip
    for phase in ("in", "out"):
        labels = read_label_volume(tmp_path / f"out/volumes/chaos-{phase}/labels/chaos-mr-1-{phase}.nii.gz")
        image = read_volume(tmp_path / f"out/volumes/chaos-{phase}/images/chaos-mr-1-{phase}.nii.gz")
        assert 800 < labels.volume_ml(labels.values, 2)[1] < 2500
        assert image.values[labels.values == 1].mean() > 2 * image.values[..., 0][:, 0].mean()


def test_the_mri_tree_is_one_study_per_patient_and_phase(raw):
    studies, _ = find_studies(raw / "CHAOS_Train_Sets/Train_Sets/MR")
    assert [study.stem for study in studies] == [
        f"{patient}_T1DUAL_DICOM_anon_{phase}Phase" for patient in (1, 2) for phase in ("In", "Out")
    ]
    inside, outside = (study.read() for study in studies[:2])
    assert inside.modality == outside.modality == "mri" and np.allclose(inside.affine, outside.affine)
    assert not np.array_equal(inside.values, outside.values)
