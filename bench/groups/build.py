"""Building tables: time an item, memory beside the table, a new exponent on counts."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from bench.ours import check_draws
from bench.report import Goal, Group, Row, absolute
from bench.rounds import Side, measure, threads_here
from bench.worlds import Scale, zipf_counts, zipf_weights
from fastneg import AliasTable, PopularitySampler

TITLE = "Building: packed tables from float64 weights, and a new exponent on counts"
_GOALS = {1: 15.0, 2: 9.0}


def run(scale: Scale, group: Group) -> None:
    for num_items in scale.sizes(10_000_000, 100_000_000):
        _build(scale, group, num_items)
        _memory(group, num_items)
    _with_exponent(scale, group)
    group.note(
        "Memory is of a fresh process: the highest resident size during AliasTable(weights), less "
        "what was there before (the weights too), less what the table keeps; the ratio is that to "
        "what it keeps."
    )


def _build(scale: Scale, group: Group, num_items: int) -> None:
    weights = zipf_weights(num_items)
    check_draws(AliasTable(weights).draw(1 << 16, row=0).numpy(), weights)
    sides = [
        Side("build", lambda: AliasTable(weights), num_items, t, calls=1, warm=False)
        for t in threads_here()
    ]
    timing = measure(sides, rounds=scale.few(0.35 if num_items <= 10_000_000 else 0.15))
    for t in threads_here():
        group.add(
            absolute(
                "AliasTable(weights)",
                f"{num_items:,} items",
                t,
                timing.figure("build", t),
                goal=Goal(_GOALS[t], at_least=False),
                unit="ns an item",
            )
        )


_PEAK = """
import json, re, sys
import numpy as np
from bench.worlds import zipf_weights
from fastneg import AliasTable

def resident():  # the highest size and the present one, in bytes, of one moment
    text = open("/proc/self/status").read()
    return [int(re.search(n + r":\\s+(\\d+)", text).group(1)) * 1024 for n in ("VmHWM", "VmRSS")]

AliasTable(zipf_weights(1000))  # kernels compiled and loaded
weights = zipf_weights(int(sys.argv[1]))
_, before = resident()
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts again
table = AliasTable(weights)
print(json.dumps([size - before for size in resident()]))
"""


def _memory(group: Group, num_items: int) -> None:
    """One fresh process: nothing that other groups left lying about counts."""
    num_items = max(num_items, 1_000_000)  # below that, single pages of the allocator decide
    size = f"{num_items:,} items"
    command = [sys.executable, "-c", _PEAK, str(num_items)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        group.skip("memory", found.stderr.strip().splitlines()[-1], size)
        return
    peak, kept = json.loads(found.stdout)
    share = (peak - kept) / kept
    group.add(
        Row(
            "AliasTable(weights), memory beside the table",
            size,
            0,
            (peak - kept) / num_items,
            kept / num_items,
            "bytes an item",
            "what the table keeps",
            goal="≤ 1 x the table",
            reached=share <= 1.0,
            note=f"{share:.2f} x",
        )
    )


def _with_exponent(scale: Scale, group: Group) -> None:
    num_items = scale.size(10_000_000)
    what, size = "with_exponent(b) on counts", f"{num_items:,} items"
    if not hasattr(PopularitySampler, "with_exponent"):
        group.skip(what, "PopularitySampler has no with_exponent", size)
        return
    counts = zipf_counts(num_items, ordered=False)
    sampler = PopularitySampler(counts, exponent=0.75)
    flatter = sampler.with_exponent(0.5)
    drawn = flatter.sample_shared(1 << 16, log_q=False, row=0).items.numpy()
    check_draws(drawn, np.sqrt(counts))
    exponents = iter(np.linspace(0.1, 0.9, 100_000).tolist())  # each a new one
    timing = measure(
        [Side("new", lambda: sampler.with_exponent(next(exponents)))], rounds=scale.rounds
    )
    goal = Goal(1.0, at_least=False)
    group.add(absolute(what, size, 1, timing.figure("new"), goal=goal, unit="ms", scale=1e-6))
