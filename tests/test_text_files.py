"""Delimited text: quotes, encodings, delimiters, missing values; no line is lost unseen."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fastneg.data.features import FeatureTable
from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.tables import read_columns
from fastneg.text_files import NULL_TEXTS
from fastneg.text_options import TextFormat


def written(path: Path, rows: list[list[object]], **dialect: object) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **dialect).writerows(rows)
    return path


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
@pytest.mark.parametrize("rows", [50, 30_000])
def test_line_breaks_in_quotes(tmp_path: Path, line_break: str, rows: int) -> None:
    """In more than a megabyte Arrow splits the file into blocks that it parses one by one."""
    body = [[k % 100, k % 33, f'one,{line_break}"two" of {k}{line_break}end'] for k in range(rows)]
    path = written(tmp_path / "r.csv", [["user", "item", "review"], *body])
    made = Interactions.read(path)
    assert (made.num_rows, made.num_users, made.num_items) == (rows, min(rows, 100), 33)
    text = read_columns(path, ["review"], call="call").data["review"]
    assert text.to_pylist() == [review for _, _, review in body]
    with gzip.open(tmp_path / "r.csv.gz", "wb") as file:
        file.write(path.read_bytes())
    assert Interactions.read(tmp_path / "r.csv.gz").fingerprint() == made.fingerprint()


def test_a_row_longer_than_a_block_of_the_reader(tmp_path: Path) -> None:
    body = [[0, 1, "x" * (3 << 20)], [1, 2, 'a "quote"\n']]
    made = Interactions.read(written(tmp_path / "r.csv", [["user", "item", "text"], *body]))
    assert made.num_rows == 2


def test_quotes_that_do_not_quote_lose_no_line_unseen(tmp_path: Path) -> None:
    titles = ['"open', '12" vinyl', '"Heroes" LP']
    path = tmp_path / "t.tsv"
    path.write_text(
        "user\titem\ttitle\n" + "".join(f"{k}\t{k}\t{titles[k % 3]}\n" for k in range(40))
    )
    with pytest.raises(
        FileFormatError, match="of 27 rows if its quotes hold line breaks, and of 40"
    ):
        Interactions.read(path)
    assert Interactions.read(path, quoting=False).num_rows == 40
    assert Interactions.read(path, quoting=True).num_rows == 27
    table = FeatureTable.from_table(path, ids=np.arange(40), id_column="user", quoting=False)
    assert table.num_described == 40
    for sound in ('1\t2\t"a"\n\n\n3\t4\tb\n', '1\t2\t5" disk\n3\t4\tx\n', '1\t2\t"a\nb"\n'):
        path.write_text("user\titem\ttitle\n" + sound)
        assert Interactions.read(path).num_rows == sound.count("\n1\t") + sound.count("\t2") + (
            sound.count("\t4")
        )


@pytest.mark.parametrize("name", ["x.csv", "x.txt"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes("user,item\ncafé,2\nann,4\n".encode(encoding))
    named = {} if name == "x.csv" else {"delimiter": ","}
    if encoding in ("utf-16-le", "latin-1"):  # no mark says it
        with pytest.raises(FileFormatError, match=r"give (its )?encoding="):
            Interactions.read(path, **named)
        named["encoding"] = encoding
    assert Interactions.read(path, **named).user_ids.tolist() == ["café", "ann"]


def test_text_that_is_not_of_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xff\xfeu\x00s\x00\x00\xd8")
    with pytest.raises(FileFormatError, match=r"x\.csv cannot be read: .*encoding="):
        Interactions.read(tmp_path / "x.csv")
    for encoding in ("zip_codec", "no such", 7):
        with pytest.raises(FastnegError, match="encoding = "):
            Interactions.read(tmp_path / "x.csv", encoding=encoding)


@pytest.mark.parametrize("delimiter", ["::", "\t", ";", "|", " ", "§", "\x1e", "||", "-|-"])
def test_delimiters(tmp_path: Path, delimiter: str) -> None:
    rows = [["1", "1193", "5"], ["1", "661", "3"], ["2", "661", "4.5"]]
    path = tmp_path / "ratings.dat"
    path.write_text("".join(delimiter.join(row) + "\n" for row in rows))
    made = Interactions.read(
        path, delimiter=delimiter, column_names=["user", "item", "w"], weight_column="w"
    )
    assert made.decode_items(made.row_items).tolist() == [1193, 661, 661]
    assert made.row_weights is not None
    assert made.row_weights.tolist() == [5, 3, 4.5]


def test_a_delimiter_of_two_bytes_at_the_edge_of_a_block(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"
    rows = 200_000
    path.write_text("".join(f"{k % 977}::{k % 31}:::{k}\n" for k in range(rows)))
    table = read_columns(path, call="call", delimiter="::", column_names=["u", "i", "t"])
    assert table.data["u"].to_pylist() == [k % 977 for k in range(rows)]
    assert table.data["i"].to_pylist() == [k % 31 for k in range(rows)]
    assert table.data["t"].to_pylist() == [f":{k}" for k in range(rows)]
    path.write_text("a\x1fb::c\n")
    with pytest.raises(FileFormatError, match="control character 0x1f"):
        read_columns(path, call="call", delimiter="::")


@pytest.mark.parametrize("value", ["", "ab", "x1", '"', "\n", "::\n", 7, "\ud800", ":" * 17])
def test_what_is_no_delimiter(tmp_path: Path, value: object) -> None:
    (tmp_path / "x.csv").write_text("user,item\n1,2\n")
    with pytest.raises(FastnegError, match="delimiter = "):
        Interactions.read(tmp_path / "x.csv", delimiter=value)


def test_options_are_checked() -> None:
    for options, match in (
        ({"quote": True}, "there is no argument 'quote'; those for files are format, delimiter"),
        ({"column_names": "user,item"}, "column_names = 'user,item'; give a list"),
        ({"format": "excel"}, "format = 'excel' is not one of 'csv', 'tsv', 'json'"),
        ({"nulls": None}, "nulls = None; give True or False"),
        ({"quoting": 1}, "quoting = 1; give True or False"),
        (
            {"quoting": True, "delimiter": "::"},
            "quoting = True has no effect with delimiter = '::'",
        ),
    ):
        with pytest.raises(FastnegError, match=match):
            TextFormat.of(options, call="call")
    with pytest.raises(FastnegTypeError, match=r"Interactions\.read: there is no argument 'quote'"):
        Interactions.read(__file__, quote=False)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz", "zst", "zip", "as it is"])
@pytest.mark.parametrize("named", [True, False])
def test_compressed_text_by_its_bytes(tmp_path: Path, suffix: str, named: bool) -> None:
    text = b"user,item\n1,2\n3,4\n"
    packed = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "as it is": bytes}
    if suffix == "zip":
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("export/x.csv", text)
        data = buffer.getvalue()
    elif suffix == "zst":
        data = pa.compress(text, "zstd", asbytes=True)
    else:
        data = packed[suffix](text)
    path = tmp_path / (f"x.csv.{suffix}" if named and suffix != "as it is" else "x.csv")
    path.write_bytes(data)
    assert Interactions.read(path).user_ids.tolist() == [1, 3]
    if suffix == "zip":
        (tmp_path / "x.zip").write_bytes(data)
        assert Interactions.read(tmp_path / "x.zip").user_ids.tolist() == [1, 3]


@pytest.mark.parametrize("null", NULL_TEXTS)
@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_texts_that_mean_a_missing_id(tmp_path: Path, null: str, name: str) -> None:
    path = tmp_path / name
    users = ["7", "8", null, null]
    if name == "x.jsonl":
        quoted = null.replace("\\", "\\\\")
        lines = [f'{{"user": "{user}", "item": 1}}\n' for user in (*users[:2], quoted, quoted)]
        path.write_text("".join(lines))
    else:
        parter = "," if name == "x.csv" else "\t"
        path.write_text(f"user{parter}item\n" + "".join(f"{user}{parter}1\n" for user in users))
    match = r"user\[2\] is .*, a missing value \(2 of 4 are\); .*nulls=False \(--no-nulls\)"
    with pytest.raises(FastnegError, match=match) as caught:
        Interactions.read(path)
    assert repr(null) in str(caught.value)
    kept = Interactions.read(path, nulls=False)
    assert kept.user_ids.tolist() == ["7", "8", null]
    with pytest.raises(FastnegError, match="a missing value"):
        FeatureTable.from_table(path, ids=[7], id_column="user")


def test_missing_values_among_numbers_and_categories(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    path.write_text("id,year,genre\n1,1990,war\n2,\\N,NULL\n3,2000,NA\n")
    table = FeatureTable.from_table(path, ids=[1, 2, 3])
    assert table.numeric["year"].tolist() == [-1, 0, 1]
    assert table.categorical["genre"].categories == ("war",)
    kept = FeatureTable.from_table(path, ids=[1, 2, 3], nulls=False, columns={"year": "ignore"})
    assert kept.categorical["genre"].categories == ("NA", "NULL", "war")


@pytest.mark.parametrize(("text", "match"), [
    ("user;item\n1;2\n", r"its columns are user;item; give delimiter=';' \(--delimiter\)"),
    ("1,2\n3,4\n", r"its columns are 1, 2; if the file has no header line, .*column_names="),
    ("user,item,item\n1,2,9\n", "has 2 columns of the name 'item'"),
    ('user,item,t\n1,2,"a \\"b\\", c"\n', r"Expected 3 columns, got 4.*quoting=False"),
])  # fmt: skip
def test_one_line_with_the_remedy(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(FastnegError, match=match) as caught:
        Interactions.read(tmp_path / "x.csv")
    assert "\n" not in str(caught.value)


def test_blanks_around_the_names_of_columns(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("user, item ,when\n1,2,3\n")
    assert Interactions.read(tmp_path / "x.csv", time_column="when").num_rows == 1
