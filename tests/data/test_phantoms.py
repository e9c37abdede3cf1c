"""Phantoms: repeatable, with exact masks that hold in every domain, and written as plain folders."""

from __future__ import annotations

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from semgan.data.phantoms import CLASSES, DOMAINS, FAMILIES, phantom, write_phantom_dataset

ALL_DOMAINS = [(family, domain) for family in FAMILIES for domain in DOMAINS[family]]
STANDARD_GEOMETRY = [(family, domain) for family, domain in ALL_DOMAINS if domain != "rotated"]

# Pixels of each class and mean grey of the four quarters. Where drawing is changed on purpose, print new ones and raise
# DRAWING_VERSION in write.py.
GOLDEN_PIXELS = {
    "faces": [[714, 17, 19, 15, 157, 83, 9, 10], [641, 29, 15, 12, 180, 127, 9, 11]],
    "chests": [[863, 161], [770, 254]],
}
GOLDEN_QUARTERS = {
    "faces": [[112.0, 122.3, 122.7, 130.1], [113.2, 130.3, 92.0, 117.3]],
    "chests": [[87.5, 96.3, 125.3, 142.0], [93.7, 107.9, 145.5, 160.9]],
}


def masks(family: str, seeds: range, size_px: int) -> list[np.ndarray]:
    return [phantom(family, seed, size_px=size_px)[1] for seed in seeds]


def quarters(image: np.ndarray) -> list[float]:
    flat = image.astype(float) if image.ndim == 2 else image.mean(2)
    half = len(flat) // 2
    return [
        float(flat[rows, columns].mean())
        for rows in (np.s_[:half], np.s_[half:])
        for columns in (np.s_[:half], np.s_[half:])
    ]


@pytest.mark.parametrize(("family", "domain"), ALL_DOMAINS)
def test_same_seed_gives_the_same_phantom_and_another_seed_another(family, domain):
    image, label = phantom(family, 11, domain=domain, size_px=32)
    again_image, again_label = phantom(family, 11, domain=domain, size_px=32)
    other_image, other_label = phantom(family, 12, domain=domain, size_px=32)
    np.testing.assert_array_equal(image, again_image)
    np.testing.assert_array_equal(label, again_label)
    assert (image != other_image).mean() > 0.3
    assert (label != other_label).any()


def test_a_fresh_process_draws_the_same_phantom():
    program = (
        "import hashlib; from semgan.data.phantoms import phantom;"
        "print(hashlib.sha256(b''.join(a.tobytes() for f in ('faces', 'chests') for a in phantom(f, 5))).hexdigest())"
    )
    ours = {}
    exec(program.replace("print(", "ours.setdefault('sum', "), {"ours": ours})
    theirs = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    assert theirs == ours["sum"]


@pytest.mark.parametrize(("family", "domain"), ALL_DOMAINS)
def test_phantoms_are_uint8_pictures_with_known_classes(family, domain):
    image, label = phantom(family, 3, domain=domain, size_px=48)
    assert image.dtype == label.dtype == np.uint8
    assert image.shape == ((48, 48, 3) if family == "faces" else (48, 48))
    assert label.shape == (48, 48)
    assert set(np.unique(label)) <= set(range(len(CLASSES[family])))
    assert np.ptp(image) > 40, "the picture is nearly empty"


@pytest.mark.parametrize(("family", "domain"), STANDARD_GEOMETRY)
def test_mask_is_the_same_in_every_domain(family, domain):
    for seed in range(6):
        standard_image, standard_label = phantom(family, seed, size_px=32)
        image, label = phantom(family, seed, domain=domain, size_px=32)
        np.testing.assert_array_equal(label, standard_label)
        if domain != DOMAINS[family][0]:
            assert np.abs(image.astype(int) - standard_image).mean() > 10, "the domain looks like the standard one"


def test_rotated_chests_turn_picture_and_mask_together():
    for seed in range(6):
        _, upright = phantom("chests", seed, size_px=64)
        image, turned = phantom("chests", seed, domain="rotated", size_px=64)
        assert (upright != turned).mean() > 0.02
        assert abs(int(upright.sum()) - int(turned.sum())) < 0.25 * upright.sum()
        inside, outside = image[turned == 1].mean(), image[(turned == 0) & (image > 12)].mean()
        assert inside < outside, "the turned mask does not lie on the dark lungs"


def test_small_classes_cover_several_pixels_of_most_faces_at_32_px():
    pixels = np.array([np.bincount(label.ravel(), minlength=8) for label in masks("faces", range(150), 32)])
    present = dict(zip(CLASSES["faces"], (pixels >= 4).mean(0), strict=True))
    for name in ("background", "eye", "eyebrow", "skin", "mouth", "nose"):
        assert present[name] > 0.97, (name, present[name])
    assert present["hair"] > 0.9
    assert present["ear"] > 0.6
    assert np.median(pixels[:, CLASSES["faces"].index("eye")]) >= 10
    assert np.median(pixels[:, CLASSES["faces"].index("eyebrow")]) >= 10


def test_chests_have_two_lungs_of_ordinary_size():
    for label in masks("chests", range(40), 64):
        share = label.mean()
        assert 0.12 < share < 0.5, share
        assert label[:, :32].any() and label[:, 32:].any()


def test_faces_vary_in_position_colour_and_hair():
    drawn = [phantom("faces", seed, size_px=32) for seed in range(60)]
    skin, hair = CLASSES["faces"].index("skin"), CLASSES["faces"].index("hair")
    brightness = [image[label == skin].mean() for image, label in drawn]
    columns = [np.nonzero(label == skin)[1].mean() for _, label in drawn]
    hair_share = [(label == hair).mean() for _, label in drawn]
    assert np.std(brightness) > 20
    assert np.std(columns) > 0.5
    assert min(hair_share) < 0.03 and max(hair_share) > 0.2


