"""Vectors from arrays, .npy and Parquet: one result, whatever they came in."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastneg.errors import FastnegError, FileFormatError
from fastneg.mining import vector_files
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.search import normalised
from fastneg.mining.shards import mine_to_folder
from fastneg.mining.vector_files import open_vectors


def opened(source, folder, *, column=None, unit_length=False):
    return open_vectors(
        source, "queries", call="test", column=column, unit_length=unit_length, scratch=folder
    )


@pytest.fixture
def vectors():
    return np.random.default_rng(0).integers(-9, 9, (1000, 6)).astype(np.float32)


def sources(vectors, folder: Path):
    """The same vectors in every form."""
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 6)
    ragged = pa.array(vectors.astype(np.float64).tolist(), pa.large_list(pa.float64()))
    halves = pa.array(vectors.astype(np.int16).tolist(), pa.list_(pa.int16()))
    for name, column in (("fixed", fixed), ("large", ragged), ("short", halves)):
        path = folder / f"{name}.parquet"
        pq.write_table(pa.table({"v": column, "other": range(1000)}), path, row_group_size=300)
        yield path
    for dtype in ("<f4", "<f8", ">f4", "<f2", "<i8"):
        path = folder / f"{dtype[1:]}{dtype[0] == '>'}.npy"
        np.save(path, vectors.astype(dtype))
        yield str(path)
    np.save(folder / "fortran.npy", np.asfortranarray(vectors))
    yield folder / "fortran.npy"
    yield from (vectors, vectors.astype(np.float64), vectors.tolist(), vectors[::-1][::-1])


@pytest.mark.parametrize("unit_length", [False, True])
def test_every_source_gives_the_same(vectors, tmp_path, monkeypatch, unit_length):
    monkeypatch.setattr(vector_files, "_BLOCK_BYTES", 128 * 6 * 4)
    monkeypatch.setattr(vector_files, "_BATCH_ROWS", 128)
    want = normalised(vectors) if unit_length else vectors
    first = opened(vectors, tmp_path, unit_length=unit_length)
    for source in sources(vectors, tmp_path):
        found = opened(source, tmp_path, unit_length=unit_length)
        np.testing.assert_array_equal(found.matrix, want)
        assert found.matrix.dtype == np.float32
        assert found.matrix.flags.c_contiguous
        assert found.fingerprint == first.fingerprint
    changed = vectors.copy()
    changed[999, 5] += 1
    assert opened(changed, tmp_path).fingerprint != first.fingerprint
    assert opened(vectors.reshape(500, 12), tmp_path).fingerprint != first.fingerprint


@pytest.mark.parametrize("width", [1, 3, 64, 301])
def test_blocks_change_no_bit_of_a_length(tmp_path, monkeypatch, width):
    rows = np.random.default_rng(width).standard_normal((500, width)).astype(np.float32)
    want = normalised(rows)
    for size in (1, 7, 100, 4096):
        monkeypatch.setattr(vector_files, "_BLOCK_BYTES", size * width * 4)
        np.testing.assert_array_equal(opened(rows, tmp_path, unit_length=True).matrix, want)


def test_float32_npy_is_mapped_and_copies_have_no_name(vectors, tmp_path):
    np.save(tmp_path / "q.npy", vectors)
    mapped = opened(tmp_path / "q.npy", tmp_path).matrix
    assert not mapped.flags.owndata
    assert not mapped.flags.writeable
    np.save(tmp_path / "wide.npy", vectors.astype(np.float64))
    before = sorted(tmp_path.iterdir())
    copy = opened(tmp_path / "wide.npy", tmp_path).matrix
    assert not copy.flags.owndata
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("metric", ["ip", "cosine"])
def test_jobs_over_files_equal_jobs_over_arrays(vectors, tmp_path, metric):
    queries, items = vectors[:50], vectors[50:]
    np.save(tmp_path / "q.npy", queries)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(items.ravel()), 6)
    pq.write_table(pa.table({"a": lists, "b": lists}), tmp_path / "x.parquet")
    options = {"window": (5, 30), "num_negatives": 4, "metric": metric, "progress": False}
    want = mine_hard_negatives(queries, items, **options)
    folder = tmp_path / "job"
    mined = mine_to_folder(
        tmp_path / "q.npy", str(tmp_path / "x.parquet"), folder, item_vector_column="b", **options
    )
    np.testing.assert_array_equal(mined.read().items, want.items)
    np.testing.assert_array_equal(mined.read().scores, want.scores)
    again = mine_to_folder(queries, items, folder, **options)  # the same vectors, so the same job
    assert again.manifest == mined.manifest


def test_bad_files_end_in_one_clear_error(vectors, tmp_path):
    def refused(source, message, **options):
        with pytest.raises(FastnegError, match=message) as caught:
            opened(source, tmp_path, **options)
        assert "\n" not in str(caught.value)

    def table(column):
        pq.write_table(pa.table({"v": column, "n": range(len(column))}), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    def array(values):
        np.save(tmp_path / "t.npy", values)
        return tmp_path / "t.npy"

    for value, unit_length in ((np.nan, False), (np.inf, True), (1e300, True)):
        bad = vectors.astype(np.float64)
        bad[700, 3] = value
        message = rf"\[700, 3\] = {re.escape(str(value))} is not a finite float32"
        refused(bad, "queries" + message, unit_length=unit_length)
        refused(array(bad), r"t\.npy" + message, unit_length=unit_length)
        with np.errstate(over="ignore"):
            narrow = bad.astype(np.float32)
        refused(array(narrow), r"t\.npy\[700, 3\]", unit_length=unit_length)
        refused(table(bad.tolist()), r"t\.parquet: v" + message, unit_length=unit_length)
    tiny = vectors.astype(np.float64)
    tiny[700] = 1e-60
    for source in (tiny, array(tiny), table(tiny.tolist())):
        refused(source, r"\[700\] becomes all zeros in float32", unit_length=True)
    rows = vectors.tolist()
    refused(table([*rows, rows[0][:5]]), r"v\[1000\] has width 5, .*: v\[0\] 6")
    refused(table([*rows, None]), r"v\[1000\] is null")
    refused(table([None, *rows]), r"v\[0\] is null")
    refused(table([*rows, [None] * 6]), "nulls inside its vectors")
    refused(table(pa.array([[]] * 3, pa.list_(pa.float32()))), "vectors of width 0")
    refused(table([["a"]]), "0 columns of lists of numbers; write the vectors as one column")
    refused(table([["a"]]), "v holds string; give a column of lists of numbers", column="v")
    refused(table([1.0]), "has 0 columns of lists")
    refused(table([1.0]), "is of type double; give a column of lists", column="v")
    refused(table(rows), r"has no column 'x'; its columns are v, n", column="x")
    refused(array(vectors), "has no columns, and 'x' is named", column="x")
    refused(array(vectors[0]), "has 1 dimensions; 2 expected")
    refused(array(np.array([["a"]])), "is not numeric")
    (tmp_path / "t.parquet").write_bytes((table(rows)).read_bytes()[:-20])
    refused(tmp_path / "t.parquet", r"t\.parquet cannot be read")
    (tmp_path / "t.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    refused(tmp_path / "t.npy", r"not a readable \.npy")
    refused(tmp_path / "x.npy", "no such file")
    (tmp_path / "x.csv").write_text("1,2")
    refused(tmp_path / "x.csv", r"suffix '\.csv'")


def test_damage_in_the_middle_of_a_parquet_file(vectors, tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"v": vectors.tolist()}), path, row_group_size=100, compression="zstd")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = b"\xff" * 200
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"t\.parquet cannot be read"):
        opened(path, tmp_path)


def test_no_room_for_a_converted_copy(vectors, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vector_files.tempfile, "TemporaryFile", full)
    with pytest.raises(FileFormatError, match=r"no room .*\(24,000 bytes\): No space left"):
        opened(vectors.astype(np.float64), tmp_path)


def test_empty_and_mismatched_vectors_are_refused(vectors, tmp_path):
    options = {"window": (1, 9), "num_negatives": 1, "progress": False}
    empty = np.empty((0, 6), np.float32)
    pq.write_table(pa.table({"v": pa.array([], pa.list_(pa.float32()))}), tmp_path / "t.parquet")
    for queries, items, message in (
        (empty, vectors, "queries is empty"),
        (vectors, empty.astype(np.float64), "items is empty"),
        (tmp_path / "t.parquet", vectors, "queries is empty"),
        (vectors[:, :5].copy(), vectors, "queries has vectors of width 5, items of width 6"),
    ):
        with pytest.raises(FastnegError, match=message):
            mine_to_folder(queries, items, tmp_path / "job", **options)
        assert not (tmp_path / "job").exists()
