"""Volumes as test sets of a grid, on phantom livers: scored per patient as `semgan evaluate` does, closed before."""

from __future__ import annotations

import copy
import csv
import os

import pytest
import yaml

from semgan import artifacts, results
from semgan.benchmark.cells import cells_of, identity, read_cases
from semgan.benchmark.fairness import TestSetOpened, check_separate, closed, guard_of
from semgan.benchmark.grid import held_out, read_grid
from semgan.benchmark.run import benchmark
from semgan.config import parse_assignments
from semgan.data.folder import Dataset
from semgan.data.phantoms import write_abdomens
from semgan.data.prepare.tasks import prepare_task
from semgan.data.readers import read_image
from semgan.data.splits import write_splits
from semgan.evaluate import evaluate
from semgan.rehearsal import LENGTHS
from semgan.volume_scoring import VolumeSet

pytestmark = pytest.mark.usefixtures("without_reports")
METHODS = ("semgan", "unet")
IN = "T1DUAL_DICOM_anon_InPhase"


@pytest.fixture(scope="module")
def livers(tmp_path_factory):
    """Folder with raw/ (LiTS, CHAOS), data/ (prepared, a list of 2 patients), labels/ (links named as DICOM series)."""
    folder = tmp_path_factory.mktemp("livers")
    raw = write_abdomens(folder / "raw", volumes=8, mri=2, size_px=32, seed=3, workers=1)
    prepare_task("liver", [raw / "LITS17", raw / "CHAOS_Train_Sets"], folder / "data", validation_share=0.25, workers=1)
    write_splits(folder / "data", 2, 0)
    (folder / "labels").mkdir()
    for mask in (folder / "data" / "volumes" / "chaos-in" / "labels").iterdir():
        patient = mask.name.removesuffix("-in.nii.gz").rpartition("-")[2]
        (folder / "labels" / f"{patient}_{IN}.nii.gz").symlink_to(mask)
    return folder


def content(livers, quick):
    settings = parse_assignments(quick) | {"modalities": ["ct", "mri"]}
    settings["preprocessing"] |= {"clip": [-200, 400]}
    for section, images, _ in LENGTHS.values():
        settings[section].pop(images, None)
    volumes = livers / "data" / "volumes"
    series = livers / "raw" / "CHAOS_Train_Sets" / "Train_Sets" / "MR"
    sets = [
        {"name": "ct", "volumes": str(volumes / "lits" / "images"), "labels": str(volumes / "lits" / "labels")},
        {"name": "mri", "volumes": str(series), "labels": str(livers / "labels")},
    ]
    task = {
        "name": "liver",
        "dataset": str(livers / "data"),
        "recipe": "debug",
        "metric": "dice",
        "labels": [2],
        "test_sets": [{**each, "modality": each["name"]} for each in sets],
        "settings": settings,
    }
    return {"methods": list(METHODS), "budget": {"images": 32}, "tasks": [task]}


