import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_folders import mask, ready_dataset, save

from semgan.config import Preprocessing
from semgan.data import loading
from semgan.data.cache import open_cache
from semgan.data.folder import Dataset
from semgan.data.loading import ImageStream, MixedStream, affine_grid, load_label, load_labels, warp
from semgan.data.splits import write_splits
from semgan.types import LabelSpace

AFFINE = (0.1, 0.15, 15.0)
IMAGES = np.random.default_rng(0).integers(0, 256, (11, 2, 16, 16), dtype=np.uint8)
LABELS = np.random.default_rng(1).integers(0, 3, (11, 16, 16), dtype=np.uint8)


def stream(images=IMAGES, label_maps=LABELS, **options):
    return ImageStream(images, label_maps, **{"seed": 3, "stream_name": "test", **options})


def test_without_augmentation_an_epoch_shows_every_pair_once_unchanged():
    batch = stream().batch(0, 11)
    shown = [
        int(np.flatnonzero([np.array_equal(image, original) for original in IMAGES])[0])
        for image in ((batch.image + 1) * 127.5).round().numpy().astype(np.uint8)
    ]
    assert sorted(shown) == list(range(11)) and shown != sorted(shown)
    assert np.array_equal(batch.label_map.numpy(), LABELS[shown])
    assert batch.image.dtype == torch.float32 and batch.label_map.dtype == torch.int64
    assert batch.index.tolist() == list(range(11))
    second = stream().batch(11, 11)
    assert not torch.equal(second.image, batch.image)
    assert torch.equal(second.image.flatten(1).sum(1).sort().values, batch.image.flatten(1).sum(1).sort().values)


def enlarged(label_map, times):
    return label_map.repeat_interleave(times, -1).repeat_interleave(times, -2)


@pytest.mark.parametrize("times", [2, 4])
def test_fine_masks_are_changed_as_image_and_mask_are(times):
    smooth = np.zeros((11, 16, 16), np.uint8)
    for number, each in enumerate(smooth):
        each[3 + number % 4 : 12, 2:9] = 1
    fine = enlarged(torch.from_numpy(smooth), times).numpy()
    mirrored = stream(IMAGES, smooth, fine_maps=fine, mirror=True).batch(0, 22)
    assert torch.equal(mirrored.fine, enlarged(mirrored.label_map, times))
    moved = stream(IMAGES, smooth, fine_maps=fine, mirror=True, affine=AFFINE).batch(0, 22)
    assert moved.fine.shape == (22, 16 * times, 16 * times) and moved.fine.dtype == torch.int64
    agreeing = (moved.fine == enlarged(moved.label_map, times)).float().mean((1, 2))
    assert agreeing.min() > 0.93 and (moved.fine != enlarged(moved.label_map, times)).any()  # a finer border
    plain = stream(IMAGES, smooth, mirror=True, affine=AFFINE).batch(0, 22)
    assert torch.equal(plain.image, moved.image) and torch.equal(plain.label_map, moved.label_map)
    assert plain.fine is None and plain.truth is plain.label_map and moved.truth is moved.fine
    with pytest.raises(ValueError, match="no label maps"):
        _ = stream(label_maps=None).batch(0, 2).truth


def test_a_mixture_enlarges_the_masks_that_are_not_fine():
    fine = enlarged(torch.from_numpy(LABELS), 2).numpy()
    mixed = MixedStream(stream(fine_maps=fine), stream(stream_name="other"), 0.5).batch(0, 10)
    assert torch.equal(mixed.fine, enlarged(mixed.label_map, 2))
    assert MixedStream(stream(), stream(stream_name="other"), 0.5).batch(0, 10).fine is None


@settings(deadline=None, max_examples=40)
@given(first=st.integers(0, 60), counts=st.lists(st.integers(1, 9), min_size=1, max_size=5), with_labels=st.booleans())
def test_an_image_does_not_depend_on_how_indices_are_grouped(first, counts, with_labels):
    options = {"label_maps": LABELS if with_labels else None, "mirror": True, "affine": AFFINE}
    whole = stream(**options).batch(first, sum(counts))
    parts, place = [], first
    for count in counts:
        parts.append(stream(**options).batch(place, count))
        place += count
    assert torch.equal(whole.image, torch.cat([part.image for part in parts]))
    assert torch.equal(whole.index, torch.cat([part.index for part in parts]))
    if with_labels:
        assert torch.equal(whole.label_map, torch.cat([part.label_map for part in parts]))


def test_seed_and_stream_name_change_what_is_shown():
    batches = [
        stream(mirror=True, affine=AFFINE, **change).batch(0, 8).image
        for change in ({}, {}, {"seed": 4}, {"stream_name": "other"})
    ]
    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2]) and not torch.equal(batches[0], batches[3])


