"""Randomness depends on (seed, stream, index) and on nothing else."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semgan import seeding

GOLDEN_NORMAL = [1.4910272359848022, -0.01268904097378254]
GOLDEN_ORDER = [2, 0, 1, 3, 5, 4]

INDICES = st.lists(st.integers(0, 2**40), min_size=1, max_size=6)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), INDICES, st.sampled_from([(), (3,), (2, 2)]))
def test_numbers_of_an_image_do_not_depend_on_its_batch(seed, index, shape):
    for draw in (seeding.normal, seeding.uniform):
        together = draw(seed, "a", index, shape)
        alone = torch.cat([draw(seed, "a", [i], shape) for i in index])
        assert torch.equal(together, alone) and together.shape == (len(index), *shape)
        assert together.dtype == torch.float32
    own = [seeding.generator(seed, "a", i).standard_normal(shape, dtype=np.float32) for i in index]
    assert np.array_equal(seeding.normal(seed, "a", index, shape).numpy(), np.stack(own))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 50), st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_positions_do_not_depend_on_the_order_in_which_they_are_asked_for(seed, length, index):
    whole = seeding.permuted_index(seed, "a", range(501), length)
    assert np.array_equal(seeding.permuted_index(seed, "a", index, length), whole[index])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 40), st.integers(0, 30))
def test_every_epoch_is_a_permutation(seed, length, epoch):
    index = range(epoch * length, (epoch + 1) * length)
    assert sorted(seeding.permuted_index(seed, "a", index, length)) == list(range(length))


def test_epochs_have_different_orders():
    orders = seeding.permuted_index(0, "a", range(5 * 30), 30).reshape(5, 30)
    assert len({tuple(order) for order in orders}) == 5


def test_a_long_run_forgets_old_epochs_and_repeats_them_exactly():
    first = seeding.permuted_index(3, "long", range(10), 5)
    seeding.permuted_index(3, "long", range(5 * 200), 5)
    assert len(seeding._permutations) <= 65
    assert np.array_equal(seeding.permuted_index(3, "long", range(10), 5), first)


def test_seeds_streams_and_indices_give_different_numbers():
    drawn = [
        seeding.normal(seed, stream, [index], (4,))
        for seed, stream, index in [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a/b", 0), (0, "", 0)]
    ]
    assert len({tuple(row[0].tolist()) for row in drawn}) == len(drawn)


def test_neighbouring_images_and_streams_are_uncorrelated():
    many = range(4000)
    columns = [seeding.normal(0, stream, many, (2,)) for stream in ("gan/z", "path/z")]
    both = torch.cat(columns, 1)
    correlation = both.t().corrcoef() - torch.eye(4)
    assert correlation.abs().max() < 0.06
    lagged = torch.stack([columns[0][:-1, 0], columns[0][1:, 0]]).corrcoef()[0, 1]
    assert abs(lagged) < 0.06


def test_numbers_have_the_distribution_they_are_named_for():
    normal, uniform = seeding.normal(1, "a", range(5000), (4,)), seeding.uniform(1, "a", range(5000), (4,))
    assert abs(normal.mean()) < 0.03 and abs(normal.std() - 1) < 0.03
    assert 0 <= uniform.min() < 0.001 and 0.999 < uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.01


def test_numbers_are_the_same_in_every_version():
    """A change here breaks the resuming of runs and every golden number."""
    assert seeding.normal(7, "gan/z", [3], (2,))[0].tolist() == pytest.approx(GOLDEN_NORMAL, rel=1e-6)
    assert seeding.permuted_index(7, "images", range(6), 6).tolist() == GOLDEN_ORDER


def test_a_stream_without_items_is_named():
    with pytest.raises(ValueError, match="'labelled' needs at least one item"):
        seeding.permuted_index(0, "labelled", [0], 0)
