from __future__ import annotations

import warnings
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastneg.columns import normalise_ids
from fastneg.errors import FastnegTypeError
from fastneg.ids import BLANKS, as_integers, canonical_texts, file_ids
from fastneg.interactions import Interactions


def texts(*values: str) -> pa.LargeStringArray:
    return pa.array(values, pa.large_string())


def canonical(value: str) -> str:
    """The rule, one id at a time."""
    value = value.strip(BLANKS)
    whole, point, fraction = value.partition(".")
    digits = whole.removeprefix("-")
    plain = digits.isascii() and digits.isdigit() and whole != "-0"
    if plain and (digits == "0" or digits[0] != "0") and point and fraction.strip("0") == "":
        return whole if fraction else value
    return value


@pytest.mark.parametrize("value", [
    "12", "12.0", "12.000", " 12", "12 ", "\ufeff12", "\t12.0\r\n", "\u00a012\u3000", "-7.0", "0.0",
    "0042", "0042.0", "+42", "4.2e1", "12.", ".0", "12.5", "12.50", "12.0.0", "-0", "-0.0", "", " ",
    "a b", " a b ", "ä", "ä ", "x.0", "100", "1.00", "v1.0", "日本", "日本\u3000", "0", "00",
    "100.0", "1 2.0", "9" * 30 + ".0", "\ufeff", "١٢.0",
])  # fmt: skip
def test_the_rule_against_its_slow_twin(value: str) -> None:
    padding = texts("first", value, "last")[1:2]  # a slice: offsets that do not start at 0
    assert canonical_texts(padding).to_pylist() == [canonical(value)]
    assert canonical_texts(texts("q", value, "z")).to_pylist() == ["q", canonical(value), "z"]


def test_what_changes_nothing_is_not_copied() -> None:
    for column in (texts("a", "b"), texts(), texts("", ""), texts("10", "20", "ü")):
        assert canonical_texts(column) is column


def test_several_ways_to_write_one_id_are_said() -> None:
    with pytest.warns(UserWarning, match=r"2 ids are written in several ways.*'1\.0' for '1'"):
        assert canonical_texts(texts("1", "1.0", "2", "3 ", " 3")).to_pylist() == list("11233")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert canonical_texts(texts("1.0", "1.0", "2.0")).to_pylist() == ["1", "1", "2"]


@pytest.mark.parametrize(("values", "expected"), [
    (pa.array([Decimal("12.00"), Decimal("-7.00")]), [12, -7]),
    (np.array([1, 2**63 - 1], np.uint64), [1, 2**63 - 1]),
    (np.array([1, 2**63], np.uint64), ["1", str(2**63)]),
    (pa.array([Decimal(2**70), Decimal("3.0")]), [str(2**70), "3"]),
    (pa.array([5, 6], pa.uint8()), [5, 6]),
    ([" a", "1.0", "\ufeffb"], [" a", "1.0", "\ufeffb"]),  # ids in Python stay what they are
])  # fmt: skip
def test_ids_of_every_width(values: object, expected: list[object]) -> None:
    made = normalise_ids(values, call="call", name="ids")
    assert (made.tolist() if isinstance(made, np.ndarray) else made.to_pylist()) == expected


def test_a_decimal_that_is_not_whole_is_refused() -> None:
    with pytest.raises(FastnegTypeError, match=r"ids\[1\] = 1.5 is no whole number"):
        normalise_ids(pa.array([Decimal("1.0"), Decimal("1.5")]), call="call", name="ids")


@pytest.mark.parametrize(("column", "expected"), [
    (pa.array([1.0, -3.0, 2.0**53 - 1]), [1, -3, 2**53 - 1]),
    (pa.array([1.0, None, np.nan]), [1, None, None]),
    (pa.chunked_array([pa.array([1.0], pa.float32()), pa.array([2.0], pa.float32())]), [1, 2]),
    (pa.array([" a", None, "2.0"]), ["a", None, "2"]),
    (pa.array(["x ", "y", "x "]).dictionary_encode(), ["x", "y", "x"]),
    (pa.array(["x "], pa.string_view()), ["x"]),
    (pa.array([7, 8]), [7, 8]),
    (pa.chunked_array([], pa.string()), []),
    (pa.chunked_array([], pa.dictionary(pa.int32(), pa.string())), []),
])  # fmt: skip
def test_columns_of_files(column: object, expected: list[object]) -> None:
    assert file_ids(column, call="call", name="ids").to_pylist() == expected


