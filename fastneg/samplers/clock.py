"""Times as samplers compare them: int64 (dates are nanoseconds since 1970) or float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import AnyArray, describe, fail, shown
from fastneg.columns import plain_column, to_arrow, to_numpy_column
from fastneg.errors import FastnegError, FastnegTypeError, one_line
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")

_LAST = np.iinfo(np.int64).max


def read_times(values: Any, *, call: str, name: str) -> tuple[AnyArray, npt.NDArray[np.bool_]]:
    """Times of any type that ``Interactions`` takes, and which of them are missing.

    Numbers and datetime64 as they are; dates, datetimes, time zones, pandas, polars and Arrow
    columns as datetime64[ns] (of UTC), int64 or float64.

    Raises:
        FastnegTypeError: neither numbers nor dates.
        FastnegError: dates that nanoseconds cannot hold.
    """
    array = _plain(values)
    if array is None:
        array, missing = _of_column(values, call, name)
    elif array.dtype.kind == "M":
        missing = np.isnat(array)
    elif array.dtype.kind == "f":
        missing = np.isnan(array)
    else:
        missing = np.zeros(array.shape, dtype=np.bool_)
    if array.ndim != 1:
        fail(call, f"{describe(name, array)} has {array.ndim} dimensions; 1 expected")
    return array, missing


def _plain(values: Any) -> AnyArray | None:
    """Numbers and datetime64 as an array; None for whatever Arrow has to read."""
    try:
        if hasattr(values, "detach"):  # a torch tensor, without importing torch
            values = values.detach().cpu().numpy()
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError, OverflowError):
        return None
    if array.dtype.kind in "iufM":
        return array
    return None


def _of_column(values: Any, call: str, name: str) -> tuple[AnyArray, npt.NDArray[np.bool_]]:
    what = "give numbers, dates or datetimes"
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        raise FastnegTypeError(
            f"{call}: {describe(name, values)} are neither numbers nor dates; {what}"
        )
    try:
        column = plain_column(to_arrow(values, call, name))
    except (FastnegError, TypeError, pa.ArrowException) as error:
        reason = one_line(error).removeprefix(f"{call}: ")
        raise FastnegTypeError(
            f"{call}: {name} = {shown(values)} is not a column of times ({reason}); {what}"
        ) from error
    kind = column.type
    missing = np.array(to_numpy_column(column.is_null()), dtype=np.bool_)
    try:
        if pa.types.is_date(kind):
            column = column.cast(pa.timestamp("s"), safe=False)
            kind = column.type
        if pa.types.is_timestamp(kind):
            numbers = column.cast(pa.timestamp("ns", kind.tz)).cast(pa.int64()).fill_null(0)
            times = np.array(to_numpy_column(numbers), np.int64).view("M8[ns]")
            times[missing] = np.datetime64("NaT")
            return times, missing
        if pa.types.is_integer(kind):
            return to_numpy_column(column.cast(pa.int64()).fill_null(0)), missing
        if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
            floats = to_numpy_column(column.cast(pa.float64(), safe=False).fill_null(np.nan))
            return floats, np.isnan(floats)
    except pa.ArrowInvalid as error:
        fail(call, f"{name} ({kind}): {error}; {what}")
    raise FastnegTypeError(f"{call}: {name} is of type {kind}, neither numbers nor dates; {what}")


def as_clock(values: Any, *, call: str, name: str) -> tuple[AnyArray, npt.NDArray[np.bool_]]:
    """Times as int64 (dates: nanoseconds since 1970) or float64 [n], and which are missing.

    Raises:
        FastnegError: dates or integers that int64 cannot hold.
        FastnegTypeError: neither numbers nor dates.
    """
    array, missing = read_times(values, call=call, name=name)
    if array.dtype.kind == "M":
        times = array.astype("M8[ns]")
        lost = (times.astype(array.dtype) != array) & ~missing
        if lost.any():
            place = int(np.flatnonzero(lost)[0])
            fail(
                call,
                f"{name}[{place}] = {array[place]} is no whole number of nanoseconds between 1677 "
                "and 2262",
            )
        return times.view(np.int64), missing
    if array.dtype.kind == "f":
        return array.astype(np.float64), missing
    if array.size and int(array.max()) > _LAST:
        fail(call, f"{describe(name, array)} has values over 2^63 - 1")
    return array.astype(np.int64), missing


def as_intervals(
    first_seen: Any, last_seen: Any, num_items: int, call: str
) -> tuple[AnyArray, AnyArray, npt.NDArray[np.bool_], bool]:
    """First and last time of every item, of one dtype; which have an interval; whether dates."""
    first_seen, missing = read_times(first_seen, call=call, name="first_seen")
    dates = bool(first_seen.dtype.kind == "M")
    first, _ = as_clock(first_seen, call=call, name="first_seen")
    endless = np.inf if first.dtype == np.float64 else _LAST
    if last_seen is None:
        last = np.full(len(first), endless, dtype=first.dtype)
    else:
        last, still_there = as_clock(last_seen, call=call, name="last_seen")
        if last.dtype != first.dtype:
            raise FastnegTypeError(
                f"{call}: first_seen is of {first.dtype}, last_seen of {last.dtype}; give both as "
                "floats, or both as integers or dates (None, or 2^63 - 1: still there)"
            )
        last[still_there] = endless
    for name, array in (("first_seen", first), ("last_seen", last)):
        if len(array) != num_items:
            fail(call, f"{name} has {len(array)} entries for {num_items} items")
    wrong = np.flatnonzero(~missing & (last < first))
    if len(wrong):
        i = int(wrong[0])
        fail(call, f"last_seen[{i}] = {last[i]} is before first_seen[{i}] = {first[i]}")
    return first, last, ~missing, dates


def as_shown(time: Any, *, dates: bool) -> str:
    """A time as an error shows it, with its unit where intervals and times may differ in theirs.

    Args:
        time: a number or datetime64, as it was given.
        dates: whether the intervals were given as dates.
    """
    given = np.asarray(time)
    if given.dtype.kind == "f" or (given.dtype.kind != "M" and not dates):
        return str(given)
    moment = given if given.dtype.kind == "M" else np.datetime64(int(given), "ns")
    number = int(moment.astype("M8[ns]").view(np.int64))
    shown_date = str(moment.astype("M8[s]") if number % 10**9 == 0 else moment)
    if dates == (given.dtype.kind == "M"):
        return shown_date
    return f"{shown_date} ({number} nanoseconds since 1970)"
