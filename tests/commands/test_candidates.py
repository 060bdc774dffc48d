"""``fastneg evaluate --candidates FILE``: the published forms of given test negatives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
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
    if form == "parquet":
        users, items, negatives = (list(one) for one in zip(*ROWS, strict=True))
        pq.write_table(
            pa.table({"user": users, "item": items, "negatives": negatives}), "c.parquet"
        )
        return "c.parquet"
    lines = [
        f"({u},{i})\t" + "\t".join(n) if form == "ncf" else " ".join([u, i, *n]) for u, i, n in ROWS
    ]
    Path("c.txt").write_text("\n".join(lines) + "\n\n")
    return "c.txt"


@pytest.mark.parametrize("form", ["ncf", "blanks", "parquet"])
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
