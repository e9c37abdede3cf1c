"""LiTS and CHAOS, as tiny replicas: slices to train on, whole volumes to test on, budgets in volumes, and all verbs."""

import shutil

import nibabel
import numpy as np
import pytest
import torch
from liver_replicas import SIZE, abdomen, organs, write_chaos, write_lits, write_mr
from plain_folders import files_below
from raw_replicas import put
from volume_files import save

import semgan
from semgan.artifacts import read_json
from semgan.config import Preprocessing
from semgan.data.check import check_dataset
from semgan.data.folder import Dataset
from semgan.data.nifti import read_label_volume, read_volume
from semgan.data.phantoms.abdomen_scans import CHAOS_GREY
from semgan.data.prepare.tasks import TASKS, prepare_task
from semgan.data.readers import read_image_files, read_label
from semgan.data.splits import write_splits
from semgan.data.transforms import preprocess
from semgan.evaluate import evaluate
from semgan.recipes import load as load_recipe
from semgan.segment import read_rows, segment
from semgan.train import train


def prepare(folders, out, **options):
    report = prepare_task("liver", folders, out, workers=1, **options)
    assert [problem for problem in check_dataset(out, workers=1) if problem.level == "error"] == []
    return report


def refusal(folders, root, **options) -> str:
    before = files_below(root)
    with pytest.raises(ValueError) as error:
        prepare_task("liver", folders, root / "out", workers=1, **options)
    assert files_below(root) == before
    return str(error.value)


def patients(cases):
    return {case.group for case in cases}


@pytest.fixture(scope="module")
def livers(tmp_path_factory):
    """(report, dataset folder) of LiTS and CHAOS in one command."""
    root = tmp_path_factory.mktemp("livers")
    return prepare([write_chaos(root), write_lits(root, 12)], root / "out"), root / "out"


def test_sets_are_counted_in_volumes(livers):
    report, _ = livers
    assert {found.name: (found.role, found.images) for found in report.collections} == {
        "lits": ("train", 12), "lits-test": ("unlabelled", 2), "chaos-in": ("test", 2), "chaos-out": ("test", 2),
    }  # fmt: skip
    assert report.sets == {"train": 11, "validation": 0, "test": 1, "test_elsewhere": 4, "unlabelled": 2}
    assert report.unit == "volumes" and report.dataset.classes == ("background", "liver")
    assert report.dataset.labelled == 12 * 4 and report.dataset.unlabelled == 2 * 4


def test_labelled_lists_are_whole_volumes_nested_and_seeded(livers):
    _, out = livers
    dataset = Dataset.open(out)
    eight, other, all_of_them = (dataset.cases(f"labelled_{name}") for name in ("8_seed0", "8_seed1", "11_seed0"))
    assert len(patients(eight)) == 8 and len(eight) == 8 * 4
    assert patients(eight) < patients(all_of_them) == patients(dataset.cases("train"))
    assert patients(other) != patients(eight)
    assert not patients(all_of_them) & patients(dataset.cases("test"))
    assert len(patients(dataset.unlabelled(8, 0))) == 11 - 8 + 2


def test_further_lists_are_counted_in_volumes_too(livers, tmp_path):
    out = shutil.copytree(livers[1], tmp_path / "out")
    lists = write_splits(out, 3, 0)
    assert len(lists["labelled_3_seed0"]) == 3 * 4 and set(lists["labelled_3_seed0"]) < set(lists["labelled_8_seed0"])
    with pytest.raises(ValueError, match="12 labelled cases were asked for and .* has 11"):
        write_splits(out, 12, 0)
    assert not [problem for problem in check_dataset(out, workers=1) if problem.level == "error"]
    (out / "manifest.csv").unlink()
    assert any("counted in 'patient'" in problem.message for problem in check_dataset(out, workers=1))


@pytest.mark.parametrize(("number", "upside_down"), [(0, False), (1, True)])
def test_slices_hold_hounsfield_units_upwards_and_the_liver_without_tumour(livers, number, upside_down):
    _, out = livers
    values, mask = abdomen(number, 4)
    if upside_down:  # stored from top to bottom, right to left
        values, mask = values[::-1, :, ::-1], mask[::-1, :, ::-1]
    for k in range(4):
        stem = f"lits-{number:03d}__{k:04d}"
        image = read_image_files(out / f"imagesTr/{stem}_0000.tif")
        assert image.min() < 0 and np.array_equal(image, values[..., k].T)
        assert np.array_equal(read_label(out / f"labelsTr/{stem}.tif"), mask[..., k].T == 1)


