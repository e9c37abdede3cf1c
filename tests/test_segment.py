"""The verb works for every method, so a method of two lines serves here: bright pixels are foreground."""

import errno
import json
import logging
import re

import numpy as np
import pytest
import torch
from PIL import Image

import semgan
from semgan import artifacts, cli
from semgan.config import Preprocessing
from semgan.data.transforms import preprocess, to_unit
from semgan.data.whole_images import find_inputs, segment_images, to_own_size
from semgan.masks import masks_in
from semgan.result_folder import ResultFolder
from semgan.segment import read_rows, segment
from semgan.segmentation_rows import fingerprint
from semgan.types import LabelSpace, Segmentation


class Bright:
    labels = LabelSpace(("background", "bright"))

    def __init__(self, channels=1, stop_after=None):
        self.rule = Preprocessing(size_px=32, channels=channels)
        self.batches, self.stop_after = [], stop_after

    def preprocess(self, image, modality="default"):
        if modality != "default":
            raise ValueError(f"No preprocessing for modality '{modality}'.")
        return to_unit(torch.from_numpy(preprocess(image, self.rule)))

    def segment_batch(self, image, *, steps=None, snapshot_steps=()):
        if self.stop_after is not None and len(self.batches) >= self.stop_after:
            raise KeyboardInterrupt
        self.batches.append(len(image))
        foreground = torch.sigmoid(20 * image.mean(1, keepdim=True))
        found = torch.cat([1 - foreground, foreground], 1)
        confidence = found.amax(1).mean((1, 2))
        return Segmentation(found, confidence, steps=steps or 0, trace={"loss": torch.zeros(1, len(image))})


