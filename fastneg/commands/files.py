"""Files of interactions and ids as the commands take them, all in the codes of the first one.

Files speak ids; everything behind this page speaks codes. The first file (with a table of items or
users, where there is one) makes the vocabulary, and the others are read into it: ids that it does
not know get codes beyond its end, which evaluation counts as unknown. A sparse matrix (.npz), and
a saved folder of interactions that were made of codes, has no ids; its codes can be combined only
with those of another such file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastneg.archives import DAMAGE
from fastneg.checks import AnyArray
from fastneg.columns import normalise_ids
from fastneg.data.features import FeatureTable, read_ids
from fastneg.errors import FastnegError, FileFormatError
from fastneg.ids import canonical_texts
from fastneg.interactions import Interactions
from fastneg.saved_rows import has_ids
from fastneg.sources import read_adjacency
from fastneg.storage import is_saved_folder
from fastneg.tables import (
    ARROW,
    COMMA,
    JSON,
    PARQUET,
    TAB,
    TABLES,
    Kind,
    existing_file,
    file_kind,
    read_columns,
    suffix_of,
)
from fastneg.text_files import open_text, without_null_texts
from fastneg.text_options import TextFormat, TextOptions


@dataclass(frozen=True)
class ColumnNames:
    """The columns of tables of interactions, as named by flags; None is a default or nothing.

    Attributes:
        user, item: ids; by default ``user`` and ``item``.
        weight, time: by default there are none.
        delimiter: of a text file, where the suffix does not say it.
        header: the columns of a text file without a header line.
        format: of files whose suffix says nothing.
        nulls, quotes, encoding: as of ``TextFormat``; for tables of users and items, too.
    """

    user: str | None = None
    item: str | None = None
    weight: str | None = None
    time: str | None = None
    delimiter: str | None = None
    header: str | None = None
    format: str | None = None
    nulls: bool = True
    quotes: bool | None = None
    encoding: str | None = None

    def arguments(self, path: Path, *, with_time: bool = True) -> dict[str, Any]:
        """The keywords of ``Interactions.read`` that are given, for one file."""
        named = {
            "user_column": self.user,
            "item_column": self.item,
            "weight_column": self.weight,
            "time_column": self.time if with_time else None,
        }
        given = {name: value for name, value in named.items() if value is not None}
        return {**given, **self.of_text(path)}

    def of_text(self, path: Path) -> TextOptions:
        """How a file of interactions is to be read; what its suffix says holds before a flag."""
        suffix = suffix_of(path)
        is_text = suffix in (*COMMA, *TAB)
        is_open = not is_text and suffix not in (*PARQUET, *ARROW, *JSON, ".npz")
        names = None if self.header is None else self.header.split(",")
        options: TextOptions = {
            "format": self.format if is_open else None,
            "delimiter": _unescaped(self.delimiter) if is_open or is_text else None,
            "column_names": names if is_open or is_text else None,
        }
        if path.is_dir():
            return self.of_tables()
        given = {name: value for name, value in options.items() if value is not None}
        return {**given, **self.of_tables()}  # type: ignore[typeddict-item]

    def of_tables(self) -> TextOptions:
        """How tables of users and items are to be read, and files of interactions likewise."""
        options: TextOptions = {"quoting": self.quotes, "encoding": self.encoding}
        given = {name: value for name, value in options.items() if value is not None}
        if not self.nulls:
            given["nulls"] = False
        return given  # type: ignore[return-value]

    def kind(self, path: Path) -> Kind:
        """What an existing file is."""
        return file_kind(path, TextFormat.of(self.of_text(path), call="read"), call="read")


def _unescaped(delimiter: str | None) -> str | None:
    """A tab has no name at a shell, so it gets one here."""
    return {"\\t": "\t", "tab": "\t", "space": " "}.get(delimiter or "", delimiter)


BY_DEFAULT = ColumnNames()


def prepare_file(path: Path, *inputs: Path | None) -> None:
    """Find a file writable before any work starts, and make its folder.

    Args:
        path: the file to write.
        inputs: files that are read, which it must not replace.

    Raises:
        FastnegError: it is a folder or an input, or its folder cannot be made or written.
    """
    from fastneg.training.outputs import prepare_folder  # brings torch

    prepare_folder(path.parent)
    if path.is_dir():
        raise FastnegError(f"the output file {path} is a folder; give the name of a file")
    for one in inputs:
        if one is not None and path.exists() and one.exists() and path.samefile(one):
            raise FastnegError(f"the output file {path} is an input too; give another name")


def holds_codes(path: Path, columns: ColumnNames = BY_DEFAULT) -> bool:
    """Whether a file of interactions has codes and no ids."""
    if is_saved_folder(path):
        return not has_ids(path)
    return suffix_of(path) == ".npz" or columns.of_text(path).get("format") == "npz"


def _is_table(path: Path, columns: ColumnNames) -> bool:
    kind = columns.kind(path)
    return kind in TABLES or (kind == "folder" and not is_saved_folder(path))


def _is_other_text(path: Path, columns: ColumnNames) -> bool:
    """Whether nothing but its content says what a file is."""
    return columns.kind(path) == "unknown"


def read_first(
    path: Path, columns: ColumnNames, *, user_ids: Any = None, item_ids: Any = None
) -> Interactions:
    """The file whose ids, after those of the tables given, are the vocabulary.

    Args:
        path: anything that ``Interactions.read`` takes.
        columns: of a table.
        user_ids, item_ids: of a table of users or items: their codes come first.

    Raises:
        FastnegError: as ``Interactions.read``; beside an .npz, ids that are not its codes.
    """
    existing_file(path, call="read")
    named = columns.arguments(path)
    if _is_table(path, columns):
        return Interactions.read(path, user_ids=user_ids, item_ids=item_ids, **named)
    first = Interactions.read(path, **named)
    if holds_codes(path, columns):
        _require_codes(path, "users", user_ids, first.num_users)
        _require_codes(path, "items", item_ids, first.num_items)
        return first
    if user_ids is None and item_ids is None:
        return first
    return _recoded(
        first,
        first.user_ids if user_ids is None else _united(user_ids, first.user_ids),
        first.item_ids if item_ids is None else _united(item_ids, first.item_ids),
    )


def read_into(
    path: Path, columns: ColumnNames, first: Interactions, first_path: Path, *, with_time: bool
) -> Interactions:
    """Another file in the codes of ``first``; ids that are new get codes beyond its end.

    Raises:
        FastnegError: as ``Interactions.read``; an .npz beside a file with ids, or the reverse.
    """
    existing_file(path, call="read")
    refuse_mixing(first_path, path, columns)
    named = columns.arguments(path, with_time=with_time)
    if _is_table(path, columns):
        return Interactions.read(path, user_ids=first.user_ids, item_ids=first.item_ids, **named)
    if _is_other_text(first_path, columns) and _is_other_text(path, columns):
        # the first one was adjacency text; this one raises where it cannot be
        read_adjacency(
            path, TextFormat.of(columns.of_text(path), call="read"), call="read", asked=False,
            beside=True,
        )  # fmt: skip
        named["format"] = "adjacency"
    return _recoded(Interactions.read(path, **named), first.user_ids, first.item_ids)


def event_ids(path: Path, columns: ColumnNames, event: str) -> Any:
    """The ids of the events of a table's rows, in their order.

    Raises:
        FastnegError: no table, or one without that column.
    """
    if not _is_table(path, columns):
        raise FastnegError(
            f"{path} has no named columns, so no column {event!r} of events; give Parquet, Arrow, "
            "CSV or TSV"
        )
    table = read_columns(path, [event], call="read", text=(event,), **columns.of_text(path))
    table.refuse_missing(event, call="read")
    return table.data[event]


def refuse_mixing(first: Path, second: Path, columns: ColumnNames = BY_DEFAULT) -> None:
    """Raise where one file holds codes and the other ids: equal numbers would mean other things."""
    if holds_codes(first, columns) == holds_codes(second, columns):
        return
    codes, ids = (first, second) if holds_codes(first, columns) else (second, first)
    raise FastnegError(
        f"{codes} holds codes (row and column numbers), {ids} raw ids; give all files with codes "
        "(as .npz), or all with ids"
    )


def united(first: Interactions, second: Interactions) -> Interactions:
    """The rows of ``first`` with the users and items of both; ``second`` was read into it."""
    if (first.num_users, first.num_items) == (second.num_users, second.num_items):
        return first
    none = second.select(np.empty(0, np.int64))
    return none.append(
        first.decode_users(first.row_users),
        first.decode_items(first.row_items),
        weights=first.row_weights,
        times=first.row_times,
    )


def _recoded(read: Interactions, user_ids: Any, item_ids: Any) -> Interactions:
    return Interactions.from_pairs(
        read.decode_users(read.row_users),
        read.decode_items(read.row_items),
        weights=read.row_weights,
        times=read.row_times,
        user_ids=user_ids,
        item_ids=item_ids,
    )


def _united(table: AnyArray, own: AnyArray) -> AnyArray:
    """The table's ids, then those of the file that it lacks (a user without a single row)."""
    ids = Interactions.from_pairs(own, np.zeros(len(own), np.int64), user_ids=table).user_ids
    return np.asarray(ids)


