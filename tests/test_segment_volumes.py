"""Volumes through the verb: masks of the same geometry, millilitres, and batches with broken studies."""

import csv
import json
import logging
import sys

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from dicom_files import header, with_pixels, write_multi_frame, write_series
from PIL import Image
from volume_files import ORIENTATIONS, oblique, save, stored_as

import semgan
from semgan import artifacts, cli
from semgan.config import Preprocessing
from semgan.data.dicom_seg import read_dicom_seg
from semgan.data.studies import Study, find_studies, holds_volumes
from semgan.data.transforms import preprocess, to_unit
from semgan.data.tree import WRITTEN
from semgan.data.volumes import axial_spacing_mm
from semgan.evaluate import evaluate
from semgan.segment import read_rows, segment
from semgan.segment_volumes import read_problems
from semgan.types import LabelSpace, Segmentation


class Liver:
    """Bright is liver; the rule says what bright is."""

    labels = LabelSpace(("background", "liver"))
    rules = {
        "default": Preprocessing(size_px=32),
        "ct": Preprocessing(size_px=32, clip=(-200, 400)),
        "mri": Preprocessing(size_px=32, clip_percentiles=(0.1, 99.9)),
    }

    def __init__(self):
        self.batches, self.used, self.stop_after = [], [], None

    def preprocess(self, image, modality="default"):
        if modality not in self.rules:
            raise ValueError(f"No preprocessing for modality '{modality}'.")
        self.used.append(modality)
        return to_unit(torch.from_numpy(preprocess(image, self.rules[modality])))

    def segment_batch(self, image, *, steps=None, snapshot_steps=(), modality="default"):
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(image))
        foreground = torch.sigmoid(20 * image.mean(1, keepdim=True))
        found = torch.cat([1 - foreground, foreground], 1)
        return Segmentation(found, found.amax(1).mean((1, 2)), trace={"loss": torch.full((1, len(image)), 2.0)})


def organ(shape=(32, 32, 5)):
    """HU stored right to left, back to front, upwards; a bright block that is not symmetric, and where it is."""
    values = np.full(shape, -900, np.int16)
    where = np.zeros(shape, bool)
    where[4:12, 8:28, 1:4] = True
    values[where] = 150
    values[0, 0, :] = 150  # every slice has some, for its own range
    where[0, 0, :] = True
    return values, where


