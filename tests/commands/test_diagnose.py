"""``fastneg diagnose``: the library's diagnosis from files, bad input in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastneg.interactions import Interactions
from fastneg.mining.diagnose import diagnose_window
from tests.commands.conftest import NUM_ITEMS, Runner, write_vectors

ARGUMENTS = ("--queries", "q.parquet", "--items", "i.parquet", "--held-out", "valid.csv",
             "--positives", "train.csv", "--window", 3, 10)  # fmt: skip
IDS = {
    "user_ids": [f"u{i}" for i in range(30)],
    "item_ids": [f"i{i}" for i in range(NUM_ITEMS)],
}


@pytest.fixture
def vectors(files: Path) -> tuple[np.ndarray, np.ndarray]:
    return (
        write_vectors(files / "q.parquet", "u", 30),
        write_vectors(files / "i.parquet", "i", NUM_ITEMS),
    )


def test_it_says_what_the_library_says(
    fastneg: Runner, vectors: tuple[np.ndarray, np.ndarray]
) -> None:
    pytest.importorskip("matplotlib")
    ran = fastneg("diagnose", *ARGUMENTS, "--metric", "cosine", "--max-risk", 0.05, "--num-queries",
                  20, "--seed", 3, "--out", "d.json", "--plot", "d.png")  # fmt: skip
    assert ran.code == 0, ran.err
    wanted = diagnose_window(
        *vectors, Interactions.read("train.csv", **IDS), Interactions.read("valid.csv", **IDS),
        window=(3, 10), metric="cosine", max_risk=0.05, num_queries=20, seed=3,
    )  # fmt: skip
    assert ran.out == f"{wanted}\n"
    assert wanted.num_queries == 20
    assert wanted.num_held_out == 20
    assert json.loads(Path("d.json").read_text()) == wanted.to_dict()
    assert Path("d.png").read_bytes()[:4] == b"\x89PNG"
    assert fastneg("diagnose", *ARGUMENTS, "--quiet") == (0, "", "")


def test_another_model_in_another_order(
    fastneg: Runner, vectors: tuple[np.ndarray, np.ndarray], files: Path
) -> None:
    for name in ("q", "i"):
        table = pq.read_table(f"{name}.parquet")
        pq.write_table(table.take(np.arange(len(table))[::-1]), files / f"{name}2.parquet")
    other = ("--other-queries", "q2.parquet", "--other-items", "i2.parquet", "--out", "d.json")
    assert fastneg("diagnose", *ARGUMENTS, *other).code == 0
    assert json.loads(Path("d.json").read_text())["window"]["overlap"] == 1.0
    table = pq.read_table("q.parquet")
    half = table.set_column(0, "id", pa.array([f"v{i}" for i in range(30)]))
    pq.write_table(half, files / "q2.parquet")
    ran = fastneg("diagnose", *ARGUMENTS, *other)
    assert ran.err == "error: q2.parquet lacks 30 ids of q.parquet, such as 'u0'\n"


def test_pairs_without_vectors_are_counted(fastneg: Runner, vectors: object) -> None:
    ran = fastneg("diagnose", *ARGUMENTS, "--held-out", "test.csv")
    assert ran.code == 0, ran.err
    assert "held out of unknown queries: 1\nheld out of unknown items: 1\n" in ran.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--window", 500, 101), "window = (500, 101) ends before it starts"),
        (("--metric", "l2"), "metric = 'l2' is not one of 'ip', 'cosine'"),
        (("--max-risk", 0), "max_risk = 0.0 allows nothing"),
        (("--num-queries", 0), "num_queries = 0 is too small"),
        (("--depth", 5), "depth = 5 is too small; give 10 or more"),
        (("--memory", 1e-6), "diagnose_window: memory = 1073 bytes is too little for one query"),
        (("--other-items", "i.parquet"), "give both --other-queries and --other-items"),
        (("--held-out", "nowhere.csv"), "nowhere.csv cannot be read: no such file"),
        (("--out", "."), "the output file . is a folder"),
        (("--plot", "d.docx"), "d.docx has the suffix '.docx'; give .png"),
        (("--device", "abacus"), "device = 'abacus' cannot be used"),
    ],
)
def test_bad_arguments_end_in_one_line(
    refused: Callable[..., str], vectors: object, arguments: tuple[Any, ...], message: str
) -> None:
    if "--plot" in arguments:
        pytest.importorskip("matplotlib")
    assert message in refused("diagnose", *ARGUMENTS, *arguments)
