"""What trust says of an archive's images: the columns and values of a folder, in every unit, of one fit only."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semgan import artifacts
from semgan.archive import plan as plans
from semgan.archive.inputs import Source
from semgan.archive.run import forecast, segment_archive
from semgan.archive.unit import OpenUnit
from semgan.cli import main
from semgan.posterior import latent
from semgan.posterior.calibration import Calibration
from semgan.posterior.latent import Budget
from semgan.segment import segment
from semgan.trust import answering
from semgan.trust.answering import TRUST_COLUMNS, posterior_fingerprint
from semgan.trust.choice import Choice
from semgan.trust.fit import FILE, Trust, fit
from semgan.trust.ridge import fit_ridge
from semgan.trust.samples import FIRST, OWN, POSTERIOR, answered
from semgan.trust.signals import SIGNALS

COUNT = 7
PLAIN = ["stem", "unit", "steps", "confidence", "loss", "perceptual", "pixel", "encoder", "seconds"]
JUDGED = [*PLAIN[:-1], *TRUST_COLUMNS, "seconds"]


@pytest.fixture(autouse=True)
def quick_polls(monkeypatch):
    monkeypatch.setattr(plans, "POLL_S", 0.05)
    monkeypatch.setattr("semgan.archive.run.POLL_S", 0.05)
    monkeypatch.setattr("semgan.archive.tables.POLL_S", 0.05)


@pytest.fixture
def pictures(tmp_path):
    """Seven pictures of several sizes, from smooth to noise."""
    chance, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for number in range(COUNT):
        side = 16 + 5 * number
        slope = np.linspace(40, 200, side)[None].repeat(side + 3, 0)
        noisy = slope + chance.normal(0, 12 * number, slope.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"p{number}.png")
    return folder


@pytest.fixture(scope="module")
def trust(gan) -> Trust:
    chance = np.random.default_rng(0)
    images = torch.tensor(chance.uniform(-1, 1, (8, 1, 16, 16)), dtype=torch.float32)
    maps = chance.integers(0, 2, (8, 16, 16)).astype(np.uint8)
    found = fit(answered(gan, images, maps, [str(number) for number in range(8)], "dice"))
    # Few images and wild ones: a wide domain, and a ridge that follows what differs among the pictures.
    share = {"code_distance": np.linspace(0, 2, 50), "foreground": np.linspace(0, 1, 50)}
    return replace(found, score=fit_ridge(share, share["foreground"], 1e-6), domain=replace(found.domain, limit=1e3))


@pytest.fixture
def fitted(gan_folder, trust, pictures, tmp_path):
    """A model folder whose trust flags some of the pictures, and not all."""
    trust.write(gan_folder)
    scores = [row["predicted_score"] for row in segment(gan_folder, pictures, tmp_path / "try", device="cpu")]
    assert max(scores) - min(scores) > 1e-3
    replace(trust, threshold=float(np.median(scores)) + 1e-6).write(gan_folder)
    return gan_folder


def listed(pictures: Path) -> Source:
    """The pictures by a manifest, which keeps an order; file systems do not."""
    manifest = pictures.parent / "list.txt"
    if not manifest.is_file():
        manifest.write_text("".join(f"{path.name}\n" for path in sorted(pictures.iterdir())))
    return Source(str(pictures), str(manifest))


def archived(model, source, out, **options):
    source = source if isinstance(source, Source) else listed(source)
    return segment_archive(model, source, out, device="cpu", **options)


def table(out: Path) -> list[dict[str, str]]:
    with open(out / "segmentation.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def values(row, *without: str) -> dict[str, str]:
    return {name: str(value) for name, value in row.items() if name not in ("unit", "seconds", *without)}


def shards_of(pictures: Path, folder: Path) -> Source:
    """All pictures in one tar."""
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as tar:
        for path in sorted(pictures.iterdir()):
            tar.add(path, path.name)
    return Source(str(folder / "a.tar"))


# ---------------------------------------------------------------- the same as a folder's


@pytest.mark.parametrize("of", ["manifest", "shard"])
def test_an_archive_has_the_columns_and_the_values_of_a_folder(of, fitted, pictures, tmp_path):
    plain = segment(fitted, pictures, tmp_path / "plain", device="cpu")
    source = listed(pictures) if of == "manifest" else shards_of(pictures, tmp_path / "in")
    done = archived(str(fitted), source, tmp_path / "out")
    rows = table(tmp_path / "out")
    assert list(rows[0]) == JUDGED and [name for name in JUDGED if name != "unit"] == list(plain[0])
    assert [values(row) for row in rows] == [values(row) for row in plain]  # the same batch: the same bits
    flagged = sum(row["look_at"] for row in plain)
    assert 0 < flagged < COUNT and done.flagged == flagged
    assert artifacts.read_json(tmp_path / "out" / "summary.json")["flagged"] == flagged


def test_values_do_not_depend_on_units_and_batches(fitted, pictures, tmp_path):
    plain = segment(fitted, pictures, tmp_path / "plain", device="cpu")
    done = archived(fitted, pictures, tmp_path / "out", unit_images=3, batch=2)
    for row, own in zip(table(tmp_path / "out"), plain, strict=True):
        for name in TRUST_COLUMNS:
            assert float(row[name]) == pytest.approx(own[name], abs=1e-3)
    counts = [artifacts.read_json(path) for path in sorted((tmp_path / "out").glob("units/*/unit.json"))]
    assert [count["images"] for count in counts] == [3, 3, 1]
    assert sum(count["flagged"] for count in counts) == done.flagged


def test_signals_are_those_of_a_folder_with_and_without_a_fit(fitted, pictures, tmp_path):
    plain = segment(fitted, pictures, tmp_path / "plain", signals=True, device="cpu")
    archived(fitted, pictures, tmp_path / "out", signals=True)
    assert [values(row) for row in table(tmp_path / "out")] == [values(row) for row in plain]
    (fitted / FILE).unlink()
    done = archived(fitted, pictures, tmp_path / "bare", signals=True)
    assert set(table(tmp_path / "bare")[0]) - set(PLAIN) == set(SIGNALS) - {"disagreement"}
    assert done.flagged is None


def test_chosen_answers_are_those_of_a_folder(fitted, pictures, tmp_path, monkeypatch):
    Calibration(0.6, 1e-2, 2, {}).write(fitted)
    monkeypatch.setattr(answering, "BUDGET", Budget(count=2, chains=1, warmup=0, thin=1))
    monkeypatch.setattr(latent, "LAPLACE_RANK", 1)
    own = segment(fitted, pictures, tmp_path / "own", signals=True, device="cpu")
    far = sorted(row["pixel_distance"] for row in own)
    seen = {"pixel_distance": np.linspace(far[0] - 0.1, far[-1] + 0.1, 101)}
    to = {
        FIRST: fit_ridge(seen, (far[1] + far[2]) / 2 - seen["pixel_distance"], 1e-6),
        POSTERIOR: fit_ridge(seen, seen["pixel_distance"] - (far[-2] + far[-3]) / 2, 1e-6),
    }
    choice = Choice(OWN, to, 0.0, "laplace", posterior_fingerprint(fitted))
    found = Trust.read(fitted)
    assert found is not None
    replace(found, choice=choice).write(fitted)
    plain = segment(fitted, pictures, tmp_path / "plain", choose=True, device="cpu")
    archived(fitted, pictures, tmp_path / "out", choose=True)
    assert {row["answer"] for row in plain} == {OWN, FIRST, POSTERIOR}
    assert [values(row) for row in table(tmp_path / "out")] == [values(row) for row in plain]
    for row in plain:
        with tarfile.open(tmp_path / "out/units/000000/masks.tar") as masks:
            content = masks.extractfile(f"{row['stem']}.png")
            assert content is not None
            assert content.read() == (tmp_path / "plain" / f"{row['stem']}.png").read_bytes()


def test_a_damaged_image_and_one_that_is_refused_leave_the_others_judged(fitted, pictures, tmp_path, monkeypatch):
    plain = {row["stem"]: row for row in segment(fitted, pictures, tmp_path / "plain", device="cpu")}
    for name in ("p1", "p6"):  # p6: a unit of nothing else
        (pictures / f"{name}.png").write_bytes(b"no picture")
    real, sizes = answering.measure, []

    def refusing(segmenter, image, answer, modality=None):
        sizes.append(len(image))
        if len(image) == 3:
            raise ValueError("The inversion diverged for image 0.")
        return real(segmenter, image, answer, modality)

    monkeypatch.setattr(answering, "measure", refusing)
    done = archived(fitted, pictures, tmp_path / "out", unit_images=3)
    assert (done.images, done.failed) == (5, 2) and sizes == [2, 3, 1, 1, 1]
    rows = table(tmp_path / "out")
    assert [row["stem"] for row in rows] == ["p0", "p2", "p3", "p4", "p5"]
    for row in rows:
        for name in TRUST_COLUMNS:
            assert float(row[name]) == pytest.approx(plain[row["stem"]][name], abs=1e-3)
    assert done.flagged == sum(int(row["look_at"]) for row in rows)


# ---------------------------------------------------------------- without a fit


def test_without_a_fit_an_archive_is_as_it_was(gan_folder, pictures, tmp_path):
    done = archived(gan_folder, pictures, tmp_path / "out", unit_images=4)
    out = tmp_path / "out"
    request = artifacts.read_json(out / "archive.json")["request"]
    assert request["options"] == {"steps": None, "modality": None, "masks_only": False}
    assert set(request) == {"format", "model", "inputs", "unit_images", "options"} and request["format"] == 1
    assert list(table(out)[0]) == PLAIN and done.flagged is None
    assert artifacts.read_json(out / "units/000000/unit.json") == {"images": 4, "failed": 0}
    assert set(artifacts.read_json(out / "summary.json")) == {"units", "images", "failed", "state"}


def test_answers_of_other_steps_and_masks_alone_are_not_judged(fitted, trust, pictures, tmp_path, caplog):
    archived(fitted, pictures, tmp_path / "zero", steps=0)
    assert "fitted for answers of steps 2, and these are of steps 0" in caplog.text
    replace(trust, steps=0).write(fitted)
    assert archived(fitted, pictures, tmp_path / "judged", steps=0).flagged is not None
    archived(fitted, pictures, tmp_path / "masks", steps=0, masks_only=True)
    for out in ("zero", "masks"):
        assert not set(TRUST_COLUMNS) & set(table(tmp_path / out)[0])
        assert "trust" not in artifacts.read_json(tmp_path / out / "archive.json")["request"]["options"]
    for asked in ({"signals": True}, {"choose": True}):
        with pytest.raises(ValueError, match="Masks only leaves out what signals and choices are made of"):
            archived(fitted, pictures, tmp_path / "x", steps=0, masks_only=True, **asked)


# ---------------------------------------------------------------- one fit only


def stopped_after_a_unit(model, pictures, out, monkeypatch, **options):
    """A run that ends like a stopped process, with one unit in place."""
    real, done = OpenUnit.finish, []

    def finish(self):
        if done:
            raise KeyboardInterrupt
        done.append(self.span.name)
        return real(self)

    with monkeypatch.context() as patched:
        patched.setattr(OpenUnit, "finish", finish)
        with pytest.raises(KeyboardInterrupt):
            archived(model, pictures, out, unit_images=3, **options)
    return {path: path.stat().st_mtime_ns for path in (out / "units").rglob("*")}


def test_a_stopped_run_goes_on_to_the_same_table(fitted, pictures, tmp_path, monkeypatch):
    archived(fitted, pictures, tmp_path / "whole", unit_images=3)
    kept = stopped_after_a_unit(fitted, pictures, tmp_path / "out", monkeypatch)
    done = archived(fitted, pictures, tmp_path / "out", unit_images=3)
    assert (
        done.own_images == COUNT - 3
        and kept.items() <= {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "units").rglob("*")}.items()
    )
    both = [[values(row) for row in table(tmp_path / name)] for name in ("whole", "out")]
    assert both[0] == both[1]
    again = archived(fitted, pictures, tmp_path / "out", unit_images=3)
    assert (again.own_images, again.flagged) == (0, done.flagged)


def test_results_of_before_a_fit_of_another_and_of_none_are_never_mixed(fitted, trust, pictures, tmp_path, monkeypatch):
    out, known = tmp_path / "out", (fitted / FILE).read_bytes()
    (fitted / FILE).unlink()
    before = stopped_after_a_unit(fitted, pictures, out, monkeypatch)  # the request of an older version is the same
    (fitted / FILE).write_bytes(known)
    with pytest.raises(FileExistsError, match="without predicted scores, of before `semgan trust fit` or of an older"):
        archived(fitted, pictures, out, unit_images=3)
    with pytest.raises(FileExistsError, match="give a new folder with -o"):
        forecast(fitted, listed(pictures), out, unit_images=3, device="cpu")
    assert before == {path: path.stat().st_mtime_ns for path in (out / "units").rglob("*")}
    (fitted / FILE).unlink()
    assert archived(fitted, pictures, out, unit_images=3).images == COUNT  # as the message says
    (fitted / FILE).write_bytes(known)
    stopped_after_a_unit(fitted, pictures, tmp_path / "judged", monkeypatch)
    (fitted / FILE).unlink()
    with pytest.raises(FileExistsError, match=r"judged by a trust\.json that is not used now; give a new folder"):
        archived(fitted, pictures, tmp_path / "judged", unit_images=3)
    replace(trust, threshold=0.123).write(fitted)
    with pytest.raises(FileExistsError, match="results of another `semgan trust fit`; give a new folder with -o"):
        archived(fitted, pictures, tmp_path / "judged", unit_images=3)
    with pytest.raises(FileExistsError, match="another model, other images or other options"):
        archived(fitted, pictures, tmp_path / "judged", unit_images=3, signals=True)


def test_two_workers_give_one_table_of_judged_images(fitted, pictures, tmp_path, monkeypatch):
    plain = segment(fitted, pictures, tmp_path / "plain", batch=1, device="cpu")
    real, written, errors, told = OpenUnit.add, [], [], []

    def add(self, item, row, mask):
        written.append(item.name)
        real(self, item, row, mask)

    def work():
        try:
            told.append(archived(fitted, pictures, tmp_path / "out", unit_images=1))
        except BaseException as error:
            errors.append(error)

    monkeypatch.setattr(OpenUnit, "add", add)
    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and sorted(written) == [f"p{number}" for number in range(COUNT)]  # no image twice
    assert [values(row) for row in table(tmp_path / "out")] == [values(row) for row in plain]
    assert {each.flagged for each in told} == {sum(row["look_at"] for row in plain)}


def test_a_unit_that_was_removed_is_judged_again(fitted, pictures, tmp_path):
    archived(fitted, pictures, tmp_path / "out", unit_images=3)
    rows = table(tmp_path / "out")
    assert all("predicted_score" in row for row in rows)
    shutil.rmtree(tmp_path / "out/units/000001")
    assert archived(fitted, pictures, tmp_path / "out", unit_images=3).own_images == 3
    assert [values(row) for row in table(tmp_path / "out")] == [values(row) for row in rows]


# ---------------------------------------------------------------- command line, memory


def run(*words):
    with pytest.raises(SystemExit) as left:
        main([*map(str, words), "--device", "cpu"])
    return int(left.value.code or 0)


def test_the_command_counts_the_flagged_and_refuses_another_fit(fitted, trust, pictures, tmp_path, capsys):
    words = ("segment", "-m", fitted, "-i", pictures, "-o", tmp_path / "out", "--archive", "--signals", "--json")
    assert run(*words) == 0
    out, err = capsys.readouterr()
    summary = json.loads(out.splitlines()[-1])["summary"]
    flagged = sum(int(row["look_at"]) for row in table(tmp_path / "out"))
    assert summary["flagged"] == flagged and f"{flagged} of {COUNT} images should be looked at" in err
    replace(trust, threshold=0.2).write(fitted)
    assert run(*words) == 2
    message = capsys.readouterr().err
    assert "another `semgan trust fit`" in message and "-o" in message and "Traceback" not in message
    (fitted / FILE).unlink()
    assert run("segment", "-m", fitted, "-i", pictures, "-o", tmp_path / "bare", "--archive") == 0
    assert "looked at" not in capsys.readouterr().err


def test_what_waits_to_be_written_holds_no_images_and_codes(fitted, pictures, tmp_path, monkeypatch):
    from semgan.archive.pipeline import Pipeline

    real, seen = Pipeline._write, []

    def write(self, answered):
        seen.extend(answered.answers)
        real(self, answered)

    monkeypatch.setattr(Pipeline, "_write", write)
    archived(fitted, pictures, tmp_path / "out", unit_images=3)
    assert len(seen) == 3
    for answer in seen:
        assert answer.reconstruction is None and answer.w_plus is None
        assert not answer.snapshots and not answer.reconstructions
