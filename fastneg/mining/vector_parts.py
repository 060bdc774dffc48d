"""Files of vectors: one, or the parts in a folder as Spark, Ray and autofaiss write them.

Parts are read in the natural order of their names (``emb_2.npy`` before ``emb_10.npy``), and rows
are numbered through. What Spark and others leave beside the parts (``_SUCCESS``, ``.part-0.crc``,
``_metadata``, lists in JSON) is no part of them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from fastneg.arrow_files import validated
from fastneg.errors import FastnegError, FileFormatError
from fastneg.lazy import lazy_module
from fastneg.tables import PARQUET, existing_file, one_line, suffix_of

pa = lazy_module("pyarrow")
pq = lazy_module("pyarrow.parquet")


class VectorParts(NamedTuple):
    """The files of one set of vectors, in order.

    Attributes:
        path: what was given, for errors.
        files: one or more .npy files, or one or more Parquet files.
        is_parquet: which of the two.
    """

    path: Path
    files: list[Path]
    is_parquet: bool


def find_parts(source: str | Path, *, call: str) -> VectorParts:
    """The files of a path: the file itself, or a folder's parts.

    Raises:
        FileFormatError: no such file, an empty one, one of another kind; a folder without parts or
            with parts of both kinds.
    """
    path = existing_file(source, call=call)
    if not path.is_dir():
        if suffix_of(path) in PARQUET:
            return VectorParts(path, [path], True)
        if path.suffix == ".npy":
            return VectorParts(path, [path], False)
        raise FileFormatError(
            f"{call}: {path} has the suffix {path.suffix!r}; vectors come as .npy, as Parquet with "
            "a column of lists, or as a folder of such parts"
        )
    arrays, tables = [], []
    for file in sorted(path.rglob("*"), key=lambda file: _natural(file.relative_to(path))):
        hidden = any(name.startswith(("_", ".")) for name in file.relative_to(path).parts)
        if hidden or not file.is_file():
            continue
        if suffix_of(file) in PARQUET:
            tables.append(file)
        elif file.suffix == ".npy":
            arrays.append(file)
    if {"user_vectors.npy", "item_vectors.npy"} <= {file.name for file in arrays}:
        raise FileFormatError(
            f"{call}: {path} is a folder that `fastneg train` wrote; give its user_vectors.npy or "
            "its item_vectors.npy"
        )
    if arrays and tables:
        raise FileFormatError(
            f"{call}: the folder {path} holds .npy files ({arrays[0].name}) and Parquet files "
            f"({tables[0].name}); give a folder with parts of one kind"
        )
    if not arrays and not tables:
        raise FileFormatError(f"{call}: the folder {path} holds no .npy and no Parquet files")
    return VectorParts(path, arrays or tables, bool(tables))


def _natural(path: Path) -> list[tuple[tuple[int, int, str], ...]]:
    """Names in the order of the numbers in them."""
    return [
        tuple(
            (0, int(piece), piece) if piece.isdecimal() else (1, 0, piece)
            for piece in re.split(r"(\d+)", name)
            if piece
        )
        for name in path.parts
    ]


def open_parquet(path: Path, *, call: str) -> Any:
    """A Parquet file, mapped.

    Raises:
        FileFormatError: it cannot be read.
    """
    try:
        return pq.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise FileFormatError(f"{call}: {path} cannot be read: {one_line(error)}") from error


def schema_of_parts(parts: VectorParts, *, call: str) -> tuple[Any, list[int]]:
    """The columns of Parquet parts, and how many rows each part has.

    A column is of the type that it has in the first part that knows it: of a column without a value
    some writers say no more than null.

    Raises:
        FileFormatError: a part cannot be read.
    """
    fields: dict[str, Any] = {}
    rows = []
    for path in parts.files:
        with open_parquet(path, call=call) as file:
            rows.append(int(file.metadata.num_rows))
            for field in file.schema_arrow:
                known = fields.get(field.name)
                if known is None or pa.types.is_null(known.type):
                    fields[field.name] = field
    return pa.schema(list(fields.values())), rows


def columns_of_parts(parts: VectorParts, names: list[str], *, call: str) -> dict[str, Any]:
    """Columns of Parquet parts, one part after the other, as chunked arrays.

    Raises:
        FileFormatError: a part cannot be read.
        FastnegError: a part lacks a column, or has it in a type that the others' do not fit.
    """
    tables = []
    for path in parts.files:
        with open_parquet(path, call=call) as file:
            lacking = [name for name in names if name not in file.schema_arrow.names]
            if lacking:
                raise FastnegError(
                    f"{call}: {path} has no column {lacking[0]!r}; its columns are "
                    f"{', '.join(file.schema_arrow.names)}"
                )
            try:
                tables.append(file.read(columns=names, use_threads=False).select(names))
            except (OSError, pa.ArrowException, ValueError) as error:
                raise FileFormatError(
                    f"{call}: {path} cannot be read: {one_line(error)}"
                ) from error
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise FastnegError(
            f"{call}: the parts of {parts.path} have columns of types that do not fit each other: "
            f"{one_line(error)}"
        ) from error
    whole = validated(whole, call=call, name=str(parts.path))
    return {name: whole.column(name) for name in names}
