"""The selection kernels against sorts and loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastneg.checks import frozen
from fastneg.kernels import selection, window
from fastneg.kernels.jit import kernel
from fastneg.kernels.lanes import LANES, inner_product
from fastneg.streams import key_of
from tests.naive import mining as naive


@kernel
def _kth(values, k):
    return selection.kth_largest(values, values.size, k)


@kernel
def _inner(left, right):
    return inner_product(left, right)


@kernel
def _key(bits, item):
    key = selection.sort_key(bits, item)
    return key, selection.key_item(key)


@kernel
def _contains(values, start, stop, wanted):
    return selection.contains(values, start, stop, wanted)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.integers(-5, 5) | st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=80
    ),
    st.data(),
)
def test_kth_largest_is_the_sorted_lists(values, data):
    k = data.draw(st.integers(1, len(values)))
    array = np.array(values, np.float32)
    assert _kth(array.copy(), k) == np.sort(array)[::-1][k - 1]


@pytest.mark.parametrize("base", [1.0, -1.0, 1e-30, 3e38])
def test_kth_largest_of_neighbours_that_differ_in_their_last_bits(base):
    bits = np.array([base], np.float32).view(np.uint32) + np.arange(300, dtype=np.uint32)
    values = np.random.default_rng(0).permutation(bits.view(np.float32))
    for k in (1, 2, 77, 299, 300):
        assert _kth(values.copy(), k) == np.sort(values)[::-1][k - 1]


@pytest.mark.parametrize("width", [1, 2, 7, LANES - 1, LANES, LANES + 1, 64, 100, 257])
def test_inner_product_adds_lanes_in_a_fixed_tree(width):
    rng = np.random.default_rng(width)
    left, right = rng.standard_normal((2, width)).astype(np.float32)
    products = left.astype(np.float64) * right.astype(np.float64)
    whole = width - width % LANES
    sums = [0.0] * LANES
    for c in range(whole):
        sums[c % LANES] += products[c]
    while len(sums) > 1:
        half = len(sums) // 2
        sums = [sums[i] + sums[i + half] for i in range(half)]
    total = sums[0]
    for c in range(whole, width):
        total += products[c]
    assert _inner(left, right) == total  # to the last bit


def test_keys_order_by_score_then_by_lower_id():
    scores = np.array([-np.inf, -1e30, -1.5, -1e-40, 0.0, 1e-40, 2.0, 1e30, np.inf], np.float32)
    made = [
        (_key(bits, item), item) for bits in scores.view(np.uint32) for item in (2**31 - 2, 5, 0)
    ]
    keys = [key for (key, _), _ in made]
    assert keys == sorted(keys)
    assert len(set(keys)) == len(keys)
    assert all(found == item for (_, found), item in made)


def test_contains_within_a_part():
    values = np.array([1, 3, 5, 7, 9])
    for start in range(6):
        for stop in range(start, 6):
            for wanted in range(11):
                assert _contains(values, start, stop, wanted) == (wanted in values[start:stop])


def run_selection(queries, items, sets, first_rank, depth, tile, capacity, noise, rng):
    """The exact search's kernels with products made here, off by up to ``noise``."""
    num_queries, num_items = len(queries), len(items)
    starts = np.cumsum([0] + [len(s) for s in sets])
    positives = frozen(np.array([i for s in sets for i in sorted(s)], np.int64))
    bounds = np.full(num_queries, -np.inf, np.float32)
    cursors, counts = starts[:-1].copy(), np.zeros(num_queries, np.int64)
    buffers = (
        np.empty((num_queries, capacity), np.int32),
        np.empty((num_queries, capacity), np.float32),
    )
    slack = np.full(num_queries, noise * 1.01)
    queries, items = frozen(queries), frozen(items)
    for first in range(0, num_items, tile):
        part = items[first : first + tile].astype(np.float64)
        products = queries.astype(np.float64) @ part.T
        products += rng.uniform(-noise, noise, products.shape)
        selection.admit_tile(
            products.astype(np.float32),
            first,
            queries,
            items,
            depth,
            slack,
            starts[:-1].copy(),
            starts[1:].copy(),
            positives,
            cursors,
            bounds,
            counts,
            *buffers,
        )
    out = (
        np.empty((num_queries, depth - first_rank + 1), np.int32),
        np.empty((num_queries, depth - first_rank + 1), np.float32),
    )
    selection.write_window(queries, items, depth, slack, counts, *buffers, first_rank, *out)
    return out


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_window_tile_and_buffer_give_the_exact_ranks(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    num_queries = data.draw(st.integers(1, 4))
    num_items = data.draw(st.sampled_from([1, 2, 63, 64, 65, 127, 300, 701]))
    width = data.draw(st.sampled_from([1, 3, 16, 17]))
    depth = data.draw(st.integers(1, num_items))
    first_rank = data.draw(st.integers(1, depth))
    tile = data.draw(st.sampled_from([1, 7, 64, 100, 1000]))
    capacity = depth + data.draw(st.sampled_from([1, 2, 50, 1000]))
    noise = data.draw(st.sampled_from([0.0, 0.4, 5.0]))  # as if products came in few bits
    spread = data.draw(st.sampled_from([1, 2, 4]))
    queries = rng.integers(-spread, spread + 1, (num_queries, width)).astype(np.float32)
    items = rng.integers(-spread, spread + 1, (num_items, width)).astype(np.float32)
    sets = [
        set(rng.choice(num_items, rng.integers(0, num_items + 1), replace=False).tolist())
        for _ in range(num_queries)
    ]
    found, scores = run_selection(
        queries, items, sets, first_rank, depth, tile, capacity, noise, rng
    )
    for q in range(num_queries):
        s = naive.scores_of(queries[q], items)
        want = naive.ranking(s, sets[q])[first_rank - 1 : depth]
        padding = depth - first_rank + 1 - len(want)
        assert found[q].tolist() == want + [-1] * padding
        assert scores[q].tolist() == [s[i] for i in want] + [-np.inf] * padding


def test_a_slack_that_is_too_small_loses_items():
    # The bound of the products' error matters: with none, noisy products give wrong windows.
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((20, 8)).astype(np.float32)
    items = rng.standard_normal((3000, 8)).astype(np.float32)

    class Loud(np.random.Generator):
        def uniform(self, low, high, size):
            return super().uniform(-0.3, 0.3, size)

    found, _ = run_selection(
        queries, items, [set()] * 20, 1, 50, 500, 120, 1e-6, Loud(np.random.PCG64(0))
    )
    wrong = 0
    for q in range(20):
        wrong += found[q].tolist() != naive.ranking(naive.scores_of(queries[q], items), set())[:50]
    assert wrong > 10


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_found_items_in_any_order_with_repeats_and_gaps(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    num_items = data.draw(st.integers(1, 60))
    queries = rng.integers(-2, 3, (3, 5)).astype(np.float32)
    items = rng.integers(-2, 3, (num_items, 5)).astype(np.float32)
    found = rng.integers(-1, num_items, (3, data.draw(st.integers(0, 90))))
    sets = [
        set(rng.choice(num_items, rng.integers(0, num_items + 1), replace=False).tolist())
        for _ in range(3)
    ]
    starts = np.cumsum([0] + [len(s) for s in sets])
    positives = np.array([i for s in sets for i in sorted(s)], np.int64)
    first_rank = data.draw(st.integers(1, 20))
    out_items, out_scores = np.empty((3, 12), np.int32), np.empty((3, 12), np.float32)
    selection.rank_found(
        found,
        frozen(queries),
        frozen(items),
        starts[:-1].copy(),
        starts[1:].copy(),
        frozen(positives),
        first_rank,
        out_items,
        out_scores,
    )
    for q in range(3):
        s = naive.scores_of(queries[q], items)
        order = [i for i in naive.ranking(s, sets[q]) if i in found[q]]
        want = order[first_rank - 1 : first_rank + 11]
        assert out_items[q].tolist() == want + [-1] * (12 - len(want))
        assert out_scores[q].tolist() == [s[i] for i in want] + [-np.inf] * (12 - len(want))


def test_the_lowest_positive():
    rng = np.random.default_rng(0)
    queries = rng.integers(-2, 3, (3, 5)).astype(np.float32)
    items = rng.integers(-2, 3, (9, 5)).astype(np.float32)
    lowest = np.empty(3)
    selection.lowest_positive(
        frozen(queries),
        frozen(items),
        np.array([0, 2, 2]),
        np.array([2, 2, 6]),
        frozen(np.array([1, 7, 0, 2, 5, 8])),
        lowest,
    )
    assert lowest[0] == min(queries[0] @ items[1], queries[0] @ items[7])
    assert lowest[1] == np.inf
    assert lowest[2] == (items[[0, 2, 5, 8]] @ queries[2]).min()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_draws_are_distinct_eligible_and_those_of_the_race(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    width, n = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 45))
    strategy = data.draw(st.sampled_from([window.UNIFORM, window.TOP, window.SOFTMAX]))
    weighted = data.draw(st.booleans())
    num_items = 60
    items = np.array([rng.permutation(num_items)[:width] for _ in range(3)], np.int32)
    scores = -np.sort(-rng.standard_normal((3, width)).astype(np.float32), axis=1)
    reasons = rng.choice([0, 0, 1, 2, 3], (3, width)).astype(np.uint8)
    weights = rng.choice([1.0, 0.5, 0.01], num_items) if weighted else None
    key, first_row, first_rank = key_of(data.draw(st.integers(0, 99)), 7), 1000, 11
    out = (np.empty((3, n), np.int64), np.empty((3, n), np.float32), np.empty((3, n), np.int32))
    window.draw_window(
        items,
        scores,
        reasons,
        first_rank,
        np.uint64(key),
        first_row,
        strategy,
        0.5,
        np.log(weights) if weighted else np.empty(0),
        *out,
    )
    name = ("uniform", "top", "softmax")[strategy]
    for row in range(3):
        members = [(int(items[row, c]), c) for c in range(width) if reasons[row, c] == 0]
        of = {int(items[row, c]): scores[row, c] for c in range(width)}
        want = naive.draw(members, of, n, name, 0.5, key, first_row + row, weights)
        got = out[0][row]
        assert got[: len(want)].tolist() == want
        assert (got[len(want) :] == -1).all()
        assert len(want) == min(n, len(members))
        places = dict(members)
        missing = n - len(want)
        assert out[2][row].tolist() == [places[i] + first_rank for i in want] + [0] * missing
        assert out[1][row].tolist() == [of[i] for i in want] + [-np.inf] * missing
