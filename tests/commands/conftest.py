"""Small files of every kind, and a way to run a command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastneg.cli import run

NUM_USERS, NUM_ITEMS = 30, 24


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Runner = Callable[..., Ran]


@pytest.fixture
def fastneg(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Runner:
    """``fastneg("train", "--seed", 3)`` as the shell would run it."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Ran:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call


@pytest.fixture
def refused(fastneg: Runner) -> Callable[..., str]:
    """The error of a command line that must end in one line on stderr and exit code 2."""

    def call(*arguments: object) -> str:
        ran = fastneg(*arguments)
        assert ran.code == 2, ran
        assert ran.out == ""
        assert "Traceback" not in ran.err
        lines = ran.err.splitlines()
        assert len(lines) == 1, ran.err
        assert lines[0].startswith("error: "), ran.err
        return lines[0]

    return call


def pairs() -> list[tuple[str, str, int]]:
    """(user, item, time): users of two tastes, 12 items each."""
    rng = np.random.default_rng(0)
    found = []
    for user in range(NUM_USERS):
        liked = np.flatnonzero(np.arange(NUM_ITEMS) % 2 == user % 2)
        others = np.flatnonzero(np.arange(NUM_ITEMS) % 2 != user % 2)
        chosen = np.concatenate([rng.permutation(liked)[:9], rng.permutation(others)[:3]])
        for time, item in enumerate(rng.permutation(chosen)):
            found.append((f"u{user}", f"i{item}", time))
    return found


def write_csv(path: Path, rows: list[tuple[str, str, int]]) -> Path:
    text = "".join(f"{user},{item},{time}\n" for user, item, time in rows)
    path.write_text("user,item,when\n" + text)
    return path


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the current one, with train, valid and test in CSV and tables of both sides.

    The test file has an unknown item and an unknown user, the table of users one without rows in
    train (u29), the table of items two that nobody touched.
    """
    monkeypatch.chdir(tmp_path)
    rows = pairs()
    cold = f"u{NUM_USERS - 1}"
    write_csv(tmp_path / "train.csv", [r for r in rows if r[2] < 9 and r[0] != cold])
    write_csv(tmp_path / "valid.csv", [r for r in rows if r[2] == 9])
    write_csv(
        tmp_path / "test.csv",
        [r for r in rows if r[2] > 9] + [("u1", "unheard", 1), ("stranger", "i3", 1)],
    )
    kinds = "".join(f"i{i},{'ab'[i % 2]},{1990 + i},x|y{i % 3}\n" for i in range(NUM_ITEMS + 2))
    (tmp_path / "items.csv").write_text("item,genre,year,tags\n" + kinds)
    ages = "".join(f"u{i},{20 + i % 7},{'mf'[i % 2]}\n" for i in range(NUM_USERS))
    (tmp_path / "users.csv").write_text("user,age,sex\n" + ages)
    return tmp_path


def write_vectors(path: Path, prefix: str, number: int, width: int = 6) -> np.ndarray:
    """A Parquet file with ids ``<prefix>0``... and a fixed-size list; the vectors."""
    rng = np.random.default_rng(number)
    vectors = rng.normal(size=(number, width)).astype(np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width)
    pq.write_table(pa.table({"id": [f"{prefix}{i}" for i in range(number)], "v": lists}), path)
    return vectors
