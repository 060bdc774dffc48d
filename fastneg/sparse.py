"""Sparse matrices as rows, checked before anything follows an index into them.

SciPy converts between formats without checking the indices, and damaged ones crash the interpreter.
So a matrix of any format is turned into rows here, by NumPy.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastneg import checks
from fastneg.archives import load_npz
from fastneg.checks import AnyArray, Float32Array, IntArray
from fastneg.columns import normalise_weights
from fastneg.errors import FastnegTypeError, FileFormatError
from fastneg.row_columns import refuse_beyond_memory
from fastneg.tables import existing_file, is_path

_NEEDED = {
    "csr": ("indptr", "indices"),
    "csc": ("indptr", "indices"),
    "bsr": ("indptr", "indices"),
    "coo": ("row", "col"),
    "dia": ("offsets",),
}


class SparseRows(NamedTuple):
    """The stored entries of a sparse matrix, row by row; ``weights`` None where all are 1."""

    users: IntArray
    items: IntArray
    weights: Float32Array | None
    num_users: int
    num_items: int


class _Entries(NamedTuple):
    """Stored entries: users and items in range, data of any numeric dtype."""

    users: IntArray
    items: IntArray
    data: AnyArray


def read_sparse(source: Any, *, call: str) -> SparseRows:
    """A SciPy sparse matrix or array (any format), or an .npz as SciPy saves it (CSR, CSC, COO).

    Raises:
        FileFormatError: no such file, or not one that SciPy wrote.
        FastnegTypeError: not a sparse matrix.
        FastnegError: indices out of range, an indptr that does not ascend, NaN or infinite data.
    """
    form: Any
    name = "matrix"
    if is_path(source):
        path = existing_file(source, call=call)
        name = path.name
        form, shape, arrays = _of_file(path, call)
        entries = _of_parts(form, arrays, shape, call, name)
    else:
        form = getattr(source, "format", None)
        if form is None and hasattr(source, "indptr"):
            form = "csr"
        if not hasattr(source, "shape") or form not in (*_NEEDED, "lil", "dok"):
            raise FastnegTypeError(
                f"{call}: a {type(source).__name__} is not a sparse matrix; give a SciPy matrix or "
                "array, or the path of an .npz that scipy.sparse.save_npz wrote"
            )
        shape = _size(source.shape, call, name)
        entries = _of_matrix(form, source, shape, call)
    if form == "coo":
        entries = _summed(entries)
    elif form != "csr":  # by user, as SciPy's own conversion has them
        order = np.argsort(entries.users, kind="stable")
        entries = _Entries(*(array[order] for array in entries))
    weights = normalise_weights(entries.data, call=call, name=f"{name}.data")
    ones = bool((weights == 1).all())
    return SparseRows(entries.users, entries.items, None if ones else weights, *shape)


def _of_matrix(form: str, matrix: Any, shape: tuple[int, int], call: str) -> _Entries:
    if form == "lil":
        return _of_lists(matrix.rows, matrix.data, shape, call)
    if form == "dok":
        return _of_keys(dict(matrix.items()), shape, call)
    parts = {name: getattr(matrix, name) for name in (*_NEEDED[form], "data")}
    return _of_parts(form, parts, shape, call, "matrix")


def _of_file(path: Path, call: str) -> tuple[str, tuple[int, int], dict[str, AnyArray]]:
    """(format, shape, arrays) of an .npz."""
    arrays = load_npz(path, call=call)
    for name in ("format", "shape", "data"):
        if name not in arrays:
            raise FileFormatError(
                f"{call}: {path} has no array {name!r}; it is not as scipy.sparse.save_npz "
                "writes it"
            )
    if arrays["format"].size != 1:
        raise FileFormatError(f"{call}: {path}: format has shape {arrays['format'].shape}")
    form = arrays["format"].reshape(-1)[0]
    form = form.decode("latin-1") if isinstance(form, bytes) else str(form)
    if form not in ("csr", "csc", "coo"):
        raise FileFormatError(f"{call}: {path} holds a matrix of format {form!r}; save it as CSR")
    for name in _NEEDED[form]:
        if name not in arrays:
            raise FileFormatError(f"{call}: {path} has no array {name!r} (format {form})")
    sizes = checks.as_integers(arrays["shape"], call=call, name=f"{path.name}.shape")
    return form, _size(sizes.tolist(), call, path.name), arrays


def _size(shape: Any, call: str, name: str) -> tuple[int, int]:
    sizes = [int(size) for size in shape]
    if len(sizes) != 2 or min(sizes) < 1:
        checks.fail(
            call, f"{name} has shape {tuple(sizes)}; users x items, at least 1 x 1, expected"
        )
    for size, side in zip(sizes, ("users", "items"), strict=True):
        refuse_beyond_memory(size, call=call, name=f"{name}: {side}")
    return sizes[0], sizes[1]


def _numbers(data: Any, size: int, call: str, name: str) -> AnyArray:
    """The stored values, one for each index."""
    values = checks.to_numpy(data, call=call, name=f"{name}.data")
    if values.ndim != 1 or values.size != size:
        checks.fail(
            call,
            f"{name}.data has {values.size} entries ({values.dtype}, shape {values.shape}), its "
            f"indices {size}",
        )
    return values


def _of_parts(
    form: str, parts: dict[str, Any], shape: tuple[int, int], call: str, name: str
) -> _Entries:
    """The entries of a CSR, CSC, BSR, COO or DIA matrix, every index checked."""
    if form == "coo":
        users = checks.as_codes(parts["row"], shape[0], call=call, name=f"{name}.row")
        items = checks.as_codes(parts["col"], shape[1], call=call, name=f"{name}.col")
        checks.same_length(call, row=users, col=items)
        users, items = users.copy(), items.copy()  # the caller may write into theirs
        return _Entries(users, items, _numbers(parts["data"], users.size, call, name))
    if form == "dia":
        return _of_diagonals(parts["offsets"], parts["data"], shape, call, name)
    height, width = 1, 1
    if form == "bsr":
        blocks = checks.to_numpy(parts["data"], call=call, name=f"{name}.data")
        if blocks.ndim != 3 or 0 in blocks.shape[1:]:
            checks.fail(call, f"{checks.describe(f'{name}.data', blocks)} are no blocks")
        height, width = blocks.shape[1:]
        if shape[0] % height or shape[1] % width:
            checks.fail(call, f"{name} of shape {shape} has blocks of {height} x {width}")
    majors, minors = shape[0] // height, shape[1] // width
    if form == "csc":
        majors, minors = minors, majors
    starts, codes = checks.as_csr(parts["indptr"], parts["indices"], minors, call=call, name=name)
    if starts.size != majors + 1:
        checks.fail(
            call,
            f"{name}.indptr has {starts.size} entries; {majors + 1} expected for shape {shape}",
        )
    codes = codes.copy()
    owners = np.repeat(np.arange(majors), np.diff(starts))
    if form == "bsr":
        return _of_blocks(owners, codes, blocks, call, name)
    data = _numbers(parts["data"], codes.size, call, name)
    return _Entries(codes, owners, data) if form == "csc" else _Entries(owners, codes, data)


def _of_blocks(
    owners: IntArray, codes: IntArray, blocks: AnyArray, call: str, name: str
) -> _Entries:
    number, height, width = blocks.shape
    if number != codes.size:
        checks.fail(call, f"{name}.data has {number} blocks, {name}.indices {codes.size}")
    users = owners[:, None, None] * height + np.arange(height)[:, None]
    items = codes[:, None, None] * width + np.arange(width)
    grid = np.broadcast_shapes(users.shape, items.shape)
    users, items = (np.broadcast_to(codes, grid).reshape(-1) for codes in (users, items))
    return _Entries(users, items, blocks.reshape(-1))


def _of_diagonals(
    offsets: Any, data: Any, shape: tuple[int, int], call: str, name: str
) -> _Entries:
    """Diagonal k holds data[k, j] at row j - offsets[k], column j; zeros are not stored."""
    shifts = checks.as_integers(offsets, call=call, name=f"{name}.offsets")
    values = checks.to_numpy(data, call=call, name=f"{name}.data")
    if values.ndim != 2 or len(values) != shifts.size:
        checks.fail(
            call,
            f"{checks.describe(f'{name}.data', values)}: one row for each of {shifts.size} "
            "offsets expected",
        )
    outside = (shifts <= -shape[0]) | (shifts >= shape[1])
    if outside.any() or np.unique(shifts).size != shifts.size:
        bad = shifts[outside][0] if outside.any() else "two equal ones"
        checks.fail(
            call,
            f"{name}.offsets has {bad}; give each diagonal once, "
            f"{1 - shape[0]}..{shape[1] - 1} for shape {shape}",
        )
    items = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    users = items - shifts[:, None]
    there = (users >= 0) & (users < shape[0]) & (items < shape[1]) & (values != 0)
    return _Entries(users[there], items[there], values[there])


def _of_lists(rows: Any, data: Any, shape: tuple[int, int], call: str) -> _Entries:
    """The entries of a LIL matrix: a list of columns, and one of values, for each row."""
    try:
        rows, data = [list(row) for row in rows], [list(row) for row in data]
    except TypeError as error:
        raise FastnegTypeError(f"{call}: matrix.rows or matrix.data has no lists") from error
    lengths = [len(row) for row in rows]
    if len(rows) != shape[0] or lengths != [len(row) for row in data]:
        checks.fail(
            call,
            f"matrix.rows and matrix.data do not fit shape {shape}: each needs a list for each "
            "row, of one length",
        )
    items = [item for row in rows for item in row]
    values = np.array([value for row in data for value in row])
    codes = checks.as_codes(items, shape[1], call=call, name="matrix.rows")
    users = np.repeat(np.arange(shape[0]), lengths)
    return _Entries(users, codes, _numbers(values, users.size, call, "matrix"))


def _of_keys(entries: dict[Any, Any], shape: tuple[int, int], call: str) -> _Entries:
    """The entries of a DOK matrix."""
    keys = checks.to_numpy(list(entries), call=call, name="matrix.keys()")
    if keys.size and (keys.ndim != 2 or keys.shape[1] != 2):
        checks.fail(call, f"{checks.describe('matrix.keys()', keys)} are no pairs of codes")
    keys = keys.reshape(-1, 2)
    users = checks.as_codes(keys[:, 0], shape[0], call=call, name="matrix.keys()[:, 0]")
    items = checks.as_codes(keys[:, 1], shape[1], call=call, name="matrix.keys()[:, 1]")
    values = np.array(list(entries.values()))
    return _Entries(users, items, _numbers(values, users.size, call, "matrix"))


def _summed(entries: _Entries) -> _Entries:
    """Entries of one cell added up, as a COO matrix means them; by user."""
    order = np.lexsort((entries.items, entries.users))
    users, items, data = (array[order] for array in entries)
    first = np.flatnonzero(np.append(True, (np.diff(users) != 0) | (np.diff(items) != 0)))
    if users.size == 0 or first.size == users.size:  # nothing twice: the order within a user stays
        order = np.argsort(entries.users, kind="stable")
        return _Entries(*(array[order] for array in entries))
    summed = np.logical_or if data.dtype == np.bool_ else np.add
    return _Entries(users[first], items[first], summed.reduceat(data, first))
