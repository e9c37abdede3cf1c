"""Every published layout, as a tiny replica among the usual litter, from prepare to a score per test set, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import raw_replicas as raw
from liver_replicas import write_chaos, write_lits

from semgan.cli import main
from semgan.data.folder import Dataset
from semgan.data.prepare import jsrt
from semgan.data.readers import read_image_files, read_label
from semgan.train import train


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """The report of a run takes half of a chain's time and has tests of its own."""
    monkeypatch.setattr("semgan.train._report", lambda *_: [])


def semgan(*words: object) -> None:
    """The command ends well."""
    with pytest.raises(SystemExit) as leave:
        main([*map(str, words)])
    assert not leave.value.code, words


def chain(task: str, folders, root: Path, changes: list[str], method: str = "semgan") -> dict[str, float]:
    """Test set -> score, after prepare, check, a few steps of training, segment and evaluate."""
    raw.litter(root)
    out, run = root / "out", root / "run"
    semgan("data", "prepare", task, *folders, "-o", out, "--workers", 1)
    semgan("data", "check", out)
    dataset = Dataset.open(out)
    labels = min(int(name.split("_")[1]) for name in dataset.splits if name.startswith("labelled_"))
    train(out, run, recipe="debug", method=method, labels=labels, changes=changes, device="cpu")
    scores = {}
    for folder in sorted([*out.glob("test_sets/*"), *out.glob("volumes/*")]):
        masks = root / "masks" / folder.name
        modality = {"lits": "ct"}.get(folder.name, "mri") if task == "liver" else None
        words = ["--modality", modality] if modality else []
        words += ["--steps", 1] if method == "semgan" else []
        semgan("segment", "-m", run, "-i", folder / "images", "-o", masks, *words)
        semgan("evaluate", masks, folder / "labels", "--metric", dataset.metric)
        result = json.loads((masks / "scores.json").read_text())
        assert result["images"] == len(list((folder / "labels").iterdir())) > 0
        scores[folder.name] = result["mean"]
    assert all(0 <= score <= 1 for score in scores.values())
    return scores


def test_raw_films_landmarks_and_all_test_sets_of_chests(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(jsrt, "FILM_PX", 64)
    folders = [*raw.write_raw_jsrt(tmp_path, 64, 6), raw.write_montgomery(tmp_path), raw.write_shenzhen(tmp_path)]
    folders += [raw.write_nih(tmp_path), raw.write_chest14(tmp_path)]
    changes = [*quick, "preprocessing.equalise_histogram=true", "preprocessing.gamma=0.5"]
    assert set(chain("chest-xray", folders, tmp_path, changes)) == {"jsrt", "montgomery", "shenzhen", "nih"}
    both = raw.lungs(64)[0] | raw.lungs(64)[1]
    for number in range(1, 7):
        stem = f"JPC{'LN'[number % 2]}N{number:03d}"
        film = read_image_files(tmp_path / f"out/imagesTr/{stem}_0000.png")
        assert (film == raw.chest(number, 64, 4095)).all()
        assert (read_label(tmp_path / f"out/labelsTr/{stem}.png") == both).mean() > 0.97


def test_all_layouts_of_skin(tmp_path, quick):
    folders = [raw.write_isic2018(tmp_path), raw.write_isic2020(tmp_path), raw.write_ph2(tmp_path)]
    folders += raw.write_waterloo(tmp_path)
    changes = [*quick, "preprocessing.channels=3"]
    assert set(chain("skin", folders, tmp_path, changes)) == {"isic2018", "ph2", "dermis", "dermquest"}


def test_isic_2017_and_its_own_test_part(tmp_path, quick):
    changes = [*quick, "preprocessing.channels=3"]
    assert set(chain("skin", [raw.write_isic2017(tmp_path)], tmp_path, changes, "unet")) == {"isic2017"}
    names = {file.name for file in (tmp_path / "masks/isic2017").glob("*.png")}
    assert names == {"ISIC_0000090.png"}


def test_all_layouts_of_faces(tmp_path, quick):
    raw.put(tmp_path / "ffhq/00000/00001.png", raw.noise(1, 16, 16, 3))
    folders = [raw.write_celebamask(tmp_path, 8), raw.write_metfaces(tmp_path, 8), tmp_path / "ffhq"]
    changes = [*quick, "preprocessing.channels=3"]
    assert set(chain("faces", folders, tmp_path, changes, "unet")) == {"celebamask-hq", "metfaces"}


def test_all_layouts_of_livers(tmp_path, quick):
    folders = [write_lits(tmp_path, 12, 1), write_chaos(tmp_path, (1,), 3)]
    changes = ["modalities=[ct, mri]", "preprocessing.clip=[-200, 400]", "inversion.lambda_pixel_mri=1000"]
    assert set(chain("liver", folders, tmp_path, [*quick, *changes])) == {"lits", "chaos-in", "chaos-out"}