@pytest.fixture(scope="module")
def finished(livers, quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid")
    path = folder / "grid.yaml"
    path.write_text(yaml.safe_dump(content(livers, quick)))
    return folder / "out", benchmark(path, folder / "out", device="cpu")


def masks_of(out, method, test_set, step):
    return out / "cells" / f"liver-2-{method}-seed0" / "run" / "masks" / test_set / f"steps-{step}"


def test_every_patient_is_a_case_and_scored_as_evaluate_does(livers, finished):
    out, result = finished
    assert [cell.status for cell in result.cells] == ["done", "done"], [cell.problem for cell in result.cells]
    labels = {"ct": livers / "data" / "volumes" / "lits" / "labels", "mri": livers / "labels"}
    rows = [row for row in results.read_rows(out / "scores.csv") if row.test_set in labels]
    assert {(row.method, row.test_set, row.steps) for row in rows if row.chosen} >= {
        ("unet", "ct", 0), ("unet", "mri", 0),
    }  # fmt: skip
    for row in rows:
        masks = masks_of(out, row.method, row.test_set, row.steps)
        found = evaluate(masks, labels[row.test_set], metric="dice", classes=("background", "liver"), out=masks / "x")
        assert row.n == found.n == len(list(labels[row.test_set].iterdir()))
        expected = found.mean if row.class_name == results.MEAN else found.classes[row.class_name]
        assert row.value == pytest.approx(expected, abs=1e-5)


def test_the_bootstrap_is_paired_per_patient(finished):
    """And needs two of them: of the CT one volume is held out."""
    out, _ = finished
    with open(out / "comparisons.csv", newline="") as file:
        numbers = {line["test_set"]: int(line["n"]) for line in csv.DictReader(file)}
    assert numbers == {"mri": 2}
    cells = [read_cases(out / "cells" / f"liver-2-{method}-seed0" / "cases.csv") for method in METHODS]
    ours, theirs = (cases["mri"][0].stems for cases in cells)
    assert ours == theirs and all(stem.endswith(IN) for stem in theirs)


def test_volumes_of_one_patient_are_one_case_where_a_manifest_says_so(livers, finished, tmp_path):
    from semgan.scoring import TrainedModel
    from semgan.volume_scoring import score_volumes

    run = finished[0] / "cells" / "liver-2-unet-seed0" / "run"
    folder = livers / "data" / "volumes" / "chaos-in"
    stems = [path.name.removesuffix(".nii.gz") for path in sorted((folder / "labels").iterdir())]
    (tmp_path / "patients.csv").write_text("stem,patient\n" + "".join(f"{stem},p\n" for stem in stems))
    apart = VolumeSet("in", folder / "images", folder / "labels", "mri")
    together = VolumeSet("in", folder / "images", folder / "labels", "mri", tmp_path / "patients.csv")
    model = TrainedModel(run, device="cpu")
    one, two = (score_volumes(model, each, tmp_path / "masks") for each in (together, apart))
    assert one.stems == ("p",) and two.stems == tuple(stems)
    assert one.counts[0].truth.tolist() == [two.counts[0].truth.sum(0).tolist()]


def test_training_cannot_open_a_volume_its_mask_or_what_a_link_leads_to(livers, tmp_path):
    series = livers / "raw" / "CHAOS_Train_Sets" / "Train_Sets" / "MR"
    dataset = Dataset.open(livers / "data")
    own = next((livers / "data" / "volumes" / "lits" / "labels").iterdir())  # the dataset's, never for training
    elsewhere, link = tmp_path / "elsewhere" / "1.2.3.nii.gz", tmp_path / "links" / "1.nii.gz"
    for path in (elsewhere, link):
        path.parent.mkdir()
    elsewhere.write_bytes(own.read_bytes())
    link.symlink_to(elsewhere)
    guard = guard_of([VolumeSet("mri", series, tmp_path / "links", "mri")], dataset)
    for path in (link, elsewhere, own, next(series.rglob("*.dcm"))):
        with pytest.raises(TestSetOpened, match="Training opened files of a test set"), closed(guard):
            open(path, "rb").close()
        guard.attempts.clear()
    with closed(guard):
        read_image(dataset.labelled(2, 0)[0].image)


def test_test_volumes_may_not_be_those_of_training_nor_hold_the_dataset(livers):
    dataset = Dataset.open(livers / "data")
    patient = dataset.labelled(2, 0)[0].group
    lits = livers / "data" / "volumes" / "lits"
    check_separate([VolumeSet("ct", lits / "images", lits / "labels")], dataset, [])
    with pytest.raises(ValueError, match=f"names 1 volumes of the training pool or the validation list: {patient}"):
        check_separate([VolumeSet("ct", lits / "images", lits / "labels", only=(str(patient),))], dataset, [])
    with pytest.raises(ValueError, match="lies inside .* stays closed while training reads"):
        check_separate([VolumeSet("all", livers, livers / "labels")], dataset, [])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": "x"}, "either 'images' or 'volumes'"),
        ({"volumes": None}, "either 'images' or 'volumes'"),
        ({"volumes": None, "images": "x"}, "'modality' and 'manifest' .* belong to 'volumes'"),
    ],
)
def test_contradictory_test_sets_are_refused(livers, quick, tmp_path, change, message):
    grid = content(livers, quick)
    grid["tasks"][0]["test_sets"][0] |= change
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    with pytest.raises(ValueError, match=message):
        read_grid(tmp_path / "grid.yaml")


def test_a_volume_that_cannot_be_segmented_is_told_with_its_reason(livers, finished, tmp_path):
    from semgan.scoring import TrainedModel
    from semgan.volume_scoring import score_volumes

    source = livers / "data" / "volumes" / "chaos-in"
    (tmp_path / "images").mkdir()
    for path in (source / "images").iterdir():
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
    broken = sorted((tmp_path / "images").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:400])
    model = TrainedModel(finished[0] / "cells" / "liver-2-unet-seed0" / "run", device="cpu")
    with pytest.raises(ValueError, match="Test set 'in': 1 volumes cannot be segmented, for example .*Repair them"):
        score_volumes(model, VolumeSet("in", tmp_path / "images", source / "labels", "mri"), tmp_path / "masks")
    whole = tuple(path.name.removesuffix(".nii.gz") for path in (tmp_path / "images").iterdir() if path != broken)
    chosen = VolumeSet("in", tmp_path / "images", source / "labels", "mri", only=whole)  # without the broken one
    assert sorted(score_volumes(model, chosen, tmp_path / "masks").stems) == sorted(whole)


def test_what_only_volumes_have_is_not_in_the_identity_of_image_cells(livers, quick, tmp_path):
    """So that cells of older grids are gone on with."""
    grid = content(livers, quick)
    pictures = copy.deepcopy(grid)
    pictures["tasks"][0]["test_sets"] = [{"name": "plain", "images": "x", "labels": "y"}]
    found = {}
    for name, each in (("volumes", grid), ("images", pictures)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(each))
        asked = read_grid(tmp_path / f"{name}.yaml")
        found[name] = identity(cells_of(asked)[0], asked)["test_sets"][0]
    keys = {"name", "only", "mapping", "map_predictions", "classes", "mean_over"}
    assert set(found["images"]) == keys and set(found["volumes"]) == keys | {"modality"}


def test_paths_of_volumes_start_at_the_grid_file(livers, quick, tmp_path):
    grid = content(livers, quick)
    grid["tasks"][0]["test_sets"][0] |= {"volumes": "scans", "manifest": "patients.csv"}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    found = held_out(read_grid(tmp_path / "grid.yaml").tasks[0].test_sets[0])
    assert isinstance(found, VolumeSet) and (found.volumes, found.manifest) == (
        tmp_path / "scans", tmp_path / "patients.csv",
    )  # fmt: skip
    assert found.modality == "ct" and os.path.isabs(found.labels)


def test_logs_name_no_place_of_volumes(finished):
    logs = finished[0] / "cells" / "liver-2-unet-seed0" / "logs"
    assert artifacts.read_metrics(logs / "metrics.jsonl") and str(finished[0]) not in (logs / "log.txt").read_text()
