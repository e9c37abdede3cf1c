"""A user's own volumes, NIfTI or DICOM with NIfTI or SEG masks: through all verbs, or one message with all errors."""

import json
from shutil import rmtree

import numpy as np
import pytest
from dicom_files import write_series
from liver_replicas import LPS, abdomen
from plain_folders import files_below, picture
from plain_folders import save as save_picture
from volume_files import save, stored_as

from semgan.artifacts import read_json
from semgan.cli.info import describe
from semgan.data.check import check_dataset
from semgan.data.dicom import read_series
from semgan.data.dicom_seg import read_dicom_seg, write_dicom_seg
from semgan.data.folder import Dataset
from semgan.data.nifti import read_label_volume, read_volume
from semgan.data.prepare.folder import prepare_folder
from semgan.data.readers import read_image_files, read_label
from semgan.data.splits import write_splits
from semgan.evaluate import evaluate
from semgan.segment import read_rows, segment
from semgan.train import train

SLICES = 4


def put(folder, stem, seed, *, mask_value=1, codes=None, labels=None):
    """A NIfTI volume and its mask; ``codes``: the order in which the mask is stored."""
    values, mask = abdomen(seed, SLICES)
    mask = mask * mask_value
    (folder / "images" / stem).parent.mkdir(parents=True, exist_ok=True)
    save(folder / "images" / f"{stem}.nii.gz", values, LPS)
    place = labels or folder / "labels"
    (place / stem).parent.mkdir(parents=True, exist_ok=True)
    save(place / f"{stem}.nii.gz", *(stored_as(mask, LPS, codes) if codes else (mask, LPS)))


def put_dicom(folder, name, seed, *, seg=False, number=1, uid=None, patient=""):
    """A DICOM series, and its mask as DICOM SEG beside it, or as NIfTI stored from bottom to top and front to back."""
    values, mask = abdomen(seed, SLICES)
    files = write_series(
        folder / "images" / name,
        values.transpose(2, 1, 0) // 2 * 2,
        uid=uid or f"1.2.{seed}",
        number=number,
        order=[2, 0, 3, 1],
        BodyPartExamined="LIVER",
        PatientID=patient,
    )
    volume = read_series(files)
    (folder / "labels").mkdir(exist_ok=True)
    if seg:
        write_dicom_seg(folder / "labels" / f"{name}-by-anna.dcm", mask, volume, ("background", "liver", "tumour"))
    else:
        save(folder / "labels" / f"{name}.nii.gz", *stored_as(mask, volume.affine, "LAS"))
    return volume, mask


def prepare(root, **options):
    return prepare_folder(root / "images", root / "labels", root / "dataset", workers=1, **options)


def refusal(root, **options):
    before = files_below(root)
    with pytest.raises(ValueError) as error:
        prepare(root, **options)
    assert files_below(root) == before
    return str(error.value)


def test_slices_are_trained_on_and_counted_in_volumes(tmp_path):
    for number in range(5):
        put(tmp_path, f"p{number}/ct", number)
    report = prepare(tmp_path)
    assert report.classes == ("background", "class_1", "class_2") and report.labelled == 5 * SLICES
    dataset = Dataset.open(tmp_path / "dataset")
    values, mask = abdomen(2, SLICES)
    for k in range(SLICES):
        stem = f"p2_ct__{k:04d}"
        assert np.array_equal(read_image_files(dataset.path / f"imagesTr/{stem}_0000.tif"), values[..., k].T)
        assert np.array_equal(read_label(dataset.path / f"labelsTr/{stem}.tif"), mask[..., k].T)
    write_splits(dataset.path, 2, validation_share=0.3)
    dataset = Dataset.open(dataset.path)
    chosen, kept = ({case.group for case in cases} for cases in (dataset.labelled(2, 0), dataset.validation()))
    assert len(chosen) == 2 and len(dataset.labelled(2, 0)) == 2 * SLICES
    assert len(kept) == 1 and not kept & chosen
    assert prepare(tmp_path).was_already_prepared


def test_patients_of_the_manifest_keep_their_volumes_together(tmp_path):
    for number in range(5):
        put(tmp_path, f"v{number}", number)
    table = tmp_path / "manifest.csv"
    table.write_text("stem,group,set,scanner\nv0,ann,,A\nv1,ann,,B\nv2,bob,,A\nv3,cid,validation,A\nv4,dan,test,A\n")
    prepare(tmp_path, manifest=table)
    write_splits(tmp_path / "dataset", 2)
    dataset = Dataset.open(tmp_path / "dataset")
    assert {case.group for case in dataset.labelled(2, 0)} == {"ann", "bob"}
    assert {case.stem for case in dataset.validation()} == {f"v3__{k:04d}" for k in range(SLICES)}
    assert dataset.columns["v1__0000"]["scanner"] == "B"
    assert not dataset.test() and (dataset.path / "volumes/test/images/v4.nii.gz").is_file()
    assert describe(dataset.path)["test_volumes"] == 1


