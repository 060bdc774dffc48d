"""Arrivals with repeats dropped, against a list and a set."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastneg.checks import frozen
from fastneg.kernels.distinct import keep_distinct
from tests.naive import samplers as naive

KEY = 31


def _twin(arrivals: list[int], row: int, wanted: int, width: int) -> tuple[list[int], float, int]:
    seen: list[int] = []
    clock = 0.0
    for draw, item in enumerate(arrivals):
        unit = ((naive.word(KEY, row, draw) >> 11) + 0.5) * 2.0**-53
        clock += -math.log(unit)
        if item not in seen:
            seen.append(item)
        if len(seen) == wanted:
            break
    return seen[:width], clock, len(seen)


@given(st.integers(1, 6), st.integers(0, 1), st.integers(1, 12), st.integers(0, 2**32))
def test_against_a_list(width: int, extra: int, span: int, seed: int) -> None:
    num_rows, block, blocks = 3, 5, 3
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, span, (num_rows, block * blocks)) * 1_000_003
    tags = (drawn % 5).astype(np.int8)
    rows = frozen(rng.integers(0, 2**50, num_rows))
    wanted = np.full(num_rows, width + extra)
    items, source = np.full((num_rows, width), -1), np.full((num_rows, width), -1, np.int8)
    found, clock = np.zeros(num_rows, np.int64), np.zeros(num_rows)
    size = 1 << (2 * (width + 1)).bit_length()
    for turn in range(blocks):  # fed in blocks, as the sampler feeds it
        part = slice(turn * block, (turn + 1) * block)
        slots, stamps = np.empty(size, np.int64), np.full(size, -1)
        still = keep_distinct(
            drawn[:, part].copy(), tags[:, part].copy(), np.uint64(KEY), rows, turn * block,
            wanted, slots, stamps, found, clock, items, source,
        )  # fmt: skip
        assert still == (found < wanted).sum()
    for b in range(num_rows):
        kept, time, count = _twin(drawn[b].tolist(), int(rows[b]), width + extra, width)
        assert items[b, : len(kept)].tolist() == kept
        assert (items[b, len(kept) :] == -1).all()
        assert source[b, : len(kept)].tolist() == [item % 5 for item in kept]
        assert found[b] == count
        assert clock[b] == pytest.approx(time, rel=1e-12)
