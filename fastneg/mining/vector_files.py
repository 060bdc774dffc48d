"""Vectors from arrays, .npy files and Parquet columns of lists, without reading a file whole.

What is float32 already is used where it lies, an .npy memory-mapped. What has to be converted
(Parquet, another dtype, normalising) goes through a file that has no name, so that it takes disk
and not memory, and vanishes with the process however that ends.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastneg.checks import AnyArray, Float32Array, as_matrix, describe, fail
from fastneg.columns import to_numpy_column
from fastneg.errors import FastnegError, FastnegTypeError, FileFormatError
from fastneg.lazy import lazy_module
from fastneg.mining.search import normalised
from fastneg.tables import PARQUET, existing_file, one_line, suffix_of

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")
pq = lazy_module("pyarrow.parquet")

_BLOCK_BYTES = 4 << 20
_BATCH_ROWS = 8_192  # of Parquet, whose width is not known before the first batch


class OpenVectors(NamedTuple):
    """Vectors ready to be searched with.

    Attributes:
        matrix: float32 [n, d], finite; maybe memory-mapped; normalised where that was asked.
        fingerprint: the shape and the SHA-256 of the float32 values before normalising: the same
            whatever file or dtype they came in.
    """

    matrix: Float32Array
    fingerprint: dict[str, Any]


def open_vectors(
    source: Any,
    name: str,
    *,
    call: str,
    column: str | None,
    unit_length: bool,
    scratch: Path,
) -> OpenVectors:
    """Vectors of an array or a file.

    Args:
        source: anything that ``as_matrix`` takes, or the path of an .npy or Parquet file.
        name: of the argument, for errors.
        call: who was called, for errors.
        column: the Parquet column of lists; by default the only one.
        unit_length: whether to normalise.
        scratch: a folder for converted copies.

    Raises:
        FileFormatError: no such file, a damaged one, one of another kind.
        FastnegError: no such column, vectors of several widths, numbers that are not finite.
    """
    label = name
    if isinstance(source, str | Path):
        path = existing_file(source, call=call)
        label = str(path)
        if suffix_of(path) in PARQUET:
            return _spooled(*_parquet_blocks(path, column, call), unit_length, scratch, call)
        source = open_npy(path, call=call)
    if column is not None:
        fail(call, f"{label} has no columns, and {column!r} is named; name columns of Parquet only")
    if isinstance(source, np.ndarray) and (unit_length or source.dtype != np.float32):
        if source.ndim != 2 or source.dtype.kind not in "iuf" or source.shape[1] == 0:
            as_matrix(source, call=call, name=label)  # raises
        finite = (
            finite_floats(source[part], label, part.start, call=call)
            for part in _blocks(source.shape)
        )
        return _spooled(source.shape, finite, unit_length, scratch, call)
    matrix = as_matrix(source, call=call, name=label)
    digest = hashlib.sha256()
    for part in _blocks(matrix.shape):
        digest.update(matrix[part].data)
    found = OpenVectors(matrix, _fingerprint(matrix.shape, digest))
    return found._replace(matrix=normalised(matrix)) if unit_length else found


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, _BLOCK_BYTES // (4 * shape[1]))
    return (slice(start, start + rows) for start in range(0, shape[0], rows))


def open_npy(path: Path, *, call: str) -> AnyArray:
    """The array of an .npy file, memory-mapped.

    Raises:
        FileFormatError: another suffix, or not a readable .npy.
    """
    if path.suffix != ".npy":
        raise FileFormatError(
            f"{call}: {path} has the suffix {path.suffix!r}; vectors come as .npy or as Parquet "
            "with a column of lists"
        )
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        raise FileFormatError(
            f"{call}: {path} is not a readable .npy: {one_line(error)}"
        ) from error


def finite_floats(block: AnyArray, label: str, first_row: int, *, call: str) -> Float32Array:
    """float32 of a block of rows; ``first_row`` numbers row 0 in errors.

    Raises:
        FastnegError: a value that is not a finite float32.
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
    return matrix


def _fingerprint(shape: tuple[int, ...], digest: Any) -> dict[str, Any]:
    return {"shape": list(shape), "sha256": digest.hexdigest()}


