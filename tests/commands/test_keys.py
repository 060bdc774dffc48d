"""Row numbers are never taken for ids where a column could be the key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

from fastneg.commands.vectors import VectorColumns, read_vectors
from fastneg.errors import FastnegError
from fastneg.mining.keys import IDS, NOTHING, ROWS, Keyed
from tests.commands.conftest import Runner

Refused = Callable[..., str]
N, WIDTH = 60, 8
MINE = ("--positives", "pairs.csv", "--window", "1-10", "--num-negatives", 10, "--strategy", "top",
        "--out", "mined.parquet")  # fmt: skip


def write(path: Path, vectors: np.ndarray, **columns: Any) -> None:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH)
    pq.write_table(pa.table({**columns, "v": lists}), path)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Users 1..60 and items 1..60 in shuffled rows; each user's one positive is at rank 1."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(N, WIDTH)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    users, items, places = rng.permutation(N) + 1, rng.permutation(N) + 1, rng.permutation(N)
    vectors = np.empty_like(queries)
    vectors[places] = queries  # row k's positive is in row places[k]
    np.save("users.npy", queries)
    np.save("items.npy", vectors)
    write(Path("users.parquet"), queries, user_id=users)
    write(Path("items.parquet"), vectors, item_id=items, kind=["a", "b"] * (N // 2))
    two = {"item_id": items, "title": [f"t{n}" for n in range(N)]}
    write(Path("two.parquet"), vectors, **two)
    write(Path("id_too.parquet"), vectors, id=np.arange(N), item_id=items)
    write(Path("id_and_title.parquet"), vectors, id=items, title=two["title"])
    write(Path("bare.parquet"), vectors)
    pairs = zip(users.tolist(), items[places].tolist(), strict=True)
    Path("pairs.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in pairs))
    rows = zip(range(N), places.tolist(), strict=True)
    Path("rows.csv").write_text("user,item\n" + "".join(f"{u},{i}\n" for u, i in rows))
    ones = scipy.sparse.csr_matrix((np.ones(N), (np.arange(N), places)), shape=(N, N))
    scipy.sparse.save_npz("pairs.npz", ones)
    return tmp_path


def own_positives(path: Path) -> int:
    """Queries that got their own positive as a negative."""
    mined = pq.read_table(path / "mined.parquet").to_pydict()
    lines = (path / "pairs.csv").read_text().splitlines()[1:]
    known = dict(tuple(map(int, line.split(","))) for line in lines)
    return sum(
        known[q] in items for q, items in zip(mined["query"], mined["items"], strict=True)
    )  # fmt: skip


def test_mine_takes_the_only_key_and_says_so(world: Path, fastneg: Runner) -> None:
    ran = fastneg("mine", "users.parquet", "items.parquet", *MINE)
    assert ran.code == 0, ran
    assert "users.parquet: ids are those of its column 'user_id' (--query-id-column)" in ran.out
    assert "items.parquet: ids are those of its column 'item_id' (--item-id-column)" in ran.out
    told = (
        "pairs.csv: 0 of 60 users are unknown to users.parquet, 0 of 60 items are unknown to items"
    )
    assert told in ran.out
    assert own_positives(world) == 0
    assert sorted(pq.read_table("mined.parquet")["query"].to_pylist()) == [*range(1, N + 1)]
    assert fastneg("mine", "users.parquet", "items.parquet", *MINE, "--quiet").out == ""


@pytest.mark.parametrize("items", ["two.parquet", "id_too.parquet"])
def test_several_that_could_be_the_key_are_refused(
    world: Path, refused: Refused, fastneg: Runner, items: str
) -> None:
    said = refused("mine", "users.parquet", items, *MINE)
    assert f"{items} has several columns that could be its ids ('i" in said
    assert "name the right one by --item-id-column" in said
    assert "--item-id-column" in refused(
        "diagnose", "--queries", "users.parquet", "--items", items, "--held-out", "pairs.csv"
    )
    assert "--item-id-column" in refused(
        "evaluate", "--user-vectors", "users.parquet", "--item-vectors", items, "--train",
        "pairs.csv", "--test", "pairs.csv",
    )  # fmt: skip
    assert fastneg("mine", "users.parquet", items, *MINE, "--item-id-column", "item_id").code == 0
    assert own_positives(world) == 0


def test_diagnose_and_evaluate_take_the_key(world: Path, fastneg: Runner) -> None:
    ran = fastneg("diagnose", "--queries", "users.parquet", "--items", "items.parquet",
                  "--held-out", "pairs.csv", "--window", "1-10")  # fmt: skip
    assert ran.code == 0, ran
    assert "ids are those of its column 'item_id'" in ran.out
    assert "pairs.csv: 0 of 60 users are unknown to users.parquet" in ran.out
    lines = Path("pairs.csv").read_text().splitlines()
    users, items = zip(*(line.split(",") for line in lines[1:]), strict=True)
    late = [lines[0], *map(",".join, zip(users, items[1:] + items[:1], strict=True))]
    Path("late.csv").write_text("\n".join(late) + "\n")
    ran = fastneg("evaluate", "--user-vectors", "users.parquet", "--item-vectors", "items.parquet",
                  "--train", "late.csv", "--test", "pairs.csv", "-k", 1)  # fmt: skip
    assert ran.code == 0, ran
    assert "users.parquet: ids are those of its column 'user_id' (--user-id-column)" in ran.out
    recall = next(line for line in ran.out.splitlines() if "recall@1 " in line)
    assert "1.0000" in recall


def test_vectors_without_ids_take_row_numbers_only(
    world: Path, fastneg: Runner, refused: Refused
) -> None:
    """Ids from 1 are no row numbers: the last one tells."""
    said = refused("mine", "users.npy", "items.npy", *MINE)
    assert "users.npy has no ids, and 1 of the 60 users of pairs.csv are not among its" in said
    assert "rows 0..59, such as 60; give vectors with their ids" in said
    assert "bare.parquet has no ids" in refused("mine", "users.parquet", "bare.parquet", *MINE)
    assert "users.npy has no ids" in refused(
        "diagnose", "--queries", "users.npy", "--items", "items.npy", "--held-out", "pairs.csv"
    )
    assert "without a vector in users.npy" in refused(
        "evaluate", "--user-vectors", "users.npy", "--item-vectors", "items.npy", "--train",
        "pairs.csv", "--test", "pairs.csv",
    )  # fmt: skip
    ran = fastneg("mine", "users.npy", "bare.parquet", "--positives", "rows.csv", *MINE[2:])
    assert ran.code == 0, ran
    for name in ("users.npy", "bare.parquet"):
        assert f"{name} has no ids: ids in the other file are used as its row numbers" in ran.out


def test_too_few_positives_that_the_vectors_know(world: Path, refused: Refused) -> None:
    rows = "".join(f"{u},{1 if u < 3 else u + 900}\n" for u in range(1, N + 1))
    Path("other.csv").write_text("user,item\n" + rows)
    said = refused("mine", "users.parquet", "items.parquet", "--positives", "other.csv", *MINE[2:])
    assert "other.csv shares 1 of its 59 items with the 60 of items.parquet, 1.69%" in said
    said = refused("diagnose", "--queries", "users.parquet", "--items", "items.parquet",
                   "--held-out", "other.csv")  # fmt: skip
    assert "less than --min-shared 0.1" in said


def keyed(met_with: str, *, repeats: bool = False) -> Keyed:
    return Keyed("--flag", met_with, repeats)


def test_a_matrix_speaks_of_rows(world: Path, fastneg: Runner) -> None:
    ran = fastneg("mine", "users.parquet", "items.parquet", "--positives", "pairs.npz", *MINE[2:])
    assert ran.code == 0, ran
    assert pq.read_table("mined.parquet")["query"].to_pylist() == [*range(N)]
    for name in ("items.parquet", "two.parquet", "bare.parquet", "items.npy"):
        found = read_vectors(world / name, side="item", keyed=keyed(ROWS))
        assert (found.ids, found.said) == (None, "")


def test_without_another_file(world: Path) -> None:
    found = read_vectors(world / "items.parquet", side="item", keyed=keyed(NOTHING))
    assert found.ids is not None
    assert "'item_id' (--flag)" in found.said
    found = read_vectors(world / "two.parquet", side="item", keyed=keyed(NOTHING))
    assert found.ids is None
    assert "row numbers are used as ids; --flag can name one of 'item_id', 'title'" in found.said
    assert read_vectors(world / "id_too.parquet", side="item").ids is not None


def test_what_could_be_a_key(tmp_path: Path) -> None:
    vectors = np.zeros((4, WIDTH), np.float32)
    cases: list[tuple[dict[str, Any], bool, str | None]] = [
        ({"asin": ["a", "b", "c", "d"], "price": [1.0, 2.0, 3.0, 4.0]}, False, "asin"),
        ({"uid": [1, 2, 3, 3], "sku": [4, 5, 6, 7]}, False, "sku"),  # the other one repeats
        ({"uid": [1, 2, 3, None], "sku": [4, 5, 6, 7]}, False, "sku"),  # or misses one
        ({"uid": [1, 2, 3, 3]}, True, "uid"),  # several queries of one user
        ({"uid": [1, 2, 3, 3]}, False, None),
        ({"__index_level_0__": [9, 8, 7, 6]}, False, "__index_level_0__"),
        ({"__index_level_0__": [9, 8, 7, 6], "item": [1, 2, 3, 4]}, False, "item"),
        ({"key": pa.array(["a", "b", "c", "d"]).dictionary_encode()}, False, "key"),
        ({"id": ["a", "b", "c", "d"], "title": ["q", "r", "s", "t"]}, False, "id"),
        ({"id": [0, 1, 2, 3], "parent_id": [5, 5, 5, 5]}, False, "id"),  # no key: it repeats
        ({"when": pa.array([1, 2, 3, 4], pa.timestamp("s"))}, False, None),
    ]
    for columns, repeats, key in cases:
        write(tmp_path / "it.parquet", vectors, **columns)
        found = read_vectors(
            tmp_path / "it.parquet", side="item", keyed=keyed(IDS, repeats=repeats)
        )
        expected = None if key is None else pa.array(columns[key]).to_pylist()
        assert (None if found.ids is None else found.ids.tolist()) == expected
        named = VectorColumns(id=key or next(iter(columns)))
        if key is not None:
            again = read_vectors(tmp_path / "it.parquet", named, side="item", keyed=keyed(IDS))
            assert again.said == ""
    for other in ("item", "ITEM_ID"):  # `id` may be a row number that a database has added
        write(tmp_path / "it.parquet", vectors, id=[0, 1, 2, 3], **{other: [1, 2, 3, 4]})
        with pytest.raises(FastnegError, match=rf"several .* \('id', '{other}'\).* --flag"):
            read_vectors(tmp_path / "it.parquet", side="item", keyed=keyed(IDS))
    write(tmp_path / "it.parquet", vectors, user_id=[1, 1, 2, 2], query_id=[1, 2, 3, 4])
    with pytest.raises(FastnegError, match=r"several .* \('user_id', 'query_id'\).* --flag"):
        read_vectors(tmp_path / "it.parquet", side="user", keyed=keyed(IDS, repeats=True))
