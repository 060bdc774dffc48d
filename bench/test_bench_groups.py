"""Every workload, tiny: its bodies run, its assertions hold, its rows can be shown.

The figures themselves come from `make bench`.
"""

from __future__ import annotations

from typing import Any

import pytest

from bench import groups
from bench.report import Group, as_json, markdown
from bench.worlds import TINY


@pytest.mark.parametrize("name", [name for name in groups.NAMES if name != "startup"])
def test_group(benchmark: Any, name: str) -> None:
    benchmark.group = "workloads, tiny"
    _check(name, benchmark.pedantic(lambda: groups.run(name, TINY), rounds=1))


@pytest.mark.parametrize("script", ["import", "popularity", "uniform excluding"])
def test_startup(benchmark: Any, script: str) -> None:
    from bench.groups.startup import SCRIPTS, process

    benchmark.group = "fresh processes"
    benchmark.pedantic(process(SCRIPTS[script]), rounds=1)


def test_soak(benchmark: Any) -> None:
    from bench.groups import soak

    group = Group(soak.TITLE)
    benchmark.pedantic(lambda: soak.run(TINY, group, draws=2_000_000), rounds=1)
    _check("soak", group)
    assert all(row.reached for row in group.rows)


def test_soak_counts_what_is_wrong() -> None:
    import numpy as np

    from bench.groups.soak import count_wrong, pairs_bitmap
    from bench.worlds import know
    from fastneg import Interactions

    pairs = Interactions.from_codes([0, 0, 1], [3, 17, 0], num_users=2, num_items=20)
    bitmap = pairs_bitmap(know("three pairs", pairs))
    users = np.arange(2)
    assert count_wrong(bitmap, 20, users, np.array([[2, 4, 16], [1, 3, 17]])) == 0
    assert count_wrong(bitmap, 20, users, np.array([[3, 17, 0], [0, 3, 17]])) == 3
    assert count_wrong(bitmap, 20, users, np.array([[1, 20, 0], [1, -1, 19]])) == 2


def _check(name: str, group: Group) -> None:
    assert group.rows
    for row in group.rows:
        assert row.what
        for figure in (row.ours, row.other, *(row.ratio or ())):
            assert figure is None or figure >= 0 or name == "overhead"
    stored = {**as_json(group), "machine": {"cores": "2"}, "when": "now", "seconds": 1.0}
    page = markdown({"groups": {name: stored}}, [name], quick=True)
    assert group.title in page
    assert page.count("\n| ") >= len(group.rows)
