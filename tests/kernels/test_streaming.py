"""Buckets, shares and updates against Python integers."""

from __future__ import annotations

import functools
import math

import numba
import numpy as np
import pytest

from fastneg.checks import frozen
from fastneg.kernels import streaming as kernels
from tests.naive import streaming as naive

SCALE = 40
_SCRATCH = np.empty(5 * 1024, dtype=np.uint64)


@numba.njit
def _bucket(count, bits):
    return kernels.bucket_of(count, bits)


@numba.njit
def _share(count, shares, law):
    return kernels.share_of(count, shares, law)


def _law(exponent: float, smoothing: float = 0.0, bits: int = 2) -> np.ndarray:
    return frozen(np.array([exponent, smoothing, bits, SCALE], dtype=np.float64))


def _shares(law: np.ndarray, size: int, first: int = 0) -> np.ndarray:
    out = np.empty(size, dtype=np.uint64)
    kernels.fill_shares(first, law, out)
    return frozen(out)


@functools.cache
def _edge(count: int, exponent_is_positive: bool) -> int:
    return naive.edge_of(count, 2, 1.0 if exponent_is_positive else -1.0)


@pytest.mark.parametrize("bits", [2, 3, 6])
def test_buckets(bits: int) -> None:
    edges = [(1 << k) + d for k in range(1, 48) for d in (-1, 0, 1)]
    for count in [*range(3000), *edges]:
        assert _bucket(count, bits) == naive.bucket_of(count, bits)


@pytest.mark.parametrize("smoothing", [0.0, 0.5, 1000.0])
@pytest.mark.parametrize("exponent", [-20.0, -0.75, 0.0, 0.75, 1.0, 3.0, 20.0])
def test_shares_are_the_powers_within_a_bucket(exponent: float, smoothing: float) -> None:
    law = _law(exponent, smoothing)
    shares = _shares(law, 1100)
    assert shares[0] == 1 << SCALE
    for count in [*range(1, 1100), 10**6 + 1, 2**40 + 12345]:
        share = int(_share(count, shares, law))
        edge = count if count > 2**20 else _edge(count, exponent > 0)
        if count > 2**20:  # too far to walk
            width = 1 << (count.bit_length() - 3)
            edge = count | (width - 1) if exponent > 0 else count & ~(width - 1)
        wanted = ((count + smoothing) / (edge + smoothing)) ** exponent * 2.0**SCALE
        assert abs(share - wanted) <= 0.5 + wanted * 1e-12


def test_shares_from_the_table_and_computed_are_the_same() -> None:
    nothing = frozen(np.zeros(0, dtype=np.uint64))
    for law in (_law(0.75), _law(-1.3, 0.25), _law(5.0, 0.0, 4)):
        table = _shares(law, 9000)
        assert [int(_share(c, nothing, law)) for c in range(9000)] == table.tolist()
        np.testing.assert_array_equal(_shares(law, 700, first=8100), table[8100:8800])


def test_upper_weights() -> None:
    edges = np.array([-1.0, 0.0, 1.0, 7.0, 2.0**47])
    for exponent, smoothing in [(0.75, 0.0), (-3.0, 0.5), (300.0, 2.0)]:
        upper = np.empty((5, 2))
        kernels.fill_upper(frozen(edges), _law(exponent, smoothing), upper)
        assert upper[0, 0] == 0.0
        for edge, (m, e) in zip(edges[1:], upper[1:], strict=True):
            if edge + smoothing == 0.0:
                assert m == 0.0
                continue
            assert 1.0 <= m < 2.0 + 1e-9
            wanted = exponent * math.log2(edge + smoothing)
            assert abs(math.log2(m) + e - wanted) <= 1e-12 * max(1.0, abs(wanted))


def _tables(counts: np.ndarray, law: np.ndarray) -> list[np.ndarray]:
    records = np.zeros((len(counts), 2), dtype=np.int64)
    records[:, 0] = counts
    order, borders = np.empty(len(counts), np.uint32), np.empty((193, 2), np.int64)
    return [records, order, borders, np.empty(193, np.uint64)]


def _agree(tables: list[np.ndarray], twin: naive.Counts, shares: np.ndarray) -> None:
    records, order, borders, mass = tables
    assert records[:, 0].tolist() == twin.counts
    assert order.tolist() == twin.order
    assert records[order, 1].tolist() == list(range(len(order)))
    for b in range(len(borders)):
        ids = twin.buckets.get(b, [])
        assert borders[b, 1] == len(ids)
        assert order[borders[b, 0] :][: len(ids)].tolist() == ids or not ids
        assert int(mass[b]) == sum(int(shares[twin.counts[item]]) for item in ids)


@pytest.mark.parametrize("size", [0, 40])  # computed, and from a table that is too short
def test_updates(size: int) -> None:
    law = _law(0.75)
    every = _shares(law, 3000)
    shares = frozen(every[:size].copy())
    rng = np.random.default_rng(3)
    counts = np.concatenate([np.zeros(7, int), rng.integers(0, 30, 20), [500, 511, 1023]])
    tables, twin = _tables(counts, law), naive.Counts(counts.tolist(), 2)
    tally = np.array([3, kernels.arrange(0, *tables, shares, law)])
    assert tally[1] == 1023
    _agree(tables, twin, every)
    seen = 3
    for length in (0, 1, 2, 17, 900):
        events = rng.integers(0, len(counts), length) ** 2 // len(counts)
        assert kernels.count_events(frozen(events), tally, *tables, shares, law, _SCRATCH)
        twin.see(events.tolist())
        seen += length
        assert tally.tolist() == [seen, max(twin.counts)]
        _agree(tables, twin, every)
    twin.counts = [count >> 1 for count in twin.counts]
    again = naive.Counts(twin.counts, 2)
    assert kernels.arrange(1, *tables, shares, law) == max(again.counts)
    _agree(tables, again, every)


def test_items_outside_the_catalog_count_nothing() -> None:
    law = _law(1.0)
    shares, tables = _shares(law, 50), _tables(np.arange(5), law)
    kernels.arrange(0, *tables, shares, law)
    before = [array.copy() for array in tables]
    for bad in (-1, 5, -(2**63), 2**62):
        events = frozen(np.array([0, 1, bad, 2]))
        tally = np.array([0, 4])
        assert not kernels.count_events(events, tally, *tables, shares, law, _SCRATCH)
        assert tally.tolist() == [0, 4]
        for array, was in zip(tables, before, strict=True):
            np.testing.assert_array_equal(array, was)


def test_allowed() -> None:
    records = frozen(np.array([[0, 0], [3, 1], [0, 2], [1, 3]]))
    indptr, excluded = frozen(np.array([0, 0, 2, 4])), frozen(np.array([0, 1, 1, 3]))
    owner, out = frozen(np.array([-1, 0, 1, 2])), np.empty(4, np.int64)
    kernels.count_allowed(records, False, 2, indptr, excluded, owner, out)
    assert out.tolist() == [2, 2, 1, 0]
    kernels.count_allowed(records, True, 4, indptr, excluded, owner, out)
    assert out.tolist() == [4, 4, 2, 2]