def test_test_volumes_stay_whole_and_keep_their_geometry(livers):
    _, out = livers
    (image,) = (out / "volumes/lits/images").iterdir()
    number = int(image.name.removeprefix("lits-").removesuffix(".nii.gz"))
    values, mask = abdomen(number, 4)
    volume, labels = read_volume(image), read_label_volume(out / "volumes/lits/labels" / image.name)
    assert volume.values.dtype == np.int16 and np.array_equal(volume.values, values)
    assert np.array_equal(labels.values, mask == 1) and np.allclose(labels.affine, volume.affine)
    assert patients(Dataset.open(out).cases("test")) == {f"lits-{number:03d}"}


@pytest.mark.parametrize(("phase", "divisor"), [("in", 1), ("out", 2)])
def test_every_slice_of_chaos_has_the_mask_of_its_number(livers, phase, divisor):
    _, out = livers
    values, grey = organs(13, 5)
    stem = f"volumes/chaos-{phase}/{{}}/chaos-mr-13-{phase}.nii.gz"
    volume, labels = read_volume(out / stem.format("images")), read_label_volume(out / stem.format("labels"))
    upwards = slice(None, None, -1)  # files run from top to bottom
    assert np.array_equal(volume.slices, values[upwards] // divisor)
    assert np.array_equal(labels.slices, grey[upwards] == CHAOS_GREY["liver"])
    assert np.allclose(volume.spacing_mm, (1.4, 1.5, 6.0)) and np.allclose(volume.affine, labels.affine)


def test_a_slice_is_preprocessed_in_training_as_in_its_volume(livers):
    _, out = livers
    rule = Preprocessing(size_px=16, clip=(-200, 400))
    (file,) = (out / "volumes/lits/images").iterdir()
    for k, pixels in enumerate(read_volume(file).slices):
        stem = file.name.removesuffix(".nii.gz")
        stored = read_image_files(out / f"imagesTr/{stem}__{k:04d}_0000.tif")
        assert np.array_equal(preprocess(stored, rule), preprocess(pixels, rule))


def test_lits_goes_through_all_verbs(tmp_path, quick):
    prepare([write_lits(tmp_path, 12, 1), write_chaos(tmp_path, (1,), 3)], tmp_path / "out")
    liver = ["modalities=[ct, mri]", "preprocessing.clip=[-200, 400]", "inversion.lambda_pixel_mri=1000"]
    changes = [*quick, *liver]
    result = train(tmp_path / "out", tmp_path / "run", recipe="debug", labels=8, changes=changes, device="cpu")
    assert result.finished
    for collection, modality in (("lits", "ct"), ("chaos-in", "mri")):
        volumes = tmp_path / "out/volumes" / collection
        masks = tmp_path / f"masks-{collection}"
        segment(tmp_path / "run", volumes / "images", masks, steps=1, modality=modality, device="cpu")
        assert len(read_rows(masks / "segmentation.csv")) == 1
        scored = evaluate(masks, volumes / "labels", metric="dice")
        assert scored.n == 1 and 0 <= scored.mean <= 1
    model = semgan.load(tmp_path / "run", device="cpu")
    image = model.preprocess(abdomen(0, 4)[0][..., 2], "ct")[None]
    found = {name: model.segment_batch(image, steps=1, modality=name).w_plus for name in ("default", "ct", "mri")}
    assert torch.equal(found["ct"], found["default"]) and not torch.equal(found["mri"], found["default"])


def test_the_protocol_is_the_papers():
    task = TASKS["liver"]
    assert task.protocol.budgets == (8, 20, 118) and task.protocol.metric == "dice"
    assert round(131 * task.test_share) == task.most_test == 13
    recipe = load_recipe("liver-ct")
    assert (recipe.inversion.lambda_pixel, recipe.inversion.lambda_pixel_mri) == (0.001, 1e-5)


def test_gzipped_scaled_and_fractional_volumes_keep_their_units(tmp_path):
    folder = write_lits(tmp_path, 3, 0, suffix=".nii.gz")
    values, _ = abdomen(0, 4)
    image = nibabel.Nifti1Image((values + 1024).astype(np.int16), np.diag([-0.8, -0.7, 2.5, 1]))
    image.header.set_slope_inter(1, -1024)
    nibabel.save(image, folder / "Training Batch 1/volume-0.nii.gz")
    halves = abdomen(1, 4)[0] / np.float32(2)
    save(folder / "Training Batch 2/volume-1.nii.gz", halves, np.diag([0.8, -0.7, -2.5, 1]))
    prepare([folder], tmp_path / "out")
    assert np.array_equal(read_image_files(tmp_path / "out/imagesTr/lits-000__0002_0000.tif"), values[..., 2].T)
    fractions = read_image_files(tmp_path / "out/imagesTr/lits-001__0001_0000.tif")
    assert fractions.dtype == np.float32 and np.array_equal(fractions, halves[::-1, :, 2].T)


def test_several_processes_make_the_same_dataset(tmp_path):
    folder = write_lits(tmp_path, 5, 1)
    digests = []
    for workers in (1, 2):
        prepare_task("liver", [folder], tmp_path / f"out{workers}", workers=workers)
        digests.append(read_json(tmp_path / f"out{workers}/dataset.json")["semgan"]["content_sha256"])
    assert digests[0] == digests[1]
    assert prepare_task("liver", [folder], tmp_path / "out2", workers=1).dataset.was_already_prepared


def test_a_mask_of_lits_that_says_it_lies_elsewhere_is_taken_with_a_warning(tmp_path):
    folder = write_lits(tmp_path, 3, 0)
    _, mask = abdomen(0, 4)
    save(folder / "Training Batch 1/segmentation-0.nii", mask, np.eye(4))
    report = prepare([folder], tmp_path / "out")
    assert any("segmentation-0.nii says that it lies elsewhere" in warning for warning in report.dataset.warnings)
    assert np.array_equal(read_label(tmp_path / "out/labelsTr/lits-000__0003.tif"), mask[..., 3].T == 1)


def test_all_broken_volumes_are_told_once_each(tmp_path):
    folder = write_lits(tmp_path, 6, 1)
    batch = folder / "Training Batch 1"
    _, mask = abdomen(0, 4)
    save(batch / "segmentation-0.nii", mask[:-1], np.eye(4))
    save(batch / "segmentation-2.nii", mask * 3, np.diag([-0.8, -0.7, 2.5, 1]))
    whole = (batch / "volume-4.nii").read_bytes()
    (batch / "volume-4.nii").write_bytes(whole[: len(whole) // 2])
    (folder / "LITS-Challenge-Test-Data/test-volume-0.nii").write_bytes(b"no volume")
    message = refusal([folder], tmp_path)
    assert "4 problem(s)" in message
    assert "segmentation-0.nii has 31 x 32 x 4 voxels" in message
    assert "segmentation-2.nii holds the values [3" in message
    assert "volume-4.nii cannot be read" in message and "test-volume-0.nii cannot be read" in message


def test_masks_of_chaos_must_fit_its_slices(tmp_path):
    folder = write_chaos(tmp_path, (1, 2, 3))
    place = folder / "Train_Sets/MR"
    (place / "1/T1DUAL/Ground/IMG-0004-00004.png").unlink()
    put(place / "2/T1DUAL/Ground/IMG-0004-00004.png", np.zeros((SIZE, SIZE - 1), np.uint8))
    for k in range(5):
        shifted = place / f"3/T1DUAL/DICOM_anon/OutPhase/IMG-0004-{2 * k + 1:05d}.dcm"
        write_mr(shifted, np.ones((SIZE, SIZE), np.uint16), 300 - 6.0 * k)
    message = refusal([folder, write_lits(tmp_path, 3, 0)], tmp_path)
    assert "holds 5 slices, InPhase 5 and" in message and "4 masks" in message
    assert "IMG-0004-00004.png is 31x32 px and its slice 32x32 px" in message
    assert "OutPhase lies elsewhere than" in message


def test_what_has_no_partner_is_left_out_and_counted(tmp_path):
    folder = write_lits(tmp_path, 4, 0)
    (folder / "Training Batch 1/segmentation-0.nii").unlink()
    chaos = write_chaos(tmp_path, (1, 2))
    shutil.rmtree(chaos / "Train_Sets/MR/2/T1DUAL/Ground")  # as in the challenge's test sets
    report = prepare([folder, chaos], tmp_path / "out")
    left_out = {found.name: found.left_out for found in report.collections}
    assert left_out["lits"] == {"volumes without mask": 1}
    assert left_out["chaos-in"] == left_out["chaos-out"] == {"series without masks": 1}


def test_ct_and_mri_are_not_trained_on_together_but_either_alone_is(tmp_path):
    folders = [write_lits(tmp_path, 3, 1), write_chaos(tmp_path, (1, 2, 3))]
    assert "ct and mri are to be trained on together" in refusal(folders, tmp_path, roles={"chaos-in": "train"})
    report = prepare(folders[1:], tmp_path / "out", roles={"chaos-in": "train"})
    assert report.sets == {"train": 3, "validation": 0, "test": 0, "test_elsewhere": 3, "unlabelled": 0}