def _require_codes(path: Path, what: str, ids: Any, size: int) -> None:
    """Raise unless all ids of a table are codes of a matrix."""
    if ids is None:
        return
    table = np.asarray(ids)
    right = f"beside {path}, which has no ids, the ids of a table of {what} are codes 0..{size - 1}"
    if table.dtype.kind not in "iu":
        raise FastnegError(f"{table[0]!r} is a raw id of the table of {what}; {right}")
    bad = (table < 0) | (table >= size)
    if bad.any():
        raise FastnegError(
            f"{int(table[bad][0])} is a raw id of the table of {what} ({int(bad.sum())} of "
            f"{bad.size} are no codes); {right}"
        )


# Tables keyed by id ----------------------------------------------------------------------------


@dataclass(frozen=True)
class TableOfIds:
    """A table of users or items with features, not read yet.

    Attributes:
        path: the file.
        id_column: its key.
        kinds: ``name=kind`` where a column's kind is not what it looks like.
        options: how the file is to be read.
    """

    path: Path
    id_column: str
    kinds: tuple[str, ...] = ()
    options: TextOptions = field(default_factory=TextOptions)

    def ids(self) -> AnyArray:
        """The ids, in the table's order."""
        return read_ids(self.path, id_column=self.id_column, **self.options)

    def features(self, ids: AnyArray) -> FeatureTable | None:
        """The features of ``ids``; None for a table that has ids alone."""
        columns = dict(kind_of(one) for one in self.kinds)
        table = FeatureTable.from_table(
            self.path, ids=ids, id_column=self.id_column, columns=columns, **self.options
        )
        return table if table.kinds else None


