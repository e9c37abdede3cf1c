import json
import os

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image
from plain_folders import files_below, mask, picture, save, write_pairs, write_unlabelled

from semgan.config import Preprocessing
from semgan.data import parallel
from semgan.data.check import check_dataset
from semgan.data.folder import Dataset
from semgan.data.loading import load_label
from semgan.data.prepare import requests
from semgan.data.prepare.folder import prepare_folder
from semgan.data.readers import read_image_files, read_label


def prepare(root, **options):
    return prepare_folder(root / "images", root / "labels", root / "out", **{"workers": 1, **options})


def refusal(root, **options) -> str:
    """The message; after it nothing of the dataset may lie around."""
    before = files_below(root)
    with pytest.raises(ValueError) as error:
        prepare(root, **options)
    assert files_below(root) == before
    return str(error.value)


def test_a_dataset_folder_has_nnunets_layout_and_the_same_pixels(tmp_path):
    write_pairs(tmp_path, 3)
    extra = write_unlabelled(tmp_path, 2)
    save(tmp_path / "test/images", "far", picture(50))
    save(tmp_path / "test/labels", "far", mask(50))
    report = prepare(
        tmp_path, unlabelled=extra, test_images=tmp_path / "test/images", test_labels=tmp_path / "test/labels"
    )
    out = tmp_path / "out"
    assert files_below(out) == {
        "dataset.json", "imagesTr", "labelsTr", "imagesTs", "labelsTs", "imagesUn",
        *(f"imagesTr/case_{n}_0000.png" for n in range(3)), *(f"labelsTr/case_{n}.png" for n in range(3)),
        *(f"imagesUn/extra_{n}_0000.png" for n in range(2)), "imagesTs/far_0000.png", "labelsTs/far.png",
    }  # fmt: skip
    content = json.loads((out / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "foreground": 1} and content["channel_names"] == {"0": "grey"}
    assert content["numTraining"] == 3 and content["file_ending"] == ".png"
    assert (report.labelled, report.test, report.unlabelled, report.channels) == (3, 1, 2, 1)
    for number in range(3):
        assert np.array_equal(read_image_files(out / f"imagesTr/case_{number}_0000.png"), picture(number))
        assert np.array_equal(read_label(out / f"labelsTr/case_{number}.png"), mask(number))
    assert check_dataset(out) == []


def test_the_same_call_again_finds_its_work_done_and_other_content_is_left_alone(tmp_path):
    write_pairs(tmp_path, 3)
    first = prepare(tmp_path)
    stamp = (tmp_path / "out/dataset.json").stat().st_mtime_ns
    assert not first.was_already_prepared and prepare(tmp_path).was_already_prepared
    assert (tmp_path / "out/dataset.json").stat().st_mtime_ns == stamp
    save(tmp_path / "images", "case_0", picture(77))
    with pytest.raises(FileExistsError, match="other content.*-o"):
        prepare(tmp_path)


def copied(tmp_path, later_s=1000):
    """The same files with other dates, as after a new download."""
    for path in (tmp_path / "images", tmp_path / "labels"):
        for file in path.iterdir():
            os.utime(file, ns=(0, file.stat().st_mtime_ns + later_s * 10**9))


def test_a_copy_of_the_files_with_other_dates_is_the_same_and_compared_only_once(tmp_path, monkeypatch):
    write_pairs(tmp_path, 3)
    prepare(tmp_path)
    before = files_below(tmp_path / "out"), Dataset.open(tmp_path / "out").fingerprint
    copied(tmp_path)
    assert prepare(tmp_path).was_already_prepared
    monkeypatch.setattr(requests, "contents_of", lambda files: pytest.fail("files were read again"))
    assert prepare(tmp_path).was_already_prepared
    assert before == (files_below(tmp_path / "out"), Dataset.open(tmp_path / "out").fingerprint)


def other_contents(root):
    file = next((root / "labels").iterdir())
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda root: None, {"ignore": [1]}, r"prepared with other options \(ignore\)"),
        (lambda root: None, {"classes": ["a", "b"]}, r"prepared with other options \(classes\)"),
        (lambda root: write_pairs(root, 4), {}, "it lacks case_3"),
        (
            lambda root: [(root / folder / "case_1.png").unlink() for folder in ("images", "labels")],
            {},
            "it has, and they are gone: case_1",
        ),
        (lambda root: os.truncate(root / "images/case_0.png", 50), {}, "had other names or sizes"),
        (other_contents, {}, "of the same names and sizes, but with other contents"),
    ],
)
def test_what_differs_from_an_earlier_call_is_told_with_what_to_do(tmp_path, change, options, message):
    write_pairs(tmp_path, 3)
    prepare(tmp_path)
    change(tmp_path)
    with pytest.raises(FileExistsError, match=f"out exists and holds other content: .*{message}.*remove it first"):
        prepare(tmp_path, **options)


