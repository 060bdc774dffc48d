"""Columns of anything into arrays: ids, weights, times.

An id is an integer or a text; a column holds one kind and no nulls.
"""

from __future__ import annotations

import datetime as dt
from typing import Any, TypeAlias

import numpy as np

from fastneg import checks
from fastneg.arrow_files import validated
from fastneg.checks import AnyArray, Float32Array, IntArray, shown
from fastneg.errors import FastnegError, FastnegTypeError, one_line
from fastneg.ids import Texts, integers_as_ids
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")

Ids: TypeAlias = IntArray | Texts


def _first_null(column: Any) -> int:
    return int(np.flatnonzero(np.asarray(column.is_null().to_numpy(zero_copy_only=False)))[0])


def _mixed(values: Any, call: str, name: str, error: Exception) -> FastnegTypeError:
    kinds = [type(value).__name__ for value in values]
    other = next((i for i, kind in enumerate(kinds) if kind != kinds[0]), None)
    if other is None:
        return FastnegTypeError(
            f"{call}: {name}[0] = {shown(values[0])} cannot be an id ({error}); give integers "
            "of 64 bits or strings"
        )
    return FastnegTypeError(
        f"{call}: {name} mixes types: {name}[0] = {shown(values[0])} is {kinds[0]}, "
        f"{name}[{other}] = {shown(values[other])} is {kinds[other]}; give ids of "
        "one type, integers or strings"
    )


def _of_tensor(tensor: Any, call: str, name: str) -> AnyArray:
    """A tensor as a NumPy array; bfloat16 and its like, which NumPy lacks, as float32."""
    try:
        tensor = tensor.detach().cpu()
        try:
            return np.asarray(tensor.numpy())
        except TypeError:
            return np.asarray(tensor.float().numpy())
    except (TypeError, RuntimeError) as error:
        raise FastnegTypeError(
            f"{call}: {name} ({tensor.dtype}, shape {tuple(tensor.shape)}) is not a plain tensor: "
            f"{one_line(error)}"
        ) from error


