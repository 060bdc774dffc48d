"""Checks of the columns of rows: codes that fit memory, weights, times of one unit."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastneg import checks
from fastneg.checks import AnyArray, Float32Array, IntArray
from fastneg.columns import normalise_times, normalise_weights, to_arrow
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")


def row_extras(
    row_users: IntArray,
    row_items: IntArray,
    weights: Any,
    times: Any,
    names: tuple[str, str, str, str],
    call: str,
) -> tuple[Float32Array | None, AnyArray | None]:
    """Checked weights and times of rows whose codes are known; all of one length."""
    row_weights = row_times = None
    columns: dict[str, AnyArray] = {names[0]: row_users, names[1]: row_items}
    if weights is not None:
        columns[names[2]] = row_weights = normalise_weights(weights, call=call, name=names[2])
    if times is not None:
        columns[names[3]] = row_times = normalise_times(times, call=call, name=names[3])
    checks.same_length(call, **columns)
    return row_weights, row_times


_SPARSE = 1_000  # codes for each row: beyond it they are raw ids, given by mistake
_FREE_CODES = 1 << 26
_BYTES_A_CODE = 24  # int64 each: where its list starts, how many it has, how often it occurs
_LARGE_TIME = 1e8  # seconds since 1970 are beyond it from 1973 on; smaller times have any unit
_OTHER_UNIT = 200  # times the median: milliseconds are 1,000 times seconds


def dense_codes(
    values: Any, size: int | None, call: str, name: str, size_name: str
) -> tuple[IntArray, int]:
    """(codes int64 [R] that the caller cannot write into, number of codes)."""
    if size is None:
        values = codes = checks.as_integers(values, call=call, name=name)
        if codes.size == 0:
            checks.fail(
                call,
                f"{name} is empty and {size_name} is not given; give at least one "
                f"row, or {size_name}",
            )
        size = max(1, int(codes.max()) + 1)
        if size > _FREE_CODES + _SPARSE * codes.size:
            place = int(np.argmax(codes))
            checks.fail(
                call,
                f"{name}[{place}] = {int(codes[place]):,} would make {size:,} codes of "
                f"{codes.size:,} rows, and tables of {_BYTES_A_CODE * size:,} bytes; codes are "
                f"0..n-1 (Interactions.from_pairs makes them of ids), and {size_name}={size} says "
                "that so many are meant",
            )
    size = checks.as_integer(size, call=call, name=size_name, minimum=1, maximum=2**63 - 1)
    refuse_beyond_memory(size, call=call, name=size_name)
    return checks.as_codes(values, size, call=call, name=name), size


def refuse_beyond_memory(size: int, *, call: str, name: str) -> None:
    """Raise where the tables of so many codes are larger than this machine's memory.

    Raises:
        FastnegError: naming the bytes.
    """
    if size <= _FREE_CODES or not hasattr(os, "sysconf"):  # Windows: nothing says it
        return
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size * _BYTES_A_CODE > memory:
        checks.fail(
            call,
            f"{name} = {size:,} codes need tables of {size * _BYTES_A_CODE:,} bytes, and this "
            f"machine has {memory:,}; codes are 0..n-1 (Interactions.from_pairs makes them of ids)",
        )


def refuse_other_unit(old: AnyArray, new: AnyArray, given: Any, *, call: str) -> None:
    """Raise where new times are of another unit than the old ones: seconds beside dates.

    Args:
        old: times that are there, dates as nanoseconds since 1970.
        new: likewise.
        given: what the caller gave for ``new``.
        call: the function that was called, for errors.

    Raises:
        FastnegError: naming both.
    """
    told = [np.abs(times[times != 0].astype(np.float64)) for times in (old, new)]
    if not all(times.size for times in told):
        return  # 0 is 0 in every unit
    before, after = (float(np.median(times)) for times in told)
    if max(before, after) < _LARGE_TIME or max(before, after) < _OTHER_UNIT * min(before, after):
        return
    column = to_arrow(given, call, "times")
    dates = pa.types.is_temporal(column.type)
    if dates and old.dtype == np.int64 and not (old % 1_000_000_000).any():
        return  # whole seconds as nanoseconds: dates of about 1970, beside later ones
    first = int(np.flatnonzero(new)[0])
    kinds = "dates, as nanoseconds since 1970," if dates else "numbers"
    checks.fail(
        call,
        f"times[{first}] = {new[first]} is of another unit than the times of the rows there, about "
        f"{before:.3g} (the new ones, {kinds} about {after:.3g}); give dates where those "
        "are dates, and numbers of their unit where those are numbers",
    )
