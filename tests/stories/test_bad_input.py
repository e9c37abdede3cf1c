"""Bad input, as people give it on the command line: one message that names file or key and the cure, exit code 2, and
nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semgan.cli import main
from semgan.data.phantoms import write_phantom_dataset
from semgan.data.prepare.folder import prepare_folder

TINY = (
    "--set",
    "perceptual.distance=discriminator",
    "--set",
    "gan.images=64",
    "--set",
    "encoder.images=32",
    "--set",
    "inversion.steps=2",
)


@dataclass(frozen=True)
class Outcome:
    code: int
    message: str
    result: dict


@dataclass(frozen=True)
class Workplace:
    """A folder to work in, with plain folders ``images``, ``labels``, ``unlabelled``; ``semgan(...)`` runs there."""

    path: Path
    semgan: Callable[..., Outcome]

    def prepare(self, *more: str) -> Outcome:
        return self.semgan(
            "data", "prepare", "folder", "--images", "images", "--labels", "labels", "-o", "dataset", *more
        )

    def content(self) -> dict[str, tuple[int, int]]:
        """Everything in the folder: name -> size and time."""
        return {
            str(path.relative_to(self.path)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }

    def refuses(self, *words: str, naming: tuple[str, ...]) -> None:
        """The command ends with code 2 and a message with all of ``naming``; no file is made, changed or lost."""
        before = self.content()
        outcome = self.semgan(*words)
        assert outcome.code == 2, outcome.message
        for name in naming:
            assert name in outcome.message
        assert "Traceback" not in outcome.message
        assert self.content() == before


@pytest.fixture(scope="module")
def plain_folders(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "plain"
    return write_phantom_dataset(folder, "chests", size_px=32, labelled=4, validation=0, unlabelled=4, test=0, seed=1)


@pytest.fixture(scope="module")
def ready_dataset(plain_folders, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "dataset"
    prepare_folder(plain_folders / "images", plain_folders / "labels", out, unlabelled=plain_folders / "unlabelled")
    return out


@pytest.fixture(scope="module")
def ready_run(ready_dataset, tmp_path_factory) -> Path:
    """A finished run of a few steps."""
    run = tmp_path_factory.mktemp("trained") / "run"
    with pytest.raises(SystemExit) as leave:
        main(["train", str(ready_dataset), "-o", str(run), "--recipe", "debug", *TINY])
    assert not leave.value.code
    return run


@pytest.fixture
def work(tmp_path, plain_folders, monkeypatch, capsys) -> Workplace:
    for name in ("images", "labels", "unlabelled"):
        shutil.copytree(plain_folders / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)

    def semgan(*words: str) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as leave:
            main([*words, "--json"])
        out, err = capsys.readouterr()
        return Outcome(int(leave.value.code or 0), err, json.loads(out))

    return Workplace(tmp_path, semgan)


@pytest.fixture
def dataset(work, ready_dataset) -> Path:
    shutil.copytree(ready_dataset, work.path / "dataset")
    return work.path / "dataset"


@pytest.fixture
def run(work, dataset, ready_run) -> Path:
    shutil.copytree(ready_run, work.path / "run")
    return work.path / "run"


def masks_of(work: Workplace) -> list[Path]:
    return sorted((work.path / "labels").iterdir())


def prepare_words(*more: str) -> tuple[str, ...]:
    return ("data", "prepare", "folder", "--images", "images", "--labels", "labels", "-o", "dataset", *more)


def train_words(*more: str) -> tuple[str, ...]:
    return ("train", "dataset", "-o", "run", "--recipe", "debug", *TINY, *more)


# ---------------------------------------------------------------- preparing


def test_good_input_is_accepted(work):
    outcome = work.prepare("--unlabelled", "unlabelled")
    assert outcome.code == 0 and outcome.result["labelled"] == 4 and outcome.result["unlabelled"] == 4
    assert work.semgan("data", "check", "dataset").code == 0


def test_wrong_mask_values_are_named_with_file_and_cure(work):
    mask = masks_of(work)[1]
    pixels = np.array(Image.open(mask))
    pixels[0, 0] = 77
    Image.fromarray(pixels).save(mask)
    work.refuses(*prepare_words(), naming=("77", mask.name, "--mapping"))


def test_unequal_sizes_are_named_with_both_files(work):
    mask = masks_of(work)[0]
    Image.open(mask).resize((20, 24)).save(mask)
    work.refuses(*prepare_words(), naming=(f"labels/{mask.name}", f"images/{mask.name}", "20", "32"))


def test_an_image_without_mask_is_named_when_preparing(work):
    masks_of(work)[2].unlink()
    work.refuses(*prepare_words(), naming=(masks_of(work)[2].stem[:8], "mask", "--unlabelled"))


def test_a_single_labelled_image_is_too_few(work):
    for mask in masks_of(work)[1:]:
        mask.unlink()
        (work.path / "images" / mask.name).unlink()
    work.refuses(*prepare_words(), naming=("at least 2",))


@pytest.mark.parametrize("folder", ["images", "labels", "unlabelled"])
@pytest.mark.parametrize("damage", ["truncated", "corrupt", "empty"])
def test_damaged_files_are_named(work, folder, damage):
    file = sorted((work.path / folder).iterdir())[0]
    content = file.read_bytes()
    file.write_bytes({"truncated": content[: len(content) // 2], "corrupt": b"\x00" * 300, "empty": b""}[damage])
    work.refuses(*prepare_words("--unlabelled", "unlabelled"), naming=(f"{folder}/{file.name}",))


def test_other_files_among_the_images_are_named(work):
    (work.path / "images" / "notes.docx").write_text("minutes of the meeting")
    work.refuses(*prepare_words(), naming=("notes.docx",))


def test_all_problems_come_in_one_go(work):
    first, second = masks_of(work)[:2]
    first.write_bytes(b"no picture")
    Image.open(second).resize((20, 24)).save(second)
    work.refuses(*prepare_words(), naming=(first.name, second.name))


def test_a_dataset_folder_with_other_content_is_left_alone(work):
    (work.path / "dataset").mkdir()
    (work.path / "dataset" / "thesis.txt").write_text("years of work")
    work.refuses(*prepare_words(), naming=("dataset", "-o"))


def test_a_missing_folder_is_named(work):
    words = ("data", "prepare", "folder", "--images", "imags", "--labels", "labels", "-o", "dataset")
    work.refuses(*words, naming=("imags",))


# ---------------------------------------------------------------- a prepared dataset, and training


def test_an_image_without_mask_in_labels_tr_is_found_by_check_and_by_training(work, dataset):
    mask = sorted((dataset / "labelsTr").iterdir())[0]
    mask.unlink()
    work.refuses("data", "check", "dataset", naming=(mask.stem, "mask"))
    work.refuses(*train_words(), naming=(mask.stem, "mask"))


def test_check_lists_damaged_files_and_wrong_values_together(work, dataset):
    broken, wrong = sorted((dataset / "labelsTr").iterdir())[:2]
    broken.write_bytes(b"no picture")
    Image.fromarray(np.full((32, 32), 9, np.uint8)).save(wrong)
    outcome = work.semgan("data", "check", "dataset")
    assert outcome.code == 2
    text = json.dumps(outcome.result["problems"])
    assert broken.name in text and wrong.name in text and outcome.result["errors"] >= 2


def test_more_labels_than_there_are_is_said_with_both_numbers(work, dataset):
    work.refuses("data", "split", "dataset", "--labels", "40", naming=("40", "4"))


def test_a_labelled_list_that_was_not_made_comes_with_the_command_that_makes_it(work, dataset):
    work.refuses(*train_words("--labels", "3"), naming=("labelled_3_seed0", "semgan data split"))


@pytest.mark.parametrize(
    ("change", "key", "suggestion"),
    [("gan.bach=8", "gan.bach", "gan.batch"), ("generater.w_dim=8", "generater", "generator"), ("lr=1", "lr", "")],
)
def test_an_unknown_setting_is_named_with_a_suggestion(work, dataset, change, key, suggestion):
    work.refuses(*train_words("--set", change), naming=(f"'{key}", suggestion))


def test_an_unknown_setting_in_a_recipe_file_is_named_with_the_file(work, dataset):
    (work.path / "mine.yaml").write_text("gan:\n  lerning_rate: 0.1\n")
    words = ("train", "dataset", "-o", "run", "--recipe", "mine.yaml")
    work.refuses(*words, naming=("mine.yaml", "gan.lerning_rate", "gan.learning_rate"))


def test_a_wrong_value_of_a_setting_is_named(work, dataset):
    work.refuses(*train_words("--set", "gan.batch=many"), naming=("gan.batch", "many"))


@pytest.mark.parametrize(
    ("option", "value", "suggestion"), [("--recipe", "debgu", "debug"), ("--method", "unet-strog", "unet-strong")]
)
def test_an_unknown_recipe_or_method_comes_with_a_suggestion(work, dataset, option, value, suggestion):
    work.refuses(*train_words(option, value), naming=(value, suggestion))


def test_a_run_folder_with_other_content_is_left_alone(work, dataset):
    (work.path / "run").mkdir()
    (work.path / "run" / "thesis.txt").write_text("years of work")
    work.refuses(*train_words(), naming=("run", "-o"))


def test_a_run_with_other_settings_is_left_alone(work, run):
    work.refuses(*train_words("--set", "gan.learning_rate=0.01"), naming=("gan.learning_rate", "-o"))


def test_a_file_that_is_no_dataset_is_said(work):
    work.refuses("train", "images", "-o", "run", "--recipe", "debug", naming=("images", "dataset.json"))


# ---------------------------------------------------------------- a trained run


def test_a_checkpoint_of_the_wrong_stage_is_named(work, run):
    checkpoints = sorted((run / "checkpoints").glob("*.safetensors"))
    gan = next(path for path in checkpoints if "gan" in path.name)
    encoder = next(path for path in checkpoints if "encoder" in path.name)
    shutil.copy(gan, encoder)
    shutil.rmtree(run / "model")
    outcome = work.semgan(*train_words())
    assert outcome.code == 2 and encoder.name in outcome.message


def test_a_truncated_checkpoint_is_named(work, run):
    for path in (run / "checkpoints").glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    shutil.rmtree(run / "model")
    outcome = work.semgan(*train_words())
    assert outcome.code == 2 and "checkpoints" in outcome.message


def test_starting_from_a_run_of_another_shape_is_refused(work, run):
    words = ("train", "dataset", "-o", "other", "--recipe", "debug", *TINY, "--init-from", "run")
    before = set(work.content())
    outcome = work.semgan(*words, "--set", "generator.w_dim=24")
    assert outcome.code == 2 and "run" in outcome.message
    assert not any(name.endswith(".safetensors") for name in set(work.content()) - before)


def test_a_damaged_model_is_named(work, run):
    weights = run / "model" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    work.refuses("segment", "-m", "run", "-i", "unlabelled", "-o", "masks", naming=("generator.safetensors",))


def test_a_folder_that_is_no_model_is_said(work):
    work.refuses("segment", "-m", "images", "-i", "unlabelled", "-o", "masks", naming=("images", "config.json"))


def test_segmenting_names_every_image_that_cannot_be_read(work, run):
    first, second = sorted((work.path / "unlabelled").iterdir())[:2]
    first.write_bytes(b"no picture")
    second.write_bytes(second.read_bytes()[:100])
    work.refuses("segment", "-m", "run", "-i", "unlabelled", "-o", "masks", naming=(first.name, second.name))


def test_masks_never_overwrite_other_files(work, run):
    (work.path / "masks").mkdir()
    (work.path / "masks" / "thesis.txt").write_text("years of work")
    work.refuses("segment", "-m", "run", "-i", "unlabelled", "-o", "masks", naming=("masks",))


# ---------------------------------------------------------------- scores


def test_a_missing_prediction_is_an_error_that_names_it(work):
    shutil.copytree(work.path / "labels", work.path / "masks")
    missing = sorted((work.path / "masks").iterdir())[0]
    missing.unlink()
    work.refuses("evaluate", "masks", "labels", "--metric", "dice", naming=(missing.stem,))


def test_predictions_of_another_size_are_named(work):
    shutil.copytree(work.path / "labels", work.path / "masks")
    small = sorted((work.path / "masks").iterdir())[0]
    Image.open(small).resize((16, 16)).save(small)
    work.refuses("evaluate", "masks", "labels", "--metric", "dice", naming=(f"masks/{small.name}", "16 x 16"))


# ---------------------------------------------------------------- no disk space


@pytest.fixture
def full_disk(monkeypatch):
    """Nothing takes its final name any more: what a full disk does at the last moment."""

    def refuse(source, target, *_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(os, "replace", refuse)


def test_a_full_disk_while_preparing_leaves_nothing(work, full_disk):
    work.refuses(*prepare_words(), naming=("space",))


def test_a_full_disk_while_starting_a_run_leaves_no_half_written_file(work, dataset, full_disk):
    outcome = work.semgan(*train_words())
    assert outcome.code == 2 and "space" in outcome.message
    assert not [name for name in work.content() if "tmp" in name]


def in_a_small_disk(folder: Path, kilobytes: int, *words: str) -> subprocess.CompletedProcess:
    """Run semgan with ``folder`` on a file system of this size, then list its files; skips where not permitted."""
    mount = f'mount -t tmpfs -o size={kilobytes}k none "$0" && '
    mounting = ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*mounting, mount + "true", str(folder)]).returncode:
        pytest.skip("needs the right to mount a small file system")
    script = mount + '"$@"; code=$?; echo LEFT; find "$0" -type f; exit $code'
    program = [sys.executable, "-m", "semgan", *words]
    return subprocess.run([*mounting, script, str(folder), *program], capture_output=True, text=True, timeout=200)


def test_a_really_full_disk_while_preparing_leaves_nothing(work):
    small = work.path / "small"
    small.mkdir()
    words = [word if word != "dataset" else "small/dataset" for word in prepare_words()]
    done = in_a_small_disk(small, 20, *words)
    assert done.returncode == 2 and "space" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout.partition("LEFT")[2].strip() == ""


def test_a_really_full_disk_while_training_keeps_the_message_short(work, dataset):
    small = work.path / "small"
    small.mkdir()
    words = [word if word != "run" else "small/run" for word in train_words()]
    done = in_a_small_disk(small, 60, *words)
    assert done.returncode == 2 and "space" in done.stderr and "Traceback" not in done.stderr
    assert ".tmp" not in done.stdout.partition("LEFT")[2]


# ---------------------------------------------------------------- the command itself


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train",), "Missing argument 'dataset'"),
        (("segment", "-m", "run", "-i", "images"), "'--out'"),
        (("train", "dataset", "-o", "run", "--seed", "many"), "'--seed'"),
        (("train", "dataset", "-o", "run", "--sed", "1"), "--sed"),
        (("segmnt",), "segmnt"),
    ],
)
def test_a_mistake_in_the_command_has_its_json_document_too(work, words, told):
    outcome = work.semgan(*words)
    assert outcome.code == 2 and told in outcome.result["error"] and told in outcome.message
    assert "See --help." in outcome.message
