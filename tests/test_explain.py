"""`semgan explain`: what it shows is what the inversion did, at each image's own size."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest
from PIL import Image
from tiny_gan import saved_gan, tiny_gan

from semgan.explain import explain
from semgan.metrics import overlap
from semgan.report.pictures import for_eyes, frame, text_px
from semgan.segment import segment


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    gan = tiny_gan(channels=3, classes=("background", "left", "right"))
    return saved_gan(gan, tmp_path_factory.mktemp("m") / "model")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two colour pictures of unequal sizes, with masks."""
    folder = tmp_path_factory.mktemp("explain")
    chance = np.random.default_rng(0)
    for name, size in (("a", (20, 30)), ("b.v2", (33, 17))):
        for kind, high, shape in (("images", 256, (*size, 3)), ("labels", 3, size)):
            (folder / kind).mkdir(exist_ok=True)
            Image.fromarray(chance.integers(0, high, shape, dtype=np.uint8)).save(folder / kind / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def told(model, images, tmp_path_factory):
    out = tmp_path_factory.mktemp("told") / "story"
    formats = ("png", "pdf", "gif", "webp")
    return explain(model, images / "images", out, labels=images / "labels", steps=(3, 0), formats=formats, device="cpu")


def rows_of(out):
    with open(out / "explain.csv", newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_image_has_a_picture_of_every_format(told):
    for stem in ("a", "b.v2"):
        assert Image.open(told.out / f"{stem}.png").size[0] > 300
        assert (told.out / f"{stem}.pdf").read_bytes().startswith(b"%PDF")
        for name in ("gif", "webp"):
            animation = Image.open(told.out / f"{stem}.{name}")
            assert animation.n_frames == 4 and animation.info["loop"] == 0
    assert (told.out / "summary" / "over_steps.png").is_file()


def test_masks_are_those_of_segment_at_the_images_own_size(told, model, images, tmp_path):
    segment(model, images / "images", tmp_path / "masks", steps=3, device="cpu")
    for stem, size in (("a", (20, 30)), ("b.v2", (33, 17))):
        mask = np.array(Image.open(told.out / "masks" / "step_0003" / f"{stem}.png"))
        assert mask.shape == size
        assert np.array_equal(mask, np.array(Image.open(tmp_path / "masks" / f"{stem}.png")))


def test_the_table_has_every_steps_losses_and_the_scores_of_the_masks(told, images):
    rows = rows_of(told.out)
    assert [(row["stem"], row["step"]) for row in rows] == [(s, str(k)) for s in ("a", "b.v2") for k in range(4)]
    assert all(float(row["loss"]) > 0 and float(row["perceptual"]) > 0 for row in rows)
    for row in rows:
        if row["step"] in ("0", "3"):
            mask = np.array(Image.open(told.out / "masks" / f"step_000{row['step']}" / f"{row['stem']}.png"))
            truth = np.array(Image.open(images / "labels" / f"{row['stem']}.png"))
            counts = overlap.count(mask, truth, 3)
            # the defaults' metric: dice; per class and in the mean
            assert float(row["score"]) == pytest.approx(overlap.overall(counts, "dice"), abs=1e-6)
            assert float(row["score right"]) == pytest.approx(overlap.dice(counts)[0, 2], abs=1e-6)
    assert set(told.scores) >= {0, 3}
    own = [float(row["score"]) for row in rows if row["step"] == "3"]
    assert told.scores[3] == pytest.approx(np.mean(own), abs=1e-5)


def test_without_labels_there_are_no_scores(model, images, tmp_path):
    found = explain(model, images / "images" / "a.png", tmp_path / "out", steps=(0,), formats=("webp",), device="cpu")
    assert found.scores == {} and found.images == 1
    assert "score" not in rows_of(tmp_path / "out")[0]
    assert not (tmp_path / "out" / "a.png").exists() and Image.open(tmp_path / "out" / "a.webp").n_frames == 1


def test_a_stopped_work_goes_on_where_it_stopped_and_ends_the_same(told, model, images, tmp_path, monkeypatch):
    from semgan.stages.semantic_gan import SemanticGan

    calls = []
    original = SemanticGan.segment_batch

    def counted(self, image, **options):
        calls.append(len(image))
        return original(self, image, **options)

    def stop(done, total, what):
        if what == "explain" and done == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(SemanticGan, "segment_batch", counted)
    options = {"labels": images / "labels", "steps": (0, 3), "formats": ("webp",), "batch": 1, "device": "cpu"}
    with pytest.raises(KeyboardInterrupt):
        explain(model, images / "images", tmp_path / "out", progress=stop, **options)
    assert not (tmp_path / "out").exists() and calls == [1]
    found = explain(model, images / "images", tmp_path / "out", **options)
    assert calls == [1, 1]  # the first image was not done again
    assert [(row["stem"], row["step"]) for row in found.rows] == [(row["stem"], row["step"]) for row in told.rows]
    assert [row["loss"] for row in found.rows] == pytest.approx([row["loss"] for row in told.rows], rel=1e-3)
    assert found.scores == pytest.approx(told.scores, abs=5e-3)
    assert not (tmp_path / "out.partial").exists()


def test_the_same_request_again_does_nothing_another_is_refused(told, model, images):
    options = {"labels": images / "labels", "formats": ("png", "pdf", "gif", "webp"), "device": "cpu"}
    before = (told.out / "a.png").stat().st_mtime_ns
    again = explain(model, images / "images", told.out, steps=(0, 3), **options)
    assert again.rows == told.rows and (told.out / "a.png").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="--overwrite"):
        explain(model, images / "images", told.out, steps=(0, 2), **options)


def test_images_of_several_channels_show_every_channel(tmp_path):
    gan = tiny_gan(channels=4)
    (tmp_path / "images").mkdir()
    chance = np.random.default_rng(1)
    for channel in range(4):
        Image.fromarray(chance.integers(0, 256, (24, 20), dtype=np.uint8)).save(
            tmp_path / "images" / f"scan_{channel:04d}.png"
        )
    found = explain(gan, tmp_path / "images", tmp_path / "out", steps=(0, 1), formats=("gif",))
    assert found.images == 1 and (tmp_path / "out" / "scan.gif").is_file()
    tiles = for_eyes(np.stack([np.full((5, 3), 10 * value, np.uint8) for value in range(1, 5)], -1))
    assert tiles.shape == (10, 6, 3)
    assert [int(tiles[0, 0, 0]), int(tiles[0, 5, 0]), int(tiles[9, 0, 0]), int(tiles[9, 5, 0])] == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formats": ("png", "mp4")}, "png, pdf, gif, webp.*'mp4'"),
        ({"formats": ()}, "none"),
        ({"steps": (-1, 3)}, "--steps"),
        ({"steps": ()}, "--steps"),
    ],
)
def test_wrong_options_are_said_before_any_work(options, message, model, images, tmp_path):
    with pytest.raises(ValueError, match=message):
        explain(model, images / "images", tmp_path / "out", device="cpu", **options)
    assert not list(tmp_path.iterdir())


