from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from fastneg.columns import (
    normalise_ids,
    normalise_times,
    normalise_weights,
    plain_column,
    to_arrow,
)
from fastneg.errors import FastnegError, FastnegTypeError


def ids(values: object) -> list[object]:
    made = normalise_ids(values, call="call", name="ids")
    if isinstance(made, np.ndarray):
        assert made.dtype == np.int64
        return made.tolist()
    assert made.type == pa.large_string()
    return made.to_pylist()


@pytest.mark.parametrize("values", [
    ["a", "b", "a"],
    np.array(["a", "b", "a"]),
    np.array([b"a", b"b", b"a"]),
    [b"a", b"b", b"a"],
    pa.array(["a", "b", "a"], pa.string_view()),
    pa.array([b"a", b"b", b"a"], pa.binary(1)),
    pa.array(["a", "b", "a"]).dictionary_encode(),
    pa.chunked_array([pa.array(part).dictionary_encode() for part in (["a", "b"], ["a"])]),
    pd.Series(["a", "b", "a"], dtype="category"),
    pl.Series(["a", "b", "a"], dtype=pl.Categorical),
    (letter for letter in "aba"),
])  # fmt: skip
def test_texts_of_every_kind(values: object) -> None:
    assert ids(values) == ["a", "b", "a"]


@pytest.mark.parametrize("values", [
    [3, -1], (3, -1), np.array([3, -1], np.int8), np.array([3, 0, -1])[::2], pa.array([3, -1]),
    pd.Series([3, -1], dtype="Int64"), pl.Series([3, -1]), {3: "x", -1: "y"},
])  # fmt: skip
def test_integers_of_every_kind(values: object) -> None:
    assert ids(values) == [3, -1]


def test_uuids_become_texts() -> None:
    made = [uuid.UUID(int=number) for number in (1, 2)]
    assert ids(made) == [str(one) for one in made]
    assert ids([]) == []


@pytest.mark.parametrize(("values", "message"), [
    ([1, "a"], r"ids mixes types: ids\[0\] = 1 is int, ids\[1\] = 'a' is str"),
    (["a", 1], r"ids mixes types: ids\[0\] = 'a' is str, ids\[1\] = 1 is int"),
    ([(1, 2), "a"], "mixes types"),
    ([object()], "cannot be an id"),
    ([1, 2.5], "ids is of type double"),
    (np.array(["2020-01-01"], "datetime64[D]"), "ids is of type date32"),
    (np.array([[1]]), "has 2 dimensions; 1 expected"),
    (None, "ids is of type NoneType; give a sequence"),
])  # fmt: skip
def test_ids_of_a_wrong_type(values: object, message: str) -> None:
    with pytest.raises(FastnegError, match=f"call: .*{message}") as caught:
        ids(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("values", "message"), [
    ([4, None, None], r"ids\[1\] is null \(2 of 3 are\)"),
    (pd.Series([None, "a"], dtype="category"), r"ids\[0\] is null"),
    (pl.Series([1, None]), r"ids\[1\] is null"),
    ([b"\xff"], "give integers of 64 bits or UTF-8"),
])  # fmt: skip
def test_ids_with_a_wrong_value(values: object, message: str) -> None:
    with pytest.raises(FastnegError, match=message):
        ids(values)


def test_weights() -> None:
    for values in ([1, 0, -2], np.array([1, 0, -2]), pl.Series([1.0, 0, -2]), pa.array([1, 0, -2])):
        made = normalise_weights(values, call="call")
        assert made.dtype == np.float32
        assert made.tolist() == [1, 0, -2]
    assert normalise_weights([True, False], call="call").tolist() == [1, 0]
    with pytest.raises(FastnegError, match=r"weights\[1\] = 1e\+300 is beyond float32"):
        normalise_weights([0, 1e300], call="call")
    with pytest.raises(FastnegTypeError, match="weights is not a column of numbers"):
        normalise_weights([0, "a"], call="call")


def test_times() -> None:
    assert normalise_times([3, 1], call="call").dtype == np.int64
    assert normalise_times([3, 1.5], call="call").tolist() == [3, 1.5]
    assert normalise_times(pa.array([1], pa.date32()), call="call").tolist() == [86_400 * 10**9]
    with pytest.raises(FastnegError, match="would result in out of bounds timestamp"):
        normalise_times(np.array(["3000-01-01"], "datetime64[s]"), call="call")
    with pytest.raises(FastnegTypeError, match="times is of type duration"):
        normalise_times(np.array([1], "timedelta64[s]"), call="call")


def test_plain_columns() -> None:
    empty = pa.chunked_array([], pa.dictionary(pa.int32(), pa.string()))
    assert len(plain_column(empty)) == 0
    column = pa.array([1, 2])
    assert plain_column(column) is column


