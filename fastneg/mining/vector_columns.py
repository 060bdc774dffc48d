"""Vectors in memory: arrays, tensors, and Arrow columns of lists of any kind.

Legend: n vectors, d width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fastneg.arrow_files import validated
from fastneg.checks import AnyArray, Float32Array, as_matrix, describe, fail, refuse_vanished, shown
from fastneg.columns import is_list, to_numpy_column
from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError
from fastneg.lazy import lazy_module

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")


def as_vectors(values: Any, *, call: str, name: str, columns: int | None = None) -> Float32Array:
    """C-contiguous float32 [n, d], finite: ``as_matrix``, and Arrow columns of lists.

    Raises:
        FastnegError: as ``as_matrix`` and ``matrix_of``.
    """
    if isinstance(values, str | Path):
        raise FastnegTypeError(
            f"{call}: {name} = {shown(str(values))} is a path, and arrays are taken here; "
            "mine_to_folder and `fastneg mine` read files"
        )
    if type(values).__module__.partition(".")[0] == "pyarrow" and hasattr(values, "type"):
        column = validated(values, call=call, name=name)
        matrix = matrix_of(name, column, call=call)
        return as_matrix(matrix, call=call, name=name, columns=columns)
    return as_matrix(values, call=call, name=name, columns=columns)


def finite_floats(block: AnyArray, label: str, first_row: int, *, call: str) -> Float32Array:
    """float32 of a block of rows; ``first_row`` numbers row 0 in errors.

    Raises:
        FastnegError: a value that is not a finite float32, a row whose numbers are all 0 there.
    """
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(block, dtype=np.float32)
    finite = np.isfinite(matrix)
    if not finite.all():
        row, place = (int(i) for i in np.argwhere(~finite)[0])
        fail(
            call,
            f"{label}[{first_row + row}, {place}] = {block[row, place]} is not a finite float32",
        )
    refuse_vanished(block, matrix, first_row, call=call, name=label)
    return matrix


def plain_lists(kind: Any) -> Any:
    """The type of lists that an extension type stores (tensors of one shape, say), or the type."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _holds_numbers(kind: Any) -> bool:
    plain = plain_lists(kind)
    if not is_list(plain):
        return False
    value = plain.value_type
    return bool(pa.types.is_floating(value) or pa.types.is_integer(value))


def list_column(path: Path, schema: Any, column: str | None, *, call: str) -> str:
    """The column asked for, or the only one of lists of numbers.

    Raises:
        FastnegError: there is none, or there are several.
    """
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if column is not None:
        if column not in schema.names:
            raise FastnegError(
                f"{call}: {path} has no column {column!r}; its columns are "
                f"{', '.join(schema.names)}"
            )
        return column
    lists = [field.name for field in schema if _holds_numbers(field.type)]
    if len(lists) != 1:
        remedy = (
            "name the one with the vectors"
            if lists
            else "write the vectors as one column of lists of float32"
        )
        raise FastnegError(
            f"{call}: {path} has {len(lists)} columns of lists of numbers; {remedy} (its columns "
            f"are {found})"
        )
    return str(lists[0])


def first_width(label: str, column: Any, *, call: str) -> int:
    """The width of the first vector of a column of lists.

    Raises:
        FastnegError: not a column of lists of numbers; its first vector is null.
    """
    if pa.types.is_null(column.type):
        fail(call, f"{label}[0] is null ({column.null_count} of {len(column)} are)")
    kind = plain_lists(column.type)
    if not is_list(kind):
        raise FastnegTypeError(
            f"{call}: {label} is of type {column.type}; give a column of lists of numbers"
        )
    shape = getattr(column.type, "shape", None)
    if shape is not None and len(shape) != 1:
        raise FastnegTypeError(
            f"{call}: {label} holds tensors of shape {tuple(shape)}; flatten each to one vector"
        )
    width = pc.list_value_length(_stored(column.slice(0, 1)))[0].as_py()
    if width is None:
        fail(call, f"{label}[0] is null ({column.null_count} of {len(column)} are)")
    return int(width)


def _stored(column: Any) -> Any:
    """The lists themselves, without an extension type around them."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    if isinstance(column, pa.ChunkedArray):
        chunks = [chunk.storage for chunk in column.chunks]
        return pa.chunked_array(chunks, column.type.storage_type)
    return column.storage


def matrix_of(
    label: str,
    column: Any,
    *,
    call: str,
    first_row: int = 0,
    width: int | None = None,
    first: str | None = None,
) -> Float32Array:
    """float32 [n, d] of a column of lists that all have one length, finite.

    Args:
        label: of the column, for errors.
        column: an Arrow array or chunked array.
        call: the function that was called, for errors.
        first_row: what row 0 is called in errors.
        width: d; by default the first vector's.
        first: the label of the column whose first vector has that width, if it is another one.

    Raises:
        FastnegError: nulls, several widths, no numbers, numbers that are not finite.
    """
    if len(column) == 0:
        raise FileFormatError(f"{call}: {label} has no rows")
    own = first_width(label, column, call=call)
    width = own if width is None else width
    column = _stored(column)
    if column.null_count:
        row = int(np.flatnonzero(to_numpy_column(column.is_null()))[0])
        fail(
            call,
            f"{label}[{first_row + row}] is null ({column.null_count} of {len(column)} are)",
        )
    lengths = to_numpy_column(pc.list_value_length(column))
    if (lengths != width).any():
        row = int(np.flatnonzero(lengths != width)[0])
        fail(
            call,
            f"{label}[{first_row + row}] has width {int(lengths[row])}, {first or label}[0] "
            f"{width}; all vectors need one width",
        )
    values = pc.list_flatten(column)
    kind = values.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        raise FastnegTypeError(f"{call}: {label} holds {kind}; give a column of lists of numbers")
    if values.null_count:
        fail(call, f"{label} has {values.null_count} nulls inside its vectors")
    block = to_numpy_column(values).reshape(len(column), width)
    if width == 0:
        fail(call, f"{describe(label, block)} has vectors of width 0")
    return finite_floats(block, label, first_row, call=call)