def test_a_dataset_of_an_older_version_is_found_by_dates_alone(tmp_path):
    write_pairs(tmp_path, 3)
    prepare(tmp_path)
    file = tmp_path / "out/dataset.json"
    content = json.loads(file.read_text())
    del content["semgan"]["request"]
    file.write_text(json.dumps(content))
    assert prepare(tmp_path).was_already_prepared
    copied(tmp_path)
    with pytest.raises(FileExistsError, match="older version prepared it.*the same command makes it again"):
        prepare(tmp_path)


def test_a_dataset_that_others_made_is_left_alone(tmp_path):
    write_pairs(tmp_path, 3)
    prepare(tmp_path)
    file = tmp_path / "out/dataset.json"
    content = json.loads(file.read_text())
    del content["semgan"]
    file.write_text(json.dumps(content))
    with pytest.raises(FileExistsError, match="holds other content; choose another -o"):
        prepare(tmp_path)


@pytest.mark.parametrize("content", ["file", "folder"])
def test_an_output_with_other_content_is_refused(content, tmp_path):
    write_pairs(tmp_path)
    out = tmp_path / "out"
    if content == "file":
        out.write_text("years of work")
    else:
        save(out, "photo", picture(1))
    with pytest.raises(FileExistsError, match="out exists"):
        prepare(tmp_path)


def test_an_empty_output_folder_is_used(tmp_path):
    write_pairs(tmp_path)
    (tmp_path / "out").mkdir()
    assert prepare(tmp_path).labelled == 4


def test_8_bit_16_bit_and_float_pictures_may_be_mixed(tmp_path):
    write_pairs(tmp_path, 2)
    deep = np.random.default_rng(0).integers(0, 65536, (12, 10), dtype=np.uint16)
    floats = np.random.default_rng(1).random((12, 10)).astype(np.float32)
    for stem, pixels in (("deep", deep), ("floats", floats)):
        tifffile.imwrite(tmp_path / f"images/{stem}.tif", pixels)
        save(tmp_path / "labels", stem, mask(9))
    report = prepare(tmp_path)
    assert np.array_equal(read_image_files(tmp_path / "out/imagesTr/deep_0000.png"), deep)
    stored = read_image_files(tmp_path / "out/imagesTr/floats_0000.png")
    assert stored.dtype == np.uint16 and np.corrcoef(stored.ravel(), floats.ravel())[0, 1] > 0.999999
    assert any("floats.tif" in warning for warning in report.warnings)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [2, 3, 5])
def test_any_number_of_channels_is_kept(channels, kind, tmp_path):
    stacks = {}
    for number in range(2):
        top = np.iinfo(kind).max + 1
        stacks[number] = np.random.default_rng(number).integers(0, top, (channels, 12, 10), dtype=kind)
        (tmp_path / "images").mkdir(exist_ok=True)
        tifffile.imwrite(tmp_path / f"images/case_{number}.tif", stacks[number], photometric="minisblack")
        save(tmp_path / "labels", f"case_{number}", mask(number))
    assert prepare(tmp_path).channels == channels
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.channels == channels and len(dataset.labelled(None, 0)) == 2
    for number, stack in stacks.items():
        file = tmp_path / f"out/imagesTr/case_{number}_0000.png"
        assert np.array_equal(read_image_files(file), np.moveaxis(stack, 0, -1))
    files = len(list((tmp_path / "out/imagesTr").iterdir()))
    assert files == (2 if channels == 3 else 2 * channels)
    assert check_dataset(tmp_path / "out") == []


