"""Draws without replacement, for every sampler alike.

Items arrive as a Poisson process of unit rate with marks from q(i|u); repeats are dropped; a row
keeps its first K distinct items and T is the time of the (K + 1)-th. Given T, item i is among the
K with probability 1 - exp(-q(i|u) T), and sums weighted by its inverse are unbiased (PPSWOR with
rank conditioning; Cohen and Kaplan 2007). A row whose K items are all there are has T = infinity.

Most rows are done after K and a few arrivals. A row that still waits after a fixed number of them
(a few items hold nearly all the mass, or nearly every item is wanted) is finished exactly by the
memorylessness of the process. In a small catalog every unseen item arrives from now on after an
exponential time of its own, and the earliest are taken. In a larger one the sampler draws on with
the items that the row has excluded: the next arrival is new for certain, and arrivals are as much
rarer as what is left is less probable. Each turn finds one item at least, and costs what any draw
with so many exclusions costs, whatever the size of the catalog.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from fastneg.checks import FloatArray, IntArray
from fastneg.kernels.distinct import keep_distinct
from fastneg.samplers.tiles import EVERYWHERE
from fastneg.streams import mix64, uniform_words, unit_interval
from fastneg.threads import run_chunks

if TYPE_CHECKING:
    from fastneg.samplers.hooks import Hooks, Plan
    from fastneg.samplers.request import Request

Tags = npt.NDArray[np.int8]

_ROUNDS = 3  # blocks of arrivals before what is drawn is excluded
_RACEABLE = 1024  # items of which a race costs no more than excluding some of them
_AT_ONCE = 1 << 20  # items of rows that race side by side


class Drawn(NamedTuple):
    """What rows have drawn so far; draws are added in place.

    Attributes:
        wanted: int64 [B], distinct items at which a row is done (K, or K + 1 to know T).
        found: int64 [B], distinct items so far.
        clock: float64 [B], the time of the last arrival.
        items: int64 [B, K], the first ``found`` of each row.
        source: int8 [B, K], their tags.
    """

    wanted: IntArray
    found: IntArray
    clock: FloatArray
    items: IntArray
    source: Tags

    def take(self, rows: IntArray) -> Drawn:
        """A copy of some rows, their clocks at 0."""
        parts = (self.wanted[rows], self.found[rows], np.zeros(len(rows)))
        return Drawn(*parts, self.items[rows], self.source[rows])

    def put(self, rows: IntArray, part: Drawn) -> None:
        """Write rows back that ``take`` gave."""
        self.found[rows], self.items[rows] = part.found, part.items
        self.source[rows] = part.source


def draw_distinct(sampler: Hooks, plan: Plan, items: IntArray, source: Tags) -> FloatArray:
    """Fill ``items`` and ``source`` [B, K] with distinct draws; returns ln T, float64 [B].

    Rows have K reachable items at least (checked by the caller).
    """
    num_rows, width = items.shape
    reachable = sampler._num_reachable(plan, width)
    wanted = np.where(reachable > width, width + 1, width).astype(np.int64)
    have = Drawn(wanted, np.zeros(num_rows, np.int64), np.zeros(num_rows), items, source)
    key = sampler._key(plan.request.lane, "clock")
    block = _block(width)
    for turn in range(_ROUNDS):
        drawn = _arrivals(sampler, plan, turn * block, block)
        _keep(drawn, turn * block, key, plan.request.rows, have)
        if (have.found >= wanted).all():
            break
    with np.errstate(divide="ignore"):
        log_clock = np.log(have.clock)
    waiting = np.flatnonzero(have.found < wanted)
    if len(waiting) and sampler.num_items <= _RACEABLE:
        _race(sampler, plan, waiting, have, log_clock)
    elif len(waiting):
        _draw_the_rest(sampler, plan, waiting, have, log_clock)
    log_clock[reachable <= width] = np.inf
    return log_clock


def count_reachable(sampler: Hooks, request: Request, at_most: int) -> IntArray:
    """int64 [B]: how many items can come up, ``at_most`` + 1 where it is more than that."""
    count = request.num_rows
    request = replace(request, rows=np.arange(count))  # any words do
    shape = (count, at_most + 1)
    wanted, found = np.full(count, at_most + 1), np.zeros(count, np.int64)
    have = Drawn(
        wanted, found, np.zeros(count), np.zeros(shape, np.int64), np.zeros(shape, np.int8)
    )
    rows = np.arange(count)
    while True:
        rest = sampler._plan(request.take(rows).after(have.items[rows], have.found[rows]))
        rows = rows[(rest.allowed > 0) & (have.found[rows] <= at_most)]
        if not len(rows):
            return have.found
        some = have.take(rows)
        rest = sampler._plan(request.take(rows).after(some.items, some.found))
        arrivals = _arrivals(sampler, rest, 0, _block(at_most))
        _keep(arrivals, 0, np.uint64(0), rest.request.rows, some)
        have.put(rows, some)


def log_left(sampler: Hooks, plan: Plan, rest: Plan) -> FloatArray:
    """float64 [B]: ln of the probability that a draw by ``plan`` is one that ``rest`` allows.

    ``rest`` is the plan of the same rows after some draws. The ratio of the two probabilities of
    one item says it, without a difference of numbers near 1.
    """
    out: FloatArray = np.full(plan.request.num_rows, -np.inf)
    rows = np.flatnonzero(rest.allowed > 0)
    if len(rows) == 0:
        return out
    if len(rows) < len(out):
        plan = sampler._plan(plan.request.take(rows))
        rest = sampler._plan(rest.request.take(rows))
    items, _ = _arrivals(sampler, rest, 0, 1)
    before, after = np.empty(items.shape), np.empty(items.shape)
    sampler._log_q(plan, items, before, check=False)
    sampler._log_q(rest, items, after, check=False)
    out[rows] = np.minimum(before - after, 0.0)[:, 0]
    return out


def _block(width: int) -> int:
    return width + width // 2 + 16


def _arrivals(sampler: Hooks, plan: Plan, first: int, block: int) -> tuple[IntArray, Tags]:
    """The marks of arrivals ``first`` to ``first + block - 1`` of every row, and their tags."""
    drawn = np.zeros((plan.request.num_rows, block), dtype=np.int64)
    tags = np.zeros(drawn.shape, dtype=np.int8)
    sampler._draw(plan, first, drawn, EVERYWHERE if len(sampler.source_names) == 1 else tags, 0)
    return drawn, tags


def _keep(
    arrivals: tuple[IntArray, Tags], first: int, key: np.uint64, rows: IntArray, have: Drawn
) -> None:
    """``keep_distinct`` over chunks of rows."""
    drawn, tags = arrivals
    size = 1 << (2 * (have.items.shape[1] + 1)).bit_length()

    def feed(i: int, j: int) -> None:
        slots, stamps = np.empty(size, dtype=np.int64), np.full(size, -1, dtype=np.int64)
        keep_distinct(
            drawn[i:j], tags[i:j], key, rows[i:j], first, have.wanted[i:j], slots, stamps,
            have.found[i:j], have.clock[i:j], have.items[i:j], have.source[i:j],
        )  # fmt: skip

    run_chunks(feed, len(rows), smallest=max(1, 8192 // drawn.shape[1]))


def _draw_the_rest(
    sampler: Hooks, plan: Plan, waiting: IntArray, have: Drawn, log_clock: FloatArray
) -> None:
    """Finish rows by draws that exclude what the row has, turn after turn."""
    key, block = sampler._key(plan.request.lane, "clock"), _block(have.items.shape[1])
    first = _ROUNDS * block
    while len(waiting):
        request, some = plan.request.take(waiting), have.take(waiting)
        rest = sampler._plan(request.after(some.items, some.found))
        log_rate = log_left(sampler, sampler._plan(request), rest)
        _keep(_arrivals(sampler, rest, first, block), first, key, request.rows, some)
        have.put(waiting, some)
        log_clock[waiting] = np.logaddexp(log_clock[waiting], np.log(some.clock) - log_rate)
        first += block
        waiting = waiting[some.found < some.wanted]


def _race(
    sampler: Hooks, plan: Plan, waiting: IntArray, have: Drawn, log_clock: FloatArray
) -> None:
    """Finish rows: every unseen item arrives after its own exponential time, rate q(i|u)."""
    items, width = have.items, have.items.shape[1]
    everything = np.arange(sampler.num_items, dtype=np.int64)
    race_key = int(sampler._key(plan.request.lane, "race"))
    step = max(1, _AT_ONCE // sampler.num_items)
    for chunk in np.split(waiting, range(step, len(waiting), step)):
        some = sampler._plan(plan.request.take(chunk))
        log_q = np.empty((len(chunk), sampler.num_items), dtype=np.float64)
        sampler._log_q(some, np.tile(everything, (len(chunk), 1)), log_q, check=True)
        for b, log_rate in zip(chunk.tolist(), log_q, strict=True):
            got = int(have.found[b])
            log_rate[items[b, :got]] = -np.inf
            candidates = np.flatnonzero(log_rate > -np.inf)
            key = mix64(race_key ^ mix64(int(plan.request.rows[b])))
            uniform = unit_interval(uniform_words(key, sampler.num_items)[candidates])
            log_waits = np.log(-np.log(uniform)) - log_rate[candidates]
            order = np.argsort(log_waits, kind="stable")[: int(have.wanted[b]) - got]
            taken = candidates[order][: width - got]
            items[b, got : got + len(taken)] = taken
            if len(sampler.source_names) > 1:
                row = sampler._plan(plan.request.take(np.array([b], dtype=np.int64)))
                have.source[b, got : got + len(taken)] = sampler._sources_of(row, taken)
            log_clock[b] = np.logaddexp(log_clock[b], log_waits[order[-1]])
