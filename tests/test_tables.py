from __future__ import annotations

import bz2
import gzip
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.tables import read_columns, suffix_of

TABLE = pa.table({"id": ["a", "b"], "n": [1.5, None], "word": ["x", ""]})


def read(source: object, names: list[str] | None = None, **options: object) -> dict[str, list]:
    made = read_columns(source, names, call="call", **options)
    assert made.num_rows == 2
    return {
        name: column.to_pylist() if hasattr(column, "to_pylist") else list(column)
        for name, column in made.data.items()
    }


@pytest.mark.parametrize("name", ["t.parquet", "t.pq", "t.arrow", "t.feather", "t.csv", "t.tsv",
                                  "t.csv.gz", "folder"])  # fmt: skip
def test_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
        pq.write_table(TABLE[:1], path / "part-0.parquet")
        pq.write_table(TABLE[1:], path / "part-1.parquet")
    elif suffix_of(path) in (".parquet", ".pq"):
        pq.write_table(TABLE, path)
    elif suffix_of(path) in (".arrow", ".feather"):
        pa.feather.write_feather(TABLE, path)
    else:
        TABLE.to_pandas().to_csv(path, index=False, sep="\t" if name == "t.tsv" else ",")
    assert read(path) == TABLE.to_pydict()
    assert read(str(path), ["word", "id"]) == {"word": ["x", ""], "id": ["a", "b"]}
    made = read_columns(path, ["id"], call="call")
    assert made.from_text == (suffix_of(path) in (".csv", ".tsv"))
    with pytest.raises(FastnegError, match="has no column 'q'; its columns are id, n, word"):
        read(path, ["id", "q"])


@pytest.mark.parametrize("source", [
    TABLE, TABLE.to_batches()[0], pl.from_arrow(TABLE), TABLE.to_pydict(),
    TABLE.to_pandas(types_mapper=pd.ArrowDtype),
])  # fmt: skip
def test_frames(source: object) -> None:
    assert read(source, ["id", "word"]) == {"id": ["a", "b"], "word": ["x", ""]}
    assert list(read(source)) == ["id", "n", "word"]
    with pytest.raises(FastnegError, match="has no column 'q'; its columns are id, n, word"):
        read(source, ["q"])


def test_pandas_floats_keep_their_nans() -> None:
    column = read_columns(pd.DataFrame({"n": [1.0, np.nan]}), call="call").data["n"]
    assert isinstance(column, np.ndarray)
    assert np.isnan(column[1])


def test_recbole_names_lose_their_types(tmp_path: Path) -> None:
    path = tmp_path / "x.inter"
    path.write_text('user_id:token\ttitle:token_seq\n07\tsay "hi"\n1\t"x\n')
    assert read(path, text=("user_id",)) == {
        "user_id": ["07", "1"], "title": ['say "hi"', '"x'],
    }  # fmt: skip


def test_null_texts_are_no_nan_and_nan_is_no_null(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("n,m\n1,nan\n,2\n")
    made = read(path)
    assert made["n"] == [1, None]
    assert np.isnan(made["m"][0])


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.csv", b"", "a.csv is empty"),
    ("a.csv", b"id,n\n", "a.csv has no rows"),
    ("a.csv", b"id,n\n1\n", "a.csv cannot be read: CSV parse error: .*Expected 2 columns, got 1"),
    ("a.csv", b"id\n\xff\xfe\n", "a.csv cannot be read: .*UTF8"),
    ("a.parquet", b"PAR1 no more", "a.parquet cannot be read: Parquet magic bytes not found"),
    ("a.feather", b"ARROW1", "a.feather cannot be read: "),
    ("a.xlsx", b"PK", "a.xlsx has the suffix '.xlsx'; give .parquet"),
    ("a.csv.gz", b"no gzip", "a.csv.gz cannot be read: "),
])  # fmt: skip
def test_damaged_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileFormatError, match=f"call: .*{message}") as caught:
        read(tmp_path / name, text=("id",))
    assert "\n" not in str(caught.value)


