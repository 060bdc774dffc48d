from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from fastneg.errors import FastnegError, FileFormatError
from fastneg.interactions import Interactions
from fastneg.json_lines import holds_json_lines
from fastneg.tables import read_columns


def lines(path: Path, rows: list[object], end: str = "\n") -> Path:
    path.write_text("".join(json.dumps(row) + end for row in rows))
    return path


ROWS = [{"user": 1, "item": "a", "w": 1}, {"item": "b", "user": 2, "w": 2.5, "more": None}]


@pytest.mark.parametrize("name", ["x.jsonl", "x.ndjson", "x.json", "x.txt", "x", "x.log"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_json_lines_are_a_table(tmp_path: Path, name: str, end: str) -> None:
    made = Interactions.read(lines(tmp_path / name, ROWS, end), weight_column="w")
    assert made.user_ids.tolist() == [1, 2]
    assert made.item_ids.tolist() == ["a", "b"]
    assert made.row_weights is not None
    assert made.row_weights.tolist() == [1, 2.5]
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    assert Interactions.read(tmp_path / "x.jsonl.gz", weight_column="w").num_rows == 2


def test_all_columns_that_occur(tmp_path: Path) -> None:
    rows = [{"a": 1}, {"b": "x"}, {"a": 2.5, "c": ["x"]}]
    table = read_columns(lines(tmp_path / "x.jsonl", rows), call="call")
    assert {name: column.to_pylist() for name, column in table.data.items()} == {
        "a": [1, None, 2.5], "b": [None, "x", None], "c": [None, None, ["x"]],
    }  # fmt: skip


def test_blocks_meet(tmp_path: Path) -> None:
    rows = [{"user": k % 997, "item": k, "text": "x" * 40} for k in range(120_000)]
    made = Interactions.read(lines(tmp_path / "x.jsonl", list(rows)))
    assert made.num_rows == 120_000
    assert made.item_ids.tolist() == list(range(120_000))


def test_ids_keep_all_their_digits(tmp_path: Path) -> None:
    large = [2**63 + 5, 2**64 + 5, 10**30 + 1]
    path = lines(tmp_path / "x.jsonl", [{"user": u, "item": 2**53 + 1} for u in large])
    made = Interactions.read(path)
    assert made.user_ids.tolist() == [str(u) for u in large]
    assert made.item_ids.tolist() == [2**53 + 1]
    path = lines(path, [{"user": 7, "item": 1}, {"user": "7", "item": "x"}])
    assert Interactions.read(path).user_ids.tolist() in ([7], ["7"])


@pytest.mark.parametrize(("text", "match"), [
    ('{"user": 1, "item": 2}\n{"user": 1\n', "line 2, is not JSON"),
    ('{"user": 1, "item": 2}\nnull\n', "line 2, is a JSON NoneType"),
    ('{"user": 1, "item": 2}{"user": 1, "item": 3}\n', "line 1, is not JSON: Extra data"),
    ('{"user": 1, "item": 2},{"user": 1, "item": 3}\n', "line 1, is not JSON: Extra data"),
    ('[{"user": 1, "item": 2}]\n', "line 1, is a JSON list; give JSON lines"),
    ('[{"user": 1,\n "item": 2}]\n', "line 1, is not JSON: .*has to be written as JSON lines"),
    ('{"user": ' + "[" * 100_000 + "\n", "line 1, is not JSON: nested too deeply"),
    ('{"user": ' + "9" * 5_000 + ', "item": 1}\n', "line 1, is not JSON: Exceeds the limit"),
    ('{"user": "\\ud800", "item": 1}\n', "half a surrogate pair"),
    ('{"user": null, "item": 1}\n', r"user\[0\] is null|is of type null|missing"),
    ('{"user": {"id": 1}, "item": 1}\n', "ids are integers or strings"),
    ('{"uid": 1, "item": 1}\n', "has no column 'user'; its columns are uid, item"),
    ('{"user": 1, "item": 1}\n{"user": [2], "item": 1}\n', "user mixes types"),
    ("\n\n", "has no rows"),
    ('{"user": 1, "item": "caf\udce9"}\n', r"cannot be read|is not JSON"),
])  # fmt: skip
def test_damaged_lines(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(FastnegError, match=match) as caught:
        Interactions.read(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_line_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastneg.json_lines._LONGEST_LINE", 1 << 20)
    (tmp_path / "x.json").write_bytes(b'{"user": "' + b"x" * (9 << 20))
    with pytest.raises(FileFormatError, match="line 1, is longer than 1,048,576 bytes"):
        Interactions.read(tmp_path / "x.json")


def test_what_looks_like_json_lines() -> None:
    assert holds_json_lines(b' {"a": 1}\n{"a": 2}')
    assert holds_json_lines(b'{"a": "cut')
    for other in (b"{1} 2\n", b"[1]\n", b"1 2\n", b"", b"{'a': 1}\n"):
        assert not holds_json_lines(other)


def test_objects_that_span_lines_are_refused_though_their_number_is_right(tmp_path: Path) -> None:
    lines = ['{"user": 1, "item": 2},{"user": 3, "item": 4}', '{"user": 5', '"item": 6}']
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    with pytest.raises(FileFormatError, match="line 1, is not JSON"):
        Interactions.read(tmp_path / "x.jsonl")
