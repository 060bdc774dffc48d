"""The sample of queries and true ranks on real-sized random vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.mining.exact import ExactSearch, plan_blocks
from fastneg.mining.held_out import sample_held_out, true_ranks
from fastneg.mining.search import PositiveLists, read_positives
from tests.mining.helpers import csr, positives_for


def lists(sets: list[set[int]], num_items: int) -> PositiveLists:
    return read_positives(csr(sets), None, len(sets), num_items, call="test")


@pytest.mark.parametrize("width", [3, 50, 64])
@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_ranks_are_those_of_exact_search(width: int, precision: str) -> None:
    """Every rank of every item, with duplicates, long and zero vectors."""
    rng = np.random.default_rng(width)
    items = rng.normal(size=(700, width)).astype(np.float32)
    items[100:150] = items[:50]
    items[150:160] = 0
    items[160] *= 1000
    queries = rng.normal(size=(20, width)).astype(np.float32)
    queries[3] = 0
    positives = positives_for(rng, 20, 700, 60)
    wanted = [set(range(700)) - known for known in positives]
    known = lists(positives, 700)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        ranks = true_ranks(queries, items, known, lists(wanted, 700), torch.device("cpu"))
    finally:
        torch.set_float32_matmul_precision(before)
    blocks = plan_blocks(20, 700, width, 700, 1 << 28, call="test")
    search = ExactSearch(items, blocks, torch.device("cpu"))
    found = search.find(queries, known, (1, 700))
    place = np.zeros((20, 700), np.int64)
    for row, order in enumerate(found.items):
        there = order[order >= 0]
        place[row, there] = np.arange(1, there.size + 1)
    expected = [place[row, item] for row in range(20) for item in sorted(wanted[row])]
    assert ranks.tolist() == expected


def test_the_sample_is_compact_and_without_training_positives() -> None:
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(200, 2)).astype(np.float32)
    positives, held_out = positives_for(rng, 200, 40, 9), positives_for(rng, 200, 40, 3)
    sample = sample_held_out(queries, lists(positives, 40), lists(held_out, 40), 40, 90, 7)
    assert 60 < len(sample.rows) <= 90
    assert (np.diff(sample.rows) > 0).all()
    np.testing.assert_array_equal(sample.queries, queries[sample.rows])
    assert sample.num_with_held_out == sum(map(bool, held_out))
    for place, row in enumerate(sample.rows):
        for of, wanted in (
            (sample.positives, positives[row]),
            (sample.held_out, held_out[row] - positives[row]),
        ):
            assert of.items[of.starts[place] : of.stops[place]].tolist() == sorted(wanted)
        assert held_out[row] - positives[row]
    owners = np.repeat(np.arange(len(sample.rows)), sample.held_out.counts)
    np.testing.assert_array_equal(sample.owners, owners)
    assert sample.held_out.items.size == owners.size


def test_samples_are_nested_and_even() -> None:
    """A larger sample holds a smaller one; every query is as likely as another."""
    queries = np.ones((60, 1), np.float32)
    nobody, everybody = lists([set()] * 60, 5), lists([{1}] * 60, 5)
    hits = np.zeros(60)
    for seed in range(400):
        small = sample_held_out(queries, nobody, everybody, 5, 15, seed).rows
        large = sample_held_out(queries, nobody, everybody, 5, 40, seed).rows
        assert set(small) <= set(large)
        hits[small] += 1
    assert ((hits - 100) ** 2 / 75).sum() < 120  # chi-square of 59 degrees: 1e-5
