"""X-rays as DICOM through the verbs: masks like those of PNG, DICOM SEG where asked for, no patient in any output."""

import json
import sys

import numpy as np
import pydicom
import pytest
import torch
from dicom_files import header, write_picture, write_series
from PIL import Image

import semgan
from semgan import artifacts, cli
from semgan.config import Preprocessing
from semgan.data.check import check_dataset
from semgan.data.folder import Dataset
from semgan.data.prepare.folder import prepare_folder
from semgan.data.readers import read_image, read_image_files, read_label
from semgan.data.splits import write_splits
from semgan.data.transforms import preprocess, to_unit
from semgan.evaluate import evaluate
from semgan.segment import read_rows, segment
from semgan.train import train
from semgan.types import LabelSpace, Segmentation


class Bright:
    """Bright is lung."""

    labels = LabelSpace(("background", "lung"))

    def preprocess(self, image, modality="default"):
        return to_unit(torch.from_numpy(preprocess(image, Preprocessing(size_px=32))))

    def segment_batch(self, image, *, steps=None, snapshot_steps=()):
        foreground = torch.sigmoid(20 * image.mean(1, keepdim=True))
        found = torch.cat([1 - foreground, foreground], 1)
        return Segmentation(found, found.amax(1).mean((1, 2)))


def chest(seed=0, shape=(48, 32)):
    """A film of 12 bits and its mask: a bright block somewhere."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, np.uint8)
    top, left = rng.integers(4, 16), rng.integers(4, 12)
    mask[top : top + 24, left : left + 16] = 1
    pixels = np.where(mask, 3000, 400) + rng.integers(-200, 200, shape)
    pixels[0, :2] = 0, 4095
    return pixels.astype(np.uint16), mask


def same_masks(one, other):
    names = sorted(path.name for path in one.glob("*.png"))
    assert names and names == sorted(path.name for path in other.glob("*.png"))
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


@pytest.fixture
def films(tmp_path):
    """Films as hospitals export them: MONOCHROME1 and 2, names without ending, a directory and a report beside."""
    folder = tmp_path / "films"
    write_picture(folder / "a.dcm", chest(0)[0], bits=12)
    write_picture(folder / "1.2.840.5", 4095 - chest(1)[0], "MONOCHROME1", bits=12)
    Image.fromarray(chest(2)[0]).save(folder / "c.png")
    report = header("1.2.840.10008.5.1.4.1.1.88.11", "SR")
    report.save_as(folder / "report", enforce_file_format=True)
    return folder


def test_films_give_the_masks_that_their_pngs_give(films, tmp_path, caplog):
    plain = tmp_path / "plain"
    plain.mkdir()
    for number, stem in enumerate(("a", "1.2.840.5", "c")):
        Image.fromarray(chest(number)[0]).save(plain / f"{stem}.png")
    options = {"overlay": True, "save_probabilities": True}
    rows = segment(Bright(), films, tmp_path / "out", **options)
    segment(Bright(), plain, tmp_path / "expected", **options)
    assert [row["stem"] for row in rows] == ["1.2.840.5", "a", "c"]
    assert same_masks(tmp_path / "out", tmp_path / "expected")
    assert same_masks(tmp_path / "out" / "overlays", tmp_path / "expected" / "overlays")
    assert np.load(tmp_path / "out/probabilities/1.2.840.5.npz")["probabilities"].shape == (2, 48, 32)
    mask = read_label(tmp_path / "out" / "a.png")
    assert mask.shape == (48, 32) and (mask == chest(0)[1]).mean() > 0.98
    assert "left out (1)" in caplog.text and "report" in caplog.text


def test_one_film_is_enough_and_two_of_one_stem_are_too_many(films, tmp_path):
    (row,) = segment(Bright(), films / "1.2.840.5", tmp_path / "out")
    assert row["stem"] == "1.2.840.5" and (tmp_path / "out" / "1.2.840.5.png").is_file()
    write_picture(films / "c.dcm", chest(2)[0], bits=12)
    with pytest.raises(ValueError, match="c.dcm and c.png would both be written as c.png"):
        segment(Bright(), films, tmp_path / "more")


def test_broken_films_and_films_among_slices_are_refused_before_any_work(films, tmp_path):
    (films / "cut.dcm").write_bytes((films / "a.dcm").read_bytes()[:-99])
    (films / "secret.dcm").write_bytes(b"secret" * 50)
    with pytest.raises(ValueError) as error:
        segment(Bright(), films, tmp_path / "out")
    assert "2 of 5 images" in str(error.value) and "cut.dcm: its pixels" in str(error.value)
    assert "secret.dcm is no readable DICOM file" in str(error.value)
    with pytest.raises(ValueError, match="report holds no image: it is Basic Text SR Storage"):
        segment(Bright(), films / "report", tmp_path / "out")
    write_series(films, np.zeros((2, 4, 4)))
    with pytest.raises(ValueError, match="holds pictures .* and volumes .IM0000.dcm."):
        segment(Bright(), films, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_dicom_seg_is_drawn_on_its_film_and_can_be_read_as_a_mask(films, tmp_path):
    pytest.importorskip("highdicom")
    with pytest.raises(ValueError, match="drawn on DICOM images, and .*c.png is none"):
        segment(Bright(), films, tmp_path / "out", dicom_seg=True)
    (films / "c.png").unlink()
    segment(Bright(), films, tmp_path / "out", dicom_seg=True)
    for name, source in (("a", "a.dcm"), ("1.2.840.5", "1.2.840.5")):
        found = pydicom.dcmread(tmp_path / "out" / f"{name}.dcm")
        referred = found.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID
        assert referred == pydicom.dcmread(films / source).SOPInstanceUID
        assert np.array_equal(
            read_label(tmp_path / "out" / f"{name}.dcm"), read_label(tmp_path / "out" / f"{name}.png")
        )


def test_dicom_seg_of_films_needs_its_package(films, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(ValueError, match=r"pip install 'semgan\[dicom\]'"):
        segment(Bright(), films / "a.dcm", tmp_path / "out", dicom_seg=True)
    assert not list(tmp_path.glob("out*"))


# ---------------------------------------------------------------- own data


def write_own_data(root, count=4):
    """Films in sub-folders of patients, masks as PNG, a directory of the disc beside."""
    for number in range(count):
        pixels, mask = chest(number)
        write_picture(root / "images" / f"p{number}" / "IM1", pixels, bits=12, WindowCenter=2048, WindowWidth=4096)
        (root / "labels" / f"p{number}").mkdir(parents=True)
        Image.fromarray(mask * 255).save(root / "labels" / f"p{number}" / "IM1.png")
    directory = header("1.2.840.10008.1.3.10")
    del directory.SOPClassUID
    directory.save_as(root / "images" / "files", enforce_file_format=True)  # a DICOMDIR, renamed
    return root


def test_own_films_are_prepared_trained_on_segmented_and_scored(tmp_path, quick, capsys):
    root = write_own_data(tmp_path)
    write_picture(tmp_path / "more" / "x.dcm", chest(9)[0], bits=12)
    command = ["data", "prepare", "folder", "--images", str(root / "images"), "--labels", str(root / "labels")]
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--unlabelled", str(tmp_path / "more"), "-o", str(tmp_path / "dataset"), "--workers", "1"])
    assert left.value.code == 0, capsys.readouterr().err
    dataset = Dataset.open(tmp_path / "dataset")
    assert list(dataset.files["imagesTr"]) == [f"p{number}__IM1" for number in range(4)]
    stored = read_image_files(dataset.files["imagesTr"]["p1__IM1"])
    assert stored.dtype == np.uint16 and np.array_equal(stored, read_image(root / "images/p1/IM1"))
    assert [problem for problem in check_dataset(dataset.path, workers=1) if problem.level == "error"] == []
    write_splits(dataset.path, 2)
    assert train(dataset.path, tmp_path / "run", recipe="debug", labels=2, changes=quick, device="cpu").finished
    for number in range(2):
        write_picture(tmp_path / "new" / f"n{number}.dcm", chest(10 + number)[0], bits=12)
        (tmp_path / "truth").mkdir(exist_ok=True)
        Image.fromarray(chest(10 + number)[1]).save(tmp_path / "truth" / f"n{number}.png")
    segment(tmp_path / "run", tmp_path / "new", tmp_path / "out", steps=1, device="cpu")
    assert [row["stem"] for row in read_rows(tmp_path / "out/segmentation.csv")] == ["n0", "n1"]
    result = evaluate(tmp_path / "out", tmp_path / "truth", metric="dice")
    assert result.n == 2 and 0 <= result.mean <= 1
    for file in (*dataset.path.rglob("*"), *(tmp_path / "run").rglob("*"), *(tmp_path / "out").rglob("*")):
        assert not file.is_file() or b"Doe^Jane" not in file.read_bytes(), file


def test_a_dicom_seg_is_a_mask_for_training_and_slices_and_masks_among_films_are_told(tmp_path):
    pytest.importorskip("highdicom")
    root = write_own_data(tmp_path)
    segment(Bright(), root / "images/p3/IM1", tmp_path / "out", dicom_seg=True)
    expected = read_label(tmp_path / "out" / "IM1.png")
    (root / "labels/p3/IM1.png").unlink()
    (tmp_path / "out" / "IM1.dcm").rename(root / "labels/p3/IM1.dcm")
    prepare_folder(root / "images", root / "labels", tmp_path / "dataset", workers=1, mapping=[0, 1] + [1] * 254)
    assert np.array_equal(read_label(tmp_path / "dataset/labelsTr/p3__IM1.png"), expected)
    (root / "labels/p3/IM1.dcm").rename(root / "images/p3/mask.dcm")
    write_series(root / "images", np.zeros((1, 4, 4)))
    write_picture(root / "images" / "film.dcm", chest(5)[0])
    write_picture(root / "labels/p3/IM1.dcm", chest(3)[0])
    with pytest.raises(ValueError) as error:
        prepare_folder(root / "images", root / "labels", tmp_path / "again", workers=1)
    message = str(error.value)
    assert "images/IM0000.dcm is a volume among pictures" in message
    assert "mask.dcm is a DICOM SEG, which --images does not take" in message
    assert "labels/p3/IM1.dcm is a picture, which --labels does not take" in message


def test_the_command_takes_films(films, tmp_path, monkeypatch, capsys):
    artifacts.save_model(tmp_path / "model", {"method": "bright"}, {}, "card")
    monkeypatch.setattr(semgan, "load", lambda path, device="auto": Bright(), raising=False)
    with pytest.raises(SystemExit) as left:
        cli.main(["segment", "-m", str(tmp_path / "model"), "-i", str(films), "-o", str(tmp_path / "out"), "--json"])
    assert left.value.code == 0
    assert [row["stem"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["1.2.840.5", "a", "c"]
