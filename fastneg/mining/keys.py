"""Find the id column (the key) of a file of vectors.

Row numbers used in place of ids give wrong results without an error. They are used only if no
column could be the key, or if the other file holds row numbers itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastneg.checks import AnyArray
from fastneg.columns import normalise_ids, plain_column
from fastneg.errors import FastnegError
from fastneg.ids import file_ids
from fastneg.lazy import lazy_module
from fastneg.mining.vector_columns import list_column
from fastneg.mining.vector_parts import columns_of_parts, find_parts, schema_of_parts

pa = lazy_module("pyarrow")
pc = lazy_module("pyarrow.compute")

BY_DEFAULT = "id"
IDS, ROWS, NOTHING = "ids", "rows", "nothing"
_ENDINGS = ("id", "key", "sku", "asin", "user", "item")  # "user", "item": of interactions
_INDEX = "__index_level_"  # pandas' name for an index without a name


class KeyedIds(NamedTuple):
    """The ids of a file of vectors, int64 or Python strings, and what is to be said of them."""

    ids: AnyArray | None
    said: str


@dataclass(frozen=True)
class Keyed:
    """How the ids of a file of vectors will be used.

    Attributes:
        flag: the flag or argument that names the column.
        met_with: what the other file holds: ``"ids"``, ``"rows"`` (a matrix, whose numbers are row
            numbers), or ``"nothing"`` (there is no other file).
        repeats: whether several rows may have one id.
    """

    flag: str = "the id column"
    met_with: str = NOTHING
    repeats: bool = False


def find_key(
    path: Path,
    schema: Any,
    others: Collection[str | None],
    keyed: Keyed,
    read: Callable[[list[str]], Mapping[str, Any]],
) -> tuple[str | None, str]:
    """(name of the key, or None for row numbers; a line that tells the user, or "").

    Args:
        path: of the file, for messages.
        schema: its Arrow schema.
        others: columns known not to be the key.
        keyed: how the ids will be used.
        read: reads columns by name.

    Raises:
        FastnegError: several columns could be the key, and another file has ids to compare.
    """
    names = [one.name for one in schema if _holds_ids(one.type) and one.name not in others]
    named = [name for name in names if not name.startswith(_INDEX)]
    names = named or names
    if BY_DEFAULT in schema.names:
        rivals = [name for name in names if name != BY_DEFAULT and _sounds_like_a_key(name)]
        if keyed.met_with == IDS and _that_could_be(rivals, keyed, read):
            raise _several(path, [BY_DEFAULT, *rivals], keyed)
        return BY_DEFAULT, ""
    if keyed.met_with == ROWS:
        return None, ""
    could_be = _that_could_be(names, keyed, read)
    if len(could_be) == 1:
        return could_be[0], f"{path}: ids are those of its column {could_be[0]!r} ({keyed.flag})"
    if could_be and keyed.met_with == IDS:
        raise _several(path, could_be, keyed)
    if could_be:
        listed = ", ".join(map(repr, could_be))
        return None, f"{path}: row numbers are used as ids; {keyed.flag} can name one of {listed}"
    return None, rows_are_ids(path, keyed)


def ids_of_file(
    source: Any, column: str | None, key: str | None, keyed: Keyed, *, call: str
) -> KeyedIds:
    """The ids that a Parquet file of vectors has, or none.

    Args:
        source: the path of vectors, or anything else, which has no ids.
        column: the one with the vectors; by default the only one of lists.
        key: the column of ids; by default the one that ``find_key`` finds.
        keyed: what the ids are for.
        call: who asks, for errors.

    Raises:
        FastnegError: as ``find_key``; a key is named of what is no Parquet; no such column.
    """
    parts = find_parts(source, call=call) if isinstance(source, str | Path) else None
    if parts is None or not parts.is_parquet:
        if key is not None:
            raise FastnegError(
                f"{call}: {keyed.flag} = {key!r} names a column; the vectors are no Parquet file"
            )
        return KeyedIds(None, "")
    said = ""
    if key is None:
        schema, _ = schema_of_parts(parts, call=call)
        vectors = list_column(parts.path, schema, column, call=call)
        try:
            key, said = find_key(
                parts.path, schema, (vectors, column), keyed,
                lambda names: columns_of_parts(parts, names, call=call),
            )  # fmt: skip
        except FastnegError as error:
            raise FastnegError(f"{call}: {str(error).removeprefix(f'{call}: ')}") from None
    if key is None:
        return KeyedIds(None, said)
    found = columns_of_parts(parts, [key], call=call)[key]
    return KeyedIds(ids_of_column(parts.path, key, found, call=call), said)


def ids_of_column(path: Path, name: str, column: Any, *, call: str) -> AnyArray:
    """[n] ids of a column of a file, int64 or Python strings, by the rule of all files."""
    label = f"{path}: {name}"
    ids = normalise_ids(file_ids(column, call=call, name=label), call=call, name=label)
    return ids if isinstance(ids, np.ndarray) else np.asarray(ids.to_numpy(zero_copy_only=False))


def rows_are_ids(path: Path, keyed: Keyed) -> str:
    """The line that tells the user that ids of another file are used as row numbers, or ""."""
    if keyed.met_with != IDS:
        return ""
    return f"{path} has no ids: ids in the other file are used as its row numbers"


def _holds_ids(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    tests = (
        pa.types.is_integer, pa.types.is_decimal, pa.types.is_string, pa.types.is_large_string,
        pa.types.is_string_view, pa.types.is_binary, pa.types.is_large_binary,
        pa.types.is_fixed_size_binary,
    )  # fmt: skip
    return isinstance(kind, pa.BaseExtensionType) or any(test(kind) for test in tests)


def _sounds_like_a_key(name: str) -> bool:
    return name.lower().endswith(_ENDINGS)


def _that_could_be(
    names: Sequence[str], keyed: Keyed, read: Callable[[list[str]], Mapping[str, Any]]
) -> list[str]:
    """Columns without a missing value, and without a repeated one unless ids may repeat."""
    found = []
    for name in names:
        column = plain_column(read([name])[name])
        if isinstance(column.type, pa.BaseExtensionType):
            column = pa.chunked_array([pa.array(map(str, column.to_pylist()))])
        if column.null_count or len(column) == 0:
            continue
        if keyed.repeats or pc.count_distinct(column).as_py() == len(column):
            found.append(name)
    return found


def _several(path: Path, names: Sequence[str], keyed: Keyed) -> FastnegError:
    listed = ", ".join(map(repr, names))
    return FastnegError(
        f"{path} has several columns that could be its ids ({listed}); name the right one by "
        f"{keyed.flag}"
    )