def kind_of(assignment: str) -> tuple[str, str]:
    """(column, kind) of ``COLUMN=KIND``."""
    name, equals, kind = assignment.partition("=")
    if not equals:
        raise FastnegError(
            f"{assignment!r}: give COLUMN=KIND, KIND one of categorical, multi, text, numeric, "
            "vector, ignore"
        )
    return name.strip(), kind.strip()


def read_listed(path: Path, column: str, columns: ColumnNames = BY_DEFAULT) -> AnyArray:
    """Ids in the order of a file, repeats included: a column of a table, or one id a line.

    Raises:
        FastnegError: no such file, an empty one, no such column, missing ids.
    """
    existing_file(path, call="read")
    form = TextFormat.of(columns.of_tables(), call="read")
    if file_kind(path, form, call="read") in TABLES:
        table = read_columns(path, [column], call="read", text=(column,), **columns.of_tables())
        table.refuse_missing(column, call="read")
        ids = table.data[column]
    else:
        ids = _read_lines(path, form)
    if len(ids) == 0:
        raise FileFormatError(f"{path} holds no ids")
    normal = normalise_ids(ids, call="read", name=f"{path}: {column}")
    return normal if isinstance(normal, np.ndarray) else normal.to_numpy(zero_copy_only=False)


def _read_lines(path: Path, form: TextFormat) -> Any:
    """The lines of a text that are not blank, as ids."""
    try:
        with open_text(path, form, call="read") as stream:
            lines = stream.read().decode().splitlines()
    except FastnegError:
        raise
    except DAMAGE as error:
        raise FileFormatError(f"{path} cannot be read as lines of ids: {error}") from error
    return ids_of_texts([one for one in lines if one.strip()], path, form)


def ids_of_texts(texts: Sequence[str], path: Path, form: TextFormat) -> Any:
    """Texts of a file as canonical ids.

    Raises:
        FastnegError: a text that means a missing value.
    """
    ids = canonical_texts(pa.array(texts, pa.large_string()))
    missing = without_null_texts(ids)[1] if form.nulls else None
    if missing is not None:
        raise FastnegError(
            f"{path} has {missing!r} for an id, a missing value; --no-nulls reads such texts as ids"
        )
    return ids
