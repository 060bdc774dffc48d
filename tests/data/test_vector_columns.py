"""Lists of numbers are vectors: read from every form, standardised, refused where they are none."""

from __future__ import annotations

import decimal
import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastneg.data import vector_columns
from fastneg.data.features import FeatureTable
from fastneg.data.vector_columns import standardised
from fastneg.errors import FastnegError, FastnegTypeError

NUMBERS = np.array([[1.0, 2.0, 8.0], [3.0, 2.0, -4.0], [5.0, 2.0, 2.0]], np.float32)
IDS = [7, 8, 9]


def fixed(values: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def forms(values: np.ndarray) -> dict[str, Any]:
    tensor = pa.fixed_shape_tensor(pa.float32(), [3])
    lists = values.tolist()
    return {
        "lists": lists,
        "list": pa.array(lists, pa.list_(pa.float32())),
        "large list": pa.array(lists, pa.large_list(pa.float64())),
        "fixed": fixed(values),
        "fixed integers": fixed(values.astype(np.int8)),
        "halves": fixed(values.astype(np.float16)),
        "tensor": pa.ExtensionArray.from_storage(tensor, fixed(values)),
        "list view": pa.array(lists, pa.list_view(pa.float32())),
        "decimals": [[decimal.Decimal(int(x)) for x in row] for row in lists],
        "chunked": pa.chunked_array([fixed(values[:1]), fixed(values[1:])]),
        "sliced": fixed(np.concatenate([values[:1], values])).slice(1),
        "matrix": values,
        "torch": torch.from_numpy(values).bfloat16(),
        "object": np.array([*(np.array(row) for row in values), None], object)[:3],
        "polars": pl.Series(lists),
        "polars array": pl.Series(lists, dtype=pl.Array(pl.Float32, 3)),
    }


@pytest.mark.parametrize("form", forms(NUMBERS))
def test_every_form_of_a_vector(form: str) -> None:
    table = FeatureTable.from_table({"id": IDS, "emb": forms(NUMBERS)[form]}, ids=[9, 5, 8, 7])
    assert table.kinds == {"emb": "vector"}
    column = table.vectors["emb"]
    assert (column.values.dtype, column.values.shape) == (np.float32, (4, 3))
    mean, deviation = NUMBERS.mean(0), NUMBERS.std(0)
    wanted = np.zeros((4, 3))
    for row, entry in ((0, 2), (2, 1), (3, 0)):
        wanted[row] = (NUMBERS[entry] - mean) / np.where(deviation == 0, 1, deviation)
    assert np.allclose(column.values, wanted, atol=1e-6)
    assert column.mean.tolist() == pytest.approx(mean.tolist())
    assert column.deviation[1] == 1.0  # the same for all: 0 everywhere


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"items.{suffix}"
    if suffix == "parquet":
        pq.write_table(
            pa.table({"id": IDS, "emb": fixed(NUMBERS).cast(pa.list_(pa.float32()))}), path
        )
        table = FeatureTable.from_table(path, ids=IDS)
    else:
        path.write_text('id;emb\n7;[1.0, 2, 8]\n8;"3 2 -4"\n9; 5|2|2.0\n')
        table = FeatureTable.from_table(path, ids=IDS, delimiter=";", columns={"emb": "vector"})
    expected = FeatureTable.from_table({"id": IDS, "emb": NUMBERS}, ids=IDS)
    assert np.array_equal(table.vectors["emb"].values, expected.vectors["emb"].values)


def test_lists_of_categories_stay_sets() -> None:
    table = FeatureTable.from_rows(
        {"words": [["a"], ["b", "a"]], "codes": [[1], [2, 1]], "same": [[1, 2], [2, 3]]}
    )
    assert table.kinds == dict.fromkeys(("words", "codes", "same"), "multi")
    views = pa.array([["a"], None, ["b", "a"]], pa.list_view(pa.string()))
    column = FeatureTable.from_rows({"words": views.slice(1)}).multi["words"]
    assert (column.indptr.tolist(), column.codes.tolist()) == ([0, 0, 2], [0, 1])
    given = FeatureTable.from_rows(
        {"codes": [[1, 0], [2, 1]], "floats": [[1.0], [2.0, 1.0]]},
        columns={"codes": "vector", "floats": "multi"},
    )
    assert given.kinds == {"codes": "vector", "floats": "multi"}


def test_missing_vectors_are_zeros_and_no_part_of_the_scale() -> None:
    rows = [None, [1.0, 5.0], [], [3.0, 5.0]]
    column = FeatureTable.from_rows({"emb": rows}).vectors["emb"]
    assert column.values.tolist() == [[0, 0], [-1, 0], [0, 0], [1, 0]]
    assert (
        FeatureTable.from_rows({"emb": pa.array(rows, pa.list_(pa.float32()))})
        .vectors["emb"]
        .values.tolist()
        == column.values.tolist()
    )
    holed = pa.array([[1.0, 5.0], None, [3.0, 5.0]], pa.list_(pa.float32(), 2))
    assert FeatureTable.from_rows({"emb": holed}).vectors["emb"].values[:, 0].tolist() == [-1, 0, 1]
    empty = FeatureTable.from_rows({"emb": pa.array([None, []], pa.list_(pa.float32()))})
    assert empty.vectors["emb"].values.shape == (2, 0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[1.0, 2.0], [1.0, 2.0], [1.0]], "id 7 (row 0) has 2 numbers, id 9 (row 2) has 1;"),
        ([[1.0, 2.0], [1.0, None], [1.0, 3.0]], "id 8 (row 1) has a null at [1]"),
        ([[1.0, 2.0], [1.0, 2.0], [np.nan, 1.0]], "id 9 (row 2) has nan at [0]"),
        ([[1.0, 2.0], [np.inf, 2.0], [0.0, 1.0]], "id 8 (row 1) has inf at [0]"),
        ([[1e308, 2.0], [-1e308, 2.0], [1e308, 1.0]], "values up to 1e+308, too large to stand"),
    ],
)
def test_what_is_no_column_of_vectors(values: list[Any], message: str) -> None:
    with pytest.raises(FastnegError, match=re.escape(message)) as caught:
        FeatureTable.from_table({"id": IDS, "emb": values}, ids=IDS)
    assert str(caught.value).startswith("FeatureTable.from_table: column 'emb': ")


