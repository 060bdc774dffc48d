"""``fastneg sample``: draws in ids, streamed, the same whatever the blocks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from fastneg.commands import sample as command
from fastneg.interactions import Interactions
from fastneg.samplers.popularity import PopularitySampler
from tests.commands.conftest import NUM_ITEMS, NUM_USERS, Runner, write_csv

SAMPLE = ("sample", "--interactions", "train.csv", "--out", "s.parquet", "--num-negatives", 5)


def drawn() -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table("s.parquet").to_pydict()
    return found


def test_it_writes_what_the_sampler_draws_in_ids(fastneg: Runner, files: Path) -> None:
    ran = fastneg(*SAMPLE, "--sampler", "popularity", "--exponent", 0.5, "--seed", 9)
    assert ran.code == 0, ran.err
    assert "145 draws for 29 rows written to s.parquet" in ran.out
    train = Interactions.read("train.csv")
    users = np.arange(train.num_users)
    wanted = PopularitySampler(train, exponent=0.5, seed=9).sample(users, 5, rows=users)
    found = drawn()
    assert found["user"] == np.repeat(train.user_ids, 5).tolist()
    assert found["item"] == train.decode_items(wanted.items.numpy().ravel()).tolist()
    np.testing.assert_array_equal(
        np.array(found["log_q"], np.float32), wanted.log_q.numpy().ravel()
    )
    assert set(found["source"]) == {"popularity"}


def test_no_positive_is_drawn_and_the_table_widens_the_catalog(
    fastneg: Runner, files: Path
) -> None:
    assert fastneg(*SAMPLE[:-1], 200, "--items", "items.csv").code == 0
    lines = [line.split(",") for line in Path("train.csv").read_text().splitlines()[1:]]
    known = {(user, item) for user, item, _ in lines}
    found = drawn()
    assert not set(zip(found["user"], found["item"], strict=True)) & known
    assert set(found["item"]) == {f"i{i}" for i in range(NUM_ITEMS + 2)}


@pytest.mark.parametrize("users", ["all", "positives"])
def test_draws_do_not_depend_on_blocks(
    fastneg: Runner, files: Path, monkeypatch: pytest.MonkeyPatch, users: str
) -> None:
    found = []
    for at_once in (1 << 20, 35, 1):
        monkeypatch.setattr(command, "_DRAWS_AT_ONCE", at_once)
        assert fastneg(*SAMPLE, "--users", users).code == 0
        found.append(drawn())
    assert found[0] == found[1] == found[2]


def test_a_row_for_each_positive(fastneg: Runner, files: Path) -> None:
    assert fastneg(*SAMPLE, "--users", "positives", "--no-log-q").code == 0
    found = drawn()
    assert list(found) == ["user", "positive", "item", "source"]
    lines = [line.split(",") for line in Path("train.csv").read_text().splitlines()[1:]]
    assert found["user"] == [user for user, _, _ in lines for _ in range(5)]
    assert found["positive"] == [item for _, item, _ in lines for _ in range(5)]


def test_users_of_a_file(fastneg: Runner, files: Path) -> None:
    (files / "who.txt").write_text("u3\n\nu1\nu3\n")
    write_csv(files / "who.csv", [("u3", "x", 0), ("u1", "x", 0), ("u3", "x", 0)])
    assert fastneg(*SAMPLE, "--users", "who.txt").code == 0
    from_lines = drawn()
    assert from_lines["user"] == ["u3"] * 5 + ["u1"] * 5 + ["u3"] * 5
    assert from_lines["item"][:5] != from_lines["item"][10:]
    assert fastneg(*SAMPLE, "--users", "who.csv").code == 0
    assert drawn() == from_lines


def test_without_replacement(fastneg: Runner, files: Path) -> None:
    assert fastneg(*SAMPLE[:-1], 12, "--no-replacement").code == 0
    found = drawn()
    items = np.array(found["item"]).reshape(NUM_USERS - 1, 12)
    assert all(len(set(row)) == 12 for row in items)


def test_a_user_who_knows_every_item(
    fastneg: Runner, refused: Callable[..., str], files: Path
) -> None:
    rows = [("all", item, 0) for item in "abcd"] + [("one", "a", 0)]
    write_csv(files / "train.csv", rows)
    message = refused(*SAMPLE, "--exhausted", "raise")
    assert "1 users have too few items left to draw (ids 'all')" in message
    assert not Path("s.parquet").exists()
    ran = fastneg(*SAMPLE)
    assert ran.code == 0
    assert ran.err.startswith("warning: 1 rows of 1 users are left out")
    assert drawn()["user"] == ["one"] * 5
    ran = fastneg(*SAMPLE[:-1], 4, "--no-replacement")  # 3 items are left for the other one
    assert ran.err.startswith("warning: 2 rows of 2 users are left out")
    assert drawn() == {"user": [], "item": [], "log_q": [], "source": []}


def test_a_row_left_out_moves_no_other(fastneg: Runner, files: Path) -> None:
    rows = [("one", "a", 0)] + [("all", item, 0) for item in "abcd"] + [("two", "b", 0)]
    write_csv(files / "train.csv", rows)
    assert fastneg(*SAMPLE, "--sampler", "popularity").code == 0
    train = Interactions.read("train.csv")
    wanted = PopularitySampler(train).sample([0, 2], 5, rows=[0, 2]).items.numpy().ravel()
    assert drawn()["item"] == train.decode_items(wanted).tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--interactions", "nowhere.csv"), "nowhere.csv cannot be read: no such file"),
        (("--users", "nowhere.txt"), "nowhere.txt cannot be read: no such file"),
        (("--sampler", "best"), "sampler = 'best' is not one of 'uniform', 'popularity'"),
        (("--exhausted", "ignore"), "exhausted = 'ignore' is not one of 'drop', 'raise'"),
        (("--num-negatives", 0), "num_negatives = 0 is too small"),
        (("--epoch", -1), "epoch = -1 is too small"),
        (("--sampler", "popularity", "--smoothing", -1), "smoothing = -1.0 is too small"),
        (("--sampler", "popularity", "--exponent", "nan"), "exponent = nan is not finite"),
        (("--items", "items.csv", "--item-id-column", "id"), "items.csv has no column 'id'"),
        (("--out", "/proc/s.parquet"), "the output folder /proc cannot be written"),
        (("--out", "."), "the output file . is a folder"),
    ],
)
def test_bad_arguments_end_in_one_line(
    refused: Callable[..., str], files: Path, arguments: tuple[Any, ...], message: str
) -> None:
    assert message in refused(*SAMPLE, *arguments)


def test_unknown_users(refused: Callable[..., str], files: Path) -> None:
    (files / "who.txt").write_text("u1\nnobody\n")
    message = refused(*SAMPLE, "--users", "who.txt")
    assert "who.txt: 'nobody' is no user of the interactions (1 of 2 are not)" in message
    (files / "who.txt").write_text("\n")
    assert "who.txt holds no ids" in refused(*SAMPLE, "--users", "who.txt")
