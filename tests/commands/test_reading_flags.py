"""The flags that say how a file is to be read, in every command that reads interactions."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.commands.conftest import NUM_ITEMS, Runner, write_vectors

SMALL = ("--recipe", "bpr", "--set", "epochs=1", "--set", "dim=4", "--quiet")


@pytest.fixture
def rows() -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(0)
    return [
        (user, int(item), int(rng.integers(1, 6)), 880_000_000 + k)
        for user in range(30)
        for k, item in enumerate(rng.choice(40, 8, replace=False))
    ]


def write(path: Path, rows: list[Any], parter: str, header: str = "") -> None:
    path.write_text(header + "".join(parter.join(map(str, row)) + "\n" for row in rows))


def drawn(fastneg: Runner, *arguments: object) -> str:
    ran = fastneg("sample", *arguments, "--out", "drawn.parquet", "--quiet")
    assert ran.code == 0, ran.err
    return repr(pq.read_table("drawn.parquet").to_pydict())


def test_one_table_in_many_forms(fastneg: Runner, files: Path, rows: list[Any]) -> None:
    header = "user,item,stars,when\n"
    write(files / "plain.csv", rows, ",", header)
    expected = drawn(fastneg, "--interactions", "plain.csv")
    titles = ['"open', "x", "y"]
    names = ("--header", "user,item,stars,when")
    write(files / "u.data", rows, "\t")
    write(files / "ratings.dat", rows, "::")
    (files / "x.txt").write_text((files / "plain.csv").read_text(), encoding="utf-16")
    (files / "cp.csv").write_bytes(("é,user,item\n" + "".join(
        f"ü,{user},{item}\n" for user, item, _, _ in rows)).encode("cp1252"))  # fmt: skip
    (files / "q.tsv").write_text("user\titem\ttitle\n" + "".join(
        f"{user}\t{item}\t{titles[k % 3]}\n" for k, (user, item, _, _) in enumerate(rows)
    ))  # fmt: skip
    (files / "lines").write_text("".join(
        f'{{"user": {user}, "item": {item}}}\n' for user, item, _, _ in rows))  # fmt: skip
    by_user = {user: [item for u, item, _, _ in rows if u == user] for user, *_ in rows}
    write(files / "adjacency.txt", [(user, *items) for user, items in by_user.items()], " ")
    for arguments in (
        ("u.data", "--delimiter", "tab", *names), ("u.data", "--format", "tsv", *names),
        ("ratings.dat", "--delimiter", "::", *names), ("x.txt", "--format", "csv"),
        ("cp.csv", "--encoding", "cp1252"), ("q.tsv", "--no-quotes"), ("lines",),
        ("adjacency.txt", "--format", "adjacency"), ("adjacency.txt",),
    ):  # fmt: skip
        assert drawn(fastneg, "--interactions", *arguments) == expected, arguments


def test_ratings_are_no_items(refused: Callable[..., str], files: Path, rows: list[Any]) -> None:
    write(files / "u.data", rows, "\t")
    for command in (
        ("train", "--train", "u.data", *SMALL, "--out", "out"),
        ("evaluate", "--train", "u.data", "--test", "u.data", "model"),
        ("sample", "--interactions", "u.data", "--out", "x.parquet"),
    ):
        if command[0] != "evaluate":  # which wants a model first
            assert "--delimiter tab) and the names of its columns" in refused(*command)
    assert not (files / "x.parquet").exists()


def test_a_test_file_is_read_as_the_training_file_was(
    fastneg: Runner, refused: Callable[..., str], files: Path
) -> None:
    rng = np.random.default_rng(0)
    train = [(u, *rng.choice(60, int(rng.integers(4, 9)), replace=False)) for u in range(40)]
    test = [(u, *rng.choice(60, 2, replace=False)) for u in range(40)]
    write(files / "train.txt", train, " ")
    write(files / "test.txt", test, " ")
    command = ("train", "--train", "train.txt", "--test", "test.txt", *SMALL, "--out", "out")
    ran = fastneg(*command)
    assert ran.code == 0, ran.err
    assert "may be a table: every line has 3 fields" in refused(
        "sample", "--interactions", "test.txt", "--out", "x.parquet"
    )
    ratings = [(u % 40, *rng.integers(1, 60, 1), u % 5, 880_000_000 + u) for u in range(80)]
    write(files / "test.txt", ratings, "\t")
    assert "test.txt may be a table: 2 lines begin with" in refused(*command, "--overwrite")


def test_missing_ids_and_no_nulls(
    fastneg: Runner, refused: Callable[..., str], files: Path, rows: list[Any]
) -> None:
    write(files / "null.csv", [*rows, ("NULL", 1, 1, 1)], ",", "user,item,stars,when\n")
    command = ("sample", "--interactions", "null.csv", "--out", "x.parquet")
    assert "user[240] is 'NULL', a missing value" in refused(*command)
    assert fastneg(*command, "--no-nulls").code == 0
    (files / "users.txt").write_text("u3\nnan\n")
    command = ("sample", "--interactions", "train.csv", "--out", "x.parquet", "--users")
    assert "users.txt has 'nan' for an id, a missing value" in refused(*command, "users.txt")
    assert "'nan' is no user" in refused(*command, "users.txt", "--no-nulls")


@pytest.mark.parametrize("flag", ["--format", "--no-nulls", "--no-quotes", "--encoding"])
@pytest.mark.parametrize("command", ["train", "evaluate", "sample", "mine", "diagnose", "demo"])
def test_every_command_that_reads_interactions_has_the_flags(
    fastneg: Runner, command: str, flag: str
) -> None:
    assert flag in fastneg(command, "--help").out


def test_no_endless_file_is_read(refused: Callable[..., str], files: Path) -> None:
    (files / "zero.toml").symlink_to("/dev/zero")
    for command in (
        ("train", "--train", "/dev/zero", *SMALL, "--out", "out"),
        ("train", "--train", "train.csv", "--recipe", "zero.toml", "--out", "out"),
        ("train", "--train", "train.csv", "--items", "/dev/zero", *SMALL, "--out", "out"),
        ("sample", "--interactions", "train.csv", "--users", "/dev/zero", "--out", "x.parquet"),
        ("mine", "/dev/zero", "/dev/zero", "--out", "m"),
    ):
        assert "is a device or a pipe" in refused(*command)


def test_no_input_is_replaced(refused: Callable[..., str], files: Path) -> None:
    write_vectors(files / "q.parquet", "u", 29)
    write_vectors(files / "i.parquet", "i", NUM_ITEMS)
    (files / "link.parquet").symlink_to("q.parquet")
    (files / "out").mkdir()
    shutil.copy("items.csv", files / "out" / "items.parquet")
    vectors = ("--user-vectors", "q.parquet", "--item-vectors", "i.parquet")
    pairs = ("--train", "train.csv", "--test", "test.csv")
    before = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
    for arguments, name in (
        (("sample", "--interactions", "train.csv", "--out", "train.csv"), "train.csv"),
        (("sample", "--interactions", "train.csv", "--items", "items.csv", "--out", "items.csv"),
         "items.csv"),
        (("mine", "q.parquet", "i.parquet", "--out", "link.parquet"), "link.parquet"),
        (("evaluate", *pairs, *vectors, "--out", "test.csv"), "test.csv"),
        (("diagnose", "--queries", "q.parquet", "--items", "i.parquet", "--held-out", "valid.csv",
          "--out", "valid.csv"), "valid.csv"),
    ):  # fmt: skip
        assert f"the output file {name} is an input too" in refused(*arguments)
    train = ("train", *pairs, "--items", "out/items.parquet", *SMALL, "--out", "out", "--overwrite")
    assert "out/items.parquet would be replaced by the output of that name" in refused(*train)
    assert before == {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
    assert (files / "out" / "items.parquet").is_file()