@pytest.mark.parametrize(("values", "message"), [
    ([1.0, 2.5], r"ids is of type double, and ids\[1\] = 2.5 is no whole number"),
    ([np.inf], r"ids\[0\] = inf"),
    ([2.0**53], r"ids\[0\] = 9007199254740992.0 is no whole number that it holds exactly"),
    (np.array([1, 2**24 - 1, 2**24 + 1], "f4"), r"of type float, and ids\[2\] = 16777216.0 is no"),
    (np.array([2047, 2049], "f2"), r"of type halffloat, and ids\[1\] = 2048.0 is no whole number"),
])  # fmt: skip
def test_other_floats_are_refused(values: list[float], message: str) -> None:
    with pytest.raises(FastnegTypeError, match=message):
        file_ids(pa.array(values), call="call", name="ids")


WAYS = {
    "plain.csv": "user,item\n12,7\n3,42\n",
    "mark.csv": "\ufeffuser,item\n12,7\n3,42\n",
    "floats.csv": "user,item\n12.0,7.0\n3.0,42.0\n",
    "spaces.csv": "user,item\n 12,7 \n3 , 42\n",
    "quoted.tsv": 'user\titem\n"12"\t"7.0"\n3\t42\n',
    "mark.txt": "\ufeff12 7\n3 42\n",
    "mark_and_space.txt": "\ufeff 12 7.0\n3 42\n",
    "floats.txt": "12.0 7\n3.0 42\n",
}


@pytest.mark.parametrize("name", [*WAYS, "integers", "texts", "floats", "decimals", "categories"])
def test_every_reader_gives_the_same_ids(tmp_path: Path, name: str) -> None:
    kinds = {
        "integers": [[12, 3], [7, 42]],
        "texts": [["12", "3.0"], ["7 ", "42"]],
        "floats": [[12.0, 3.0], [7.0, 42.0]],
        "decimals": [[Decimal(12), Decimal(3)], [Decimal("7.0"), Decimal("42.0")]],
        "categories": [pa.array([" 12", "3"]).dictionary_encode(), ["7", "42.0"]],
    }
    if name in WAYS:
        path = tmp_path / name
        path.write_bytes(WAYS[name].encode())
    else:
        path = tmp_path / "it.parquet"
        pq.write_table(pa.table(dict(zip(("user", "item"), kinds[name], strict=True))), path)
    # fractions are no plain integers, so such lines are adjacency only where it is asked for
    asked = {"format": "adjacency"} if path.suffix == ".txt" and "." in path.read_text() else {}
    read = Interactions.read(path, **asked)
    assert read.encode_users([12, 3]).tolist() == [0, 1]
    assert read.encode_items(["7", "42"]).tolist() == [0, 1]
    known = Interactions.from_pairs([3, 12], [42, 7])
    into = Interactions.read(path, like=known, **asked)
    assert (into.num_users, into.num_items) == (2, 2)
    assert into.row_users.tolist() == [1, 0]


def test_leading_zeros_are_part_of_an_id(tmp_path: Path) -> None:
    (tmp_path / "it.csv").write_text("user,item\n0042,1\n42,1\n")
    assert Interactions.read(tmp_path / "it.csv").user_ids.tolist() == ["0042", "42"]


def test_as_integers_at_the_edges() -> None:
    given = ["9223372036854775807", "9223372036854775808", "-9223372036854775808",
             "-9223372036854775809", "999999999999999999", "0", "-0", "07", "", "x",
             "10000000000000000000"]  # fmt: skip
    values, plain = as_integers(texts(*given))
    expected = [g in {"0"} or (g.lstrip("-")[:1] in set("123456789") and g.lstrip("-").isdigit()
                               and -(2**63) <= int(g) < 2**63) for g in given]  # fmt: skip
    assert plain.tolist() == expected
    assert values.tolist() == [int(g) if ok else 0 for g, ok in zip(given, expected, strict=True)]