def test_mirroring_turns_half_of_the_pairs_and_both_parts_alike():
    plain, mirrored = stream().batch(0, 400), stream(mirror=True).batch(0, 400)
    turned = (mirrored.image == plain.image.flip(-1)).flatten(1).all(1)
    kept = (mirrored.image == plain.image).flatten(1).all(1)
    assert (turned ^ kept).all() and 150 < int(turned.sum()) < 250
    assert torch.equal(mirrored.label_map[turned], plain.label_map[turned].flip(-1))
    assert torch.equal(mirrored.label_map[kept], plain.label_map[kept])


def test_drawing_does_not_change_the_stored_images():
    images, labels = IMAGES.copy(), LABELS.copy()
    stream(images, labels, mirror=True, affine=AFFINE).batch(0, 33)
    assert np.array_equal(images, IMAGES) and np.array_equal(labels, LABELS)


def test_image_and_label_move_together():
    """A picture that is its own mask stays its own mask, also where the outside comes in."""
    y, x = np.mgrid[:64, :64]
    discs = np.stack([((y - 8 * k) ** 2 + (x - 60 + 7 * k) ** 2 < 15**2) for k in range(8)]).astype(np.uint8)
    batch = stream(discs[:, None] * 255, discs, mirror=True, affine=(0.3, 0.4, 60.0)).batch(0, 64)
    agreement = ((batch.image[:, 0] > 0) == (batch.label_map == 1)).float().mean((1, 2))
    assert agreement.min() > 0.985
    sure = batch.image[:, 0].abs() > 0.99
    assert ((batch.image[:, 0] > 0) == (batch.label_map == 1))[sure].float().mean() > 0.999


def test_ignored_pixels_stay_ignored_and_no_class_is_invented():
    labels = np.where(LABELS == 2, 255, LABELS).astype(np.uint8)
    shown = stream(label_maps=labels, affine=AFFINE).batch(0, 50).label_map
    assert set(shown.unique().tolist()) == {0, 1, 255}


def test_the_affine_ranges_are_those_asked_for():
    """A grid at the extreme draws, against the transform written as a matrix."""
    size = 8
    centres = (np.arange(size) * 2 + 1) / size - 1
    target = np.stack(np.meshgrid(centres, centres), -1)  # x, y of each output pixel
    for draw in ([1, 0, 0, 0], [-1, 0, 0, 0], [0, 1, -1, 0], [0, 0, 0, 1], [0.3, -0.2, 0.7, -0.6]):
        angle, scale = np.radians(15 * draw[3]), 1 + 0.1 * draw[0]
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        source = (target - 0.3 * np.array(draw[1:3])) @ np.linalg.inv(turn).T
        grid = affine_grid(torch.tensor([draw], dtype=torch.float32), AFFINE, size)[0].numpy()
        assert np.allclose(grid, source, atol=1e-6)


def test_no_movement_is_the_identity():
    images = torch.rand(3, 2, 16, 16)
    grid = affine_grid(torch.zeros(3, 4), AFFINE, 16)
    assert torch.allclose(warp(images, grid, "bilinear"), images, atol=1e-5)
    assert torch.equal(warp(images, grid, "nearest"), images)


def test_moved_images_stay_in_range():
    shown = stream(affine=AFFINE).batch(0, 100).image
    assert shown.min() >= -1 and shown.max() <= 1


def test_rows_choose_images_of_a_larger_store():
    rows = np.array([7, 2])
    shown = stream(label_maps=LABELS[rows], rows=rows).batch(0, 2)
    order = [int((shown.label_map[i].numpy() != LABELS[7]).any()) for i in range(2)]
    expected = IMAGES[rows[order]]
    assert np.array_equal(((shown.image + 1) * 127.5).round().numpy().astype(np.uint8), expected)


def test_empty_and_unequal_streams_are_refused():
    with pytest.raises(ValueError, match="'test' has no images"):
        stream(IMAGES[:0], None)
    with pytest.raises(ValueError, match="11 images and 10 label maps"):
        stream(label_maps=LABELS[:10])


def test_unlabelled_stream_never_opens_a_label(tmp_path, monkeypatch):
    path = ready_dataset(tmp_path, count=8)
    write_splits(path, 2, 0)
    dataset = Dataset.open(path)
    labelled, unlabelled = dataset.labelled(2, 0), dataset.unlabelled(2, 0)
    opened = []
    monkeypatch.setattr(loading, "read_label", lambda file: opened.append(file) or np.zeros((12, 10), np.int32))
    kept = {case.label for case in labelled}
    for file in (path / "labelsTr").iterdir():
        if file not in kept:
            file.unlink()  # nothing may miss them
    dataset = Dataset.open(path)
    assert [case.stem for case in dataset.unlabelled(2, 0)] == [case.stem for case in unlabelled]
    cache = open_cache(path, [*labelled, *unlabelled], Preprocessing(size_px=16))
    batch = ImageStream(cache.images, rows=cache.rows(unlabelled), seed=0, stream_name="u", mirror=True).batch(0, 32)
    assert batch.label_map is None and all(case.label is None for case in unlabelled) and opened == []
    assert not {case.stem for case in labelled} & {case.stem for case in unlabelled}
    load_labels(labelled, 16, dataset.labels)
    assert set(opened) == kept
    with pytest.raises(ValueError, match="has no mask"):
        load_labels(unlabelled[:1], 16, dataset.labels)


