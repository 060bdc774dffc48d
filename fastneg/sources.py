"""Interactions as files and matrices carry them: sparse matrices and adjacency text."""

from __future__ import annotations

import codecs
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastneg import checks
from fastneg.checks import Float32Array, IntArray
from fastneg.columns import normalise_weights
from fastneg.errors import FastnegTypeError, FileFormatError
from fastneg.ids import canonical_texts
from fastneg.lazy import lazy_module
from fastneg.tables import existing_file, is_path, one_line

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")


class SparseRows(NamedTuple):
    """The stored entries of a sparse matrix, row by row; ``weights`` None where all are 1."""

    users: IntArray
    items: IntArray
    weights: Float32Array | None
    num_users: int
    num_items: int


def read_sparse(source: Any, *, call: str) -> SparseRows:
    """A SciPy sparse matrix or array (any format), or an .npz as SciPy saves it (CSR, CSC, COO).

    Raises:
        FileFormatError: no such file, or not one that SciPy wrote.
        FastnegTypeError: not a sparse matrix.
        FastnegError: indices out of range, an indptr that does not ascend, NaN or infinite data.
    """
    if is_path(source):
        return _read_npz(existing_file(source, call=call), call)
    if hasattr(source, "tocsr"):
        source = source.tocsr()
    if not all(hasattr(source, name) for name in ("indptr", "indices", "data", "shape")):
        raise FastnegTypeError(
            f"{call}: a {type(source).__name__} is not a sparse matrix; give a SciPy matrix or "
            "array, or the path of an .npz that scipy.sparse.save_npz wrote"
        )
    return _from_compressed(
        source.indptr, source.indices, source.data, source.shape, call, "matrix"
    )


def _size(shape: Any, call: str, name: str) -> tuple[int, int]:
    sizes = [int(size) for size in shape]
    if len(sizes) != 2 or min(sizes) < 1:
        checks.fail(
            call, f"{name} has shape {tuple(sizes)}; users x items, at least 1 x 1, expected"
        )
    return sizes[0], sizes[1]


def _weights(data: Any, size: int, call: str, name: str) -> Float32Array | None:
    weights = normalise_weights(np.asarray(data), call=call, name=f"{name}.data")
    if weights.size != size:
        checks.fail(call, f"{name}.data has {weights.size} entries, {name}.indices {size}")
    return None if (weights == 1).all() else weights


def _from_compressed(
    indptr: Any, indices: Any, data: Any, shape: Any, call: str, name: str, *, by_item: bool = False
) -> SparseRows:
    num_users, num_items = _size(shape, call, name)
    majors, minors = (num_items, num_users) if by_item else (num_users, num_items)
    starts, codes = checks.as_csr(indptr, indices, minors, call=call, name=name)
    if starts.size != majors + 1:
        checks.fail(
            call,
            f"{name}.indptr has {starts.size} entries; {majors + 1} expected for "
            f"shape {(num_users, num_items)}",
        )
    owners = np.repeat(np.arange(majors), np.diff(starts))
    users, items = (codes, owners) if by_item else (owners, codes)
    return SparseRows(
        users, items.copy(), _weights(data, codes.size, call, name), num_users, num_items
    )


def _read_npz(path: Path, call: str) -> SparseRows:
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("it is not a zip file, or a truncated one")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        kind = arrays["format"].item()
        shape = arrays["shape"].tolist()
        data = arrays["data"]
    except KeyError as error:
        raise FileFormatError(
            f"{call}: {path} has no array {error}; it is not as scipy.sparse.save_npz writes it"
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise FileFormatError(
            f"{call}: {path} is not a readable .npz: {one_line(error)}"
        ) from error
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    name = path.name
    needed = {"csr": ("indptr", "indices"), "csc": ("indptr", "indices"), "coo": ("row", "col")}
    if kind not in needed:
        raise FileFormatError(f"{call}: {path} holds a matrix of format {kind!r}; save it as CSR")
    for array in needed[kind]:
        if array not in arrays:
            raise FileFormatError(f"{call}: {path} has no array {array!r} (format {kind})")
    if kind == "coo":
        num_users, num_items = _size(shape, call, name)
        users = checks.as_codes(arrays["row"], num_users, call=call, name=f"{name}.row")
        items = checks.as_codes(arrays["col"], num_items, call=call, name=f"{name}.col")
        checks.same_length(call, row=users, col=items)
        weights = _weights(data, users.size, call, name)
        return SparseRows(users, items, weights, num_users, num_items)
    return _from_compressed(
        arrays["indptr"], arrays["indices"], data, shape, call, name, by_item=kind == "csc"
    )


def read_adjacency(path: str | Path, *, call: str) -> tuple[Any, Any, Any]:
    """(users [R], items [R], every user once [U]) of lines ``user item item ...``, as Arrow texts.

    Tokens are parted by spaces or tabs; a line with a user alone is a user without items; blank
    lines are skipped.

    Raises:
        FileFormatError: no such file, an empty one, not UTF-8 text.
    """
    file = existing_file(path, call=call)
    try:
        content = file.read_bytes().removeprefix(codecs.BOM_UTF8)
        whole = pa.array([content], pa.large_binary()).cast(pa.large_string())
    except (OSError, pa.ArrowInvalid) as error:
        raise FileFormatError(f"{call}: {file} is not readable text: {one_line(error)}") from error
    lines = pc.utf8_trim_whitespace(pc.split_pattern(whole, "\n").flatten())
    lines = lines.filter(pc.not_equal(lines, ""))
    if len(lines) == 0:
        raise FileFormatError(f"{call}: {file} has no lines")
    split = pc.utf8_split_whitespace(lines)
    tokens = canonical_texts(split.flatten())
    starts = np.asarray(split.offsets.to_numpy()[:-1], np.int64)
    lengths = np.asarray(np.diff(split.offsets.to_numpy()), np.int64)
    is_item = np.ones(len(tokens), np.bool_)
    is_item[starts] = False
    line_users = tokens.take(pa.array(starts))
    users = line_users.take(pa.array(np.repeat(np.arange(starts.size), lengths - 1)))
    return users, tokens.filter(pa.array(is_item)), line_users.unique()