def _native(array: AnyArray, call: str, name: str) -> AnyArray:
    """The array in a dtype that Arrow has: native byte order, float64, dates of days or seconds."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "f" and size > 8:
        return array.astype(np.float64)
    if kind == "M":
        unit, step = np.datetime_data(array.dtype)
        if unit == "generic":
            raise FastnegTypeError(f"{call}: {checks.describe(name, array)} has no unit of time")
        unit = {"Y": "D", "M": "D", "W": "D", "h": "s", "m": "s"}.get(unit, unit)
        unit = "ns" if unit in ("ps", "fs", "as") else unit
        fitting = np.dtype(f"=M8[{unit}]")
        converted = array.astype(fitting)
        if step != 1 or unit in ("D", "s"):  # to a finer unit: it may be too far from 1970
            lost = (converted.astype(array.dtype) != array) & ~np.isnat(array)
            if lost.any():
                row = int(np.flatnonzero(lost)[0])
                raise FastnegError(f"{call}: {name}[{row}] = {array[row]} is beyond 64 bits")
        return converted
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _of_numpy(array: AnyArray, call: str, name: str) -> Any:
    if array.ndim != 1:
        raise FastnegError(
            f"{call}: {name} ({array.dtype}, shape {array.shape}) has {array.ndim} "
            "dimensions; 1 expected"
        )
    mask = np.ma.getmaskarray(array) if isinstance(array, np.ma.MaskedArray) else None
    plain = _native(np.asarray(array), call, name)
    try:
        return pa.array(np.ascontiguousarray(plain), mask=mask)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise FastnegTypeError(
            f"{call}: {checks.describe(name, array)} cannot be read: {one_line(error)}"
            + ("; give real numbers, such as its .real" if array.dtype.kind == "c" else "")
        ) from error


def to_arrow(values: Any, call: str, name: str) -> Any:
    """An Arrow array of whatever holds the values; the error says which position does not fit."""
    if hasattr(values, "detach"):  # a torch tensor, without importing torch
        values = _of_tensor(values, call, name)
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return validated(values, call=call, name=name)
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "OUT" or values.ndim != 1:
            return _of_numpy(values, call, name)
        values = values.tolist()
    pandas = type(values).__module__.partition(".")[0] == "pandas"
    try:
        if not pandas and hasattr(values, "__arrow_c_stream__"):
            return validated(pa.chunked_array(values), call=call, name=name)
        if not pandas and isinstance(values, str | bytes):
            raise FastnegTypeError(f"{call}: {name} = {values!r} is one id; give a sequence of ids")
        if not pandas:
            values = list(values)
            if values and type(values[0]).__module__ == "uuid":
                values = [None if value is None else str(value) for value in values]
        return _refuse_mixed_zones(pa.array(values, from_pandas=pandas), values, call, name)
    except FastnegError:
        raise
    except UnicodeError as error:
        raise _not_utf8(list(values), call, name) from error
    except TypeError as error:
        if isinstance(values, list):
            raise _mixed(values, call, name, error) from error
        raise FastnegTypeError(
            f"{call}: {name} is of type {type(values).__name__}; give a sequence of ids"
        ) from error
    except (pa.ArrowException, OverflowError) as error:
        raise _mixed(list(values), call, name, error) from error


def _refuse_mixed_zones(column: Any, values: Any, call: str, name: str) -> Any:
    """The column, unless some of its datetimes have a time zone and others have none.

    Arrow reads datetimes without a zone as UTC, which they need not be.
    """
    objects = str(getattr(values, "dtype", "object")) == "object"
    if not objects or not pa.types.is_timestamp(column.type):
        return column
    first: dict[bool, tuple[int, Any]] = {}
    for place, value in enumerate(values):
        if isinstance(value, dt.datetime):
            first.setdefault(value.utcoffset() is None, (place, value))
    if len(first) == 2:
        (naive, one), (aware, other) = first[True], first[False]
        raise FastnegError(
            f"{call}: {name}[{naive}] = {one} has no time zone and {name}[{aware}] = {other} has "
            "one; give all of them a zone (value.replace(tzinfo=datetime.UTC)), or none of them"
        )
    return column


def _not_utf8(values: list[Any], call: str, name: str) -> FastnegError:
    """The error for a text with half of a surrogate pair, which UTF-8 cannot hold."""
    for place, value in enumerate(values):
        try:
            str(value).encode()
        except UnicodeError:
            return FastnegError(
                f"{call}: {name}[{place}] = {value!a} holds a lone surrogate, which no UTF-8 text "
                "has; give valid Unicode"
            )
    return FastnegError(f"{call}: {name} is not UTF-8 text")


def plain_column(column: Any) -> Any:
    """A column of categories as its values, views of texts as texts; others as they are.

    Arrow has few functions for views, which is what polars hands over.
    """
    if pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    if pa.types.is_run_end_encoded(column.type):
        return plain_column(pc.run_end_decode(column))
    if not pa.types.is_dictionary(column.type):
        return column
    parts = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    chunks = [plain_column(part.dictionary).take(part.indices) for part in parts]
    return pa.chunked_array(chunks, None if chunks else column.type.value_type)


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is one of lists."""
    tests = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(pa.types, name)(kind) for name in tests)


def to_numpy_column(column: Any) -> AnyArray:
    """A NumPy array of an Arrow array or chunked array."""
    if isinstance(column, pa.ChunkedArray):
        return np.asarray(column.to_numpy())
    return np.asarray(column.to_numpy(zero_copy_only=False))


def normalise_ids(values: Any, *, call: str, name: str) -> Ids:
    """Ids as int64 or as an Arrow array of large strings; nothing else, and no nulls.

    Accepts sequences, NumPy arrays, tensors, pandas and polars series, Arrow arrays. Bytes are
    read as UTF-8, UUIDs become their text, dictionary-encoded columns their values, integers over
    2^63 - 1 (with their whole column) the text of their digits.

    Raises:
        FastnegTypeError: another type (floats, bools, dates), or types mixed in one column.
        FastnegError: a null (with its row), text that is not UTF-8.
    """
    column = to_arrow(values, call, name)
    column = plain_column(column)
    kind = column.type
    if column.null_count:
        raise FastnegError(
            f"{call}: {name}[{_first_null(column)}] is null ({column.null_count} of {len(column)} "
            "are); every row needs an id"
        )
    if pa.types.is_null(kind):
        return np.zeros(0, np.int64)
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.array([str(value) for value in column.to_pylist()], pa.large_string())
        kind = column.type
    try:
        if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
            return integers_as_ids(column, call=call, name=name)
        texts = (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
            pa.types.is_fixed_size_binary,
        )
        if any(test(kind) for test in texts):
            if pa.types.is_fixed_size_binary(kind):
                column = column.cast(pa.binary())
            column = column.cast(pa.large_string())
            return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    except pa.ArrowInvalid as error:
        raise FastnegError(
            f"{call}: {name} ({kind}): {one_line(error)}; give integers of 64 bits or UTF-8 strings"
        ) from error
    hint = ""
    if pa.types.is_floating(kind):
        hint = "; missing integers often turn a column into floats"
    raise FastnegTypeError(f"{call}: {name} is of type {kind}; ids are integers or strings{hint}")


