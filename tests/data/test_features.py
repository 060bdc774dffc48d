from __future__ import annotations

import doctest
import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastneg.data import features
from fastneg.data.features import FeatureTable, read_ids
from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError

FILMS = {
    "id": ["b", "x", "a"],
    "year": [2000, 1950, None],
    "kind": ["short", "long", ""],
    "genres": [["war", "war", None], ["love"], None],
    "seen": [True, False, None],
}
IDS = ["a", "b", "c"]


def assert_films(table: FeatureTable) -> None:
    assert (table.num_rows, table.num_described) == (3, 2)
    assert table.numeric["year"].tolist() == [0, 0, 0]
    assert table.scales["year"] == (2000, 1)  # of the one row that has an id and a value
    assert table.categorical["kind"].codes.tolist() == [-1, 0, -1]
    assert table.categorical["kind"].categories == ("short",)
    assert table.categorical["seen"].codes.tolist() == [-1, 0, -1]
    assert table.multi["genres"].indptr.tolist() == [0, 0, 1, 1]
    assert table.multi["genres"].codes.tolist() == [0]
    assert table.multi["genres"].categories == ("war",)


@pytest.mark.parametrize("kind", ["mapping", "arrow", "polars", "pandas", "parquet"])
def test_tables_of_every_kind(tmp_path: Path, kind: str) -> None:
    arrow = pa.table(FILMS)
    source = {
        "mapping": FILMS,
        "arrow": arrow,
        "polars": pl.from_arrow(arrow),
        "pandas": pd.DataFrame(FILMS).convert_dtypes(),
        "parquet": tmp_path / "f.parquet",
    }[kind]
    if kind == "parquet":
        pa.parquet.write_table(arrow, source)
    assert_films(FeatureTable.from_table(source, ids=IDS, id_column="id"))


def test_text_files_need_kinds_only_where_types_mislead(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("film,year,zip,genres\n07,1990,501,war| love |war\n7,,502,\n8,2000,501,love\n")
    table = FeatureTable.from_table(
        path,
        ids=["07", "8", "7"],
        id_column="film",
        columns={"zip": "categorical", "genres": "multi"},
    )
    assert table.numeric["year"].tolist() == [-1, 1, 0]
    assert table.scales["year"] == (1995, 5)
    assert table.categorical["zip"].codes.tolist() == [0, 0, 1]
    assert table.multi["genres"].indptr.tolist() == [0, 2, 3, 3]
    assert table.multi["genres"].codes.tolist() == [0, 1, 0]
    assert table.multi["genres"].categories == ("love", "war")
    assert read_ids(path, id_column="film").tolist() == ["07", "7", "8"]
    ignored = FeatureTable.from_table(
        path, ids=["8"], id_column="film", columns={"zip": "ignore", "genres": "ignore"}
    )
    assert repr(ignored) == "FeatureTable(1 rows, {'year': 'numeric'})"


def test_integer_ids_meet_their_texts() -> None:
    table = FeatureTable.from_table({"id": ["2", "1"], "n": [4.0, 2.0]}, ids=np.array([1, 2]))
    assert table.numeric["n"].tolist() == [-1, 1]


def test_dates_and_constants() -> None:
    source = {
        "id": [1, 2],
        "day": [date(2020, 1, 1), date(2020, 1, 3)],
        "same": [0.1, 0.1],
        "nothing": [None, None],
    }
    table = FeatureTable.from_table(source, ids=[1, 2])
    assert table.numeric["day"].tolist() == [-1, 1]
    assert table.numeric["same"].tolist() == [0, 0]
    assert sorted(table.numeric) == ["day", "same"]


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)), min_size=1, max_size=30))
def test_numeric_columns_are_standardised(values: list[float | None]) -> None:
    ids = list(range(len(values)))
    table = FeatureTable.from_table({"id": ids, "n": values, "one": [1.0] * len(ids)}, ids=ids)
    present = np.array([value for value in values if value is not None])
    if not present.size:
        assert "n" not in table.numeric
        return
    made = table.numeric["n"]
    assert made.dtype == np.float32
    mean, deviation = table.scales["n"]
    for value, standard in zip(values, made, strict=True):
        if value is None:
            assert standard == 0
        else:
            assert standard == pytest.approx((value - mean) / deviation, rel=1e-5, abs=1e-5)
    spread = present.std() > 1e-12 * abs(present.mean())
    assert (mean, deviation) == (present.mean(), present.std() if spread else 1.0)


