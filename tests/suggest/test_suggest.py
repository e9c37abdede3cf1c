"""``semgan suggest`` on small models: who is suggested, what is written, what is refused."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from strange_chests import ALIENS, prepared
from tiny_gan import saved_gan, tiny_gan

import semgan
from semgan import artifacts
from semgan.artifacts import read_json, write_json
from semgan.benchmark.fairness import Guard, TestSetOpened, closed
from semgan.cli import main
from semgan.data.folder import Dataset
from semgan.data.splits import import_splits
from semgan.posterior import latent
from semgan.posterior.calibration import Calibration
from semgan.posterior.run import DEFAULT_TEMPERATURE
from semgan.student_answer import SemganStudent
from semgan.suggest import run as module
from semgan.suggest.measures import entropy
from semgan.suggest.run import BY, suggest


def stems(result):
    return [row["stem"] for row in result["suggestions"]]


@pytest.fixture
def asked(unet, dataset, tmp_path):
    """`suggest` of the U-Net on the dataset, into a new folder each time."""
    number = iter(range(100))

    def ask(count, model=unet, dataset=dataset, **options):
        return suggest(model, tmp_path / f"out_{next(number)}", dataset=dataset, count=count, device="cpu", **options)

    return ask


# ---------------------------------------------------------------- who


@pytest.mark.parametrize("by", ["distance", "diversity"])
def test_the_farthest_in_a_networks_features_comes_first_and_a_patient_once(by, asked):
    rows = asked(12, by=by)["suggestions"]
    assert rows[0]["distance"] == max(row["distance"] for row in rows) > 0
    strangers = [row["rank"] for row in rows if row["group"] == "stranger"]
    assert len(strangers) == 2 and strangers[1] == len(rows)  # when nobody else is left
    assert rows[0]["nearest"] == pytest.approx(rows[0]["distance"], rel=1e-3)


@pytest.mark.parametrize("by", ["distance", "diversity"])
def test_images_of_another_kind_are_suggested_first_and_a_patient_once(by, asked, gan):
    found = asked(2, model=gan, by=by)
    first, second = stems(found)
    assert {first, second} < set(ALIENS) and "alien_2" in (first, second)
    other = next(row for row in found["suggestions"] if row["stem"] != "alien_2")
    assert other["group"] == "stranger"


def test_a_second_image_of_a_patient_comes_when_nobody_else_is_left(asked):
    found = asked(12)
    assert stems(found)[-1] in ALIENS[:2] and "no others are left" in found["suggestions"][-1]["why"]
    assert len(set(stems(found))) == 12


def test_copies_are_not_both_suggested(asked, plain, unet, tmp_path):
    for name in ("one", "two", "three"):
        (tmp_path / "new").mkdir(exist_ok=True)
        shutil.copy(plain / "unlabelled" / "alien_0.png", tmp_path / "new" / f"{name}.png")
    for number in range(3):
        shutil.copy(plain / "unlabelled" / f"unlabelled_{number:05d}.png", tmp_path / "new" / f"other_{number}.png")
    for by in BY[:4]:
        found = stems(asked(4, images=tmp_path / "new", by=by))
        assert len({"one", "two", "three"} & set(found)) == 1, by


@pytest.mark.parametrize("by", BY[:4])
def test_shorter_lists_begin_longer_ones_and_the_batch_does_not_matter(by, asked):
    longer = asked(6, by=by)
    assert stems(asked(3, by=by, batch=5)) == stems(longer)[:3]


def test_entropy_takes_the_least_certain_and_says_so(asked, unet, dataset):
    import torch

    from semgan.data.readers import read_image_files

    opened, model = Dataset.open(dataset), semgan.load(unet, device="cpu")
    cases = opened.unlabelled(3, 0)
    images = torch.stack([model.preprocess(read_image_files(case.image)) for case in cases])
    values = entropy(model.segment_batch(images).probabilities)
    (first,) = asked(1, by="entropy")["suggestions"]
    assert first["stem"] == cases[values.argmax()].stem and first["entropy"] == pytest.approx(values.max(), abs=1e-5)
    assert first["why"].startswith(f"entropy {first['entropy']:.3g} (above 9")


def test_chance_depends_on_the_seed_alone(asked):
    first = stems(asked(5, by="random"))
    assert stems(asked(5, by="random")) == first
    assert any(stems(asked(5, by="random", seed=seed)) != first for seed in (1, 2))


def test_entropy_of_certain_and_of_open_answers():
    import torch

    certain, opened = torch.zeros(1, 2, 2, 2), torch.full((1, 2, 2, 2), 0.5)
    certain[:, 0] = 1
    assert entropy(torch.cat([certain, opened])) == pytest.approx([0, 1], abs=1e-6)


def test_masks_are_never_opened(dataset, unet, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    shutil.rmtree(copy / "cache", ignore_errors=True)
    guard = Guard(frozenset({str(copy / "labelsTr")}), frozenset())
    with closed(guard):
        assert len(stems(suggest(unet, tmp_path / "out", dataset=copy, count=3, device="cpu"))) == 3
    with pytest.raises(TestSetOpened), closed(guard):  # it does look there
        Image.open(next((copy / "labelsTr").iterdir()))


# ---------------------------------------------------------------- generators


def test_a_generator_adds_its_own_measures(asked, gan):
    (row,) = asked(1, model=gan, by="reconstruction")["suggestions"]
    assert row["reconstruction"] == row["gain"] > 0 and row["disagreement"] == 0
    found = asked(12, model=gan, labels=3, by="disagreement", steps=3)["suggestions"]
    assert max(row["disagreement"] for row in found) > 0
    ungrouped = [row["gain"] for row in found if not row["group"] == "stranger"]
    assert ungrouped == sorted(ungrouped, reverse=True)


@pytest.mark.parametrize("rule", [None, {"at_least": 0.0, "checkpoints": [0]}])
def test_disagreement_is_refused_where_the_model_itself_never_optimises(rule, asked, gan, tmp_path):
    still = shutil.copytree(gan, tmp_path / "still")
    about = read_json(still / "config.json")
    about["inversion"] = {"chosen_steps": 0 if rule is None else 4} | ({} if rule is None else {"rule": rule})
    write_json(still / "config.json", about)
    with pytest.raises(ValueError, match="by its own choice does not optimise.* --steps 25"):
        asked(1, model=still, by="disagreement")
    assert asked(1, model=still, by="disagreement", steps=25)["suggestions"][0]["disagreement"] > 0


@pytest.fixture
def few_directions(monkeypatch):
    """A Laplace approximation of low rank: that draws are asked for is looked at here, not how well they are made."""
    monkeypatch.setattr(latent, "LAPLACE_RANK", 2)


def calibrated(model, temperature, slack=0.4):
    Calibration(slack, temperature, 8, {}).write(model)


@pytest.mark.usefixtures("few_directions")
def test_a_calibrated_posterior_is_another_request(gan, plain, tmp_path):
    model = shutil.copytree(gan, tmp_path / "model")
    options = {"images": plain / "unlabelled", "count": 9, "by": "entropy", "posterior": True, "device": "cpu"}

    def entropies(**more):
        found = suggest(model, tmp_path / "out", **options, **more)
        return {row["stem"]: row["entropy"] for row in found["suggestions"]}

    first = entropies()
    assert entropies() == first
    for temperature, slack in ((3e-3, 0.4), (3e-3, 1.0)):
        calibrated(model, temperature, slack)
        with pytest.raises(FileExistsError, match="--overwrite"):
            entropies()
        before, first = first, entropies(overwrite=True)
        assert before != first == entropies()
        asked_for = read_json(tmp_path / "out" / "suggest.json")
        assert (asked_for["temperature"], asked_for["slack"]) == (temperature, slack)


@pytest.mark.usefixtures("few_directions")
def test_the_posterior_of_a_semgan_student_is_its_generators(gan, unet, plain, tmp_path, monkeypatch, caplog):
    both = SemganStudent(semgan.load(gan, device="cpu"), semgan.load(unet, device="cpu"), 0.5, 1.0)
    monkeypatch.setattr(module, "load_identified", lambda model, device: (both, "known"))
    options = {"images": plain / "unlabelled" / "alien_2.png", "count": 1, "posterior": True, "device": "cpu"}
    suggest(gan, tmp_path / "out", **options)
    told = "\n".join(line.getMessage() for line in caplog.records)
    assert "from the generator alone, without the student" in told and "was not calibrated" in told
    assert "semgan calibrate" in told and "--temperature" not in told  # which suggest does not take
    assert read_json(tmp_path / "out" / "suggest.json")["temperature"] == DEFAULT_TEMPERATURE
    model = shutil.copytree(gan, tmp_path / "model")
    calibrated(model, 2e-3)
    suggest(model, tmp_path / "again", **options)
    assert read_json(tmp_path / "again" / "suggest.json")["temperature"] == 2e-3


@pytest.mark.usefixtures("few_directions")
def test_the_posterior_changes_the_entropy_and_its_seed_the_draws(asked, gan, plain):
    options = {"model": gan, "dataset": None, "images": plain / "unlabelled" / "alien_2.png"}
    rows = [asked(1, **options, posterior=True, seed=seed)["suggestions"][0] for seed in (0, 0, 1)]
    values = [row["entropy"] for row in rows]
    assert values[0] == values[1] != values[2]
    assert asked(1, **options)["suggestions"][0]["entropy"] not in values


def test_a_feed_forward_model_is_told_what_it_has_instead(asked, unet):
    for options, asked_for in (({"by": "reconstruction"}, "--by reconstruction"), ({"posterior": True}, "--posterior")):
        with pytest.raises(ValueError, match=f"{asked_for} needs a model with a generator.*--by combined, entropy"):
            asked(1, **options)


# ---------------------------------------------------------------- what is written


def test_the_new_list_is_the_old_one_and_the_suggestions(asked, dataset, unet, plain, quick, tmp_path):
    """Those of imagesUn once they are drawn: the dataset is prepared anew, and takes the list."""
    found = asked(4)
    lists = read_json(tmp_path / "out_0" / "splits.json")
    assert lists["labelled_7_seed0"] == [*sorted(Dataset.open(dataset).splits["labelled_3_seed0"]), *stems(found)]
    assert found["list"]["labels"] == 7 and "alien_2" in found["list"]["waiting"]
    with pytest.raises(ValueError, match="have no image and mask: .*alien_2"):
        import_splits(dataset, tmp_path / "out_0" / "splits.json")
    drawn = shutil.copytree(plain, tmp_path / "drawn")
    for stem in found["list"]["waiting"]:
        shutil.move(drawn / "unlabelled" / f"{stem}.png", drawn / "images" / f"{stem}.png")
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(drawn / "labels" / f"{stem}.png")
        with_masks = (drawn / "manifest.csv").read_text().replace(f"{stem},unlabelled", f"{stem},train")
        (drawn / "manifest.csv").write_text(with_masks)
    anew = prepared(drawn, tmp_path / "anew")
    import_splits(anew, tmp_path / "out_0" / "splits.json")
    labelled = Dataset.open(anew).labelled(7, 0)
    assert {case.stem for case in labelled} == set(lists["labelled_7_seed0"]) and all(case.label for case in labelled)
    again = suggest(unet, tmp_path / "again", dataset=anew, labels=7, split_seed=0, count=2, device="cpu")
    assert not set(stems(again)) & set(lists["labelled_7_seed0"])


def test_no_other_list_is_lost_to_the_new_one(asked, dataset, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    lists = read_json(copy / "splits.json")
    write_json(copy / "splits.json", lists | {"labelled_5_seed0": lists["pool"][:5]})
    found = asked(2, dataset=copy)
    written = read_json(tmp_path / "out_0" / "splits.json")
    assert found["list"]["split_seed"] == 1 and written["labelled_5_seed0"] == lists["pool"][:5]
    assert set(written["labelled_5_seed1"]) == {*lists["labelled_3_seed0"], *stems(found)}
    for name in ("labelled_5_seed0", "labelled_5_seed1"):  # the very list is there now: asked again, it keeps its name
        lists[name] = written[name]
    write_json(copy / "splits.json", lists)
    assert asked(2, dataset=copy)["list"]["split_seed"] == 1


def test_tables_and_sheet_show_the_suggestions(asked, tmp_path):
    found = asked(3)
    out = tmp_path / "out_0"
    rows = list(csv.DictReader((out / "suggestions.csv").open()))
    assert [row["stem"] for row in rows] == stems(found) and [row["rank"] for row in rows] == ["1", "2", "3"]
    assert read_json(out / "suggestions.json") == found
    sheet = np.asarray(Image.open(out / "sheet.png"))
    assert sheet.shape == (2 * 174, 2 * 160, 3) and sheet[174:, 160:].max() == 0 and sheet[14:, :160].max() > 100
    assert not (tmp_path / "out_0.partial").exists() and not (out / "measured").exists()


def test_slices_of_a_volume_are_suggested_together(dataset, unet, tmp_path):
    copy = shutil.copytree(dataset, tmp_path / "copy")
    lines = list(csv.DictReader((copy / "manifest.csv").open()))
    known = {row["stem"]: row for row in lines}
    opened = Dataset.open(copy)
    slices = sorted(opened.pool()) + sorted(opened.files["imagesUn"])
    with open(copy / "manifest.csv", "w", encoding="utf-8") as text:
        text.write("stem,set,group,volume\n")
        for place, stem in enumerate(slices):
            set_name = known.get(stem, {}).get("set", "unlabelled")
            text.write(f"{stem},{set_name},volume_{place // 3},volume_{place // 3}\n")
    lists = {"pool": slices[:6], "labelled_1_seed0": slices[:3], "labels_counted_in": "volume"}
    write_json(copy / "splits.json", lists)
    found = suggest(unet, tmp_path / "out", dataset=copy, labels=1, split_seed=0, count=2, device="cpu")
    assert all(stem.startswith("volume_") for stem in stems(found)) and found["list"]["labels"] == 3
    enlarged = read_json(tmp_path / "out" / "splits.json")["labelled_3_seed0"]
    assert len(enlarged) == 9 and enlarged[:3] == slices[:3]


def test_a_stopped_run_goes_on_with_what_was_measured(asked, unet, dataset, tmp_path, monkeypatch):
    whole = asked(3, batch=4)
    measuring, calls = module.measuring, []

    def failing(*given, **options):
        measure = measuring(*given, **options)

        def counted(image, first):
            calls.append(first)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return measure(image, first)

        return counted

    monkeypatch.setattr(module, "measuring", failing)
    with pytest.raises(KeyboardInterrupt):
        asked(3, batch=4)
    assert not (tmp_path / "out_1").exists()
    found = suggest(unet, tmp_path / "out_1", dataset=dataset, count=3, batch=4, device="cpu")
    assert found == whole and calls == [0, 4, 8, 8, 12]
    assert suggest(unet, tmp_path / "out_1", dataset=dataset, count=3, batch=4, device="cpu") == whole
    assert len(calls) == 5
    with pytest.raises(FileExistsError, match="--overwrite"):
        suggest(unet, tmp_path / "out_1", dataset=dataset, count=2, batch=4, device="cpu")


def test_a_folder_alone_is_enough(unet, plain, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["suggest", "-m", str(unet), "-i", str(plain / "unlabelled"), "-n", "2", "-o", str(out), "--json"]
    assert exit_code([*command, "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(stems(told)) == 2 and told["list"] is None and not (out / "splits.json").exists()


# ---------------------------------------------------------------- what is refused


def exit_code(words):
    with pytest.raises(SystemExit) as left:
        main(words)
    return int(left.value.code or 0)


def test_what_cannot_be_suggested_is_told(asked, dataset, plain, unet, gan, tmp_path):
    with pytest.raises(ValueError, match="99 suggestions .* has 12 unlabelled images beside labelled_3"):
        asked(99)
    with pytest.raises(ValueError, match="no list 'labelled_5_seed0'"):
        asked(1, labels=5)
    with pytest.raises(ValueError, match="Unknown way to suggest 'margin'"):
        asked(1, by="margin")
    with pytest.raises(ValueError, match="from what"):
        suggest(unet, tmp_path / "out", count=1, device="cpu")
    with pytest.raises(ValueError, match="names of images in .*unlabelled_00000"):
        asked(1, images=plain / "unlabelled")
    with pytest.raises(ValueError, match="--steps 0 was asked for.* --steps 25"):
        asked(1, model=gan, by="disagreement", steps=0)
    with pytest.raises(ValueError, match="no stopping rule for --steps auto.* --steps 25"):
        asked(1, model=gan, by="disagreement", steps="auto")
    copy = shutil.copytree(dataset, tmp_path / "copy")
    shutil.rmtree(copy / "imagesUn")
    write_json(copy / "splits.json", {"pool": Dataset.open(dataset).splits["pool"]})
    with pytest.raises(ValueError, match="has no unlabelled images: .*--labels N"):
        asked(1, dataset=copy)
    assert not any(path.name.startswith("out") for path in tmp_path.iterdir())


def test_images_without_numbers_are_told_and_never_ranked(asked, unet, tmp_path):
    broken = shutil.copytree(unet / "model", tmp_path / "broken")
    (file,) = broken.glob("*.safetensors")
    tensors, about = artifacts.load_tensors(file)
    artifacts.save_tensors(file, {name: value * float("nan") for name, value in tensors.items()}, about)
    with pytest.raises(ValueError, match="answers to .* of .* images are no numbers"):
        asked(2, model=broken, by="entropy")


def test_one_of_several_processes_is_refused(asked, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="semgan suggest runs in one process"):
        asked(2)


def test_a_list_that_is_asked_for_has_to_be_there(asked, dataset, tmp_path, caplog):
    """Without one asked for, all masks of another dataset count, and that is told."""
    with pytest.raises(ValueError, match="no list 'labelled_3_seed7'"):
        asked(1, split_seed=7)
    assert "every image with a mask" not in caplog.text
    copy = shutil.copytree(dataset, tmp_path / "copy")
    lists = read_json(copy / "splits.json")
    del lists["labelled_3_seed0"]
    write_json(copy / "splits.json", lists)
    found = asked(1, dataset=copy)
    assert found["list"]["labels"] == len(lists["pool"]) + 1
    assert "no list 'labelled_3_seed0', on which the model was trained: every image with a mask" in caplog.text


def test_a_model_of_other_channels_or_classes_is_refused(asked, dataset, tmp_path):
    colour = saved_gan(tiny_gan(channels=3), tmp_path / "colour")
    with pytest.raises(ValueError, match="images of 1 channels and the model takes 3"):
        asked(1, model=colour)
    faces = saved_gan(tiny_gan(classes=("background", "left", "right")), tmp_path / "faces")
    with pytest.raises(ValueError, match="has the classes background, lung, the model background, left, right"):
        asked(1, model=faces)
