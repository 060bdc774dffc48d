"""The report, the bar, an interrupt."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from fastneg.mining.exact import ExactSearch
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.report import progress_bar
from fastneg.mining.shards import mine_to_folder
from fastneg.mining.tile_search import TileSearch
from tests.mining.helpers import integers


def test_the_report_prints_and_is_json():
    rng = np.random.default_rng(0)
    mined = mine_hard_negatives(
        integers(rng, 6, 3), integers(rng, 90, 3), window=(1, 30), max_per_item=3, progress=False
    )
    values = json.loads(json.dumps(mined.report.to_dict()))
    assert values["num_queries"] == 6
    assert values["window"] == [1, 30]
    assert values["search"] == "exact"
    assert values["seconds"] > 0
    text = str(mined.report)
    assert "ranks 1 to 30" in text
    assert "cap asked: 3" in text


def test_a_bar_on_a_terminal_and_silence_elsewhere(capfd, monkeypatch):
    rng = np.random.default_rng(0)
    queries, items = integers(rng, 6, 3), integers(rng, 90, 3)
    mine_hard_negatives(queries, items, window=(1, 30))
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    mine_hard_negatives(queries, items, window=(1, 30))
    assert "mining" in capfd.readouterr().err


def test_a_bar_begins_where_an_earlier_run_stopped(capfd, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress_bar(100, "mining", show=True, done=60) as advance:
        advance(15)
    assert "75/100" in capfd.readouterr().err


def test_an_interrupt_passes_through(monkeypatch):
    def interrupted(self, *_):
        raise KeyboardInterrupt

    for engine in (ExactSearch, TileSearch):
        monkeypatch.setattr(engine, "find", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine_hard_negatives(np.ones((2, 9)), np.eye(9), window=(1, 5), num_negatives=1)


def test_a_function_hears_how_far_it_is_and_may_end_the_job(tmp_path):
    rng = np.random.default_rng(0)
    queries, items = integers(rng, 6, 3), integers(rng, 90, 3)
    told = []
    settings = {"window": (1, 30), "max_per_item": 3}
    silent = mine_hard_negatives(queries, items, progress=False, **settings)
    mined = mine_hard_negatives(
        queries, items, progress=lambda done, total: told.append((done, total)), **settings
    )
    assert np.array_equal(mined.items, silent.items)
    assert told.count((6, 6)) == 2  # of each pass
    assert all(0 < done <= total == 6 for done, total in told)
    told.clear()
    mine_to_folder(
        queries, items, tmp_path / "job", shard_queries=2,
        progress=lambda done, total: told.append((done, total)), **settings,
    )  # fmt: skip
    assert told == [(2, 6), (4, 6), (6, 6)] * 2

    def end(done: int, total: int) -> None:
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        mine_hard_negatives(queries, items, progress=end, **settings)
