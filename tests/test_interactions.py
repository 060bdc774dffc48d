from __future__ import annotations

import doctest
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastneg import interactions
from fastneg.errors import FastnegError, FastnegTypeError, UnknownIdError
from fastneg.interactions import Interactions
from tests.naive import interactions as naive

USERS = ["ann", "bob", "ann", "cy"]
ITEMS = [10, 20, 20, 30]
WEIGHTS = [1.0, 0.0, 2.0, -1.0]
SECONDS = [5, 6, 7, 8]
COLUMNS = {
    "user_column": "who",
    "item_column": "what",
    "weight_column": "stars",
    "time_column": "when",
}


def frame() -> pd.DataFrame:
    when = pd.to_datetime(SECONDS, unit="s")
    return pd.DataFrame({"who": USERS, "what": ITEMS, "stars": WEIGHTS, "when": when})


def assert_example(made: Interactions, scale: int = 10**9) -> None:
    assert made.user_ids.tolist() == ["ann", "bob", "cy"]
    assert made.item_ids.tolist() == [10, 20, 30]
    assert made.row_users.tolist() == [0, 1, 0, 2]
    assert made.row_items.tolist() == [0, 1, 1, 2]
    assert made.row_weights is not None
    assert made.row_weights.tolist() == WEIGHTS
    assert made.row_times is not None
    assert made.row_times.tolist() == [second * scale for second in SECONDS]
    assert made.row_times.dtype == np.int64
    assert (made.num_rows, made.num_positive_rows, made.num_positives) == (4, 2, 2)
    assert [part.tolist() for part in made.explicit_negatives()] == [[1, 2], [1, 2]]


def test_from_pairs_of_every_kind_of_column() -> None:
    weights, times = np.array(WEIGHTS), np.array(SECONDS)
    for users in (
        USERS,
        tuple(USERS),
        np.array(USERS),
        np.array(USERS, object),
        pd.Series(USERS),
        pl.Series(USERS),
        pa.array(USERS),
        pa.chunked_array([USERS[:2], USERS[2:]]),
        pd.Series(USERS, dtype="category"),
        pl.Series(USERS, dtype=pl.Categorical),
        [user.encode() for user in USERS],
    ):
        for items in (ITEMS, np.array(ITEMS, np.uint16), torch.tensor(ITEMS), pl.Series(ITEMS)):
            made = Interactions.from_pairs(users, items, weights=weights, times=times)
            assert_example(made, scale=1)


@pytest.mark.parametrize("kind", ["pandas", "nullable", "polars", "categorical", "arrow", "batch"])
def test_from_table_of_every_kind_of_frame(kind: str) -> None:
    table = {
        "pandas": frame,
        "nullable": lambda: frame().convert_dtypes(),
        "polars": lambda: pl.from_pandas(frame()),
        "categorical": lambda: pl.from_pandas(frame()).with_columns(
            pl.col("who").cast(pl.Enum(["cy", "bob", "ann"]))
        ),
        "arrow": lambda: pa.Table.from_pandas(frame()),
        "batch": lambda: pa.RecordBatch.from_pandas(frame()),
    }[kind]()
    assert_example(Interactions.from_table(table, **COLUMNS))


