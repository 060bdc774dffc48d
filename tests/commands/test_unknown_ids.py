"""Ids that a file has and another lacks: counted, told, refused where too few meet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fastneg.commands.unknown_ids import UnknownIds, unknown_ids
from fastneg.errors import FastnegError
from fastneg.vocabulary import Vocabulary
from tests.commands.conftest import NUM_USERS, Runner, pairs, write_csv

Refused = Callable[..., str]
TRAIN = ("train", "--train", "train.csv", "--recipe", "bpr", "--out", "run", "--set", "epochs=1",
         "--set", "dim=4")  # fmt: skip


def numbers(user: str, item: str) -> tuple[str, str]:
    """The ids of the small files as integers."""
    return str(int(user[1:]) + 100), str(int(item[1:]) + 500)


WRITTEN: dict[str, Callable[[str, str], tuple[str, str]]] = {
    "padded items": lambda user, item: (user, f"{item:0>9}"),
    "padded users": lambda user, item: (f"{user:0>9}", item),
    "letters": lambda user, item: (user, f"sku-{item}"),
    "rounded": lambda user, item: (user, f"{float(item):.2e}"),
    "shifted": lambda user, item: (user, str(int(item) + 5_000)),
}


@pytest.fixture
def numbered(files: Path) -> Path:
    """The files of ``files`` with integers for ids, and files that write them in other ways."""
    rows = pairs()
    parts = {"train": (0, 9), "valid": (9, 10), "test": (10, 12)}
    for name, (first, last) in parts.items():
        some = [(*numbers(u, i), t) for u, i, t in rows if first <= t < last]
        write_csv(files / f"{name}.csv", some)
        for way, write in WRITTEN.items():
            write_csv(files / f"{name} {way}.csv", [(*write(u, i), t) for u, i, t in some])
        floats = [(f"{u}.0", f" {i}", t) for u, i, t in some]
        write_csv(files / f"{name} floats.csv", floats)
    items = sorted({numbers("u0", i)[1] for _, i, _ in rows})
    for way, write in WRITTEN.items():
        lines = "".join(f"{write('0', item)[1]},x\n" for item in items)
        (files / f"items {way}.csv").write_text("item,genre\n" + lines)
    (files / "items floats.csv").write_text("item,genre\n" + "".join(f"{i}.0,x\n" for i in items))
    return files


@pytest.mark.parametrize("way", WRITTEN)
@pytest.mark.parametrize("flag", ["--test", "--valid", "--negatives"])
def test_ids_that_cannot_match_are_refused(
    numbered: Path, refused: Refused, way: str, flag: str
) -> None:
    name = f"{'train' if flag == '--negatives' else flag[2:]} {way}.csv"
    extra = ()
    if flag == "--negatives":
        extra = ("--set", 'negatives=[{source = "explicit"}]')
    said = refused(*TRAIN, flag, name, *extra)
    what = "users" if way == "padded users" else "items"
    assert f"{name}: none of its" in said
    assert f"{what} is among the" in said
    assert "of train.csv (" in said
    if way.startswith("padded"):
        assert "differ by leading zeros alone" in said
    if way == "rounded":
        assert "were written as rounded numbers" in said
    assert not (numbered / "run" / "metrics.json").exists()


@pytest.mark.parametrize("way", ["padded items", "letters", "shifted"])
def test_a_table_of_other_items_is_refused(numbered: Path, refused: Refused, way: str) -> None:
    table = f"items {way}.csv"
    for command in (TRAIN, ("sample", "--interactions", "train.csv", "--out", "drawn.parquet")):
        said = refused(*command, "--items", table)
        assert "train.csv: none of its 24 items is among the" in said
        assert table in said


def test_the_same_ids_in_another_form_are_known(numbered: Path, fastneg: Runner) -> None:
    ran = fastneg(*TRAIN, "--test", "test floats.csv", "--items", "items floats.csv",
                  "--valid", "valid floats.csv")  # fmt: skip
    assert ran.code == 0, ran
    assert "test floats.csv: 0 of 30 users and 0 of 23 items are unknown to train.csv" in ran.out
    assert "valid floats.csv: 0 of 30 users and 0 of" in ran.out
    assert "train.csv: 0 of 24 items are unknown to items floats.csv" in ran.out
    facts = json.loads((numbered / "run" / "metrics.json").read_text())
    assert facts["counts"]["test"]["unknown_test_items"] == 0


def test_counts_are_told_by_train_and_evaluate(files: Path, fastneg: Runner) -> None:
    line = "test.csv: 1 of 31 users and 1 of 24 items are unknown to train.csv"
    ran = fastneg(*TRAIN, "--test", "test.csv", "--valid", "valid.csv", "--refit")
    assert ran.code == 0, ran
    assert "valid.csv: 1 of 30 users and 0 of" in ran.out  # before the two became one
    assert line in ran.out
    ran = fastneg("evaluate", "run", "--train", "train.csv", "--test", "test.csv")
    assert line in ran.out
    ran = fastneg(*TRAIN, "--test", "test.csv", "--quiet", "--overwrite")
    assert (ran.code, ran.out) == (0, "")


def test_a_stated_share(files: Path, fastneg: Runner, refused: Refused) -> None:
    rows = [(f"u{n}", f"new{n}", 0) for n in range(NUM_USERS - 2)] + [
        ("u3", "i3", 1),
        ("u4", "i4", 1),
    ]
    write_csv(files / "late.csv", rows)
    said = refused(*TRAIN, "--test", "late.csv")
    assert (
        "late.csv shares 2 of its 30 items with the 24 of train.csv, 8.33% of the fewer, and "
        in said
    )
    assert "less than --min-shared 0.1 ('new0' here, 'i" in said
    assert fastneg(*TRAIN, "--test", "late.csv", "--min-shared", 0.05).code == 0
    command = (*TRAIN[:5], "--out", "another", "--test", "late.csv", "--min-shared", 2)
    assert "min_shared = 2.0 is too large" in refused(*command)


def test_sample_counts_the_users_of_its_list(
    files: Path, fastneg: Runner, refused: Refused
) -> None:
    (files / "users.txt").write_text("\ufeffu1\nu2 \nu1\n")
    command = ("sample", "--interactions", "train.csv", "--out", "drawn.parquet", "--users")
    assert "users.txt: 0 of 2 users are unknown to train.csv" in fastneg(*command, "users.txt").out
    (files / "upper.txt").write_text("U1\nU2\n")
    said = refused(*command, "upper.txt")
    assert (
        "'U1' is no user of the interactions (2 of 2 are not); 2 of 2 unknown ids differ by" in said
    )


def test_shares_are_of_the_smaller_file() -> None:
    few, many = Vocabulary(10), Vocabulary(1_000)
    a, b = Path("a"), Path("b")
    unknown_ids("items", a, many.ids(), b, few).check(1.0)
    unknown_ids("items", a, few.ids(), b, many).check(1.0)
    half = unknown_ids("items", a, [*range(5), *range(5_000, 5_005)], b, many)
    assert (half.unknown, half.number, half.known, half.shared) == (5, 10, 1_000, 0.5)
    half.check(0.5)
    with pytest.raises(FastnegError, match=r"a shares 5 of its 10 items with the 1,000 of b, 50"):
        half.check(0.51)
    UnknownIds("items", a, b, 0, 0, 5).check(1.0)  # nothing to compare


def test_zeros_on_the_other_side_are_seen() -> None:
    padded = Vocabulary(pa.array(["0042", "0007", "0x"], pa.large_string()))
    found = unknown_ids("users", Path("a"), [42, 7, 9], Path("b"), padded)
    assert found.unknown == 3
    assert found.hint == "; 2 of 3 unknown ids differ by leading zeros alone"


def test_parquet_of_integers_beside_text(files: Path, fastneg: Runner) -> None:
    """Integers of 19 digits in Parquet, their text in CSV."""
    ids = {f"u{n}": 1294030472427835393 + n for n in range(NUM_USERS)}
    rows = [(ids[user], item, time) for user, item, time in pairs()]
    known = [row for row in rows if row[2] < 9]
    pq.write_table(pa.table({"user": [u for u, *_ in known], "item": [i for _, i, _ in known]}),
                   files / "train.parquet")  # fmt: skip
    write_csv(files / "late.csv", [(str(u), i, t) for u, i, t in rows if t >= 9])
    command = [*TRAIN]
    command[2] = "train.parquet"
    ran = fastneg(*command, "--test", "late.csv")
    assert "late.csv: 0 of 30 users and 0 of 24 items are unknown to train.parquet" in ran.out
