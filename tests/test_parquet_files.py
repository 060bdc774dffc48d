"""Folders of parts as Spark, Hive, pandas and Hugging Face write them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastneg.errors import FastnegError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.tables import read_columns


def parts(folder: Path, *tables: dict[str, object], names: tuple[str, ...] = ()) -> Path:
    for number, table in enumerate(tables):
        name = names[number] if names else f"part-{number:05d}.parquet"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        made = table if isinstance(table, pa.Table) else pa.table(table)
        pq.write_table(made, path)
    return folder


def read(folder: Path, *names: str, text: tuple[str, ...] = ()) -> dict[str, list[object]]:
    made = read_columns(folder, names or None, call="call", text=text)
    return {name: column.to_pylist() for name, column in made.data.items()}


def test_a_first_part_whose_columns_are_all_null(tmp_path: Path) -> None:
    folder = parts(
        tmp_path / "d",
        {"user": [1, 2], "item": [3, 4], "w": pa.nulls(2), "name": pa.nulls(2)},
        {"user": [5], "item": [6], "w": [0.5], "name": ["x"]},
    )
    assert read(folder) == {
        "user": [1, 2, 5], "item": [3, 4, 6], "w": [None, None, 0.5], "name": [None, None, "x"],
    }  # fmt: skip
    assert Interactions.read(folder).num_rows == 3
    with pytest.raises(FastnegError, match=r"w\[0\] is null"):
        Interactions.read(folder, weight_column="w")


def test_types_that_differ_from_part_to_part(tmp_path: Path) -> None:
    folder = parts(
        tmp_path / "d",
        {
            "id": [2**60 + 1],
            "n": pa.array([1], pa.int32()),
            "s": pa.array(["a"]).dictionary_encode(),
        },
        {"id": [7.0], "n": [2.5], "s": ["b"]},
        {"id": ["x"], "n": pa.array([3], pa.int64()), "s": pa.array(["c"], pa.large_string())},
    )
    assert read(folder, "id", text=("id",)) == {"id": [str(2**60 + 1), "7", "x"]}
    assert read(folder, "n", "s") == {"n": [1, 2.5, 3], "s": ["a", "b", "c"]}
    parts(tmp_path / "e", {"n": [1]}, {"n": ["x"]})
    with pytest.raises(FastnegError, match=r"column 'n' has several types \(int64 in part-00000"):
        read(tmp_path / "e")


def test_other_files_beside_the_parts(tmp_path: Path) -> None:
    table = {"user": [1, 2], "item": [3, 4]}
    folder = parts(tmp_path / "d", table, table)
    for name in ("_SUCCESS", ".part-00000.parquet.crc", "README.md", "schema.json", "x.csv",
                 "_metadata", "_temporary/0/part-00009.parquet", ".hidden/part.parquet",
                 "_committed_1"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not a part")
    assert read(folder) == {"user": [1, 2, 1, 2], "item": [3, 4, 3, 4]}
    (folder / "part-00003.parquet").write_bytes(b"damaged")
    with pytest.raises(FileFormatError, match=r"part-00003\.parquet cannot be read"):
        read(folder)
    (folder / "part-00003.parquet").unlink()
    (folder / "_delta_log").mkdir()
    with pytest.raises(FileFormatError, match="is a Delta table"):
        read(folder)


def test_a_folder_without_parts(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("user,item\n1,2\n")
    with pytest.raises(FileFormatError, match=r"holds no Parquet files; it holds data\.csv"):
        read(tmp_path)


def test_names_of_folders_keep_their_zeros(tmp_path: Path) -> None:
    names = ("user=007/day=01/a.parquet", "user=7/day=02/a.parquet",
             "user=a%20b/day=__HIVE_DEFAULT_PARTITION__/a.parquet")  # fmt: skip
    folder = parts(tmp_path / "d", *({"item": [k, k + 1]} for k in range(3)), names=names)
    assert read(folder, "user", "day") == {
        "user": ["007", "007", "7", "7", "a b", "a b"],
        "day": ["01", "01", "02", "02", None, None],
    }
    made = Interactions.read(folder)
    assert made.user_ids.tolist() == ["007", "7", "a b"]
    whole = parts(
        tmp_path / "e", {"item": [1]}, {"item": [2]}, names=("user=5/a.pq", "user=7/a.pq")
    )
    assert Interactions.read(whole).user_ids.tolist() == [5, 7]


def test_columns_that_a_part_lacks_or_has_twice(tmp_path: Path) -> None:
    folder = parts(tmp_path / "d", {"user": [1], "item": [2]}, {"item": [3], "extra": [1]})
    assert read(folder) == {"user": [1, None], "item": [2, 3], "extra": [None, 1]}
    twice = pa.table([[1], [2], [3]], names=["user", "item", "item"])
    parts(tmp_path / "e", {"user": [1], "item": [2]}, twice)
    with pytest.raises(FastnegError, match="has 2 columns of the name 'item'"):
        Interactions.read(tmp_path / "e")
    pq.write_table(twice, tmp_path / "x.parquet")
    with pytest.raises(FastnegError, match="has 2 columns of the name 'item'"):
        Interactions.read(tmp_path / "x.parquet")
    assert read(tmp_path / "x.parquet", "user") == {"user": [1]}


def test_texts_that_are_no_utf8_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"user": ["abcd"] * 3, "item": [1, 2, 3]}), path, compression="none",
        use_dictionary=False, write_statistics=False,
    )  # fmt: skip
    path.write_bytes(path.read_bytes().replace(b"abcd", b"ab\xff\xfe"))
    with pytest.raises(FileFormatError, match=r"x\.parquet cannot be read: .*UTF8"):
        Interactions.read(path)


def test_a_folder_that_hugging_face_saved(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    for name, rows in (("data-00000-of-00002.arrow", [1]), ("data-00001-of-00002.arrow", [2]),
                       ("cache-9f.arrow", [3])):  # fmt: skip
        table = pa.table({"user": rows, "item": rows})
        with (
            pa.OSFile(str(folder / name), "wb") as sink,
            pa.ipc.new_stream(sink, table.schema) as writer,
        ):
            writer.write_table(table)
    (folder / "state.json").write_text("{}")
    assert read(folder) == {"user": [1, 2], "item": [1, 2]}
    folder.rename(tmp_path / "train")
    (tmp_path / "dataset_dict.json").write_text("{}")
    with pytest.raises(FileFormatError, match="holds splits; give one: train"):
        read(tmp_path)


def test_parts_in_the_order_of_their_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 9, 3).tolist() for _ in range(12)]
    folder = parts(tmp_path / "d", *({"user": v, "item": v} for v in values))
    assert read(folder, "user")["user"] == [one for value in values for one in value]
    assert read(folder, "user")["user"] == pq.read_table(folder).column("user").to_pylist()