def test_a_missing_mask_and_one_of_another_size_are_named(model, images, tmp_path):
    (tmp_path / "labels").mkdir()
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "labels" / "a.png")
    with pytest.raises(ValueError, match=r"no mask for b\.v2"):
        explain(model, images / "images", tmp_path / "out", labels=tmp_path / "labels", device="cpu")
    Image.fromarray(np.zeros((33, 18), np.uint8)).save(tmp_path / "labels" / "b.v2.png")
    with pytest.raises(ValueError, match=r"b\.v2\.png is 18 x 33 px .* 17 x 33 px"):
        explain(model, images / "images", tmp_path / "out", labels=tmp_path / "labels", device="cpu")
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


def test_masks_that_mean_their_foreground_by_1_and_by_255_are_refused_as_evaluate_does(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for stem, value in (("a", 1), ("b", 255)):
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "images" / f"{stem}.png")
        Image.fromarray(np.full((16, 16), value, np.uint8)).save(tmp_path / "labels" / f"{stem}.png")
    with pytest.raises(ValueError, match=r"use 1 \(a\.png\), some 255 \(b\.png\)"):
        explain(tiny_gan(), tmp_path / "images", tmp_path / "out", labels=tmp_path / "labels", steps=(0,))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_masks_that_count_the_classes_in_another_order_are_refused(model, images, tmp_path):
    for kind in ("images", "labels"):
        shutil.copytree(images / kind, tmp_path / kind)
    (tmp_path / "classes.json").write_text('["background", "right", "left"]')
    with pytest.raises(ValueError, match="background, right, left, the model background, left, right"):
        explain(model, tmp_path / "images", tmp_path / "out", labels=tmp_path / "labels", steps=(0,), device="cpu")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_names_with_dollar_signs_and_underscores_are_drawn_as_they_are(tmp_path):
    (tmp_path / "images").mkdir()
    name = "_a $b_$ <i>"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "images" / f"{name}.png")
    gan = tiny_gan(channels=3, classes=("background", "fat $x_$", "_hidden"))
    explain(gan, tmp_path / "images", tmp_path / "out", steps=(0, 1), formats=("png", "pdf", "gif"))
    assert Image.open(tmp_path / "out" / f"{name}.png").size[0] > 300


