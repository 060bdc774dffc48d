"""The passes one by one: who was refused stands in front, and one by one is pass by pass."""

from __future__ import annotations

import numpy as np
import pytest

from fastneg.checks import frozen
from fastneg.kernels import streaming
from fastneg.kernels import streaming_passes as passes

SCALE = 44
START = np.uint64(0x1234_5678_9ABC_DEF1)
NOTHING = frozen(np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize("step", [1, 3])  # written in one go, and one by one
def test_who_was_refused_stands_in_front(step: int) -> None:
    rng = np.random.default_rng(step)
    tries = 301
    draws = np.arange(4, 4 + step * tries, step).astype(np.uint64)
    kept, found = rng.integers(0, 50, (2, tries)).astype(np.uint64)
    coins = rng.integers(0, 2, tries).astype(np.uint64)
    out, due = np.full(5 + step * tries, -9), np.full(5 + step * tries, -9)
    due[draws.astype(int)] = found
    again = coins == 1
    wanted = draws[again].tolist(), kept[again].tolist()
    rejected = passes.hand_out(tries, found, draws, kept, coins, out, np.empty(tries, np.uint64))
    assert rejected == again.sum() > 100
    np.testing.assert_array_equal(out, due)
    assert (draws[:rejected].tolist(), kept[:rejected].tolist()) == wanted


@pytest.mark.parametrize("known", [0, 3000])  # shares computed, and from their table
@pytest.mark.parametrize("excluding", [False, True])
def test_one_by_one_is_pass_by_pass(excluding: bool, known: int) -> None:
    law = frozen(np.array([0.75, 0.0, 2, SCALE], dtype=np.float64))
    shares = np.empty(known, dtype=np.uint64)
    streaming.fill_shares(0, law, shares)
    counts = np.array([1, 1, 1, 1030, 1100, 1200, 1279, 1279])  # buckets of one count and of many
    records = frozen(np.stack([counts, np.arange(8)], axis=1))
    order, spans = frozen(np.arange(8).astype(np.uint32)), np.zeros(42, dtype=np.uint64)
    spans[1], spans[37] = 3, (3 << 32) | 5
    left = np.zeros(42, dtype=np.uint64)
    excluded = frozen(np.array([1, 5]))
    high = 2 if excluding else 0
    width = 500
    draws = np.arange(width).astype(np.uint64)
    kept = np.where(draws % np.uint64(3) == 0, 1, 37).astype(np.uint64)
    due, out = np.full(width, -1), np.full(width, -1)
    refused = passes.finish(
        width, 1, draws, kept, np.empty(width, np.uint64), spans, left, records, order, shares,
        law, excluded, 0, high, START, np.uint64(7), due,
    )  # fmt: skip
    assert refused == 0
    found, coins, limits = np.empty((3, width), dtype=np.uint64)
    tries, attempt = width, 1
    while tries and attempt <= passes.ATTEMPTS:
        passes.pick_places(
            tries, attempt, START, np.uint64(7), draws, kept, spans, np.uint64(64 - SCALE), found,
            coins,
        )  # fmt: skip
        passes.look_up(tries, found, order)
        passes.judge(tries, found, kept, coins, records, shares, law, 1279, np.uint64(9), limits)
        if excluding:
            passes.refuse_excluded(tries, found, excluded, 0, high, coins)
        tries = passes.hand_out(tries, found, draws, kept, coins, out, limits)
        attempt += 1
    assert tries == 0
    assert attempt > 3
    np.testing.assert_array_equal(out, due)
    assert np.unique(out).size == 8 - high
