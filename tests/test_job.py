"""What every method trains from: the right images, no mask that is not its own."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from semgan import config
from semgan.artifacts import RunFolder
from semgan.data import loading
from semgan.data.folder import Dataset
from semgan.data.readers import read_image_files, read_label
from semgan.data.shifts import MIXED, shifted
from semgan.data.splits import write_splits
from semgan.data.transforms import preprocess, resize_label
from semgan.job import TrainingJob, load_pixels, shifted_validation

SETTINGS = config.override(config.Settings(), {"preprocessing": {"size_px": 16}, "classes": ["background", "lung"]})


@pytest.fixture
def job(tiny_dataset, tmp_path):
    def job(**changes):
        settings = config.override(SETTINGS, changes)
        dataset = Dataset.open(tiny_dataset)
        cache, pixels = load_pixels(dataset, settings)
        run, device = RunFolder(tmp_path / "run"), torch.device("cpu")
        return TrainingJob(settings, dataset.labels, run, device, images=cache.images, **pixels)

    return job


def test_labelled_unlabelled_and_validation_images_are_told_apart(job):
    found = job()
    assert (len(found.labelled), len(found.unlabelled), len(found.validation)) == (6, 6, 3)
    rows = [set(pixels.rows.tolist()) for pixels in (found.labelled, found.unlabelled, found.validation)]
    assert not (rows[0] & rows[1] or rows[0] & rows[2] or rows[1] & rows[2])
    assert found.labelled.label_maps.shape == (6, 16, 16) and found.unlabelled.label_maps is None


def test_only_masks_of_labelled_and_validation_cases_are_opened(tiny_dataset, monkeypatch):
    write_splits(tiny_dataset, labels=2, split_seed=5)
    dataset = Dataset.open(tiny_dataset)
    opened = []
    read = loading.read_label
    monkeypatch.setattr(loading, "read_label", lambda path: opened.append(path) or read(path))
    _, pixels = load_pixels(dataset, config.override(SETTINGS, {"labels": 2, "split_seed": 5}))
    expected = [case.label for case in dataset.labelled(2, 5) + dataset.validation()]
    assert sorted(opened) == sorted(expected)
    assert len(pixels["labelled"]) == 2 and len(pixels["unlabelled"]) == 10


def test_masks_to_learn_from_may_be_finer_than_the_network(tiny_dataset):
    """Of labelled cases alone: validation scores are told at the network's size."""
    dataset = Dataset.open(tiny_dataset)
    fine = config.override(SETTINGS, {"data": {"fine_labels": 2}})
    pixels = load_pixels(dataset, fine)[1]
    stored = [read_label(case.label) for case in dataset.labelled(None, 0)]
    assert np.array_equal(pixels["labelled"].fine_maps, np.stack(stored))  # 32 px, as the dataset has them
    assert pixels["labelled"].label_maps.shape[1:] == (16, 16) and pixels["validation"].fine_maps is None
    assert load_pixels(dataset, SETTINGS)[1]["labelled"].fine_maps is None


def test_streams_show_the_images_they_are_named_for(job):
    found = job(data={"mirror": False})
    labelled = found.labelled_stream("labelled", moved=False)
    assert len(labelled) == 6
    batch = labelled.batch(0, 6)
    assert sorted(batch.label_map.sum((1, 2)).tolist()) == sorted(found.labelled.label_maps.sum((1, 2)).tolist())
    assert len(found.image_stream("images", with_labelled=True)) == 12
    assert len(found.image_stream("images", with_labelled=False)) == 6


def test_labelled_pairs_are_moved_only_where_asked(job):
    found = job(data={"mirror": False})
    still, again, moved = (found.labelled_stream("labelled", moved=moved).batch(0, 6) for moved in (False, False, True))
    assert torch.equal(still.image, again.image)
    assert not torch.allclose(still.image, moved.image, atol=0.05)


def test_unlabelled_images_are_moved_as_often_as_the_labelled_ones(job):
    never = job(data={"mirror": False, "affine_probability": 0.0})
    still, asked = (
        never.image_stream("images", with_labelled=True, moved=moved).batch(0, 12) for moved in (False, True)
    )
    torch.testing.assert_close(asked.image, still.image, atol=1e-4, rtol=0)
    moved = job(data={"mirror": False}).image_stream("images", with_labelled=True, moved=True).batch(0, 12)
    assert not torch.allclose(moved.image, still.image, atol=0.05)


def test_without_unlabelled_images_the_labelled_ones_take_their_place(job):
    found = job()
    bare = TrainingJob(**{**vars(found), "unlabelled": type(found.unlabelled)(np.zeros(0, np.int64))})
    assert len(bare.image_stream("images", with_labelled=False)) == 6


def test_validation_scores_are_one_for_the_truth_and_use_no_more_cases_than_allowed(job):
    found = job(run={"validation_cases": 2})
    shown = []

    def truth(image):
        maps = torch.from_numpy(found.validation.label_maps[len(shown) : len(shown) + len(image)]).long()
        shown.extend(image)
        return torch.nn.functional.one_hot(maps, 2).permute(0, 3, 1, 2).float()

    assert found.validate(truth) == pytest.approx(1.0)
    assert len(shown) == 2


def test_a_dataset_without_validation_list_says_what_that_means(tiny_dataset, monkeypatch, caplog):
    monkeypatch.setattr(Dataset, "validation", lambda self: [])
    with caplog.at_level(logging.WARNING, logger="semgan"):
        _, pixels = load_pixels(Dataset.open(tiny_dataset), SETTINGS)
    assert "no validation list" in caplog.text and len(pixels["validation"]) == 0


def test_shifted_validation_images_are_the_same_for_every_seed_and_method(tiny_dataset):
    dataset = Dataset.open(tiny_dataset)
    first = shifted_validation(dataset, SETTINGS, 75)
    other_settings = config.override(SETTINGS, {"seed": 7, "method": "unet", "split_seed": 3})
    other = shifted_validation(dataset, other_settings, 2)
    assert len(other.images) == 2 and np.array_equal(first.images[:2], other.images)
    assert np.array_equal(first.label_maps[:2], other.label_maps)
    assert first.images.shape == (3, 1, 16, 16) and first.images.dtype == np.uint8 and first.groups is None


def test_shifted_validation_images_are_those_of_the_list_under_the_rule_of_the_model(tiny_dataset, job):
    dataset, plain = Dataset.open(tiny_dataset), job().scored
    case = dataset.validation()[0]
    image, label = shifted(read_image_files(case.image), read_label(case.label), MIXED, seed=0, number=0)
    found = shifted_validation(dataset, SETTINGS, 75)
    assert np.array_equal(found.images[0], preprocess(image, SETTINGS.preprocessing))
    assert np.array_equal(found.label_maps[0], resize_label(label.astype(np.uint8), 16))
    assert not np.array_equal(found.images, plain.images)
