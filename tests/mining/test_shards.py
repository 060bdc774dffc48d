"""``mine_to_folder``: the same negatives as in memory, and a folder that mends itself or refuses.

Kills are in test_shards_killed.py.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from fastneg.errors import FastnegError, FileFormatError
from fastneg.mining import engines, job_folder, shards, vector_files
from fastneg.mining.job_folder import JobFolder, read_manifest
from fastneg.mining.mined_folder import open_mined
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.shards import mine_to_folder
from tests.mining.helpers import csr, positives_for
from tests.mining.test_shards_killed import contents

QUERIES, ITEMS = 130, 400
OPTIONS = {"window": (11, 60), "num_negatives": 5, "progress": False}


@pytest.fixture
def vectors():
    rng = np.random.default_rng(5)
    return (
        rng.standard_normal((QUERIES, 9)).astype(np.float32),
        rng.standard_normal((ITEMS, 9)).astype(np.float32),
    )


@pytest.fixture
def folder(vectors, tmp_path):
    """A finished folder of seven shards."""
    mine_to_folder(*vectors, tmp_path / "job", shard_queries=20, **OPTIONS)
    return tmp_path / "job"


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"metric": "cosine"},
        {"strategy": "softmax", "temperature": 0.5},
        {"strategy": "top", "max_score": 1.5},
        {"max_per_item": 2},
        {"max_per_item": 2, "memory": 100_000},  # the windows of the first pass are not kept
        {"relative_margin": 0.1},
        {"query_groups": np.arange(QUERIES) % 4 - 1, "item_groups": np.arange(ITEMS) % 3},
        {"search": "faiss:IVF8,Flat", "recall": 0.5},
        {"window": (390, 900)},
        {"window": (401, 900)},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [20, None])
def test_it_mines_what_memory_mines(vectors, tmp_path, change, size):
    sets = positives_for(np.random.default_rng(1), QUERIES, ITEMS, 30)
    options = OPTIONS | {"positives": csr(sets), "seed": 3} | change
    want = mine_hard_negatives(*vectors, **options)
    mined = mine_to_folder(*vectors, tmp_path / "job", shard_queries=size, **options)
    got = mined.read()
    for name in ("items", "scores", "ranks"):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name))
        assert getattr(got, name).dtype == getattr(want, name).dtype
    theirs = {k: v for k, v in want.report.to_dict().items() if k != "seconds"}
    ours = {k: v for k, v in mined.report.to_dict().items() if k != "seconds"}
    assert ours == theirs
    assert mined.report.seconds > 0
    if size is not None:
        assert [s.first_row for s in mined.shards()] == list(range(0, QUERIES, size))


def test_default_shards_are_of_65536_queries_where_memory_allows(tmp_path):
    queries = np.ones((65_537, 1), np.float32)
    options = {"window": (1, 3), "num_negatives": 1, "progress": False}
    rows = {}
    for memory in (1 << 30, 1 << 20):
        mined = mine_to_folder(
            queries, np.ones((3, 1)), tmp_path / str(memory), memory=memory, **options
        )
        rows[memory] = [shard["num_rows"] for shard in mined.manifest["shards"]]
    assert rows[1 << 30] == [65_536, 1]
    assert max(rows[1 << 20]) * 4 * 48 <= 1 << 20


def test_memory_grows_with_a_shard_and_not_with_the_queries(tmp_path, monkeypatch):
    """What is allocated for a job over files, beside a few numbers for each query."""
    monkeypatch.setattr(vector_files, "_BLOCK_BYTES", 1 << 16)
    np.save(tmp_path / "items.npy", np.random.default_rng(1).random((100, 64)))
    options = {"window": (1, 9), "num_negatives": 5, "memory": 4 << 20, "progress": False}
    peaks = []
    for count in (34_000, 34_000, 68_000):  # the first compiles
        np.save(tmp_path / "queries.npy", np.random.default_rng(0).random((count, 64)))
        if peaks:
            tracemalloc.start()
        mine_to_folder(
            tmp_path / "queries.npy", tmp_path / "items.npy", tmp_path / "job", resume=False,
            shard_queries=5_000, **options,
        )  # fmt: skip
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] > peaks[1] > 0
    assert peaks[2] - peaks[1] < 34_000 * 128  # the vectors alone would be 256 bytes each


def test_a_finished_folder_is_left_alone(vectors, folder, monkeypatch):
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()}
    monkeypatch.setattr(shards, "open_engine", None)
    mine_to_folder(*vectors, folder, **OPTIONS)
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in folder.iterdir()} == before


def _damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how == "flipped":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    elif how == "truncated":
        path.write_bytes(content[:-7])
    elif how == "foreign":
        shutil.copy(path.with_name("part-00001.parquet"), path)
    elif how == "missing":
        path.unlink()
    elif how == "folder":
        path.unlink()
        path.mkdir()


@pytest.mark.parametrize("how", ["flipped", "truncated", "foreign", "missing"])
def test_a_damaged_shard_is_found_and_redone(vectors, folder, how, monkeypatch):
    whole, report = contents(folder), open_mined(folder).report
    _damage(folder / "part-00003.parquet", how)
    with pytest.raises(FileFormatError, match=r"part-00003\.parquet (is damaged|cannot be read)"):
        open_mined(folder).read()
    mined_rows = []
    inner = shards.mine_rows

    def traced(job, search, rows, *others):
        mined_rows.append(rows)
        return inner(job, search, rows, *others)

    monkeypatch.setattr(shards, "mine_rows", traced)
    mined = mine_to_folder(*vectors, folder, **OPTIONS)
    assert mined_rows == [(60, 80)]
    assert contents(folder) == whole
    assert mined.report.distinct_items == report.distinct_items


def test_strays_and_temporary_files_are_cleaned(vectors, folder):
    whole = contents(folder)
    for name in ("part-00099.parquet", ".part-00002.parquet.tmp", "expected-00003.npy"):
        (folder / name).write_bytes(b"stray")
    (folder / "notes.txt").write_text("mine")
    mine_to_folder(*vectors, folder, **OPTIONS)
    assert contents(folder) == whole | {"notes.txt": b"mine"}


def test_the_engine_is_opened_and_never_made_again(vectors, tmp_path, monkeypatch):
    options = OPTIONS | {"search": "faiss:IVF8,Flat", "recall": 0.5, "max_per_item": 3}
    mine_to_folder(*vectors, tmp_path, shard_queries=50, **options)
    whole = contents(tmp_path)
    (tmp_path / "part-00001.parquet").unlink()
    (tmp_path / "expected-00003.npy").write_bytes(b"damaged")

    def never(*_):
        raise AssertionError("the engine was made again")

    monkeypatch.setattr(shards, "make_engine", never)
    monkeypatch.setattr(engines, "make_engine", never)
    mine_to_folder(*vectors, tmp_path, **options)
    assert contents(tmp_path) == whole
    (tmp_path / "part-00001.parquet").unlink()
    _damage(tmp_path / "engine-index.npy", "flipped")
    with pytest.raises(FileFormatError, match=r"the engine of .* is damaged.*resume=False"):
        mine_to_folder(*vectors, tmp_path, **options)
    monkeypatch.undo()
    mine_to_folder(*vectors, tmp_path, shard_queries=50, resume=False, **options)
    assert contents(tmp_path) == whole


SETS = csr(positives_for(np.random.default_rng(2), QUERIES, ITEMS, 5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": (11, 61)}, "window is [11, 61], was [11, 60]"),
        ({"num_negatives": 4}, "num_negatives is 4, was 5"),
        ({"metric": "cosine"}, "metric is 'cosine', was 'ip'"),
        ({"strategy": "top", "seed": 1}, "strategy is 'top', was 'uniform'; seed is 1, was 0"),
        ({"temperature": 2}, "temperature is 2.0, was 1.0"),
        ({"min_score": -9}, "min_score is -9.0, was None"),
        ({"max_per_item": 9}, "max_per_item is 9, was None"),
        ({"group_rule": "other"}, "group_rule is 'other', was 'same'"),
        ({"search": "exact"}, "search is 'exact', was 'auto'"),
        ({"recall": 0.9}, "recall is 0.9, was 0.95"),
        ({"shard_queries": 21}, "shard_queries is 21, was 20"),
        ({"positives": SETS}, "positives has other contents"),
        ({"query_groups": [0] * QUERIES, "item_groups": [0] * ITEMS}, "groups is new"),
        ({"query_ids": range(QUERIES)}, "query_ids is new"),
        ({"item_ids": range(5, ITEMS + 5)}, "item_ids is new"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_another_job_is_refused(vectors, folder, change, message):
    before = contents(folder)
    with pytest.raises(FileFormatError, match=re.escape(f"begun otherwise: {message}. Give ")):
        mine_to_folder(*vectors, folder, **(OPTIONS | change))
    assert contents(folder) == before


def test_changed_inputs_are_refused_by_one_bit_or_row(vectors, folder):
    queries, items = vectors
    with pytest.raises(FileFormatError, match=r"queries has shape \(129, 9\), had \(130, 9\)"):
        mine_to_folder(queries[:-1], items, folder, **OPTIONS)
    items = items.copy()
    items[17, 3] = np.nextafter(items[17, 3], 9)
    with pytest.raises(FileFormatError, match="otherwise: items has other contents"):
        mine_to_folder(queries, items, folder, **OPTIONS)


def test_what_changes_no_byte_may_change(vectors, folder):
    whole = contents(folder)
    (folder / "part-00000.parquet").unlink()
    mine_to_folder(*vectors, folder, **OPTIONS | {"memory": 200_000, "device": "cpu"})
    assert contents(folder) == whole


def test_other_versions_are_refused(vectors, folder, monkeypatch):
    monkeypatch.setattr("fastneg.__version__", "9.9")
    with pytest.raises(FileFormatError, match=r"fastneg is '9\.9', was '0"):
        mine_to_folder(*vectors, folder, **OPTIONS)
    monkeypatch.undo()
    monkeypatch.setattr(job_folder, "FORMAT", 2)
    for call in (lambda: mine_to_folder(*vectors, folder, **OPTIONS), lambda: open_mined(folder)):
        with pytest.raises(FileFormatError, match="is of format 1; this fastneg reads and writes"):
            call()


def test_a_damaged_manifest_is_refused_and_removed_on_request(vectors, folder):
    whole = contents(folder)
    path = folder / "manifest.json"
    text = path.read_text()
    for content in (text.replace('"num_rows": 20', '"num_rows": 19', 1), text[: len(text) // 2]):
        path.write_text(content)
        with pytest.raises(FileFormatError, match=r"manifest\.json is damaged"):
            mine_to_folder(*vectors, folder, **OPTIONS)
        mine_to_folder(*vectors, folder, shard_queries=20, resume=False, **OPTIONS)
        assert contents(folder) == whole


def test_resume_false_begins_again_only_when_the_inputs_are_good(vectors, folder):
    whole = contents(folder)
    bad = vectors[0].copy()
    bad[5, 5] = np.nan
    for queries, change in ((bad, {}), (vectors[0], {"search": "faiss:banana"})):
        with pytest.raises(FastnegError, match=r"not a finite|cannot make this index"):
            mine_to_folder(queries, vectors[1], folder, resume=False, **OPTIONS | change)
        assert contents(folder) == whole
    mined = mine_to_folder(*vectors, folder, resume=False, **OPTIONS | {"window": (1, 9)})
    assert [path.name for path in folder.glob("part-*")] == ["part-00000.parquet"]
    assert mined.report.window == (1, 9)


def test_a_folder_with_other_files_is_refused(vectors, tmp_path):
    for name in ("holiday.jpg", "part-00000.parquet", "manifest.json", "items.parquet"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_text('{"kind": "photos"}')
        for resume in (True, False):
            with pytest.raises(FileFormatError, match=r"holds (other files|something else)"):
                mine_to_folder(*vectors, folder, resume=resume, **OPTIONS)
        assert contents(folder) == {name: b'{"kind": "photos"}'}
    (tmp_path / "file").write_text("")
    with pytest.raises(FastnegError, match=r"folder .*file cannot be written: File exists"):
        mine_to_folder(*vectors, tmp_path / "file", **OPTIONS)


def test_two_processes_are_refused_by_the_lock(vectors, folder):
    whole = contents(folder)
    with (
        JobFolder(folder, call="other").locked(),
        pytest.raises(FastnegError, match="is being written by another process"),
    ):
        mine_to_folder(*vectors, folder, **OPTIONS)
    assert contents(folder) == whole
    mine_to_folder(*vectors, folder, **OPTIONS)


def test_an_interrupt_keeps_what_is_finished(vectors, folder, tmp_path, monkeypatch):
    whole, inner = contents(folder), shards.mine_rows

    def interrupted(job, search, rows, *others):
        if rows[0] == 60:
            raise KeyboardInterrupt
        return inner(job, search, rows, *others)

    monkeypatch.setattr(shards, "mine_rows", interrupted)
    other = tmp_path / "other"
    with pytest.raises(KeyboardInterrupt, match="other keeps 3 of 7 shards, and the same call"):
        mine_to_folder(*vectors, other, shard_queries=20, **OPTIONS)
    with pytest.raises(FileFormatError, match=r"other is not finished \(3 of 7 shards are\)"):
        open_mined(other)
    monkeypatch.undo()
    mine_to_folder(*vectors, other, **OPTIONS)
    assert contents(other) == whole


@pytest.mark.parametrize(("number", "last"), [(errno.ENOSPC, 11), (errno.EIO, 12)])
def test_a_full_disk_loses_nothing_finished(vectors, folder, tmp_path, monkeypatch, number, last):
    whole, sync, calls = contents(folder), os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == last:  # of the third shard's file, of the folder after it
            raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    other = tmp_path / "other"
    with pytest.raises(FileFormatError, match=r"cannot be written: .*What was finished is kept"):
        mine_to_folder(*vectors, other, shard_queries=20, **OPTIONS)
    manifest = read_manifest(other, call="test")
    assert manifest is not None
    done = [entry["file"] for entry in manifest["shards"] if entry]
    assert len(done) == 2
    assert not list(other.glob(".*.tmp"))
    assert all((other / name).read_bytes() == whole[name] for name in done)
    mine_to_folder(*vectors, other, **OPTIONS)
    assert contents(other) == whole


def test_a_file_size_limit_is_one_clear_error(vectors, folder, tmp_path):
    """The kernel's own refusal, in the middle of a write."""
    whole = contents(folder)
    limit = max(len(whole[name]) for name in whole if name.startswith("part-")) - 100
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    other = tmp_path / "other"
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        with pytest.raises(FileFormatError, match="File too large; make room there"):
            mine_to_folder(*vectors, other, shard_queries=20, **OPTIONS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    mine_to_folder(*vectors, other, shard_queries=20, **OPTIONS)
    assert contents(other) == whole