@pytest.mark.parametrize("family", FAMILIES)
def test_edges_of_the_mask_lie_on_edges_of_the_picture(family):
    def steps_across_borders(shift: int) -> float:
        total = 0.0
        for seed in range(12):
            image, label = phantom(family, seed, size_px=64)
            grey = image.astype(float).mean(2) if image.ndim == 3 else image.astype(float)
            border = np.roll(label[:, 1:] != label[:, :-1], shift, axis=0)
            border = np.roll(border, shift, axis=1)
            total += np.abs(np.diff(grey, axis=1))[border].mean()
        return total / 12

    exact = steps_across_borders(0)
    assert exact > 1.5 * steps_across_borders(3)
    assert exact > 1.5 * steps_across_borders(-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_phantom_is_the_same_scene_at_every_size(family):
    for seed in range(5):
        _, small = phantom(family, seed, size_px=32)
        _, large = phantom(family, seed, size_px=96)
        assert (large[1::3, 1::3] == small).mean() > 0.999, "the large mask at the small one's pixel centres"


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_phantoms_are_unchanged(family):
    for seed in (0, 1):
        image, label = phantom(family, seed, size_px=32)
        pixels = np.bincount(label.ravel(), minlength=len(CLASSES[family]))
        np.testing.assert_allclose(pixels, GOLDEN_PIXELS[family][seed], atol=2)
        np.testing.assert_allclose(quarters(image), GOLDEN_QUARTERS[family][seed], atol=0.5)


@pytest.mark.parametrize(
    ("family", "keywords", "message"),
    [
        ("cats", {}, "cats.*faces, chests"),
        ("faces", {"domain": "inverted"}, "inverted.*photo, drawing, marble, mosaic"),
        ("chests", {"size_px": 8}, "16 px.*size_px=8"),
        ("chests", {"seed": -1}, "-1"),
    ],
)
def test_impossible_phantoms_are_refused_with_what_is_possible(family, keywords, message):
    arguments = {"seed": 0, **keywords}
    with pytest.raises(ValueError, match=message):
        phantom(family, arguments.pop("seed"), **arguments)


def write_small(out, **keywords):
    request = {"size_px": 16, "labelled": 3, "unlabelled": 4, "validation": 2, "test": 2, "seed": 7, **keywords}
    return write_phantom_dataset(out, "faces", **request)


def test_dataset_holds_the_folders_people_have(tmp_path):
    out = write_small(tmp_path / "new" / "faces")
    images = sorted(path.stem for path in (out / "images").iterdir())
    assert images == sorted(path.stem for path in (out / "labels").iterdir())
    assert len(list((out / "unlabelled").iterdir())) == 4
    for domain in DOMAINS["faces"]:
        for kind in ("images", "labels"):
            assert len(list((out / "test" / domain / kind).iterdir())) == 2
    with open(out / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["stem", "set", "group"]
    assert sorted(row["stem"] for row in rows) == images
    assert [row["set"] for row in rows] == ["train"] * 3 + ["validation"] * 2
    assert len({row["group"] for row in rows}) == 5
    assert json.loads((out / "classes.json").read_text())["classes"]["7"] == "nose"


def test_dataset_masks_are_class_indices_and_shared_between_test_domains(tmp_path):
    out = write_small(tmp_path / "faces")
    for path in (out / "test" / "photo" / "labels").iterdir():
        label = np.asarray(Image.open(path))
        assert label.max() < 8 and label.max() > 0
        for domain in DOMAINS["faces"]:
            np.testing.assert_array_equal(np.asarray(Image.open(out / "test" / domain / "labels" / path.name)), label)


def test_dataset_has_no_phantom_twice(tmp_path):
    out = write_small(tmp_path / "faces")
    pictures = [path for path in out.rglob("*.png") if path.parent.name != "labels"]
    assert len({path.read_bytes() for path in pictures}) == len(pictures) == 3 + 2 + 4 + 2 * len(DOMAINS["faces"])


def test_dataset_does_not_depend_on_workers_and_reports_progress(tmp_path):
    calls = []
    alone = write_small(tmp_path / "alone", progress=lambda done, total: calls.append((done, total)))
    shared = write_small(tmp_path / "shared", workers=2)
    names = sorted(path.relative_to(alone) for path in alone.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(shared) for path in shared.rglob("*") if path.is_file())
    assert all((alone / name).read_bytes() == (shared / name).read_bytes() for name in names)
    assert calls[-1] == (17, 17) and len(calls) == 17


def test_asking_again_returns_the_dataset_untouched_and_never_overwrites_another(tmp_path):
    out = write_small(tmp_path / "faces")
    before = (out / "manifest.csv").stat().st_mtime_ns
    assert write_small(out) == out
    assert (out / "manifest.csv").stat().st_mtime_ns == before
    with pytest.raises(FileExistsError, match="another phantom data set"):
        write_small(out, seed=8)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="other files"):
        write_small(tmp_path / "mine")


def test_interrupted_writing_leaves_nothing_behind(tmp_path):
    def interrupt(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_small(tmp_path / "faces", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_impossible_counts_are_refused(tmp_path):
    with pytest.raises(ValueError, match="labelled.*-1"):
        write_small(tmp_path / "faces", labelled=-1)
    with pytest.raises(ValueError, match="no phantoms"):
        write_small(tmp_path / "faces", labelled=0, unlabelled=0, validation=0, test=0)
    assert list(tmp_path.iterdir()) == []
