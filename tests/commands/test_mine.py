"""``fastneg mine``: vectors of every kind in, ids out, bad input in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse

from fastneg.interactions import Interactions
from fastneg.mining.miner import mine_hard_negatives
from tests.commands.conftest import NUM_ITEMS, Runner, write_vectors

PARQUET = ("--queries", "q.parquet", "--items", "i.parquet", "--out", "mined.parquet")
ARRAYS = ("--queries", "q.npy", "--items", "i.npy", "--out", "mined.parquet")
WINDOW = ("--window", 3, 10, "--num-negatives", 4, "--seed", 5)


@pytest.fixture
def vectors(files: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of 30 queries u0.. and 24 items i0.., as Parquet and as .npy."""
    queries = write_vectors(files / "q.parquet", "u", 30)
    items = write_vectors(files / "i.parquet", "i", NUM_ITEMS)
    np.save(files / "q.npy", queries)
    np.save(files / "i.npy", items)
    return queries, items


def mined(path: str = "mined.parquet") -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table(path).to_pydict()
    return found


def test_it_writes_what_the_library_mines_in_ids(
    fastneg: Runner, vectors: tuple[np.ndarray, np.ndarray]
) -> None:
    ran = fastneg("mine", *PARQUET, *WINDOW, "--positives", "train.csv", "--metric", "cosine",
                  "--relative-margin", 0.05)  # fmt: skip
    assert ran.code == 0, ran.err
    train = Interactions.read("train.csv", user_ids=[f"u{i}" for i in range(30)],
                              item_ids=[f"i{i}" for i in range(NUM_ITEMS)])  # fmt: skip
    wanted = mine_hard_negatives(
        *vectors, positives=train, window=(3, 10), num_negatives=4, seed=5, metric="cosine",
        relative_margin=0.05, progress=False,
    )  # fmt: skip
    assert str(wanted.report.window_members) in ran.out
    table = mined()
    assert table["query"] == [f"u{i}" for i in range(30)]
    for row in range(30):
        found = wanted.items[row] >= 0
        assert table["items"][row] == [f"i{i}" for i in wanted.items[row][found]]
        assert table["ranks"][row] == wanted.ranks[row][found].tolist()
        np.testing.assert_array_equal(table["scores"][row], wanted.scores[row][found])
    report = json.loads(pq.read_schema("mined.parquet").metadata[b"fastneg"])
    assert report["window"] == [3, 10]
    assert report["short_rows"] == wanted.report.short_rows > 0


def test_no_positive_is_mined(fastneg: Runner, vectors: object) -> None:
    assert fastneg("mine", *PARQUET, *WINDOW, "--positives", "train.csv").code == 0
    known = set(zip(*pq_columns("train.csv"), strict=True))
    table = mined()
    for user, items in zip(table["query"], table["items"], strict=True):
        assert not {(user, item) for item in items} & known


def pq_columns(path: str) -> tuple[list[str], list[str]]:
    lines = Path(path).read_text().splitlines()[1:]
    return [line.split(",")[0] for line in lines], [line.split(",")[1] for line in lines]


def test_rows_are_ids_where_there_are_none(fastneg: Runner, vectors: object, files: Path) -> None:
    sparse.save_npz(files / "p.npz", sparse.random(30, NUM_ITEMS, 0.3, format="csr"))
    assert fastneg("mine", *ARRAYS, *WINDOW, "--positives", "p.npz", "--quiet") == (0, "", "")
    first = mined()
    assert first["query"] == list(range(30))
    matrix = sparse.load_npz(files / "p.npz").toarray()
    for user, items in zip(first["query"], first["items"], strict=True):
        assert (matrix[user, items] == 0).all()


def test_a_trained_folder_brings_its_ids(fastneg: Runner, files: Path) -> None:
    assert fastneg("train", "--train", "train.csv", "--recipe", "bpr", "--set", "epochs=1",
                   "--out", "out").code == 0  # fmt: skip
    ran = fastneg("mine", "--queries", "out", "--items", "out/item_vectors.npy", "--positives",
                  "train.csv", *WINDOW, "--out", "mined.parquet")  # fmt: skip
    assert ran.code == 0, ran.err
    table = mined()
    assert table["query"] == pq.read_table("out/users.parquet")["id"].to_pylist()
    assert {item for items in table["items"] for item in items} <= {f"i{i}" for i in range(24)}


def test_query_ids_may_repeat_and_positives_may_be_unknown(
    fastneg: Runner, vectors: object, files: Path
) -> None:
    table = pq.read_table("q.parquet")
    twice = table.set_column(0, "id", pa.array(["u1"] * 15 + ["x"] * 15))
    pq.write_table(twice, files / "twice.parquet")
    ran = fastneg("mine", "--queries", "twice.parquet", *PARQUET[2:], *WINDOW, "--positives",
                  "train.csv")  # fmt: skip
    assert ran.code == 0, ran.err
    known = {i for u, i in zip(*pq_columns("train.csv"), strict=True) if u == "u1"}
    found = mined()
    assert all(not set(items) & known for items in found["items"][:15])
    assert "positives of unknown queries: 252" in ran.out


def test_groups(fastneg: Runner, vectors: object, files: Path) -> None:
    for name, group in (("q", lambda i: "ab"[i % 2]), ("i", lambda i: "bc"[i % 2])):
        table = pq.read_table(f"{name}.parquet")
        column = pa.array([group(i) for i in range(len(table))])
        pq.write_table(table.append_column("g", column), files / f"{name}.parquet")
    groups = ("--query-group-column", "g", "--item-group-column", "g")
    assert fastneg("mine", *PARQUET, *WINDOW, *groups).code == 0
    found = mined()
    for query, items in zip(found["query"], found["items"], strict=True):
        odd = int(query[1:]) % 2  # group b; items of group b are even
        assert all(odd and int(item[1:]) % 2 == 0 for item in items)
    assert any(found["items"])


