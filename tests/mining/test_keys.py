"""``mine_to_folder`` looks for the ids of Parquet vectors where the ids of others meet them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastneg
from fastneg import Interactions
from fastneg.errors import FastnegError

N, WIDTH = 60, 8


def _write(path: Path, vectors: np.ndarray, **columns: Any) -> Path:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH)
    pq.write_table(pa.table({**columns, "v": lists}), path)
    return path


class World:
    """Users and items with ids of their own; row k's own positive is the item of row k."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.folder = folder
        self.vectors = rng.normal(size=(N, WIDTH)).astype(np.float32)
        self.users, self.items = rng.permutation(N) + 1000, rng.permutation(N) + 5000
        self.titles = [f"t{k}" for k in range(N)]
        self.queries = self.write("users", user_id=self.users, kind=["a", "b"] * (N // 2))
        self.catalog = self.write("items", item_id=self.items)
        self.seen = Interactions.from_pairs(
            self.users, self.items, user_ids=self.users, item_ids=self.items
        )

    def write(self, name: str, **columns: Any) -> Path:
        return _write(self.folder / f"{name}.parquet", self.vectors, **columns)

    def mine(self, queries: Any = None, items: Any = None, **arguments: Any) -> Any:
        return fastneg.mine_to_folder(
            self.queries if queries is None else queries,
            self.catalog if items is None else items, self.folder / "mined",
            window=(1, 10), num_negatives=10, strategy="top", progress=False, resume=False,
            **arguments,
        )  # fmt: skip


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def _ids(mined: Any) -> tuple[list[Any], set[Any]]:
    """The queries and the items that a folder names."""
    table = pa.concat_tables(
        [pq.read_table(part) for part in sorted(mined.folder.glob("part-*.parquet"))]
    )
    rows = table.to_pydict()
    return rows["query"], {item for row in rows["items"] for item in row}


def test_the_only_column_that_could_be_the_ids_is_taken_and_named(world: World) -> None:
    with pytest.warns(UserWarning, match="mine_to_folder: .*ids are those of its column") as said:
        mined = world.mine(positives=world.seen)
    texts = sorted(str(one.message).rpartition(": ")[2] for one in said)
    assert [text.partition("column ")[2] for text in texts] == [
        "'item_id' (item_id_column)",
        "'user_id' (query_id_column)",
    ]
    assert {Path(one.filename).name for one in said} == {"test_keys.py"}
    queries, items = _ids(mined)
    assert queries == world.users.tolist()
    assert items <= set(world.items.tolist())
    own = dict(zip(world.users.tolist(), world.items.tolist(), strict=True))
    table = pq.read_table(world.folder / "mined" / "part-00000.parquet")
    for query, found in zip(*map(pa.ChunkedArray.to_pylist, table.columns[:2]), strict=True):
        assert own[query] not in found


def test_ids_of_texts_meet_integers(world: World) -> None:
    seen = Interactions.from_pairs(
        world.users.astype(str), world.items.astype(str), user_ids=world.users.astype(str),
        item_ids=world.items.astype(str),
    )  # fmt: skip
    with pytest.warns(UserWarning, match="item_id"):
        queries, _ = _ids(world.mine(positives=seen))
    assert queries == world.users.tolist()


def test_positives_in_another_order_are_refused(world: World) -> None:
    other = Interactions.from_pairs(world.users[::-1], world.items[::-1])
    with (
        pytest.warns(UserWarning, match="item_id"),
        pytest.raises(FastnegError, match=r"item_ids\[0\] = .* and code 0 of positives is"),
    ):
        world.mine(positives=other)


def test_several_that_could_be_the_ids_are_refused(world: World) -> None:
    two = world.write("two", item_id=world.items, title=world.titles)
    with (
        pytest.warns(UserWarning, match="user_id"),
        pytest.raises(FastnegError, match=r"^mine_to_folder: .*two\.parquet has several columns "
                      r"that could be its ids \('item_id', 'title'\); .* by item_id_column$"),
    ):  # fmt: skip
        world.mine(items=two, positives=world.seen)
    mined = world.mine(
        items=two, positives=world.seen, item_id_column="item_id", query_id_column="user_id"
    )
    assert _ids(mined)[1] <= set(world.items.tolist())
    given = world.mine(items=two, positives=world.seen, item_ids=world.items, query_ids=world.users)
    assert _ids(given) == _ids(mined)


def test_the_column_id_is_taken_without_a_word(world: World) -> None:
    queries, items = world.write("q", id=world.users), world.write("i", id=world.items)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mined = world.mine(queries, items, positives=world.seen)
    assert _ids(mined)[0] == world.users.tolist()


def test_row_numbers_where_nothing_has_ids(world: World) -> None:
    codes = Interactions.from_codes(np.arange(N), np.arange(N))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for arguments in (
            {},
            {"positives": codes},
            {"positives": (np.arange(N + 1), np.arange(N))},
        ):
            assert _ids(world.mine(**arguments))[0] == list(range(N))
        bare = world.write("bare")
        mined = world.mine(bare, bare, positives=world.seen)  # no column that could be the ids
    assert _ids(mined)[0] == list(range(N))


def test_ids_of_one_side_make_those_of_the_other_wanted(world: World) -> None:
    queries = world.write("q", user_id=world.users)
    with pytest.warns(UserWarning, match="column 'user_id'"):
        assert _ids(world.mine(queries, item_ids=world.items))[0] == world.users.tolist()
    with pytest.warns(UserWarning, match="column 'item_id'"):
        mined = world.mine(query_id_column="user_id")
    assert _ids(mined)[1] <= set(world.items.tolist())
    with pytest.warns(
        UserWarning, match="row numbers are used as ids; query_id_column can name one"
    ):
        mined = world.mine(item_ids=world.items)  # the kinds could be those of queries that repeat
    assert _ids(mined)[0] == list(range(N))


def test_named_columns_that_cannot_be(world: World) -> None:
    for arguments, words in (
        ({"item_ids": world.items, "item_id_column": "item_id"}, "are both given; give one"),
        ({"items": world.vectors, "item_id_column": "item_id"}, "the vectors are no Parquet file"),
        ({"item_id_column": "sku", "query_id_column": "user_id"}, "has no column 'sku'"),
    ):
        with pytest.raises(FastnegError, match=f"^mine_to_folder: .*{words}"):
            world.mine(**arguments)