def test_colour_files_with_equal_channels_count_as_grey(tmp_path):
    write_pairs(tmp_path, 2)
    grey = picture(60)
    save(tmp_path / "unlabelled", "scan", np.dstack([grey] * 3))
    assert prepare(tmp_path, unlabelled=tmp_path / "unlabelled").channels == 1
    assert np.array_equal(read_image_files(tmp_path / "out/imagesUn/scan_0000.png"), grey)


def test_other_mixtures_of_channels_are_refused_by_name(tmp_path):
    write_pairs(tmp_path, 3)
    extra = write_unlabelled(tmp_path, 1, channels=3)
    message = refusal(tmp_path, unlabelled=extra)
    assert "extra_0.png" in message and "grey" in message
    save(tmp_path / "images", "case_1", picture(1, channels=3))
    message = refusal(tmp_path)
    assert "case_0.png has 1 channel(s)" in message and "case_1.png have 3" in message


def test_masks_may_be_black_and_white_palettes_or_merged_by_a_mapping(tmp_path):
    write_pairs(tmp_path, 3, values=(0, 3, 7, 200))
    table = {"0": 0, "3": 1, "7": 1, "200": "ignore"}
    prepare(tmp_path, mapping=table, classes=["background", "organ"])
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.labels.names == ("background", "organ") and dataset.ignore == 255
    for number, case in enumerate(dataset.labelled(None, 0)):
        original = mask(number, values=(0, 3, 7, 200))
        expected = np.select([original == 0, original == 200], [0, 255], 1)
        assert np.array_equal(load_label(case, dataset.labels, dataset.ignore), expected)
    assert check_dataset(tmp_path / "out") == []


def tagged(root, kind: str, pixels: np.ndarray, orientation: int) -> None:
    tag = Image.Exif()
    tag[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels).save(root / kind / "case_0.png", exif=tag)


@pytest.mark.parametrize(
    ("height", "turned", "of_mask", "doubtful"),
    [(10, 6, 1, True), (12, 3, 1, True), (10, 6, 6, False), (12, 6, 1, False), (10, 1, 1, False)],
    ids=["square", "upside down", "the mask is turned alike", "the size tells", "nothing is turned"],
)
def test_a_mask_that_may_be_drawn_on_the_stored_picture_is_warned_of(tmp_path, height, turned, of_mask, doubtful):
    write_pairs(tmp_path, 3)
    shown = picture(0, height=height, width=10)
    tagged(tmp_path, "images", np.rot90(shown) if turned == 6 else shown, turned)
    drawn = mask(0, height=height, width=10)
    tagged(tmp_path, "labels", np.rot90(drawn) if of_mask == 6 else drawn, of_mask)
    warnings = prepare(tmp_path).warnings
    assert any("case_0.png is turned by its EXIF tag" in warning for warning in warnings) == doubtful
    stored = Dataset.open(tmp_path / "out").labelled(None, 0)[0]
    assert np.array_equal(read_label(stored.label), drawn)  # as drawn on what viewers show


def test_wrong_mask_values_are_listed_with_a_file_that_has_them(tmp_path):
    write_pairs(tmp_path, 3)
    save(tmp_path / "labels", "case_2", mask(2, values=(0, 1, 77)))
    message = refusal(tmp_path)
    assert "0, 1, 77" in message and "77 in" in message and "case_2.png" in message and "--mapping" in message