def test_a_window_beyond_the_catalog_is_said(fastneg: Runner, vectors: object) -> None:
    ran = fastneg("mine", *PARQUET, "--window", 101, 500, "--quiet")
    assert ran.code == 0
    assert ran.err == "warning: no query got a negative; is the window beyond the catalog?\n"
    assert mined()["items"] == [[]] * 30


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--window", 500, 101), "window = (500, 101) ends before it starts"),
        (("--window", 0, 5), "window[0] = 0 is too small"),
        (("--window", 5), "'--window' requires 2 arguments"),
        (("--num-negatives", 401), "num_negatives = 401 is more than the 400 ranks"),
        (("--metric", "l2"), "metric = 'l2' is not one of 'ip', 'cosine'"),
        (("--strategy", "best"), "strategy = 'best' is not one of"),
        (("--window", 1, 20, "--search", "faiss:Nonsense"), "search = 'faiss:Nonsense'"),
        (("--recall", 2), "recall = 2.0 is too large"),
        (("--memory", "nan"), "memory = nan is not finite"),
        (("--memory", 0), "memory = 0.0 GiB is not above 0"),
        (("--relative-margin", 0.1), "positives is None"),
        (("--min-score", 2, "--max-score", 1), "min_score = 2.0 is above max_score = 1.0"),
        (("--query-group-column", "id"), "query_groups is given without item_groups"),
        (("--query-vector-column", "x"), "q.parquet has no column 'x'; its columns are id, v"),
        (("--query-vector-column", "id"), "give a column of lists of numbers"),
        (("--items", "nowhere.npy"), "nowhere.npy cannot be read: no such file"),
        (("--items", "."), "the folder . holds .npy files (i.npy) and Parquet files (i.parquet)"),
        (("--items", "train.csv"), "train.csv has the suffix '.csv'"),
        (("--items", "q.npy", "--item-id-column", "id"), "q.npy has no columns"),
        (("--positives", "nowhere.csv"), "nowhere.csv cannot be read: no such file"),
        (("--positives", "items.csv", "--user-column", "tags"), "has no pair of a query of"),
        (("--out", "."), "mine_to_folder: . holds other files"),
        (("--out", "/proc/m.parquet"), "the output folder /proc cannot be written"),
        (("--out", "train.csv/m.parquet"), "the output folder train.csv cannot be written"),
    ],
)
def test_bad_arguments_end_in_one_line(
    refused: Callable[..., str], vectors: object, arguments: tuple[Any, ...], message: str
) -> None:
    assert message in refused("mine", *PARQUET, *arguments)


def test_bad_vectors_end_in_one_line(refused: Callable[..., str], files: Path) -> None:
    write_vectors(files / "q.parquet", "u", 30)
    np.save("q.npy", np.ones((30, 6)))

    def of_array(array: Any) -> str:
        np.save("i.npy", array, allow_pickle=array.dtype == object)
        return refused("mine", *ARRAYS)

    def of_table(table: Any) -> str:
        pq.write_table(table, "i.parquet")
        return refused("mine", *PARQUET)

    assert "q.npy has vectors of width 6, i.npy of width 7" in of_array(np.ones((5, 7)))
    vectors = np.ones((5, 6))
    for value in (np.nan, np.inf, 1e300):
        vectors[3, 2] = value
        assert f"i.npy[3, 2] = {value} is not a finite float32" in of_array(vectors)
    assert "has 1 dimensions; 2 expected" in of_array(np.ones(5))
    assert "i.npy holds no vectors" in of_array(np.ones((0, 6)))
    assert "i.npy (<U1, shape (1, 1)) is not numeric" in of_array(np.array([["a"]]))
    assert "i.npy is not a readable .npy" in of_array(np.array([[{}]], dtype=object))
    (files / "i.npy").write_bytes(b"\x93NUMPY\x01\x00garbage")
    assert "i.npy is not a readable .npy" in refused("mine", *ARRAYS)

    lists = [[1.0] * 6, [1.0] * 5]
    assert "v[1] has width 5, i.parquet: v[0] 6" in of_table(pa.table({"id": [1, 2], "v": lists}))
    assert "v[1] is null" in of_table(pa.table({"id": [1, 2], "v": [lists[0], None]}))
    assert "has 0 columns of lists" in of_table(pa.table({"id": [1, 2]}))
    repeated = pa.table({"id": [7, 7], "v": [lists[0]] * 2})
    assert "i.parquet: ids[1] = 7 occurs twice" in of_table(repeated)
    assert "i.parquet has no rows" in of_table(repeated.slice(0, 0))
    whole = (files / "q.parquet").read_bytes()
    (files / "i.parquet").write_bytes(whole[: len(whole) // 2])
    assert "i.parquet cannot be read" in refused("mine", *PARQUET)


def test_raw_ids_where_codes_are_due(
    refused: Callable[..., str], vectors: object, files: Path
) -> None:
    message = refused("mine", *ARRAYS, "--positives", "train.csv")
    assert "train.csv has no pair of a query of q.npy (rows 0..29)" in message
    assert "give the ids that the vectors have (row numbers, where they have none)" in message
    sparse.save_npz(files / "p.npz", sparse.eye(5, format="csr"))
    assert "p.npz holds codes" in refused("mine", *PARQUET, "--positives", "p.npz")


def test_nothing_is_left_behind_by_an_error(
    refused: Callable[..., str], vectors: object, files: Path
) -> None:
    before = sorted(path.name for path in files.iterdir())
    refused("mine", *PARQUET, "--window", 5, 1)
    assert sorted(path.name for path in files.iterdir()) == before
