"""Vectors from arrays, .npy files, Parquet columns of lists and folders of either.

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

from fastneg.archives import load_npy
from fastneg.arrow_files import validated
from fastneg.checks import AnyArray, Float32Array, as_matrix, fail, shown
from fastneg.errors import FastnegError, FileFormatError, system_reason
from fastneg.lazy import lazy_module
from fastneg.mining.search import normalised
from fastneg.mining.vector_columns import (
    as_vectors,
    finite_floats,
    first_width,
    list_column,
    matrix_of,
)
from fastneg.mining.vector_parts import VectorParts, find_parts, open_parquet, schema_of_parts
from fastneg.tables import one_line

pa = lazy_module("pyarrow")

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
        source: anything that ``as_matrix`` takes, or the path of an .npy or Parquet file
            or of a folder of such parts.
        name: of the argument, for errors.
        call: the function that was called, for errors.
        column: the Parquet column of lists; by default the only one.
        unit_length: whether to normalise.
        scratch: a folder for converted copies.

    Raises:
        FileFormatError: no such file, a damaged one, one of another kind.
        FastnegError: no such column, vectors of several widths, numbers that are not finite.
    """
    label = name
    if isinstance(source, str | Path):
        parts = find_parts(source, call=call)
        label = str(parts.path)
        if parts.is_parquet:
            return _spooled(*parquet_blocks(parts, column, call), unit_length, scratch, call)
        _refuse_column(column, label, call)
        arrays = [open_npy(file, call=call) for file in parts.files]
        if len(arrays) > 1:
            return _spooled(*array_blocks(parts, arrays, call), unit_length, scratch, call)
        source = arrays[0]
    _refuse_column(column, label, call)
    if type(source) is np.ndarray and (unit_length or source.dtype != np.float32):
        if source.ndim != 2 or source.dtype.kind not in "iuf" or source.shape[1] == 0:
            as_vectors(source, call=call, name=label)  # raises
        finite = (
            finite_floats(source[part], label, part.start, call=call)
            for part in _blocks(source.shape)
        )
        return _spooled(source.shape, finite, unit_length, scratch, call)
    matrix = as_vectors(source, call=call, name=label)
    digest = hashlib.sha256()
    for part in _blocks(matrix.shape):
        digest.update(matrix[part].data)
    found = OpenVectors(matrix, _fingerprint(matrix.shape, digest))
    return found._replace(matrix=normalised(matrix)) if unit_length else found


def _refuse_column(column: str | None, label: str, call: str) -> None:
    if column is not None:
        fail(
            call,
            f"{label} has no columns, and {shown(column)} is named; name columns of Parquet only",
        )


def _blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    rows = max(1, _BLOCK_BYTES // (4 * shape[1]))
    return (slice(start, start + rows) for start in range(0, shape[0], rows))


def open_npy(path: Path, *, call: str) -> AnyArray:
    """The array of an .npy file, memory-mapped.

    Raises:
        FileFormatError: not a readable .npy, or one of numbers that NumPy does not know.
    """
    array = load_npy(path, call=call)
    if array.dtype.kind == "V":
        raise FileFormatError(
            f"{call}: {path} holds {array.dtype.itemsize} raw bytes a number (dtype "
            f"{array.dtype}), as bfloat16 is saved; save it as float32"
        )
    return np.asarray(array)


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
            f"({shape[0] * shape[1] * 4:,} bytes): {system_reason(error)}"
        ) from error
    return OpenVectors(matrix, _fingerprint(shape, digest))


def array_blocks(
    parts: VectorParts, arrays: list[AnyArray], call: str
) -> tuple[tuple[int, int], Iterator[Float32Array]]:
    """The shape of .npy parts put together, and their blocks.

    Raises:
        FastnegError: a part that is no matrix of numbers, or of another width than the first.
    """
    width: int | None = None
    for file, array in zip(parts.files, arrays, strict=True):
        if array.ndim != 2 or array.dtype.kind not in "iuf" or array.shape[1] == 0:
            as_matrix(array, call=call, name=str(file))  # raises
        if width is not None and array.shape[1] != width:
            fail(
                call,
                f"{file} has vectors of width {array.shape[1]}, {parts.files[0]} of width {width}; "
                "all parts need one width",
            )
        width = array.shape[1]

    def blocks() -> Iterator[Float32Array]:
        for file, array in zip(parts.files, arrays, strict=True):
            for part in _blocks(array.shape):
                yield finite_floats(array[part], str(file), part.start, call=call)

    return (sum(len(array) for array in arrays), width or 1), blocks()


def parquet_blocks(
    parts: VectorParts, column: str | None, call: str
) -> tuple[tuple[int, int], Iterator[Float32Array]]:
    """The shape of a column of vectors, and its blocks.

    Raises:
        FastnegError: no such column, or the first vector is null; the iterator: as ``matrix_of``.
    """
    schema, rows = schema_of_parts(parts, call=call)
    with_vectors = list_column(parts.path, schema, column, call=call)
    batches = _batches(parts, with_vectors, call)
    first = next(batches, None)
    if first is None:
        return (0, 1), iter(())
    first_label = f"{first[0]}: {with_vectors}"
    width = first_width(first_label, first[2], call=call)

    def blocks() -> Iterator[Float32Array]:
        batch: tuple[Path, int, Any] | None = first
        while batch is not None:
            path, row, vectors = batch
            label = f"{path}: {with_vectors}"
            yield matrix_of(
                label, vectors, call=call, first_row=row, width=width, first=first_label
            )
            batch = next(batches, None)

    return (sum(rows), width), blocks()


def _batches(parts: VectorParts, column: str, call: str) -> Iterator[tuple[Path, int, Any]]:
    """(file, its first row, vectors) of each batch that has a row."""
    for path in parts.files:
        row = 0
        with open_parquet(path, call=call) as file:
            if column not in file.schema_arrow.names:
                raise FastnegError(
                    f"{call}: {path} has no column {column!r}; its columns are "
                    f"{', '.join(file.schema_arrow.names)}"
                )
            try:
                for batch in file.iter_batches(_BATCH_ROWS, columns=[column], use_threads=False):
                    if len(batch):
                        yield path, row, validated(batch, call=call, name=str(path)).column(column)
                        row += len(batch)
            except (OSError, pa.ArrowException) as error:
                raise FileFormatError(
                    f"{call}: {path} cannot be read: {one_line(error)}"
                ) from error
