"""Popularity from counts, whose few distinct values are classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.groups.table import gather_sides
from bench.ours import Buffers, accepts, allocates, check_counts, shared_call, table_call
from bench.report import Goal, Group, compared
from bench.rounds import Side, measure, qualified, threads_here
from bench.worlds import Scale, zipf_counts
from fastneg import AliasTable, PopularitySampler

TITLE = "Counts: popularity^0.75 from integers with few distinct values"
EXPONENT = 0.75
_WHAT = {False: "ids", True: "ids and log_q"}


def run(scale: Scale, group: Group) -> None:
    _ordered(scale, group)
    for num_items in scale.sizes(10_000, 100_000, 1_000_000, 10_000_000, 100_000_000):
        _arbitrary(scale, group, num_items)
    group.note(
        f"Counts are N // rank, 2 sqrt(N) - 1 distinct values; calls of {scale.draws:,} draws. "
        "The floor reads 4 bytes a draw from an array of N. The packed table is an AliasTable of "
        "the same weights (or the sampler with method='table' where that can be asked for)."
    )


def _ordered(scale: Scale, group: Group) -> None:
    """The rate should not depend on the size of the catalog; log_q should be almost free."""
    sizes = scale.sizes(100_000, 1_000_000, 10_000_000, 100_000_000)
    if len(sizes) == 1:
        sizes = [sizes[0] // 10, sizes[0]]
    buffers, draws, threads = Buffers(scale.draws), scale.draws, threads_here()
    sides, note = [], ""
    for num_items in sizes:
        counts = zipf_counts(num_items, ordered=True)
        sampler = PopularitySampler(counts, exponent=EXPONENT)
        note = allocates(sampler.sample_shared)
        for log_q, what in _WHAT.items():
            call = shared_call(sampler, draws, buffers, log_q=log_q)
            call()
            check_counts(buffers.items, counts, EXPONENT)
            sides += [Side(f"{what} {num_items}", call, draws, t) for t in threads]
        del counts
    timing = measure(sides, rounds=scale.rounds)
    for num_items in sizes:
        for t in threads:
            ids, both = f"ids {num_items}", f"ids and log_q {num_items}"
            largest = num_items == sizes[-1]
            common = (f"{num_items:,} items", t)
            for name, what in ((ids, "ids"), (both, "ids and log_q")):
                first = name.replace(str(num_items), str(sizes[0]))
                if num_items > sizes[0]:
                    group.add(
                        compared(
                            f"by popularity, {what}",
                            *common,
                            timing.figure(name, t),
                            timing.figure(first, t),
                            timing.ratio(first, name, t),
                            against=f"itself, {sizes[0]:,} items",
                            goal=Goal(0.8) if largest else None,
                            note=note,
                        )
                    )
            group.add(
                compared(
                    "by popularity, ids and log_q",
                    *common,
                    timing.figure(both, t),
                    timing.figure(ids, t),
                    timing.ratio(ids, both, t),
                    against="itself, ids only",
                    goal=Goal(1 / 1.1),
                    note=note,
                )
            )


def _packed(counts: Any, draws: int, buffers: Buffers, *, log_q: bool) -> Any:
    if accepts(PopularitySampler.__init__, "method"):
        make: Any = PopularitySampler
        sampler = make(counts, exponent=EXPONENT, method="table")
        return shared_call(sampler, draws, buffers, log_q=log_q)
    return table_call(
        AliasTable(counts.astype(np.float64) ** EXPONENT), draws, buffers, log_q=log_q
    )


def _arbitrary(scale: Scale, group: Group, num_items: int) -> None:
    buffers, draws, threads = Buffers(scale.draws), scale.draws, threads_here()
    counts = zipf_counts(num_items, ordered=False)
    sampler = PopularitySampler(counts, exponent=EXPONENT)
    calls: dict[str, Any] = {}
    for log_q, what in _WHAT.items():
        calls[what] = shared_call(sampler, draws, buffers, log_q=log_q)
        packed = _packed(counts, draws, buffers, log_q=log_q)
        if packed is not None:
            calls[f"packed, {what}"] = packed
    for call in calls.values():
        call()
        check_counts(buffers.items, counts, EXPONENT)
    del counts
    note = allocates(sampler.sample_shared)
    words = np.arange(num_items, dtype=np.uint32)
    floors = qualified(gather_sides(words, buffers, threads, "4 bytes"))
    ours = [Side(name, call, draws, t) for name, call in calls.items() for t in threads]
    timing = measure([*floors, *ours], rounds=scale.few(0.7))
    size = f"{num_items:,} items"
    for t in threads:
        best = timing.fastest([side.name for side in floors if side.threads == t], t)
        others = [("ids", best, f"floor ({best})", 0.9)]
        others += [
            (what, f"packed, {what}", "packed table", 0.97)
            for what in _WHAT.values()
            if f"packed, {what}" in calls
        ]
        for what, other, against, goal in others:
            is_floor = other == best
            group.add(
                compared(
                    f"arbitrary order, {what}",
                    size,
                    t,
                    timing.figure(what, t),
                    timing.figure(other, t),
                    timing.ratio(other, what, t),
                    against=against,
                    goal=Goal(goal),
                    note=note if is_floor else "1 is the goal, 3 % is noise",
                )
            )