def _spooled(
    shape: tuple[int, ...],
    blocks: Iterator[Float32Array],
    unit_length: bool,
    scratch: Path,
    call: str,
) -> OpenVectors:
    """The blocks written to a file without a name, and that mapped."""
    digest = hashlib.sha256()
    if shape[0] == 0:
        return OpenVectors(np.empty(shape, np.float32), _fingerprint(shape, digest))
    try:
        with tempfile.TemporaryFile(
            dir=scratch, buffering=0, prefix=".vectors-", suffix=".tmp"
        ) as file:
            for block in blocks:
                digest.update(block.data)
                data = (normalised(block) if unit_length else block).data.cast("B")
                while data:
                    data = data[file.write(data) :]
            matrix = np.asarray(np.memmap(file, np.float32, "r", shape=shape))
    except OSError as error:
        raise FileFormatError(
            f"{call}: {scratch} has no room for the converted vectors "
            f"({shape[0] * shape[1] * 4:,} bytes): {error.strerror or error}"
        ) from error
    return OpenVectors(matrix, _fingerprint(shape, digest))


def _parquet_blocks(
    path: Path, column: str | None, call: str
) -> tuple[tuple[int, int], Iterator[Float32Array]]:
    """The shape of a column of vectors, and its blocks."""
    try:
        file = pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise FileFormatError(f"{call}: {path} cannot be read: {one_line(error)}") from error
    with_vectors = list_column(path, file.schema_arrow, column)
    label = f"{path}: {with_vectors}"
    batches = _batches(file, with_vectors, path, call)
    first = next(batches, None)
    if first is None:
        return (0, 1), iter(())
    width = first_width(label, first, call=call)

    def blocks() -> Iterator[Float32Array]:
        row, batch = 0, first
        while batch is not None:
            block = matrix_of(label, batch, call=call, first_row=row, width=width)
            yield block
            row += len(block)
            batch = next(batches, None)

    return (file.metadata.num_rows, width), blocks()


def _batches(file: Any, column: str, path: Path, call: str) -> Iterator[Any]:
    try:
        for batch in file.iter_batches(_BATCH_ROWS, columns=[column], use_threads=False):
            if len(batch):
                yield batch.column(0)
    except (OSError, pa.ArrowException) as error:
        raise FileFormatError(f"{call}: {path} cannot be read: {one_line(error)}") from error


def is_list(kind: Any) -> bool:
    """Whether an Arrow type is one of lists."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def list_column(path: Path, schema: Any, column: str | None) -> str:
    """The column asked for, or the only one of lists.

    Raises:
        FastnegError: there is none, or there are several.
    """
    found = ", ".join(f"{field.name} ({field.type})" for field in schema)
    if column is not None:
        if column not in schema.names:
            raise FastnegError(
                f"{path} has no column {column!r}; its columns are {', '.join(schema.names)}"
            )
        return column
    lists = [field.name for field in schema if is_list(field.type)]
    if len(lists) != 1:
        raise FastnegError(
            f"{path} has {len(lists)} columns of lists; name the one with the vectors (its columns "
            f"are {found})"
        )
    return str(lists[0])


def first_width(label: str, column: Any, *, call: str) -> int:
    """The width of the first vector of a column of lists.

    Raises:
        FastnegError: not a column of lists; its first vector is null.
    """
    if not is_list(column.type):
        raise FastnegTypeError(
            f"{call}: {label} is of type {column.type}; give a column of lists of numbers"
        )
    width = pc.list_value_length(column.slice(0, 1))[0].as_py()
    if width is None:
        fail(call, f"{label}[0] is null ({column.null_count} of {len(column)} are)")
    return int(width)


def matrix_of(
    label: str, column: Any, *, call: str, first_row: int = 0, width: int | None = None
) -> Float32Array:
    """float32 [n, d] of a column of lists that all have one length, finite.

    Args:
        label: of the column, for errors.
        column: an Arrow array or chunked array.
        call: who asks, for errors.
        first_row: what row 0 is called in errors.
        width: d; by default the first vector's.

    Raises:
        FastnegError: nulls, several widths, no numbers, numbers that are not finite.
    """
    own = first_width(label, column, call=call)
    width = own if width is None else width
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
            f"{label}[{first_row + row}] has width {int(lengths[row])}, {label}[0] {width}; all "
            "vectors need one width",
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