# ---------------------------------------------------------------- patients by PatientID

SECRETS = ("4711-Doe", "0815-Roe", "1234-Poe")


def put_patients(root, *patients):
    """A DICOM series ``s0``, ``s1``, ... of each PatientID."""
    for number, patient in enumerate(patients):
        put_dicom(root, f"s{number}", number, patient=patient)


def patient_of(root):
    """Volume -> the patient that the dataset's manifest names."""
    rows = Dataset.open(root / "dataset").columns.values()
    return {row["stem"].split("__")[0]: row["patient"] for row in rows}


def about_patients(report):
    return [warning for warning in report.warnings if "atient" in warning]


def nothing_tells(root, text):
    files = [path for path in (root / "dataset").rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in files) + text.encode()
    return not any(secret.encode() in kept for secret in SECRETS)


def test_series_of_one_patient_are_told_and_grouped_where_asked(tmp_path):
    put_patients(tmp_path, SECRETS[0], SECRETS[1], SECRETS[0], "", SECRETS[2], " ")
    report = prepare(tmp_path)
    (warning,) = about_patients(report)
    assert "1 patient(s)" in warning and "s0 and s2" in warning and "--group-by-patient" in warning
    assert "s3" not in warning and len(set(patient_of(tmp_path).values())) == 6
    assert nothing_tells(tmp_path, str(report))
    rmtree(tmp_path / "dataset")
    report = prepare(tmp_path, group_by_patient=True)
    (warning,) = about_patients(report)
    assert warning.startswith("2 of 6 volumes have no PatientID")
    names = patient_of(tmp_path)
    assert names == {"s0": "s0", "s1": "s1", "s2": "s0", "s3": "s3", "s4": "s4", "s5": "s5"}
    assert nothing_tells(tmp_path, str(report))
    assert prepare(tmp_path, group_by_patient=True).was_already_prepared
    for seed in range(6):
        write_splits(tmp_path / "dataset", 2, seed, validation_share=0.3)
        chosen = {case.stem.split("__")[0] for case in Dataset.open(tmp_path / "dataset").labelled(2, seed)}
        assert ("s0" in chosen) == ("s2" in chosen) and len({names[stem] for stem in chosen}) == 2


def test_a_manifest_that_names_the_patients_settles_it(tmp_path):
    put_patients(tmp_path, SECRETS[0], SECRETS[0], SECRETS[1], SECRETS[1])
    table = tmp_path / "manifest.csv"
    table.write_text("stem,group\ns0,ann\ns1,ann\ns2,bob\ns3,cid\n")  # s2 and s3: the manifest knows better
    report = prepare(tmp_path, manifest=table)
    assert not about_patients(report)
    rmtree(tmp_path / "dataset")
    table.write_text("stem,group\ns1,ann\n")
    assert "2 patient(s)" in about_patients(prepare(tmp_path, manifest=table))[0]
    rmtree(tmp_path / "dataset")
    assert not about_patients(prepare(tmp_path, manifest=table, group_by_patient=True))
    assert patient_of(tmp_path) == {"s0": "ann", "s1": "ann", "s2": "s2", "s3": "s2"}


def test_a_patient_on_both_sides_of_a_test_is_told_grouped_or_not(tmp_path):
    put_patients(tmp_path, SECRETS[0], SECRETS[1])
    put_dicom(tmp_path / "test", "t0", 5, patient=SECRETS[1])
    folders = {"test_images": tmp_path / "test/images", "test_labels": tmp_path / "test/labels"}
    report = prepare(tmp_path, **folders, group_by_patient=True)
    (warning,) = about_patients(report)
    assert "trained on, with or without masks, and tested on: s1 and t0." in warning


def test_one_id_for_all_is_doubted(tmp_path):
    put_patients(tmp_path, *["4711-Doe"] * 3)
    (warning,) = about_patients(prepare(tmp_path))
    assert warning.startswith("All 3 DICOM series have one PatientID") and "of their own" in warning