def test_truncated_parquet_at_any_place(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": np.arange(1_000)}), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for size in np.linspace(1, len(whole) - 1, 12).astype(int):
        (tmp_path / "cut.parquet").write_bytes(whole[:size])
        with pytest.raises(FileFormatError, match=r"cut\.parquet"):
            read_columns(tmp_path / "cut.parquet", ["id"], call="call")
    damaged = bytearray(whole)
    damaged[-300:-20] = bytes(280)
    (tmp_path / "cut.parquet").write_bytes(damaged)
    with pytest.raises(FileFormatError, match=r"cut\.parquet"):
        read_columns(tmp_path / "cut.parquet", ["id"], call="call")


def test_no_file_and_no_table(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"x\.csv cannot be read: no such file"):
        read(tmp_path / "x.csv")
    with pytest.raises(FileFormatError, match="holds no Parquet files"):
        read(tmp_path)
    with pytest.raises(FastnegTypeError, match="a int is not a table"):
        read(3)
    with pytest.raises(FastnegTypeError, match=r"a LazyFrame is not a table; call .collect\(\)"):
        read(pl.LazyFrame({"a": [1]}))
    with pytest.raises(FastnegError, match="lengths differ: a has 1, b has 2"):
        read({"a": [1], "b": [1, 2]})


@pytest.mark.parametrize("make", [
    lambda: pd.DataFrame([[1, 2, 3]], columns=["user", "item", "item"]),
    lambda: pa.table([[1], [2], [3]], names=["user", "item", "item"]),
    lambda: {"user": [1], 1: [2], "1": [3]},
])  # fmt: skip
def test_a_name_that_stands_twice(make: object) -> None:
    source = make()  # type: ignore[operator]
    with pytest.raises(FastnegError, match=r"has 2 columns of the name '(item|1)'"):
        read_columns(source, call="call")
    assert read_columns(source, ["user"], call="call").num_rows == 1


def test_columns_of_a_frame_or_mapping_whose_names_are_no_texts() -> None:
    frame = pd.DataFrame([[1, 2.5]], columns=[0, 1])
    assert read_columns(frame, ["1"], call="call").data["1"].tolist() == [2.5]
    assert read_columns({0: [1], 1: [2]}, ["1"], call="call").data["1"] == [2]


class FakeDataset:
    """What ``datasets.Dataset`` offers: rows by an index over a table."""

    def __init__(self, table: pa.Table, rows: list[int], columns: list[str] | None = None) -> None:
        self.table, self.rows, self.columns = table, rows, columns
        self.column_names = table.column_names

    def with_format(self, kind: str, columns: list[str]) -> FakeDataset:
        assert kind == "arrow"
        return FakeDataset(self.table, self.rows, columns)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice) -> pa.Table:
        return self.table.take(self.rows).select(self.columns)[rows.start or 0 :]


def test_a_dataset_of_hugging_face(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeDataset, "__module__", "datasets.arrow_dataset")
    table = pa.table({"user": ["a", "b", "c"], "item": [1, 2, 3], "text": ["x", "y", "z"]})
    shuffled = FakeDataset(table, [2, 0])
    made = read_columns(shuffled, ["item", "user"], call="call")
    assert {name: column.to_pylist() for name, column in made.data.items()} == {
        "item": [3, 1], "user": ["c", "a"],
    }  # fmt: skip
    with pytest.raises(FastnegError, match="the FakeDataset has no column 'q'"):
        read_columns(shuffled, ["q"], call="call")
    splits = type("DatasetDict", (dict,), {"__module__": "datasets.dataset_dict"})
    with pytest.raises(FastnegTypeError, match="holds the splits train, test; give one of them"):
        read_columns(splits(train=shuffled, test=shuffled), call="call")
    streamed = {"with_format": lambda self, kind: self, "__getitem__": lambda self, row: {}}
    endless = type("IterableDataset", (), {"__module__": "datasets.iterable_dataset", **streamed})
    with pytest.raises(FastnegTypeError, match="IterableDataset cannot be read as a whole"):
        read_columns(endless(), call="call")


def test_devices_and_pipes_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    for path in ("/dev/zero", "/dev/null", tmp_path / "pipe.csv"):
        with pytest.raises(FileFormatError, match="is a device or a pipe, which may have no end"):
            read_columns(path, call="call", delimiter=",")
    (tmp_path / "link.txt").symlink_to("/dev/zero")
    with pytest.raises(FileFormatError, match="is a device or a pipe"):
        Interactions.read(tmp_path / "link.txt")
    for path in ("a\0b.csv", "a\ud800b.csv"):
        with pytest.raises(FileFormatError, match=r"(is no path|no such file)"):
            read_columns(path, call="call")


def test_a_bomb_as_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastneg.archives.FREE_BYTES", 1 << 20)
    row = b"1,2\n" * (1 << 20)
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"user,item\n" + row))
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"user":1,"item":2}\n' * (1 << 18)))
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(b"1 2\n" * (1 << 20)))
    for name in ("x.csv.gz", "x.jsonl.gz", "x.txt.gz"):
        with pytest.raises(FileFormatError, match=f"{name} unpacks to more than"):
            Interactions.read(tmp_path / name)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_any_byte_of_a_packed_text_turned(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    whole = pack(b"user,item\n" + b"".join(b"%d,%d\n" % (k, k % 7) for k in range(200)))
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        raw = bytearray(whole)
        raw[place] ^= 0x10
        (tmp_path / "x.csv").write_bytes(raw)
        try:
            made = Interactions.read(tmp_path / "x.csv")
        except FastnegError as error:
            assert "\n" not in str(error)  # noqa: PT017 - some bytes are dates and flags
        else:
            assert made.num_rows == 200
