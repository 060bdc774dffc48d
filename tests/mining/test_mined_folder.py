"""Reading folders: ids, codes, lists for samplers; Parquet as others read it."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

import fastneg
from fastneg.errors import FastnegError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.mining.mined_folder import open_mined
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.shards import mine_to_folder
from tests.mining.helpers import integers

OPTIONS = {"window": (3, 12), "num_negatives": 6, "progress": False, "max_score": 4}
QUERY_IDS = [f"ü{i % 17}" for i in range(25)]  # users with two queries
ITEM_IDS = [f"i{i}" for i in range(40)][::-1]


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return integers(rng, 25, 4), integers(rng, 40, 4)


@pytest.mark.parametrize("kind", ["text", "integer", "rows"])
def test_files_speak_ids_and_the_reader_codes(vectors, tmp_path, kind):
    query_ids, item_ids = {
        "text": (QUERY_IDS, ITEM_IDS),
        "integer": (np.arange(25) * 10**12, np.arange(40) - 7),
        "rows": (None, None),
    }[kind]
    mined = mine_to_folder(
        *vectors, tmp_path, query_ids=query_ids, item_ids=item_ids, shard_queries=10, **OPTIONS
    )
    want = mine_hard_negatives(*vectors, **OPTIONS)
    assert want.report.missing_negatives > 0
    np.testing.assert_array_equal(mined.read().items, want.items)
    assert len(mined) == mined.num_queries == 25
    names = list(range(25)) if query_ids is None else list(query_ids)
    of_item = list(range(40)) if item_ids is None else list(item_ids)
    assert mined.item_ids.tolist() == of_item
    row = 0
    for path in sorted(tmp_path.glob("part-*.parquet")):
        for line in pq.read_table(path).to_pylist():
            found = want.items[row] >= 0
            assert line["query"] == names[row]
            assert line["items"] == [of_item[i] for i in want.items[row][found]]
            assert line["scores"] == want.scores[row][found].tolist()
            assert line["ranks"] == want.ranks[row][found].tolist()
            row += 1
    assert row == 25
    ids = np.concatenate([shard.query_ids for shard in mined.shards()]).tolist()
    assert ids == names


def test_a_listed_sampler_draws_from_it(vectors, tmp_path):
    interactions = Interactions.from_pairs(
        ["ü3", "ü3", "ü5", "new"], ["i1", "i2", "i1", "i99"],
        user_ids=[f"ü{i}" for i in range(16)], item_ids=[f"i{i}" for i in range(30)],
    )  # fmt: skip
    mined = mine_to_folder(
        *vectors, tmp_path, query_ids=QUERY_IDS, item_ids=ITEM_IDS, shard_queries=10, **OPTIONS
    )
    indptr, items = mined.lists(interactions)
    read = mined.read().items
    for user in range(interactions.num_users):
        name = interactions.decode_users([user])[0]
        rows = [row for row, one in enumerate(QUERY_IDS) if one == name]
        wanted = [ITEM_IDS[i] for i in read[rows].ravel() if i >= 0]
        wanted = [one for one in wanted if one in {f"i{i}" for i in range(30)} | {"i99"}]
        got = interactions.decode_items(items[indptr[user] : indptr[user + 1]]).tolist()
        assert got == wanted
    uniform = fastneg.UniformSampler(interactions)
    hard = fastneg.ListedSampler((indptr, items), interactions=interactions, fallback=uniform)
    drawn = hard.sample(np.array([3]), 50).items.numpy()[0]
    allowed = set(items[indptr[3] : indptr[4]].tolist())
    positives = set(interactions.encode_items(["i1", "i2"]).tolist())
    assert set(drawn.tolist()) <= allowed - positives
    by_row = fastneg.ListedSampler(mined.read(), num_items=40)
    row = int(np.argmax((read >= 0).sum(axis=1)))
    drawn = by_row.sample(np.array([row]), 30).items.numpy()[0]
    assert set(drawn.tolist()) <= set(read[row].tolist())


def test_lists_for_strangers_are_refused(vectors, tmp_path):
    mined = mine_to_folder(*vectors, tmp_path, query_ids=QUERY_IDS, **OPTIONS)
    others = Interactions.from_pairs(["x"], ["y"])
    with pytest.raises(FastnegError, match="has the id of a user"):
        mined.lists(others)
    with pytest.raises(TypeError, match="interactions is a list, not Interactions"):
        mined.lists([])


def test_ids_that_do_not_fit_are_refused(vectors, tmp_path):
    for change, message in (
        ({"query_ids": ["a"]}, "query_ids has 1 ids and there are 25 vectors"),
        ({"item_ids": ["a"]}, "item_ids has 1 ids and there are 40 vectors"),
        ({"item_ids": ["a"] * 40}, "item_ids.*'a' occurs twice"),
        ({"query_ids": [1.5] * 25}, "query_ids"),
    ):
        with pytest.raises(FastnegError, match=message):
            mine_to_folder(*vectors, tmp_path / "job", **OPTIONS, **change)
        assert not (tmp_path / "job").exists()


def test_folders_that_cannot_be_read_are_refused(vectors, tmp_path):
    for place, message in ((tmp_path, "has no manifest.json"), (tmp_path / "x", "no manifest")):
        with pytest.raises(FileFormatError, match=message):
            open_mined(place)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(FileFormatError, match="holds something else"):
        open_mined(tmp_path)


def test_the_log_may_be_lost_or_damaged(vectors, tmp_path):
    mine_to_folder(*vectors, tmp_path, **OPTIONS)
    log = tmp_path / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "shard", "end"]
    log.write_bytes(log.read_bytes() + b'{"seconds": 5')
    assert open_mined(tmp_path).report.seconds > 0
    log.unlink()
    assert open_mined(tmp_path).report.seconds == 0
    assert len(open_mined(tmp_path).read().items) == 25


def test_a_link_out_of_the_folder_is_refused(vectors, tmp_path):
    place = tmp_path / "mined"
    mine_to_folder(*vectors, place, shard_queries=10, **OPTIONS)
    (place / "part-00001.parquet").rename(tmp_path / "elsewhere.parquet")
    (place / "part-00001.parquet").symlink_to(tmp_path / "elsewhere.parquet")
    with pytest.raises(FileFormatError, match=r"open_mined: .*is a link out of the folder"):
        open_mined(place).read()
    with pytest.raises(FileFormatError, match=r"mine_to_folder: .*is a link out of the folder"):
        mine_to_folder(*vectors, place, shard_queries=10, **OPTIONS)
