"""Draws without replacement, for every sampler alike.

Items arrive as a Poisson process of unit rate with marks from q(i|u); repeats are dropped; a row
keeps its first K distinct items and T is the time of the (K + 1)-th. Given T, item i is among the
K with probability 1 - exp(-q(i|u) T), and sums weighted by its inverse are unbiased (PPSWOR with
rank conditioning; Cohen and Kaplan 2007). A row whose K items are all there are has T = infinity.

Most rows are done after K and a few arrivals. A row that still waits after a fixed number of them
(a few items hold nearly all the mass, or nearly every item is wanted) is finished exactly by the
memorylessness of the process: from now on every unseen item arrives after an exponential time of
its own, and the earliest are taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray, fail
from fastneg.kernels.distinct import keep_distinct
from fastneg.samplers.tiles import EVERYWHERE
from fastneg.streams import mix64, uniform_words, unit_interval
from fastneg.threads import run_chunks

if TYPE_CHECKING:
    from fastneg.samplers.base import Plan, Sampler

_ROUNDS = 3  # blocks of arrivals before the rest is raced
_RACEABLE = 1 << 27  # items that a race may hold side by side
_PATIENCE = 64  # blocks of arrivals for catalogs beyond that


def draw_distinct(
    sampler: Sampler, plan: Plan, items: IntArray, source: npt.NDArray[np.int8]
) -> FloatArray:
    """Fill ``items`` and ``source`` [B, K] with distinct draws; returns T, float64 [B].

    Rows have K reachable items at least (checked by the caller).
    """
    num_rows, width = items.shape
    reachable = sampler._num_reachable(plan, width)
    wanted = np.where(reachable > width, width + 1, width).astype(np.int64)
    found = np.zeros(num_rows, dtype=np.int64)
    clock = np.zeros(num_rows, dtype=np.float64)
    key = sampler._key(plan.request.lane, "clock")
    block = width + width // 2 + 16
    size = 1 << (2 * (width + 1)).bit_length()
    rows = plan.request.rows
    # a race over all items is for catalogs that fit; larger ones have items enough to wait for
    rounds = _ROUNDS if sampler.num_items <= _RACEABLE else _PATIENCE
    for turn in range(rounds):
        drawn = np.zeros((num_rows, block), dtype=np.int64)
        tags = np.zeros((num_rows, block), dtype=np.int8)
        cells = EVERYWHERE if len(sampler.source_names) == 1 else tags
        sampler._draw(plan, turn * block, drawn, cells, 0)

        def feed(
            i: int,
            j: int,
            drawn: IntArray = drawn,
            tags: npt.NDArray[np.int8] = tags,
            first: int = turn * block,
        ) -> None:
            slots, stamps = np.empty(size, dtype=np.int64), np.full(size, -1, dtype=np.int64)
            keep_distinct(
                drawn[i:j], tags[i:j], key, rows[i:j], first, wanted[i:j], slots, stamps,
                found[i:j], clock[i:j], items[i:j], source[i:j],
            )  # fmt: skip

        run_chunks(feed, num_rows, smallest=max(1, 8192 // block))
        if (found >= wanted).all():
            break
    waiting = np.flatnonzero(found < wanted)
    if len(waiting) and sampler.num_items > _RACEABLE:
        fail(
            type(sampler).__name__,
            f"{width} distinct items of {sampler.num_items} do not turn up in {rounds * block} "
            "draws; give fewer negatives or draw with replacement",
        )
    for b in waiting:
        _race(sampler, plan, int(b), int(found[b]), int(wanted[b]), clock, items, source)
    clock[reachable <= width] = np.inf
    return clock


def _race(
    sampler: Sampler,
    plan: Plan,
    b: int,
    found: int,
    wanted: int,
    clock: FloatArray,
    items: IntArray,
    source: npt.NDArray[np.int8],
) -> None:
    """Finish row b: every unseen item arrives after its own exponential time, rate q(i|u)."""
    row_plan = sampler._plan(plan.request.take(np.array([b], dtype=np.int64)))
    log_q = np.empty((1, sampler.num_items), dtype=np.float64)
    sampler._log_q(
        row_plan, np.arange(sampler.num_items, dtype=np.int64)[None, :], log_q, check=True
    )
    rate = np.exp(log_q[0])
    rate[items[b, :found]] = 0.0
    candidates = np.flatnonzero(rate > 0.0)
    row = int(plan.request.rows[b])
    key = mix64(int(sampler._key(plan.request.lane, "race")) ^ mix64(row))
    uniform = unit_interval(uniform_words(key, sampler.num_items)[candidates])
    waits = -np.log(uniform) / rate[candidates]
    order = np.argsort(waits, kind="stable")[: wanted - found]
    taken = candidates[order][: items.shape[1] - found]
    items[b, found : found + len(taken)] = taken
    source[b, found : found + len(taken)] = sampler._sources_of(row_plan, taken)
    clock[b] += waits[order[-1]]
