from __future__ import annotations

import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.feather
import pytest

from fastneg.arrow_files import read_arrow_file, validated
from fastneg.columns import normalise_ids
from fastneg.errors import FastnegError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.tables import read_columns

NAMES = [f"user{i:04d}" for i in range(200)]


def damaged(path: Path, kind: pa.DataType, *, stream: bool = False) -> None:
    """A file of 200 rows whose 100th offset (or index) has one bit turned."""
    column = pa.array(NAMES).dictionary_encode() if pa.types.is_dictionary(kind) else None
    table = pa.table({"user": column if column is not None else pa.array(NAMES, kind),
                      "item": list(range(200))})  # fmt: skip
    with pa.OSFile(str(path), "wb") as sink:
        new = pa.ipc.new_stream if stream else pa.ipc.new_file
        with new(sink, table.schema) as writer:
            writer.write_table(table)
    raw = bytearray(path.read_bytes())
    wide = pa.types.is_large_string(kind)
    step = 1 if column is not None else 8
    start = raw.find(struct.pack("<4q" if wide else "<4i", *range(0, 4 * step, step)))
    at = start + (8 if wide else 4) * 100
    raw[at + 3] ^= 0x20
    path.write_bytes(raw)


KINDS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("stream", [False, True])
def test_one_bit_of_an_offset_reaches_no_function(
    tmp_path: Path, kind: pa.DataType, stream: bool
) -> None:
    path = tmp_path / "d.feather"
    damaged(path, kind, stream=stream)
    with pytest.raises(FileFormatError, match=r"call: .*d\.feather cannot be read: ") as caught:
        read_columns(path, ["user"], call="call")
    assert "\n" not in str(caught.value)
    assert read_columns(path, ["item"], call="call").num_rows == 200  # not the damaged column
    with pytest.raises(FileFormatError, match=r"Interactions\.read: "):
        Interactions.read(path)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_arrow_objects_that_the_caller_read_from_such_a_file(
    tmp_path: Path, kind: pa.DataType
) -> None:
    damaged(tmp_path / "d.feather", kind)
    with pa.memory_map(str(tmp_path / "d.feather")) as source:
        table = pa.ipc.open_file(source).read_all()
    with pytest.raises(FastnegError, match="the Table is damaged"):
        Interactions.from_table(table)
    for values in (table.column("user"), table.column("user").chunk(0)):
        with pytest.raises(FastnegError, match="ids is damaged"):
            normalise_ids(values, call="call", name="ids")
        with pytest.raises(FastnegError, match="users is damaged"):
            Interactions.from_pairs(values, table.column("item"))
    assert validated(table.column("item"), call="call", name="x") is not None


def test_streams_are_read_and_version_1_is_refused(tmp_path: Path) -> None:
    table = pa.table({"user": ["a", "b"], "item": [1, 2]})
    with (
        pa.OSFile(str(tmp_path / "s.arrow"), "wb") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    assert read_arrow_file(tmp_path / "s.arrow", lambda names: names).equals(table)
    assert Interactions.read(tmp_path / "s.arrow").num_rows == 2
    (tmp_path / "v1.feather").write_bytes(b"FEA1" + bytes(100))
    with pytest.raises(FileFormatError, match="Feather of version 1"):
        read_columns(tmp_path / "v1.feather", call="call")


def test_compressed_feather_that_is_cut_or_turned(tmp_path: Path) -> None:
    path = tmp_path / "z.feather"
    pa.feather.write_feather(
        pa.table({"user": NAMES * 20, "item": list(range(4_000))}), path, compression="zstd"
    )
    whole = path.read_bytes()
    for place in range(8, len(whole), len(whole) // 60):
        path.write_bytes(whole[:place])
        with pytest.raises(FileFormatError):
            read_columns(path, call="call")
        raw = bytearray(whole)
        raw[place] ^= 0x40
        path.write_bytes(raw)
        try:  # some bits are padding
            made = read_columns(path, ["user", "item"], call="call")
        except FastnegError:
            continue
        assert made.num_rows <= 4_000
