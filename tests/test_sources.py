from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from fastneg.errors import FastnegError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.sources import read_adjacency


def test_adjacency(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("ann 1 2 \r\n\n  bob\nann\tß 1".encode())
    users, items, everybody = read_adjacency(path, call="call")
    assert users.to_pylist() == ["ann", "ann", "ann", "ann"]
    assert items.to_pylist() == ["1", "2", "ß", "1"]
    assert everybody.to_pylist() == ["ann", "bob"]
    for content, match in ((b"", "is empty"), (b"\n \n", "has no lines"), (b"\xff 1", "readable")):
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=match):
            read_adjacency(path, call="call")


def lines_of(rng: np.random.Generator, num_users: int, low: int, high: int) -> list[list[int]]:
    """A user and ``low``..``high - 1`` items on each line."""
    return [
        [user, *rng.choice(100, int(rng.integers(low, high)), replace=False).tolist()]
        for user in range(num_users)
    ]


def written(path: Path, rows: list[list[object]], parter: str = " ", end: str = "\n") -> Path:
    path.write_bytes("".join(parter.join(map(str, row)) + end for row in rows).encode())
    return path


@pytest.mark.parametrize(("low", "high"), [(0, 9), (1, 3), (8, 9), (1, 2)])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", " \n"])
def test_adjacency_that_can_be_nothing_else(tmp_path: Path, low: int, high: int, end: str) -> None:
    rows = lines_of(np.random.default_rng(0), 50, low, high)
    for parter in (" ", "\t"):
        path = written(tmp_path / "train.txt", rows, parter, end)
        made = Interactions.read(path)
        pairs = [(row[0], item) for row in rows for item in row[1:]]
        assert made.decode_users(made.row_users).tolist() == [user for user, _ in pairs]
        assert made.decode_items(made.row_items).tolist() == [item for _, item in pairs]
        assert made.num_users == 50
        (tmp_path / "train.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
        assert Interactions.read(tmp_path / "train.txt.gz").fingerprint() == made.fingerprint()
        path.write_text("\ufeff" + path.read_text(), encoding="utf-16-le")
        assert Interactions.read(path).fingerprint() == made.fingerprint()


def tables(rng: np.random.Generator) -> dict[str, list[list[object]]]:
    """Rows of tables that white space parts, or of texts that are none."""
    users, items = rng.integers(1, 944, 600).tolist(), rng.integers(1, 1683, 600).tolist()
    stars, times = rng.integers(1, 6, 600).tolist(), rng.integers(8e8, 9e8, 600).tolist()
    once = list(range(1, 601))  # a test set of one row a user
    return {
        "u.data": [*map(list, zip(users, items, stars, times, strict=True))],
        "one row a user": [*map(list, zip(once, items, stars, times, strict=True))],
        "user item rating": [*map(list, zip(users, items, stars, strict=True))],
        "one rating a user": [*map(list, zip(once, items, stars, strict=True))],
        "weights": [[u, i, f"{s / 2:.1f}"] for u, i, s in zip(users, items, stars, strict=True)],
        "five numbers": [*map(list, zip(once, items, stars, times, stars, strict=True))],
        "answers": [[u, *rng.integers(1, 6, 6).tolist()] for u in once],
        "six numbers": [*map(list, zip(once, items, stars, times, stars, users, strict=True))],
        "a header": [["user", "item"], *map(list, zip(users, items, strict=True))],
        "a log": [["2024-01-01", "10:00:00", f"user={u}", f"item={u}"] for u in users],
        "prose": [["once", "upon", "a", "time"], ["there", "was", "7"]],
        "commas": [[f"{u},{i}"] for u, i in zip(users, items, strict=True)],
        "commas and blanks": [[f"{u},", i] for u, i in zip(users, items, strict=True)],
        "::": [[f"{u}::{i}::3::9"] for u, i in zip(users, items, strict=True)],
        "svm light": [[u, f"{i}:0.5"] for u, i in zip(users, items, strict=True)],
        "baskets": [sorted(rng.choice(40, int(rng.integers(1, 9)), False)) for _ in range(200)],
        "negative": [[u, -i, 3] for u, i in zip(once, items, strict=True)],
        "matrix market": [["%%MatrixMarket", "matrix"], [9, 9, 2], [1, 2, 1], [3, 4, 1]],
        "snap": [["#", "FromNodeId", "ToNodeId"], [0, 1], [0, 2]],
    }


@pytest.mark.parametrize("name", tables(np.random.default_rng(0)))
def test_what_may_be_a_table_is_not_read_as_adjacency(tmp_path: Path, name: str) -> None:
    rows = tables(np.random.default_rng(1))[name]
    for file, parter in (("x.txt", " "), ("x.data", "\t"), ("x", "\t")):
        path = written(tmp_path / file, rows, parter)
        with pytest.raises(FileFormatError, match=r"Interactions\.read: .*delimiter=") as caught:
            Interactions.read(path)
        assert "column_names=[" in str(caught.value) or "user_column=" in str(caught.value)
        assert "format='adjacency'" in str(caught.value)
        assert "\n" not in str(caught.value)
        if name not in ("commas", "::"):  # whose lines are one token each
            asked = Interactions.read(path, format="adjacency")
            assert asked.num_rows == sum(len(row) - 1 for row in rows)


def test_empty_cells_are_those_of_a_table(tmp_path: Path) -> None:
    rows = [[1, 25, "", 5], [2, 30, 7, 6], [3, "", 8, 2]]
    path = written(tmp_path / "x.txt", rows, "\t")
    with pytest.raises(FileFormatError, match="may be a table: lines have empty cells between"):
        Interactions.read(path)
    path = written(tmp_path / "x.txt", [[1, 25, 7], [2, 30, ""], [3, 8, ""]], "\t")
    with pytest.raises(FileFormatError, match="empty cells"):
        Interactions.read(path)
    for text in ("1\t5 6 7\n2\t8 9\n", "1\t5\t6\t\n2\t8\t\n"):  # a tab after the user; after all
        path.write_text(text)
        assert Interactions.read(path).num_users == 2


def test_beside_another_adjacency_file_lines_may_have_one_length(tmp_path: Path) -> None:
    path = written(tmp_path / "test.txt", [[1, 5, 6], [2, 7, 8]])
    with pytest.raises(FileFormatError, match="every line has 3 fields"):
        read_adjacency(path, call="call", asked=False)
    assert len(read_adjacency(path, call="call", asked=False, beside=True).items) == 4
    for name in ("u.data", "weights", "a log"):
        path = written(tmp_path / "x.txt", tables(np.random.default_rng(2))[name], "\t")
        with pytest.raises(FileFormatError, match="may be a table"):
            read_adjacency(path, call="call", asked=False, beside=True)


def test_the_error_says_how_to_read_the_table(tmp_path: Path) -> None:
    path = written(tmp_path / "u.data", tables(np.random.default_rng(0))["u.data"], "\t")
    with pytest.raises(FileFormatError, match=r"delimiter='\\t' \(--delimiter tab\)"):
        Interactions.read(path)
    with pytest.raises(FileFormatError, match=r"has the suffix '\.data', which says no delimiter"):
        Interactions.read(path, column_names=["user", "item", "w", "t"])
    with pytest.raises(FileFormatError, match="may be a table"):
        Interactions.read(path, weight_column="rating")
    made = Interactions.read(
        path, delimiter="\t", column_names=["user", "item", "w", "t"], time_column="t"
    )
    assert made.num_rows == 600
    again = Interactions.read(path, format="tsv", column_names=["user", "item", "w", "t"])
    assert again.num_rows == 600


def test_missing_values_in_adjacency(tmp_path: Path) -> None:
    path = written(tmp_path / "x.txt", [[1, 2, "nan"], ["NULL", 3]])
    with pytest.raises(FastnegError, match="has 'nan' for an id, a missing value"):
        Interactions.from_adjacency(path)
    assert Interactions.from_adjacency(path, nulls=False).num_users == 2
    assert Interactions.read(path, format="adjacency", nulls=False).num_users == 2


def test_columns_are_not_named_in_adjacency(tmp_path: Path) -> None:
    path = written(tmp_path / "x.txt", [[1, 2, 3], [2, 3]])
    assert Interactions.read(path).num_rows == 3
    for named in ({"user_column": "u"}, {"format": "adjacency", "time_column": "t"}):
        with pytest.raises(FastnegError, match=r"x\.txt has no named columns \((user|time)_column"):
            Interactions.read(path, **named)