def test_text_that_is_no_vector_is_refused() -> None:
    with pytest.raises(FastnegTypeError, match=r"column 'emb' \(string\) cannot be vector"):
        FeatureTable.from_rows({"emb": ["1 2", "1 x"]}, columns={"emb": "vector"})


def test_like_takes_the_scale_of_the_trained_table_and_its_width() -> None:
    old = FeatureTable.from_table({"id": IDS, "emb": NUMBERS}, ids=IDS)
    stored = FeatureTable.from_state(*old.state())
    for like in (old, stored):
        new = FeatureTable.from_table({"id": [1], "emb": [[5.0, 9.0, 2.0]]}, ids=[1], like=like)
        assert new.vectors["emb"].values[0].tolist() == pytest.approx(
            [old.vectors["emb"].values[2, 0], 7.0, 0.0], abs=1e-6
        )
        with pytest.raises(FastnegError, match="column 'emb': has vectors of width 2; 3 expected"):
            FeatureTable.from_table({"id": [1], "emb": [[5.0, 9.0]]}, ids=[1], like=like)
        unknown = FeatureTable.from_table({"id": [1], "emb": [None]}, ids=[1], like=like)
        assert unknown.vectors["emb"].values.tolist() == [[0, 0, 0]]
    part = old.select([2, 0])
    assert part.vectors["emb"].values.tolist() == old.vectors["emb"].values[[2, 0]].tolist()
    assert np.array_equal(stored.vectors["emb"].values, old.vectors["emb"].values)
    assert stored.columns() == old.columns() == [("emb", "vector", 3)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("values", np.zeros((2, 3))), ("mean", np.zeros(2)), ("deviation", np.full(3, np.nan))],
)
def test_a_damaged_state(name: str, value: np.ndarray) -> None:
    arrays, facts = FeatureTable.from_rows({"emb": NUMBERS}).state()
    with pytest.raises(FastnegError, match="the state is damaged"):
        FeatureTable.from_state({**arrays, f"vectors/emb/{name}": value}, facts)


@given(st.integers(0, 40), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_blocks_change_nothing(count: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(3, 2, (count, width)).astype(np.float32)
    rows = rng.permutation(50)[:count]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_columns, "_BLOCK", 7)
        found = standardised(numbers, rows, 50)
    wanted = np.zeros((50, width))
    if count:
        exact = numbers.astype(np.float64)
        deviation = exact.std(0)
        deviation[deviation <= 1e-12 * np.abs(exact.mean(0))] = 1
        wanted[rows] = (exact - exact.mean(0)) / deviation
    assert np.allclose(found.values, wanted, atol=1e-6)