def test_frames_of_narrow_images_have_room_for_their_words():
    narrow = np.zeros((192, 8, 3), np.uint8)
    cells, caption = [("input", narrow), ("reconstruction", narrow), ("mask", narrow)], "step 400   mIoU 0.123"
    sheet = frame(cells, caption, least_px=text_px([caption]))
    starts = np.flatnonzero((sheet[60] == 0).all(-1))[::8]
    assert (np.diff(starts) >= [text_px(["input"]), text_px(["reconstruction"])]).all()
    assert sheet.shape[1] >= text_px([caption]) + 12
    assert sheet.shape == frame(cells, "", least_px=text_px([caption])).shape


def test_very_wide_images_make_animations_too(model, tmp_path):
    Image.fromarray(np.zeros((4, 500, 3), np.uint8)).save(tmp_path / "wide.png")
    explain(model, tmp_path / "wide.png", tmp_path / "out", steps=(0, 1), formats=("webp", "gif"), device="cpu")
    assert Image.open(tmp_path / "out" / "wide.webp").size[0] <= 16383  # what WebP can hold


def test_images_of_another_channel_count_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    with pytest.raises(ValueError, match="3 channels and the model or dataset expects 4"):
        explain(tiny_gan(channels=4), tmp_path / "images", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_a_model_without_encoder_is_refused_with_the_cure(images, tmp_path):
    folder = saved_gan(tiny_gan(channels=3, encoder=False), tmp_path / "model")
    with pytest.raises(ValueError, match=r"no encoder.*--stage encoder"):
        explain(folder, images / "images", tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_images_do_not_influence_one_another(told, model, images, tmp_path):
    one = images / "images" / "b.v2.png"
    alone = explain(model, one, tmp_path / "out", steps=(0, 3), formats=("webp",), device="cpu")
    together = [row["loss"] for row in told.rows if row["stem"] == "b.v2"]
    assert [row["loss"] for row in alone.rows] == pytest.approx(together, rel=1e-3)


def test_a_model_that_answers_at_once_is_refused(images, tmp_path):
    from semgan.ablate import ablate
    from semgan.baselines.segmenter import NetworkSegmenter
    from semgan.interpolate import interpolate

    feed_forward = NetworkSegmenter.__new__(NetworkSegmenter)
    for verb in (
        lambda out: explain(feed_forward, images / "images", out),
        lambda out: ablate(feed_forward, images, out, vary=["inversion.lambda_pixel=1"]),
        lambda out: interpolate(feed_forward, out, seeds=(1, 2)),
    ):
        with pytest.raises(ValueError, match="feed-forward.*semgan-paper"):
            verb(tmp_path / "out")
    assert not list(tmp_path.iterdir())