def test_every_problem_is_told_in_one_message(tmp_path):
    write_pairs(tmp_path, 5)
    extra = write_unlabelled(tmp_path, 2)
    (tmp_path / "images/case_0.png").write_bytes(b"no picture")
    save(tmp_path / "labels", "case_1", mask(1, height=5))
    (tmp_path / "labels/case_2.png").unlink()
    save(tmp_path / "labels", "lonely", mask(3))
    (tmp_path / "images/report.docx").write_text("minutes")
    (tmp_path / "images/volume.nii.gz").write_text("x")
    whole = (extra / "extra_1.png").read_bytes()
    (extra / "extra_1.png").write_bytes(whole[: len(whole) // 2])
    save(tmp_path / "images", "case_3", picture(3), suffix=".bmp")
    message = refusal(tmp_path, unlabelled=extra, test_labels=tmp_path / "labels", manifest=tmp_path / "absent.csv")
    for part in (
        "images/case_0.png",
        "labels/case_1.png is 10x5 px",
        "case_2.png has no mask",
        "lonely.png has no image",
        "report.docx",
        "volume.nii.gz is a volume",
        "extra_1.png",
        "case_3.bmp",
        "--test-images",
        "absent.csv",
    ):
        assert part in message, part


def test_fewer_than_two_labelled_images_are_refused(tmp_path):
    write_pairs(tmp_path, 1)
    assert "at least 2" in refusal(tmp_path)


def test_side_files_are_left_out_with_a_warning(tmp_path):
    write_pairs(tmp_path)
    for name in ("SOURCE.md", "Thumbs.db", ".DS_Store", "table.csv"):
        (tmp_path / "images" / name).write_text("x")
    (report,) = prepare(tmp_path).warnings
    assert "4 file(s)" in report


def test_files_in_sub_folders_are_joined_by_two_underscores(tmp_path):
    for patient in ("p1", "p2"):
        save(tmp_path / "images" / patient, "left", picture(1))
        save(tmp_path / "labels" / patient, "left", mask(1))
    prepare(tmp_path)
    assert [case.stem for case in Dataset.open(tmp_path / "out").labelled(None, 0)] == ["p1__left", "p2__left"]


def test_a_stem_in_two_folders_is_refused(tmp_path):
    write_pairs(tmp_path)
    save(tmp_path / "unlabelled", "case_1", picture(9))
    assert "same stem 'case_1'" in refusal(tmp_path, unlabelled=tmp_path / "unlabelled")


def test_masks_beside_the_images_are_not_taken_for_images(tmp_path):
    write_pairs(tmp_path)
    (tmp_path / "labels").rename(tmp_path / "images/masks")
    report = prepare_folder(tmp_path / "images", tmp_path / "images/masks", tmp_path / "out", workers=1)
    assert report.labelled == 4


def test_the_manifest_sends_cases_to_sets_and_keeps_its_columns(tmp_path):
    write_pairs(tmp_path, 6)
    table = tmp_path / "table.csv"
    table.write_text(
        "stem,set,group,note\ncase_0,validation,anna,\ncase_1,test,berta,\ncase_2,unlabelled,carla,\n"
        'case_3,train,dora,"left, right"\ncase_4,,emma,\n'
    )
    prepare(tmp_path, manifest=table)
    dataset = Dataset.open(tmp_path / "out")

    def stems(name):
        return [case.stem for case in dataset.cases(name)]

    assert stems("train") == ["case_3", "case_4", "case_5"] and stems("validation") == ["case_0"]
    assert stems("test") == ["case_1"] and stems("unlabelled") == ["case_2"]
    assert dataset.group("case_1") == "berta" and dataset.group("case_5") is None
    assert dataset.columns["case_3"]["note"] == "left, right"
    assert check_dataset(tmp_path / "out") == []


def test_the_first_validation_cases_of_a_manifest_are_not_of_one_patient(tmp_path):
    write_pairs(tmp_path, 24)
    rows = [f"case_{number},{'train' if number < 6 else 'validation'},patient{number // 6}" for number in range(24)]
    (tmp_path / "table.csv").write_text("\n".join(["stem,set,group", *rows]))
    prepare(tmp_path, manifest=tmp_path / "table.csv")
    dataset = Dataset.open(tmp_path / "out")
    assert len(dataset.validation()) == 18
    assert {dataset.group(case.stem) for case in dataset.validation()[:6]} == {"patient1", "patient2", "patient3"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name,set\na,train\n", "no column 'stem'"),
        ("stem,set\ncase_0,holdout\n", "'holdout'"),
        ("stem,set\ncase_0,test\ncase_0,train\n", "twice"),
        ("stem,set\ncase_99,test\n", "case_99"),
        ("stem\nother\n", "other"),
    ],
)
def test_a_wrong_manifest_is_refused(text, complaint, tmp_path):
    write_pairs(tmp_path)
    (tmp_path / "table.csv").write_text(text)
    assert complaint in refusal(tmp_path, manifest=tmp_path / "table.csv")


def test_test_images_need_no_masks(tmp_path):
    write_pairs(tmp_path)
    save(tmp_path / "far", "x", picture(4))
    assert any("--test-labels" in warning for warning in prepare(tmp_path, test_images=tmp_path / "far").warnings)
    (case,) = Dataset.open(tmp_path / "out").test()
    assert case.label is None


def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, monkeypatch):
    write_pairs(tmp_path)

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("shutil.copyfile", full)
    assert "No disk space" in refusal(tmp_path)


