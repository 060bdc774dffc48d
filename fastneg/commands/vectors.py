"""Vectors and their ids from files: .npy, Parquet with a column of lists, folders of either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastneg.checks import AnyArray, Float32Array, as_matrix
from fastneg.columns import to_numpy_column
from fastneg.errors import FastnegError, FileFormatError
from fastneg.mining.keys import Keyed, find_key, ids_of_column, rows_are_ids
from fastneg.mining.vector_columns import list_column
from fastneg.mining.vector_files import array_blocks, open_npy, parquet_blocks
from fastneg.mining.vector_parts import (
    VectorParts,
    columns_of_parts,
    find_parts,
    schema_of_parts,
)
from fastneg.tables import read_columns

_CALL = "read vectors"
_SIDES = {"user_vectors.npy": "users.parquet", "item_vectors.npy": "items.parquet"}


@dataclass(frozen=True)
class VectorColumns:
    """The columns of a Parquet file of vectors; None is the default.

    Attributes:
        vector: the column of lists; by default the only one there is.
        id: the key; by default ``id`` where there is one, else the only column that could be it,
            else row numbers.
        group: categories for the group rule; by default there are none.
    """

    vector: str | None = None
    id: str | None = None
    group: str | None = None


BY_DEFAULT = VectorColumns()


@dataclass(frozen=True)
class Vectors:
    """Vectors and whose they are.

    Attributes:
        path: the file.
        num_rows: n.
        loaded: float32 [n, D], finite; None where only the ids were read.
        ids: [n], int64 or Python strings; None where row numbers are the ids.
        groups: [n] Arrow column, or None.
        column: of a Parquet file, the one with the vectors.
        said: a line that says which column was used as ids, if no flag named one; or "".
    """

    path: Path
    num_rows: int
    loaded: Float32Array | None
    ids: AnyArray | None = None
    groups: Any = None
    column: str | None = None
    said: str = ""

    @property
    def matrix(self) -> Float32Array:
        """float32 [n, D], finite."""
        assert self.loaded is not None
        return self.loaded

    def all_ids(self) -> AnyArray:
        """[n] the ids, row numbers where there are none."""
        return np.arange(self.num_rows, dtype=np.int64) if self.ids is None else self.ids

    def counts_rows(self) -> bool:
        """Whether the ids are the row numbers."""
        return self.ids is None or np.array_equal(self.ids, np.arange(len(self.ids)))

    def sample_of_ids(self) -> str:
        """A few ids, for errors."""
        if self.ids is None:
            return f"rows 0..{self.num_rows - 1}"
        return listed(self.ids)


def listed(ids: Any, most: int = 2) -> str:
    """The first ids, for errors."""
    return ", ".join(repr(one) for one in ids[:most].tolist()) + (", ..." * (len(ids) > most))


def read_vectors(
    path: Path,
    columns: VectorColumns = BY_DEFAULT,
    *,
    side: str,
    load: bool = True,
    keyed: Keyed = Keyed(),  # noqa: B008  (frozen)
) -> Vectors:
    """Vectors of users or items.

    Args:
        path: an .npy of shape [n, D]; a Parquet file with a column of lists; a folder with parts of
            either kind; a folder that ``fastneg train`` wrote. Beside ``user_vectors.npy`` and
            ``item_vectors.npy`` of such a folder lie their ids, which are read too.
        columns: of a Parquet file.
        side: "user" or "item": which vectors of a folder.
        load: False leaves the vectors in their file, unseen.
        keyed: what the ids are for; see ``keys``.

    Raises:
        FileFormatError: no such file, an empty or damaged one.
        FastnegError: no such column, vectors of several widths, numbers that are not finite.
    """
    trained = path / f"{side}_vectors.npy"
    if trained.is_file() or (path.is_dir() and any((path / name).is_file() for name in _SIDES)):
        path = trained
    parts = find_parts(path, call=_CALL)
    if parts.is_parquet:
        return _read_parquet(parts, columns, keyed, load=load)
    for name, flag in (("id", columns.id), ("vector", columns.vector), ("group", columns.group)):
        if flag is not None:
            raise FastnegError(
                f"{path} has no columns, and {flag!r} is named as its {name} column; name columns "
                "of Parquet files only"
            )
    arrays = [open_npy(file, call=_CALL) for file in parts.files]
    if len(arrays) > 1:
        (num_rows, width), blocks = array_blocks(parts, arrays, _CALL)
        matrix = _put_together(blocks, num_rows, width) if load else None
    else:
        matrix = as_matrix(arrays[0], call=_CALL, name=str(path)) if load else None
        num_rows = len(arrays[0]) if arrays[0].ndim else 0
    if num_rows == 0 and arrays[0].ndim > 0:
        raise FileFormatError(f"{path} holds no vectors (shape {arrays[0].shape})")
    beside = path.parent / _SIDES.get(path.name, ".")
    ids = read_id_map(beside) if beside.is_file() else None
    if ids is not None and len(ids) != num_rows:
        raise FileFormatError(f"{path} has {num_rows} vectors, {beside} {len(ids)} ids")
    said = rows_are_ids(path, keyed) if ids is None else ""
    return Vectors(path, num_rows, matrix, ids, said=said)


def _put_together(blocks: Iterator[Float32Array], num_rows: int, width: int) -> Float32Array:
    matrix = np.empty((num_rows, width), np.float32)
    row = 0
    for block in blocks:
        matrix[row : row + len(block)] = block
        row += len(block)
    return matrix


def read_id_map(path: Path) -> AnyArray:
    """The ids of ``users.parquet`` or ``items.parquet``, in the order of their codes.

    Raises:
        FileFormatError: not such a file, or one whose codes are not 0..n-1 in order.
    """
    table = read_columns(path, ["code", "id"], call=_CALL).data
    codes = to_numpy_column(table["code"])
    if not np.array_equal(codes, np.arange(len(codes))):
        raise FileFormatError(f"{path} is not a map of ids: its codes are not 0..{len(codes) - 1}")
    return to_numpy_column(table["id"])


def _read_parquet(
    parts: VectorParts, columns: VectorColumns, keyed: Keyed, *, load: bool
) -> Vectors:
    path = parts.path
    schema, rows = schema_of_parts(parts, call=_CALL)
    vector = list_column(path, schema, columns.vector, call=_CALL)
    if sum(rows) == 0:
        raise FileFormatError(f"{path} has no rows")
    key, said = columns.id, ""
    if key is None:
        others = (vector, columns.vector, columns.group)
        key, said = find_key(
            path, schema, others, keyed, lambda names: columns_of_parts(parts, names, call=_CALL)
        )
    wanted = list(dict.fromkeys(name for name in (key, columns.group) if name is not None))
    data = columns_of_parts(parts, wanted, call=_CALL) if wanted else {}
    matrix = None
    if load:
        (num_rows, width), blocks = parquet_blocks(parts, vector, _CALL)
        matrix = _put_together(blocks, num_rows, width)
    ids = None if key is None else ids_of_column(path, key, data[key], call=_CALL)
    groups = None if columns.group is None else data[columns.group]
    return Vectors(path, sum(rows), matrix, ids, groups, vector, said)


def same_width(first: Vectors, second: Vectors) -> None:
    """Raise unless both have vectors of one width."""
    widths = first.matrix.shape[1], second.matrix.shape[1]
    if widths[0] != widths[1]:
        raise FastnegError(
            f"{first.path} has vectors of width {widths[0]}, {second.path} of width {widths[1]}; "
            "both come from one model"
        )
