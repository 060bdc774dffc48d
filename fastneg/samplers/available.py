"""Negatives that existed at the time of the event: popularity over the items there at t."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from fastneg.checks import (
    AnyArray,
    FloatArray,
    IntArray,
    as_choice,
    as_number,
    as_weights,
    describe,
    fail,
    frozen,
    to_numpy,
)
from fastneg.errors import FastnegTypeError, said_by
from fastneg.interactions import Interactions
from fastneg.kernels.exclusion import mark_excluded
from fastneg.kernels.interval_draws import draw_present, finish_present, present_log_q
from fastneg.kernels.intervals import count_excluded, fill_guides
from fastneg.samplers.base import Sampler
from fastneg.samplers.clock import as_clock, as_intervals, as_shown
from fastneg.samplers.exhausted import known_clause
from fastneg.samplers.hooks import Plan
from fastneg.samplers.masses import integer_masses
from fastneg.samplers.popularity import popularity_weights, smoothed
from fastneg.samplers.request import Request, split_catalog
from fastneg.samplers.tiles import cut, run_tiles
from fastneg.threads import run_chunks

MAX_ITEMS = 2**31 - 2
_ATTEMPTS = 16  # rejections before a draw is finished over the allowed mass


@dataclass
class AvailablePlan(Plan):
    """Per row: its time as ranks, what is there then, the excluded lists, the tries by rejection.

    ``excluded_mass`` is worked out when a log-probability needs it.
    """

    exclusion: Any
    started: IntArray
    ended: IntArray
    present: npt.NDArray[np.uint64]
    num_present: IntArray
    attempts: npt.NDArray[np.int8]


class AvailableSampler(Sampler):
    """Items by popularity^b among those that were there at the row's time.

    q(i|u, t) = w_i / (w(A_t) - w(A_t & P_u)) for i in A_t without P_u, where A_t are the items with
    first_seen[i] <= t <= last_seen[i], both ends inclusive, w_i is proportional to
    (f_i + smoothing)^exponent and P_u are the user's positives. An event of March cannot have had a
    product of June as its negative; without this, the model learns an item's age from them.

    ``sample`` and ``log_q`` need ``times`` (one per row), ``sample_shared`` needs ``time``. A row
    at whose time nothing is allowed raises ``ExhaustedUserError``.

    Times are of any type that ``Interactions`` takes: integers, floats, datetime64, dates and
    datetimes of Python, pandas, polars or Arrow, with a time zone or without. Dates become int64
    nanoseconds since 1970, as in ``Interactions.row_times``, so the two can be compared; floats
    stay floats, and floats beside integers or dates are refused (they are often seconds beside
    nanoseconds).

    Args:
        interactions: ``Interactions`` (f_i = ``item_user_counts``, positives excluded), or an
            array [N] of counts or weights, 0 or more (then nothing is excluded).
        first_seen: [N], when each item came. An item whose first time is missing (NaT, NaN) is
            never drawn.
        last_seen: [N], when each item was there for the last time, or None. Missing (NaT, NaN) or
            infinite: still there.
        exponent: b, any finite number; 0 is uniform over the available items that anybody touched.
        smoothing: added to every count, so that an item nobody touched can be drawn.
        seed: plain int.
        name: the name of the stream.
        replacement: False draws K distinct items a row, as in ``PopularitySampler``.
        memory_budget: bytes for optional tables; this sampler needs none (``num_bytes`` says what
            its own take: about 120 an item at most).

    Equivalent, slowly::

        w = (counts + smoothing) ** exponent
        w[(first_seen > t) | (last_seen < t)] = 0
        w[positives_of_user] = 0
        rng.choice(len(w), num_negatives, p=w / w.sum())

    Source: an interval tree (Edelsbrunner 1980) with running sums; see ``kernels/intervals.py``.
    """

    kind = "available"

    def __init__(
        self,
        interactions: Interactions | Any,
        first_seen: Any,
        last_seen: Any = None,
        *,
        exponent: float = 0.75,
        smoothing: float = 0.0,
        seed: int = 0,
        name: str | None = None,
        replacement: bool = True,
        memory_budget: int = 256 << 20,
    ) -> None:
        call = "AvailableSampler"
        known, counts = split_catalog(interactions, call=call)
        self.exponent = as_number(exponent, call=call, name="exponent")
        self.smoothing = as_number(smoothing, call=call, name="smoothing", minimum=0.0)
        if known is not None:
            counts = known.item_user_counts
        weights = _item_weights(counts, self.exponent, self.smoothing, call)
        num_items = len(weights)
        if num_items > MAX_ITEMS:
            fail(call, f"{num_items} items; {MAX_ITEMS} at most")
        super().__init__(
            num_items,
            interactions=known,
            seed=seed,
            name=name,
            replacement=replacement,
            memory_budget=memory_budget,
        )
        first, last, ever, self._dates = as_intervals(first_seen, last_seen, num_items, call)
        if not (weights[ever] > 0).any():
            fail(
                call,
                f"no item can ever be drawn: {int(ever.sum())} of {num_items} items have a first "
                "time, and none of them has a weight; give first_seen, or smoothing > 0",
            )
        self._masses = integer_masses(np.where(ever, weights, 0.0))
        self._build(first, last)

    @classmethod
    def from_events(
        cls, interactions: Interactions, *, until: str = "last_event", **options: Any
    ) -> Self:
        """With the intervals that the interactions' own times show.

        Args:
            interactions: with ``row_times``. Every row counts, explicit negatives too; an item
                without rows is never drawn.
            until: "last_event" takes an item's last event for its end, "forever" knows no end.
            options: as for the class.
        """
        call = "AvailableSampler.from_events"
        until = as_choice(until, ("last_event", "forever"), call=call, name="until")
        if not isinstance(interactions, Interactions):
            fail(call, f"interactions is a {type(interactions).__name__}; give Interactions")
        times, items = interactions.row_times, interactions.row_items
        if times is None:
            fail(call, "the interactions have no times; give first_seen to AvailableSampler itself")
        missing: Any = np.nan
        if times.dtype == np.int64:  # seen as dates, which have a mark for missing ones
            times, missing = times.view("M8[ns]"), np.datetime64("NaT")
        first = np.full(interactions.num_items, missing, dtype=times.dtype)
        last = first.copy()
        np.fmin.at(first, items, times)
        np.fmax.at(last, items, times)
        with said_by(f"{cls.__name__}.from_events", cls.__name__):
            return cls(interactions, first, last if until == "last_event" else None, **options)

    def _law(self) -> list[Any]:
        times = (self._first_times, self._last_times)
        return [*super()._law(), *times, *self._facts]

    def _build(self, first: AnyArray, last: AnyArray) -> None:
        """The tables of ``kernels/intervals.py``; see there."""
        drawable = np.flatnonzero(self._masses)
        masses = self._masses[drawable]
        self._first_times, tick = np.unique(first[drawable], return_inverse=True)
        self._last_times, last_rank = np.unique(last[drawable], return_inverse=True)
        num_ticks, num_items = len(self._first_times), len(drawable)
        self._come = _below_each_rank(tick, num_ticks, masses)
        self._gone = _below_each_rank(last_rank, len(self._last_times), masses)
        tick = tick + 1
        reaches = np.searchsorted(self._first_times, self._last_times, side="right")
        node = highest_nodes(tick, reaches[last_rank])
        ranks = np.zeros((self.num_items, 2), dtype=np.int32)
        ranks[:, 0] = num_ticks + 1
        ranks[drawable, 0], ranks[drawable, 1] = tick, last_rank
        nodes = np.zeros(num_ticks + 2, dtype=np.int64)
        nodes[1:] = np.cumsum(np.bincount(node, minlength=num_ticks + 1))
        keys = np.empty((2, num_items), dtype=np.int32)
        entries = np.empty((2, num_items), dtype=np.int32)
        sums = np.zeros((2, num_items + 1), dtype=np.uint64)
        for side, key in enumerate((tick, -last_rank)):
            order = np.lexsort((key, node))  # stable: equal keys keep their ids ascending
            keys[side], entries[side] = key[order], drawable[order]
            np.cumsum(masses[order], out=sums[side, 1:])
        guides = np.empty((2, num_items), dtype=np.int32)
        shifts = np.zeros((2, num_ticks + 1), dtype=np.uint64)
        fill_guides(frozen(nodes), frozen(sums), guides, shifts)
        self._tree = (nodes, keys, entries, sums, guides, shifts)
        self._facts = (ranks, reaches.astype(np.int32), self._masses)
        self._freeze()

    def _freeze(self) -> None:
        for array in (*self._tree, *self._facts):
            array.setflags(write=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._freeze()  # pickle forgets it, and kernels are compiled for read-only tables

    @property
    def num_bytes(self) -> int:
        """The memory of the tables, in bytes."""
        others = (*self._come, *self._gone, self._first_times, self._last_times)
        return sum(array.nbytes for array in (*self._tree, *self._facts, *others))

    # ---------------------------------------------------------------- drawing
    def _plan(self, request: Request) -> AvailablePlan:
        times = self._times_of(request)
        started = np.searchsorted(self._first_times, times, side="right").astype(np.int64)
        ended = np.searchsorted(self._last_times, times, side="left").astype(np.int64)
        started, ended = frozen(started), frozen(ended)
        present = self._come[0][started] - self._gone[0][ended]
        number = self._come[1][started] - self._gone[1][ended]
        exclusion = request.exclusion(self.interactions)
        sizes = exclusion.sizes()
        attempts = np.where(4 * sizes >= 3 * number, 0, _ATTEMPTS).astype(np.int8)
        plan = AvailablePlan(
            request, number - sizes, exclusion, started, ended, present, number, frozen(attempts)
        )
        unclear = np.flatnonzero((plan.allowed <= 0) & (sizes > 0))
        if len(unclear):
            plan.allowed[unclear] = number[unclear] - self._excluded(plan, unclear)[1]
        return plan

    def _times_of(self, request: Request) -> AnyArray:
        """The request's times, of the dtype of the intervals' ends."""
        call = request.call or type(self).__name__
        if request.times is None:
            what = "time=<when>" if request.lane else "times=<one per row>"
            fail(
                call,
                f"{what} is missing: which items can be drawn depends on the time "
                "(log_q needs users and times too; -1 is an unknown user)",
            )
        times, _ = as_clock(request.times, call=call, name="times")
        clock = self._first_times.dtype
        if times.dtype != clock:
            raise FastnegTypeError(
                f"{call}: {describe('times', request.times)} beside intervals of {clock}; give "
                "times as first_seen was given: integers or dates (integers are then nanoseconds "
                "since 1970), or floats"
            )
        return times

    def _excluded(
        self, plan: AvailablePlan, rows: IntArray | slice
    ) -> tuple[npt.NDArray[np.uint64], IntArray]:
        """Mass and number of what some rows exclude of the items that are there."""
        lists = plan.exclusion
        owner = frozen(lists.owner[rows])
        started, ended = frozen(plan.started[rows]), frozen(plan.ended[rows])
        mass = np.zeros(len(owner), dtype=np.uint64)
        count = np.zeros(len(owner), dtype=np.int64)
        run_chunks(
            lambda i, j: count_excluded(
                self._facts, lists.indptr, lists.items, owner[i:j], started[i:j], ended[i:j],
                mass[i:j], count[i:j],
            ),
            len(owner),
            smallest=512,
        )  # fmt: skip
        return mass, count

    def _num_reachable(self, plan: Plan, at_most: int) -> IntArray:
        assert isinstance(plan, AvailablePlan)
        reachable = plan.allowed.copy()  # a lower bound: positives that were not there then
        few = np.flatnonzero(reachable <= at_most)
        if len(few):
            reachable[few] = plan.num_present[few] - self._excluded(plan, few)[1]
        return reachable

    def _draw(
        self,
        plan: AvailablePlan,
        first_draw: int,
        items: IntArray,
        source: npt.NDArray[np.int8],
        base: int,
    ) -> None:
        key = self._key(plan.request.lane)
        lists, rows = plan.exclusion, plan.request.rows

        def tile(r: slice, d: slice) -> None:
            cells = cut(source, r, d)
            first = first_draw + d.start
            unresolved = draw_present(
                self._tree, plan.started[r], plan.ended[r], lists.indptr, lists.items,
                lists.owner[r], plan.attempts[r], key, rows[r], first, cells, base, items[r, d],
            )  # fmt: skip
            if unresolved:
                finish_present(
                    self._tree, self._facts, plan.started[r], plan.ended[r], lists.indptr,
                    lists.items, lists.owner[r], plan.attempts[r], key, rows[r], first, cells,
                    base, items[r, d],
                )  # fmt: skip

        run_tiles(items.shape, tile)

    def _log_q(
        self, plan: AvailablePlan, items: IntArray, out: npt.NDArray[Any], *, check: bool
    ) -> None:
        mass = plan.present - self._excluded(plan, slice(None))[0]
        log_allowed: FloatArray = np.full(len(mass), np.inf)
        np.log(mass.astype(np.float64), out=log_allowed, where=mass > 0)
        run_tiles(
            items.shape,
            lambda r, d: present_log_q(
                self._facts, plan.started[r], plan.ended[r], log_allowed[r], items[r, d], check,
                out[r, d],
            ),
        )  # fmt: skip
        if check:
            lists = plan.exclusion
            mark_excluded(lists.indptr, lists.items, lists.owner, items, out)

    def _reason(self, plan: AvailablePlan) -> str:
        there, left = int(plan.num_present[0]), int(self._num_reachable(plan, self.num_items)[0])
        assert plan.request.times is not None
        when = as_shown(plan.request.times[0], dates=self._dates)
        first = self._first_times[[0, -1]]
        first = first.view("M8[ns]") if self._dates else first
        ends = [as_shown(time, dates=self._dates) for time in first]
        clause = f"at the time {when} "
        if there == 0:
            clause += f"none of {self.num_items} items is there (first_seen: {' to '.join(ends)})"
        else:
            clause += known_clause(there - left, there, "items that are there")
        never = self.num_items - int(np.count_nonzero(self._masses))
        return clause + (f", and {never} have no count or no first time" if never else "")

    def exhausted_users(self) -> IntArray:
        """int64: the users for whom nothing is allowed at any time, ascending."""
        if self.interactions is None:
            return np.zeros(0, dtype=np.int64)
        users = frozen(np.arange(self.interactions.num_users, dtype=np.int64))
        any_time = (frozen(np.full(len(users), len(self._first_times))), frozen(0 * users))
        lists = self.interactions.positive_indptr, self.interactions.positive_items
        mass, count = np.zeros(len(users), dtype=np.uint64), np.zeros(len(users), dtype=np.int64)
        count_excluded(self._facts, *lists, users, *any_time, mass, count)
        return np.flatnonzero(count >= np.count_nonzero(self._masses))


def highest_nodes(first: IntArray, last: IntArray) -> IntArray:
    """int64 [n]: the number in first..last (1 or more) with the most trailing zeros."""
    level = np.frexp(((first - 1) ^ last).astype(np.float64))[1].astype(np.int64) - 1
    return (last >> level) << level


def _below_each_rank(
    ranks: IntArray, num_ranks: int, masses: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.uint64], IntArray]:
    """Mass and number of the items below each rank, 0 to ``num_ranks``."""
    number = np.zeros(num_ranks + 1, dtype=np.int64)
    number[1:] = np.cumsum(np.bincount(ranks, minlength=num_ranks))
    sums = np.zeros(len(masses) + 1, dtype=np.uint64)
    np.cumsum(masses[np.argsort(ranks, kind="stable")], out=sums[1:])
    return sums[number], number


def _item_weights(counts: Any, exponent: float, smoothing: float, call: str) -> FloatArray:
    counts = to_numpy(counts, call=call, name="counts")
    what = "give the number of users per item, 0 or more (or smoothing > 0)"
    numeric = counts.ndim == 1 and counts.size and counts.dtype.kind in "iuf"
    if smoothing > 0.0 and numeric and not counts.any():
        weights = np.zeros(len(counts), dtype=np.float64)
    else:
        weights = as_weights(counts, call=call, name="counts", what=what)
    return popularity_weights(smoothed(weights, smoothing, call), exponent)
