"""Times of every type that interactions take, and what is none."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from fastneg.errors import FastnegError
from fastneg.interactions import Interactions
from fastneg.samplers.available import AvailableSampler
from fastneg.samplers.clock import as_clock, as_shown

MOMENTS = [dt.datetime(2024, 1, day, 12, tzinfo=dt.timezone.utc) for day in (1, 2, 3)]  # noqa: UP017
NAIVE = [moment.replace(tzinfo=None) for moment in MOMENTS]
DAYS = [moment.date() for moment in MOMENTS]
NUMBERS = [5, 7, 9]

KINDS: dict[str, Any] = {
    "integers": NUMBERS,
    "small integers": np.array(NUMBERS, np.int8),
    "unsigned": np.array(NUMBERS, np.uint64),
    "a tensor": torch.tensor(NUMBERS),
    "floats": [5.0, 7.5, 9.0],
    "float32": np.array([5.0, 7.5, 9.0], np.float32),
    "arrow integers": pa.array(NUMBERS),
    "chunks": pa.chunked_array([[5], [7, 9]]),
    "pandas integers": pd.Series(NUMBERS, dtype="Int64"),
    "polars integers": pl.Series(NUMBERS),
    "datetime64[D]": np.array(DAYS, "M8[D]"),
    "datetime64[ns]": np.array(NAIVE, "M8[ns]"),
    "dates": DAYS,
    "datetimes": NAIVE,
    "datetimes of UTC": MOMENTS,
    "datetimes of a zone": [m.astimezone(dt.timezone(dt.timedelta(hours=5))) for m in MOMENTS],
    "an object array": np.array(NAIVE, dtype=object),
    "pandas timestamps": [pd.Timestamp(moment) for moment in NAIVE],
    "pandas": pd.Series(NAIVE),
    "pandas with a zone": pd.Series(MOMENTS).dt.tz_convert("Asia/Tokyo"),
    "polars datetimes": pl.Series(NAIVE),
    "polars dates": pl.Series(DAYS),
    "arrow date32": pa.array(DAYS),
    "arrow date64": pa.array(DAYS, pa.date64()),
    "arrow seconds": pa.array(NAIVE, pa.timestamp("s")),
    "arrow with a zone": pa.array(MOMENTS, pa.timestamp("us", "Europe/Berlin")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_of_time_that_interactions_take(kind: str) -> None:
    values = KINDS[kind]
    theirs = Interactions.from_codes([0, 1, 2], [0, 1, 2], times=values).row_times
    clock, missing = as_clock(values, call="f", name="times")
    assert theirs is not None
    assert clock.dtype == theirs.dtype
    assert clock.tolist() == theirs.tolist()
    assert not missing.any()
    sampler = AvailableSampler([1.0, 1.0, 1.0], values, values)  # each is there at its own time
    assert sampler.sample([-1] * 3, 2, times=values).items.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert sampler.sample_shared(2, time=list(values)[1]).items.tolist() == [1, 1]
    q = sampler.log_q([[0], [1], [1]], [-1] * 3, times=values)
    assert q.tolist() == [[0.0], [0.0], [-np.inf]]


@pytest.mark.parametrize(
    "values",
    [
        [*NAIVE[:2], None], [*DAYS[:2], None], pd.Series([*NAIVE[:2], pd.NaT]),
        pa.array([5, 7, None]),
        pd.Series([5, 7, None], dtype="Int64"), [5, 7, None], [5.0, 7.0, np.nan], [5.0, 7.0, None],
        np.array(["2024-01-01", "2024-01-02", "NaT"], "M8[D]"),
    ],
)  # fmt: skip
def test_missing_ones_are_never_drawn_or_always_there(values: Any) -> None:
    times, missing = as_clock(values, call="f", name="times")
    assert missing.tolist() == [False, False, True]
    late = times[1:2] + 1
    never = AvailableSampler([1.0, 1.0, 1.0], values)
    assert never.sample([-1], 100, times=late).items.unique().tolist() == [0, 1]
    if not (isinstance(values, list) and values[-1] is None and values[0] == 5.0):
        first = np.minimum(times, times[0])
        first[2] = times[0]
        there = AvailableSampler([1.0, 1.0, 1.0], first, values)
        assert there.sample([-1], 100, times=late).items.unique().tolist() == [2]
    with pytest.raises(FastnegError, match=r"times\[2\] = .* is not a time"):
        never.sample([-1] * 3, 1, times=values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "b", "c"], "times is of type string, neither numbers nor dates"),
        (np.array(["a", "b", "c"]), "times .* neither numbers nor dates"),
        ([True, False, True], "neither numbers nor dates"),
        ("abc", "times = 'abc' is not a column of times"),
        (3, "times .* has 0 dimensions; 1 expected"),
        (object(), "times = .* is not a column of times"),
        ([dt.timedelta(1)] * 3, "neither numbers nor dates"),
        ([5, DAYS[0], 7], "is not a column of times"),
        (np.zeros((3, 1)), "has 2 dimensions; 1 expected"),
        ([dt.date(1500, 1, 1)] * 3, "times"),
        (None, "times"),
    ],
)
def test_what_is_no_time(values: Any, message: str) -> None:
    with pytest.raises(FastnegError, match=message):
        as_clock(values, call="f", name="times")
    if values is not None:
        with pytest.raises(FastnegError, match="sample"):
            AvailableSampler([1.0, 1.0, 1.0], DAYS).sample([-1] * 3, 1, times=values)


def test_as_shown() -> None:
    day = np.datetime64("2024-01-01")
    assert as_shown(day, dates=True) == "2024-01-01T00:00:00"
    assert as_shown(day, dates=False).endswith("0 (1704067200000000000 nanoseconds since 1970)")
    assert as_shown(np.int64(3), dates=False) == "3"
    assert as_shown(np.int64(3), dates=True).endswith("00.000000003 (3 nanoseconds since 1970)")
    assert as_shown(2.5, dates=True) == "2.5"
