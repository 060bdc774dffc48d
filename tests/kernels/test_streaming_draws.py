"""The choice of buckets, exactly, and draws word for word."""

from __future__ import annotations

from fractions import Fraction

import numba
import numpy as np
import pytest

from fastneg.checks import frozen
from fastneg.kernels import streaming, streaming_draws
from tests.naive import streaming as naive

SCALE = 44
KEY = 0xFEDC_BA98_7654_3211
EVERYWHERE = np.zeros((0, 0), dtype=np.int8)
_choice = streaming_draws._choice
_fill_cells = streaming_draws._fill_cells


@numba.njit
def _table(mass, upper):
    chosen = np.empty(mass.shape[0], dtype=np.int64)
    _choice(mass, upper, mass.shape[0], chosen)
    cells, masses = np.zeros((256, 3), dtype=np.int64), np.empty(256, dtype=np.int64)
    g = _fill_cells(chosen, mass.shape[0], cells, masses)
    return chosen, cells, g


def _random_masses(case: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(case)
    size = int(rng.integers(1, 200))
    mass = (rng.integers(0, 2, size) * rng.integers(1, 2**52, size)).astype(np.uint64)
    mass[int(rng.integers(size))] = 7
    spread = [1, 10, 300, 2000][case % 4]
    upper = np.stack([1 + rng.random(size), np.floor(rng.normal(0, spread, size))], axis=1)
    return mass, upper


@pytest.mark.parametrize("case", range(24))
def test_the_choice_of_buckets_is_exact(case: int) -> None:
    mass, upper = _random_masses(case)
    weights = [Fraction(int(m)) * Fraction(u) * Fraction(2) ** int(e)
               for m, (u, e) in zip(mass, upper, strict=True)]  # fmt: skip
    total = sum(weights)
    chosen, cells, g = _table(mass, upper)
    assert sum(chosen.tolist()) == 1 << 62
    for weight, got in zip(weights, chosen.tolist(), strict=True):
        assert (got > 0) == (weight > 0)
        assert abs(got - weight / total * 2**62) <= max(1, float(weight / total) * 2**62 * 1e-12)
    given = [0] * len(mass)
    for threshold, own, other in cells[: 1 << g].tolist():
        assert 0 <= threshold <= 1 << (62 - g)
        given[own] += threshold
        given[other] += (1 << (62 - g)) - threshold
    assert given == chosen.tolist()


def test_a_bucket_that_is_never_drawn_gets_nothing() -> None:
    upper = np.array([[0.0, 0.0], [1.5, 3.0]])
    chosen, _, _ = _table(np.array([10, 1], np.uint64), upper)
    assert chosen.tolist() == [0, 1 << 62]


COUNTS = [0, 1, 1, 2, 3, 90, 91, 92, 95, 95, 1000, 1001, 1150, 1151, 1100, 0, 5, 2**30, 97, 99]
LISTS = [[], [17], [5, 6, 7, 8, 9], list(range(18)), [0, 3, 17, 18], [10, 11, 14, 17]]
OWNER = [-1, 0, 1, 2, 3, 4, 5, -1]
ROWS = [0, 1, 2, 2**40, 2**62, 5, 6, 7]


def _world(exponent: float, smoothing: float):
    law = frozen(np.array([exponent, smoothing, 2, SCALE], dtype=np.float64))
    shares = np.empty(64, dtype=np.uint64)
    streaming.fill_shares(0, law, shares)
    edges = np.full(193, -1.0)
    for count in [*range(1300), 2**30]:
        edges[naive.bucket_of(count, 2)] = count and naive.edge_of(min(count, 2000), 2, exponent)
    edges[naive.bucket_of(2**30, 2)] = 2**30 if exponent <= 0 else 5 * 2**28 - 1
    edges[0] = 0.0 if smoothing else -1.0
    upper = np.empty((193, 2))
    streaming.fill_upper(frozen(edges), law, upper)
    records = np.zeros((len(COUNTS), 2), dtype=np.int64)
    records[:, 0] = COUNTS
    order, borders = np.empty(len(COUNTS), np.uint32), np.empty((193, 2), np.int64)
    mass = np.empty(193, np.uint64)
    streaming.arrange(0, records, order, borders, mass, frozen(shares), law)
    return records, order, borders, mass, upper, shares, law


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    ("exponent", "smoothing"), [(0.75, 0.0), (1.0, 0.5), (-1.0, 0.0), (0.0, 1.0), (40.0, 0.0)]
)
def test_draws_and_their_probabilities(exponent: float, smoothing: float, partial: bool) -> None:
    records, order, borders, mass, upper, shares, law = _world(exponent, smoothing)
    buckets = naive.bucket_of(max(COUNTS), 2) + 1
    views = [frozen(array) for array in (records, order, borders, mass, upper, shares)]
    indptr = frozen(np.cumsum([0, *map(len, LISTS)]))
    excluded = frozen(np.array([i for ids in LISTS for i in ids]))
    owner, rows = frozen(np.array(OWNER)), frozen(np.array(ROWS))
    width, first = 700, 5
    items = np.full((len(OWNER), width), -9)
    source = EVERYWHERE
    if partial:
        source = (np.indices(items.shape).sum(axis=0) % 3).astype(np.int8)
    streaming_draws.draw_popular(
        *views,
        law,
        max(COUNTS),
        indptr,
        excluded,
        owner,
        np.uint64(KEY),
        rows,
        first,
        source,
        1,
        items,
    )
    log_q = np.empty((len(OWNER), len(COUNTS)))
    everything = np.tile(np.arange(len(COUNTS)), (len(OWNER), 1))
    streaming_draws.popular_log_q(
        records,
        mass,
        upper,
        shares,
        law,
        max(COUNTS),
        indptr,
        excluded,
        owner,
        True,
        everything,
        log_q,
    )
    places: dict[int, list[int]] = {}
    for item in order.tolist():
        places.setdefault(naive.bucket_of(COUNTS[item], 2), []).append(item)
    single = np.empty(1, dtype=np.uint64)
    share = {}
    for item, count in enumerate(COUNTS):
        streaming.fill_shares(count, law, single)
        share[item] = int(single[0])
    last = []
    for b, o in enumerate(OWNER):
        known = set(LISTS[o]) if o >= 0 else set()
        left = np.zeros(buckets, dtype=np.uint64)
        for item, count in enumerate(COUNTS):
            if item not in known:
                left[naive.bucket_of(count, 2)] += np.uint64(share[item])
        chosen, table, g = _table(left, upper)
        cells = table.tolist()
        for d in range(width):
            if partial and source[b, d] != 1:
                assert items[b, d] == -9
                continue
            item, attempt = naive.draw(
                cells, g, places, share, SCALE, known, KEY, ROWS[b], first + d
            )
            assert items[b, d] == item
            last.append(attempt)
        for item, count in enumerate(COUNTS):
            bucket = naive.bucket_of(count, 2)
            if item in known or chosen[bucket] == 0:
                assert log_q[b, item] == -np.inf
            else:
                q = Fraction(int(chosen[bucket]), 1 << 62) * share[item] / int(left[bucket])
                assert abs(np.exp(log_q[b, item]) / float(q) - 1) < 5e-12
    if exponent == 40.0:
        assert last.count(17) > 100  # the walk was taken too
