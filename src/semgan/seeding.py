"""Randomness as a function of (seed, stream, index), so that neither resume nor the batch grouping changes it.

Every random number belongs to one numbered image of one named stream. Streams with different names are independent;
the counter-based generator (Philox, Salmon et al. 2011) makes any index reachable without generating those before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def generator(seed: int, stream: str, index: int) -> np.random.Generator:
    """A fresh generator for one image of one stream."""
    key = np.array([seed, zlib.crc32(stream.encode())], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, index], dtype=np.uint64)))


def normal(seed: int, stream: str, index: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """Standard normal float32 ``[len(index), *shape]``; row i depends on (seed, stream, index[i]) alone."""
    import torch

    draw = partial(np.random.Generator.standard_normal, size=shape, dtype=np.float32)
    return torch.from_numpy(np.stack([*_rows(seed, stream, index, draw)]))


def uniform(seed: int, stream: str, index: Iterable[int], shape: tuple[int, ...]) -> Tensor:
    """Uniform float32 in [0, 1) ``[len(index), *shape]``; row i depends on (seed, stream, index[i]) alone."""
    import torch

    draw = partial(np.random.Generator.random, size=shape, dtype=np.float32)
    return torch.from_numpy(np.stack([*_rows(seed, stream, index, draw)]))


def _rows(
    seed: int, stream: str, index: Iterable[int], draw: Callable[[np.random.Generator], np.ndarray]
) -> Iterator[np.ndarray]:
    """What `generator` of each index gives; one generator is set anew, in a tenth of the time that a new one takes."""
    own = generator(seed, stream, 0)
    fresh = own.bit_generator.state
    for i in index:
        fresh["state"]["counter"] = np.array([0, 0, 0, int(i)], dtype=np.uint64)
        own.bit_generator.state = fresh
        yield draw(own)


_permutations: dict[tuple[int, str, int, int], np.ndarray] = {}


def permuted_index(seed: int, stream: str, index: Iterable[int], length: int) -> np.ndarray:
    """Position in a data set of ``length`` items for each global index: a new permutation every epoch, int64."""
    if length < 1:
        raise ValueError(f"Stream '{stream}' needs at least one item to draw from; got {length}.")
    positions = []
    for i in index:
        epoch, place = divmod(int(i), length)
        key = (seed, stream, epoch, length)
        if key not in _permutations:
            if len(_permutations) > 64:  # epochs pass; keep memory flat
                _permutations.clear()
            _permutations[key] = generator(seed, stream + "/epoch", epoch).permutation(length)
        positions.append(_permutations[key][place])
    return np.asarray(positions, dtype=np.int64)
