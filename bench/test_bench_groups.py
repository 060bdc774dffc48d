"""Every workload, tiny: its bodies run, its assertions hold, its rows can be shown.

The figures themselves come from `make bench`.
"""

from __future__ import annotations

from pathlib import Path
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


def test_train_time(benchmark: Any) -> None:
    from bench.groups import train_time

    group = Group(train_time.TITLE)
    benchmark.pedantic(lambda: train_time.run(TINY, group), rounds=1)
    _check("train_time", group)


def test_train_quality(benchmark: Any) -> None:
    from bench.groups import train_quality

    group = Group(train_quality.TITLE)
    benchmark.pedantic(lambda: train_quality.run(TINY, group), rounds=1)
    _check("train_quality", group)


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


def test_prefixes_choose_groups() -> None:
    from bench.results import _chosen

    assert _chosen("mining") == [name for name in groups.NAMES if name.startswith("mining_")]
    assert _chosen("mask,mining_ivf,mining")[:2] == ["mask", "mining_ivf"]
    with pytest.raises(SystemExit):
        _chosen("minin")


def test_mined_positives_are_counted(tmp_path: Path) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from bench.groups.mining_job import check

    for part, (rows, items) in enumerate((([0, 1], [[3, 5], [0]]), ([2], [[7, 1]]))):
        lists = pa.array(items, pa.large_list(pa.int64()))
        path = tmp_path / f"part-{part:05d}.parquet"
        pq.write_table(pa.table({"query": rows, "items": lists}), path)
    liked = np.array([0, 2, 2, 4]), np.array([4, 5, 1, 9], np.int32)  # 0: 4, 5; 2: 1, 9
    found = check(tmp_path, liked, 10)
    assert (found.rows, found.draws, found.positives, found.outside) == (3, 5, 2, 0)
    assert check(tmp_path, (np.zeros(4, np.int64), liked[1][:0]), 7).outside == 1


def test_recall_counts_members() -> None:
    import numpy as np

    from bench.groups.mining_ivf import recall_of

    true = np.array([[1, 2, 3, -1], [4, 5, 6, 7]])
    assert recall_of(np.array([[3, 2, 1, -1], [7, 6, 5, 4]]), true) == 1.0
    assert recall_of(np.array([[3, 9, 8, -1]]), true) == pytest.approx(1 / 3)


# Groups with differences of two times, which on a busy machine may be of either sign.
_DIFFERENCES = ("overhead", "train_share", "mining_exact", "mining_glove")


def _check(name: str, group: Group) -> None:
    assert group.rows
    for row in group.rows:
        assert row.what
        for figure in (row.ours, row.other, *(row.ratio or ())):
            assert figure is None or figure >= 0 or name in _DIFFERENCES
    stored = {**as_json(group), "machine": {"cores": "2"}, "when": "now", "seconds": 1.0}
    page = markdown({"groups": {name: stored}}, [name], quick=True)
    assert group.title in page
    assert page.count("\n| ") >= len(group.rows)