def test_what_a_killed_preparation_left_is_cleared(tmp_path):
    write_pairs(tmp_path)
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    (tmp_path / f"out.tmp-{gone}").mkdir()
    (tmp_path / f"out.tmp-{os.getppid()}").mkdir()  # another process that still works
    prepare(tmp_path)
    assert {path.name for path in tmp_path.glob("out*")} == {"out", f"out.tmp-{os.getppid()}"}


def test_several_processes_make_the_same_dataset_and_report_progress(tmp_path):
    count = parallel.FEW + 6
    for number in range(count):
        save(tmp_path / "images", f"c{number:03d}", picture(number, 6, 6), suffix=".bmp")
        save(tmp_path / "labels", f"c{number:03d}", mask(number, 6, 6))
    steps = []
    prepare(tmp_path, workers=2, progress=lambda *step: steps.append(step))
    alone = prepare_folder(tmp_path / "images", tmp_path / "labels", tmp_path / "alone", workers=1)
    assert steps[0] == (1, count, "checking images with masks") and steps[-1] == (count, count, "writing the dataset")
    assert Dataset.open(tmp_path / "out").fingerprint == Dataset.open(alone.path).fingerprint
    for file in (tmp_path / "out").rglob("*.png"):
        assert file.read_bytes() == (alone.path / file.relative_to(tmp_path / "out")).read_bytes()


def test_webp_gives_the_dataset_that_png_gives(tmp_path):
    for number in range(3):
        save(tmp_path / "images", f"c{number}", picture(number))
        save(tmp_path / "labels", f"c{number}", mask(number))
    of_png = prepare_folder(tmp_path / "images", tmp_path / "labels", tmp_path / "of_png")
    for file in [*(tmp_path / "images").iterdir(), *(tmp_path / "labels").iterdir()]:
        with Image.open(file) as stored:
            stored.convert("RGB").save(file.with_suffix(".webp"), lossless=True)
        file.unlink()
    prepare(tmp_path)
    assert Dataset.open(tmp_path / "out").fingerprint == Dataset.open(of_png.path).fingerprint


def test_the_cache_can_be_built_at_once(tmp_path):
    write_pairs(tmp_path)
    prepare(tmp_path, preprocessing=Preprocessing(size_px=16))
    assert len(list((tmp_path / "out/cache").glob("16px*/images.npy"))) == 1


def test_the_fingerprint_follows_the_pixels_and_not_the_files(tmp_path):
    first = write_pairs(tmp_path / "a")
    for name in ("images", "labels"):  # the same pixels in another format
        for file in (first / name).iterdir():
            save(tmp_path / "b" / name, file.stem, np.asarray(read_label(file), np.uint8), suffix=".bmp")
    write_pairs(tmp_path / "c")
    save(tmp_path / "c/labels", "case_0", mask(55))
    prints = []
    for name in "abc":
        prepare(tmp_path / name)
        prints.append(Dataset.open(tmp_path / name / "out").fingerprint)
    assert prints[0] == prints[1] != prints[2]
