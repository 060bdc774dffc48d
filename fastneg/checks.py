"""Input checked once, at the public border: anything array-like in, checked NumPy arrays out.

Kernels trust their caller, so whatever reaches one has passed through here. Every function takes
``call`` (who was called) and ``name`` (which argument) so that the error can say both.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from fastneg.errors import FastnegError, FastnegTypeError
from fastneg.errors import shown as shown  # noqa: PLC0414 - it stands here for all others
from fastneg.kernels.scan import codes_within, scan_weights

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Float32Array = npt.NDArray[np.float32]
AnyArray = npt.NDArray[Any]
Scalar = TypeVar("Scalar", bound=np.generic)


def describe(name: str, array: AnyArray) -> str:
    """``counts (int64, shape (5,))``: how an array is named in an error."""
    return f"{name} ({array.dtype}, shape {array.shape})"


def fail(call: str, message: str) -> NoReturn:
    raise FastnegError(f"{call}: {message}")


def check_kind(call: str, kind: type | tuple[type, ...], hint: str, **values: Any) -> None:
    """Raise on what is no ``kind``; the error names it and says what to give instead."""
    for name, value in values.items():
        if not isinstance(value, kind):
            raise FastnegTypeError(
                f"{call}: {name} is a {type(value).__name__} ({shown(value)}); give {hint}"
            )


def check_functions(call: str, **values: Any) -> None:
    """Raise on what is neither a function nor None."""
    for name, value in values.items():
        if value is not None and not callable(value):
            raise FastnegTypeError(
                f"{call}: {name} is a {type(value).__name__} ({shown(value)}); give a function"
            )


def to_numpy(values: Any, *, call: str, name: str) -> AnyArray:
    """A NumPy view or copy of anything array-like; tensors are brought to the CPU.

    Object arrays and ragged sequences raise ``FastnegTypeError``.
    """
    try:
        if hasattr(values, "detach"):  # a torch tensor, without importing torch
            values = _tensor_to_numpy(values)
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise FastnegTypeError(
            f"{call}: {name} is not a rectangular array of numbers ({shown(str(error))})"
        ) from error
    if array.dtype == object:
        raise FastnegTypeError(
            f"{call}: {name} holds Python objects (dtype object); give numbers of one type"
        )
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        position = np.argwhere(np.ma.getmaskarray(values))[0]
        where = ", ".join(str(int(i)) for i in position)
        fail(
            call,
            f"{name}[{where}] is masked ({describe(name, array)}, a masked array); leave such "
            "values out, or fill them (values.filled(...))",
        )
    if array.strides and min(array.strides) < 0:  # also where NumPy calls one row contiguous
        array = array.copy()
    return array


def _tensor_to_numpy(tensor: Any) -> AnyArray:
    """A tensor of any layout and dtype for NumPy; dtypes that it does not know become float32."""
    tensor = tensor.detach()
    if getattr(tensor, "is_quantized", False):
        tensor = tensor.dequantize()
    if str(getattr(tensor, "layout", "torch.strided")) != "torch.strided":
        tensor = tensor.to_dense()
    if str(tensor.dtype).startswith(("torch.bfloat16", "torch.float8")):
        tensor = tensor.float()
    array: AnyArray = tensor.cpu().resolve_conj().resolve_neg().numpy()
    return array


def as_integers(values: Any, *, call: str, name: str, ndim: int | None = 1) -> IntArray:
    """C-contiguous int64 from any integer dtype; floats, bools and strings are refused.

    Always a copy: another thread may write to the caller's array after it was checked.
    """
    if type(values) is np.ndarray and values.dtype == np.int64 and values.ndim == ndim == 1:
        return np.array(values, order="C")  # the common case, in little time
    array = to_numpy(values, call=call, name=name)
    if array.size == 0 and array.dtype == np.float64:  # np.asarray([]) is float64
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise FastnegTypeError(
            f"{call}: {describe(name, array)} is not of an integer dtype; codes are integers "
            "(raw ids of other types are turned into codes by Interactions.encode_users and "
            "encode_items)"
        )
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        fail(call, f"{describe(name, array)} has values over 2^63 - 1")
    if ndim is not None and array.ndim != ndim:
        fail(call, f"{describe(name, array)} has {array.ndim} dimensions; {ndim} expected")
    return np.array(array, dtype=np.int64, order="C")


def as_codes(
    values: Any, size: int, *, call: str, name: str, ndim: int | None = 1, unknown: bool = False
) -> IntArray:
    """Dense codes in ``0..size-1`` as int64; ``unknown=True`` allows -1 as well."""
    codes = as_integers(values, call=call, name=name, ndim=ndim)
    low = -1 if unknown else 0
    flat = codes.reshape(-1)
    if codes_within(frozen(flat), low, size):
        return codes
    position = int(np.flatnonzero((flat < low) | (flat >= size))[0])
    where = ", ".join(str(int(i)) for i in np.unravel_index(position, codes.shape))
    fail(
        call,
        f"{name}[{where}] = {int(flat[position])} is not a code in {low}..{size - 1} "
        f"({name}: {codes.dtype}, shape {codes.shape}); give dense codes "
        "(Interactions.encode_users and encode_items turn raw ids into codes)",
    )


def as_integer(
    value: Any, *, call: str, name: str, minimum: int | None = None, maximum: int | None = None
) -> int:
    """One plain int, within bounds; bools and floats are refused."""
    if isinstance(value, (bool, np.bool_)):
        raise FastnegTypeError(f"{call}: {name} = {shown(value)} is a bool; give an integer")
    try:
        number = operator.index(value)
    except TypeError as error:
        raise FastnegTypeError(f"{call}: {name} = {shown(value)} is not an integer") from error
    if minimum is not None and number < minimum:
        fail(call, f"{name} = {shown(number)} is too small; give {minimum} or more")
    if maximum is not None and number > maximum:
        fail(call, f"{name} = {shown(number)} is too large; give {maximum} or less")
    return number


def as_number(
    value: Any, *, call: str, name: str, minimum: float | None = None, maximum: float | None = None
) -> float:
    """One finite float, within bounds (inclusive)."""
    if isinstance(value, (bool, np.bool_, str, bytes)) or not hasattr(value, "__float__"):
        raise FastnegTypeError(f"{call}: {name} = {shown(value)} is not a number")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise FastnegTypeError(f"{call}: {name} is not one number ({shown(str(error))})") from error
    if not math.isfinite(number):
        fail(call, f"{name} = {number} is not finite")
    if minimum is not None and number < minimum:
        fail(call, f"{name} = {number} is too small; give {minimum} or more")
    if maximum is not None and number > maximum:
        fail(call, f"{name} = {number} is too large; give {maximum} or less")
    return number


def as_flag(value: Any, *, call: str, name: str) -> bool:
    """True or False; 0 and 1 are accepted, other objects with a truth value are refused."""
    if isinstance(value, (bool, int, np.bool_)) and value in (0, 1):
        return bool(value)
    raise FastnegTypeError(f"{call}: {name} = {shown(value)}; give True or False")


def as_progress(value: Any, *, call: str, name: str = "progress") -> Any:
    """A flag, or a function that is told how much is done."""
    return value if callable(value) else as_flag(value, call=call, name=name)


def as_path(value: Any, *, call: str, name: str) -> Path:
    """A path, from one or from a text that the system takes as a name."""
    check_kind(call, (str, Path), "a path", **{name: value})
    try:
        encoded = os.fsencode(value)
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        fail(call, f"{name} = {shown(str(value))} is not a path (a NUL or half of a pair)")
    return Path(value)


def as_name(value: Any, *, call: str, name: str) -> str:
    """A text that names something: of other objects it is not known what their text would be."""
    check_kind(call, str, "a text", **{name: value})
    try:
        value.encode()
    except UnicodeEncodeError:
        fail(call, f"{name} = {shown(value)} has half of a pair of surrogates; give whole letters")
    return str(value)


def is_series(value: Any) -> bool:
    """Whether it is several values in order, and neither one text nor an array of no dimension."""
    return (
        isinstance(value, Iterable)
        and not isinstance(value, (str, bytes))
        and getattr(value, "ndim", 1) > 0
    )


def is_entry(value: Any, expected: Any) -> bool:
    """Whether a state's entry is the expected one: what cannot be compared with it is not."""
    try:
        return isinstance(value, type(expected)) and bool(value == expected)
    except (ValueError, TypeError, RuntimeError):  # arrays and tensors inside a list
        return False