def test_labels_are_loaded_in_order_at_the_networks_size(tmp_path):
    path = ready_dataset(tmp_path)
    dataset = Dataset.open(path)
    cases = dataset.labelled(None, 0)[::-1]
    maps = load_labels(cases, 4, dataset.labels)
    assert maps.shape == (4, 4, 4) and maps.dtype == np.uint8
    assert np.array_equal(maps[0], mask(3)[1::3][:, [1, 3, 6, 8]])


def test_a_mask_value_that_is_no_class_is_refused_and_an_ignored_one_becomes_255(tmp_path):
    path = ready_dataset(tmp_path)
    (case, *_) = Dataset.open(path).labelled(None, 0)
    labels = LabelSpace(("background", "lung"))
    stored = mask(0, values=(0, 1, 2))
    save(path / "labelsTr", "case_0", stored)
    with pytest.raises(ValueError, match=r"case_0.png holds the values \[2\]"):
        load_label(case, labels)
    assert np.array_equal(load_label(case, labels, ignore=2), np.where(stored == 2, 255, stored))


# ---------------------------------------------------------------- mixtures, and movements that are not always done


@settings(deadline=None, max_examples=40)
@given(
    first=st.integers(0, 60),
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    share=st.floats(0, 1, allow_subnormal=False),
    last=st.none() | st.floats(0, 1, allow_subnormal=False),
)
def test_a_mixture_shows_its_share_and_does_not_depend_on_how_indices_are_grouped(first, counts, share, last):
    """Also while its share moves to another one, over 40 images."""
    ones = [stream(np.zeros_like(IMAGES), LABELS, stream_name="a"), stream(IMAGES | 1, LABELS, stream_name="b")]
    mixed = MixedStream(*ones, share, last, 40)
    whole = mixed.batch(first, sum(counts))
    parts = [mixed.batch(first + sum(counts[:i]), count) for i, count in enumerate(counts)]
    assert torch.equal(whole.image, torch.cat([part.image for part in parts]))
    assert torch.equal(whole.label_map, torch.cat([part.label_map for part in parts]))
    assert whole.index.tolist() == list(range(first, first + sum(counts)))
    second = int((whole.image.amax((1, 2, 3)) > -1).sum())
    progress = np.minimum(np.arange(first, first + sum(counts)) + 0.5, 40) / 40
    expected = share + (0 if last is None else last - share) * progress
    assert abs(second - expected.sum()) <= 1.01


def test_a_mixture_shows_each_streams_own_pairs_in_their_order():
    a, b = stream(stream_name="a", mirror=True), stream(stream_name="b", mirror=True)
    shown = MixedStream(a, b, 0.25).batch(0, 16)
    of_b = [3, 7, 11, 15]
    of_a = [i for i in range(16) if i not in of_b]
    for own, places in ((a.batch(0, 12), of_a), (b.batch(0, 4), of_b)):
        assert torch.equal(shown.image[places], own.image) and torch.equal(shown.label_map[places], own.label_map)


def test_a_share_beyond_one_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1; got 1.5"):
        MixedStream(stream(), stream(), 1.5)
    with pytest.raises(ValueError, match="between 0 and 1; got -0.5"):
        MixedStream(stream(), stream(), 0.5, -0.5, 10)


def test_movements_are_done_as_often_as_asked():
    plain = stream().batch(0, 300)
    for probability, low, high in ((0.0, 300, 300), (0.2, 120, 185), (1.0, 0, 0)):  # 0.8^3 = 0.51 stay as they are
        shown = stream(affine=((0.7, 1.4), 0.2, 180.0), affine_probability=probability).batch(0, 300)
        kept = torch.isclose(shown.image, plain.image, atol=1e-4).flatten(1).all(1)
        assert low <= int(kept.sum()) <= high
        assert torch.equal(shown.label_map[kept], plain.label_map[kept])


def test_a_pair_of_scales_is_the_range():
    for draw, scale in ((-1.0, 0.7), (1.0, 1.4), (0.0, 1.05)):
        grid = affine_grid(torch.tensor([[draw, 0, 0, 0]]), ((0.7, 1.4), 0.0, 0.0), 8)[0]
        assert torch.allclose(grid[..., 0], affine_grid(torch.zeros(1, 4), AFFINE, 8)[0, ..., 0] / scale, atol=1e-6)