def test_from_table_takes_anything_with_the_arrow_stream_protocol() -> None:
    class Stream:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            return pa.Table.from_pandas(frame()).__arrow_c_stream__(requested_schema)

    assert_example(Interactions.from_table(Stream(), **COLUMNS))


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz", "x.tsv", "x.parquet", "x.feather"])
def test_read_dispatches_on_the_suffix(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if ".parquet" in name:
        frame().to_parquet(path)
    elif ".feather" in name:
        frame().to_feather(path)
    else:
        frame().to_csv(path, index=False, sep="," if ".csv" in name else "\t")
    assert_example(Interactions.read(path, **COLUMNS))
    assert_example(Interactions.from_table(str(path), **COLUMNS))


def test_read_adjacency_npz_and_saved_folders(tmp_path: Path) -> None:
    text = tmp_path / "train.txt"
    text.write_text("0 5 3 \n7\n\n2\t3 9\r\n")
    made = Interactions.read(text)
    assert made.user_ids.tolist() == [0, 7, 2]
    assert made.item_ids.tolist() == [5, 3, 9]
    assert made.user_positive_counts.tolist() == [2, 0, 2]
    made.save(tmp_path / "saved")
    assert Interactions.read(tmp_path / "saved").fingerprint() == made.fingerprint()
    sp.save_npz(tmp_path / "m.npz", sp.csr_matrix([[0, 1, 0], [1, 0, 1]]))
    assert Interactions.read(tmp_path / "m.npz").num_positives == 3
    with pytest.raises(FastnegError, match=r"m.npz has no named columns \(user_column given\)"):
        Interactions.read(tmp_path / "m.npz", user_column="u")


def test_a_text_file_keeps_ids_that_only_look_like_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("user,item\n007,1\n7,2\n")
    made = Interactions.from_table(path)
    assert made.user_ids.tolist() == ["007", "7"]
    assert made.item_ids.tolist() == [1, 2]
    headless = tmp_path / "u.data"
    headless.write_text("196\t242\t3\n186\t302\t3\n")
    made = Interactions.from_table(headless, delimiter="\t", column_names=["user", "item", "r"])
    assert made.user_ids.tolist() == [196, 186]


def test_the_catalog_is_the_union_of_table_and_rows() -> None:
    made = Interactions.from_pairs(["a", "b"], [7, 5], item_ids=[9, 7], user_ids=["z", "b"])
    assert made.item_ids.tolist() == [9, 7, 5]
    assert made.user_ids.tolist() == ["z", "b", "a"]
    assert made.item_user_counts.tolist() == [0, 1, 1]
    assert made.row_items.tolist() == [1, 2]


def test_from_codes_and_from_csr_agree() -> None:
    generator = np.random.default_rng(0)
    matrix = sp.random_array((9, 7), density=0.4, rng=generator, format="csr")
    matrix.data[:] = np.rint(matrix.data * 4 - 1)
    coo = matrix.tocoo()
    one = Interactions.from_csr(matrix)
    two = Interactions.from_codes(coo.row, coo.col, num_users=9, num_items=7, weights=coo.data)
    assert one.fingerprint() == two.fingerprint()
    for form in (matrix.tocsc(), matrix.tocoo(), sp.csr_matrix(matrix)):
        assert Interactions.from_csr(form).fingerprint() == one.fingerprint()
    assert Interactions.from_codes([0, 4], [2, 1]).num_users == 5


def test_arrays_are_read_only_and_not_the_callers() -> None:
    users, items = np.array([0, 1]), np.array([1, 0])
    times, weights = np.array([1, 2]), np.array([1, 1], np.float32)
    made = Interactions.from_codes(users, items, times=times, weights=weights)
    paired = Interactions.from_pairs(users, items, times=times, weights=weights)
    for array in (users, items, times, weights):
        array[:] = 0
    for one in (made, paired, pickle.loads(pickle.dumps(made))):  # noqa: S301
        assert one.row_times is not None
        assert one.row_times.tolist() == [1, 2]
        assert one.decode_items(one.row_items).tolist() == [1, 0]
        for name in (
            "row_users",
            "row_items",
            "row_times",
            "row_weights",
            "positive_items",
            "positive_rows",
            "positive_indptr",
            "positive_weights",
            "positive_times",
            "item_indptr",
            "item_users",
            "item_user_counts",
            "item_event_counts",
            "user_ids",
            "user_positive_counts",
        ):
            with pytest.raises(ValueError, match="read-only"):
                getattr(one, name)[0] = 1


def test_times_of_every_kind() -> None:
    stamps = np.array(["1970-01-01T00:00:01", "1970-01-02"], "datetime64[s]")
    nanoseconds = [10**9, 86_400 * 10**9]
    for times in (
        stamps,
        stamps.astype("datetime64[ns]"),
        pa.array(stamps),
        pl.Series(stamps.astype("datetime64[us]")),
        pd.Series(stamps),
        stamps.astype(object).tolist(),
        pd.Series(stamps).dt.tz_localize("UTC"),
    ):
        made = Interactions.from_pairs([1, 2], [1, 2], times=times)
        assert made.row_times is not None
        assert made.row_times.tolist() == nanoseconds
    made = Interactions.from_pairs([1, 2], [1, 2], times=[0.5, 2])
    assert made.row_times is not None
    assert made.row_times.dtype == np.float64


rows_of_codes = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(0, 7),
        st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0]),
        st.integers(-3, 3),
    ),
    min_size=1,
    max_size=60,
)