@pytest.fixture
def model_folder(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    artifacts.save_model(folder, {"method": "liver"}, {}, "card")
    loaded = []

    def load(path, device="auto"):
        loaded.append(Liver())
        loaded[-1].stop_after = load.stop_after
        return loaded[-1]

    load.stop_after = None
    monkeypatch.setattr(semgan, "load", load, raising=False)
    return folder, load, loaded


@pytest.mark.parametrize("codes", ORIENTATIONS[::5])
def test_a_mask_lies_where_the_organ_lies_in_any_orientation(tmp_path, codes):
    values, where = organ()
    turned, affine = stored_as(values, oblique(), codes)
    save(tmp_path / "ct.nii.gz", turned, affine)
    (row,) = segment(Liver(), tmp_path / "ct.nii.gz", tmp_path / "out")
    mask = nibabel.load(tmp_path / "out" / "ct.nii.gz")
    assert np.array_equal(mask.dataobj, stored_as(where, oblique(), codes)[0])
    assert np.array_equal(mask.affine, nibabel.load(tmp_path / "ct.nii.gz").affine)
    assert row["stem"] == "ct" and row["slices"] == 5 and row["loss"] == 2
    assert row["ml_liver"] == pytest.approx(where.sum() * 0.7 * 0.8 * 2.5 / 1000, abs=1e-3)
    assert read_rows(tmp_path / "out" / "segmentation.csv") == [row]


def test_a_dicom_series_gives_a_nifti_in_the_same_place(tmp_path):
    values, where = organ()
    pictures = values.transpose(2, 1, 0)
    write_series(tmp_path / "scan", pictures, order=[3, 1, 4, 0, 2])
    (row,) = segment(Liver(), tmp_path / "scan", tmp_path / "out", modality="auto")
    mask = nibabel.load(tmp_path / "out" / "scan.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), where)
    # The first voxel of the lowest slice: (-50, -40, 100) in DICOM's LPS.
    assert np.allclose(mask.affine @ (0, 0, 0, 1), (50, 40, 100, 1))
    assert nibabel.aff2axcodes(mask.affine) == ("L", "P", "S")
    assert row["ml_liver"] == pytest.approx(where.sum() * 0.8 * 0.7 * 2.5 / 1000, abs=1e-3)


def test_results_do_not_depend_on_the_batch(tmp_path):
    save(tmp_path / "ct.nii.gz", organ()[0], oblique())
    model = Liver()
    segment(model, tmp_path / "ct.nii.gz", tmp_path / "a", batch=2)
    segment(Liver(), tmp_path / "ct.nii.gz", tmp_path / "b")
    assert model.batches == [2, 2, 1]
    assert (tmp_path / "a" / "ct.nii.gz").read_bytes() == (tmp_path / "b" / "ct.nii.gz").read_bytes()


def used(path, tmp_path, **options):
    model = Liver()
    segment(model, path, tmp_path / "out", **options)
    return set(model.used[1:])  # the first one is the check of the options


def test_auto_takes_the_rule_of_the_file_or_of_its_values(tmp_path, caplog):
    values, _ = organ()
    write_series(tmp_path / "mr", values.transpose(2, 1, 0) + 1000, Modality="MR")
    save(tmp_path / "ct.nii.gz", values, oblique())
    save(tmp_path / "mri.nii.gz", values + 900, oblique())
    save(tmp_path / "doubtful.nii.gz", (values // 10).astype(np.int16), oblique())
    outs = [tmp_path / str(number) for number in range(4)]
    assert used(tmp_path / "mr", outs[0], modality="auto") == {"mri"}
    assert used(tmp_path / "ct.nii.gz", outs[1], modality="auto") == {"ct"}
    assert "taken for MRI" not in caplog.text
    assert used(tmp_path / "mri.nii.gz", outs[2], modality="auto") == {"mri"}
    assert "taken for MRI (mri). Where they are CT whose values begin at 0" in caplog.text
    assert used(tmp_path / "mr", outs[0] / "named", modality="ct") == {"ct"}
    assert used(tmp_path / "mr", outs[0] / "plain") == {"default"}
    with pytest.raises(ValueError, match="begin at -90, so it may be CT or MRI; say which with --modality"):
        segment(Liver(), tmp_path / "doubtful.nii.gz", outs[3], modality="auto")
    with pytest.raises(ValueError, match="^No preprocessing for modality 'pet'"):
        segment(Liver(), tmp_path / "ct.nii.gz", outs[3], modality="pet")


def allocate_too_much():
    torch.empty(2**60, dtype=torch.uint8)


def raise_memory_error():
    raise MemoryError


@pytest.mark.parametrize("ask", [raise_memory_error, allocate_too_much])
def test_a_volume_that_memory_cannot_hold_is_reported_and_the_rest_goes_on(tmp_path, monkeypatch, ask):
    values, _ = organ()
    (tmp_path / "in").mkdir()
    for stem in ("anna", "bert"):
        save(tmp_path / "in" / f"{stem}.nii.gz", values, oblique())
    read = Study.read

    def scarce(study):
        if study.stem == "anna":
            ask()
        return read(study)

    monkeypatch.setattr(Study, "read", scarce)
    rows = segment(Liver(), tmp_path / "in", tmp_path / "out")
    assert [row["stem"] for row in rows] == ["bert"]
    assert "more memory than there is" in read_problems(tmp_path / "out")["anna"]


def test_another_fault_while_a_volume_is_segmented_is_not_taken_for_memory(tmp_path, monkeypatch):
    save(tmp_path / "a.nii.gz", organ()[0], oblique())
    monkeypatch.setattr(Study, "read", lambda study: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        segment(Liver(), tmp_path / "a.nii.gz", tmp_path / "out")


def test_dicom_seg_is_the_same_mask_on_the_same_images(tmp_path):
    highdicom = pytest.importorskip("highdicom")
    values, where = organ()
    pictures = values.transpose(2, 1, 0)
    files = write_series(tmp_path / "in" / "single", pictures, order=[3, 1, 4, 0, 2])
    write_multi_frame(tmp_path / "in" / "multi" / "x.dcm", pictures)
    assert len(segment(Liver(), tmp_path / "in", tmp_path / "out", dicom_seg=True)) == 2
    for name, shown in (("single", files), ("multi", None)):
        found = highdicom.seg.segread(tmp_path / "out" / f"{name}.dcm")
        assert [one.SegmentLabel for one in found.SegmentSequence] == ["liver"]
        positions = [
            float(group.PlanePositionSequence[0].ImagePositionPatient[2])
            for group in found.PerFrameFunctionalGroupsSequence
        ]
        # A plane lies at 100 + 2.5 k mm; its pixels are the mask of slice k.
        assert sorted(positions) == [100, 102.5, 105, 107.5, 110]
        for height, picture in zip(positions, found.pixel_array, strict=True):
            assert np.array_equal(picture, where[..., round((height - 100) / 2.5)].T), name
        if shown:
            referred = {str(uid) for _, _, uid in found.get_source_image_uids()}
            assert referred == {str(pydicom.dcmread(file).SOPInstanceUID) for file in shown}


def test_dicom_seg_is_made_of_series_with_scanty_headers_and_uneven_slices(tmp_path):
    pytest.importorskip("highdicom")
    values, where = organ()
    positions = np.array([(-50.0, -40.0, height) for height in (0, 2, 4, 7, 10.5)])
    files = write_series(tmp_path / "scan", values.transpose(2, 1, 0), positions=positions, order=[3, 1, 4, 0, 2])
    for path in files:
        data = pydicom.dcmread(path)
        for name in ("SliceThickness", "PatientBirthDate", "PatientSex", "StudyID", "StudyTime", "AccessionNumber"):
            delattr(data, name)
        data.save_as(path)
    segment(Liver(), tmp_path / "scan", tmp_path / "out", dicom_seg=True)
    volume = find_studies(tmp_path / "scan")[0][0].read()
    assert np.array_equal(read_dicom_seg(tmp_path / "out" / "scan.dcm", volume), where)
    found = pydicom.dcmread(tmp_path / "out" / "scan.dcm")
    assert found.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 10.5 / 4


def test_a_dicom_seg_is_made_without_a_word_about_the_patient(tmp_path, recwarn, caplog):
    pytest.importorskip("highdicom")
    secrets = {"PatientName": "Miller", "PatientID": "Q4711"}  # no digits alone: a UID has any of them
    write_series(tmp_path / "scan", organ()[0].transpose(2, 1, 0), **secrets)
    with caplog.at_level(logging.DEBUG):
        segment(Liver(), tmp_path / "scan", tmp_path / "out", dicom_seg=True)
    told = caplog.text + "".join(str(one.message) for one in recwarn)
    assert not [secret for secret in secrets.values() if secret in told]


def test_a_series_without_frame_of_reference_gets_no_seg_and_says_so(tmp_path):
    pytest.importorskip("highdicom")
    for path in write_series(tmp_path / "scan", organ()[0].transpose(2, 1, 0)):
        data = pydicom.dcmread(path)
        del data.FrameOfReferenceUID
        data.save_as(path)
    with pytest.raises(ValueError, match="Frame Of Reference.*leave out --dicom-seg"):
        segment(Liver(), tmp_path / "scan", tmp_path / "out", dicom_seg=True)
    assert not list(tmp_path.glob("out*"))


def test_dicom_files_without_any_slice_are_no_volume(tmp_path):
    scout = header(SeriesInstanceUID="1.2.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    with_pixels(scout, np.zeros((4, 4), np.int16)).save_as(tmp_path / "scout.dcm", enforce_file_format=True)
    with pytest.raises(FileNotFoundError, match="holds no volume: 1 DICOM files, none of which is a slice"):
        segment(Liver(), tmp_path, tmp_path / "out")


def test_dicom_seg_needs_dicom_and_its_package(tmp_path, monkeypatch):
    save(tmp_path / "ct.nii.gz", organ()[0], oblique())
    with pytest.raises(ValueError, match="ct is NIfTI"):
        segment(Liver(), tmp_path / "ct.nii.gz", tmp_path / "out", dicom_seg=True)
    write_series(tmp_path / "scan", organ()[0].transpose(2, 1, 0))
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ValueError, match=r"pip install 'semgan\[dicom\]'"):
        segment(Liver(), tmp_path / "scan", tmp_path / "out", dicom_seg=True)
    assert not list(tmp_path.glob("out*"))


# ---------------------------------------------------------------- many studies


@pytest.fixture
def studies(tmp_path):
    """Two good volumes, one broken, one series with a missing slice, foreign files."""
    root, (values, _) = tmp_path / "studies", organ()
    pictures = values.transpose(2, 1, 0)
    write_series(root / "anna" / "ct", pictures)
    write_series(root / "bert", pictures, uid="1.9")[2].unlink()
    save(root / "carl.nii.gz", values, oblique())
    whole = (root / "carl.nii.gz").read_bytes()
    (root / "dora.nii.gz").write_bytes(whole[: len(whole) // 2])
    (root / "notes.txt").write_text("hello")
    (root / ".hidden.nii.gz").write_text("")
    return root


def test_a_broken_study_is_reported_and_the_rest_goes_on(studies, tmp_path, caplog):
    seen = []
    with caplog.at_level(logging.WARNING):
        rows = segment(
            Liver(), studies, tmp_path / "out", progress=lambda done, total, what: seen.append((done, total, what))
        )
    assert [row["stem"] for row in rows] == ["anna_ct", "carl"]
    problems = read_problems(tmp_path / "out")
    assert list(problems) == ["bert", "dora"]
    assert "1 of 5 slices are missing" in problems["bert"] and "dora.nii.gz cannot be read" in problems["dora"]
    assert "2 of 4 volumes could not be segmented" in caplog.text and "notes.txt" in caplog.text
    assert seen[-1] == (4, 4, "volumes")
    found = {path.name for path in (tmp_path / "out").iterdir()} - {WRITTEN}
    assert found == {"anna_ct.nii.gz", "carl.nii.gz", "segmentation.csv", "segmentation.json", "problems.csv"}


def test_the_command_ends_with_2_and_says_what_was_not_done(studies, tmp_path, model_folder, capsys):
    command = ["segment", "-m", str(model_folder[0]), "-i", str(studies), "-o", str(tmp_path / "out"), "--json"]
    for _ in range(2):  # the second time there is nothing to do, and it still is not all there
        with pytest.raises(SystemExit) as left:
            cli.main(command)
        assert left.value.code == 2
        printed = capsys.readouterr()
        document = json.loads(printed.out)
        assert len(document["rows"]) == 2 and set(document["problems"]) == {"bert", "dora"}
        assert "not segmented: bert" in printed.err and "not segmented: dora" in printed.err
    (tmp_path / "out" / "scores.json").write_text("of the masks of before, as `semgan evaluate` leaves it")
    command[4] = str(studies / "carl.nii.gz")
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--overwrite"])
    assert left.value.code == 0 and not (tmp_path / "out" / "problems.csv").exists()
    assert not (tmp_path / "out" / "scores.json").exists()


def test_problems_of_a_machine_are_not_final(studies, tmp_path, model_folder, caplog):
    """The same command says what to do, and with --overwrite tries again, on a larger machine or a mended file."""
    folder, *_ = model_folder
    segment(folder, studies, tmp_path / "out")
    assert [row["stem"] for row in segment(folder, studies, tmp_path / "out")] == ["anna_ct", "carl"]
    assert "2 volumes could not be read; --overwrite tries all again" in caplog.text
    before = (tmp_path / "out" / "carl.nii.gz").stat().st_mtime_ns
    segment(folder, studies, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "carl.nii.gz").stat().st_mtime_ns > before


def test_nothing_is_written_where_nothing_can_be_read(studies, tmp_path):
    with pytest.raises(ValueError, match=r"(?s)None of 1 volumes.*dora"):
        segment(Liver(), studies / "dora.nii.gz", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_interrupted_work_goes_on_with_the_next_volume(studies, tmp_path, model_folder):
    folder, load, loaded = model_folder
    load.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        segment(folder, studies, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    load.stop_after = None
    rows = segment(folder, studies, tmp_path / "out")
    assert loaded[1].batches == [5] and [row["stem"] for row in rows] == ["anna_ct", "carl"]
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_one_volume_at_a_time_is_in_memory(tmp_path, monkeypatch):
    import weakref

    from semgan.data import studies

    for name in "abc":
        save(tmp_path / f"{name}.nii.gz", organ()[0].astype(np.float32), oblique())
    alive, most, original = weakref.WeakSet(), [], studies.read_volume

    def read(path):
        most.append(len(alive))
        volume = original(path)
        alive.add(volume)
        return volume

    monkeypatch.setattr(studies, "read_volume", read)
    monkeypatch.setattr(studies.Volume, "__hash__", object.__hash__)
    segment(Liver(), tmp_path, tmp_path / "out")
    assert most == [0, 0, 0]


# ---------------------------------------------------------------- probabilities, overlays, progress


class ManyOrgans(Liver):
    """Three classes; the third has what the second leaves of the bright."""

    labels = LabelSpace(("background", "liver", "spleen"))

    def segment_batch(self, image, *, steps=None, snapshot_steps=(), modality="default"):
        dark, bright = super().segment_batch(image, steps=steps).probabilities.unbind(1)
        return Segmentation(torch.stack([dark, 0.75 * bright, 0.25 * bright], 1), torch.ones(len(image)))


@pytest.mark.parametrize(("codes", "model"), [("RAS", Liver), ("LPS", ManyOrgans), ("SRA", Liver), ("PIR", ManyOrgans)])
def test_probabilities_lie_where_the_organ_lies_and_take_a_byte_each(tmp_path, codes, model):
    values, where = organ()
    turned, affine = stored_as(values, oblique(), codes)
    save(tmp_path / "ct.nii.gz", turned, affine)
    segment(model(), tmp_path / "ct.nii.gz", tmp_path / "out", save_probabilities=True)
    mask = nibabel.load(tmp_path / "out" / "ct.nii.gz")
    stored = nibabel.load(tmp_path / "out" / "probabilities" / "ct.nii.gz")
    found = stored.get_fdata()
    assert stored.get_data_dtype() == np.uint8 and np.array_equal(stored.affine, mask.affine)
    place = stored_as(where, oblique(), codes)[0]
    classes = model.labels.classes
    assert found.shape == (*turned.shape, classes) if classes > 2 else turned.shape
    foreground = found[..., 1] + found[..., 2] if classes > 2 else found
    assert (np.abs(foreground[place] - 1) < 0.05).all() and (foreground[~place] < 0.05).all()
    if classes > 2:
        assert np.allclose(found.sum(-1), 1, atol=0.01)
        assert np.array_equal(found.argmax(-1), np.asarray(mask.dataobj))
        assert np.allclose(found[place][:, 1:], (0.75, 0.25), atol=0.02)


def test_a_dicom_series_gets_probabilities_and_an_overlay_in_the_same_place(tmp_path):
    values, where = organ()
    write_series(tmp_path / "scan", values.transpose(2, 1, 0))
    segment(ManyOrgans(), tmp_path / "scan", tmp_path / "out", save_probabilities=True, overlay=True)
    mask, found = (nibabel.load(tmp_path / "out" / name / "scan.nii.gz") for name in (".", "probabilities"))
    assert found.shape == (*where.shape, 3) and np.array_equal(found.affine, mask.affine)
    assert found.header.get_zooms()[:3] == mask.header.get_zooms()
    assert (tmp_path / "out" / "overlays" / "scan.png").is_file()


def test_an_overlay_is_a_sheet_of_slices_as_the_model_sees_them_with_outlines(tmp_path):
    values, where = organ((32, 32, 5))
    values[20, 20, :] = 5000  # beyond the window of CT
    where[20, 20, :] = True
    affine = np.diag([-1.0, -2, 3, 1])  # stored as shown; rows are twice as far apart as columns
    save(tmp_path / "ct.nii.gz", values, affine)
    segment(Liver(), tmp_path / "ct.nii.gz", tmp_path / "out", overlay=True, modality="ct")
    sheet = np.asarray(Image.open(tmp_path / "out" / "overlays" / "ct.png"))
    assert sheet.shape == (14 + 256, 5 * 128, 3)
    tiles = np.split(sheet[14:], 5, axis=1)
    grey = [(tile == tile[..., :1]).all(-1) for tile in tiles]
    inside = (8 * 8 + 20, 4 * 4 + 16)  # in the block, away from its border: 150 HU of -200 to 400
    assert grey[2][inside] and tiles[2][inside][0] == round(255 * 350 / 600)
    border = 8 * 8, slice(4 * 4, 12 * 4)
    assert not grey[2][border].any() and grey[2][8 * 8 + 1, 4 * 4 + 1 : 12 * 4 - 1].all()
    assert grey[0][border].all() and tiles[0][border].max() == 0  # no block in slice 0


def test_a_sheet_shows_at_most_24_slices_from_the_first_to_the_last(tmp_path):
    save(tmp_path / "ct.nii.gz", organ((16, 16, 40))[0], np.diag([-1.0, -1, 1, 1]))
    segment(Liver(), tmp_path / "ct.nii.gz", tmp_path / "out", overlay=True)
    with Image.open(tmp_path / "out" / "overlays" / "ct.png") as sheet:
        assert sheet.size == (6 * 256, 4 * (256 + 14))


def test_rows_and_columns_keep_their_distances_in_every_orientation():
    for codes in ORIENTATIONS:
        affine = stored_as(organ()[0], oblique(), codes)[1]
        assert axial_spacing_mm(affine) == pytest.approx((0.8, 0.7)), codes


def test_progress_counts_slices_of_all_volumes(studies, tmp_path, model_folder):
    seen = []

    def progress(done, total, what):
        seen.append((done, total, what))

    folder, load, _ = model_folder
    load.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        segment(folder, studies, tmp_path / "out", batch=4, progress=progress)
    # anna and carl have 5 slices each; the others cannot be read.
    assert seen[:6] == [(number + 1, 10, "slices") for number in range(5)] + [(5, 10, "slices")]
    load.stop_after = None
    seen.clear()
    segment(folder, studies, tmp_path / "out", batch=4, progress=progress)
    assert seen[0] == (5, 10, "slices") and (6, 10, "slices") in seen
    assert seen[-2:] == [(10, 10, "slices"), (4, 4, "volumes")]


# ---------------------------------------------------------------- which volumes


def test_series_in_one_folder_get_their_numbers_and_nnunet_names_lose_theirs(tmp_path):
    pictures = organ()[0].transpose(2, 1, 0)
    for number, uid in ((3, "1.3"), (12, "1.12")):
        for path in write_series(tmp_path / "t" / "tmp", pictures, uid=uid, number=number):
            path.rename(tmp_path / "t" / f"{number}-{path.name}")
    (tmp_path / "t" / "tmp").rmdir()
    found, others = find_studies(tmp_path / "t")
    assert [study.stem for study in found] == ["t_12", "t_3"] and not others
    assert [len(study.files) for study in found] == [5, 5]
    (tmp_path / "n").mkdir()
    for name in ("a_0000.nii.gz", "b_0000.nii"):
        save(tmp_path / "n" / name, organ()[0], oblique())
    assert [study.stem for study in find_studies(tmp_path / "n")[0]] == ["a", "b"]
    assert [study.stem for study in find_studies(tmp_path / "n" / "b_0000.nii")[0]] == ["b"]
    save(tmp_path / "n" / "a_0000.nii", organ()[0], oblique())
    with pytest.raises(ValueError, match=r"a_0000.nii and .*a_0000.nii.gz would both|a_0000.nii.gz and .*a_0000.nii "):
        find_studies(tmp_path / "n")


def test_folders_of_pictures_are_no_volumes_and_a_mixture_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a" / "x.png")
    save(tmp_path / "ct.nii.gz", organ()[0], oblique())
    assert not holds_volumes(tmp_path / "a") and not holds_volumes(tmp_path / "a" / "x.png")
    assert holds_volumes(tmp_path) and not holds_volumes(tmp_path / "nowhere")
    save(tmp_path / "a" / "ct.nii.gz", organ()[0], oblique())
    with pytest.raises(ValueError, match="pictures .x.png. and volumes .ct.nii.gz."):
        holds_volumes(tmp_path / "a")


# ---------------------------------------------------------------- scores


def test_a_volume_is_one_case_scored_over_all_its_slices(tmp_path):
    values, where = organ()
    (tmp_path / "ct").mkdir()
    for name in ("one", "two"):
        save(tmp_path / "ct" / f"{name}.nii.gz", values, oblique())
    segment(Liver(), tmp_path / "ct", tmp_path / "out")
    truth = where.copy()
    truth[4:8, :, 2] = False  # one slice has half its organ; another none
    truth[:, :, 1] = False
    (tmp_path / "labels").mkdir()
    save(tmp_path / "labels" / "one.nii.gz", truth.astype(np.int16), oblique())
    save(tmp_path / "labels" / "two.nii.gz", where.astype(np.uint8), oblique())
    result = evaluate(tmp_path / "out", tmp_path / "labels", metric="dice")
    expected = 2 * (truth & where).sum() / (truth.sum() + where.sum())
    assert result.n == 2 and result.mean == pytest.approx((expected + 1) / 2)
    with open(tmp_path / "out" / "cases.csv") as file:
        rows = [row for row in csv.DictReader(file) if row["class"] == "foreground"]
    assert [row["stem"] for row in rows] == ["one", "two"] and int(rows[0]["truth"]) == truth.sum()


def test_a_mask_stored_in_another_order_is_scored_voxel_by_voxel(tmp_path):
    values, where = organ()
    save(tmp_path / "ct.nii.gz", values, oblique())
    segment(Liver(), tmp_path / "ct.nii.gz", tmp_path / "out")
    (tmp_path / "labels").mkdir()
    save(tmp_path / "labels" / "ct.nii.gz", *stored_as(where.astype(np.uint8), oblique(), "SPL"))
    result = evaluate(tmp_path / "out", tmp_path / "labels", metric="dice", surface=True)
    assert result.mean == 1 and result.surface["hd95_mm"].mean == 0


def test_surfaces_of_sheared_volumes_need_a_spacing(tmp_path):
    sheared = oblique()
    sheared[:3, 2] += (0, 0.6, 0)
    for folder in ("out", "labels"):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "one.nii.gz", organ()[1].astype(np.uint8), sheared)
    folders = tmp_path / "out", tmp_path / "labels"
    assert evaluate(*folders, metric="dice").mean == 1
    with pytest.raises(ValueError, match="tilted gantry.*--spacing-mm"):
        evaluate(*folders, metric="dice", surface=True)
    assert evaluate(*folders, metric="dice", surface=True, spacing_mm=[0.7, 0.8, 2.5]).surface["hd95_mm"].mean == 0


def test_masks_in_another_place_are_not_scored(tmp_path):
    values, where = organ()
    for folder, affine in (("out", oblique()), ("labels", oblique((12, -8, 21)))):
        (tmp_path / folder).mkdir()
        save(tmp_path / folder / "one.nii.gz", where.astype(np.uint8), affine)
    with pytest.raises(ValueError, match="lie in different places"):
        evaluate(tmp_path / "out", tmp_path / "labels", metric="dice")
