"""A thousand million negatives, and not one of them a positive."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import fastneg
from bench.report import Group, Row
from bench.worlds import Known, Scale, gowalla
from fastneg import PopularitySampler, UniformSampler

TITLE = "Soak: excluded draws over gowalla's users, each checked against a bitmap of all pairs"
DRAWS = 1_000_000_000
_CELLS = 1 << 24  # of one call


def run(scale: Scale, group: Group, draws: int = DRAWS) -> None:
    known = gowalla(stand_in=scale.quick and scale.largest <= 10_000)
    bitmap = pairs_bitmap(known)
    samplers = (
        ("uniform", UniformSampler(known.interactions)),
        ("popularity^0.75", PopularitySampler(known.interactions)),
    )
    fastneg.set_num_threads(None)
    for name, sampler in samplers:
        group.add(_one(name, sampler, known, bitmap, draws // len(samplers)))
    group.note(
        f"Data: {known.name}; all {known.interactions.num_users:,} users in turn, the same number "
        "of negatives for each. The bitmap, one bit a (user, item), is made and read by NumPy "
        "alone. Ids out of range would be counted as positives too."
    )


def pairs_bitmap(known: Known) -> Any:
    """uint8 [users, ceil(N / 8)]: bit i % 8 of byte i // 8 of a user's row, item i a positive."""
    pairs = known.interactions
    bitmap = np.zeros((pairs.num_users, -(-pairs.num_items // 8)), dtype=np.uint8)
    users, items = np.divmod(known.keys, pairs.num_items)
    np.bitwise_or.at(bitmap, (users, items >> 3), np.uint8(1) << (items & 7).astype(np.uint8))
    assert int(np.bitwise_count(bitmap).sum()) == len(known.keys)
    return bitmap


def count_wrong(bitmap: Any, num_items: int, users: Any, items: Any) -> int:
    """How many of items [B, K] are positives of users [B], or are no items."""
    outside = (items < 0) | (items >= num_items)
    if outside.any():
        return int(outside.sum())
    width = bitmap.shape[1]
    places = (users * width)[:, None] + (items >> 3)
    bits = np.take(bitmap.ravel(), places) >> (items & 7).astype(np.uint8)
    return int(np.count_nonzero(bits & 1))


def _one(name: str, sampler: Any, known: Known, bitmap: Any, draws: int) -> Row:
    pairs = known.interactions
    each = -(-draws // pairs.num_users)
    step = max(1, _CELLS // each)
    drawing = wrong = done = 0
    started = time.perf_counter_ns()
    for first in range(0, pairs.num_users, step):
        users = np.arange(first, min(first + step, pairs.num_users))
        before = time.perf_counter_ns()
        items = sampler.sample(users, each, log_q=False).items.numpy()
        drawing += time.perf_counter_ns() - before
        assert items.shape == (len(users), each)
        wrong += count_wrong(bitmap, pairs.num_items, users, items)
        done += items.size
    whole = (time.perf_counter_ns() - started) * 1e-9
    return Row(
        f"{name}: {done:,} draws, K = {each:,}",
        f"{pairs.num_users:,} users",
        fastneg.get_num_threads(),
        drawing / done,
        goal="0 positives",
        reached=wrong == 0,
        note=f"{wrong} positives; {whole:.0f} s with the check, {drawing * 1e-9:.0f} s of drawing",
    )