@given(rows_of_codes, st.booleans(), st.booleans())
def test_positives_equal_the_naive_twin(
    rows: list[tuple[int, int, float, int]], weighted: bool, timed: bool
) -> None:
    users, items, weights, times = (list(column) for column in zip(*rows, strict=True))
    made = Interactions.from_codes(
        users,
        items,
        num_users=6,
        num_items=8,
        weights=weights if weighted else None,
        times=times if timed else None,
    )
    known = naive.positives(users, items, weights if weighted else None, times if timed else None)
    for user in range(6):
        own = known.get(user, {})
        span = slice(made.positive_indptr[user], made.positive_indptr[user + 1])
        assert made.positives_of(user).tolist() == sorted(own)
        assert made.positive_weights[span].tolist() == [own[item][0] for item in sorted(own)]
        if timed:
            assert made.positive_times is not None
            assert made.positive_times[span].tolist() == [own[item][1] for item in sorted(own)]
    fans = [sorted(user for user in known if item in known[user]) for item in range(8)]
    for item in range(8):
        span = slice(made.item_indptr[item], made.item_indptr[item + 1])
        assert made.item_users[span].tolist() == fans[item]
    assert made.item_user_counts.tolist() == [len(users_of) for users_of in fans]
    events = [
        item for item, weight in zip(items, weights, strict=True) if weight > 0 or not weighted
    ]
    assert made.item_event_counts.tolist() == [events.count(item) for item in range(8)]
    assert made.positive_items.dtype == made.positive_indptr.dtype == np.int64


ids = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30),
    st.lists(st.integers(-20, 20), min_size=1, max_size=30),
    st.lists(st.text(max_size=4), min_size=1, max_size=30),
)


@given(ids, ids)
def test_ids_survive_the_way_to_codes_and_back(users: list[object], items: list[object]) -> None:
    length = min(len(users), len(items))
    users, items = users[:length], items[:length]
    made = Interactions.from_pairs(users, items)
    own, codes = naive.codes_by_appearance(items)
    assert made.item_ids.tolist() == own
    assert made.row_items.tolist() == codes
    assert made.decode_users(made.row_users).tolist() == users
    assert made.encode_items(items).tolist() == codes
    assert made.encode_items(made.item_ids).tolist() == list(range(len(own)))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20),
    st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=20),
)
def test_append_never_changes_a_code(
    old: list[tuple[int, int]], new: list[tuple[int, int]]
) -> None:
    first = Interactions.from_pairs([u for u, _ in old], [f"i{i}" for _, i in old])
    both = first.append([u for u, _ in new], [f"i{i}" for _, i in new])
    whole = Interactions.from_pairs([u for u, _ in old + new], [f"i{i}" for _, i in old + new])
    assert both.user_ids[: first.num_users].tolist() == first.user_ids.tolist()
    assert both.fingerprint() == whole.fingerprint()
    assert both.positive_items.tolist() == whole.positive_items.tolist()


def test_append_fills_weights_and_asks_for_times() -> None:
    made = Interactions.from_codes([0], [0]).append([1], [5], weights=[0])
    assert made.row_weights is not None
    assert made.row_weights.tolist() == [1, 0]
    assert made.item_ids.tolist() == [0, 5]
    timed = Interactions.from_pairs([0], [0], times=[1])
    with pytest.raises(FastnegError, match="append: the old rows have times"):
        timed.append([1], [1])
    with pytest.raises(FastnegError, match="append: the old rows have no times"):
        made.append([1], [1], times=[2])
    with pytest.raises(FastnegTypeError, match=r"items\[0\] = 'x' is a string, known_ids are int"):
        made.append([1], ["x"])


def test_select_keeps_codes() -> None:
    made = Interactions.from_pairs(USERS, ITEMS, weights=WEIGHTS, times=SECONDS)
    part = made.select(np.array([False, False, True, False]))
    assert (part.num_users, part.num_items, part.num_rows) == (3, 3, 1)
    assert part.positives_of(0).tolist() == [1]
    assert made.select([3, 0]).row_items.tolist() == [2, 0]
    assert made.select(np.zeros(4, bool)).num_positives == 0
    with pytest.raises(FastnegError, match=r"select: rows\[1\] = 4 is not a code in 0..3"):
        made.select([0, 4])
    with pytest.raises(FastnegError, match="is no mask of 4 rows"):
        made.select(np.array([True]))


