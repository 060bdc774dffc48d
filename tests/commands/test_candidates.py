"""``fastneg evaluate --candidates FILE``: the published forms of given test negatives."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from tests.commands.conftest import NUM_ITEMS, Runner, write_vectors

DATA = ("--train", "train.csv", "--test", "test.csv")
VECTORS = ("--user-vectors", "q.parquet", "--item-vectors", "i.parquet")
ROWS = [("u1", "i3", ["i4", "i5", "i6"]), ("u2", "i7", ["i1", "i0"]), ("u0", "i2", ["i9"])]


@pytest.fixture
def vectors(files: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    for name, letter, count in (("q.parquet", "u", 29), ("i.parquet", "i", NUM_ITEMS)):
        write_vectors(files / name, letter, count)
    tables = [pq.read_table(name) for name in ("q.parquet", "i.parquet")]
    users, items = (
        dict(zip(table["id"].to_pylist(), table.column(1).to_pylist(), strict=True))
        for table in tables
    )
    return users, items


def write(form: str) -> str:
    if form in ("parquet", "arrow"):
        users, items, negatives = (list(one) for one in zip(*ROWS, strict=True))
        table = pa.table({"user": users, "item": items, "negatives": negatives})
        if form == "parquet":
            pq.write_table(table, "c.parquet")
        else:
            feather.write_feather(table, "c.arrow", chunksize=2)
        return f"c.{form}"
    if form == "json":
        keys = ("user", "item", "negatives")
        lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in ROWS]
        Path("c.jsonl").write_text("\n".join(lines))
        return "c.jsonl"
    lines = [
        f"({u},{i})\t" + "\t".join(n) if form == "ncf" else " ".join([u, i, *n]) for u, i, n in ROWS
    ]
    if form == "packed":
        Path("c.tsv.gz").write_bytes(gzip.compress("\n".join(lines).encode("utf-8-sig")))
        return "c.tsv.gz"
    Path("c.txt").write_text("\n".join(lines) + "\n\n")
    return "c.txt"


@pytest.mark.parametrize("form", ["ncf", "blanks", "packed", "parquet", "arrow", "json"])
def test_given_candidates_of_every_form(fastneg: Runner, vectors: Any, form: str) -> None:
    users, items = vectors
    ran = fastneg("evaluate", *VECTORS, *DATA, "--candidates", write(form), "--cold-users",
                  "--out", "e.json")  # fmt: skip
    assert ran.code == 0, ran.err
    found = json.loads(Path("e.json").read_text())["sampled"]
    gains = []
    for user, item, negatives in ROWS:
        score = float(np.dot(users[user], items[item]))
        above = sum(float(np.dot(users[user], items[one])) > score for one in negatives)
        gains.append(1 / np.log2(above + 2))
    assert found["metrics"]["hr@10"] == 1.0
    assert found["metrics"]["ndcg@10"] == pytest.approx(np.mean(gains))
    assert found["counts"]["rows"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "c.txt.*empty|there are no candidates"),
        ("u1 i3 i4\nu2 i7\n", "line 2 has no user, item and negatives"),
        ("(u1,i3)\n", "line 1 has no user, item and negatives"),
        ("x1 i3 i4\n", "none of the 1 rows is of a user of train"),
        ("u1 i3 i4 NULL\n", "c.txt has 'NULL' for an id, a missing value; --no-nulls"),
        ("u1 x3 i4\n", "none of its 1 items is among the"),
        ("u1 i3 i4 i3\n", r"negatives\[0\]: item \d+ is the row's positive"),
    ],
)
def test_bad_files(refused: Callable[..., str], vectors: Any, text: str, message: str) -> None:
    import re

    Path("c.txt").write_text(text)
    error = refused("evaluate", *VECTORS, *DATA, "--candidates", "c.txt")
    assert re.search(message, error), error


def test_a_file_that_is_not_there(refused: Callable[..., str], vectors: Any) -> None:
    assert "nowhere.txt" in refused("evaluate", *VECTORS, *DATA, "--candidates", "nowhere.txt")


def test_ids_are_those_of_every_file(fastneg: Runner, files: Path, vectors: Any) -> None:
    """Integers, fractions of zeros and blanks are one id, as in the other readers."""
    rows = [(user, item) for user in range(8) for item in range(user, user + 4)]
    pairs = "".join(f"{user},{item}\n" for user, item in rows)
    for name in ("train.csv", "test.csv"):
        (files / name).write_text("user,item\n" + pairs)
    rng = np.random.default_rng(0)
    for name, count in (("q.parquet", 8), ("i.parquet", 11)):
        table = {"id": np.arange(count), "v": rng.normal(size=(count, 3)).tolist()}
        pq.write_table(pa.table(table), name)
    (files / "test.csv").write_text(
        "user,item\n" + "".join(f"{u},{(u + 5) % 11}\n" for u in range(8))
    )
    (files / "a.txt").write_text("(0,5)\t7\t8\n(1,6)\t9\t0\n")
    (files / "b.txt").write_text("\ufeff(0, 5.0)\t7.0\t8\n( 1.0 ,6)\t 9\t0.0\n")
    floats = pa.array([[7.0, 8.0], [9.0, 0.0]])
    pq.write_table(pa.table({"user": [0.0, 1.0], "item": [5, 6], "negatives": floats}), "c.parquet")
    found = []
    for name in ("a.txt", "b.txt", "c.parquet"):
        ran = fastneg("evaluate", *VECTORS, *DATA, "--candidates", name, "--out", "e.json")
        assert ran.code == 0, ran.err
        found.append(json.loads(Path("e.json").read_text())["sampled"])
    assert found[0]["counts"]["unknown_test_items"] == 0
    assert found[0] == found[1] == found[2]
