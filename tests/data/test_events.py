"""Events: rows with a context, with and without users, read alike, selected, appended."""

from __future__ import annotations

import doctest
import pickle
from pathlib import Path

import numpy as np
import pytest

from fastneg.data import events as module
from fastneg.data.events import Events, read_events
from fastneg.data.features import FeatureTable
from fastneg.data.splits import hold_out_validation
from fastneg.errors import FastnegError
from fastneg.interactions import Interactions

TRAIN = {
    "user": ["ann", None, "bob", "ann", " "],
    "item": [7, 7, 9, 9, 5],
    "hour": [8, 20, 9, 10, None],
    "device": ["tv", "phone", "tv", "", "phone"],
    "query": ["red Shoes", None, "shoes", "hat hat", "red"],
}
CONTEXT = ("hour", "device", "query")


def train_events() -> Events:
    return read_events(TRAIN, context=CONTEXT, kinds={"query": "text"}, item_ids=[5, 6, 7, 9])


def test_doctest() -> None:
    assert doctest.testmod(module).failed == 0


def test_rows_without_a_user_are_users_of_their_own() -> None:
    events = train_events()
    assert events.row_users.tolist() == [0, 2, 1, 0, 3]
    assert (events.num_users, events.num_known_users) == (4, 2)
    assert events.user_ids.tolist() == ["ann", "bob", "(no user) 2", "(no user) 3"]
    assert events.row_items.tolist() == [2, 2, 3, 3, 0]
    assert events.positives_of(2).tolist() == [2]
    assert events.context.numeric["hour"].tolist()[4] == 0
    assert events.context.multi["query"].categories == ("hat", "red", "shoes")
    assert events.context.multi["query"].indptr.tolist() == [0, 2, 2, 3, 4, 5]
    assert events.context.categorical["device"].codes.tolist() == [1, 0, 1, -1, 0]


def test_another_file_is_encoded_as_the_training_events() -> None:
    train = train_events()
    other = read_events(
        {"user": ["bob", None, "zoe"], "item": [9, 4, 5], "hour": [8, 100, None],
         "device": ["tv", "watch", "phone"], "query": ["SHOES blue", "hat", None]},
        context=CONTEXT, like=train,
    )  # fmt: skip
    assert other.row_users.tolist() == [1, 5, 4]  # zoe is new, then the row without a user
    assert other.num_known_users == train.num_known_users == 2
    assert other.row_items.tolist() == [3, 4, 0]
    assert other.context.categorical["device"].codes.tolist() == [1, -1, 0]
    assert other.context.multi["query"].codes.tolist() == [2, 0]
    mean, deviation = train.context.scales["hour"]
    np.testing.assert_allclose(
        other.context.numeric["hour"], [(8 - mean) / deviation, (100 - mean) / deviation, 0],
        rtol=1e-6,
    )  # fmt: skip


def test_integer_ids_no_user_column_and_text_files(tmp_path: Path) -> None:
    events = read_events({"user": [3, None, 8], "item": [1, 2, 2], "h": [1, 2, 3]}, context=["h"])
    assert events.user_ids.tolist() == [3, 8, -1]
    nobody = read_events({"item": [1, 2, 2], "h": ["a", "b", "a"]}, context=["h"])
    assert nobody.row_users.tolist() == [1, 2, 3]
    assert nobody.num_known_users == 1
    assert nobody.positives_of(0).size == 0
    again = read_events({"item": [2, 1], "h": ["b", "c"]}, context=["h"], like=nobody)
    assert again.row_users.tolist() == [4, 5]
    assert again.context.categorical["h"].codes.tolist() == [1, -1]
    path = tmp_path / "e.csv"
    path.write_text("who,item,h,when\n1,10,3,5\n,11,4,6\n2,10,,7\n")
    read = read_events(path, context=["h"], user_column="who", time_column="when")
    assert read.row_users.tolist() == [0, 2, 1]
    assert read.row_times is not None
    assert read.row_times.tolist() == [5, 6, 7]


def test_select_append_and_fingerprint() -> None:
    events = train_events()
    part = events.select(np.array([True, False, True, True, False]))
    assert isinstance(part, Events)
    assert part.row_users.tolist() == [0, 1, 0]
    assert part.num_known_users == 2
    assert part.context.multi["query"].codes.tolist() == [1, 2, 2, 0]
    both = part.append(["ann"], [5], context=events.context.select([4]))
    assert both.context.multi["query"].codes.tolist() == [1, 2, 2, 0, 1]
    assert both.context.categorical["device"].codes.tolist() == [1, 1, -1, 0]
    bare = part.append(["ann"], [5])
    assert bare.context.categorical["device"].codes.tolist() == [1, 1, -1, -1]
    assert bare.context.multi["query"].indptr.tolist() == [0, 2, 3, 4, 4]
    assert both.fingerprint() != bare.fingerprint()
    assert events.fingerprint() == train_events().fingerprint()
    assert pickle.loads(pickle.dumps(events)).fingerprint() == events.fingerprint()  # noqa: S301


def test_splits_keep_the_context() -> None:
    users, items = np.repeat(np.arange(3), 10), np.tile(np.arange(10), 3)
    plain = Interactions.from_codes(users, items, times=np.arange(30))
    features = FeatureTable.from_rows(
        {"row": [f"{u}/{i}" for u, i in zip(users, items, strict=True)]},
        columns={"row": "categorical"},
    )
    train, validation = hold_out_validation(Events.of(plain, features))
    for part in (train, validation):
        assert isinstance(part, Events)
        column = part.context.categorical["row"]
        names = [column.categories[code] for code in column.codes]
        assert names == [f"{u}/{i}" for u, i in zip(part.row_users, part.row_items, strict=True)]


def test_errors(tmp_path: Path) -> None:
    events = train_events()
    plain = Interactions.from_codes([0], [0])
    with pytest.raises(FastnegError, match="the context has 5 rows; 1 expected"):
        Events.of(plain, events.context)
    with pytest.raises(FastnegError, match="there is no context"):
        Events.from_codes([0], [0])
    with pytest.raises(FastnegError, match="num_known_users = 9"):
        Events.of(plain, events.context.select([0]), num_known_users=9)
    with pytest.raises(FastnegError, match="there are new users"):
        events.append(["zoe"], [5])
    with pytest.raises(FastnegError, match="other columns"):
        events.append(["ann"], [5], context=FeatureTable.from_rows({"x": [1]}))
    with pytest.raises(FastnegError, match="the context would be lost"):
        events.save(tmp_path)
    with pytest.raises(FastnegError, match="has no column 'age'; its columns are user, item"):
        read_events(TRAIN, context=["age"])
    with pytest.raises(FastnegError, match="has no column 'who'"):
        read_events(TRAIN, context=["hour"], user_column="who")
    with pytest.raises(FastnegError, match="context names no column"):
        read_events(TRAIN, context=[])