@given(
    st.lists(
        st.lists(st.sampled_from(["p", "q", "r", " ", "ü"]), max_size=5), min_size=1, max_size=12
    ),
    st.randoms(),
)
def test_sets_of_categories_equal_python_sets(rows: list[list[str]], random: object) -> None:
    ids = list(range(len(rows)))
    shuffled = ids.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    column = pa.array([rows[one] for one in shuffled], pa.list_(pa.string()))
    table = FeatureTable.from_table({"id": shuffled, "set": column}, ids=ids)
    made = table.multi["set"]
    for one in ids:
        own = [made.categories[c] for c in made.codes[made.indptr[one] : made.indptr[one + 1]]]
        assert own == sorted(set(rows[one]) - {" "})
    assert made.num_categories == len({x for row in rows for x in row} - {" "})


@pytest.mark.parametrize(("table", "options", "message"), [
    ({"id": ["a", "b"], "age": [3, np.nan]}, {},
     r"column 'age' of id b \(row 1\) is nan; give finite numbers, and null where"),
    ({"id": ["q", "a"], "age": [-np.inf, 1]}, {}, r"column 'age' of id q \(row 0\) is -inf"),
    ({"id": ["a", "b", "a"], "age": [1, 2, 3]}, {}, r"id\[2\] = 'a' occurs twice"),
    ({"id": ["a", None], "age": [1, 2]}, {}, r"id\[1\] is null"),
    ({"key": ["a"], "age": [1]}, {}, "has no column 'id'; its columns are key, age"),
    ({"id": ["a"], "age": [1]}, {"columns": {"size": "numeric"}}, "has no column 'size'"),
    ({"id": ["a"], "age": [1]}, {"columns": {"age": "number"}},
     r"columns\['age'\] = 'number' is not one of 'categorical', 'multi'"),
    ({"id": ["a"], "age": ["old"]}, {"columns": {"age": "numeric"}},
     "column 'age' .* cannot be numeric: .*old"),
    ({"id": ["a", "b"], "age": [1, "x"]}, {}, "column 'age' mixes types or cannot be read"),
    ({"id": ["a", "b"], "age": [1e308, -1e308]}, {}, "column 'age' has values up to 1e.308, too"),
    ({"id": ["a"], "thing": [{"x": 1}]}, {}, "column 'thing' .* cannot be categorical"),
    ({"id": ["a"], "age": [1, 2]}, {}, "lengths differ"),
])  # fmt: skip
def test_bad_tables(table: dict[str, list], options: dict[str, object], message: str) -> None:
    if "age" in table and any(isinstance(value, float) for value in table["age"]):
        table = {**table, "age": np.array(table["age"], float)}
    with pytest.raises(FastnegError, match=f"FeatureTable.from_table: .*{message}") as caught:
        FeatureTable.from_table(table, ids=["a", "b"], **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_nan_in_a_file_and_in_a_frame(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("id,n\n1,nan\n2,1\n")
    for source in (tmp_path / "f.csv", pd.DataFrame({"id": [1, 2], "n": [np.nan, 1]})):
        with pytest.raises(FastnegError, match=r"column 'n' of id 1 \(row 0\) is nan"):
            FeatureTable.from_table(source, ids=[1, 2])
    (tmp_path / "f.csv").write_text("id,n\n,1\n")
    with pytest.raises(FastnegError, match=r"f.csv: id\[0\] is empty"):
        FeatureTable.from_table(tmp_path / "f.csv", ids=[1, 2])


def test_state_survives_json() -> None:
    table = FeatureTable.from_table(FILMS, ids=IDS)
    arrays, facts = table.state()
    again = FeatureTable.from_state(arrays, json.loads(json.dumps(facts)))
    assert_films(again)
    assert sorted(arrays) == [
        "categorical/kind",
        "categorical/seen",
        "multi/genres/codes",
        "multi/genres/indptr",
        "numeric/year",
    ]
    with pytest.raises(ValueError, match="read-only"):
        again.numeric["year"][0] = 1
    for name, array in (
        ("categorical/kind", np.array([0, 0, 1])),
        ("categorical/kind", np.array([0, 0])),
        ("multi/genres/indptr", np.array([0, 1])),
        ("multi/genres/codes", np.array([-1])),
        ("numeric/year", np.array([0, np.nan, 0])),
        ("numeric/year", np.zeros(2)),
    ):
        with pytest.raises(FileFormatError, match="the state is damaged"):
            FeatureTable.from_state({**arrays, name: array}, facts)
    del arrays["numeric/year"]
    with pytest.raises(FileFormatError, match="the state is damaged"):
        FeatureTable.from_state(arrays, facts)


def test_read_ids(tmp_path: Path) -> None:
    assert read_ids({"id": [3, 1]}).tolist() == [3, 1]
    with pytest.raises(FastnegError, match=r"read_ids: the mapping: id\[1\] = 3 occurs twice"):
        read_ids({"id": [3, 3]})
    with pytest.raises(FastnegTypeError, match="of type double"):
        read_ids({"id": [3.5]})


def test_the_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(features)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_a_new_table_is_encoded_like_another() -> None:
    old = FeatureTable.from_table(
        {**FILMS, "title": ["The War", "Love", None]}, ids=IDS, columns={"title": "text"}
    )
    new = {
        "id": [5, 6, 7],
        "year": [2010, None, 1990],
        "kind": ["long", "short", None],
        "genres": [["war", "space"], ["space"], None],
        "seen": [None, None, None],
        "title": ["WAR of Love", None, "the end"],
        "more": [1, 2, 3],
    }
    table = FeatureTable.from_table(new, ids=[7, 6, 5], like=old)
    assert table.numeric["year"].tolist() == [-10, 0, 10]
    assert table.scales == old.scales
    assert table.categorical["kind"].codes.tolist() == [-1, 0, -1]
    assert table.categorical["kind"].categories == old.categorical["kind"].categories
    assert table.categorical["seen"].codes.tolist() == [-1, -1, -1]
    assert (table.multi["genres"].indptr.tolist(), table.multi["genres"].codes.tolist()) == (
        [0, 0, 0, 1], [0],
    )  # fmt: skip
    assert old.multi["title"].categories == ("the", "war")
    assert table.multi["title"].indptr.tolist() == [0, 1, 1, 2]
    assert table.multi["title"].codes.tolist() == [0, 1]
    assert "more" not in repr(table)
    stored = FeatureTable.from_state(*old.state())
    again = FeatureTable.from_table(new, ids=[7, 6, 5], like=stored)
    assert json.dumps(again.state()[1]) == json.dumps(table.state()[1])
    del new["kind"]
    with pytest.raises(FastnegError, match="no column 'kind'"):
        FeatureTable.from_table(new, ids=[7], like=old)
    with pytest.raises(FastnegError, match="like= says their kinds"):
        FeatureTable.from_table(FILMS, ids=IDS, like=old, columns={"year": "numeric"})
    nameless = FeatureTable(1, categorical={"c": features.CategoricalColumn(np.array([0]), 2)})
    with pytest.raises(FastnegError, match="column 'c' of like= has no names"):
        FeatureTable.from_rows({"c": ["a"]}, like=nameless)


def test_rows_and_their_selection() -> None:
    table = FeatureTable.from_rows(
        {"n": [1, 3, 5], "c": ["b", "a", None], "m": [["x", "y"], [], ["y"]]}
    )
    assert table.numeric["n"].tolist() == pytest.approx([-1.2247449, 0, 1.2247449])
    part = table.select([2, 0, 2])
    assert part.numeric["n"].tolist() == table.numeric["n"][[2, 0, 2]].tolist()
    assert part.categorical["c"].codes.tolist() == [-1, 1, -1]
    assert part.multi["m"].indptr.tolist() == [0, 1, 3, 4]
    assert part.multi["m"].codes.tolist() == [1, 0, 1, 1]
    empty = FeatureTable.from_state(*table.select([]).state())
    assert empty.num_rows == 0
    assert FeatureTable.from_rows({"n": [3], "c": ["a"], "m": [["z", "y"]]}, like=empty).multi[
        "m"
    ].codes.tolist() == [1]
    with pytest.raises(FastnegError, match=r"rows\[0\] = 3"):
        table.select([3])
