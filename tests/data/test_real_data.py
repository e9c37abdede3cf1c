"""The project's own benchmark data, where they lie beside the checkout: read, never copied."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest

from semgan.config import Preprocessing
from semgan.data.folder import Dataset
from semgan.data.loading import load_labels
from semgan.data.prepare.folder import prepare_folder
from semgan.data.readers import read_image, read_label
from semgan.data.splits import import_splits
from semgan.data.transforms import preprocess

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("SEMGAN_SHARED_DATA", ROOT.parent / "shared" / "data"))
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the benchmark's data are not beside this checkout")


def few(name: str, kind: str, target: Path, count: int = 12, only: set[str] | None = None) -> Path:
    """A folder of links to some files of a set."""
    target.mkdir(parents=True, exist_ok=True)
    files = [file for file in sorted((SHARED / name / kind).iterdir()) if only is None or file.stem in only]
    for file in files[:count]:
        (target / file.name).symlink_to(file)
    return target


@pytest.mark.parametrize("name", ["lungs/kermany", "lungs/hannover", "skin/isic2017", "skin/ph2", "faces/fasseg"])
def test_pairs_of_every_set_are_read(name):
    for mask in sorted((SHARED / name / "masks").iterdir())[:5]:
        (image,) = (SHARED / name / "images").glob(f"{mask.stem}.*")
        assert read_image(image).shape[:2] == read_label(mask).shape


def test_lungs_are_prepared_with_grey_unlabelled_jpegs(tmp_path):
    lungs = SHARED / "lungs/kermany"
    report = prepare_folder(
        few("lungs/kermany", "images", tmp_path / "i"),
        few("lungs/kermany", "masks", tmp_path / "l"),
        tmp_path / "out",
        unlabelled=few("lungs/kermany_unlabelled", "images", tmp_path / "u"),
        test_images=few("lungs/hannover", "images", tmp_path / "ti"),
        test_labels=few("lungs/hannover", "masks", tmp_path / "tl"),
        manifest=lungs / "manifest.csv",
        classes=lungs / "classes.json",
    )
    assert (report.labelled, report.unlabelled, report.test, report.channels) == (12, 12, 12, 1)
    dataset = Dataset.open(tmp_path / "out")
    groups = {row["stem"]: row["patient"] for row in csv.DictReader((lungs / "manifest.csv").open())}
    for case in dataset.labelled(None, 0):
        assert case.group == groups[case.stem]
        assert np.array_equal(read_image(case.image), read_image(lungs / f"images/{case.stem}.png"))
    assert dataset.labels.names == ("background", "lung")
    share = (load_labels(dataset.labelled(None, 0), 64, dataset.labels) == 1).mean()
    assert 0.1 < share < 0.5


def test_faces_are_merged_to_the_papers_eight_classes(tmp_path):
    file = ROOT / "splits/faces.json"
    lists = json.loads(file.read_text())
    prepare_folder(
        few("faces/celebamask", "images", tmp_path / "i", 6),
        few("faces/celebamask", "masks", tmp_path / "l", 6),
        tmp_path / "out",
        classes=file,
        mapping=file,
    )
    dataset = Dataset.open(tmp_path / "out")
    assert list(dataset.labels.names) == lists["classes"] and dataset.channels == 3 and dataset.metric == "miou"
    for case in dataset.labelled(None, 0):
        original = read_label(SHARED / f"faces/celebamask/masks/{case.stem}.png")
        assert np.array_equal(read_label(case.label), np.array(lists["from_19"])[original])


@pytest.mark.parametrize("name", ["lungs", "skin", "faces"])
def test_the_published_lists_fit_their_sets(name, tmp_path):
    """Without decoding: a folder of empty files with the sets' names."""
    file = ROOT / f"splits/{name}.json"
    lists = json.loads(file.read_text())
    out = tmp_path / "out"
    for folder, source in (("imagesTr", "images"), ("labelsTr", "masks")):
        (out / folder).mkdir(parents=True)
        for path in (SHARED / lists["set"] / source).iterdir():
            (out / folder / (f"{path.stem}_0000.png" if source == "images" else f"{path.stem}.png")).touch()
    (out / "imagesUn").mkdir()
    if "unlabelled_extra" in lists:
        for path in (SHARED / lists["unlabelled_extra"]["set"] / "images").iterdir():
            (out / f"imagesUn/{path.stem}_0000.png").touch()
    names = lists.get("classes", ["background", "object"])
    description = {"channel_names": {"0": "grey"}, "file_ending": ".png", "labels": {n: i for i, n in enumerate(names)}}
    (out / "dataset.json").write_text(json.dumps(description))
    if (SHARED / lists["set"] / "manifest.csv").exists():
        (out / "manifest.csv").write_text((SHARED / lists["set"] / "manifest.csv").read_text())
    import_splits(out, file)
    dataset = Dataset.open(out)
    smallest = {"lungs": 9, "skin": 40, "faces": 30}[name]
    assert dataset.metric == lists["metric"]
    assert len(dataset.test()) == len(lists["test"]) and len(dataset.validation()) == len(lists["validation"])
    extra = len(lists.get("unlabelled_extra", {"stems": []})["stems"])
    for seed in range(3):
        assert len(dataset.labelled(smallest, seed)) == smallest
        assert len(dataset.unlabelled(smallest, seed)) == len(lists["pool"]) - smallest + extra


def test_the_lungs_preprocessing_evens_out_exposure():
    rule = Preprocessing(size_px=64, equalise_histogram=True, gamma=0.5)
    folders = [SHARED / name / "images" for name in ("lungs/kermany", "lungs/hannover")]
    for file in (file for folder in folders for file in sorted(folder.iterdir())[:6]):
        # Equalised grey levels are uniform, and the mean of the root of a uniform variable is two thirds; less where
        # a part of the picture is exactly black.
        assert 0.5 < preprocess(read_image(file), rule).mean() / 255 < 0.7
