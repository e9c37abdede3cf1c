"""`semgan interpolate`: walks have the right ends and the right shape, and their smoothness is measured rightly."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_gan import saved_gan, tiny_gan
from torch.testing import assert_close

from semgan import interpolate as module
from semgan.artifacts import load_tensors
from semgan.data.whole_images import Input
from semgan.interpolate import interpolate, lerp, probability_moved, slerp
from semgan.report import strips


@pytest.fixture(scope="module")
def gan():
    return tiny_gan(channels=3)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    chance = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(chance.integers(0, 256, (30, 20, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


def codes(numbers) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


vectors = st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=3, max_size=3).filter(
    lambda values: math.hypot(*values) > 0.1
)


@given(vectors, vectors, st.floats(0, 1, allow_subnormal=False))
def test_great_circles_have_constant_length_and_even_speed(first, second, t):
    a, b = codes([first]), codes([second])
    cosine = float(torch.nn.functional.cosine_similarity(a, b))
    if abs(cosine) > 0.999:
        return
    found = slerp(a, b, codes([[t]]))
    assert float(found.norm()) == pytest.approx(math.sqrt(3))
    angle = math.acos(float(torch.nn.functional.cosine_similarity(a, found).clamp(-1, 1)))
    assert angle == pytest.approx(t * math.acos(cosine), abs=1e-6)


def test_equal_and_opposite_directions_have_no_circle_but_points():
    a = codes([[1.0, 2.0, 2.0]])
    assert_close(slerp(a, 2 * a, codes([[0.3]])), a / 3 * math.sqrt(3))
    assert bool(slerp(a, -a, codes([[0.3]])).isfinite().all())


def test_lines_in_w_plus_are_straight():
    a, b = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    assert_close(lerp(a, b, codes([[[0.25]]])), torch.full((1, 2, 3), 0.25, dtype=torch.float64))


def test_probability_that_moves_is_counted_once():
    before = torch.tensor([1.0, 0.0])[None, :, None, None].expand(1, 2, 2, 2)
    after = before.clone()
    after[0, :, 0, 0] = torch.tensor([0.0, 1.0])
    assert_close(probability_moved(before, after), torch.tensor([0.25]))


@pytest.fixture(scope="module")
def walked(gan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("walk")
    model = saved_gan(gan, folder / "model")
    found = interpolate(
        model, folder / "out", space="z", seeds=(4, 9, 2), frames=4, points=6,
        formats=("png", "pdf", "gif", "webp"), device="cpu",
    )  # fmt: skip
    return model, folder / "out", found


def test_strips_video_table_and_numbers_are_written(walked):
    _, out, found = walked
    for name in ("strips", "changes"):
        assert Image.open(out / f"{name}.png").size[0] > 300
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open(out / "video.gif").n_frames == Image.open(out / "video.webp").n_frames == 5 + 4
    with open(out / "frames.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert [row["t"] for row in rows[:5]] == ["0.000000", "0.250000", "0.500000", "0.750000", "1.000000"]
    assert rows[0]["image_change"] == "" and all(float(row["image_change"]) > 0 for row in rows[1:5])
    assert len(rows) == 10 and rows[5]["walk"] == "seed 9 to seed 2"
    assert found == json.loads((out / "smoothness.json").read_text())
    assert "not LPIPS" in found["distance"] and found["evenness"]["seed 4 to seed 9"] >= 1
    low, high = found["path_length_interval"]
    assert low <= found["path_length"] <= high


def test_seeds_are_those_of_sample(walked, gan):
    _, out, _ = walked
    ends, _ = load_tensors(out / "codes.safetensors")
    with torch.no_grad():
        expected = gan.generator.broadcast(gan.generator.mapping(ends["codes"]))
        noise_free = gan.generator.synthesis(expected).image
        sampled = gan.generate([4, 9, 2]).image
    # The same code; sample adds noise of its own to it.
    assert float((noise_free - sampled).abs().max()) <= 0.2 * float((noise_free[0] - noise_free[1]).abs().max()) + 1e-5


def test_a_table_of_a_straight_walk_sums_up_to_the_detour(walked):
    _, out, found = walked
    with open(out / "frames.csv", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["walk"] == "seed 4 to seed 9"]
    total = sum(float(row["mask_change"]) for row in rows[1:])
    detour = found["detour"]["seed 4 to seed 9"]
    assert detour is None or (detour >= 1 - 1e-6 and total >= 0)


def test_path_length_is_that_of_the_definition_and_does_not_depend_on_the_step(gan, monkeypatch):
    walker = module._Walker(gan, "w+", 1.0, None)
    lengths, masks = module._path_lengths(walker, None, 5, 0)
    # A generator whose image is its code: the distance of a line's points is known.
    monkeypatch.setattr(walker, "draw", lambda code: (code.float(), code.float()[:, :, None, None, 0].softmax(1)))
    monkeypatch.setattr(walker, "distance", lambda a, b: (a - b).double().square().sum((1, 2)))
    a, b = (walker.random(range(5), stream=f"path_length/{name}").double() for name in ("from", "to"))
    plain, _ = module._path_lengths(walker, None, 5, 0)
    assert plain == pytest.approx((a - b).square().sum((1, 2)).numpy(), rel=1e-2)
    monkeypatch.undo()
    monkeypatch.setattr(module, "EPSILON", 3e-3)
    coarse, coarse_masks = module._path_lengths(walker, None, 5, 0)
    assert coarse.mean() == pytest.approx(lengths.mean(), rel=0.1)
    assert coarse_masks.mean() == pytest.approx(masks.mean(), rel=0.05)


def test_embedded_images_and_random_codes_make_one_walk(gan, pictures, tmp_path):
    found = interpolate(
        gan, tmp_path / "out", space="w+", seeds=(1,), images=[pictures / "a.png", pictures / "b.png"], frames=2,
        steps=2, points=4, formats=("png",),
    )  # fmt: skip
    assert list(found["evenness"]) == ["seed 1 to a", "a to b"] and found["of"] == "the walks shown"
    ends = load_tensors(tmp_path / "out" / "codes.safetensors")[0]["codes"]
    images = torch.stack([gan.preprocess(np.array(Image.open(pictures / f"{name}.png"))) for name in "ab"])
    assert_close(ends[1:], gan.segment_batch(images, steps=2).w_plus)
    assert bool((ends[0] == ends[0, :1]).all())  # a random code is the same in every layer


def test_images_of_one_name_are_told_apart_by_their_folders(gan, pictures, tmp_path):
    files = []
    for folder, name in (("here", "a.png"), ("there", "b.png"), ("else where", "a.png")):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "_$x_$.png")
        files[-1].write_bytes((pictures / name).read_bytes())
    out = tmp_path / "out"
    found = interpolate(
        gan, out, space="w+", images=[*files, pictures / "b.png"], frames=2, steps=0, points=0, formats=("png", "gif")
    )
    walks = ["here/_$x_$ to there/_$x_$", "there/_$x_$ to else where/_$x_$", "else where/_$x_$ to b"]
    assert list(found["evenness"]) == list(found["detour"]) == walks
    with open(out / "frames.csv", newline="") as lines:
        assert list(dict.fromkeys(row["walk"] for row in csv.DictReader(lines))) == walks


def test_more_walks_than_colours_are_said_to_be_left_out_of_the_plot(gan, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    said = []
    monkeypatch.setattr(Figure, "supxlabel", lambda self, text, **style: said.append(text))
    interpolate(gan, tmp_path / "out", seeds=range(10), frames=1, points=0, formats=("png",))
    assert said == ["the first 8 of 9 walks; all of them are in frames.csv"]


def test_strips_of_many_walks_show_the_first_of_them(gan, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    said = []
    monkeypatch.setattr(Figure, "supxlabel", lambda self, text, **style: said.append(text))
    monkeypatch.setattr(strips, "MOST_WALKS", 2)
    interpolate(gan, tmp_path / "out", seeds=range(4), frames=1, points=0, formats=("png",))
    assert said == ["the first 2 of 3 walks"]


def test_without_points_nothing_is_measured_at_random(gan, tmp_path):
    found = interpolate(gan, tmp_path / "out", seeds=(1, 2), frames=1, points=0, formats=("gif",))
    assert found["path_length"] is None and found["evenness"] == {"seed 1 to seed 2": 1.0}


def test_the_same_request_again_does_nothing_another_is_refused(walked):
    model, out, found = walked
    before = (out / "strips.png").stat().st_mtime_ns
    options = {"frames": 4, "points": 6, "formats": ("png", "pdf", "gif", "webp"), "device": "cpu"}
    assert interpolate(model, out, space="z", seeds=(4, 9, 2), **options) == found
    assert (out / "strips.png").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="--overwrite"):
        interpolate(model, out, space="z", seeds=(4, 9, 3), **options)


def test_codes_of_a_stopped_walk_are_not_searched_again(gan, pictures, tmp_path, monkeypatch):
    model = saved_gan(gan, tmp_path / "model")
    options = {"space": "w+", "images": [pictures], "frames": 1, "steps": 1, "points": 0, "formats": ("gif",)}

    def stop(done, total, what):
        if what == "walk":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interpolate(model, tmp_path / "out", progress=stop, device="cpu", **options)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("semgan.stages.semantic_gan.invert", None)
    assert list(interpolate(model, tmp_path / "out", device="cpu", **options)["evenness"]) == ["a to b"]


def test_an_image_is_known_by_all_its_channel_files(tmp_path):
    for name in ("a_0000.png", "a_0001.png"):
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    item = Input("a", tmp_path / "a_0000.png", in_channel_files=True)
    before = module._digest(item)
    Image.fromarray(np.ones((4, 4), np.uint8)).save(tmp_path / "a_0001.png")
    assert module._digest(item) != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": (1,)}, "two codes; got 1"),
        ({"space": "w+", "images": ["a.png"]}, "two codes; got 0 seeds and 1 images"),
        ({"space": "z", "images": ["a.png", "b.png"]}, "W\\+, not into Z"),
        ({"space": "w"}, "z or w\\+; got 'w'"),
        ({"seeds": (1, -2)}, "from 0 to"),
        ({"seeds": (1, 2**64)}, "from 0 to"),
        ({"truncation": float("nan")}, "truncation of 0 or more"),
        ({"formats": ("mp4",)}, "'mp4'"),
        ({"frames": 0}, "1 step or more"),
    ],
)
def test_wrong_requests_are_said_before_any_work(options, message, gan, pictures, tmp_path):
    changed = dict(options)
    changed["images"] = [pictures / name for name in options.get("images", ())]
    with pytest.raises(ValueError, match=message):
        interpolate(gan, tmp_path / "out", **changed)
    assert not list(tmp_path.iterdir())


def test_random_codes_need_no_encoder_images_do(pictures, tmp_path):
    gan = tiny_gan(channels=3, encoder=False)
    assert interpolate(gan, tmp_path / "out", space="w+", frames=1, points=0, formats=("gif",))["space"] == "w+"
    with pytest.raises(ValueError, match="no encoder"):
        interpolate(gan, tmp_path / "other", space="w+", images=[pictures])
