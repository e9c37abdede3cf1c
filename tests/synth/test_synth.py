"""The label factory: what is drawn, what is kept, how it is laid out, and that a stop costs nothing but time."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_model import write_model

from semgan import artifacts
from semgan.cli.synth import _shares
from semgan.data.check import check_dataset
from semgan.data.folder import Dataset
from semgan.sample import sample
from semgan.synth import layouts, rules
from semgan.synth import run as module
from semgan.synth.factory import BLOCK, Factory, mask_movement
from semgan.synth.plan import Plan
from semgan.synth.rules import CALIBRATION, KEPT, Rules
from semgan.synth.run import synth
from semgan.synth.table import Row, read_table, whole_pairs, write_table

PLAN = Plan(restyle=1, restyle_from=4, restyle_limit=0.5)


@pytest.fixture(autouse=True)
def few_trials(monkeypatch):
    """Half the calibration is enough for a tiny network."""
    monkeypatch.setattr(rules, "CALIBRATION", CALIBRATION // 2)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def rows_of(folder: Path) -> list[dict[str, str]]:
    with open(folder / "synth.csv", newline="") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- what is kept


def test_the_doubtful_pairs_are_dropped_and_the_table_says_why(tiny_model, tmp_path):
    summary = synth(tiny_model, tmp_path / "out", Plan(keep_certain=0.6, keep_real=0.7), count=40)
    rows = rows_of(tmp_path / "out")
    limits = summary["rules"]
    for row in rows:
        certain = float(row["entropy"]) <= limits["most_entropy"] * (1 + 1e-5)
        real = float(row["critic_score"]) >= limits["least_critic"] - 1e-5
        assert row["reason"] == ("" if certain and real else "critic" if certain else "entropy")
        assert row["kept"] == str(int(row["reason"] == ""))
    assert summary["pairs"] == sum(row["kept"] == "1" for row in rows) == 40
    assert summary["drawn"] == len(rows) and set(summary["dropped"]) == {"entropy", "critic"}
    assert 0.2 < 40 / len(rows) < 0.7  # 0.42 would be kept of independent measures
    files = {path.stem for path in (tmp_path / "out" / "images").iterdir()}
    assert files == {f"{int(row['index']):06d}" for row in rows if row["kept"] == "1"}


def test_shares_are_those_of_the_masks(tiny_model, tmp_path):
    synth(tiny_model, tmp_path / "out", Plan(keep_certain=1, keep_real=1), count=5)
    for row in rows_of(tmp_path / "out"):
        mask = np.array(Image.open(tmp_path / "out" / "masks" / f"{int(row['index']):06d}.png"))
        assert [float(row[f"share_{name}"]) for name in ("background", "left", "right")] == pytest.approx(
            [(mask == value).mean() for value in range(3)], rel=1e-5
        )


def test_least_shares_hold_in_every_mask_and_impossible_ones_are_told(tiny_model, tmp_path):
    shares = {"left": 0.2}
    synth(tiny_model, tmp_path / "out", Plan(min_share=shares), count=6)
    for path in (tmp_path / "out" / "masks").iterdir():
        assert (np.array(Image.open(path)) == 1).mean() >= 0.2
    with pytest.raises(ValueError, match=r"none of 128 pairs.*largest shares.*left"):
        synth(tiny_model, tmp_path / "none", Plan(min_share={"left": 0.99}), count=6)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def balanced(**frequency: float) -> Rules:
    return Rules(("background", "common", "rare"), frequency=frequency)


def test_balance_keeps_rare_classes_and_thins_out_the_common():
    rule = balanced(common=1.0, rare=0.2, nothing=0.0)
    assert rule.keep_chance(np.array([0.5, 0.5, 0.0])) == pytest.approx(0.2)
    assert rule.keep_chance(np.array([0.5, 0.4, 0.1])) == 1
    assert balanced(common=1.0, rare=0.001, nothing=0.0).keep_chance(np.array([0.5, 0.5, 0])) == rules.FLOOR
    assert rule.keep_chance(np.array([1.0, 0, 0])) == 1  # "nothing" was never seen: rarer than rare
    # A block of pairs that differ in nothing but their number.
    drawn = type("Block", (), {"numbers": range(2000), "entropy": np.zeros(2000), "critic": None})()
    drawn.shares = np.tile([0.5, 0.5, 0.0], (2000, 1))
    kept = rule.judge(drawn, 0).count("")
    assert 0.17 < kept / 2000 < 0.23
    assert rule.judge(drawn, 0) == rule.judge(drawn, 0) != rule.judge(drawn, 1)


@given(st.lists(st.floats(0.01, 1, allow_subnormal=False), min_size=2, max_size=2), st.booleans(), st.booleans())
def test_showing_one_class_more_never_lowers_the_chance(frequencies, common, rare):
    rule = balanced(common=frequencies[0], rare=frequencies[1], nothing=0.1)
    few = np.array([0.8, 0.1 * common, 0.1 * rare])
    more = np.array([0.8, 0.1, 0.1])
    assert 0 < rule.keep_chance(few) <= 1
    if common or rare:
        assert rule.keep_chance(more) >= rule.keep_chance(few)


def test_without_a_critic_entropy_alone_decides_and_that_is_said(tiny_model, tmp_path, caplog):
    bare = shutil.copytree(tiny_model, tmp_path / "bare")
    (bare / "image_critic.safetensors").unlink()
    description = artifacts.read_json(bare / "config.json")
    description["settings"]["perceptual"]["distance"] = "lpips"
    artifacts.write_json(bare / "config.json", description)
    summary = synth(bare, tmp_path / "out", Plan(), count=4)
    assert "no image critic" in caplog.text and summary["critic"] is None
    assert {row["critic_score"] for row in rows_of(tmp_path / "out")} == {""}
    assert set(summary["dropped"]) <= {"entropy"}


def test_the_critic_judges_each_image_alone(tiny_model):
    factory = Factory.load(tiny_model, seed=0, truncation=1.0, device="cpu")
    factory.deviation = 0.3
    critic = factory.critic
    assert critic is not None
    images = factory.model.generate(range(6)).image
    together = factory.scored(images, critic)
    apart = np.concatenate([factory.scored(images[i : i + 1], critic) for i in range(6)])
    assert together == pytest.approx(apart, abs=1e-5)
    factory.deviation = None
    assert factory.scored(images, critic) != pytest.approx(
        np.concatenate([factory.scored(images[i : i + 1], critic) for i in range(6)]), abs=1e-5
    )


def test_truncation_makes_images_more_alike(tiny_model):
    spread = [
        Factory.load(tiny_model, seed=0, truncation=psi, device="cpu").draw(0).images.astype(float).std(0).mean()
        for psi in (0.1, 1.0)
    ]
    assert spread[0] < spread[1]


# ---------------------------------------------------------------- appearances


def test_appearances_keep_the_mask_and_those_whose_own_moves_are_dropped(tiny_model, tmp_path):
    plan = replace(PLAN, restyle=2, restyle_limit=0.2)
    summary = synth(tiny_model, tmp_path / "out", plan, count=12)
    rows = rows_of(tmp_path / "out")
    styles = [row for row in rows if row["style"] != "0"]
    assert len(styles) == 24 and summary["images"] == 12 + sum(row["kept"] == "1" for row in styles)
    for row in styles:
        stem, own = f"{int(row['index']):06d}", f"{int(row['index']):06d}_s{int(row['style']):02d}"
        assert (row["reason"] == "moved") == (float(row["moved"]) > 0.2)
        assert (tmp_path / "out" / "images" / f"{own}.png").is_file() == (row["kept"] == "1")
        if row["kept"] == "1":
            for folder, same in (("masks", True), ("images", False)):
                files = [tmp_path / "out" / folder / f"{name}.png" for name in (stem, own)]
                assert (files[0].read_bytes() == files[1].read_bytes()) is same
    assert {row["reason"] for row in styles} >= {"", "moved"}, "choose a limit that parts them"


def test_the_layer_is_the_coarsest_that_leaves_most_masks_in_place(tiny_model):
    factory = Factory.load(tiny_model, seed=0, truncation=1.0, device="cpu")
    factory.fit_deviation([0], stream=rules.STREAM)
    block = factory.draw(0, stream=rules.STREAM)
    medians = {
        layer: float(np.median(factory.restyle(block, range(BLOCK), 1, layer, stream=rules.STREAM).moved))
        for layer in range(1, factory.layers)
    }
    limit = medians[4]
    found = rules.fit_rules(factory, Plan(restyle=1, restyle_limit=limit)).style_layer
    assert found == min(layer for layer, median in medians.items() if median <= limit) > 1
    with pytest.raises(ValueError, match="--restyle-limit"):
        rules.fit_rules(factory, Plan(restyle=1, restyle_limit=min(medians.values()) / 2))


@pytest.mark.parametrize(("found", "moved"), [([[0, 1], [1, 0]], 0.0), ([[0, 1], [0, 0]], 1 - (2 / 3 + 1 / 2) / 2)])
def test_movement_is_what_is_missing_to_full_overlap(found, moved):
    assert mask_movement(np.array(found), np.array([[0, 1], [1, 0]]), 3) == pytest.approx(moved)


def test_pairs_that_are_no_numbers_are_not_kept():
    rules = Rules(("background", "one"), most_entropy=1.0, least_critic=-1.0)
    assert rules._reason(float("nan"), 0.0) == "entropy" and rules._reason(0.5, float("nan")) == "critic"
    assert rules._reason(0.5, 0.0) == KEPT


# ---------------------------------------------------------------- again, and on


def test_a_longer_run_extends_a_shorter_one_exactly(tiny_model, tmp_path):
    synth(tiny_model, tmp_path / "whole", PLAN, count=30)
    synth(tiny_model, tmp_path / "grown", PLAN, count=7)
    small = content(tmp_path / "grown")
    synth(tiny_model, tmp_path / "grown", PLAN, count=30)
    assert content(tmp_path / "grown") == content(tmp_path / "whole")
    whole = content(tmp_path / "whole")
    assert all(whole[name] == small[name] for name in small if name.endswith(".png"))
    assert whole["synth.csv"].startswith(small["synth.csv"])
    assert content(tmp_path / "grown") != content(_other_seed(tiny_model, tmp_path))


def _other_seed(model: Path, folder: Path) -> Path:
    synth(model, folder / "other", replace(PLAN, seed=1), count=30)
    return folder / "other"


def test_a_full_disk_leaves_whole_pairs_and_the_same_call_goes_on(tiny_model, tmp_path, monkeypatch):
    write = layouts.Layout.write

    def failing(self, folder, stem, image, label_map):
        if int(stem[:6]) >= BLOCK + 8:  # within the second block
            (folder / "images" / f"{stem}.png").write_bytes(b"\x89PNG cut off")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, folder, stem, image, label_map)

    monkeypatch.setattr(layouts.Layout, "write", failing)
    with pytest.raises(OSError, match="No space"):
        synth(tiny_model, tmp_path / "out", PLAN, count=60)
    monkeypatch.undo()
    assert not (tmp_path / "out").exists()
    noted = [row for row in read_table(tmp_path / "out.partial" / "synth.csv") if row.kept]
    assert noted and all((tmp_path / "out.partial" / "masks" / f"{row.member.stem}.png").is_file() for row in noted)
    with open(tmp_path / "out.partial" / "synth.csv", "a") as table:
        table.write("61,0,0,0.1")  # a row cut off
    seen = []
    monkeypatch.setattr(rules, "CALIBRATION", CALIBRATION // 2)
    synth(tiny_model, tmp_path / "out", PLAN, count=60, progress=lambda done, total, what: seen.append((done, total)))
    assert seen[0][0] > 0 and seen[-1] == (60, 60) and not (tmp_path / "out.partial").exists()
    synth(tiny_model, tmp_path / "whole", PLAN, count=60)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


@pytest.mark.parametrize("links", [True, False])
def test_a_kill_while_the_finished_pairs_are_taken_over_forgets_none(tiny_model, tmp_path, monkeypatch, links):
    synth(tiny_model, tmp_path / "whole", PLAN, count=12)
    synth(tiny_model, tmp_path / "out", PLAN, count=7)
    if not links:
        monkeypatch.setattr(os, "link", lambda *names, **more: (_ for _ in ()).throw(OSError("no links here")))
    copy, copied = module.copy_whole, []

    def killed(source, target):
        copied.append(target)
        if Path(target).name == "synth.csv":
            raise KeyboardInterrupt
        return copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(module, "copy_whole", killed)
        with pytest.raises(KeyboardInterrupt):
            synth(tiny_model, tmp_path / "out", PLAN, count=12)
    assert copied and (tmp_path / "out.partial" / "synth.json").is_file()
    seen = []
    synth(tiny_model, tmp_path / "out", PLAN, count=12, progress=lambda done, total, what: seen.append(done))
    assert min(seen) == 7 and content(tmp_path / "out") == content(tmp_path / "whole")


def test_after_a_stop_fewer_may_be_asked_for(tiny_model, tmp_path):
    synth(tiny_model, tmp_path / "whole", PLAN, count=9)
    synth(tiny_model, tmp_path / "more", PLAN, count=20)
    (tmp_path / "more").rename(tmp_path / "out.partial")
    synth(tiny_model, tmp_path / "out", PLAN, count=9)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_the_same_again_changes_nothing_fewer_and_others_are_refused(tiny_model, tmp_path):
    first = synth(tiny_model, tmp_path / "out", Plan(), count=5)
    before = content(tmp_path / "out")
    assert synth(tiny_model, tmp_path / "out", Plan(), count=5) == json.loads(json.dumps(first))
    with pytest.raises(ValueError, match="holds 5 pairs.*--overwrite"):
        synth(tiny_model, tmp_path / "out", Plan(), count=3)
    with pytest.raises(FileExistsError, match="--overwrite"):
        synth(tiny_model, tmp_path / "out", Plan(truncation=0.5), count=5)
    assert content(tmp_path / "out") == before
    assert synth(tiny_model, tmp_path / "out", Plan(), count=3, overwrite=True)["pairs"] == 3


def test_files_of_others_outlive_a_longer_run_and_an_overwritten_one(tiny_model, tmp_path):
    out, plan = tmp_path / "out", Plan(format="nnunet")
    synth(tiny_model, out, plan, count=4)
    for name in ("splits.json", "notes.txt", "imagesTs/test_0000.png", "imagesTr/mine.png"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("keep")
    (out / "cache").mkdir()
    (out / "cache" / "stale.npy").write_text("made again where it is missing")
    for changes, count, overwrite in (({}, 7, False), ({"truncation": 0.5}, 3, True)):
        assert synth(tiny_model, out, replace(plan, **changes), count=count, overwrite=overwrite)["pairs"] == count
        for name in ("splits.json", "notes.txt", "imagesTs/test_0000.png", "imagesTr/mine.png"):
            assert (out / name).read_text() == "keep"
        assert len(list((out / "labelsTr").iterdir())) == count and not (out / "cache").exists()


def test_what_a_killed_writer_left_does_not_reach_the_folder(tiny_model, tmp_path):
    synth(tiny_model, tmp_path / "out", Plan(), count=4)
    whole = content(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "out.partial")
    (tmp_path / "out.partial" / ".annotations.json.tmp-123").write_text('{"half')
    synth(tiny_model, tmp_path / "out", Plan(), count=4)
    assert content(tmp_path / "out") == whole


@pytest.mark.parametrize("damage", ["image", "mask", "empty"])
def test_a_pair_in_the_table_without_its_files_is_drawn_again(tiny_model, tmp_path, damage):
    synth(tiny_model, tmp_path / "whole", PLAN, count=9)
    synth(tiny_model, tmp_path / "out", PLAN, count=6)
    stem = [row.member.stem for row in read_table(tmp_path / "out" / "synth.csv") if row.kept][3]
    file = tmp_path / "out" / ("masks" if damage == "mask" else "images") / f"{stem}.png"
    for count in (9, 9):  # by a longer run, and by the same one again
        file.unlink() if damage != "empty" else file.write_bytes(b"")
        synth(tiny_model, tmp_path / "out", PLAN, count=count)
        assert content(tmp_path / "out") == content(tmp_path / "whole")


def test_a_model_whose_training_broke_down_is_told(tiny_model, tmp_path):
    broken = shutil.copytree(tiny_model, tmp_path / "broken")
    tensors, about = artifacts.load_tensors(broken / "generator.safetensors")
    tensors["heads.0.label_style.weight"] *= float("nan")
    artifacts.save_tensors(broken / "generator.safetensors", tensors, about)
    with pytest.raises(ValueError, match="no numbers"):
        synth(broken, tmp_path / "out", Plan(keep_certain=1), count=2)
    assert {path.name for path in tmp_path.iterdir()} == {"broken"}


def make_row(index: int, style: int, kept: bool) -> Row:
    return Row(index, 0, style, "0.1", "", "", kept, "" if kept else "entropy", ("1", "0"))


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 3), st.integers(0, 60), st.integers(1, 14))
def test_a_table_cut_anywhere_is_read_as_whole_pairs(kept, styles, cut, count):
    rows = []
    for index, keep in enumerate(kept):
        rows += [make_row(index, 0, keep)] + [make_row(index, 1 + k, k % 2 == 0) for k in range(styles * keep)]
    found = whole_pairs(rows[:cut], styles, count)
    assert rows[: len(found)] == found
    assert sum(row.kept and not row.style for row in found) <= count
    for index in {row.index for row in found}:
        assert [row for row in found if row.index == index] == [row for row in rows if row.index == index]


def test_rows_read_back_are_the_rows_written_but_for_a_line_cut_off(tmp_path):
    rows = [make_row(i, 0, i % 2 == 0) for i in range(4)]
    write_table(tmp_path / "t.csv", ("background", "lung, left"), rows)
    assert read_table(tmp_path / "t.csv") == rows
    (tmp_path / "t.csv").write_text((tmp_path / "t.csv").read_text()[:-2])
    assert read_table(tmp_path / "t.csv") == rows[:3]


# ---------------------------------------------------------------- formats


def test_nnunet_is_a_sound_dataset_whose_appearances_stay_together(tiny_model, tmp_path):
    summary = synth(tiny_model, tmp_path / "data", replace(PLAN, format="nnunet"), count=8)
    assert [problem for problem in check_dataset(tmp_path / "data", workers=1) if problem.level == "error"] == []
    dataset = Dataset.open(tmp_path / "data")
    assert len(dataset.cases("train")) == summary["images"] > 8
    assert dataset.labels.names == ("background", "left", "right")
    assert {case.group for case in dataset.cases("train")} == {
        case.stem for case in dataset.cases("train") if "_" not in case.stem
    }
    described = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert described["numTraining"] == summary["images"] and described["file_ending"] == ".png"


def test_images_of_two_channels_are_files_by_channel_and_are_kept_when_work_goes_on(tmp_path):
    model = write_model(tmp_path / "model", channels=2)
    synth(model, tmp_path / "out", Plan(format="nnunet"), count=3)
    synth(model, tmp_path / "out", Plan(format="nnunet"), count=5)
    assert len(list((tmp_path / "out" / "imagesTr").iterdir())) == 10
    lost = next((tmp_path / "out" / "imagesTr").glob("*_0001.png"))
    lost.unlink()
    synth(model, tmp_path / "out", Plan(format="nnunet"), count=5)
    assert lost.is_file()
    assert [problem for problem in check_dataset(tmp_path / "out", workers=1) if problem.level == "error"] == []


def test_coco_reads_back_as_the_masks(tiny_model, tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    synth(tiny_model, tmp_path / "out", Plan(format="coco"), count=4)
    found = COCO(str(tmp_path / "out" / "annotations.json"))
    assert [each["name"] for each in found.loadCats(found.getCatIds())] == ["left", "right"]
    assert len(found.getImgIds()) == 4
    for about in found.loadImgs(found.getImgIds()):
        assert (tmp_path / "out" / about["file_name"]).is_file()
        mask = np.zeros((about["height"], about["width"]), np.uint8)
        for annotation in found.loadAnns(found.getAnnIds(imgIds=about["id"])):
            region = found.annToMask(annotation)
            mask[region > 0] = annotation["category_id"]
            assert annotation["area"] == region.sum()
            rows, columns = np.nonzero(region)
            size = [np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == [columns.min(), rows.min(), *size]
        stem = Path(about["file_name"]).stem
        assert (mask == np.array(Image.open(tmp_path / "out" / "masks" / f"{stem}.png"))).all()


def test_coco_without_its_library_is_told_before_any_work(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pycocotools", None)
    with pytest.raises(ValueError, match=r"semgan\[coco\]"):
        synth(tiny_model, tmp_path / "out", Plan(format="coco"), count=4)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "zip"}, "Unknown format"),
        ({"truncation": 0.0}, "truncation"),
        ({"keep_certain": 1.5}, "keep-certain"),
        ({"min_share": {"lung": 0.1}}, "no class 'lung'.*background, left, right"),
        ({"min_share": {"left": 0.6, "right": 0.6}}, "add up"),
        ({"restyle": 1, "restyle_from": 6}, "layers of w"),
        ({"restyle": -1}, "0 to 99"),
        ({"restyle_from": 2}, "--restyle K"),
        ({"seed": 2**63}, "seed lies from 0"),
    ],
)
def test_wrong_values_are_told_before_any_work(tiny_model, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        synth(tiny_model, tmp_path / "out", Plan(**changes), count=4)
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_draw_and_missing_ones_are_told(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"method": "unet"}')
    with pytest.raises(ValueError, match="'unet'.*cannot draw"):
        synth(tmp_path / "model", tmp_path / "out", Plan(), count=1)
    with pytest.raises(FileNotFoundError, match="No model"):
        synth(tmp_path / "nowhere", tmp_path / "out", Plan(), count=1)


def test_one_of_several_processes_is_refused(tiny_model, tmp_path, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="semgan synth runs in one process"):
        synth(tiny_model, tmp_path / "out", Plan(), count=2)
    with pytest.raises(ValueError, match="semgan sample runs in one process"):
        sample(tiny_model, tmp_path / "out", count=2)
    assert list(tmp_path.iterdir()) == []


def test_a_second_process_on_the_same_folder_is_refused_and_harms_nothing(tiny_model, tmp_path):
    synth(tiny_model, tmp_path / "out", Plan(), count=4)
    (tmp_path / "out").rename(tmp_path / "out.partial")
    before = content(tmp_path / "out.partial")
    with artifacts.locked_folder(tmp_path / "out.partial"):
        with pytest.raises(ValueError, match="Another process is at work in .*out.partial"):
            synth(tiny_model, tmp_path / "out", Plan(), count=6)
        with pytest.raises(ValueError, match="Another process is at work"):  # with a request of its own
            synth(tiny_model, tmp_path / "out", Plan(seed=1), count=6)
        assert content(tmp_path / "out.partial") == before
    assert synth(tiny_model, tmp_path / "out", Plan(), count=6)["pairs"] == 6


def test_a_class_with_two_least_shares_is_refused():
    assert _shares(["eye=0.1", "nose=0.2"]) == {"eye": 0.1, "nose": 0.2}
    with pytest.raises(ValueError, match="'eye' twice"):
        _shares(["eye=0.1", "eye=0.2"])