def as_choice(value: Any, choices: tuple[str, ...], *, call: str, name: str) -> str:
    """One of a few words; the error lists them."""
    if not isinstance(value, str) or value not in choices:
        fail(call, f"{name} = {shown(value)} is not one of {', '.join(map(repr, choices))}")
    return str(value)


def as_weights(
    values: Any, *, call: str, name: str, what: str = "give weights, 0 or more"
) -> FloatArray:
    """float64 [N], finite, 0 or more, at least one positive, not empty.

    Integers above 2^53 are refused, since float64 cannot hold them.
    """
    weights = as_numbers(values, call=call, name=name, what=what)
    valid, _, largest = scan_weights(frozen(weights))
    if not valid or largest == 0.0:
        _refuse_weights(values, weights, call=call, name=name, what=what)
    return weights


def as_numbers(
    values: Any, *, call: str, name: str, what: str = "give weights, 0 or more"
) -> FloatArray:
    """float64 [N], not empty: like ``as_weights``, but without checking the values.

    Always a copy: what is checked is what a table is built of, whoever writes into ``values``.
    """
    array = to_numpy(values, call=call, name=name)
    if array.ndim != 1:
        fail(call, f"{describe(name, array)} has {array.ndim} dimensions; 1 expected")
    if array.size == 0:
        fail(call, f"{name} is empty; {what}")
    if array.dtype.kind not in "iuf":
        raise FastnegTypeError(f"{call}: {describe(name, array)} is not numeric; {what}")
    if array.dtype.kind in "iu" and int(array.max()) > 2**53:
        fail(call, f"{describe(name, array)} has values over 2^53; {what}")
    return np.array(array, dtype=np.float64, order="C")


