"""``fastneg mine --out FOLDER``: a job of the user's ids, interrupted, taken up, refused."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fastneg as library
from fastneg.cli import run
from tests.commands.conftest import NUM_ITEMS, Runner, write_vectors

JOB = ("q.parquet", "i.parquet", "--out", "mined", "--window", "3-10", "--num-negatives", 4)
NAMED = ("--positives", "train.csv", "--seed", 5, "--shard-queries", 8)
ROOT = Path(library.__file__).parents[1]


@pytest.fixture
def vectors(files: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of 30 queries u0.. and 24 items i0.., as Parquet and as .npy."""
    queries = write_vectors(files / "q.parquet", "u", 30)
    items = write_vectors(files / "i.parquet", "i", NUM_ITEMS)
    np.save(files / "q.npy", queries)
    np.save(files / "i.npy", items)
    return queries, items


def rows_of(folder: str) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted(Path(folder).glob("part-*"))
        for row in pq.read_table(path).to_pylist()
    ]


def test_a_folder_has_the_rows_of_the_single_file(fastneg: Runner, vectors: object) -> None:
    ran = fastneg("mine", *JOB, *NAMED)
    assert ran.code == 0, ran.err
    assert "30 over 24 items" in ran.out
    assert len(list(Path("mined").glob("part-*.parquet"))) == 4
    single = fastneg("mine", "--queries", "q.parquet", "--items", "i.parquet", "--window", 3, 10,
                     "--num-negatives", 4, "--out", "one.parquet", *NAMED[:4])  # fmt: skip
    assert single.code == 0, single.err
    assert rows_of("mined") == pq.read_table("one.parquet").to_pylist()
    mined = library.open_mined("mined")
    assert mined.item_ids.tolist() == [f"i{i}" for i in range(NUM_ITEMS)]
    train = library.Interactions.read("train.csv")
    sampler = library.ListedSampler(mined.lists(train), interactions=train)
    assert sampler.num_items == train.num_items


@pytest.mark.parametrize("window", [("--window", "3-10"), ("--window=3-10",), ("--window", 3, 10)])
def test_a_window_in_every_form(fastneg: Runner, vectors: object, window: tuple[Any, ...]) -> None:
    ran = fastneg("mine", "q.npy", "--out", "mined", *window, "i.npy", "--num-negatives", 2)
    assert ran.code == 0, ran.err
    assert library.open_mined("mined").report.window == (3, 10)
    assert [row["query"] for row in rows_of("mined")] == list(range(30))


def test_cosine_groups_and_row_numbers(fastneg: Runner, vectors: object, files: Path) -> None:
    for name in ("q", "i"):
        table = pq.read_table(f"{name}.parquet").drop_columns(["id"])
        column = pa.array(["ab"[i % 2] for i in range(len(table))])
        pq.write_table(table.append_column("g", column), files / f"{name}.parquet")
    ran = fastneg("mine", *JOB, "--metric", "cosine", "--query-group-column", "g",
                  "--item-group-column", "g", "--quiet")  # fmt: skip
    assert ran == (0, "", "")
    found = rows_of("mined")
    assert [row["query"] for row in found] == list(range(30))
    assert all((item - row["query"]) % 2 == 0 for row in found for item in row["items"])
    assert any(row["items"] for row in found)


