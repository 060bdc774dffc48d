"""Vectors and their ids from files: .npy, Parquet with a column of lists, a trained folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fastneg.checks import AnyArray, Float32Array, as_matrix
from fastneg.columns import normalise_ids, to_numpy_column
from fastneg.commands.keys import Keyed, find_key, rows_are_ids
from fastneg.errors import FastnegError, FileFormatError
from fastneg.mining.vector_files import list_column, matrix_of, open_npy
from fastneg.tables import PARQUET, existing_file, one_line, read_columns, suffix_of

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
        said: what was taken for the ids, where nobody named it; or "".
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
        path: an .npy of shape [n, D]; a Parquet file with a column of lists; a folder that
            ``fastneg train`` wrote. Beside ``user_vectors.npy`` and ``item_vectors.npy`` of such
            a folder lie their ids, which are read too.
        columns: of a Parquet file.
        side: "user" or "item": which vectors of a folder.
        load: False leaves the vectors in their file, unseen.
        keyed: what the ids are for; see ``keys``.

    Raises:
        FileFormatError: no such file, an empty or damaged one.
        FastnegError: no such column, vectors of several widths, numbers that are not finite.
    """
    if path.is_dir():
        path = path / f"{side}_vectors.npy"
    existing_file(path, call=_CALL)
    if suffix_of(path) in PARQUET:
        return _read_parquet(path, columns, keyed, load=load)
    for name, flag in (("id", columns.id), ("vector", columns.vector), ("group", columns.group)):
        if flag is not None:
            raise FastnegError(
                f"{path} has no columns, and {flag!r} is named as its {name} column; name columns "
                "of Parquet files only"
            )
    if path.suffix != ".npy":
        raise FileFormatError(
            f"{path} has the suffix {path.suffix!r}; vectors come as .npy, as Parquet with a "
            "column of lists, or as a folder that `fastneg train` wrote"
        )
    array = open_npy(path, call=_CALL)
    matrix = as_matrix(array, call=_CALL, name=str(path)) if load else None
    if array.ndim > 0 and len(array) == 0:
        raise FileFormatError(f"{path} holds no vectors (shape {array.shape})")
    num_rows = len(array) if array.ndim else 0
    beside = path.parent / _SIDES.get(path.name, ".")
    ids = read_id_map(beside) if beside.is_file() else None
    if ids is not None and len(ids) != num_rows:
        raise FileFormatError(f"{path} has {num_rows} vectors, {beside} {len(ids)} ids")
    said = rows_are_ids(path, keyed) if ids is None else ""
    return Vectors(path, num_rows, matrix, ids, said=said)


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


def _read_parquet(path: Path, columns: VectorColumns, keyed: Keyed, *, load: bool) -> Vectors:
    try:
        with pq.ParquetFile(path) as file:
            schema, num_rows = file.schema_arrow, file.metadata.num_rows
    except (OSError, pa.ArrowException, ValueError) as error:
        raise FileFormatError(f"{path} cannot be read: {one_line(error)}") from error
    vector = list_column(path, schema, columns.vector)
    key, said = columns.id, ""
    if key is None:
        others = (vector, columns.vector, columns.group)
        key, said = find_key(
            path, schema, others, keyed, lambda names: read_columns(path, names, call=_CALL).data
        )
    wanted = [name for name in (key, columns.group) if name is not None]
    if load or num_rows == 0:
        wanted.append(vector)
    text = () if key is None else (key,)
    data = read_columns(path, wanted, call=_CALL, text=text).data if wanted else {}
    matrix = matrix_of(f"{path}: {vector}", data[vector], call=_CALL) if load else None
    ids = None if key is None else _ids_of(path, key, data[key])
    groups = None if columns.group is None else data[columns.group]
    return Vectors(path, num_rows, matrix, ids, groups, vector, said)


def _ids_of(path: Path, name: str, column: Any) -> AnyArray:
    ids = normalise_ids(column, call=_CALL, name=f"{path}: {name}")
    return ids if isinstance(ids, np.ndarray) else np.asarray(ids.to_numpy(zero_copy_only=False))


def same_width(first: Vectors, second: Vectors) -> None:
    """Raise unless both have vectors of one width."""
    widths = first.matrix.shape[1], second.matrix.shape[1]
    if widths[0] != widths[1]:
        raise FastnegError(
            f"{first.path} has vectors of width {widths[0]}, {second.path} of width {widths[1]}; "
            "both come from one model"
        )