def _refuse_weights(values: Any, weights: FloatArray, *, call: str, name: str, what: str) -> None:
    array = to_numpy(values, call=call, name=name)
    bad = ~np.isfinite(weights)
    if bad.any():
        position = int(np.flatnonzero(bad)[0])
        fail(
            call,
            f"{name}[{position}] = {weights[position]} is not finite "
            f"({name}: {array.dtype}, shape {array.shape}); {what}",
        )
    if float(weights.min()) < 0:
        position = int(np.flatnonzero(weights < 0)[0])
        fail(
            call,
            f"{name}[{position}] = {array[position]} is negative "
            f"({name}: {array.dtype}, shape {array.shape}); {what}",
        )
    fail(call, f"{describe(name, array)} is zero everywhere; {what}")


def as_matrix(values: Any, *, call: str, name: str, columns: int | None = None) -> Float32Array:
    """C-contiguous float32 [n, d], finite, d >= 1; ``columns`` fixes d. NaN and infinity raise."""
    if isinstance(values, np.ma.MaskedArray):
        if np.ma.is_masked(values):
            place = np.argwhere(np.ma.getmaskarray(values))[0].tolist()
            fail(call, f"{name}{place} is masked; fill what is missing")
        values = values.data
    if str(getattr(values, "dtype", "")) == "object" and getattr(values, "ndim", 0) == 1:
        values = list(values)  # one array or list a row, as a frame's column holds vectors
    array = to_numpy(values, call=call, name=name)
    if array.dtype.kind == "V" and array.dtype.name.startswith(("bfloat16", "float8")):
        array = array.astype(np.float32)  # of the package ml_dtypes
    if array.ndim != 2:
        fail(call, f"{describe(name, array)} has {array.ndim} dimensions; 2 expected (rows, width)")
    if array.dtype.kind not in "iuf":
        raise FastnegTypeError(f"{call}: {describe(name, array)} is not numeric")
    if array.shape[1] == 0:
        fail(call, f"{describe(name, array)} has vectors of width 0")
    if columns is not None and array.shape[1] != columns:
        fail(call, f"{describe(name, array)} has width {array.shape[1]}; {columns} expected")
    with np.errstate(over="ignore"):
        matrix = np.ascontiguousarray(array, dtype=np.float32)
    for start in range(0, matrix.shape[0], 65_536):
        block = matrix[start : start + 65_536]
        finite = np.isfinite(block)
        if not finite.all():
            row, column = (int(i) for i in np.argwhere(~finite)[0])
            fail(
                call,
                f"{name}[{start + row}, {column}] = {array[start + row, column]} is not a "
                f"finite float32 ({name}: {array.dtype}, shape {array.shape})",
            )
        refuse_vanished(array[start : start + 65_536], block, start, call=call, name=name)
    return matrix


