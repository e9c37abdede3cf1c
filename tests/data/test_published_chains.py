"""Every published layout, as a tiny replica among the usual litter, from prepare to a score per test set, as typed."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import raw_replicas as raw
from liver_replicas import write_chaos, write_lits

from semgan.cli import main
from semgan.data.folder import Dataset
from semgan.data.prepare import jsrt
from semgan.data.readers import read_image_files, read_label
from semgan.train import train

PAGE = Path(__file__).parents[2] / "docs/data-sets.md"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Commands run in the test's folder; downloads lie in ``raw/NAME``, as the page supposes."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def no_report(monkeypatch):
    """The report of a run takes half of a chain's time and has tests of its own."""
    monkeypatch.setattr("semgan.train._report", lambda *_: [])


def semgan(*words: object) -> None:
    """The command ends well."""
    with pytest.raises(SystemExit) as leave:
        main([*map(str, words)])
    assert not leave.value.code, words


def documented(task: str) -> list[str]:
    """The one command of docs/data-sets.md that prepares a task, as words after ``semgan``."""
    (line,) = re.findall(rf"^    semgan (data prepare {task} .+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return line.split()


def chain(
    task: str, root: Path, changes: list[str], method: str = "semgan", words: list[str] | None = None
) -> dict[str, float]:
    """Test set -> score, after prepare (``words``, else as documented), check, a short training, segment, evaluate."""
    raw.litter(root)
    words = words or documented(task)
    semgan(*words, "--workers", 1)
    out, run = root / words[-1], root / "run"
    semgan("data", "check", out)
    dataset = Dataset.open(out)
    labels = min(int(name.split("_")[1]) for name in dataset.splits if name.startswith("labelled_"))
    train(out, run, recipe="debug", method=method, labels=labels, changes=changes, device="cpu")
    scores = {}
    for folder in sorted([*out.glob("test_sets/*"), *out.glob("volumes/*")]):
        masks = root / "masks" / folder.name
        modality = {"lits": "ct"}.get(folder.name, "mri") if task == "liver" else None
        more = ["--modality", modality] if modality else []
        more += ["--steps", 1] if method == "semgan" else []
        semgan("segment", "-m", run, "-i", folder / "images", "-o", masks, *more)
        semgan("evaluate", masks, folder / "labels", "--metric", dataset.metric)
        result = json.loads((masks / "scores.json").read_text())
        assert result["images"] == len(list((folder / "labels").iterdir())) > 0
        scores[folder.name] = result["mean"]
    assert all(0 <= score <= 1 for score in scores.values())
    return scores


def test_raw_films_landmarks_and_all_test_sets_of_chests(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(jsrt, "FILM_PX", 64)
    folder = tmp_path / "raw"
    raw.write_raw_jsrt(folder / "jsrt", 64, 6)
    raw.write_montgomery(folder / "montgomery")
    raw.write_shenzhen(folder / "shenzhen")
    raw.write_nih(folder / "xlsor")
    raw.write_chest14(folder / "chestxray14")
    changes = [*quick, "preprocessing.equalise_histogram=true", "preprocessing.gamma=0.5"]
    assert set(chain("chest-xray", tmp_path, changes)) == {"jsrt", "montgomery", "shenzhen", "nih"}
    both = raw.lungs(64)[0] | raw.lungs(64)[1]
    for number in range(1, 7):
        stem = f"JPC{'LN'[number % 2]}N{number:03d}"
        film = read_image_files(tmp_path / f"lungs/imagesTr/{stem}_0000.png")
        assert (film == raw.chest(number, 64, 4095)).all()
        assert (read_label(tmp_path / f"lungs/labelsTr/{stem}.png") == both).mean() > 0.97


def test_all_layouts_of_skin(tmp_path, quick):
    folder = tmp_path / "raw"
    raw.write_isic2018(folder / "isic2018")
    raw.write_isic2020(folder / "isic2020")
    raw.write_ph2(folder / "ph2")
    raw.write_waterloo(folder / "dermis-dermquest")
    changes = [*quick, "preprocessing.channels=3"]
    assert set(chain("skin", tmp_path, changes)) == {"isic2018", "ph2", "dermis", "dermquest"}


def test_isic_2017_and_its_own_test_part(tmp_path, quick):
    words = ["data", "prepare", "skin", str(raw.write_isic2017(tmp_path / "raw")), "-o", "out"]
    assert set(chain("skin", tmp_path, [*quick, "preprocessing.channels=3"], "unet", words)) == {"isic2017"}
    assert [file.name for file in (tmp_path / "masks/isic2017").glob("*.png")] == ["ISIC_0000090.png"]


def test_all_layouts_of_faces(tmp_path, quick):
    folder = tmp_path / "raw"
    raw.write_celebamask(folder / "celebamask-hq", 8)
    raw.write_metfaces(folder, 8)
    raw.put(folder / "more-faces/00000/00001.png", raw.noise(1, 16, 16, 3))
    changes = [*quick, "preprocessing.channels=3"]
    assert set(chain("faces", tmp_path, changes, "unet")) == {"celebamask-hq", "metfaces"}


def test_all_layouts_of_livers(tmp_path, quick):
    folder = tmp_path / "raw"
    write_lits(folder / "lits17", 12, 1)
    write_chaos(folder, (1,), 3)
    shutil.move(folder / "CHAOS_Train_Sets", folder / "chaos")
    changes = ["modalities=[ct, mri]", "preprocessing.clip=[-200, 400]", "inversion.lambda_pixel_mri=1000"]
    assert set(chain("liver", tmp_path, [*quick, *changes])) == {"lits", "chaos-in", "chaos-out"}