def test_grouping_by_patient_needs_ids(tmp_path):
    put_patients(tmp_path, "", "")
    assert "--group-by-patient reads PatientID, and no volume" in refusal(tmp_path, group_by_patient=True)
    for number in range(2):
        save_picture(tmp_path / "p/images", f"a{number}", picture(number))
    with pytest.raises(ValueError, match="p/images holds none; name the patients in a --manifest"):
        prepare_folder(tmp_path / "p/images", tmp_path / "p/images", tmp_path / "d", group_by_patient=True)


@pytest.mark.parametrize("seg", [False, True])
def test_dicom_series_with_masks_stored_in_other_ways(tmp_path, seg):
    if seg:
        pytest.importorskip("highdicom")
    drawn = [put_dicom(tmp_path, f"scan{number}", number, seg=seg) for number in range(2)]
    prepare(tmp_path)
    for number, (volume, mask) in enumerate(drawn):
        for k, pixels in enumerate(volume.slices):
            stem = f"scan{number}__{k:04d}"
            assert np.array_equal(read_image_files(tmp_path / f"dataset/imagesTr/{stem}_0000.tif"), pixels)
            assert np.array_equal(read_label(tmp_path / f"dataset/labelsTr/{stem}.tif"), mask[..., k].T)


def test_masks_may_lie_among_their_series(tmp_path):
    pytest.importorskip("highdicom")
    for number in range(2):
        put_dicom(tmp_path, f"scan{number}", number, seg=True)
        mask = tmp_path / "labels" / f"scan{number}-by-anna.dcm"
        mask.rename(tmp_path / "images" / f"scan{number}" / "mask.dcm")
    (tmp_path / "labels").rmdir()
    prepare_folder(tmp_path / "images", tmp_path / "images", tmp_path / "dataset", workers=1)
    assert len(Dataset.open(tmp_path / "dataset").pool()) == 2 * SLICES


def test_own_volumes_go_through_all_verbs(tmp_path, quick):
    for number in range(4):
        put(tmp_path, f"p{number}", number)
    put_dicom(tmp_path, "p4", 4)
    put(tmp_path / "more", "extra", 7)
    test = tmp_path / "test"
    put(test, "q0", 8, codes="RAS")
    put_dicom(test, "q1", 9)
    report = prepare(
        tmp_path,
        unlabelled=tmp_path / "more/images",
        test_images=test / "images",
        test_labels=test / "labels",
        mapping=[0, 1, 0],
        classes=["background", "liver"],
    )
    dataset = tmp_path / "dataset"
    assert (report.labelled, report.unlabelled, report.test_volumes) == (5 * SLICES, SLICES, 2)
    assert [problem for problem in check_dataset(dataset, workers=1) if problem.level == "error"] == []
    write_splits(dataset, 3)
    result = train(dataset, tmp_path / "run", recipe="debug", labels=3, changes=quick, device="cpu")
    assert result.finished
    segment(tmp_path / "run", dataset / "volumes/test/images", tmp_path / "a", steps=1, device="cpu")
    segment(tmp_path / "run", test / "images", tmp_path / "b", steps=1, device="cpu")
    rows = [read_rows(tmp_path / name / "segmentation.csv") for name in "ab"]
    assert [row["stem"] for row in rows[0]] == [row["stem"] for row in rows[1]] == ["q0", "q1"]
    scored = evaluate(tmp_path / "a", dataset / "volumes/test/labels", metric="dice")
    # The masks as the user has them: other values, and for q0 and q1 another stored order.
    own = evaluate(tmp_path / "b", test / "labels", metric="dice", mapping=[0, 1, 0], classes=["background", "liver"])
    assert scored.n == 2 and scored.classes == own.classes and list(scored.classes) == ["background", "liver"]


def test_test_volumes_keep_their_geometry_and_get_the_classes(tmp_path):
    for number in range(3):
        put(tmp_path, f"p{number}", number)
    put(tmp_path / "test", "q", 8, mask_value=3)  # 3 and 6 are nowhere in the training masks
    options = {"test_images": tmp_path / "test/images", "test_labels": tmp_path / "test/labels"}
    assert "3 in" in refusal(tmp_path, **options) and "test/labels/q.nii.gz" in refusal(tmp_path, **options)
    prepare(tmp_path, **options, mapping={0: 0, 1: 1, 2: "ignore", 3: 1, 6: "ignore"})
    place = tmp_path / "dataset/volumes/test"
    volume, labels = read_volume(place / "images/q.nii.gz"), read_label_volume(place / "labels/q.nii.gz")
    values, mask = abdomen(8, SLICES)
    assert np.array_equal(volume.values, values) and np.allclose(volume.affine, LPS)
    assert np.array_equal(labels.values, np.array([0, 1, 255])[mask])
    guess = tmp_path / "guess"
    guess.mkdir()
    save(guess / "q.nii.gz", (mask > 0).astype(np.uint8), LPS)
    assert evaluate(guess, place / "labels", metric="dice").mean == 1  # the dataset says what 255 means


