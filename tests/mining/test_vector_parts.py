"""Folders of vector parts, as Spark, Ray and autofaiss write them, in mining and on the command
line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from fastneg.cli import app
from fastneg.errors import FastnegError
from fastneg.mining.miner import mine_hard_negatives
from fastneg.mining.shards import mine_to_folder
from fastneg.mining.vector_parts import find_parts

ROWS = 60
OPTIONS = {"window": (1, 10), "num_negatives": 10, "strategy": "top", "progress": False}


@pytest.fixture
def vectors():
    rng = np.random.default_rng(0)
    return [rng.integers(-9, 9, (ROWS, 6)).astype(np.float32) for _ in "qi"]


@pytest.fixture
def wanted(vectors):
    return mine_hard_negatives(*vectors, **OPTIONS).items


def spark(folder: Path, items, ids=None, kind=None):
    """Three parts, an empty one first, and what Spark leaves beside them."""
    folder.mkdir(parents=True)
    kind = pa.list_(pa.float32()) if kind is None else kind
    ids = pa.array([f"i{k}" for k in range(len(items))]) if ids is None else ids
    for part, rows in enumerate((slice(0, 0), slice(0, 25), slice(25, 26), slice(26, None))):
        column = pa.array(items[rows].tolist(), kind)
        table = pa.table({"id": ids[rows], "emb": column})
        pq.write_table(table, folder / f"part-0000{part}-c000.snappy.parquet")
        (folder / f".part-0000{part}-c000.snappy.parquet.crc").write_bytes(b"crc")
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "_metadata").write_bytes(b"not parquet")
    (folder / "metadata.json").write_text("{}")
    return folder


def arrays(folder: Path, items, dtypes=("<f4", "<f2", ">f8")):
    """Parts without leading zeros: the tenth comes after the second."""
    folder.mkdir()
    for part, rows in enumerate(np.array_split(np.arange(len(items)), 12)):
        np.save(folder / f"img_emb_{part}.npy", items[rows].astype(dtypes[part % 3]))
    np.save(folder / "img_emb_12.npy", items[:0])
    np.save(folder / "img_emb_12²13.npy", items[:0])  # a digit that is no number
    (folder / "_SUCCESS").write_bytes(b"")
    (folder / "img_emb_0.npy.crc").write_bytes(b"crc")
    return folder


def by_command(queries: Path, items: Path, out: Path, *flags):
    arguments = ["mine", str(queries), str(items), "--window", "1", "10", "--strategy", "top"]
    return CliRunner().invoke(app, [*arguments, "--out", str(out), "--quiet", *flags])


def items_of(out: Path):
    path = out if out.is_file() else out / "part-00000.parquet"
    return pq.read_table(path)["items"].to_pylist()


def test_a_folder_of_arrays(vectors, wanted, tmp_path):
    folder = arrays(tmp_path / "emb", vectors[1])
    np.save(tmp_path / "q.npy", vectors[0])
    mined = mine_to_folder(tmp_path / "q.npy", folder, tmp_path / "job", **OPTIONS)
    np.testing.assert_array_equal(mined.read().items, wanted)
    for out in ("cli", "cli.parquet"):
        done = by_command(tmp_path / "q.npy", folder, tmp_path / out)
        assert done.exit_code == 0, done.output
        assert items_of(tmp_path / out) == wanted.tolist()


@pytest.mark.parametrize("nulls", [False, True])
def test_a_folder_of_tables_with_their_ids(vectors, wanted, tmp_path, nulls):
    folder = spark(tmp_path / "emb", vectors[1])
    if nulls:  # of an empty part some writers know no types
        empty = pa.table({"id": pa.nulls(0), "emb": pa.nulls(0)})
        pq.write_table(empty, folder / "part-00000-c000.snappy.parquet")
    np.save(tmp_path / "q.npy", vectors[0])
    mined = mine_to_folder(tmp_path / "q.npy", folder, tmp_path / "job", **OPTIONS)
    np.testing.assert_array_equal(mined.read().items, wanted)
    names = [[f"i{k}" for k in row] for row in wanted]
    for out in ("cli", "cli.parquet"):
        done = by_command(tmp_path / "q.npy", folder, tmp_path / out)
        assert done.exit_code == 0, done.output
        assert items_of(tmp_path / out) == names
    # the same vectors, so the same job
    again = mine_to_folder(vectors[0], vectors[1], tmp_path / "job", **OPTIONS)
    assert again.manifest == mined.manifest


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float16()),
        pa.list_(pa.int16()), pa.list_(pa.float32(), 6), pa.list_view(pa.float32()),
        pa.large_list_view(pa.float32()), pa.fixed_shape_tensor(pa.float32(), (6,)),
    ],
)  # fmt: skip
def test_columns_of_every_kind_of_list(vectors, wanted, tmp_path, kind):
    rows = vectors[1].tolist()
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(vectors[1])
    else:
        column = pa.array(vectors[1].astype(np.int16).tolist(), kind) if "int" in str(kind) else (
            pa.array(rows, kind) if "half" not in str(kind)
            else pa.array(list(vectors[1].astype(np.float16)), kind)
        )  # fmt: skip
    for values in (column, pa.chunked_array([column[:7], column[7:]])):
        found = mine_hard_negatives(vectors[0], values, **OPTIONS)
        np.testing.assert_array_equal(found.items, wanted)
    tags = pa.array([["a", "b"]] * ROWS)
    try:
        pq.write_table(pa.table({"tags": tags, "emb": column}), tmp_path / "x.parquet")
    except pa.ArrowNotImplementedError:
        pytest.skip(f"pyarrow {pa.__version__} does not write {kind} to Parquet")
    np.save(tmp_path / "q.npy", vectors[0])
    mined = mine_to_folder(tmp_path / "q.npy", tmp_path / "x.parquet", tmp_path / "job", **OPTIONS)
    np.testing.assert_array_equal(mined.read().items, wanted)
    done = by_command(tmp_path / "q.npy", tmp_path / "x.parquet", tmp_path / "cli")
    assert done.exit_code == 0, done.output
    assert items_of(tmp_path / "cli") == wanted.tolist()


def test_a_diagnosis_reads_folders(vectors, tmp_path):
    arrays(tmp_path / "q", vectors[0])
    arrays(tmp_path / "i", vectors[1])
    (tmp_path / "held.csv").write_text("user,item\n" + "".join(f"{u},{u}\n" for u in range(ROWS)))
    done = CliRunner().invoke(
        app,
        ["diagnose", "--queries", str(tmp_path / "q"), "--items", str(tmp_path / "i"),
         "--held-out", str(tmp_path / "held.csv"), "--window", "1", "10",
         "--out", str(tmp_path / "found.json")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "found.json").read_text())["num_held_out"] == ROWS


def test_folders_that_cannot_be_read_end_in_one_line(vectors, tmp_path):
    def refused(message, folder=tmp_path / "f"):
        with pytest.raises(FastnegError, match=message) as caught:
            mine_to_folder(vectors[0], folder, tmp_path / "job", **OPTIONS)
        assert str(caught.value).startswith("mine_to_folder: ")
        assert "\n" not in str(caught.value)
        np.save(tmp_path / "q.npy", vectors[0])
        done = by_command(tmp_path / "q.npy", folder, tmp_path / "cli")
        assert isinstance(done.exception, FastnegError)
        assert "\n" not in str(done.exception)

    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "_SUCCESS").write_bytes(b"")
    refused("holds no .npy and no Parquet files")
    np.save(folder / "a.npy", vectors[1])
    np.save(folder / "b.npy", vectors[1][:, :5])
    refused("b.npy has vectors of width 5, .*a.npy of width 6")
    np.save(folder / "b.npy", vectors[1][0])
    refused("b.npy .* has 1 dimensions; 2 expected")
    np.save(folder / "b.npy", np.zeros((3, 6), "V2"))
    refused("b.npy holds 2 raw bytes a number .* save it as float32")
    bad = vectors[1].copy()
    bad[3, 2] = np.nan
    np.save(folder / "b.npy", bad)
    refused(r"b.npy\[3, 2\] = nan is not a finite float32")
    spark(folder / "sub", vectors[1])
    refused("holds .npy files .* and Parquet files")
    (folder / "a.npy").unlink()
    (folder / "b.npy").unlink()
    parts = sorted((folder / "sub").glob("*.parquet"))
    column = pa.array([*vectors[1][:3].tolist(), None], pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": list("abcd"), "emb": column}), parts[2])
    refused(r"part-00002.*: emb\[3\] is null")
    column = pa.array([[1.0] * 5], pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": ["a"], "emb": column}), parts[2])
    refused(r"part-00002.*: emb\[0\] has width 5")
    pq.write_table(pa.table({"id": ["a"], "emb": pa.nulls(1)}), parts[2])
    refused(r"part-00002.*: emb\[0\] is null")
    pq.write_table(pa.table({"id": ["a"], "other": column}), parts[2])
    refused("has 2 columns of lists of numbers; name the one|has no column 'emb'")
    parts[2].write_bytes(b"PAR1 and nothing more")
    refused("part-00002.* cannot be read")
    trained = tmp_path / "trained"
    trained.mkdir()
    for name in ("user_vectors.npy", "item_vectors.npy"):
        np.save(trained / name, vectors[0])
    with pytest.raises(FastnegError, match=r"give its user_vectors\.npy"):
        mine_to_folder(vectors[0], trained, tmp_path / "job", **OPTIONS)


def test_tensors_of_many_dimensions_and_other_types_are_refused(vectors, tmp_path):
    square = pa.FixedShapeTensorArray.from_numpy_ndarray(vectors[1].reshape(ROWS, 2, 3))
    with pytest.raises(FastnegError, match=r"tensors of shape \(2, 3\); flatten each"):
        mine_hard_negatives(vectors[0], square, **OPTIONS)
    with pytest.raises(FastnegError, match="items is of type int64; give a column of lists"):
        mine_hard_negatives(vectors[0], pa.array([1, 2]), **OPTIONS)
    with pytest.raises(FastnegError, match="is a path, and arrays are taken here"):
        mine_hard_negatives(vectors[0], "items.npy", **OPTIONS)


def test_parts_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("b/x_2.npy", "b/x_10.npy", "a/x_3.npy", "x.npy"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, np.zeros((1, 2)))
    found = [str(file.relative_to(tmp_path)) for file in find_parts(tmp_path, call="x").files]
    assert found == ["a/x_3.npy", "b/x_2.npy", "b/x_10.npy", "x.npy"]
