"""Draws from the packed alias table against the floor of one random read."""

from __future__ import annotations

from typing import Any

import numpy as np

from bench import floor
from bench.ours import Buffers, allocates, check_draws, check_log_q, shared_call, table_call
from bench.report import Goal, Group, compared
from bench.rounds import Side, measure, qualified, threads_here
from bench.worlds import Scale, zipf_weights
from fastneg import AliasTable, PopularitySampler

TITLE = "Packed table: popularity^0.75 from float weights, against the gather floors"
IN_CACHE = 8 << 20  # bytes of a table from which the goal is the larger one


def run(scale: Scale, group: Group) -> None:
    for num_items in scale.sizes(10_000, 100_000, 1_000_000, 10_000_000, 100_000_000):
        _one_size(scale, group, num_items)
    group.note(
        f"Calls of {scale.draws:,} draws into preallocated buffers on both sides, int64 ids. The "
        "floor of ids reads 8 bytes a draw, that of ids and log_q 16 bytes, and writes a float32."
    )


def _one_size(scale: Scale, group: Group, num_items: int) -> None:
    weights = zipf_weights(num_items)
    buffers, draws = Buffers(scale.draws), scale.draws
    calls = _calls(weights, buffers, draws)
    for name, (call, _) in calls.items():
        call()
        check_draws(buffers.items, weights)
        if "log_q" in name:
            check_log_q(buffers, weights)
    del weights
    words, entries = _floor_tables(num_items)
    threads = threads_here()
    floors = [
        *qualified(gather_sides(words, buffers, threads)),
        *qualified(entry_sides(entries, buffers, threads)),
    ]
    _check_floors(buffers, floors, num_items)
    ours = [Side(name, call, draws, t) for name, (call, _) in calls.items() for t in threads]
    rounds = scale.rounds if num_items <= 1_000_000 else scale.few(0.7)
    timing = measure([*floors, *ours], rounds=rounds)
    small = 8 * num_items <= IN_CACHE
    for name, (_, note) in calls.items():
        for t in threads:
            with_log_q = "log_q" in name
            kind = "entry" if with_log_q else "gather"
            names = [s.name for s in floors if s.threads == t and s.name.startswith(kind)]
            best = timing.fastest(names, t)
            group.add(
                compared(
                    name,
                    f"{num_items:,} items",
                    t,
                    timing.figure(name, t),
                    timing.figure(best, t),
                    timing.ratio(best, name, t),
                    against=f"floor ({best})",
                    goal=Goal(0.75 if with_log_q else 0.80 if small else 0.85),
                    floor=True,
                    note=note,
                )
            )
    if "table, ids and log_q" not in calls:
        group.skip("table, ids and log_q", "AliasTable.draw has no log_q=", f"{num_items:,} items")


def _calls(weights: Any, buffers: Buffers, draws: int) -> dict[str, tuple[Any, str]]:
    """Name -> (call, note): the table itself, and up to 1M items the sampler that holds one."""
    table = AliasTable(weights)
    calls: dict[str, tuple[Any, str]] = {}
    for log_q in (False, True):
        call = table_call(table, draws, buffers, log_q=log_q)
        what = "ids and log_q" if log_q else "ids"
        if call is not None:
            calls[f"table, {what}"] = (call, allocates(table.draw))
        if len(weights) <= 1_000_000:
            sampler = PopularitySampler(weights, exponent=1.0)
            call = shared_call(sampler, draws, buffers, log_q=log_q)
            calls[f"sample_shared, {what}"] = (call, allocates(sampler.sample_shared))
    return calls


def _floor_tables(num_items: int) -> tuple[Any, Any]:
    """uint64 [n] that holds its own places; uint64 [2 n] of 16-byte entries that do."""
    words = np.arange(num_items, dtype=np.uint64)
    entries = np.zeros(2 * num_items, dtype=np.uint64)
    entries[::2] = words
    entries.view(np.float32)[2::4] = words
    return words, entries


def gather_sides(
    words: Any, buffers: Buffers, threads: tuple[int, ...], kind: str = "gather"
) -> list[Side]:
    """The variants of one random read, on each number of threads."""
    return [
        Side(
            f"{kind}, {variant}",
            lambda variant=variant: floor.gather(variant, words, buffers.items),  # type: ignore[misc]
            len(buffers.items),
            t,
        )
        for variant in floor.GATHERS
        for t in threads
    ]


def entry_sides(entries: Any, buffers: Buffers, threads: tuple[int, ...]) -> list[Side]:
    """The variants of one random read of 16 bytes."""
    return [
        Side(
            f"entry, {variant}",
            lambda variant=variant: floor.gather_entries(  # type: ignore[misc]
                variant, entries, buffers.items, buffers.log_q
            ),
            len(buffers.items),
            t,
        )
        for variant in floor.ENTRIES
        for t in threads
    ]


def _check_floors(buffers: Buffers, floors: list[Side], num_items: int) -> None:
    """Every variant that is timed reads places all over the table."""
    for side in floors:
        buffers.items.fill(-1)
        side.call()
        assert buffers.items.min() >= 0
        assert buffers.items.max() < num_items
        assert abs(buffers.items.mean() / num_items - 0.5) < 0.01