def refuse_vanished(
    block: AnyArray, matrix: Float32Array, first_row: int, *, call: str, name: str
) -> None:
    """Raise where a row of numbers has become zeros in float32, which would score as nothing.

    Args:
        block: rows of any dtype; float32 and narrower ones cost nothing.
        matrix: the same in float32.
        first_row: the number of row 0, for errors.
        call, name: for errors.
    """
    if block.dtype.kind != "f" or block.dtype.itemsize <= 4:
        return
    zeros = np.flatnonzero(~matrix.any(axis=1))
    lost = zeros[block[zeros].any(axis=1)]
    if len(lost):
        row = int(lost[0])
        fail(
            call,
            f"{name}[{first_row + row}] becomes all zeros in float32, its largest number is "
            f"{float(np.abs(block[row]).max()):.3g} ({name}: {block.dtype}); scale all vectors by "
            "one factor, which leaves their order as it is, or make the row zeros",
        )


def as_csr(
    indptr: Any, indices: Any, num_columns: int, *, call: str, name: str
) -> tuple[IntArray, IntArray]:
    """A CSR structure: indptr int64 [rows + 1] from 0 up to len(indices), codes in range."""
    starts = as_integers(indptr, call=call, name=f"{name}.indptr")
    codes = as_codes(indices, num_columns, call=call, name=f"{name}.indices")
    if (
        starts.size == 0
        or starts[0] != 0
        or starts[-1] != codes.size
        or (np.diff(starts) < 0).any()
    ):
        fail(
            call,
            f"{name}.indptr (shape {starts.shape}) does not ascend from 0 to the number of "
            f"indices ({codes.size})",
        )
    return starts, codes


def frozen(array: npt.NDArray[Scalar]) -> npt.NDArray[Scalar]:
    """A read-only view: what kernels only read has one type, so each is compiled once."""
    if not array.flags.writeable:
        return array
    view = array.view()
    view.setflags(write=False)
    return view


def refreeze(value: Any) -> None:
    """Make an array, or the arrays in a tuple, read-only again: pickle forgets that they were."""
    if isinstance(value, np.ndarray):
        value.setflags(write=False)
    elif isinstance(value, tuple):
        for part in value:
            refreeze(part)


def same_length(call: str, **arrays: AnyArray) -> int:
    """The common length of the arrays' first axis; the error lists all of them."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        fail(call, "lengths differ: " + ", ".join(f"{n} has {k}" for n, k in lengths.items()))
    return next(iter(lengths.values()))