def test_encode_known_and_unknown() -> None:
    made = Interactions.from_pairs(["a", "b"], [3, 1_000_000_007])
    assert made.encode_users(["b", "x"], unknown=-1).tolist() == [1, -1]
    assert made.encode_items(["3", "03", "y"], unknown=-1).tolist() == [0, -1, -1]
    with pytest.raises(UnknownIdError, match=r"encode_items: ids\[1\] = 4 is not known \(1 of 2"):
        made.encode_items([3, 4])
    with pytest.raises(FastnegError, match='unknown = 0; give "raise" or -1'):
        made.encode_items([3], unknown=0)
    with pytest.raises(FastnegError, match=r"decode_items: codes\[0\] = 2 is not a code in 0..1"):
        made.decode_items([2])
    assert made.decode_items([[0, 1], [1, 0]]).shape == (2, 2)
    codes = Interactions.from_codes([0, 1], [0, 1])
    assert codes.encode_items([1, 2], unknown=-1).tolist() == [1, -1]


def test_bad_columns_are_refused_with_their_position() -> None:
    def refused(match: str, **columns: object) -> None:
        with pytest.raises(FastnegError, match=match):
            Interactions.from_pairs(**{"users": [1, 2], "items": [1, 2], **columns})

    refused(r"users mixes types: users\[0\] = 1 is int, users\[1\] = 'a' is str", users=[1, "a"])
    refused(r"users\[1\] is null \(1 of 2 are\)", users=[1, None])
    refused(r"items\[0\] is null", items=pd.Series([None, "a"]))
    refused("users is of type double; ids are integers or strings; missing", users=[1.0, 2.0])
    refused("users is of type bool", users=[True, False])
    refused("items = 'ab' is one id", items="ab")
    refused("users is of type int; give a sequence", users=3)
    refused("2 dimensions; 1 expected", users=np.ones((2, 2), int))
    refused("users has 2, items has 1", items=[1])
    refused("weights has 3", weights=[1, 2, 3])
    refused(r"weights\[1\] = nan is not finite", weights=[1, np.nan])
    refused(r"weights\[1\] = inf is not finite", weights=[1, np.inf])
    refused(r"weights\[1\] is null", weights=[1, None])
    refused(r"weights\[0\] = 1e-60 is beyond float32", weights=[1e-60, 1])
    refused("weights is of type string", weights=["a", "b"])
    refused(r"times\[0\] = inf is not finite", times=[np.inf, 1])
    refused(r"times\[1\] is null", times=np.array(["1970-01-01", "NaT"], "datetime64[s]"))
    refused("times is of type string", times=["a", "b"])
    refused(r"item_ids\[2\] = 4 occurs twice", item_ids=[4, 5, 4])
    refused(r"item_ids\[0\] = 'x' is a string, items are integers", item_ids=["x", "y"])
    refused("users and items are empty", users=[], items=[])
    refused(r"users\[0\] = 9223372036854775808 cannot be an id", users=[2**63, 1])
    with pytest.raises(FastnegError, match=r"from_codes: users\[0\] = -1 is not a code in 0..0"):
        Interactions.from_codes([-1], [0])
    with pytest.raises(FastnegTypeError, match="codes are integers"):
        Interactions.from_codes(["a"], [0])
    with pytest.raises(FastnegError, match="items is empty and num_items is not given"):
        Interactions.from_codes([], [], num_users=3)
    with pytest.raises(FastnegError, match="add up to"):
        assert Interactions.from_codes([0, 0], [0, 0], weights=[3e38, 3e38]).num_positives
    made = Interactions.from_codes([0], [0])
    with pytest.raises(FastnegError, match="positives_of: user = 1 is too large"):
        made.positives_of(1)


def test_a_real_set(shared_data: Path) -> None:
    made = Interactions.from_csr(shared_data / "gowalla" / "train.npz")
    assert (made.num_users, made.num_items, made.num_positives) == (29_858, 40_981, 810_128)
    matrix = sp.load_npz(shared_data / "gowalla" / "train.npz")
    generator = np.random.default_rng(3)
    users, items = generator.integers(0, 29_858, 300), generator.integers(0, 40_981, 700)
    expected = np.asarray(matrix[users][:, items].todense()) > 0
    assert np.array_equal(made.positive_mask(users, items).numpy(), expected)


def test_the_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(interactions)
    assert (result.failed, result.attempted > 0) == (0, True)