@pytest.mark.parametrize("dtype", [">i8", ">i4", ">u2", ">f8", ">f4", "f2", "g", ">M8[s]", ">U3"])
def test_dtypes_that_arrow_lacks(dtype: str) -> None:
    plain = np.array([1, 2, 3])
    values = plain.astype(dtype)
    if dtype.startswith(">U"):
        assert to_arrow(values, "call", "x").to_pylist() == ["1", "2", "3"]
    elif "M8" in dtype:
        made = normalise_times(values, call="call")
        assert made.tolist() == [10**9, 2 * 10**9, 3 * 10**9]
    else:
        assert normalise_weights(values, call="call").tolist() == [1, 2, 3]
        assert normalise_times(values, call="call").tolist() == [1, 2, 3]
    if "i" in dtype or "u" in dtype:
        assert ids(values) == plain.tolist()


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "10m"])
def test_every_unit_of_time(unit: str) -> None:
    values = np.array(["1999-12-31", "2024-02-29"], "M8[D]").astype(f"M8[{unit}]")
    made = normalise_times(values, call="call")
    assert made.tolist() == values.astype("M8[ns]").astype(np.int64).tolist()
    with pytest.raises(FastnegError, match=r"times\[1\] is null"):
        normalise_times(np.array(["2024", "NaT"], f"M8[{unit}]"), call="call")


def test_times_that_no_unit_holds() -> None:
    for year in (3_000_000_000, 10**12):
        with pytest.raises(FastnegError, match="times"):
            normalise_times(np.array([0, year]).astype("M8[Y]"), call="call")
    with pytest.raises(FastnegTypeError, match="has no unit of time"):
        normalise_times(np.array([1]).astype("M8"), call="call")


def test_values_under_a_mask_are_missing() -> None:
    masked = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    for read in (normalise_weights, normalise_times):
        with pytest.raises(FastnegError, match=r"\[1\] is null"):
            read(masked, call="call")
    with pytest.raises(FastnegError, match=r"ids\[1\] is null"):
        ids(masked)


def test_bfloat16_tensors_are_read_and_others_refused() -> None:
    made = normalise_weights(torch.tensor([1.5, 2], dtype=torch.bfloat16), call="call")
    assert made.tolist() == [1.5, 2]
    for tensor in (torch.zeros(3, device="meta"), torch.eye(3).to_sparse()):
        with pytest.raises(FastnegTypeError, match="is not a plain tensor"):
            normalise_weights(tensor, call="call")


@pytest.mark.parametrize("values", [
    ["a", "b\ud800"], np.array(["a", "b\ud800"]), np.array(["a", "b\ud800"], object),
    pd.Series(["a", "b\ud800"], dtype=object),
])  # fmt: skip
def test_half_a_surrogate_pair_is_no_text(values: object) -> None:
    with pytest.raises(FastnegError, match=r"call: ids\[1\] = 'b\\ud800' holds a lone surrogate"):
        ids(values)


def test_decimal_ids() -> None:
    whole = [Decimal(12), Decimal(-7), Decimal(10) ** 17]
    for kind in (pa.decimal128(38, 0), pa.decimal128(30, 4), pa.decimal256(60, 2)):
        assert ids(pa.array(whole).cast(kind)) == [12, -7, 10**17]
    for kind in (pa.decimal128(38, 0), pa.decimal256(60, 2)):
        assert ids(pa.array([Decimal(10) ** 25]).cast(kind)) == [str(10**25)]
    with pytest.raises(FastnegTypeError, match=r"ids\[0\] = 1.5 is no whole number"):
        ids(pa.array([Decimal("1.5")]))


def test_run_ends_are_decoded() -> None:
    encoded = pc.run_end_encode(pa.array([4, 4, 9]))
    assert ids(encoded) == [4, 4, 9]


@pytest.mark.parametrize("values", [
    np.zeros(3, "c16"), np.zeros(3, [("a", "i4")]), np.zeros(3, "V4"), np.array([1, 2], "m8[Y]"),
    np.zeros((), "i8"), np.zeros((2, 2), "i8"),
])  # fmt: skip
def test_no_raw_error_for_an_odd_dtype(values: np.ndarray) -> None:
    for read in (normalise_weights, normalise_times):
        with pytest.raises(FastnegError) as caught:
            read(values, call="call")
        assert "\n" not in str(caught.value)
    with pytest.raises(FastnegError):
        ids(values)


def test_a_datetime_without_a_zone_beside_one_with_a_zone_is_refused() -> None:
    naive = [dt.datetime(2020, 1, 1), None]
    aware = [dt.datetime(2020, 1, 2, tzinfo=dt.UTC)]
    for both in (naive + aware, np.array(naive + aware), pd.Series(naive + aware, dtype=object)):
        with pytest.raises(FastnegError, match=r"^f: t\[0\] = .* has no time zone and t\[2\] = "):
            to_arrow(both, "f", "t")
    for one in (naive, aware, pd.Series(aware), pa.array(aware)):
        assert len(to_arrow(one, "f", "t")) == len(one)


def test_complex_weights_are_refused_with_a_remedy() -> None:
    with pytest.raises(FastnegTypeError, match=r"weights \(complex128.*give real numbers"):
        normalise_weights(np.array([1j, 2]), call="f", name="weights")
