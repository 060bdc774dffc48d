"""Times as samplers compare them: int64 (dates are nanoseconds since 1970) or float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastneg.checks import AnyArray, describe, fail, to_numpy
from fastneg.errors import FastnegTypeError

_LAST = np.iinfo(np.int64).max


def as_clock(values: Any, *, call: str, name: str) -> tuple[AnyArray, npt.NDArray[np.bool_]]:
    """Times as int64 (dates: nanoseconds since 1970) or float64 [n], and which are missing.

    Raises:
        FastnegError: dates or integers that int64 cannot hold.
        FastnegTypeError: neither numbers nor dates.
    """
    array = to_numpy(values, call=call, name=name)
    if array.ndim != 1:
        fail(call, f"{describe(name, array)} has {array.ndim} dimensions; 1 expected")
    if array.dtype.kind == "M":
        missing = np.isnat(array)
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
        floats = array.astype(np.float64)
        return floats, np.isnan(floats)
    if array.dtype.kind not in "iu":
        raise FastnegTypeError(f"{call}: {describe(name, array)} are neither numbers nor dates")
    if array.size and int(array.max()) > _LAST:
        fail(call, f"{describe(name, array)} has values over 2^63 - 1")
    return array.astype(np.int64), np.zeros(len(array), dtype=np.bool_)


def as_intervals(
    first_seen: Any, last_seen: Any, num_items: int, call: str
) -> tuple[AnyArray, AnyArray, npt.NDArray[np.bool_]]:
    """First and last time of every item, of one dtype, and which items have an interval."""
    first, missing = as_clock(first_seen, call=call, name="first_seen")
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
    return first, last, ~missing
