"""Two threads against one."""

from __future__ import annotations

from typing import Any

from bench.ours import Buffers, allocates, check_counts, shared_call, table_call
from bench.report import Goal, Group, compared
from bench.rounds import Side, measure, threads_here
from bench.worlds import Scale, gowalla, zipf_counts, zipf_weights
from fastneg import AliasTable, PopularitySampler, UniformSampler

TITLE = "Two threads against one, tables in cache"
ROWS, WIDTH = 8_192, 64


def run(scale: Scale, group: Group) -> None:
    if len(threads_here()) < 2:
        group.skip("two threads", "this process may use one core")
        return
    buffers = Buffers(scale.draws)
    calls: dict[str, tuple[Any, str, str]] = {}
    for num_items in scale.sizes(10_000, 100_000):
        size = f"{num_items:,} items, {scale.draws:,} draws"
        table = AliasTable(zipf_weights(num_items))
        counts = zipf_counts(num_items, ordered=True)
        sampler = PopularitySampler(counts)
        for log_q, what in ((False, "ids"), (True, "ids and log_q")):
            call = table_call(table, scale.draws, buffers, log_q=log_q)
            if call is not None:
                calls[f"table, {what} {num_items}"] = (call, size, allocates(table.draw))
            shared = shared_call(sampler, scale.draws, buffers, log_q=log_q)
            shared()
            check_counts(buffers.items, counts, 0.75)
            note = allocates(sampler.sample_shared)
            calls[f"counts, {what} {num_items}"] = (shared, size, note)
    known = gowalla(stand_in=scale.quick and scale.largest <= 10_000)
    users = known.rows(ROWS)
    for kind, excluding in (
        ("uniform", UniformSampler(known.interactions)),
        ("popularity^0.75", PopularitySampler(known.interactions)),
    ):
        drawn = excluding.sample(users, WIDTH).items.numpy()
        assert known.positives_among(users, drawn) == 0
        for log_q, what in ((False, "ids"), (True, "ids and log_q")):
            out = _excluding(excluding, users, log_q=log_q)
            size = f"gowalla, {ROWS:,} rows, K = {WIDTH}"
            calls[f"{kind} excluding positives, {what}"] = (out, size, "fresh memory")
    sides = [Side(name, call, 1, t) for name, (call, _, _) in calls.items() for t in (1, 2)]
    timing = measure(sides, rounds=scale.rounds)
    for name, (_, size, note) in calls.items():
        what = name.rpartition(" ")[0] if name.rpartition(" ")[2].isdigit() else name
        group.add(
            compared(
                what,
                size,
                2,
                timing.figure(name, 2),
                timing.figure(name, 1),
                timing.ratio(name, name, 1, 2),
                against="one thread",
                goal=Goal(1.8),
                unit="ms",
                scale=1e-6,
                note=note,
            )
        )


def _excluding(sampler: Any, users: Any, *, log_q: bool) -> Any:
    return lambda: sampler.sample(users, WIDTH, log_q=log_q)
