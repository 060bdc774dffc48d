"""Files of interactions and ids as the commands take them, all in the codes of the first one.

Files speak ids; everything behind this page speaks codes. The first file (with a table of items or
users, where there is one) makes the vocabulary, and the others are read into it: ids that it does
not know get codes beyond its end, which evaluation counts as unknown. A sparse matrix (.npz) has
no ids; its row and column numbers are codes, and it goes with other matrices only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fastneg.checks import AnyArray
from fastneg.columns import normalise_ids, refuse_blank_ids
from fastneg.data.features import FeatureTable, read_ids
from fastneg.errors import FastnegError, FileFormatError
from fastneg.ids import canonical_texts
from fastneg.interactions import Interactions
from fastneg.storage import is_saved_folder
from fastneg.tables import ARROW, COMMA, PARQUET, TAB, existing_file, read_columns, suffix_of

TABLES = (*PARQUET, *ARROW, *COMMA, *TAB)


@dataclass(frozen=True)
class ColumnNames:
    """The columns of tables of interactions, as named by flags; None is a default or nothing.

    Attributes:
        user, item: ids; by default ``user`` and ``item``.
        weight, time: by default there are none.
        delimiter: of a text file, where the suffix does not say it.
        header: the columns of a text file without a header line.
    """

    user: str | None = None
    item: str | None = None
    weight: str | None = None
    time: str | None = None
    delimiter: str | None = None
    header: str | None = None

    def arguments(self, *, with_time: bool = True) -> dict[str, Any]:
        """The keywords of ``Interactions.read`` that are given.

        Raises:
            FastnegError: a delimiter of more than one character.
        """
        if self.delimiter is not None and len(_unescaped(self.delimiter) or "") != 1:
            raise FastnegError(f"delimiter = {self.delimiter!r}; give one character, or tab")
        named = {
            "user_column": self.user,
            "item_column": self.item,
            "weight_column": self.weight,
            "time_column": self.time if with_time else None,
            "delimiter": _unescaped(self.delimiter),
            "column_names": None if self.header is None else self.header.split(","),
        }
        return {name: value for name, value in named.items() if value is not None}


def _unescaped(delimiter: str | None) -> str | None:
    """A tab has no name at a shell, so it gets one here."""
    return {"\\t": "\t", "tab": "\t", "space": " "}.get(delimiter or "", delimiter)


BY_DEFAULT = ColumnNames()


def prepare_file(path: Path) -> None:
    """Find a file writable before any work starts, and make its folder.

    Raises:
        FastnegError: it is a folder, or its folder cannot be made or written.
    """
    from fastneg.training.outputs import prepare_folder  # brings torch

    prepare_folder(path.parent)
    if path.is_dir():
        raise FastnegError(f"the output file {path} is a folder; give the name of a file")


def holds_codes(path: Path) -> bool:
    """Whether a file of interactions has codes for ids."""
    return suffix_of(path) == ".npz" and not path.is_dir()


def _is_table(path: Path, columns: ColumnNames) -> bool:
    if columns.delimiter is not None or suffix_of(path) in TABLES:
        return True
    return path.is_dir() and not is_saved_folder(path)


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
    named = columns.arguments()
    if _is_table(path, columns):
        return Interactions.read(path, user_ids=user_ids, item_ids=item_ids, **named)
    first = Interactions.read(path, **named)
    if holds_codes(path):
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
    refuse_mixing(first_path, path)
    named = columns.arguments(with_time=with_time)
    if _is_table(path, columns):
        return Interactions.read(path, user_ids=first.user_ids, item_ids=first.item_ids, **named)
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
    named = columns.arguments()
    keys = {key: named[key] for key in ("delimiter", "column_names") if key in named}
    table = read_columns(path, [event], call="read", text=(event,), **keys)
    if table.from_text:
        refuse_blank_ids(table.data[event], call="read", name=f"{table.label}: {event}")
    return table.data[event]


def refuse_mixing(first: Path, second: Path) -> None:
    """Raise where one file holds codes and the other ids: they would be taken for each other."""
    if holds_codes(first) == holds_codes(second):
        return
    codes, ids = (first, second) if holds_codes(first) else (second, first)
    raise FastnegError(
        f"{codes} holds codes (row and column numbers), {ids} raw ids; give all files as .npz "
        "with the same codes, or all with ids"
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
    """

    path: Path
    id_column: str
    kinds: tuple[str, ...] = ()

    def ids(self) -> AnyArray:
        """The ids, in the table's order."""
        return read_ids(self.path, id_column=self.id_column)

    def features(self, ids: AnyArray) -> FeatureTable | None:
        """The features of ``ids``; None for a table that has ids alone."""
        columns = dict(kind_of(one) for one in self.kinds)
        table = FeatureTable.from_table(
            self.path, ids=ids, id_column=self.id_column, columns=columns
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


def read_listed(path: Path, column: str) -> AnyArray:
    """Ids in the order of a file, repeats included: a column of a table, or one id a line.

    Raises:
        FastnegError: no such file, an empty one, no such column, null ids.
    """
    existing_file(path, call="read")
    if suffix_of(path) in TABLES:
        ids = read_columns(path, [column], call="read", text=(column,)).data[column]
    else:
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise FileFormatError(f"{path} cannot be read as lines of ids: {error}") from error
        ids = canonical_texts(pa.array([one for one in lines if one.strip()], pa.large_string()))
    if len(ids) == 0:
        raise FileFormatError(f"{path} holds no ids")
    normal = normalise_ids(ids, call="read", name=f"{path}: {column}")
    return normal if isinstance(normal, np.ndarray) else normal.to_numpy(zero_copy_only=False)
