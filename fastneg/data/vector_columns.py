"""Dense vectors of a table: a column of lists of numbers, all of one width, standardised.

An embedding of a text or a picture is such a column. Its entries are numbers, not categories.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fastneg.checks import AnyArray, Float32Array, IntArray
from fastneg.columns import is_list, to_numpy_column
from fastneg.errors import FastnegError

Float64Array = npt.NDArray[np.float64]

_BLOCK = 1 << 16  # rows whose float64 copy is held at once


class VectorColumn(NamedTuple):
    """A vector per row: ``values`` float32 [n, width], zeros where missing.

    ``mean`` and ``deviation`` float64 [width] of each component before it was standardised.
    """

    values: Float32Array
    mean: Float64Array
    deviation: Float64Array

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return int(self.values.shape[1])


def looks_like_vectors(kind: Any) -> bool:
    """Lists of floats, and lists of a fixed number of any numbers."""
    if not is_list(kind):
        return False
    entry = kind.value_type
    if pa.types.is_floating(entry) or pa.types.is_decimal(entry):
        return True
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_integer(entry))


def as_column(values: Any) -> Any:
    """Matrices as columns of lists, tensors of Arrow as their lists; others as they are."""
    if hasattr(values, "detach"):  # a torch tensor, without importing torch
        values = values.detach().cpu()
        narrow = str(values.dtype) == "torch.bfloat16"  # NumPy has none
        values = (values.float() if narrow else values).numpy()
    if isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind in "iuf":
        flat = pa.array(np.ascontiguousarray(values).ravel())
        return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    kind = getattr(values, "type", None)
    if isinstance(kind, pa.BaseExtensionType) and is_list(kind.storage_type):
        if isinstance(values, pa.ChunkedArray):
            return pa.chunked_array([one.storage for one in values.chunks], kind.storage_type)
        return values.storage
    return values


def without_views(column: Any) -> Any:
    """Views of lists as lists; others as they are.

    Arrow 26 casts views to lists whose last entries are lost.
    """
    if not is_list(column.type) or "view" not in str(column.type):
        return column
    lengths = to_numpy_column(pc.list_value_length(column).fill_null(0)).astype(np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), column.flatten(), mask=column.is_null())


def read_vectors(
    column: Any, where: Callable[[int], str], separator: str = "|"
) -> tuple[npt.NDArray[np.bool_], AnyArray]:
    """(bool [rows]: has a vector, their numbers [vectors, width]) of an Arrow array.

    A null, an empty list and a blank text are missing values.

    Args:
        column: lists of numbers, or texts as ``"[0.1, 0.2]"`` and ``"0.1|0.2"``.
        where: names a row, for errors.
        separator: of the numbers of texts, beside commas, semicolons and blanks.

    Raises:
        FastnegError: vectors of several widths, a null or a number that is not finite in one.
    """
    if not is_list(column.type):
        column = _parsed(column, separator)
    lengths = to_numpy_column(pc.list_value_length(column).fill_null(0)).astype(np.int64)
    present = lengths > 0
    rows = np.flatnonzero(present)
    width = int(lengths[rows[0]]) if rows.size else 0
    other = rows[lengths[rows] != width]
    if other.size:
        _refuse(
            f"{where(int(rows[0]))} has {width} numbers, {where(int(other[0]))} has "
            f"{lengths[other[0]]}; vectors have one width (numbers that stand for categories are "
            "columns={...: 'multi'})"
        )
    flat = column.filter(pa.array(present)).flatten()
    if flat.null_count:
        place = int(np.flatnonzero(to_numpy_column(flat.is_null()))[0])
        _refuse(f"{where(int(rows[place // width]))} has a null at [{place % width}]; give numbers")
    numbers = _numbers(flat)
    finite = np.isfinite(numbers)
    if not finite.all():
        place = int(np.flatnonzero(~finite)[0])
        _refuse(
            f"{where(int(rows[place // width]))} has {numbers[place]} at [{place % width}]; give "
            "finite numbers, and null for the whole vector where it is missing"
        )
    return present, numbers.reshape(rows.size, width)


def _numbers(flat: Any) -> AnyArray:
    if pa.types.is_decimal(flat.type):
        flat = flat.cast(pa.float64())
    numbers = to_numpy_column(flat)
    return numbers.astype(np.float32) if numbers.dtype == np.float16 else numbers


def _parsed(column: Any, separator: str) -> Any:
    """Texts of numbers as lists of numbers.

    Raises:
        pa.ArrowInvalid: something in them is no number.
    """
    texts = column.cast(pa.large_string())
    for mark in ("[", "]", "(", ")", ",", ";", separator):
        texts = pc.replace_substring(texts, mark, " ")
    texts = pc.utf8_trim_whitespace(texts)
    texts = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.large_string()), texts)
    words = pc.utf8_split_whitespace(texts)
    return words.cast(pa.large_list(pa.float64()))


def standardised(
    numbers: AnyArray,
    rows: IntArray,
    size: int,
    given: tuple[Float64Array, Float64Array] | None = None,
) -> VectorColumn:
    """Vectors with a mean of 0 and a deviation of 1 in each component, by row.

    Args:
        numbers: [m, width].
        rows: the row of each of them.
        size: number of rows.
        given: mean and deviation instead of those of ``numbers``.

    Raises:
        FastnegError: another width than the given mean's; values too large to standardise.
    """
    count, width = numbers.shape
    if given is None:
        given = _moments(numbers) if count else (np.zeros(width), np.ones(width))
    mean, deviation = given
    if count and mean.size != width:
        _refuse(f"has vectors of width {width}; {mean.size} expected")
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
        _refuse(f"has values up to {np.abs(numbers).max()}, too large to standardise")
    deviation = np.where(deviation <= 1e-12 * np.abs(mean), 1.0, deviation)
    out = np.zeros((size, mean.size), np.float32)
    for first in range(0, count, _BLOCK):
        block = slice(first, first + _BLOCK)
        out[rows[block]] = (numbers[block].astype(np.float64) - mean) / deviation
    return VectorColumn(out, mean, deviation)


def _moments(numbers: AnyArray) -> tuple[Float64Array, Float64Array]:
    """Mean and deviation of each component, in blocks: no float64 copy of everything."""
    parts = range(0, len(numbers), _BLOCK)
    with np.errstate(over="ignore", invalid="ignore"):
        mean = sum(numbers[i : i + _BLOCK].sum(0, dtype=np.float64) for i in parts) / len(numbers)
        squares = sum(
            ((numbers[i : i + _BLOCK].astype(np.float64) - mean) ** 2).sum(0) for i in parts
        )
        return np.asarray(mean), np.sqrt(squares / len(numbers))


def _refuse(text: str) -> NoReturn:
    raise FastnegError(text)