def test_all_problems_are_told_at_once_and_nothing_is_written(tmp_path):
    for number in range(5):
        put(tmp_path, f"p{number}", number)
    labels = tmp_path / "labels"
    moved = LPS.copy()
    moved[2, 3] += 3
    save(labels / "p0.nii.gz", abdomen(0, SLICES)[1], moved)
    save(labels / "p1.nii.gz", abdomen(1, SLICES)[1][:-1], LPS)
    whole = (tmp_path / "images/p2.nii.gz").read_bytes()
    (tmp_path / "images/p2.nii.gz").write_bytes(whole[: len(whole) // 2])
    (labels / "p3.nii.gz").unlink()
    save(labels / "lonely.nii.gz", abdomen(3, SLICES)[1], LPS)
    put_dicom(tmp_path, "cut", 6)
    sorted((tmp_path / "images/cut").iterdir())[0].unlink()
    save_picture(tmp_path / "images/cut", "photo", picture(1))
    message = refusal(tmp_path)
    for part in (
        "p0.nii.gz and ",
        "different places: up to 3 mm",
        "31 x 32 x 4 voxels",
        "p2.nii.gz cannot be read",
        "p3.nii.gz has no mask",
        "lonely.nii.gz has no image",
        "labels/cut.nii.gz has 32 x 32 x 4 voxels but ",
        "images/cut has 32 x 32 x 3",
        "photo.png is a picture",
    ):
        assert part in message, part


def test_ct_and_mri_are_not_trained_on_together(tmp_path):
    put_dicom(tmp_path, "a", 1)
    values, mask = abdomen(2, SLICES)
    files = write_series(tmp_path / "images/b", values.transpose(2, 1, 0), uid="1.9", Modality="MR")
    save(tmp_path / "labels/b.nii.gz", mask, read_series(files).affine)
    assert "ct and mri are to be trained on together" in refusal(tmp_path)


def test_the_command_prepares_volumes(tmp_path, capsys):
    from semgan import cli

    for number in range(3):
        put(tmp_path, f"p{number}", number)
    folders = ["--images", str(tmp_path / "images"), "--labels", str(tmp_path / "labels")]
    with pytest.raises(SystemExit) as left:
        cli.main(["data", "prepare", "folder", *folders, "-o", str(tmp_path / "d"), "--workers", "1", "--json"])
    assert left.value.code == 0 and json.loads(capsys.readouterr().out)["labelled"] == 3 * SLICES
    assert read_json(tmp_path / "d/splits.json") == {"labels_counted_in": "patient"}


# ---------------------------------------------------------------- DICOM SEG


def test_a_seg_that_does_not_fit_is_one_clear_error(tmp_path):
    pytest.importorskip("highdicom")
    import pydicom

    volume, mask = put_dicom(tmp_path, "scan", 1, seg=True)
    file = tmp_path / "labels/scan-by-anna.dcm"
    assert np.array_equal(read_dicom_seg(file, volume), mask)
    other, _ = put_dicom(tmp_path / "other", "scan", 2)
    shifted = type(volume)(other.values, other.affine, frames=other.frames, positions=other.positions + (0, 0, 1))
    with pytest.raises(ValueError, match="no slices of its series"):
        read_dicom_seg(file, shifted)

    def with_changes(change):
        data = pydicom.dcmread(file)
        change(data)
        data.save_as(tmp_path / "changed.dcm")
        return tmp_path / "changed.dcm"

    with pytest.raises(ValueError, match="FRACTIONAL; expected BINARY"):
        read_dicom_seg(with_changes(lambda data: setattr(data, "SegmentationType", "FRACTIONAL")), volume)
    with pytest.raises(ValueError, match=r"changed.dcm cannot be read"):
        read_dicom_seg(with_changes(lambda data: setattr(data, "PixelData", b"\0" * 10)), volume)

    def overlapping(data):
        data.PixelData = b"\xff" * len(data.PixelData)

    with pytest.raises(ValueError, match="segments overlap"):
        read_dicom_seg(with_changes(overlapping), volume)
