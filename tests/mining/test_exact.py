"""Exact search: its memory, its device, near-ties that products cannot part."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastneg.errors import FastnegError
from fastneg.mining.devices import Device, choose_device
from fastneg.mining.exact import Blocks, ExactSearch, plan_blocks
from fastneg.mining.search import no_positives
from tests.mining.helpers import KINDS, lists_of, positives_for, vectors_of
from tests.naive import mining as naive


@pytest.mark.parametrize("memory", [2 << 20, 16 << 20, 1 << 30])
@pytest.mark.parametrize("depth", [5, 500, 5_000])
def test_blocks_stay_within_the_memory(memory, depth):
    blocks = plan_blocks(100_000, 1_000_000, 64, depth, memory, call="x")
    assert blocks.bytes <= memory
    assert blocks.capacity > depth
    search = ExactSearch(np.ones((10, 64), np.float32), blocks, torch.device("cpu"))
    held = search._products.nbytes + search._buffer_items.nbytes + search._buffer_scores.nbytes
    assert held + blocks.rows * ((depth + 1) * 8 + 64 * 4) <= blocks.bytes


def test_less_memory_gives_smaller_blocks_and_too_little_says_how_much():
    sizes = [plan_blocks(10_000, 10**6, 64, 500, m, call="x") for m in (1 << 30, 4 << 20, 1 << 20)]
    assert sizes[0].rows > sizes[1].rows > sizes[2].rows >= 1
    assert sizes[0].items >= sizes[1].items >= sizes[2].items
    with pytest.raises(FastnegError, match=r"memory = 5000 bytes .* give \d+") as caught:
        plan_blocks(10_000, 10**6, 64, 500, 5_000, call="x")
    enough = int(str(caught.value).split("give ")[1].split()[0])
    assert plan_blocks(10_000, 10**6, 64, 500, enough, call="x").rows == 1
    with pytest.raises(FastnegError):
        plan_blocks(10_000, 10**6, 64, 500, enough - 1, call="x")


def test_peak_memory_of_a_search_is_what_was_planned():
    import tracemalloc

    rng = np.random.default_rng(0)
    items = rng.standard_normal((50_000, 16)).astype(np.float32)
    queries = rng.standard_normal((300, 16)).astype(np.float32)
    blocks = plan_blocks(300, 50_000, 16, 200, 4 << 20, call="x")
    assert blocks.rows < 300
    part = queries[: blocks.rows]
    warm = ExactSearch(items, blocks, torch.device("cpu"))
    warm.find(part, no_positives(len(part)), (101, 200))
    del warm
    tracemalloc.start()
    try:
        search = ExactSearch(items, blocks, torch.device("cpu"))
        search.find(part, no_positives(len(part)), (101, 200))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    norms_of_items = 50_000 * 8 + 16_384 * 16 * 8 * 2  # once, at construction
    assert peak <= blocks.bytes + norms_of_items
    assert peak >= blocks.rows * blocks.capacity * 8  # the trace sees NumPy's arrays


def test_near_ties_that_float32_products_cannot_part_are_ranked_exactly():
    # Scores that differ by a few units in the last place of a float32 product, in random order.
    rng = np.random.default_rng(1)
    query = rng.standard_normal((1, 48)).astype(np.float32)
    base = rng.standard_normal(48).astype(np.float32)
    items = np.repeat(base[None], 4000, axis=0)
    items *= 1 + rng.integers(-4, 5, items.shape).astype(np.float32) * np.float32(2.0**-23)
    blocks = Blocks(1, 256, 150, 0)
    found = ExactSearch(items, blocks, torch.device("cpu")).find(query, no_positives(1), (1, 100))
    exact = items.astype(np.float64) @ query[0].astype(np.float64)
    rounded = exact.astype(np.float32)
    assert found.items[0].tolist() == naive.ranking(rounded, set())[:100]
    by_products = np.argsort(-(items @ query[0]), kind="stable")[:100]
    assert (by_products != found.items[0]).any()  # the products alone would have been wrong


def test_devices():
    assert choose_device("cpu", call="x") == Device("cpu")
    assert choose_device("auto", call="x").type == ("cuda" if torch.cuda.is_available() else "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(FastnegError, match="device = 'cuda' cannot be used"):
            choose_device("cuda", call="x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 64])
def test_coarser_products_find_the_same(kind, width):
    rng = np.random.default_rng(width)
    items, queries = vectors_of(kind, rng, 6_000, width), vectors_of(kind, rng, 50, width)
    items[7] = queries[3] = 0.0
    lists = lists_of(positives_for(rng, 50, 6_000, 30))
    blocks = plan_blocks(50, 6_000, width, 80, 1 << 30, call="x")
    found = [
        ExactSearch(items, blocks, torch.device("cpu"), name).find(queries, lists, (11, 80))
        for name in ("float32", "bfloat16")
    ]
    np.testing.assert_array_equal(found[0].items, found[1].items)
    np.testing.assert_array_equal(found[0].scores, found[1].scores)
    scores = (queries.astype(np.float64) @ items.astype(np.float64).T).astype(np.float32)
    for q in range(0, 50, 7):
        left = np.setdiff1d(np.arange(6_000), lists.items[lists.starts[q] : lists.stops[q]])
        order = left[np.lexsort((left, -scores[q, left]))]
        np.testing.assert_array_equal(found[1].scores[q], scores[q, order[10:80]])


def test_vectors_beyond_what_half_precision_holds():
    items = np.full((300, 3), 3.4e38, np.float32)
    items[1::2] *= -1.0
    queries = np.full((4, 3), 1e-4, np.float32)
    blocks = plan_blocks(4, 300, 3, 20, 1 << 30, call="x")
    search = ExactSearch(items, blocks, torch.device("cpu"), "bfloat16")
    assert search.facts() == {"arithmetic": "bfloat16"}
    found = search.find(queries, no_positives(4), (1, 20))
    assert found.items[0].tolist() == list(range(0, 40, 2))
