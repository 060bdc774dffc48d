"""Uniform negatives: rejection, and ranks among the allowed items, word for word."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.uniform import UniformSampler
from fastneg.streams import key_of, stream_of
from tests.naive import samplers as naive
from tests.naive.statistics import LEVEL, assert_follows, chi_square
from tests.samplers import worlds


def test_ids_word_for_word() -> None:
    sampler = UniformSampler(worlds.interactions(), seed=9)
    sampler.set_epoch(2)
    key = key_of(9, stream_of("uniform"), 2)
    users = [worlds.SOME, worlds.ALL_BUT_TWO, worlds.NOTHING, worlds.ALL_BUT_ONE, -1]
    rows = [5, 2**40, 0, 7, 2**62]
    drawn = sampler.sample(users, 50, rows=rows).items
    for user, row, got in zip(users, rows, drawn.tolist(), strict=True):
        known = worlds.known().get(user, ())
        assert got == [
            naive.uniform_draw(worlds.NUM_ITEMS, known, key, row, draw) for draw in range(50)
        ]


def test_an_explicit_negative_is_not_excluded() -> None:
    seen = Interactions.from_codes([0, 0, 0], [0, 1, 2], num_items=4, weights=[1.0, 0.0, -2.0])
    drawn = UniformSampler(seen).sample(np.zeros(500, int), 40)
    assert_follows(drawn.items, np.array([0, 1, 1, 1]) / 3)


def test_a_catalog_without_users() -> None:
    sampler = UniformSampler(5)
    assert sampler.exhausted_users().tolist() == []
    drawn = sampler.sample([-1, 0, 10**12], 20)  # codes of users that nothing is known about
    assert drawn.items.shape == (3, 20)
    with pytest.raises(FastnegError, match=r"users\[1\] = -2; give codes, -1 for unknown"):
        sampler.sample([0, -2], 1)


def test_huge_catalogs_reach_their_ends() -> None:
    size = 2**40
    drawn = UniformSampler(size).sample(np.full(200, -1), 200)
    eighth = (drawn.items // (size // 8)).numpy()
    assert_follows(eighth, np.full(8, 1 / 8))
    low_bits = drawn.items.numpy() % 16  # 32-bit words would leave these empty
    assert_follows(low_bits, np.full(16, 1 / 16))
    assert float(drawn.log_q[0, 0]) == pytest.approx(-np.log(size), rel=1e-6)
    coarse = (np.random.default_rng(0).integers(0, 2**32, 40_000) * size) >> 32
    assert chi_square(coarse % 16, np.full(16, 1 / 16)) < LEVEL


def test_no_bias_from_the_catalogs_size() -> None:
    size = 3
    drawn = UniformSampler(size).sample_shared(200_000).items
    assert_follows(drawn, np.full(3, 1 / 3))
    biased = np.random.default_rng(0).integers(0, 2**4, 200_000) % 3  # modulo of few bits
    assert chi_square(biased, np.full(3, 1 / 3)) < LEVEL


def test_one_item() -> None:
    drawn = UniformSampler(1).sample([-1], 3)
    assert drawn.items.tolist() == [[0, 0, 0]]
    assert drawn.log_q.tolist() == [[0, 0, 0]]
    only = Interactions.from_codes([0], [0], num_users=2, num_items=1)
    assert UniformSampler(only).exhausted_users().tolist() == [0]
    assert torch.equal(UniformSampler(only).sample([1], 2).items, torch.zeros(1, 2).long())


BAD = {
    "zero": (0, "UniformSampler: num_items = 0 is too small; give 1 or more"),
    "too many": (2**40 + 1, "num_items = .* is too large"),
    "negative": (-5, "num_items = -5"),
    "float": (5.0, "num_items = 5.0 is not an integer"),
    "bool": (True, "num_items = True is a bool"),
    "text": ("5", "num_items = '5' is not an integer"),
    "none": (None, "num_items = None is not an integer"),
    "counts": ([1, 2, 3], "num_items = .* is not an integer"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_catalogs(name: str) -> None:
    catalog, message = BAD[name]
    with pytest.raises(FastnegError, match=message):
        UniformSampler(catalog)