def test_the_same_command_mends_and_another_is_refused(
    fastneg: Runner, refused: Callable[..., str], vectors: object, files: Path
) -> None:
    assert fastneg("mine", *JOB, *NAMED).code == 0
    before = {path.name: path.read_bytes() for path in Path("mined").iterdir()}
    Path("mined/part-00002.parquet").write_bytes(b"PAR1")
    assert fastneg("mine", *JOB, *NAMED).code == 0
    after = {path.name: path.read_bytes() for path in Path("mined").iterdir()}
    assert {**after, "log.jsonl": b""} == {**before, "log.jsonl": b""}
    message = refused("mine", *JOB, *NAMED, "--seed", 6)
    assert "begun otherwise: seed is 6, was 5. Give another folder" in message
    assert "--restart" in message
    table = pq.read_table("i.parquet")
    pq.write_table(table.set_column(0, "id", [[f"j{i}" for i in range(NUM_ITEMS)]]), "i.parquet")
    (files / "train.csv").write_text("user,item\nu1,j1\n")
    message = refused("mine", *JOB, *NAMED)
    assert "begun otherwise: positives has other contents; item_ids has other contents." in message
    assert fastneg("mine", *JOB, *NAMED, "--restart").code == 0
    assert rows_of("mined")[0]["items"][0].startswith("j")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--window", "10-3"), "window = (10, 3) ends before it starts"),
        (("--window", "x-3"), "'--window' requires 2 arguments"),
        (("--queries", "q.npy"), "QUERIES is given twice (q.parquet and q.npy)"),
        (("--out", "mined.npz"), "--out mined.npz has the suffix '.npz'; give FILE.parquet or"),
        (("--out", "one.parquet", "--restart"), "--restart and --shard-queries are for a folder"),
        (("--out", "one.pq", "--shard-queries", 9), "--out one.pq is one file"),
        (("--shard-queries", 0), "shard_queries = 0 is too small"),
        (("--out", "."), "mine_to_folder: . holds other files"),
        (("--out", "train.csv/x"), "the output folder train.csv/x cannot be written"),
        (("--out", "/proc/x"), "the output folder /proc/x cannot be written"),
        (("--search", "faiss:Nonsense"), "search = 'faiss:Nonsense'"),
        (("--relative-margin", 0.1), "positives is None"),
        (("--query-vector-column", "id"), "give a column of lists of numbers"),
        (("--memory", 1e-6), "is too little for one query"),
    ],
)
def test_bad_arguments_end_in_one_line_and_leave_nothing(
    refused: Callable[..., str], vectors: object, files: Path, arguments: tuple[Any, ...],
    message: str,
) -> None:  # fmt: skip
    before = sorted(path.name for path in files.iterdir())
    assert message in refused("mine", *JOB, *arguments)
    assert sorted(path.name for path in files.iterdir()) == before


def test_missing_arguments_and_bad_vectors(refused: Callable[..., str], vectors: object) -> None:
    assert "QUERIES is missing; give fastneg mine QUERIES ITEMS" in refused("mine")
    assert "ITEMS is missing" in refused("mine", "q.npy")
    assert "--out is missing" in refused("mine", "q.npy", "i.npy")
    np.save("i.npy", np.ones((5, 7)))
    message = refused("mine", "q.npy", "i.npy", "--out", "mined")
    assert "queries has vectors of width 6, items of width 7" in message
    np.save("i.npy", np.full((5, 6), np.nan))
    assert "i.npy[0, 0] = nan is not a finite" in refused("mine", "q.npy", "i.npy", "--out", "m")
    assert not Path("m").exists()


def test_a_full_disk_is_one_line(
    refused: Callable[..., str], fastneg: Runner, vectors: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, calls = os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 9:
            raise OSError(28, "No space left on device")
        sync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        message = refused("mine", *JOB, *NAMED)
    assert "cannot be written: No space left on device; make room there" in message
    assert fastneg("mine", *JOB, *NAMED).code == 0
    assert len(rows_of("mined")) == 30


def test_ctrl_c_leaves_a_folder_and_says_the_command(files: Path) -> None:
    """A real process and a real signal, in a job of seconds: it may not end before that."""
    for name, rows in (("q.npy", 300_000), ("i.npy", 20_000)):
        np.save(name, np.random.default_rng(rows).standard_normal((rows, 64), np.float32))
    words = ["mine", "q.npy", "i.npy", "--out", "my folder", "--shard-queries", "500", "--restart",
             "--window", "1-50", "--num-negatives", "3"]  # fmt: skip
    # where a shell started the tests in the background, its children ignore Ctrl-C
    start = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('fastneg', run_name='__main__', alter_sys=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start, *words], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        deadline = time.monotonic() + 120
        while not list(Path("my folder").glob("part-*")) and process.poll() is None:
            assert time.monotonic() < deadline, "no shard was mined"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    first, last = err.splitlines()
    assert last == "interrupted"
    told, command = first.split(": fastneg ")
    assert told.startswith("mine_to_folder: my folder keeps ")
    assert told.endswith(" of 600 shards, and the same call goes on from there")
    again = shlex.split(command)
    assert again == [word for word in words if word != "--restart"]
    before = len(list(Path("my folder").glob("part-*")))
    assert 0 < before < 600
    assert run(["mine", "q.npy", "i.npy", "--out", "my folder", "--window", "1-51"]) == 2
    assert len(list(Path("my folder").glob("part-*"))) == before
