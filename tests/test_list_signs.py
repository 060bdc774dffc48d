"""Ragged lines that are not a user and its items: times, ratings, counts at an end of the lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastneg import Interactions
from fastneg.errors import FileFormatError
from fastneg.list_signs import sign_of_a_column, sign_of_a_field

Lines = list[list[int]]
NUM_LINES = 60


def _sign(lines: Lines) -> str | None:
    lengths = np.array([len(line) for line in lines], np.int64)
    starts = np.cumsum(lengths) - lengths
    return sign_of_a_field(np.concatenate(lines).astype(float), starts, lengths)


def _lists(rng: np.random.Generator, num_lines: int, order: str, ids: str, law: str) -> Lines:
    """A user and 0 to 9 items a line, of 300; popular ones more often."""
    names = {
        "dense codes": np.arange(300),
        "codes without an order": rng.permutation(300),
        "sparse ids": rng.integers(0, 10**9, 300),
        "ids of 10 digits": rng.integers(10**9, 10**10, 300),
        "ids of 13 digits": rng.integers(10**12, 10**13, 300),
        "ids like times": rng.integers(1_600_000_000, 1_700_000_000, 300),
        "codes as they appear": np.arange(300),
    }[ids]
    shares = np.ones(300) if law == "uniform" else 1 / np.arange(1, 301)
    lines: Lines = []
    codes: dict[int, int] = {}
    for user in range(num_lines):
        items = rng.choice(300, int(rng.integers(0, 10)), replace=False, p=shares / shares.sum())
        if ids == "codes as they appear":
            items = np.array([codes.setdefault(item, len(codes)) for item in items], np.int64)
        items = names[items]
        if order != "any":
            items = np.sort(items)[:: -1 if order == "falling" else 1]
        lines.append([user, *items.tolist()])
    return lines


@pytest.mark.parametrize("order", ["any", "rising", "falling"])
@pytest.mark.parametrize(
    "ids",
    ["dense codes", "codes without an order", "sparse ids", "ids of 10 digits", "ids of 13 digits",
     "ids like times", "codes as they appear"],
)  # fmt: skip
def test_lists_of_items_have_no_sign(order: str, ids: str) -> None:
    for seed in range(20):
        for law in ("uniform", "popular"):
            rng = np.random.default_rng(seed)
            assert _sign(_lists(rng, int(rng.integers(10, 200)), order, ids, law)) is None


@pytest.mark.parametrize("dataset", ["gowalla", "yelp2018", "ml-1m"])
@pytest.mark.parametrize("order", ["as published", "sorted", "shuffled"])
def test_published_lists_have_no_sign(dataset: str, order: str, shared_data: Path) -> None:
    seen = Interactions.read(shared_data / dataset / "train.npz")
    rng = np.random.default_rng(0)
    lines: Lines = [[user] for user in range(seen.num_users)]
    for user, item in zip(seen.row_users.tolist(), seen.row_items.tolist(), strict=True):
        lines[user].append(item)
    if order == "sorted":
        lines = [[line[0], *sorted(line[1:])] for line in lines]
    if order == "shuffled":
        lines = [[line[0], *rng.permutation(line[1:]).tolist()] for line in lines]
    for num_lines in (2, 3, 10, 100, 1000, len(lines)):
        assert _sign(lines[:num_lines]) is None


@pytest.mark.parametrize(
    "lines",
    [
        [[0, 1, 2, 3], [1, 2, 4]],
        [[1, 2, 3], [2, 3]],
        [[0], [1, 5, 6], [2, 7]],
        [[1, 10, 20, 30], [2, 40, 50], [3, 60]],
        [[7, 1001, 5], [8, 2002]],
        [[0, 0, 1, 2, 3, 4], [1, 5, 6, 7], [2, 0, 8]],
        [[1], [2, 3]],
    ],
)
def test_short_lists_have_no_sign(lines: Lines) -> None:
    assert _sign(lines) is None


def _numbers(rng: np.random.Generator, kind: str, size: int) -> list[int]:
    days = 20_230_100 + 100 * rng.integers(0, 12, size) + rng.integers(1, 29, size)
    made: dict[str, Any] = {
        "seconds": 1_700_000_000 + rng.integers(0, 10**7, size),
        "seconds in order": 1_700_000_000 + np.arange(size),
        "seconds of 1997": rng.integers(874_724_710, 893_286_638, size),
        "milliseconds": 1_700_000_000_000 + rng.integers(0, 10**10, size),
        "nanoseconds": 10**9 * (1_700_000_000 + rng.integers(0, 10**7, size)),
        "dates": days,
        "dates with seconds": days * 1_000_000 + rng.integers(0, 60, size),
        "days": 738_000 + rng.integers(0, 400, size),
        "years": rng.integers(1990, 2021, size),
        "ratings": rng.integers(1, 6, size),
        "labels": rng.integers(0, 2, size),
        "always 7": np.full(size, 7),
    }
    return made[kind].tolist()


def _with(lines: Lines, field: list[int], place: str) -> Lines:
    if place == "last":
        return [[*line, one] for line, one in zip(lines, field, strict=True)]
    return [[line[0], one, *line[1:]] for line, one in zip(lines, field, strict=True)]


SCALES = ["seconds", "seconds in order", "milliseconds", "nanoseconds", "dates",
          "dates with seconds"]  # fmt: skip
OTHERS = ["seconds of 1997", "days", "years", "ratings", "labels", "always 7"]


@pytest.mark.parametrize("place", ["last", "second"])
@pytest.mark.parametrize("kind", [*SCALES, *OTHERS])
@pytest.mark.parametrize("ids", ["codes without an order", "sparse ids"])
def test_a_field_of_another_kind_is_found(kind: str, place: str, ids: str) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        lists = _lists(rng, NUM_LINES, "any", ids, "popular")
        found = _sign(_with(lists, _numbers(rng, kind, NUM_LINES), place))
        assert found is not None
        assert kind not in SCALES or f"the {place} fields of its lines look like times" in found


@pytest.mark.parametrize("place", ["last", "second"])
@pytest.mark.parametrize("kind", SCALES)
@pytest.mark.parametrize("order", ["any", "rising"])
def test_times_are_found_on_few_lines(kind: str, place: str, order: str) -> None:
    for seed in range(10):
        rng = np.random.default_rng(seed)
        for num_lines in (3, 5, 10):
            lists = _lists(rng, 12, order, "sparse ids", "uniform")
            lists = [line for line in lists if len(line) > 1][:num_lines]
            found = _sign(_with(lists, _numbers(rng, kind, len(lists)), place))
            assert found is not None
            assert "times" in found


def test_times_between_the_items_are_found() -> None:
    rng = np.random.default_rng(0)
    lists = _lists(rng, NUM_LINES, "any", "dense codes", "popular")
    lines = [
        [line[0], *(x for item in line[1:] for x in (item, *_numbers(rng, "seconds", 1)))]
        for line in lists
    ]
    assert "times" in str(_sign(lines))


def test_a_count_of_the_items_is_found() -> None:
    lines = [[9, 3, 5, 6, 7], [8, 1, 5], [7, 0], [6, 2, 9, 1]]
    assert _sign(lines) == "the second field of every line counts the fields behind it"


def test_numbers_beyond_all_types_are_no_error() -> None:
    assert _sign([[1, 10**308, 2], [3, 4, 5, 6]]) is None


def test_columns_of_lines_of_one_length() -> None:
    rng = np.random.default_rng(0)
    items = np.array([rng.choice(300, 9, replace=False) for _ in range(NUM_LINES)])
    lists = np.column_stack([np.arange(NUM_LINES), items]).astype(float)
    assert sign_of_a_column(lists) is None
    lists[:, 1:].sort()
    assert sign_of_a_column(lists) is None
    rated = np.column_stack([np.arange(NUM_LINES), items, rng.integers(1, 6, NUM_LINES)])
    assert "is unlike the one beside it" in str(sign_of_a_column(rated.astype(float)))


@pytest.mark.parametrize("place", ["last", "second"])
def test_it_is_refused_with_the_remedy(place: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lists = _lists(rng, 40, "any", "dense codes", "popular")
    lines = _with(lists, _numbers(rng, "seconds", 40), place)
    path = tmp_path / "sessions.txt"
    path.write_text("".join(" ".join(map(str, line)) + "\n" for line in lines))
    with pytest.raises(FileFormatError, match=f"the {place} fields of its lines look like times"):
        Interactions.read(path)
    with pytest.raises(FileFormatError, match=r"format='adjacency' \(--format adjacency\)"):
        Interactions.read(path)
    asked = Interactions.read(path, format="adjacency")
    assert asked.num_rows == sum(len(line) - 1 for line in lines)