def _numeric_column(values: Any, call: str, name: str, what: str) -> Any:
    try:
        column = to_arrow(values, call, name)
    except FastnegTypeError as error:
        kind = getattr(values, "dtype", type(values).__name__)
        if (
            hasattr(values, "dtype") and str(kind) != "object"
        ):  # the reason lies in the type as a whole
            raise
        raise FastnegTypeError(
            f"{call}: {name} is not a column of numbers ({kind}); {what}"
        ) from error
    column = plain_column(column)
    if column.null_count:
        raise FastnegError(
            f"{call}: {name}[{_first_null(column)}] is null ({column.null_count} of {len(column)} "
            f"are); {what}"
        )
    return column


def _is_number(kind: Any) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _refuse_non_finite(array: AnyArray, call: str, name: str, what: str) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise FastnegError(
            f"{call}: {name}[{row}] = {array[row]} is not finite ({int((~finite).sum())} of "
            f"{array.size} are not); {what}"
        )


def normalise_weights(values: Any, *, call: str, name: str = "weights") -> Float32Array:
    """float32 [R], finite; any sign. A positive weight that float32 would turn into 0 raises."""
    what = "give one finite number per row, above 0 for a positive"
    column = _numeric_column(values, call, name, what)
    if not (_is_number(column.type) or pa.types.is_boolean(column.type) or len(column) == 0):
        raise FastnegTypeError(f"{call}: {name} is of type {column.type}; {what}")
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    array = to_numpy_column(column.cast(pa.float64(), safe=False))
    _refuse_non_finite(array, call, name, what)
    with np.errstate(over="ignore", under="ignore"):
        weights = array.astype(np.float32)
    lost = ~np.isfinite(weights) | ((weights == 0) & (array != 0))
    if lost.any():
        row = int(np.flatnonzero(lost)[0])
        raise FastnegError(f"{call}: {name}[{row}] = {array[row]} is beyond float32; {what}")
    return weights


def normalise_times(values: Any, *, call: str, name: str = "times") -> AnyArray:
    """int64 or float64 [R]: numbers as they are; dates and timestamps as nanoseconds since 1970.

    Raises:
        FastnegTypeError: texts or other types.
        FastnegError: nulls, NaN, infinities, dates that nanoseconds cannot hold (1677 to 2262).
    """
    what = "give one finite number, date or timestamp per row"
    column = _numeric_column(values, call, name, what)
    kind = column.type
    if len(column) == 0:
        return np.zeros(0, np.int64)
    try:
        if pa.types.is_date(kind):
            column, kind = column.cast(pa.timestamp("s"), safe=False), pa.timestamp("s")
        if pa.types.is_timestamp(kind):
            column = column.cast(pa.timestamp("ns", kind.tz)).cast(pa.int64())
        elif pa.types.is_integer(kind):
            column = column.cast(pa.int64())
        elif _is_number(kind):
            array = to_numpy_column(column.cast(pa.float64(), safe=False))
            _refuse_non_finite(array, call, name, what)
            return array.copy()
        else:
            raise FastnegTypeError(f"{call}: {name} is of type {kind}; {what}")
    except pa.ArrowInvalid as error:
        raise FastnegError(f"{call}: {name} ({kind}): {error}; {what}") from error
    return np.array(to_numpy_column(column), np.int64)  # a copy: the caller may write into theirs
