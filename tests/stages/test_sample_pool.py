"""The pool of generated pairs: what is drawn, what is kept, and that a kill costs nothing but time."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from tiny_networks import WIDTHS, tiny_networks
from tiny_stages import BINARY, CPU, stream

from semgan.artifacts import RunFolder, load_checkpoint, read_metrics, save_checkpoint, write_json
from semgan.baselines.stage import Streams
from semgan.config import Settings, override
from semgan.data.loading import ImageStream, MixedStream
from semgan.objectives.segmentation import probabilities
from semgan.runtime.loop import run_stage
from semgan.stages import sample_pool
from semgan.stages.sample_pool import PoolStage, holds_pool, label_entropy
from semgan.stages.semantic_gan import SemanticGan
from semgan.student import StudentStage

GOLDEN = Path(__file__).parents[1] / "golden" / "student.json"

SETTINGS = override(
    Settings(),
    {
        "preprocessing": {"size_px": 16, "channels": 1},
        "generator": {"w_dim": 16, "mapping_layers": 2, "widths": WIDTHS},
        "gan": {"precision": "float32"},
        "student": {"pool_images": 24, "pool_batch": 8, "keep_share": 0.5},
        "baseline": {
            "widths": [4, 4, 8, 8],
            "images": 40,
            "batch": 4,
            "precision": "float32",
            "learning_rate": 0.005,
            "intensity_augment": True,
        },
        "run": {"checkpoint_every_images": 8, "log_every_images": 8},
    },
)


def model() -> SemanticGan:
    networks = tiny_networks()
    return SemanticGan(SETTINGS, networks.generator, networks.whitening, None, networks.perceptual)


def run_in(folder):
    run = RunFolder(folder)
    run.checkpoints.mkdir(parents=True)
    return run


def filled(tmp_path, settings=SETTINGS) -> PoolStage:
    pool = PoolStage(settings, model(), tmp_path / "pool")
    assert run_stage(pool, run_in(tmp_path / "run"), settings.run).finished
    return pool


def pairs(settings, numbers):
    joint = model().generate(
        numbers, truncation=settings.student.truncation, seed=settings.seed, stream=sample_pool.STREAM
    )
    found = probabilities(joint.logits)
    return ((joint.image + 1) * 127.5).round().clamp(0, 255).byte().numpy(), found


@examples(deadline=None, max_examples=30)
@given(share=st.floats(0.01, 0.99, allow_subnormal=False), classes=st.integers(2, 5))
def test_label_entropy_is_nothing_for_certainty_and_the_most_for_a_toss(share, classes):
    certain = torch.zeros(1, classes, 4, 4)
    certain[:, 0] = 1
    toss = torch.full((1, classes, 4, 4), 1 / classes)
    between = share * certain + (1 - share) * toss
    values = [float(label_entropy(found)) for found in (certain, between, toss)]
    assert values[0] == 0 and values[0] < values[1] < values[2]
    assert values[2] == pytest.approx(math.log(classes), rel=1e-5)


def test_of_every_batch_the_most_certain_pairs_are_kept_in_the_order_drawn(tmp_path):
    pool = filled(tmp_path)
    assert pool.images.shape == (12, 1, 16, 16) and pool.label_maps.shape == (12, 16, 16)
    for batch in range(3):
        images, found = pairs(SETTINGS, range(8 * batch, 8 * batch + 8))
        kept = sorted(np.argsort(label_entropy(found).numpy(), kind="stable")[:4])
        rows = slice(4 * batch, 4 * batch + 4)
        assert np.array_equal(pool.images[rows], images[kept])
        assert np.array_equal(pool.label_maps[rows], found.argmax(1).numpy()[kept])
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert all(row["label_entropy_kept"] < row["label_entropy"] for row in rows) and len(rows) == 3


def test_a_pair_depends_on_seed_and_number_alone():
    gan = model()
    whole = gan.generate(range(6), seed=3, stream="a").image
    assert torch.allclose(gan.generate([4], seed=3, stream="a").image[0], whole[4], atol=1e-5)
    for other in (gan.generate(range(6), seed=4, stream="a"), gan.generate(range(6), seed=3, stream="b")):
        assert not torch.allclose(other.image, whole, atol=1e-2)


def test_truncation_makes_the_pairs_more_alike(tmp_path):
    wide = filled(tmp_path / "wide")
    tame = filled(tmp_path / "tame", override(SETTINGS, {"student": {"truncation": 0.1}}))
    assert tame.images.astype(float).std(0).mean() < wide.images.astype(float).std(0).mean()


def test_a_killed_pool_goes_on_and_equals_one_that_was_not(tmp_path):
    whole = filled(tmp_path / "whole")
    run = run_in(tmp_path / "run")
    killed = PoolStage(SETTINGS, model(), tmp_path / "pool")
    step, drawn = killed.step, []

    def dies(images_seen):
        drawn.append(images_seen)
        if images_seen == 16:
            raise MemoryError
        return step(images_seen)

    killed.step = dies
    with pytest.raises(MemoryError):
        run_stage(killed, run, SETTINGS.run)
    resumed = PoolStage(SETTINGS, model(), tmp_path / "pool")
    step = resumed.step
    resumed.step = lambda images_seen: drawn.append(images_seen) or step(images_seen)
    assert run_stage(resumed, run, SETTINGS.run).finished
    assert drawn == [0, 8, 16, 16]
    assert np.array_equal(resumed.images, whole.images) and np.array_equal(resumed.label_maps, whole.label_maps)


def test_at_least_one_pair_of_a_batch_is_kept_and_files_cut_off_are_made_anew(tmp_path):
    assert len(filled(tmp_path, override(SETTINGS, {"student": {"keep_share": 0.01}})).images) == 3
    (tmp_path / "pool" / "images.npy").write_bytes(b"\x93NUMPY")
    assert holds_pool(tmp_path / "pool")
    assert PoolStage(SETTINGS, model(), tmp_path / "pool").images.shape == (12, 1, 16, 16)


def test_a_full_disk_is_told_before_any_work(tmp_path, monkeypatch):
    def full(file, shape):
        file.write_bytes(b"")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sample_pool, "reserve_array", full)
    with pytest.raises(ValueError, match="Cannot reserve 0 MiB for .*images.npy .No space.*student.pool_images=N"):
        PoolStage(SETTINGS, model(), tmp_path / "pool")
    assert not (tmp_path / "pool" / "images.npy").exists()


# ---------------------------------------------------------------- the student that learns from it


def student(folder) -> StudentStage:
    pool = filled(folder)
    generated = ImageStream(pool.images, pool.label_maps, seed=0, stream_name="student/generated", mirror=True)
    mixed = MixedStream(generated, stream("labelled", BINARY), 0.25)
    return StudentStage(SETTINGS, BINARY, Streams(mixed), CPU)


def losses(stage: StudentStage, steps: range) -> list[float]:
    return [float(stage.step(4 * step)["loss"]) for step in steps]


def test_losses_of_ten_steps_equal_the_golden_numbers(tmp_path):
    """After a change that is meant: run this file as a program to write them anew, and say why in the commit."""
    np.testing.assert_allclose(losses(student(tmp_path), range(10)), json.loads(GOLDEN.read_text()), rtol=5e-3)


def test_a_resumed_student_equals_an_uninterrupted_one_to_the_bit(tmp_path):
    whole = student(tmp_path / "a")
    losses(whole, range(3))
    save_checkpoint(tmp_path / "c.safetensors", whole.state())
    after = losses(whole, range(3, 6))
    resumed = student(tmp_path / "b")
    resumed.load_state(load_checkpoint(tmp_path / "c.safetensors"))
    assert losses(resumed, range(3, 6)) == after
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write_json(GOLDEN, [round(loss, 6) for loss in losses(student(Path(folder)), range(10))])


def test_mixed_styles_keep_each_pair_a_function_of_its_number():
    own = {"seed": 3, "stream": "x"}
    plain, mixed = (model().generate(range(6), style_mixing=share, **own).image for share in (0.0, 1.0))
    assert all(not torch.equal(plain[row], mixed[row]) for row in range(6))
    torch.testing.assert_close(model().generate([4], style_mixing=1.0, **own).image, mixed[4:5], rtol=0, atol=1e-5)
    half = model().generate(range(6), style_mixing=0.5, **own).image
    is_plain = [bool(torch.allclose(half[row], plain[row], atol=1e-5)) for row in range(6)]
    assert 0 < sum(is_plain) < 6


def test_the_pool_is_drawn_with_the_mixing_that_is_set(tmp_path):
    mixed = filled(tmp_path / "a", override(SETTINGS, {"student": {"style_mixing": 1.0, "keep_share": 1.0}}))
    joint = model().generate(range(8), style_mixing=1.0, seed=SETTINGS.seed, stream=sample_pool.STREAM)
    expected = ((joint.image + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    assert np.abs(mixed.images[:8].astype(int) - expected).max() <= 1
