import errno
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_gan import tiny_gan

from semgan.sample import sample, sample_grid
from semgan.student_answer import SemganStudent
from semgan.types import LabelSpace


class Drawer:
    labels = LabelSpace(("background", "left", "right"))

    def __init__(self, channels=1):
        self.channels = channels

    def sample(self, seeds, *, truncation=1.0):
        images = np.stack([np.full((16, 16, self.channels), 10 * seed % 256, np.uint8) for seed in seeds])
        label_maps = np.stack([np.full((16, 16), seed % 3, np.uint8) for seed in seeds])
        return SimpleNamespace(
            seeds=tuple(seeds), images=images[..., 0] if self.channels == 1 else images, label_maps=label_maps
        )


def test_pairs_are_named_by_their_seed(tmp_path):
    sample(Drawer(), tmp_path / "out", seed=3, count=2)
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == ["000003.png", "000004.png"]
    assert (np.array(Image.open(tmp_path / "out" / "images" / "000004.png")) == 40).all()
    mask = Image.open(tmp_path / "out" / "masks" / "000004.png")
    assert mask.mode == "L" and (np.array(mask) == 1).all()
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["seeds"] == [3, 4]


@pytest.mark.parametrize(("channels", "files"), [(3, ["000001.png"]), (2, ["000001_0000.png", "000001_0001.png"])])
def test_colour_and_many_channels_are_written(tmp_path, channels, files):
    sample(Drawer(channels), tmp_path / "out", seeds=[1])
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == files


def test_many_pairs_are_drawn_and_written_in_turns(tmp_path, monkeypatch):
    drawn, draw = [], Drawer.sample
    monkeypatch.setattr(Drawer, "sample", lambda self, seeds, **more: drawn.append(len(seeds)) or draw(self, seeds))
    sample(Drawer(), tmp_path / "out", count=150, grid=True)
    assert drawn == [64, 64, 22] and len(list((tmp_path / "out" / "masks").iterdir())) == 150
    assert np.array(Image.open(tmp_path / "out" / "grid.png")).shape == (6 * 32, 12 * 16, 3)  # the first 64


def test_a_stopped_sampling_goes_on_with_the_pairs_that_are_left(tmp_path, monkeypatch):
    """The disk is full while the 101st mask is written: what is whole stays, and nothing half-written lies there."""
    drawn, draw, save = [], Drawer.sample, Image.Image.save
    monkeypatch.setattr("semgan.segment.load_identified", lambda *asked: (Drawer(), "one model"))
    monkeypatch.setattr(Drawer, "sample", lambda self, seeds, **more: drawn.append(list(seeds)) or draw(self, seeds))

    def full(self, path, *more):
        if "masks" in str(path) and "000100" in str(path):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(OSError, match="No space"):
            sample(tmp_path / "model", tmp_path / "out", count=150)
    masks = tmp_path / "out.partial" / "masks"
    assert sorted(path.name for path in masks.iterdir()) == [f"{number:06d}.png" for number in range(100)]
    drawn.clear()
    told = []
    sample(tmp_path / "model", tmp_path / "out", count=150, progress=lambda *now: told.append(now[:2]))
    assert drawn == [list(range(64)), list(range(100, 128)), list(range(128, 150))]  # the grid shows the first 64
    assert told == [(0, 150), (64, 150), (128, 150), (150, 150)]
    assert all((np.array(Image.open(tmp_path / "out" / "masks" / f"{n:06d}.png")) == n % 3).all() for n in range(150))


def test_pairs_of_another_model_are_not_gone_on_with(tmp_path, monkeypatch):
    def stopped(*asked):
        raise KeyboardInterrupt

    monkeypatch.setattr("semgan.segment.load_identified", lambda *asked: (Drawer(), "one model"))
    with monkeypatch.context() as patch:
        patch.setattr("semgan.sample.sample_grid", stopped)
        with pytest.raises(KeyboardInterrupt):
            sample(tmp_path / "model", tmp_path / "out", count=3)
    monkeypatch.setattr("semgan.segment.load_identified", lambda *asked: (Drawer(), "trained on"))
    with pytest.raises(FileExistsError, match="unfinished work"):
        sample(tmp_path / "model", tmp_path / "out", count=3)


def test_grid_shows_every_pair():
    pairs = Drawer().sample(range(1, 8))
    grid = sample_grid(pairs.images, pairs.label_maps, 3)
    assert grid.shape == (2 * 32, 4 * 16, 3)
    assert [int(grid[0, 16 * column, 0]) for column in range(4)] == [10, 20, 30, 40]
    assert len(np.unique(grid[16:32].reshape(-1, 3), axis=0)) == 3  # three classes, three colours


def test_other_content_is_never_touched(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="other files"):
        sample(Drawer(), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.txt").read_text() == "keep"


def test_files_of_others_among_earlier_samples_outlive_them(tmp_path):
    sample(Drawer(), tmp_path / "out", count=3)
    (tmp_path / "out" / "mine.txt").write_text("keep")
    for count, overwrite in ((3, False), (2, True)):
        sample(Drawer(), tmp_path / "out", count=count, overwrite=overwrite)
        assert (tmp_path / "out" / "mine.txt").read_text() == "keep"
        assert len(list((tmp_path / "out" / "images").iterdir())) == count


def test_the_same_request_may_be_repeated_another_may_not(tmp_path):
    sample(Drawer(), tmp_path / "out", count=2)
    sample(Drawer(), tmp_path / "out", count=2)
    with pytest.raises(FileExistsError, match="--overwrite"):
        sample(Drawer(), tmp_path / "out", count=3)


def test_a_student_draws_with_the_generator_beside_it(tmp_path):
    gan = tiny_gan()
    both = SemganStudent(gan, SimpleNamespace(labels=gan.labels), 0.5, 1.0)
    sample(both, tmp_path / "both", count=2)
    sample(gan, tmp_path / "gan", count=2)
    for path in (tmp_path / "gan/images").iterdir():
        assert path.read_bytes() == (tmp_path / "both/images" / path.name).read_bytes()


def test_methods_without_a_generator_and_bad_seeds_are_refused(tmp_path):
    with pytest.raises(ValueError, match="cannot draw"):
        sample(SimpleNamespace(labels=Drawer.labels), tmp_path / "out")
    for seeds in ([], [1, 1], [-1], [2**63]):
        with pytest.raises(ValueError, match="different seeds"):
            sample(Drawer(), tmp_path / "out", seeds=seeds)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("truncation", [float("nan"), float("inf"), -0.5])
def test_a_truncation_that_gives_no_images_is_refused(tmp_path, truncation):
    with pytest.raises(ValueError, match="truncation is a number from 0 on"):
        sample(Drawer(), tmp_path / "out", truncation=truncation)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", [".", "..", "/", "some/.."])
def test_a_folder_without_a_name_of_its_own_is_refused(tmp_path, monkeypatch, out):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ValueError, match="has no name; give one with -o"):
        sample(Drawer(), out, count=1)
    assert [path.name for path in tmp_path.rglob("*")] == ["here"]
