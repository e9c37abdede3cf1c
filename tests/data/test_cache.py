import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from plain_folders import picture, ready_dataset, save

from semgan.config import Preprocessing
from semgan.data import cache as cache_module
from semgan.data.cache import open_cache
from semgan.data.folder import Dataset
from semgan.data.readers import read_image_files
from semgan.data.transforms import preprocess
from semgan.types import Case

RULE = Preprocessing(size_px=16, equalise_histogram=True, gamma=0.5)


@pytest.fixture
def path(tmp_path):
    return ready_dataset(tmp_path, count=5, extra=4)


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded from now on (in this process)."""
    seen = []

    def noting(file):
        seen.append(file.name)
        return read_image_files(file)

    monkeypatch.setattr(cache_module, "read_image_files", noting)
    return seen


def test_every_row_is_the_preprocessed_picture_of_its_case(path):
    cases = Dataset.open(path).everything()
    cache = open_cache(path, cases, RULE, workers=1)
    assert cache.images.shape == (9, 1, 16, 16) and cache.images.dtype == np.uint8
    for case, row in zip(cases, cache.rows(cases), strict=True):
        assert np.array_equal(cache.images[row], preprocess(read_image_files(case.image), RULE))


def test_the_cache_is_a_memory_map_that_nobody_can_spoil(path):
    images = open_cache(path, None, RULE).images
    assert isinstance(images, np.memmap) and not images.flags.writeable


def test_an_opened_cache_decodes_nothing(path, decoded):
    open_cache(path, None, RULE, workers=1)
    assert len(decoded) == 9
    open_cache(path, Dataset.open(path).unlabelled(None, 0), RULE, workers=1)
    assert len(decoded) == 9


def test_each_preprocessing_has_its_own_cache(path):
    rules = [RULE, Preprocessing(size_px=16), Preprocessing(size_px=32), Preprocessing(size_px=16, channels=3)]
    for rule in rules * 2:
        cache = open_cache(path, None, rule)
        assert np.array_equal(cache.images[0], preprocess(picture(0), rule))
    assert len([entry for entry in (path / "cache").iterdir() if entry.is_dir()]) == 4


@pytest.mark.parametrize("change", ["other pixels", "same size", "new file", "gone"])
def test_a_changed_source_rebuilds_the_cache(change, path):
    open_cache(path, None, RULE)
    file = path / "imagesUn/extra_1_0000.png"
    if change == "gone":
        file.unlink()
    elif change == "same size":
        os.utime(file, ns=(1, 1))
    else:
        save(file.parent, "extra_9_0000" if change == "new file" else file.stem, picture(321))
    cases = Dataset.open(path).everything()
    cache = open_cache(path, cases, RULE)
    assert len(cache.images) == len(cases)
    for case in cases:
        assert np.array_equal(cache.images[cache.row(case)], preprocess(read_image_files(case.image), RULE))


def test_masks_are_never_opened(path, monkeypatch):
    for mask in (path / "labelsTr").iterdir():
        mask.write_bytes(b"no picture")
    assert len(open_cache(path, None, RULE).images) == 9


def test_several_processes_build_the_same_cache_with_progress(path):
    alone = np.array(open_cache(path, None, RULE, workers=1).images)
    for number in range(70):
        save(path / "imagesUn", f"more_{number:02d}_0000", picture(500 + number))
    steps = []
    both = open_cache(path, None, RULE, workers=2, progress=lambda *step: steps.append(step))
    assert len(both.images) == 79 and steps[-1] == (79, 79, "caching images")
    assert np.array_equal(both.images[:5], alone[:5])
    cases = Dataset.open(path).everything()
    assert all(np.array_equal(both.images[both.row(c)], preprocess(read_image_files(c.image), RULE)) for c in cases)


def _build_slowly(path, started):
    def slow(file):
        started.set()
        time.sleep(30)
        return read_image_files(file)

    cache_module.read_image_files = slow
    open_cache(path, None, RULE, workers=1)


def test_a_killed_build_is_never_used(path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    builder = context.Process(target=_build_slowly, args=(path, started))
    builder.start()
    assert started.wait(20)
    os.kill(builder.pid, signal.SIGKILL)
    builder.join()
    assert any(entry.name.endswith(".tmp") for entry in (path / "cache").iterdir())
    cache = open_cache(path, None, RULE)
    assert np.array_equal(cache.images[0], preprocess(picture(0), RULE))
    assert not any(entry.name.endswith(".tmp") for entry in (path / "cache").iterdir())


def test_test_images_are_never_opened(path, decoded):
    (path / "imagesTs/later_0000.png").write_bytes(b"no picture")
    splits = {"test": ["case_1"], "validation": ["case_2"], "pool": ["case_0", "case_3", "case_4"]}
    (path / "splits.json").write_text(json.dumps(splits))
    cache = open_cache(path, None, RULE, workers=1)
    assert len(cache.images) == len(decoded) == 8 and "case_1_0000.png" not in decoded
    with pytest.raises(ValueError, match="no image for case_1"):
        open_cache(path, Dataset.open(path).test()[:1], RULE)


def test_a_cache_that_was_built_before_the_lists_were_drawn_is_kept(path, decoded):
    open_cache(path, None, RULE, workers=1)
    (path / "splits.json").write_text(json.dumps({"test": ["case_1"], "pool": ["case_0", "case_4"]}))
    (case,) = (case for case in Dataset.open(path).everything() if case.stem == "case_4")
    cache = open_cache(path, [case], RULE, workers=1)
    assert len(decoded) == 9 and np.array_equal(cache.images[cache.row(case)], preprocess(picture(4), RULE))


@pytest.mark.parametrize("damage", ["images.npy", "index.json"])
def test_a_damaged_cache_is_built_again(damage, path):
    open_cache(path, None, RULE)
    (file,) = (path / "cache").glob(f"*/{damage}")
    file.write_bytes(file.read_bytes()[:50])
    assert np.array_equal(open_cache(path, None, RULE).images[0], preprocess(picture(0), RULE))


def test_unreadable_pictures_are_all_named_and_nothing_is_left(path):
    for name in ("imagesTr/case_1_0000.png", "imagesUn/extra_2_0000.png"):
        (path / name).write_bytes(b"no picture")
    with pytest.raises(ValueError, match="(?s)2 image.*case_1_0000.png.*extra_2_0000.png"):
        open_cache(path, None, RULE)
    assert not [entry for entry in (path / "cache").iterdir() if entry.is_dir()]


def test_a_full_disk_is_told_and_nothing_is_left(path, monkeypatch):
    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ValueError, match="No disk space"):
        open_cache(path, None, RULE)
    assert not [entry for entry in (path / "cache").iterdir() if entry.is_dir()]


def test_cases_of_another_dataset_are_refused(path):
    with pytest.raises(ValueError, match="stranger"):
        open_cache(path, [Case("stranger", path / "imagesTr/stranger_0000.png")], RULE)
