"""Every published layout, as a tiny replica, goes through prepare and check; the chests also through the verbs."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import raw_replicas as raw
from hypothesis import given, settings
from hypothesis import strategies as st
from liver_replicas import write_lits
from PIL import Image
from plain_folders import files_below

from semgan.cli import main
from semgan.cli import tasks as cli_tasks
from semgan.data.check import check_dataset
from semgan.data.folder import Dataset
from semgan.data.prepare.faces import CLASSES, FROM_19, PARTS, read_parts
from semgan.data.prepare.jsrt import read_film, read_lungs
from semgan.data.prepare.tasks import TASKS, prepare_task
from semgan.data.readers import read_foreground, read_image, read_image_files, read_label
from semgan.evaluate import evaluate
from semgan.segment import segment
from semgan.train import train


def prepare(task, folders, out, **options):
    """The report, of a dataset without errors."""
    report = prepare_task(task, folders, out, workers=1, **options)
    assert [problem for problem in check_dataset(out, workers=1) if problem.level == "error"] == []
    return report


def role_of(report):
    return {found.name: (found.role, found.images) for found in report.collections}


def left_out(report, name):
    return next(found.left_out for found in report.collections if found.name == name)


def refusal(task, folders, root, **options) -> str:
    """The message; after it nothing of the dataset may lie around."""
    before = files_below(root)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        prepare_task(task, folders, root / "out", workers=1, **options)
    assert files_below(root) == before
    return str(error.value)


@pytest.fixture(scope="module")
def chests(tmp_path_factory):
    """(report, dataset folder) of all chest layouts in one command."""
    root = tmp_path_factory.mktemp("chests")
    folders = [*raw.write_jsrt(root, 8), raw.write_montgomery(root), raw.write_shenzhen(root), raw.write_nih(root)]
    folders.append(raw.write_chest14(root))
    return prepare("chest-xray", folders, root / "out"), root / "out"


def test_each_collection_of_chests_gets_its_role(chests):
    report, out = chests
    assert role_of(report) == {
        "jsrt": ("train", 8), "montgomery": ("test", 2), "shenzhen": ("test", 2), "nih": ("test", 2),
        "chestx-ray14": ("unlabelled", 6),
    }  # fmt: skip
    assert report.sets == {"train": 6, "validation": 0, "test": 2, "test_elsewhere": 6, "unlabelled": 6}
    assert report.dataset.classes == ("background", "lung") and report.dataset.channels == 1
    assert Dataset.open(out).metric == "dice"


def test_what_is_left_out_of_the_chests_is_counted(chests):
    report, _ = chests
    assert left_out(report, "shenzhen") == {"images without mask": 1}
    assert left_out(report, "jsrt") == {"masks of heart and clavicles": 8}
    # Both films of XLSor are films of ChestX-ray14, and tests.
    assert left_out(report, "chestx-ray14") == {
        "images of the table that are not here": 1, "images that another collection has": 2,
    }  # fmt: skip
    assert any("1 images without mask" in warning for warning in report.dataset.warnings)


def test_both_lungs_are_one_class_at_the_images_size(chests):
    _, out = chests
    both = raw.lungs()[0] | raw.lungs()[1]
    for folder in ("labelsTr", "labelsTs"):
        for file in (out / folder).iterdir():
            assert np.array_equal(read_label(file), both), file


def test_pixels_of_the_chests_are_as_published_without_equalisation(chests):
    _, out = chests
    film = read_image_files(out / "imagesTr/JPCLN001_0000.png")
    assert film.dtype == np.uint16 and np.array_equal(film, raw.chest(0, white=4095))
    assert np.array_equal(read_image_files(out / "imagesTs/CHNCXR_0001_0_0000.png"), raw.chest(20))
    assert np.array_equal(read_image_files(out / "imagesUn/00000003_001_0000.png"), raw.chest(47))


def test_unlabelled_films_of_test_patients_are_no_training_material(chests):
    _, out = chests
    dataset = Dataset.open(out)
    assert dataset.group("00000001_000") == dataset.group("00000001_001") == "00000001"
    unlabelled = {case.stem for case in dataset.unlabelled(None, 0)}
    assert "00000003_000" in unlabelled and "00000001_000" not in unlabelled


def test_every_test_set_lies_under_its_name_without_taking_space(chests, tmp_path, monkeypatch):
    _, out = chests
    sets = {folder.name: len(list((folder / "images").iterdir())) for folder in (out / "test_sets").iterdir()}
    assert sets == {"jsrt": 2, "montgomery": 2, "shenzhen": 2, "nih": 2}
    for file in (out / "test_sets/nih/labels").iterdir():
        assert file.samefile(out / "labelsTs" / file.name)

    def refuse(*_):
        raise OSError("this disk knows no links")

    monkeypatch.setattr("os.link", refuse)
    prepare("chest-xray", raw.write_jsrt(tmp_path, 4), tmp_path / "out")
    for copy in (tmp_path / "out/test_sets/jsrt/labels").iterdir():
        assert copy.read_bytes() == (tmp_path / "out/labelsTr" / copy.name).read_bytes()


def test_nodules_are_shared_out_evenly_and_lists_are_nested(chests):
    _, out = chests
    lists = Dataset.open(out).splits
    assert sorted(stem[:5] for stem in lists["test"]) == ["JPCLN", "JPCNN"]
    assert set(lists["test"]).isdisjoint(lists["pool"]) and len(lists["labelled_6_seed0"]) == 6
    assert {name for name in lists if name.startswith("labelled")} == {f"labelled_6_seed{seed}" for seed in range(3)}


def test_the_chests_train_segment_and_are_scored(chests, quick, tmp_path):
    _, out = chests
    train(out, tmp_path / "run", recipe="debug", labels=6, changes=[*quick, "preprocessing.equalise_histogram=true"])
    segment(tmp_path / "run", out / "imagesTs", tmp_path / "masks", steps=1)
    result = evaluate(tmp_path / "masks", out / "labelsTs", metric="dice")
    assert result.n == 6 and 0 <= result.mean <= 1


def test_a_film_of_jsrt_is_turned_to_dark_lungs(tmp_path):
    bright_lungs = 4095 - raw.chest(0, 2048, 4095)
    file = raw.write_film(tmp_path / "JPCLN001.IMG", bright_lungs)
    assert file.stat().st_size == 8388608
    film = read_film(file)
    assert film.dtype == np.uint16 and np.array_equal(film, raw.chest(0, 2048, 4095))


def test_a_truncated_film_and_one_of_other_bytes_are_refused(tmp_path):
    short = raw.write_film(tmp_path / "JPCLN001.IMG", np.zeros((2048, 2047)))
    with pytest.raises(ValueError, match=r"8384512 bytes; a JSRT film has 8388608.*truncated"):
        read_film(short)
    swapped = tmp_path / "JPCLN002.IMG"
    np.full((2048, 2048), 255, "<u2").tofile(swapped)
    with pytest.raises(ValueError, match="up to 65280; a JSRT film has 12 bits"):
        read_film(swapped)


def test_the_raw_film_goes_before_pictures_made_of_it(tmp_path):
    folders = raw.write_jsrt(tmp_path, 4)
    raw.write_film(tmp_path / "JSRT/JPCLN001.IMG", 4095 - raw.chest(7, 2048, 4095))
    report = prepare("chest-xray", folders, tmp_path / "out")
    assert left_out(report, "jsrt")["second copies of images"] == 1
    assert np.array_equal(read_image_files(tmp_path / "out/imagesTr/JPCLN001_0000.png"), raw.chest(7, 2048, 4095))
    assert read_label(tmp_path / "out/labelsTr/JPCLN001.png").shape == (2048, 2048)


def test_pictures_of_films_that_are_negatives_are_inverted(tmp_path):
    folders = raw.write_jsrt(tmp_path, 4)
    for number, name in enumerate(("JPCLN001", "JPCNN002", "JPCLN003", "JPCNN004")):
        raw.put(tmp_path / f"JSRT/All247images/{name}.png", 4095 - raw.chest(number, white=4095))
    report = prepare("chest-xray", folders, tmp_path / "out")
    assert any("4 pictures show air bright" in warning for warning in report.dataset.warnings)
    assert np.array_equal(read_image_files(tmp_path / "out/imagesTr/JPCLN001_0000.png"), raw.chest(0, white=4095))


def test_patients_stay_together_in_the_test_list(tmp_path):
    folder = raw.write_nih(tmp_path, 6)
    for kind, ending in (("images", ""), ("masks", "_mask")):
        for file in sorted((folder / "data/NIH" / kind).iterdir()):
            file.with_name(f"{file.name[:8]}_009{ending}.png").write_bytes(file.read_bytes())
    prepare("chest-xray", [folder], tmp_path / "out", roles={"nih": "train"}, validation_share=0.4)
    dataset = Dataset.open(tmp_path / "out")
    patients = [{case.group for case in dataset.cases(name)} for name in ("train", "validation", "test")]
    assert [len(group) for group in patients] == [3, 2, 1] and len(set.union(*patients)) == 6


@pytest.mark.parametrize("between", ["\n", "  "], ids=["lines", "one-line"])
@pytest.mark.parametrize("point", ["{x} {y}\n", "{{ {x}.0, {y}.5 }},", "({x}.0; {y}.0)"])
def test_lungs_are_drawn_from_landmarks_whatever_the_brackets(point, between, tmp_path):
    corners = {"right lung": (128, 256, 384, 768), "heart": (-3, 0, 900, 1026), "left lung": (640, 256, 896, 768)}
    text = ["{ [Number of structures = 3]"]
    for name, (x0, y0, x1, y1) in corners.items():
        points = [point.format(x=x, y=y) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]
        text += [f"{{ [Label={name}]", "4", "{", between.join(points), "}", "}"]
    (tmp_path / "JPCLN001.pfs").write_text("\n".join(text))
    drawn = read_lungs((tmp_path / "JPCLN001.pfs",))
    expected = raw.lungs(1024)[0] | raw.lungs(1024)[1]
    assert drawn.shape == (1024, 1024) and (drawn != expected).mean() < 0.005  # outlines belong to the lung


def test_landmarks_without_lungs_are_refused(tmp_path):
    (tmp_path / "JPCLN001.pfs").write_text("left lung\n1 1\n9 9\n1 9\n")
    with pytest.raises(ValueError, match="0 of the right one.*Use SCR's masks"):
        read_lungs((tmp_path / "JPCLN001.pfs",))
    (tmp_path / "JPCLN001.pfs").write_text("left lung\n1 1\n9 9\n1 9\nright lung\n1 1\n2048 9\n1 9\n")
    with pytest.raises(ValueError, match="outside of SCR's grid of 1024 px"):
        read_lungs((tmp_path / "JPCLN001.pfs",))


def test_landmarks_serve_where_scr_masks_are_missing(tmp_path):
    jsrt, scr = raw.write_jsrt(tmp_path, 4)
    for side in ("left lung", "right lung"):
        (scr / f"scratch/fold1/masks/{side}/JPCLN001.gif").unlink()
    outline = "left lung\n640 256\n896 256\n896 768\n640 768\nright lung\n128 256\n384 256\n384 768\n128 768\n"
    (scr / "scratch/fold1/landmarks").mkdir()
    for name in ("JPCLN001", "JPCNN002"):
        (scr / f"scratch/fold1/landmarks/{name}.pfs").write_text(outline)
    assert role_of(prepare("chest-xray", (jsrt, scr), tmp_path / "out"))["jsrt"] == ("train", 4)
    drawn = read_label(tmp_path / "out/labelsTr/JPCLN001.png")
    assert (drawn != (raw.lungs()[0] | raw.lungs()[1])).mean() < 0.05


def test_a_mask_of_one_lung_is_refused(tmp_path):
    folders = raw.write_jsrt(tmp_path, 4)
    (tmp_path / "SCR/scratch/fold1/masks/left lung/JPCLN001.gif").unlink()
    assert "JPCLN001 has none of the left one; add it" in refusal("chest-xray", folders, tmp_path)


def test_films_without_their_masks_ask_for_the_other_download(tmp_path):
    jsrt, _ = raw.write_jsrt(tmp_path, 4)
    message = refusal("chest-xray", [jsrt], tmp_path)
    assert "4 images without mask" in message and "give both folders" in message


def test_test_sets_alone_are_refused_and_can_be_trained_on(tmp_path):
    folder = raw.write_montgomery(tmp_path, 4)
    message = refusal("chest-xray", [folder], tmp_path)
    assert "The paper trains on JSRT" in message and "--use NAME=train" in message
    report = prepare("chest-xray", [folder], tmp_path / "out", roles={"montgomery": "train"}, validation_share=0.34)
    assert report.sets == {"train": 2, "validation": 1, "test": 1, "test_elsewhere": 0, "unlabelled": 0}


@pytest.mark.parametrize("use", [{"jsrt": "pool"}, {"isic2018": "train"}])
def test_unknown_uses_are_refused(use, tmp_path):
    assert "expected one of" in refusal("chest-xray", raw.write_jsrt(tmp_path, 2), tmp_path, roles=use)


def test_the_same_command_again_finds_its_work_done(tmp_path):
    folders = raw.write_jsrt(tmp_path, 4)
    prepare("chest-xray", folders, tmp_path / "out")
    assert prepare("chest-xray", folders[::-1], tmp_path / "out").dataset.was_already_prepared
    with pytest.raises(FileExistsError, match="other content"):
        prepare_task("chest-xray", folders, tmp_path / "out", workers=1, validation_share=0.5)


@pytest.fixture(scope="module")
def skins(tmp_path_factory):
    root = tmp_path_factory.mktemp("skins")
    folders = [raw.write_isic2020(root), raw.write_isic2018(root), raw.write_ph2(root), *raw.write_waterloo(root)]
    return prepare("skin", folders, root / "out"), root / "out"


def test_each_collection_of_skin_gets_its_role(skins):
    report, out = skins
    assert role_of(report) == {
        "isic2018": ("train", 6), "ph2": ("test", 2), "dermis": ("test", 2), "dermquest": ("test", 2),
        "isic2020": ("unlabelled", 3),
    }  # fmt: skip
    assert report.sets == {"train": 5, "validation": 0, "test": 1, "test_elsewhere": 6, "unlabelled": 3}
    assert left_out(report, "isic2020") == {"images that another collection has": 2}
    assert left_out(report, "ph2") == {"masks of colours and other files": 2}
    assert Dataset.open(out).metric == "jaccard" and report.dataset.channels == 3


def test_lesions_come_out_as_drawn_whatever_the_file(skins):
    _, out = skins
    for number in range(6):
        mask = read_label(out / f"labelsTr/ISIC_{number:07d}.png")
        assert np.array_equal(mask, raw.lesion(number, 24 + 2 * number, 32))
    stems = ("IMD002", "dermis__melanoma__7", "dermquest__notmelanoma__7")
    for stem, seed in zip(stems, (2, 1, 2), strict=True):
        assert np.array_equal(read_label(out / f"labelsTs/{stem}.png"), raw.lesion(seed, 24, 32)), stem


def test_a_picture_that_its_camera_turned_is_upright_like_its_mask(skins):
    _, out = skins
    upright = read_image_files(out / "imagesTr/ISIC_0000000_0000.png")
    assert upright.shape == (24, 32, 3)
    assert np.abs(upright.astype(int) - raw.noise(0, 24, 32, 3)).mean() < 60  # JPEG of noise; another turn gives 85


def test_isic_2017_has_its_own_test_part_and_shares_pictures_with_2018(tmp_path):
    report = prepare("skin", [raw.write_isic2017(tmp_path)], tmp_path / "alone")
    assert role_of(report) == {"isic2017": ("train", 4)} and report.sets["train"] == 3
    assert Dataset.open(tmp_path / "alone").splits["test"] == ["ISIC_0000090"]
    assert left_out(report, "isic2017") == {"superpixels, attributes and other files": 4}
    both = prepare("skin", [tmp_path / "ISIC-2017", raw.write_isic2018(tmp_path)], tmp_path / "both")
    assert role_of(both) == {"isic2018": ("train", 6), "isic2017": ("train", 1)}


def test_a_picture_in_place_of_a_mask_is_refused(tmp_path):
    folder = raw.write_isic2018(tmp_path, 3)
    wrong = folder / "ISIC2018_Task1_Training_GroundTruth/ISIC_0000001_segmentation.png"
    raw.put(wrong, raw.noise(1, 26, 32))
    message = refusal("skin", [folder], tmp_path)
    assert "ISIC_0000001_segmentation.png should be a mask of two values" in message


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_unlabelled_pictures_that_cannot_be_used_are_left_out_and_the_rest_goes_on(tmp_path):
    folders = [raw.write_isic2018(tmp_path), raw.write_isic2020(tmp_path, range(20, 25))]
    cut(tmp_path / "ISIC_2020_Training_JPEG/train/ISIC_0000021.jpg")
    raw.put(tmp_path / "ISIC_2020_Training_JPEG/train/ISIC_0000023.jpg", raw.noise(0, 9, 9))  # grey among colour
    report = prepare("skin", folders, tmp_path / "out")
    assert report.sets["unlabelled"] == 3 and report.dataset.unlabelled == 3
    told = "\n".join(report.dataset.warnings)
    assert "ISIC_0000021.jpg cannot be read" in told and "ISIC_0000023.jpg has 1 channel" in told
    assert "2 unlabelled file(s)" in report.dataset.warnings[-1]
    stems = {case.stem for case in Dataset.open(tmp_path / "out").unlabelled(None, 0)}
    assert {"ISIC_0000020", "ISIC_0000022", "ISIC_0000024"} <= stems and "ISIC_0000021" not in stems


def test_large_unlabelled_pictures_are_averaged_down_and_others_stay_as_published(tmp_path):
    folder = tmp_path / "ISIC_2020/train"
    large = np.kron(raw.noise(1, 13, 33, 3), np.ones((64, 64, 1), np.uint8))  # 832 x 2112, of even blocks
    raw.put(folder / "ISIC_0000031.png", large)
    raw.put(folder / "ISIC_0000032.png", large[:, :2047])
    prepare("skin", [raw.write_isic2018(tmp_path), folder.parent], tmp_path / "out")
    assert np.array_equal(read_image_files(tmp_path / "out/imagesUn/ISIC_0000031_0000.png"), large[::2, ::2])
    assert np.array_equal(read_image_files(tmp_path / "out/imagesUn/ISIC_0000032_0000.png"), large[:, :2047])


def test_an_unlabelled_volume_that_cannot_be_read_is_left_out_with_all_its_slices(tmp_path):
    folder = write_lits(tmp_path, 3, 2)
    cut(folder / "LITS-Challenge-Test-Data/test-volume-1.nii")
    report = prepare("liver", [folder], tmp_path / "out")
    assert report.sets["unlabelled"] == 1
    assert any("left out: " in warning and "test-volume-1.nii" in warning for warning in report.dataset.warnings)


def test_everything_wrong_with_labelled_files_is_told_at_once_and_nothing_is_written(tmp_path):
    folder = raw.write_isic2018(tmp_path, 5)
    truth = folder / "ISIC2018_Task1_Training_GroundTruth"
    cut(folder / "ISIC2018_Task1-2_Training_Input/ISIC_0000001.jpg")
    (truth / "ISIC_0000002_segmentation.png").write_bytes(b"")
    raw.put(truth / "ISIC_0000003_segmentation.png", raw.lesion(3, 32, 30))
    message = refusal("skin", [folder], tmp_path)
    assert "3 problem(s)" in message and "ISIC_0000001.jpg cannot be read" in message
    assert "ISIC_0000002_segmentation.png cannot be read" in message and "is 32x30 px and its image" not in message
    assert "ISIC_0000003_segmentation.png is 30x32 px and its image" in message


def test_a_damaged_table_of_patients_is_told_with_its_line(tmp_path):
    folder = raw.write_chest14(tmp_path)
    table = folder / "Data_Entry_2017_v2020.csv"
    table.write_bytes(table.read_bytes()[:-30] + b"\xff\xfe?,none\n")
    assert "Data_Entry_2017_v2020.csv, line" in refusal("chest-xray", [*raw.write_jsrt(tmp_path), folder], tmp_path)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    root = tmp_path_factory.mktemp("faces")
    more = root / "paintings"
    raw.put(more / "a/1.png", raw.noise(1, 16, 16, 3))
    folders = [raw.write_celebamask(root), raw.write_metfaces(root, 19), more]
    return prepare("faces", folders, root / "out"), root / "out"


def test_each_collection_of_faces_gets_its_role(faces):
    report, out = faces
    assert role_of(report) == {
        "celebamask-hq": ("train", 4), "metfaces": ("test", 2), "paintings": ("unlabelled", 1),
    }  # fmt: skip
    assert report.sets == {"train": 3, "validation": 0, "test": 1, "test_elsewhere": 2, "unlabelled": 1}
    assert (out / "imagesUn/paintings__a__1_0000.png").is_file()
    assert report.dataset.classes == CLASSES and Dataset.open(out).metric == "miou"


def test_parts_of_a_face_cover_one_another_in_the_published_order(faces):
    _, out = faces
    mask = read_label(out / "labelsTr/celeba__00000.png")
    rows = {0: "background", 3: "background", 4: "hair", 7: "hair", 8: "eye", 12: "nose", 16: "skin", 30: "background"}
    assert mask.shape == (32, 32)
    for row, name in rows.items():
        assert {CLASSES[value] for value in np.unique(mask[row])} == {name}, row


def test_metfaces_of_19_and_of_8_classes_give_the_same_8(faces, tmp_path):
    _, out = faces
    merged = read_label(out / "labelsTs/metfaces__00000-00.png")
    assert np.array_equal(merged.ravel()[:19], FROM_19)
    folders = [raw.write_celebamask(tmp_path), raw.write_metfaces(tmp_path, 8)]
    prepare("faces", folders, tmp_path / "out")
    assert np.array_equal(read_label(tmp_path / "out/labelsTs/metfaces__00000-00.png").ravel()[:8], range(8))


def test_two_folders_of_one_name_are_two_collections(tmp_path):
    more = [tmp_path / "animals/faces", tmp_path / "cartoons/faces"]
    for number, folder in enumerate(more):
        raw.put(folder / "1.png", raw.noise(number, 16, 16, 3))
    report = prepare("faces", [raw.write_celebamask(tmp_path), *more], tmp_path / "out")
    assert report.sets["unlabelled"] == 2
    assert np.array_equal(read_image(tmp_path / "out/imagesUn/cartoons-faces__1_0000.png"), raw.noise(1, 16, 16, 3))


def test_faces_beyond_the_labelled_ones_lose_their_masks(tmp_path, monkeypatch):
    monkeypatch.setitem(TASKS, "faces", replace(TASKS["faces"], most_training=2))
    report = prepare("faces", [raw.write_celebamask(tmp_path, 8)], tmp_path / "out")
    assert report.sets == {"train": 2, "validation": 0, "test": 2, "test_elsewhere": 0, "unlabelled": 4}
    assert len(list((tmp_path / "out/labelsTr").iterdir())) == 4


def test_the_protocol_is_the_papers():
    assert TASKS["chest-xray"].protocol.budgets == (9, 35, 175) and round(247 * TASKS["chest-xray"].test_share) == 72
    assert TASKS["skin"].protocol.budgets == (40, 200, 2000) and round(2594 * TASKS["skin"].test_share) == 594
    assert TASKS["faces"].protocol.budgets == (30, 150, 1500) and TASKS["faces"].most_test == 500
    assert len(PARTS) == 18 and len(FROM_19) == 19 and CLASSES[FROM_19[1 + PARTS.index("hair")]] == "hair"
    assert set(cli_tasks.TASKS) == set(TASKS) == set(cli_tasks.EXAMPLES)


@pytest.mark.parametrize(
    ("task", "write", "looks_like"),
    [
        ("skin", raw.write_montgomery, "NLM Montgomery.*prepare chest-xray"),
        ("faces", raw.write_ph2, "PH2.*prepare skin"),
        ("chest-xray", raw.write_celebamask, "CelebAMask-HQ.*prepare faces"),
        ("skin", write_lits, "LiTS.*prepare liver"),
    ],
)
def test_a_folder_of_another_task_says_which_one(task, write, looks_like, tmp_path):
    assert re.search(looks_like, refusal(task, [write(tmp_path)], tmp_path))


def test_volumes_strangers_archives_and_missing_folders_are_told_apart(tmp_path):
    for name in ("volumes/patient.nii", "strangers/thesis.docx", "images.zip"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert "holds volumes" in refusal("skin", [tmp_path / "volumes"], tmp_path)
    message = refusal("skin", [tmp_path / "strangers"], tmp_path)
    assert "1 file(s)" in message and "PH2" in message and "prepare folder" in message
    assert "Unpack archives first" in refusal("skin", [tmp_path / "images.zip"], tmp_path)
    assert "does not exist" in refusal("skin", [tmp_path / "nowhere"], tmp_path)


def test_the_command_prints_what_it_found(tmp_path, capsys):
    folders = [str(folder) for folder in raw.write_jsrt(tmp_path, 4)]
    with pytest.raises(SystemExit, match="0"):
        main(["data", "prepare", "chest-xray", *folders, "-o", str(tmp_path / "out"), "--workers", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["collections"][0]["name"] == "jsrt" and found["sets"]["train"] == 2


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(PARTS), min_size=1, max_size=6, unique=True), st.randoms())
def test_merging_parts_does_not_depend_on_the_order_of_files(tmp_path_factory, parts, random):
    folder = tmp_path_factory.mktemp("parts")
    files = [raw.put(folder / f"00000_{part}.png", raw.noise(i, 4, 4, high=2) * 255) for i, part in enumerate(parts)]
    shuffled = random.sample(files, len(files))
    assert np.array_equal(read_parts(tuple(files)), read_parts(tuple(shuffled)))


@pytest.mark.parametrize("kind", ["grey", "ones", "1-bit", "rgb", "rgba", "palette", "gif"])
def test_foreground_is_what_a_mask_looks_like(kind, tmp_path):
    shown = raw.lesion(0, 12, 10)
    grey = shown.astype(np.uint8) * 255
    made = {
        "grey": grey, "ones": grey // 255, "1-bit": shown, "rgb": np.dstack([grey] * 3),
        "rgba": np.dstack([grey] * 3 + [np.full_like(grey, 255)]),
    }  # fmt: skip
    if kind in made:
        file = raw.put(tmp_path / "mask.png", made[kind])
    else:
        file = raw.put_palette(tmp_path / ("mask.gif" if kind == "gif" else "mask.png"), shown)
    assert np.array_equal(read_foreground(file), shown)


def test_an_image_follows_exif_and_png_copies_do_too(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 8
    file = raw.put(tmp_path / "turned.png", raw.noise(0, 4, 6), exif=turned)
    assert np.array_equal(read_image(file), np.rot90(raw.noise(0, 4, 6)))