def picture(height=40, width=60):
    """Left half dark, right half bright."""
    pixels = np.full((height, width), 20, np.uint8)
    pixels[:, width // 2 :] = 230
    return pixels


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(picture(40 + 8 * number)).save(folder / f"case{number}.png")
    return folder


@pytest.fixture
def model_folder(tmp_path, monkeypatch):
    """A model folder whose loader gives a `Bright`, collected in ``loaded``."""
    folder = tmp_path / "model"
    artifacts.save_model(folder, {"method": "bright"}, {}, "card")
    loaded = []

    def load(path, device="auto"):
        loaded.append(Bright(stop_after=load.stop_after))
        return loaded[-1]

    load.stop_after = None
    monkeypatch.setattr(semgan, "load", load, raising=False)
    return folder, load, loaded


def test_masks_have_the_images_own_size_and_class_indices(images, tmp_path):
    out = tmp_path / "out"
    rows = segment(Bright(), images, out)
    for number in range(5):
        mask = Image.open(out / f"case{number}.png")
        expected = (picture(40 + 8 * number) > 128).astype(np.uint8)
        assert mask.mode == "L" and (np.array(mask) == expected).all()
    assert rows == read_rows(out / "segmentation.csv")
    assert [row["stem"] for row in rows] == [f"case{number}" for number in range(5)]
    assert set(rows[0]) == {"stem", "steps", "confidence", "loss", "seconds"}
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == []
    assert not (tmp_path / "out.partial").exists()


def test_probabilities_and_overlays_come_when_asked_for(images, tmp_path):
    out = tmp_path / "out"
    segment(Bright(), images, out, save_probabilities=True, overlay=True)
    saved = np.load(out / "probabilities" / "case1.npz")["probabilities"]
    assert saved.dtype == np.float16 and saved.shape == (2, 48, 60)
    assert np.array_equal(saved.argmax(0), np.array(Image.open(out / "case1.png")))
    overlay = np.array(Image.open(out / "overlays" / "case1.png"))
    assert overlay.shape == (48, 60, 3) and (overlay[:, :20] == 20).all() and (overlay[:, 40:] != 230).any()


def test_one_file_is_segmented_alone(images, tmp_path):
    rows = segment(Bright(), images / "case3.png", tmp_path / "out")
    assert [row["stem"] for row in rows] == ["case3"]


def test_results_do_not_depend_on_the_batch(images, tmp_path):
    model = Bright()
    segment(model, images, tmp_path / "a", batch=2)
    segment(Bright(), images, tmp_path / "b")
    assert model.batches == [2, 2, 1]
    for path in (tmp_path / "a").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_sixteen_bit_and_float_images_can_be_laid_over(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(picture().astype(np.uint16) * 16).save(folder / "deep.png")
    segment(Bright(), folder, tmp_path / "out", overlay=True)
    overlay = np.array(Image.open(tmp_path / "out" / "overlays" / "deep.png"))
    assert (overlay[:, 0] == 0).all()


# ---------------------------------------------------------------- input


def test_all_unreadable_images_are_named_before_any_work(images, tmp_path):
    (images / "broken.png").write_bytes(b"not a picture")
    whole = (images / "case0.png").read_bytes()
    (images / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(images / "fine.jpg")
    model = Bright()
    with pytest.raises(ValueError, match=r"(?s)2 of 8 images.*broken\.png.*cut\.png") as error:
        segment(model, images, tmp_path / "out")
    assert "case0" not in str(error.value) and "fine" not in str(error.value)
    assert model.batches == [] and not list(tmp_path.glob("out*"))


def test_images_with_other_channels_are_named_before_any_work(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(picture()).save(folder / "grey.png")
    with pytest.raises(ValueError, match=r"grey\.png.*1 channels.*expects 4"):
        segment(Bright(channels=4), folder, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("channels", "told"),
    [(1, "1 of 4 images are in colour.*made grey .colour.png"), (3, "3 of 4 images are grey.*drawn.png, equal.png")],
)
def test_colour_that_a_model_does_not_see_is_told(tmp_path, caplog, channels, told):
    """Of a colour file whose channels are equal nothing is lost, and nothing is there for a colour model."""
    folder = tmp_path / "images"
    folder.mkdir()
    grey = picture()
    for name, pixels in {"drawn": grey, "equal": np.dstack([grey] * 3), "tiny": grey[:8, :8]}.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    Image.fromarray(np.dstack([grey, grey, 255 - grey])).save(folder / "colour.png")
    segment(Bright(channels), folder, tmp_path / "out")
    assert re.search(told, caplog.text)
    caplog.clear()
    for path in folder.iterdir():
        if (path.name == "colour.png") == (channels == 1):
            path.unlink()
    segment(Bright(channels), folder, tmp_path / "fitting")
    assert not caplog.records


def test_other_files_are_left_out_with_a_warning(images, tmp_path, caplog):
    (images / "notes.txt").write_text("hello")
    (images / "table.csv").write_text("a,b")
    (images / ".hidden").write_text("")
    with caplog.at_level(logging.WARNING):
        assert len(segment(Bright(), images, tmp_path / "out")) == 5
    assert "left out (2)" in caplog.text and "notes.txt" in caplog.text and ".hidden" not in caplog.text


def test_folder_without_images_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no image"):
        segment(Bright(), tmp_path / "empty", tmp_path / "out")


def test_two_images_of_one_stem_are_refused(images, tmp_path):
    Image.fromarray(picture()).save(images / "case1.jpg")
    with pytest.raises(ValueError, match=r"case1\.(jpg|png) and case1\.(jpg|png).*rename"):
        segment(Bright(), images, tmp_path / "out")


def test_unknown_modality_is_one_clear_error(images, tmp_path):
    with pytest.raises(ValueError, match=r"^No preprocessing for modality 'mri'"):
        segment(Bright(), images, tmp_path / "out", modality="mri")


def touch(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(picture()).save(folder / name)
    return folder


def test_dataset_names_lose_their_channel_number(tmp_path):
    inputs, _ = find_inputs(touch(tmp_path / "a", "x_0000.png", "y_0000.png"), channels=1)
    assert [item.stem for item in inputs] == ["x", "y"]


def test_numbered_frames_keep_their_names(tmp_path):
    inputs, _ = find_inputs(touch(tmp_path / "a", "f_0000.png", "f_0001.png"), channels=1)
    assert [item.stem for item in inputs] == ["f_0000", "f_0001"]


def test_one_file_is_named_as_in_its_folder(tmp_path):
    """nnU-Net's numbers go where all images have them, and numbers of frames stay."""
    alike, frames = touch(tmp_path / "a", "x_0000.png", "y_0000.png"), touch(tmp_path / "b", "f_0000.png", "f_0001.png")
    for folder in (alike, frames):
        together = {item.path: item.stem for item in find_inputs(folder, channels=1)[0]}
        alone = [find_inputs(path, channels=1)[0][0] for path in together]
        assert {item.path: item.stem for item in alone} == together
    assert find_inputs(frames / "f_0000.png", channels=1)[0][0].stem == "f_0000"


def test_channel_files_become_one_image(tmp_path):
    folder = touch(tmp_path / "a", "x_0000.png", "x_0001.png", "y_0000.png", "y_0001.png")
    inputs, _ = find_inputs(folder, channels=2)
    assert [item.stem for item in inputs] == ["x", "y"] and inputs[0].read().shape == (40, 60, 2)
    alone, _ = find_inputs(folder / "x_0000.png", channels=2)
    assert alone[0].stem == "x" and alone[0].read().shape == (40, 60, 2)
    assert len(segment(Bright(channels=2), folder, tmp_path / "out")) == 2


def test_two_files_of_one_channel_are_refused(tmp_path):
    folder = touch(tmp_path / "a", "x_0000.png", "x_0000.bmp", "y_0000.png")
    with pytest.raises(ValueError, match=r"x_0000\.bmp and x_0000\.png would both be written as x_0000\.png"):
        find_inputs(folder, channels=1)


def test_a_folder_of_folders_means_its_pictures_as_prepare_names_them(images, tmp_path):
    """Masks of the same tree are found under the same names; thumbnails below pictures, and hidden folders, are not."""
    tree = touch(tmp_path / "tree", *[])
    for day in ("day1", "day2", ".cache"):
        touch(touch(tree / day), "a.png")
    touch(tree / "day2" / "late", "b.png")
    (tree / "list.txt").write_text("a, a, b")
    rows = segment(Bright(), tree, tmp_path / "out")
    assert [row["stem"] for row in rows] == ["day1__a", "day2__a", "day2__late__b"]
    assert list(masks_in(tmp_path / "out")) == list(masks_in(tree)) == [row["stem"] for row in rows]
    _, ignored = find_inputs(tree, channels=1)
    assert ignored == [tree / "list.txt"]
    touch(tree, "a.png")
    assert [item.stem for item in find_inputs(tree, channels=1)[0]] == list(masks_in(tree)) == ["a"]


def test_pictures_in_folders_beside_pictures_are_left_out_aloud(tmp_path, caplog):
    tree = touch(tmp_path / "tree", "overview.png")
    touch(tree / "p1", "a.png")
    (tree / "notes").mkdir()
    assert [row["stem"] for row in segment(Bright(), tree, tmp_path / "out")] == ["overview"]
    (told,) = [line.getMessage() for line in caplog.records if "left out" in line.getMessage()]
    assert "p1" in told and "notes" not in told


def test_a_dataset_folder_is_no_folder_of_pictures(tmp_path):
    touch(touch(tmp_path / "data") / "labelsTr", "c.png")
    (tmp_path / "data" / "dataset.json").write_text("{}")
    with pytest.raises(ValueError, match="is a dataset folder.*imagesTs"):
        find_inputs(tmp_path / "data", channels=1)


def test_another_second_channel_is_another_request(tmp_path):
    folder = touch(tmp_path / "a", "x_0000.png", "x_0001.png")
    (item,), _ = find_inputs(folder, channels=2)
    assert [file.name for file in item.files] == ["x_0000.png", "x_0001.png"]

    def known():
        return fingerprint((item.stem, file) for item in find_inputs(folder, 2)[0] for file in item.files)

    def asked():
        segment(Bright(channels=2), folder, tmp_path / "out", overwrite=True)
        return json.loads((tmp_path / "out" / "segmentation.json").read_text())["images"]

    before, request = known(), asked()
    assert known() == before and asked() == request
    Image.fromarray(picture()[::-1].copy()).resize((60, 40)).save(folder / "x_0001.png", compress_level=0)
    assert known() != before and asked() != request


def test_folders_whose_files_would_share_a_name_are_told_by_their_paths(tmp_path):
    tree = touch(tmp_path / "tree", *[])
    for folder, name in (("x__y", "z.png"), ("x", "y__z.png")):
        touch(tree / folder, name)
    for find in (lambda: find_inputs(tree, channels=1), lambda: masks_in(tree)):
        with pytest.raises(ValueError, match=r"x/y__z\.png and .*x__y/z\.png") as told:
            find()
        assert "x__y__z" in str(told.value)


def test_numbered_pictures_of_folders_lose_their_channel_number(tmp_path):
    tree = touch(tmp_path / "tree", *[])
    for folder in ("p", "q"):
        touch(tree / folder, "x_0000.png", "x_0001.png")
    inputs, _ = find_inputs(tree, channels=2)
    assert [item.stem for item in inputs] == ["p__x", "q__x"] and inputs[0].read().shape == (40, 60, 2)


# ---------------------------------------------------------------- output


def test_folder_with_other_content_is_never_touched(images, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("three years of work")
    for overwrite in (False, True):
        with pytest.raises(FileExistsError, match="other files"):
            segment(Bright(), images, out, overwrite=overwrite)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_other_results_are_replaced_only_when_told(images, tmp_path, model_folder):
    folder, _, loaded = model_folder
    out = tmp_path / "out"
    segment(folder, images, out, steps=1)
    with pytest.raises(FileExistsError, match="--overwrite"):
        segment(folder, images, out, steps=2)
    assert read_rows(out / "segmentation.csv")[0]["steps"] == 1
    segment(folder, images, out, steps=2, overwrite=True)
    assert read_rows(out / "segmentation.csv")[0]["steps"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "model", "out"]


def test_scores_of_the_masks_before_do_not_lie_beside_others_and_a_file_in_the_way_costs_no_work(
    images, tmp_path, model_folder
):
    folder, _, loaded = model_folder
    out = tmp_path / "out"
    segment(folder, images, out, steps=1)
    for name in ("scores.json", "cases.csv"):  # as `semgan evaluate` does
        (out / name).write_text("of the masks of 1 step")
    (out / "probabilities").write_text("mine")
    options = {"steps": 2, "save_probabilities": True, "overwrite": True}
    with pytest.raises(FileExistsError, match="probabilities was put there by others"):
        segment(folder, images, out, **options)
    (out / "probabilities").rename(tmp_path / "mine")
    rows = segment(folder, images, out, **options)
    assert [row["steps"] for row in rows] == [2] * 5 and loaded[-1].batches == []
    assert not (out / "scores.json").exists() and not (out / "cases.csv").exists()


def test_the_same_command_again_does_nothing(images, tmp_path, model_folder):
    folder, _, loaded = model_folder
    first = segment(folder, images, tmp_path / "out")
    assert segment(folder, images, tmp_path / "out") == first
    assert loaded[1].batches == []


def test_interrupted_run_goes_on_where_it_stopped(images, tmp_path, model_folder):
    folder, load, loaded = model_folder
    load.stop_after = 2
    with pytest.raises(KeyboardInterrupt):
        segment(folder, images, tmp_path / "out", batch=2, threads=1)
    assert not (tmp_path / "out").exists()
    with open(tmp_path / "out.partial" / "rows.jsonl", "a") as rows:
        rows.write('{"stem": "case9", "st')  # the line a kill cut off
    load.stop_after = None
    rows = segment(folder, images, tmp_path / "out", batch=2, threads=1)
    assert sum(loaded[1].batches) < 5 and sum(loaded[0].batches) + sum(loaded[1].batches) >= 5
    assert [row["stem"] for row in rows] == [f"case{number}" for number in range(5)]
    segment(folder, images, tmp_path / "whole")
    for path in (tmp_path / "whole").glob("*.png"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_a_disk_that_is_full_at_the_very_end_costs_no_image(images, tmp_path, model_folder, monkeypatch):
    folder, _, loaded = model_folder

    def full(self):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ResultFolder, "finish", full)
        with pytest.raises(OSError, match="No space"):
            segment(folder, images, tmp_path / "out")
    rows = segment(folder, images, tmp_path / "out")
    assert sum(loaded[0].batches) == 5 and loaded[1].batches == []
    assert rows == segment(folder, images, tmp_path / "out") and len(list((tmp_path / "out").glob("*.png"))) == 5


def test_units_are_for_archives(images, tmp_path, model_folder, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(
            ["segment", "-m", str(model_folder[0]), "-i", str(images), "-o", str(tmp_path / "o"), "--unit-images", "3"]
        )
    assert left.value.code == 2 and "--unit-images is for archives; add --archive" in capsys.readouterr().err


def test_interrupted_work_on_other_images_is_not_mixed_in(images, tmp_path, model_folder):
    folder, load, loaded = model_folder
    load.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        segment(folder, images, tmp_path / "out", batch=2, threads=1)
    load.stop_after = None
    Image.fromarray(255 - picture(40)).save(images / "case0.png")
    segment(folder, images, tmp_path / "out", batch=2, threads=1)
    assert sum(loaded[1].batches) == 5
    assert np.array(Image.open(tmp_path / "out" / "case0.png"))[0, 0] == 1


def test_result_says_what_was_asked(images, tmp_path, model_folder):
    folder, _, _ = model_folder
    segment(folder, images, tmp_path / "out", steps=7)
    asked = json.loads((tmp_path / "out" / "segmentation.json").read_text())
    assert asked["options"]["steps"] == 7 and asked["count"] == 5 and asked["model"]


def test_progress_ends_at_the_total(images, tmp_path):
    seen = []
    segment(Bright(), images, tmp_path / "out", progress=lambda done, total, what: seen.append((what, done, total)))
    assert ("check images", 5, 5) in seen and seen[-1] == ("segment", 5, 5)


# ---------------------------------------------------------------- own size


def test_probabilities_keep_their_sum_and_place_at_any_size():
    probabilities = torch.zeros(2, 32, 32)
    probabilities[1, :, 16:] = 1
    probabilities[0] = 1 - probabilities[1]
    for size in ((100, 70), (10, 12), (32, 32)):
        own = to_own_size(probabilities, size)
        assert own.shape == (2, *size)
        torch.testing.assert_close(own.sum(0), torch.ones(size))
        label = own.argmax(0)
        assert (label[:, : size[1] // 2] == 0).all() and (label[:, size[1] // 2 :] == 1).all()


def test_decoding_runs_at_most_two_batches_ahead(images):
    read = []

    def endless():
        while True:
            read.append(1)
            yield picture()

    answers = segment_images(Bright(), endless(), batch=3, threads=1)
    next(answers)
    assert len(read) <= 6
    answers.close()


def test_a_refused_request_leaves_nothing_behind(images, tmp_path):
    class Refusing(Bright):
        def segment_batch(self, image, *, steps=None, snapshot_steps=()):
            raise ValueError("A U-Net is not optimised at test time.")

    with pytest.raises(ValueError, match="not optimised"):
        segment(Refusing(), images, tmp_path / "out", steps=5)
    assert not list(tmp_path.glob("out*"))


def test_full_disk_keeps_what_was_done_and_shows_no_half_result(images, tmp_path, model_folder, monkeypatch):
    folder, _, loaded = model_folder
    original = Image.Image.save

    def save(picture, path, *rest, **options):
        if "case3" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return original(picture, path, *rest, **options)

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="No space left"):
        segment(folder, images, tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(Image.Image, "save", original)
    assert len(segment(folder, images, tmp_path / "out", threads=1)) == 5
    assert sum(loaded[1].batches) < 5
